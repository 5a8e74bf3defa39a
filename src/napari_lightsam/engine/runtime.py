"""How a network is run: device, precision, memory; tensors in, float32 tensors out."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from napari_lightsam.engine.config import Precision, RuntimeName
from napari_lightsam.engine.forked import check_not_forked
from napari_lightsam.engine.stopping import check_stopped
from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import ConfigError, DeviceError
from napari_lightsam.model.build import reduce_precision
from napari_lightsam.model.sam import PromptTensors, Sam

if TYPE_CHECKING:
    from napari_lightsam.engine.resample import FloatArray

_MEMORY_WORDS = ("not enough memory", "out of memory", "can't allocate memory")
_SELF_TEST_SIDE = 256
_SELF_TEST_ERROR = 0.05  # of the embedding's norm; bfloat16 differs from float32 by 1-2%


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs, in what precision, and why.

    Attributes
    ----------
    name
        `cpu`, `mps`, `cuda` or `cuda:N`.
    precision
        `float32`, `bfloat16`, `float16` or `int8`.
    reason
        One sentence for people.
    runtime
        `torch` or `openvino`.
    encoder
        Identity of the quantised encoder that runs in place of the weights' own; empty where none does.
    """

    name: str
    precision: str
    reason: str
    runtime: str = "torch"
    encoder: str = ""


class Runtime(Protocol):
    """Runs a network: frames to tokens, tokens and prompts to masks; safe to use from any thread."""

    @property
    def device(self) -> Device:
        """Where and how it runs; does not change."""

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame (3, H, W) as tokens (1, 256, H/16, W/16) that `decode` takes."""

    def propose(self, tokens: Tensor) -> FloatArray | None:
        """Propose objects (5, 2h, 2w) in tokens (1, 256, h, w), as in `Sam.propose`; None without a head."""

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode N prompts in (1 or N, 256, h, w); returns logits (N, M, 4h, 4w) and predicted IoU (N, M)."""


class ForwardingRuntime(ABC):
    """A runtime that leaves the work to another one, but for what a subclass does itself."""

    @property
    @abstractmethod
    def runtime(self) -> Runtime:
        """The runtime that does the work."""

    @property
    def device(self) -> Device:
        """Where and how it runs."""
        return self.runtime.device

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame, as `Runtime.encode`."""
        return self.runtime.encode(frame)

    def propose(self, tokens: Tensor) -> FloatArray | None:
        """Propose objects, as `Runtime.propose`."""
        return self.runtime.propose(tokens)

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode prompts, as `Runtime.decode`."""
        return self.runtime.decode(tokens, prompts, multimask)


def waves() -> FloatArray:
    """Make a small frame (3, 256, 256) of waves, on which ways of computing are compared."""
    ramp = np.linspace(-1, 1, _SELF_TEST_SIDE, dtype=np.float32)
    return np.stack([np.sin(9 * ramp[:, None] + k) * np.cos(7 * ramp) for k in range(3)])


def choose_device(
    device: str = "auto", precision: Precision = "auto", runtime: RuntimeName = "auto"
) -> Device:
    """Choose device and precision for PyTorch: CUDA, then Apple's MPS, then the CPU.

    Parameters
    ----------
    device
        `auto`, `cpu`, `mps`, `cuda` or `cuda:N`.
    precision
        `auto` is bfloat16 on CPUs that compute in it, float16 on GPUs, else float32. `int8` is OpenVINO's.
    runtime
        `openvino` leaves only the CPU.

    Raises
    ------
    DeviceError
        If the device is not there.
    ConfigError
        If a name is unknown, or OpenVINO (or `int8`, which needs it) is asked for on a GPU.
    """
    if runtime not in get_args(RuntimeName):
        raise ConfigError(f"Unknown runtime {runtime!r}; choose one of {', '.join(get_args(RuntimeName))}.")
    if precision == "int8" and runtime == "torch":
        raise ConfigError("PyTorch does not run int8 here; use runtime='openvino', or precision='auto'.")
    if runtime == "openvino" or precision == "int8":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"OpenVINO runs on the CPU, not on {device!r}; use runtime='torch' there.")
        device = "cpu"
    if precision not in get_args(Precision):
        raise ConfigError(f"Unknown precision {precision!r}; choose one of {', '.join(get_args(Precision))}.")
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        why = {
            "cuda": "an NVIDIA or ROCm GPU is there",
            "mps": "Apple's GPU is there",
            "cpu": "no GPU was found",
        }[name]
    else:
        name, why = device, "it was asked for"
        _check_device(name)
    if precision != "auto":
        return Device(name, precision, f"{name} because {why}; {precision} because it was asked for.")
    if name != "cpu":
        return Device(name, "float16", f"{name} because {why}; float16 because GPUs are faster in it.")
    if _cpu_has_bfloat16():
        return Device(name, "bfloat16", f"cpu because {why}; bfloat16 because this CPU computes in it.")
    return Device(name, "float32", f"cpu because {why}; float32 because this CPU has no bfloat16 unit.")


