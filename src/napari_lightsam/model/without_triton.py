"""Importing timm beside a window: PyTorch's compiler for GPUs must stay away."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["import_timm"]


def import_timm() -> Any:
    """Import timm, also where a napari window is open."""
    with _no_triton():
        return importlib.import_module("timm")


@contextmanager
def _no_triton() -> Iterator[None]:
    """Keep torchvision, which timm imports, from importing triton beside a window.

    triton and Mesa's OpenGL drivers each bring an LLVM of their own; on Linux the process dies with a
    segmentation fault when triton is loaded after a window was opened. We do not use triton.
    """
    if sys.platform != "linux" or "triton" in sys.modules or "vispy" not in sys.modules:
        yield
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # Python's own way to say "cannot be imported"
    try:
        yield
    finally:
        del sys.modules["triton"]
