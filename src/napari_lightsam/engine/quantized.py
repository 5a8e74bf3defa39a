"""Quantised encoders on disk: kept in the cache folder, whole or not at all, never used when damaged."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.cache import cache_folder
from napari_lightsam.engine.verify import file_hash
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "FILE",
    "NOT_QUANTIZED",
    "encoder_identity",
    "find_quantized",
    "quantized_folder",
    "store_quantized",
]

FILE = "encoder.xml"
"""The file to read; its weights lie beside it."""

NOT_QUANTIZED = (
    "{0} has no int8 version on this computer. Make one with `lightsam quantize {0}`, or use "
    "precision='auto'."
)

_MANIFEST = "hashes.json"
_FORMAT = "1"  # of the graph's inputs and outputs; another number makes every int8 version void


def quantized_folder(weights_hash: str) -> Path:
    """Folder of a model's int8 encoder; it need not exist."""
    return cache_folder() / "int8" / f"{weights_hash[:32]}-{_FORMAT}"


def find_quantized(weights_hash: str) -> Path | None:
    """Return the file of a model's int8 encoder; None where there is none, or not what was stored."""
    try:
        folder = quantized_folder(weights_hash)
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        whole = all(file_hash(folder / Path(name).name, "sha256") == value for name, value in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError, ConfigError):  # the last: there is no such folder
        return None
    return folder / FILE if whole and FILE in hashes else None


def encoder_identity(file: Path) -> str:
    """Hash an int8 encoder: calibrated on other images, it computes other embeddings of the same weights."""
    parts = (file_hash(part, "sha256") for part in (file, file.with_suffix(".bin")))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:32]


def store_quantized(weights_hash: str, write: Callable[[Path], None]) -> Path:
    """Fill a model's folder by `write` and give it its name only when it is whole.

    Raises
    ------
    OSError
        The cache folder is read-only or full; nothing is left behind, and what was there stays.
    """
    folder = quantized_folder(weights_hash)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir(parents=True)  # open to whom the cache is, as a folder of `tempfile` is not
    try:
        write(part)
        files = sorted(part.iterdir())
        for file in files:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        hashes = {file.name: file_hash(file, "sha256") for file in files}
        (part / _MANIFEST).write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
        aside = part.with_suffix(".old")
        if os.path.exists(folder):
            folder.rename(aside)  # all of it, or on Windows nothing where one of its files is in use
        try:
            part.rename(folder)
        except OSError:
            if os.path.exists(aside):
                aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder / FILE
