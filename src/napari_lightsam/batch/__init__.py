"""Many images to label images, tables and records: resumable, and never at an input's expense.

The names are imported when they are first used: the command line reads the settings without the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_lightsam.batch.recipe import Recipe, read_recipe, write_recipe
    from napari_lightsam.batch.run import segment_many
    from napari_lightsam.batch.settings import BatchReport, BatchSettings, FileOutcome
    from napari_lightsam.batch.slide import SlideReport, segment_slide

_HOME = {
    "BatchReport": "settings",
    "BatchSettings": "settings",
    "FileOutcome": "settings",
    "Recipe": "recipe",
    "SlideReport": "slide",
    "read_recipe": "recipe",
    "segment_many": "run",
    "segment_slide": "slide",
    "write_recipe": "recipe",
}

__all__ = [
    "BatchReport",
    "BatchSettings",
    "FileOutcome",
    "Recipe",
    "SlideReport",
    "read_recipe",
    "segment_many",
    "segment_slide",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
