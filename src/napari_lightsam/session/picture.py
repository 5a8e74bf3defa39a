"""The image that work belongs to: told by hashes, found by its path, read as it was annotated."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from napari_lightsam.errors import FileError
from napari_lightsam.formats import zarrs
from napari_lightsam.formats.spelling import as_on_disk
from napari_lightsam.formats.zarrs import is_zarr
from napari_lightsam.session.recipe import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

LARGEST_KEPT = 256 * 2**20
"""Bytes up to which an image that has no file is kept in the archive."""

_SAMPLED = "xxh3-128-sample:"
_BLOCKS, _BLOCK = 8, 64
_MOST_CHANNELS = 64


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
        `hash_pixels` of the array, or `hash_sample` where it lies in a zarr folder; empty for other images
        that are loaded lazily.
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
    dtype = np.dtype(array.dtype)
    hasher = xxhash.xxh3_128(f"{dtype.str.lstrip('<>=|')} {array.shape}".encode())
    rows = array if array.ndim > 1 else array[None]
    for row in rows:  # a copy of one row (or plane) at most, also of arrays that are not contiguous
        hasher.update(np.ascontiguousarray(row, dtype.newbyteorder("<")).data)
    return f"xxh3-128:{hasher.hexdigest()}"


def hash_sample(array: Any) -> str:
    """Return a hash of an array's shape, type and some blocks: for arrays that are read piece by piece.

    Raises
    ------
    FileError
        A part of it cannot be read.

    Examples
    --------
    >>> a = np.arange(40_000, dtype="uint16").reshape(200, 200)
    >>> hash_sample(a) == hash_sample(a.copy()), hash_sample(a) == hash_sample(a + 1)
    (True, False)
    """
    dtype = np.dtype(array.dtype)
    hasher = xxhash.xxh3_128(f"{dtype.str.lstrip('<>=|')} {tuple(array.shape)}".encode())
    sides = [min(n, _BLOCK) if axis >= array.ndim - 2 else 1 for axis, n in enumerate(array.shape)]
    for number in range(_BLOCKS):  # from the first corner to the last one
        starts = [number * (n - side) // (_BLOCKS - 1) for n, side in zip(array.shape, sides, strict=True)]
        part = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        try:
            block = np.ascontiguousarray(array[part], dtype.newbyteorder("<"))
        except Exception as error:  # stores and codecs raise many kinds
            raise FileError(f"The image cannot be read ({type(error).__name__}: {error}).") from error
        hasher.update(block.data)
    return f"{_SAMPLED}{hasher.hexdigest()}"


def is_same(array: Any, pixels_hash: str) -> bool | None:
    """Tell whether an array is the one that a hash is of; None where too much would have to be read for that.

    Parameters
    ----------
    array
        In memory, or read piece by piece.
    pixels_hash
        From `hash_pixels` or `hash_sample`.
    """
    if pixels_hash.startswith(_SAMPLED):
        return hash_sample(array) == pixels_hash
    if not isinstance(array, np.ndarray) and array.nbytes > LARGEST_KEPT:
        return None
    return hash_pixels(np.asarray(array)) == pixels_hash


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
    """Find the file or zarr folder of an image: at a written path, else by its name beside the session.

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
    places += [as_on_disk(session.absolute().parent / place.name) for place in places[:1]]
    if not places:
        raise refused or FileError(f"{session} names no image.")
    return next((place for place in places if is_image(place)), places[0])


def is_image(path: Path) -> bool:
    """Tell whether there is something at a path that can be an image: a file, or a zarr folder."""
    return os.path.isfile(path) or is_zarr(path)


def read_pixels(record: ImageRecord, session: Path) -> Any:
    """Read the image that work belongs to, in its finest resolution, as `read_levels` does.

    Returns
    -------
    array
        Of the record's shape; of a zarr folder a dask array, whose parts are read when they are taken.
    """
    return read_levels(record, session)[0]


