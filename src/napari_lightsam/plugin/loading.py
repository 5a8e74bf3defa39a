"""Loading a model inside a napari process."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lightsam.engine.segmenter import Segmenter


def load(model: str, *, cache: bool = True) -> Segmenter:
    """Load a model, as `load_segmenter` does, without crashing a running napari window.

    Embeddings are kept on disk, unless `cache` is False: an image that was open before answers at once. The
    first call imports torch and timm, which takes seconds: windows call it in their worker.
    """
    with _no_triton():
        from napari_lightsam.engine.segmenter import load_segmenter

        return load_segmenter(model, cache=cache)


def import_training() -> None:
    """Import what teaches a model, which takes as long as `load`: windows call it in their worker."""
    with _no_triton():
        import napari_lightsam.train.finetune  # noqa: F401  (for its first import to be this one)


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
