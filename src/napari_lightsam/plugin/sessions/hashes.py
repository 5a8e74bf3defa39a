"""Hashes that tell images and their files from others, remembered while these stay the same. No Qt."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_lightsam.errors import FileError
from napari_lightsam.session.picture import hash_content, hash_pixels, hash_sample, is_in_file

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from napari_lightsam.session import ImageRecord

_AT_ONCE = 64 * 2**20
"""Bytes up to which an array is hashed anew each time: that takes a few milliseconds."""

_LOOKED_AT = 4096
"""Values by which a larger array that was changed in place is told."""


class Hashes:
    """Remembers the hashes of arrays and files; belongs to one thread."""

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[weakref.ref[Any], bytes, str]] = {}
        self._files: dict[Hashable, str] = {}
        self._held: dict[Hashable, bool] = {}

    def pixels(self, array: Any, path: Path | None, *, anew: bool = False) -> str:
        """Return `identity` of an image.

        Parameters
        ----------
        array, path
            As there.
        anew
            Look at every value, also of a large array that was hashed before.
        """
        small = isinstance(array, np.ndarray) and array.nbytes <= _AT_ONCE
        if small or anew:
            return identity(array, path)
        seen = _some_of(array) if isinstance(array, np.ndarray) else b""
        known = self._arrays.get(id(array))
        if known is not None and known[0]() is array and known[1] == seen:
            return known[2]
        found = identity(array, path)
        try:
            self._arrays[id(array)] = (weakref.ref(array), seen, found)
        except TypeError:  # it cannot be told from another one at the same address
            self._arrays.pop(id(array), None)
        return found

    def file(self, path: Path) -> str:
        """Return `hash_content` of a file, remembered by its size and time."""
        key = _of(path)
        if key not in self._files:
            self._files[key] = hash_content(path)
        return self._files[key]

    def holds(self, record: ImageRecord) -> bool:
        """Tell whether the file of an image holds the pixels that are shown; remembered like its hash.

        Parameters
        ----------
        record
            With the hash of its pixels.
        """
        assert record.path is not None  # asked for images that have one
        key = (_of(record.path), record.shape, record.pixels_hash)
        if key not in self._held:
            self._held[key] = is_in_file(record, record.path)
        return self._held[key]


def _of(path: Path) -> Hashable:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def _some_of(array: np.ndarray[Any, Any]) -> bytes:
    places = np.random.default_rng(0).integers(0, array.size, _LOOKED_AT)  # no stride meets them all
    some: bytes = array.flat[places].tobytes()
    return some


def identity(array: Any, path: Path | None) -> str:
    """Return a hash that tells an image from others, for `ImageRecord.pixels_hash`.

    Parameters
    ----------
    array
        In memory, or lazy.
    path
        Of its file or zarr folder.

    Returns
    -------
    str
        Of some pixels of a zarr folder, of all pixels of other images in memory; empty for other lazy images,
        which may have to be computed first, and where none can be read.
    """
    if path is None or path.is_file():
        return hash_pixels(array) if isinstance(array, np.ndarray) else ""
    try:
        return hash_sample(array)
    except FileError:  # the work is saved all the same
        return ""


def told_by(pixels_hash: str, path: Path | None, shape: Sequence[int], dtype: str) -> str:
    """Return what tells an image from others of its name: its pixels, else its file, shape and type.

    Parameters
    ----------
    pixels_hash
        `identity`; empty for an image that is loaded lazily.
    path, shape, dtype
        Of the image; no path where it has no file.
    """
    if pixels_hash:
        return pixels_hash
    return f"lazy:{xxhash.xxh3_64(f'{path} {tuple(shape)} {dtype}'.encode(errors='replace')).hexdigest()}"
