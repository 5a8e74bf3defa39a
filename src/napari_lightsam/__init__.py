"""Lightweight Segment Anything for microscopy, in napari, scripts and batches.

The public names are imported when they are first used, so that `import napari_lightsam` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Embedding": "engine.level",
    "EverythingConfig": "engine.config",
    "Mask": "engine.masks",
    "Masks": "engine.masks",
    "Progress": "engine.progress",
    "Recipe": "batch.recipe",
    "Segmentation": "engine.everything",
    "Segmenter": "engine.segmenter",
    "StackSegmentation": "engine.stack",
    "drain": "engine.progress",
    "propagate": "engine.propagate",
    "load_segmenter": "engine.segmenter",
    "open_and_segment": "plugin.commands",
    "read_recipe": "batch.recipe",
    "segment_everything": "engine.everything",
    "segment_many": "batch.run",
    "segment_slide": "batch.slide",
    "segment_stack": "engine.stack",
}

__all__ = [
    "Embedding",
    "EverythingConfig",
    "Mask",
    "Masks",
    "Progress",
    "Recipe",
    "Segmentation",
    "Segmenter",
    "StackSegmentation",
    "drain",
    "load_segmenter",
    "open_and_segment",
    "propagate",
    "read_recipe",
    "segment_everything",
    "segment_many",
    "segment_slide",
    "segment_stack",
]

if TYPE_CHECKING:
    from .batch.recipe import Recipe, read_recipe
    from .batch.run import segment_many
    from .batch.slide import segment_slide
    from .engine.config import EverythingConfig
    from .engine.everything import Segmentation, segment_everything
    from .engine.level import Embedding
    from .engine.masks import Mask, Masks
    from .engine.progress import Progress, drain
    from .engine.propagate import propagate
    from .engine.segmenter import Segmenter, load_segmenter
    from .engine.stack import StackSegmentation, segment_stack
    from .plugin.commands import open_and_segment


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