def _check_device(name: str) -> None:
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"Unknown device {name!r}; choose auto, cpu, mps, cuda or cuda:N.")
    index = torch.device(name).index or 0
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and index < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }[kind]
    if not there:
        raise DeviceError(f"The device {name!r} is not available here; use device='auto' or 'cpu'.")


def _cpu_has_bfloat16() -> bool:
    """Tell whether the CPU multiplies bfloat16 matrices in hardware (AVX-512 BF16, AMX, Arm BF16)."""
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported"):
        check = getattr(torch.cpu, probe, None)
        if check is not None and check():
            return True
    return False


class TorchRuntime:
    """Runs a network with PyTorch; safe to use from any thread.

    Parameters
    ----------
    model
        In evaluation mode, float32.
    device
        From `choose_device`. A reduced precision is compared with float32 once, on a small image, and
        given up with a warning when it differs too much.
    """

    def __init__(self, model: Sam, device: Device) -> None:
        self.device = device
        self._model = model.to(device.name)
        for part in self._model.modules():
            if next(part.children(), None) is not None:  # a block of layers
                part.register_forward_pre_hook(_may_go_on)
        # Channels last: the encoder's convolutions are a third faster on CPUs.
        self._model.image_encoder.to(memory_format=torch.channels_last)
        self._dtype = torch.float32
        if device.precision != "float32":
            self._reduce_precision(getattr(torch, device.precision))

    def _reduce_precision(self, dtype: torch.dtype) -> None:
        """Switch to a narrower type if it embeds a small image like float32 does."""
        frame = waves()
        full, precise = self._model, self.encode(frame).float()
        self._model, self._dtype = reduce_precision(full, dtype), dtype
        error = float((self.encode(frame).float() - precise).norm() / precise.norm())
        if error < _SELF_TEST_ERROR:  # false for NaN as well
            return
        self._model, self._dtype = full, torch.float32
        tell(
            f"{self.device.precision} differs from float32 by {error:.1%} on {self.device.name}; "
            "float32 is used instead.",
            stacklevel=4,
        )
        reason = f"{self.device.name}; float32 because {self.device.precision} failed its check."
        self.device = Device(self.device.name, "float32", reason)

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame (3, H, W) as tokens (1, 256, H/16, W/16) on the device, in its precision.

        Raises
        ------
        DeviceError
            If the device has too little memory.
        """
        try:
            return self._encode(frame)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        self._free()
        try:
            return self._encode(frame)
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise self._memory_error() from error

    def _encode(self, frame: FloatArray) -> Tensor:
        check_not_forked()
        batch = torch.from_numpy(frame)[None].to(self.device.name, self._dtype)
        with torch.inference_mode():
            return self._model.encode(batch.contiguous(memory_format=torch.channels_last))

    def propose(self, tokens: Tensor) -> FloatArray | None:
        """Propose objects (5, 2h, 2w) in tokens (1, 256, h, w), as in `Sam.propose`; None without a head."""
        check_not_forked()
        with torch.inference_mode():
            found = self._model.propose(tokens.to(self._dtype))
            return None if found is None else found[0].float().cpu().numpy()

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode N prompts; returns logits (N, M, h, w) and predicted IoU (N, M).

        When memory runs out the batch is halved, down to one prompt.

        Raises
        ------
        DeviceError
            If even one prompt does not fit into memory.
        """
        check_not_forked()
        try:
            with torch.inference_mode():
                moved = PromptTensors(*(None if t is None else t.to(self.device.name) for t in prompts))  # type: ignore[arg-type]
                logits, iou = self._model.decode(tokens.to(self._dtype), moved, multimask)
                return logits.float().cpu().numpy(), iou.float().cpu().numpy()
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if len(prompts.points) == 1:
                raise self._memory_error() from error
        self._free()
        half = len(prompts.points) // 2
        parts = [
            self.decode(
                tokens if len(tokens) == 1 else tokens[part],
                PromptTensors(*(None if t is None else t[part] for t in prompts)),  # type: ignore[arg-type]
                multimask,
            )
            for part in (slice(0, half), slice(half, None))
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _free(self) -> None:
        gc.collect()
        if self.device.name.startswith("cuda"):
            torch.cuda.empty_cache()

    def _memory_error(self) -> DeviceError:
        return DeviceError(
            f"{self.device.name} has too little free memory for this model, even in the smallest batch. "
            "Close other programs, choose a smaller model such as 'lightsam', or use device='cpu'."
        )


def _may_go_on(*_: object) -> None:
    """Ask, before each block of layers, whether its result is still wanted."""
    check_stopped()


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(s in text for s in _MEMORY_WORDS)
