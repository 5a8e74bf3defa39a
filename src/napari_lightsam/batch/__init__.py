"""Many images to label images, tables and records: resumable, and never at an input's expense.

The names are imported when they are first used: the command line reads the settings without the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_lightsam.batch.run import segment_files
    from napari_lightsam.batch.settings import BatchReport, BatchSettings, FileOutcome

__all__ = ["BatchReport", "BatchSettings", "FileOutcome", "segment_files"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "run" if name == "segment_files" else "settings"
    return getattr(import_module(f"{__name__}.{home}"), name)
