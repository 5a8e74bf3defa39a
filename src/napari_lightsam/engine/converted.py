"""Converted encoders on disk: kept in the cache folder, whole or not at all, rebuilt when damaged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.cache import cache_folder
from napari_lightsam.engine.verify import file_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["find_converted", "folder_of", "is_prepared", "mark_prepared", "prepared_models", "store"]

_MANIFEST = "hashes.json"
_KEPT = 4  # models of 28 MB each
_STALE = 24 * 3600.0


def converted_folder() -> Path:
    """Folder of everything converted; it need not exist."""
    return cache_folder() / "openvino"


def folder_of(parts: Sequence[str]) -> Path:
    """Folder of one conversion; `parts` is all that it depends on, the weights' hash first."""
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return converted_folder() / f"{parts[0][:16]}-{key[:16]}"


def find_converted(folder: Path) -> bool:
    """Tell whether a folder holds exactly what was stored in it."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        whole = all(file_hash(folder / Path(name).name, "sha256") == value for name, value in hashes.items())
        if whole:
            with contextlib.suppress(OSError):  # a read-only cache is as good
                os.utime(folder)
        return whole and bool(hashes)
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def store(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write` and give it its name only when it is whole.

    Raises
    ------
    OSError
        The cache folder is read-only or full; nothing is left behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
    try:
        write(part)
        files = sorted(part.iterdir())
        for file in files:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        hashes = {file.name: file_hash(file, "sha256") for file in files}
        (part / _MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
        if folder.exists() and not find_converted(folder):
            shutil.rmtree(folder)
        if not folder.exists():
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sweep(folder.parent)


def _sweep(parent: Path) -> None:
    """Drop what was used longest ago, and what killed processes left."""
    with contextlib.suppress(OSError):
        folders = sorted((p for p in parent.iterdir() if p.is_dir()), key=lambda p: -p.stat().st_mtime)
        whole = [p for p in folders if not p.name.startswith(".")]
        left = [p for p in folders if p.name.startswith(".") and time.time() - p.stat().st_mtime > _STALE]
        for old in whole[_KEPT:] + left:
            shutil.rmtree(old, ignore_errors=True)


def _mark(weights_hash: str) -> Path:
    return converted_folder() / f"{weights_hash[:32]}.prepared"


def is_prepared(weights_hash: str) -> bool:
    """Tell whether `lightsam models prepare` chose OpenVINO for this model on this computer."""
    return _mark(weights_hash).is_file()


def mark_prepared(weights_hash: str, name: str, *, on: bool) -> None:
    """Choose OpenVINO (or PyTorch again) for a model wherever the runtime is left to us.

    Raises
    ------
    OSError
        The cache folder cannot be written.
    """
    mark = _mark(weights_hash)
    if not on:
        mark.unlink(missing_ok=True)
        return
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.write_text(name + "\n", encoding="utf-8")


def prepared_models() -> tuple[str, ...]:
    """Names of the models that were prepared."""
    with contextlib.suppress(OSError, UnicodeError):
        marks = sorted(converted_folder().glob("*.prepared"))
        return tuple(mark.read_text(encoding="utf-8").strip() for mark in marks)
    return ()
