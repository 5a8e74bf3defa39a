"""The whole network on the CPU by OpenVINO: about twice PyTorch's speed for the encoder, more for prompts.

The graphs are built from the torch module's own weights (`openvino_encoder`, `openvino_decoder`) and compiled
when a model is loaded, in about half a second and while the caller goes on; nothing is converted, and nothing
is kept on disk. One graph serves every frame size, one each size of the decoding window.

Encoder and decoder both run here, because the threads of two libraries that take turns keep each other from
the processor's cores. Where OpenVINO is used, `engine.starting` decides.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_lightsam.engine.forked import check_not_forked
from napari_lightsam.engine.openvino_decoder import decoder_graph, proposal_graph
from napari_lightsam.engine.openvino_encoder import FRAME_UNIT, encoder_graph
from napari_lightsam.engine.quantized import NOT_QUANTIZED, encoder_identity, find_quantized
from napari_lightsam.engine.runtime import Device, waves
from napari_lightsam.engine.stopping import Stopped, check_stopped
from napari_lightsam.errors import ConfigError, DeviceError, LightSamError
from napari_lightsam.model.importing import import_without
from napari_lightsam.model.sam import PromptTensors, Sam
from napari_lightsam.model.spec import TINY_VIT_WIDTHS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_lightsam.engine.config import Precision
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.weights import LoadedModel

__all__ = [
    "OpenVinoRuntime",
    "compile_hints",
    "first_line",
    "load_core",
    "load_openvino",
    "load_silently",
    "why_not",
]

_ERROR = {"bfloat16": 0.05, "float32": 1e-3, "int8": 0.5}  # of the norm: usual are 0.6%, 1e-6 and 6%
_HINTS = {"bfloat16": "bf16", "float32": "f32"}
_TELEMETRY = "openvino_telemetry"
_AREA = 4096  # image tokens decoded at once: what stays in a core's cache is decoded a quarter faster
_BEAT = 100  # milliseconds, after which Python is let go to hear Ctrl-C and whether it is to stop
_KEPT = 4  # compiled sizes of the decoding window

_CAPABILITIES = "OPTIMIZATION_CAPABILITIES"

_making = threading.Lock()
_core: list[Any] = []


def load_silently(name: str) -> Any:
    """Import OpenVINO or what builds on it without telemetry, which would write a client id and send events.

    Raises
    ------
    ImportError
        The package is not installed or does not start.
    """
    # upon which these packages take their own do-nothing stand-ins
    return import_without(_TELEMETRY, name)


def load_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Raises
    ------
    DeviceError
        OpenVINO is not installed or does not start.
    """
    try:
        return load_silently("openvino")
    except ImportError as error:
        raise DeviceError(
            f"OpenVINO cannot be used here ({error}); install openvino, or use runtime='torch'."
        ) from error


def load_core() -> Any:
    """Return OpenVINO's `Core`: one, for as long as the process lives.

    Each gives the thread that makes it a stack of its own for handling signals, and takes it away when it
    goes. Where several go in another order than they came, the thread is left with a stack that is gone, and
    its next signal, such as Ctrl-C or the end of a child, ends the process. So there is one, made by a thread
    that nothing else runs in.

    Raises
    ------
    DeviceError
        OpenVINO is not installed or does not start.
    """

    def make() -> Any:
        core = openvino.Core()
        core.get_property("CPU", _CAPABILITIES)  # which is when the part for the processor is made
        return core

    openvino = load_openvino()
    with _making:
        if not _core:
            try:
                with ThreadPoolExecutor(1) as thread:
                    _core.append(thread.submit(make).result())
            except RuntimeError as error:
                raise DeviceError(f"OpenVINO failed: {first_line(error)} Use runtime='torch'.") from error
        return _core[0]


def why_not(loaded: LoadedModel, precision: Precision) -> str:
    """Say why OpenVINO need not even be tried for a model, or ""."""
    if loaded.spec.architecture not in TINY_VIT_WIDTHS:
        return "OpenVINO is used for TinyViT encoders only"
    if precision not in ("auto", *_HINTS):
        return f"OpenVINO does not run {precision}"
    try:
        _choose_precision(load_core(), precision)
    except (LightSamError, RuntimeError) as error:
        return first_line(error)
    return ""


