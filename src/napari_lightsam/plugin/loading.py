"""Loading a model inside a napari process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_lightsam.engine.segmenter import Segmenter


def load(model: str, *, cache: bool = True) -> Segmenter:
    """Load a model, as `load_segmenter` does.

    Embeddings are kept on disk, unless `cache` is False: an image that was open before answers at once. The
    first call imports torch and timm, which takes seconds: windows call it in their worker.
    """
    from napari_lightsam.engine.segmenter import load_segmenter

    return load_segmenter(model, cache=cache)


def import_training() -> None:
    """Import what teaches a model, which takes as long as `load`: windows call it in their worker."""
    import napari_lightsam.train.finetune  # noqa: F401  (for its first import to be this one)
