"""Embedding on the CPU by OpenVINO: about half of PyTorch's time for the encoder.

One conversion serves every frame size (`model.export`), so a model is converted once (ten seconds or more),
kept in the cache folder, and compiled in under a second in each process. Which
runtime runs is decided when a model is loaded and stays: all images and prompts of a `Segmenter` go the same
way, whatever is in the cache.

`runtime="auto"` means PyTorch, unless this model was prepared on this computer (`lightsam models prepare`),
which is a choice that a person made once for Python, command line and widget alike. It does not mean
"OpenVINO as soon as a conversion happens to lie in the cache": masks agree to an IoU of .998 on average but
not in every pixel, and equal calls must give equal results. Nor does it mean "OpenVINO wherever it is
installed": a single small image would wait longer for the compilation than it gains.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import threading
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_lightsam.engine.converted import find_converted, folder_of, is_prepared, store
from napari_lightsam.engine.image import LightSamWarning
from napari_lightsam.engine.runtime import Device, Precision, Runtime, RuntimeName, TorchRuntime, waves
from napari_lightsam.errors import ConfigError, DeviceError
from napari_lightsam.model.export import FRAME_UNIT, export_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.weights import LoadedModel
    from napari_lightsam.model.sam import PromptTensors, Sam

__all__ = ["OpenVinoRuntime", "load_openvino", "make_runtime"]

_FORMAT = "1"  # of what is stored; another number makes every computer convert again
_ERROR = {"bfloat16": 0.05, "float32": 1e-3}  # of the norm: OpenVINO differs by 0.6% and 1e-6
_HINTS = {"bfloat16": "bf16", "float32": "f32"}
_TELEMETRY = "openvino_telemetry"
_FILE = "encoder.xml"

_importing = threading.Lock()


def load_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would write a client id and send events.

    Raises
    ------
    DeviceError
        OpenVINO is not installed or does not start.
    """
    with _importing:
        before = sys.modules.get(_TELEMETRY)
        # None makes the import fail, upon which OpenVINO takes its own do-nothing stand-in.
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
        try:
            openvino = importlib.import_module("openvino")
            silent = importlib.import_module("openvino.tools.ovc.telemetry_stub")
            for name in ("convert_impl", "telemetry_utils", "utils"):
                # Another package may have imported OpenVINO before, telemetry included.
                importlib.import_module(f"openvino.tools.ovc.{name}").tm = silent  # type: ignore[attr-defined]
        except ImportError as error:
            raise DeviceError(
                f"OpenVINO cannot be used here ({error}); install openvino, or use runtime='torch'."
            ) from error
        finally:
            if before is None:
                del sys.modules[_TELEMETRY]
            else:
                sys.modules[_TELEMETRY] = before
    return openvino


def make_runtime(
    loaded: LoadedModel, device: Device, precision: Precision = "auto", runtime: RuntimeName = "auto"
) -> Runtime:
    """Choose a runtime for a model and start it.

    Parameters
    ----------
    loaded
        The model.
    device
        From `choose_device`, with the same precision and runtime.
    precision, runtime
        As in `load_segmenter`.

    Raises
    ------
    ConfigError
        OpenVINO was asked for with a precision that it does not run here.
    DeviceError
        OpenVINO was asked for and cannot run this model here.
    """
    asked = runtime == "openvino"
    prepared = runtime == "auto" and device.name == "cpu" and is_prepared(loaded.weights_hash)
    if not (asked or prepared):
        return TorchRuntime(loaded.model, device)
    try:
        why = "it was asked for" if asked else "this model was prepared for it"
        return OpenVinoRuntime(loaded, precision, why)
    except _SelfTestError as error:
        problem = str(error)
    except (ConfigError, DeviceError) as error:
        if asked:
            raise
        problem = str(error)
    warnings.warn(f"{problem} PyTorch is used instead.", LightSamWarning, stacklevel=3)
    reason = f"{device.reason} PyTorch because OpenVINO failed."
    return TorchRuntime(loaded.model, replace(device, reason=reason))


class _SelfTestError(Exception):
    """OpenVINO computes something else than PyTorch."""