def read_levels(record: ImageRecord, session: Path) -> list[Any]:
    """Read the image that work belongs to in all resolutions that it has, and make sure that it is the one.

    Parameters
    ----------
    record
        From the file.
    session
        The file, for messages.

    Returns
    -------
    list of arrays
        The finest first, of the record's shape. Only OME-Zarr images, read as they are looked at, have more.

    Raises
    ------
    FileError
        The image is not there, cannot be read, or is another one.
    """
    if record.pixels is not None:
        return [record.pixels]
    if record.path is None:
        raise FileError(f"{session} belongs to an image without a file, {record.name!r}, that was not kept.")
    if not is_image(record.path):
        raise FileError(
            f"{session} belongs to the image {record.path.name}, which is not at {record.path}. "
            "Put it there, or beside the session file."
        )
    from napari_lightsam.formats.images import read_image

    another = FileError(
        f"{session} belongs to another image than {record.path}: its content differs from what was annotated "
        f"({'x'.join(map(str, record.shape))}, {record.dtype})."
    )
    if is_zarr(record.path):
        levels = _read_zarr(record, record.path)
        if levels is None:
            raise another
        return levels
    same_file = bool(record.file_hash) and hash_content(record.path) == record.file_hash
    if record.file_hash and not same_file and not record.pixels_hash:
        raise another
    array = _in_shape(read_image(record.path).data, record.shape)
    if array is None or array.dtype != np.dtype(record.dtype):
        raise another
    if not same_file and record.pixels_hash and not is_same(array, record.pixels_hash):
        raise another
    return [array]


def is_in_file(record: ImageRecord, path: Path) -> bool:
    """Tell whether reading a file gives the pixels of an image, for which `pixels_hash` is known."""
    from napari_lightsam.formats.images import read_image

    try:
        array = _in_shape(read_image(path).data, record.shape)
    except FileError:
        return False
    if array is None or array.dtype != np.dtype(record.dtype):
        return False
    return is_same(array, record.pixels_hash) is not False


def _read_zarr(record: ImageRecord, folder: Path) -> list[Any] | None:
    """Open what was annotated of a zarr folder in all resolutions; None where that is not in it.

    Readers show each channel of an OME-Zarr image as a layer of its own; which one it was, its pixels tell.
    """
    import dask.array as da

    read: Any = da.from_zarr
    levels = [read(level) for level in zarrs.read_levels(folder)]
    finest = levels[0]
    if finest.dtype != np.dtype(record.dtype):
        return None
    choices: list[Callable[[Any], Any]] = [lambda array: array]
    for axis, length in enumerate(finest.shape):
        if 1 < length <= _MOST_CHANNELS:
            choices += [partial(_take, axis=axis, step=step) for step in range(length)]
    for choose in choices:
        array = _in_shape(choose(finest), record.shape)
        if array is not None and (not record.pixels_hash or is_same(array, record.pixels_hash) is not False):
            others = [choose(level) for level in levels[1:] if level.ndim == finest.ndim]
            kept = [n for n, length in enumerate(choose(finest).shape) if length > 1]
            return [array, *(_alike(level, kept, record.shape) for level in others)]
    return None


def _take(array: Any, axis: int, step: int) -> Any:
    return array[(slice(None),) * axis + (min(step, array.shape[axis] - 1),)]


def _alike(level: Any, kept: Sequence[int], shape: tuple[int, ...]) -> Any:
    """Give a coarser resolution the axes of the finest one in the record."""
    lengths = iter([level.shape[axis] for axis in kept])
    return level.reshape([1 if n == 1 else next(lengths) for n in shape])


def _in_shape(array: Any, shape: tuple[int, ...]) -> Any:
    """Give an array the shape in which napari held it, which drops axes of length one and transparency."""
    if array.shape == shape:
        return array
    if array.shape[-1] == 4 and array[..., :3].shape == shape:
        return array[..., :3]
    squeezed = [n for n in array.shape if n > 1]
    if squeezed == [n for n in shape if n > 1]:
        return array.reshape(shape)
    return None
