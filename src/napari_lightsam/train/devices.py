"""Where a training step is computed, in which precision, and in which order it adds up."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.utils import deterministic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from napari_lightsam.train.crops import Batch


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device, frames with channels last, as convolutions like them."""
    if batch.frames.device != device:
        moved = {name: part.to(device, non_blocking=True) for name, part in _tensors(batch._asdict())}
        batch = batch._replace(
            **moved, objects=type(batch.objects)(*(part.to(device) for part in batch.objects))
        )
    return batch._replace(frames=batch.frames.contiguous(memory_format=torch.channels_last))


def _tensors(parts: Mapping[str, object]) -> Iterator[tuple[str, Tensor]]:
    return ((name, part) for name, part in parts.items() if isinstance(part, torch.Tensor))


def half_precision(device: torch.device) -> AbstractContextManager[object]:
    """Compute in bfloat16 where that is native; float16 is no choice, as the neck overflows it."""
    if device.type == "cpu" or (device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8):
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


@contextmanager
def own_random(device: torch.device) -> Iterator[None]:
    """Give PyTorch's global random numbers back as they were: those of a running napari are not ours."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def sum_in_order() -> Iterator[None]:
    """Add up gradients in a fixed order: those of TinyViT's gathered attention biases are not by default.

    The mode would also fill every new tensor with NaN to show reads of memory that nobody wrote; that costs
    5% of a step and changes nothing here.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