class OpenVinoRuntime:
    """Embeds frames and decodes prompts with OpenVINO; safe to use from any thread.

    Parameters
    ----------
    loaded
        A model with a TinyViT encoder.
    precision
        `auto` is bfloat16 where the CPU computes in it, else float32. With `int8` the encoder computes in
        whole numbers of eight bits, and the rest as with `auto`.
    quantized
        File of the int8 encoder; None for the one that `lightsam quantize` saved.

    Raises
    ------
    ConfigError
        The precision is not one that OpenVINO runs here, or the model was not quantised.
    DeviceError
        OpenVINO is missing, does not run this model, fails, or computes something else than PyTorch.
    """

    def __init__(
        self, loaded: LoadedModel, precision: Precision = "auto", quantized: Path | None = None
    ) -> None:
        if loaded.spec.architecture not in TINY_VIT_WIDTHS:
            raise DeviceError(
                f"OpenVINO is used for models with a TinyViT encoder only, not for {loaded.spec.name}; "
                "use runtime='torch'."
            )
        self._openvino, self._core = load_openvino(), load_core()
        self._model: Sam = loaded.model
        self._graphs: OrderedDict[tuple[int, int] | str, _Graph] = OrderedDict()
        self._building = threading.Lock()
        try:
            self.device, self._float = _choose_precision(self._core, precision)
            self._dtype: torch.dtype = getattr(torch, self._float)
            self._encoder = self._compile(self._encoder_graph(loaded, quantized))
        except RuntimeError as error:
            raise DeviceError(f"OpenVINO failed: {first_line(error)} Use runtime='torch'.") from error
        self._self_test()
        whole = self._model  # PyTorch's encoder has served its purpose, and is most of a model's memory
        self._model = Sam(nn.Identity(), whole.prompt_encoder, whole.mask_decoder, whole.proposal_head)

    def _encoder_graph(self, loaded: LoadedModel, quantized: Path | None) -> Any:
        if self.device.precision != "int8":
            return encoder_graph(self._openvino, loaded.model.image_encoder, _HINTS[self._float])
        path = quantized or find_quantized(loaded.weights_hash)
        if path is None:
            raise ConfigError(NOT_QUANTIZED.format(loaded.spec.name))
        self.device = replace(self.device, encoder=encoder_identity(path))
        graph = self._openvino.preprocess.PrePostProcessor(self._core.read_model(path))
        graph.output(0).tensor().set_element_type(getattr(self._openvino.Type, _HINTS[self._float]))
        return graph.build()

    def _compile(self, graph: Any) -> _Graph:
        hints = compile_hints(self._float)
        return _Graph(
            self._openvino,
            self._core.compile_model(graph, "CPU", hints),
            lambda exported: self._core.import_model(exported, "CPU", hints),
        )

    def _graph(self, key: tuple[int, int] | str) -> _Graph:
        """Return the decoder for an area of (height, width) tokens, or the "proposals" graph."""
        with self._building:
            graph = self._graphs.pop(key, None)
            if graph is None:
                check_stopped()
                graph = self._compile(self._decoder_graph(key))
            self._graphs[key] = graph
            while len(self._graphs) > _KEPT:
                self._graphs.popitem(last=False)
            return graph

    def _decoder_graph(self, key: tuple[int, int] | str) -> Any:
        kind = _HINTS[self._float]
        if isinstance(key, str):
            assert self._model.proposal_head is not None
            return proposal_graph(self._openvino, self._model.proposal_head, kind)
        return decoder_graph(self._openvino, self._model, *key, kind)

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame (3, H, W), sides multiples of 32, as tokens (1, 256, H/16, W/16).

        The tokens lie in memory with their channels last.

        Raises
        ------
        DeviceError
            If OpenVINO fails, for instance for lack of memory.
        """
        height, width = frame.shape[1:]
        assert height % FRAME_UNIT == width % FRAME_UNIT == 0
        tokens = torch.empty((1, height // 16, width // 16, 256), dtype=self._dtype)
        self._run(self._encoder, [np.ascontiguousarray(frame[None], np.float32)], [tokens])
        return tokens.permute(0, 3, 1, 2)

    def propose(self, tokens: Tensor) -> FloatArray | None:
        """Propose objects (5, 2h, 2w) in tokens (1, 256, h, w), as in `Sam.propose`; None without a head.

        Raises
        ------
        DeviceError
            If OpenVINO fails.
        """
        if self._model.proposal_head is None:
            return None
        height, width = tokens.shape[-2:]
        found = np.empty((1, 5, 2 * height, 2 * width), np.float32)
        self._run(self._graph("proposals"), [self._tokens_last(tokens)], [found])
        proposed: FloatArray = found[0]
        return proposed

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode N prompts; returns logits (N, M, 4h, 4w) and predicted IoU (N, M).

        Raises
        ------
        DeviceError
            If OpenVINO fails, for instance for lack of memory.
        """
        height, width = tokens.shape[-2:]
        number, area = len(prompts.points), height * width
        with torch.inference_mode():
            encoder = self._model.prompt_encoder
            sparse = encoder.tokens(prompts.points, prompts.labels, prompts.boxes, (height, width)).numpy()
            dense = encoder.dense(prompts.masks).flatten(2).transpose(1, 2).contiguous().numpy()
            image = self._tokens_last(tokens).reshape(len(tokens), area, -1)
        wanted = np.arange(1, 4) if multimask else np.arange(1)
        logits = np.empty((number, len(wanted), 4 * height, 4 * width), np.float32)
        iou = np.empty((number, len(wanted)), np.float32)
        graph, step = self._graph((height, width)), max(1, _AREA // area)
        for first in range(0, number, step):
            part = slice(first, first + step)
            count = len(sparse[part])
            size = min(step, _round_up(count))
            own = [array if len(array) == 1 else _fill(array[part], size) for array in (image, dense)]
            outputs = [logits[part], iou[part]]
            if size > count:
                outputs = [np.empty((size, *array.shape[1:]), np.float32) for array in outputs]
            self._run(graph, [*own, _fill(sparse[part], size), wanted], outputs)
            if size > count:
                logits[part], iou[part] = (array[:count] for array in outputs)
        return logits, iou

    def _tokens_last(self, tokens: Tensor) -> Tensor:
        return tokens.to(self._dtype).permute(0, 2, 3, 1).contiguous()

    def _run(self, graph: _Graph, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        check_not_forked()
        try:
            graph.run(inputs, outputs)
        except (RuntimeError, MemoryError) as error:
            raise DeviceError(f"OpenVINO failed: {first_line(error)} Use runtime='torch'.") from error

    def _self_test(self) -> None:
        """Compare with PyTorch in float32: the tokens of a small image, and the mask of one click in them."""
        frame = waves()
        with torch.inference_mode():
            precise = self._model.encode(torch.from_numpy(frame)[None])
            middle = torch.tensor([[list(frame.shape[:0:-1])]]).float() / 2
            click = PromptTensors(middle, torch.ones(1, 1, dtype=torch.long))
            mask = self._model.decode(precise, click, False)[0].numpy()
        self._compare(self.device.precision, self.encode(frame).float().numpy(), precise.numpy())
        self._compare(self._float, self.decode(precise, click, False)[0], mask)

    def _compare(self, precision: str, found: FloatArray, expected: FloatArray) -> None:
        error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if not error < _ERROR[precision]:  # true for NaN as well
            raise DeviceError(
                f"OpenVINO in {precision} differs from PyTorch by {error:.1%} here; use runtime='torch'."
            )


def _round_up(count: int) -> int:
    """Return the number of prompts that is decoded for so many: the library keeps what it makes for each.

    Every other number would cost it time to prepare, and megabytes for as long as the process lives.
    """
    unit = 1 if count <= 2 else 4 if count <= 16 else 8
    return -(-count // unit) * unit


def _fill(array: Any, size: int) -> Any:
    """Repeat the last of N prompts until there are `size`."""
    if len(array) == size:
        return array
    last = array[-1:]
    if isinstance(array, Tensor):
        return torch.cat([array, last.expand(size - len(array), *last.shape[1:])])
    return np.concatenate([array, np.broadcast_to(last, (size - len(array), *last.shape[1:]))])


def compile_hints(precision: str) -> dict[str, Any]:
    """Return the properties with which graphs are compiled to compute in bfloat16 or float32."""
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    hints["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdecimal() and int(threads) > 0:  # what people limit threads by; PyTorch obeys it as well
        hints["INFERENCE_NUM_THREADS"] = int(threads)
    return hints


class _Graph:
    """A compiled graph, run by one thread at a time."""

    def __init__(self, openvino: Any, compiled: Any, again: Callable[[bytes], Any]) -> None:
        self._openvino, self._compiled, self._again = openvino, compiled, again
        self._request = compiled.create_infer_request()
        self._exported: bytes | None = None
        self._lock = threading.Lock()
        self._busy: tuple[Sequence[Any], Sequence[Any]] | None = None

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Compute from arrays or tensors into others, without copies.

        Ctrl-C is heard meanwhile. The library then goes on by itself, in memory that is kept for it.

        Raises
        ------
        Stopped
            This thread was asked to end; the library has ended, too.
        """
        with self._lock:
            check_stopped()  # whoever waited, perhaps for one that was stopped, need not compile
            if self._busy is not None:  # what Ctrl-C left
                with suppress(RuntimeError):
                    self._finish()
            if self._request is None:
                if self._exported is None:  # what was made from an export cannot be exported itself
                    self._exported = self._compiled.export_model()
                self._compiled = self._again(self._exported)
                self._request = self._compiled.create_infer_request()
            for index, array in enumerate(outputs):
                self._request.set_output_tensor(index, self._wrap(array))
            for index, array in enumerate(inputs):
                self._request.set_input_tensor(index, self._wrap(array))
            self._busy = inputs, outputs
            self._request.start_async()
            self._finish()

    def _finish(self) -> None:
        try:
            while not self._request.wait_for(_BEAT):
                check_stopped()
        except RuntimeError:
            self._busy = None
            raise
        except Stopped:
            self._cancel()
            raise
        self._busy = None

    def _cancel(self) -> None:
        """End the library's work between two layers, and the graph: it remembers shapes of both halves."""
        self._request.cancel()
        with suppress(RuntimeError):  # which says that it was cancelled
            self._request.wait()
        self._request = self._busy = None

    def _wrap(self, array: Tensor | NDArray[Any]) -> Any:
        openvino = self._openvino
        if isinstance(array, Tensor):
            if array.dtype == torch.bfloat16:  # which NumPy does not know
                bits = array.view(torch.int16).numpy()
                return openvino.Tensor(bits, openvino.Shape(list(array.shape)), openvino.Type.bf16)
            array = array.numpy()
        return openvino.Tensor(array, shared_memory=True)


def _choose_precision(core: Any, precision: Precision) -> tuple[Device, str]:
    """Return the device, and the float type of what does not compute in eight bits."""
    there = "BF16" in core.get_property("CPU", _CAPABILITIES)
    if precision not in ("auto", "int8", *_HINTS) or (precision == "bfloat16" and not there):
        raise ConfigError(
            f"OpenVINO does not run {precision} on this CPU; use precision='auto', or runtime='torch'."
        )
    fast = "bfloat16" if there else "float32"
    name = fast if precision == "auto" else precision
    unit = "this CPU computes in it" if there else "OpenVINO finds no bfloat16 unit in this CPU"
    reason = "it was asked for" if precision != "auto" else unit
    device = Device("cpu", name, f"cpu by OpenVINO; {name} because {reason}.", "openvino")
    return device, (fast if precision == "int8" else name)


def first_line(error: Exception) -> str:
    """Return what matters of an error of OpenVINO's, whose messages are long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".") + "."