class OpenVinoRuntime:
    """Embeds frames with OpenVINO and decodes prompts with PyTorch; safe to use from any thread.

    The decoder stays in PyTorch, in the same precision, because OpenVINO's was no faster in a whole run.

    Parameters
    ----------
    loaded
        A model with a TinyViT encoder.
    precision
        `auto` is bfloat16 where the CPU computes in it, else float32.
    why
        Why OpenVINO; ends the sentence "OpenVINO because ...".

    Raises
    ------
    ConfigError
        The precision is not one that OpenVINO runs here.
    DeviceError
        OpenVINO is missing, does not run this model, or fails.
    """

    def __init__(
        self, loaded: LoadedModel, precision: Precision = "auto", why: str = "it was asked for"
    ) -> None:
        if loaded.spec.architecture != "vit_t":
            raise DeviceError(
                f"OpenVINO is used for models with a TinyViT encoder only, not for {loaded.spec.name}; "
                "use runtime='torch'."
            )
        openvino = load_openvino()
        self._lock = threading.Lock()
        try:
            core = openvino.Core()
            self.device = _choose_precision(core, precision, why)
            hint = _HINTS[self.device.precision]
            hints = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
            with _converted(openvino, loaded) as folder:
                model = core.compile_model(core.read_model(folder / _FILE), "CPU", hints)
            self._request = model.create_infer_request()
        except (RuntimeError, OSError) as error:
            raise DeviceError(f"OpenVINO failed: {_first_line(error)} Use runtime='torch'.") from error
        self._self_test(loaded.model)
        self._torch = TorchRuntime(loaded.model, self.device)

    def _embed(self, frame: FloatArray) -> FloatArray:
        try:
            with self._lock:
                self._request.infer([np.ascontiguousarray(frame[None])], share_inputs=True)
                return np.array(self._request.get_output_tensor(0).data)  # its memory is used again
        except (RuntimeError, MemoryError) as error:
            raise DeviceError(f"OpenVINO failed: {_first_line(error)} Use runtime='torch'.") from error

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame (3, H, W), sides multiples of 32, as tokens (1, 256, H/16, W/16).

        Raises
        ------
        DeviceError
            If OpenVINO fails, for instance for lack of memory.
        """
        assert all(side % FRAME_UNIT == 0 for side in frame.shape[1:])
        return torch.from_numpy(self._embed(frame)).to(getattr(torch, self.device.precision))

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode N prompts; returns logits (N, M, h, w) and predicted IoU (N, M).

        Raises
        ------
        DeviceError
            If memory runs out.
        """
        return self._torch.decode(tokens, prompts, multimask)

    def _self_test(self, model: Sam) -> None:
        """Compare with PyTorch in float32 on a small image."""
        frame = waves()
        with torch.inference_mode():
            precise = model.encode(torch.from_numpy(frame)[None]).numpy()
        error = float(np.linalg.norm(self._embed(frame) - precise) / np.linalg.norm(precise))
        if not error < _ERROR[self.device.precision]:  # true for NaN as well
            raise _SelfTestError(
                f"OpenVINO in {self.device.precision} differs from PyTorch by {error:.1%} here."
            )


def _choose_precision(core: Any, precision: Precision, why: str) -> Device:
    there = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision not in ("auto", *_HINTS) or (precision == "bfloat16" and not there):
        raise ConfigError(
            f"OpenVINO does not run {precision} on this CPU; use precision='auto', or runtime='torch'."
        )
    name = ("bfloat16" if there else "float32") if precision == "auto" else precision
    unit = "this CPU computes in it" if there else "OpenVINO finds no bfloat16 unit in this CPU"
    reason = "it was asked for" if precision != "auto" else unit
    return Device("cpu", name, f"cpu by OpenVINO because {why}; {name} because {reason}.", "openvino")


@contextmanager
def _converted(openvino: Any, loaded: LoadedModel) -> Iterator[Path]:
    """Folder with the converted model: in the cache where that can be written, else a temporary one."""
    versions = (openvino.get_version(), torch.__version__, _FORMAT)
    folder = folder_of((loaded.weights_hash, *versions))
    if find_converted(folder):
        yield folder
        return
    write = _convert(openvino, loaded.model)
    try:
        store(folder, write)
    except (OSError, RuntimeError) as error:  # OpenVINO's writer raises the latter
        warnings.warn(
            f"The converted model cannot be kept in {folder.parent}: {_first_line(error)} It will be "
            "converted again next time; set LIGHTSAM_CACHE to a folder that can be written.",
            LightSamWarning,
            stacklevel=6,
        )
    else:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="lightsam-", ignore_cleanup_errors=True) as temporary:
        write(Path(temporary))
        yield Path(temporary)


def _convert(openvino: Any, model: Sam) -> Callable[[Path], None]:
    """Convert the encoder; returns the function that writes it to a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about its own future
        converted = openvino.convert_model(export_encoder(model))

    def write(folder: Path) -> None:
        openvino.save_model(converted, folder / _FILE, compress_to_fp16=False)

    return write


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".") + "."
