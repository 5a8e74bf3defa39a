"""The image that work belongs to: told by hashes, found by its path, read as it was annotated."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_lightsam.errors import FileError
from napari_lightsam.session.recipe import local_path

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_KEPT = 256 * 2**20
"""Bytes up to which an image that has no file is kept in the archive."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageRecord:
    """An image as it was annotated.

    Attributes
    ----------
    name
        Of its layer.
    shape, dtype
        Of the whole array, colour samples included.
    path
        Absolute path of its file; None for an image that never had one.
    pixels_hash
        `hash_pixels` of the array; empty for images that are loaded lazily.
    file_hash
        SHA-256 of the file; empty where there is none.
    layer
        How napari showed it: rgb, scale, units, axis labels and so on.
    axes
        What the user said about axes: number as text to "depth", "time" or "channel".
    pixels
        The array itself, for images without a file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    path: Path | None = None
    pixels_hash: str = ""
    file_hash: str = ""
    layer: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    pixels: NDArray[Any] | None = None


def hash_pixels(array: NDArray[Any]) -> str:
    """Return a hash of an array's values, shape and type (XXH3, 128 bits).

    Examples
    --------
    >>> a = np.arange(6, dtype="uint16").reshape(2, 3)
    >>> hash_pixels(a) == hash_pixels(a.copy()), hash_pixels(a) == hash_pixels(a.T)
    (True, False)
    """
    hasher = xxhash.xxh3_128(f"{np.dtype(array.dtype).str.lstrip('<>=|')} {array.shape}".encode())
    rows = array if array.ndim > 1 else array[None]
    for row in rows:  # a copy of one row (or plane) at most, also of arrays that are not contiguous
        hasher.update(np.ascontiguousarray(row).data)
    return f"xxh3-128:{hasher.hexdigest()}"


def hash_content(path: Path) -> str:
    """Return the SHA-256 of a file's content.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def written_paths(image: Path, session: Path) -> dict[str, str]:
    """Return the paths to write for an image: relative to the file, on the same drive, and absolute."""
    absolute = os.path.abspath(image)
    try:
        relative = os.path.relpath(absolute, session.absolute().parent)
    except ValueError:  # another drive of a Windows computer
        return {"path": absolute}
    return {"path": Path(relative).as_posix(), "absolute_path": absolute}


def find_image(session: Path, *given: str) -> Path:
    """Find the file of an image: at one of the written paths, else by its name beside the file.

    Raises
    ------
    FileError
        It is at none of them, or a path is no local one.
    """
    places: list[Path] = []
    refused: FileError | None = None
    for text in given:
        try:
            places.append(local_path(session, text))
        except FileError as error:
            refused = error
    places += [session.absolute().parent / place.name for place in places[:1]]
    if not places:
        raise refused or FileError(f"{session} names no image.")
    return next((place for place in places if os.path.isfile(place)), places[0])


def read_pixels(record: ImageRecord, session: Path) -> NDArray[Any]:
    """Read the image that work belongs to, and make sure that it is the one.

    Parameters
    ----------
    record
        From the file.
    session
        The file, for messages.

    Returns
    -------
    array
        Of the record's shape.

    Raises
    ------
    FileError
        The image is not there, cannot be read, or is another one.
    """
    if record.pixels is not None:
        return record.pixels
    if record.path is None:
        raise FileError(f"{session} belongs to an image without a file, {record.name!r}, that was not kept.")
    if not os.path.isfile(record.path):
        raise FileError(
            f"{session} belongs to the image {record.path.name}, which is not at {record.path}. "
            "Put it there, or beside the session file."
        )
    from napari_lightsam.formats.images import read_image

    another = FileError(
        f"{session} belongs to another image than {record.path}: its content differs from what was annotated "
        f"({'x'.join(map(str, record.shape))}, {record.dtype})."
    )
    same_file = bool(record.file_hash) and hash_content(record.path) == record.file_hash
    if record.file_hash and not same_file and not record.pixels_hash:
        raise another
    array = _in_shape(read_image(record.path).data, record.shape)
    if array is None or array.dtype != np.dtype(record.dtype):
        raise another
    if not same_file and record.pixels_hash and hash_pixels(array) != record.pixels_hash:
        raise another
    return array


def _in_shape(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Give an array the shape in which napari held it, which drops axes of length one and transparency."""
    if array.shape == shape:
        return array
    if array.shape[-1] == 4 and array[..., :3].shape == shape:
        return array[..., :3]
    squeezed = [n for n in array.shape if n > 1]
    if squeezed == [n for n in shape if n > 1]:
        return array.reshape(shape)
    return None
