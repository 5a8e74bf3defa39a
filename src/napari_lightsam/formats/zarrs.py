"""Images in zarr folders, plain arrays or OME-Zarr, of which only the planes asked for are read."""

from __future__ import annotations

import hashlib
import math
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError
from napari_lightsam.formats.axes import SAMPLES
from napari_lightsam.formats.images import ImageFile, check_values
from napari_lightsam.formats.memory import check_fits
from napari_lightsam.formats.units import to_micrometres

if TYPE_CHECKING:
    from collections.abc import Mapping

SUFFIX = ".zarr"

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_LETTERS = {"t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "y": "Y", "x": "X"}
_PLAIN = re.compile(r"(?!\.\.?$)[^\x00-\x1f/\\:]+")  # a name within a folder, on any system
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(//|:)")  # one letter before the colon is a drive
_FSSPEC = "pip install 'napari-lightsam[remote]'"
_SIGNS = ("size", "ETag", "etag", "mtime", "LastModified", "Last-Modified", "updated", "created")
_LARGEST_CHUNK = 256 << 20  # bytes, whatever the size of the array
_MOST_BEYOND = 4  # times what lies inside the array
_MOST_ASKED = 4096  # files of which a server that tells no sizes is asked one by one
_AT_ONCE = 16


def is_url(path: object) -> bool:
    """Tell an address from a path on this computer.

    Examples
    --------
    >>> is_url("s3://bucket/plate.zarr"), is_url("C:/plate.zarr")
    (True, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def is_zarr(path: Path) -> bool:
    """Tell whether a folder holds a zarr array or group."""
    return os.path.isdir(path) and any(os.path.isfile(path / mark) for mark in _MARKS)


def read_zarr(path: str | os.PathLike[str]) -> ImageFile:
    """Open a zarr array, or the finest level of an OME-Zarr image.

    Parameters
    ----------
    path
        Folder of the array or group, or an address that fsspec knows.

    Returns
    -------
    ImageFile
        Its `data` is the zarr array itself: a plane is read when it is taken. Axes come from OME metadata or
        the array's dimension names; else the last two are row and column (before three or four colour
        samples of 8 bits), and the meaning of one before them is not told (`Q`).

    Raises
    ------
    FileError
        No zarr, a group that is no OME-Zarr image, or axes without row and column.

    Examples
    --------
    >>> import numpy as np, tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     zarr.save_array(f"{folder}/a.zarr", np.ones((5, 8, 9), "uint16"))
    ...     image = read_zarr(f"{folder}/a.zarr")
    ...     plane, _ = image.plane(z=3)
    >>> image.axes, plane.shape
    ('QYX', (8, 9))
    """
    path = path if isinstance(path, str) and is_url(path) else Path(path)
    opened = _open(path)
    about: dict[str, Any] = {}
    if hasattr(opened, "keys"):
        try:
            array, axes, about = _finest(path, opened)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise FileError(
                f"{path} has OME metadata that are damaged ({type(error).__name__}: {error})."
            ) from error
    else:
        array, axes = opened, _named_axes(opened)
    _check_array(path, array)
    shape = tuple(array.shape)
    axes = axes or _guessed_axes(path, shape, str(array.dtype))
    if len(axes) != len(shape) or "Y" not in axes or "X" not in axes:
        raise FileError(
            f"{path} has axes {axes or shape}; an image needs a row axis 'y' and a column axis 'x'."
        )
    names = about.pop("channel_names", ())
    if "C" in axes and len(names) == shape[axes.index("C")] and any(names):
        about["channel_names"] = names
    return ImageFile(path=path, shape=shape, dtype=array.dtype, axes=axes, data=array, **about)


def read_levels(path: Path) -> list[Any]:
    """Open all resolutions of an image in a zarr folder, the finest first, without reading pixels.

    Parameters
    ----------
    path
        Folder of an array, of an OME-Zarr image, or of a group of arrays, which napari takes for resolutions.

    Returns
    -------
    list of zarr arrays
        One for a folder of one array.

    Raises
    ------
    FileError
        No zarr, damaged metadata, or a group without arrays.
    """
    opened = _open(path)
    if not hasattr(opened, "keys"):
        _check_array(path, opened)
        return [opened]
    try:
        scales = _ome(opened).get("multiscales")
        names = [one["path"] for one in scales[0]["datasets"]] if scales else sorted(opened.array_keys())
        found = [opened[name] for name in names]
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise FileError(f"{path} has metadata that are damaged ({type(error).__name__}: {error}).") from error
    if not found or any(hasattr(one, "keys") for one in found):
        raise FileError(f"{path} is a zarr group without an image; give the array inside it.")
    for one in found:
        _check_array(path, one)
    return found


def find_zarr_labels(path: Path) -> Path | None:
    """Return the first label image inside an OME-Zarr image, or None where it names none inside itself."""
    if not is_zarr(path / "labels"):
        return None
    try:
        names = _ome(_open(path / "labels")).get("labels")
    except AttributeError:  # metadata that are no names and values
        return None
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or not all(map(_PLAIN.fullmatch, name.split("/"))):
        return None  # a path out of the folder, or to another computer
    return path / "labels" / name


def hash_url(url: str) -> str:
    """SHA-256 over the names, sizes and versions of all that lies at an address; pixels are not fetched.

    Web servers tell these of single files alone. They are asked for each, or where there are more than
    4,096 for so many of them, evenly spread; for those of the finest image where they list no folder.

    Raises
    ------
    FileError
        It cannot be reached.
    """
    file_system, path = _file_system(url)
    try:
        entries = file_system.find(path, detail=True)
    except Exception:  # every file system raises kinds of its own where it lists nothing
        entries = {}
    entries = entries or {f"{path}/{name}": {} for name in _list_chunks(url)}
    told = {name: _signs(entry) for name, entry in entries.items()}
    silent = sorted(name for name, signs in told.items() if not signs)
    asked = silent[:: -(-len(silent) // _MOST_ASKED) or 1]

    def ask(name: str) -> list[str]:
        try:
            return _signs(file_system.info(name))
        except Exception:  # not there: of parts that hold nothing there need not be any
            return []

    with ThreadPoolExecutor(_AT_ONCE if file_system.async_impl else 1) as pool:
        told |= zip(asked, pool.map(ask, asked), strict=True)
    if not any(told.values()):
        raise FileError(f"{url} cannot be read: nothing there answers. Check the address.")
    lines = sorted(f"{name}\0{signs}\n" for name, signs in told.items())
    return hashlib.sha256("".join([url, "\n", *lines]).encode()).hexdigest()


def _signs(entry: Mapping[str, Any]) -> list[str]:
    return [f"{key}={entry[key]}" for key in _SIGNS if entry.get(key) is not None]


def _list_chunks(url: str) -> list[str]:
    """Name the files of the finest image at an address, without asking which of them are there."""
    array: Any = read_zarr(url).data
    group = f"{array.path}/" if array.path else ""
    sides = getattr(array, "shards", None) or array.chunks
    grid = [-(-n // side) for n, side in zip(array.shape, sides, strict=True)]
    step = -(-math.prod(grid) // _MOST_ASKED) or 1  # however many a header declares
    found = [_unravel(i, grid) for i in range(0, math.prod(grid), step)]
    chunks = [group + array.metadata.encode_chunk_key(at) for at in found]
    about = [f"{place}{name}" for place in {"", group} for name in (".zattrs", ".zarray", "zarr.json")]
    return about + chunks


def _unravel(i: int, grid: list[int]) -> tuple[int, ...]:
    place = []
    for n in reversed(grid):
        i, rest = divmod(i, n)
        place.append(rest)
    return tuple(reversed(place))


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError:
        raise FileError(f"Addresses such as {url} need fsspec: {_FSSPEC}.") from None
    try:
        file_system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # no package for this kind of address, or none is known
        raise FileError(
            f"{url} cannot be opened: {error}. Install what it names, or copy the image."
        ) from None
    return file_system, str(path)


def _open_url(url: str) -> Any:
    import zarr

    _file_system(url)
    try:
        return zarr.open(url, mode="r")
    except Exception as error:  # stores and codecs raise many kinds
        raise FileError(f"{url} cannot be read as zarr ({type(error).__name__}: {error}).") from error


def _open(path: Path | str) -> Any:
    import zarr

    if isinstance(path, str):
        return _open_url(path)
    if not is_zarr(path):
        raise FileError(f"{path} is no zarr folder: it holds none of {', '.join(_MARKS)}.")
    try:
        return zarr.open(path, mode="r")
    except Exception as error:  # stores and codecs raise many kinds for damaged metadata
        raise FileError(f"{path} cannot be read as zarr ({type(error).__name__}: {error}).") from error


def _check_array(path: Path | str, array: Any) -> None:
    """Refuse what is no image, codecs that run programs, and chunks that reach far beyond their array.

    Chunks are unpacked whole to read a pixel of them.
    """
    check_values(path, array.dtype)
    codecs = (*(getattr(array, "filters", None) or ()), *(getattr(array, "compressors", None) or ()))
    if any(getattr(codec, "codec_id", "") == "pickle" for codec in codecs):
        raise FileError(f"{path} is packed with pickle, which can run any program. Export it again.")
    size = array.dtype.itemsize
    chunk = math.prod(array.chunks) * size
    inside = math.prod(map(min, array.chunks, array.shape)) * size
    if chunk > max(_LARGEST_CHUNK, _MOST_BEYOND * inside):
        raise FileError(
            f"{path} has chunks of {chunk / 2**30:,.1f} GiB, of which {inside / 2**30:,.3f} GiB lie in the "
            "image: it is damaged. Export it again."
        )
    check_fits(path, chunk)


def _ome(group: Any) -> Mapping[str, Any]:
    """Metadata of OME-Zarr 0.5, or of earlier versions, which lack the outer level."""
    attributes: dict[str, Mapping[str, Any]] = group.attrs.asdict()
    return attributes.get("ome", attributes)


def _finest(path: Path | str, group: Any) -> tuple[Any, str, dict[str, Any]]:
    """Array, axes, and what the metadata say of pixel size and channels."""
    scales = _ome(group).get("multiscales")
    if not scales:
        raise FileError(f"{path} is a zarr group without an OME image; give the array inside it.")
    try:
        array = group[scales[0]["datasets"][0]["path"]]
    except (KeyError, IndexError, TypeError) as error:
        raise FileError(f"{path} does not hold the array that its OME metadata name ({error}).") from error
    axes = scales[0].get("axes", [])
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in axes]
    letters = _letters(names) or ("TCZYX" if array.ndim == 5 else "")  # 0.1 and 0.2 name no axes
    sizes = _sizes(scales[0], axes, letters)
    pixel_size = (sizes["Y"], sizes["X"]) if {"Y", "X"} <= sizes.keys() else None
    labels = [
        c.get("label") for c in (_ome(group).get("omero") or {}).get("channels", []) if isinstance(c, dict)
    ]
    return array, letters, {
        "pixel_size": pixel_size, "z_step": sizes.get("Z"), "pixel_size_source": "OME" if sizes else "",
        "channel_names": tuple(str(label or "") for label in labels),
    }  # fmt: skip


def _sizes(scale: Mapping[str, Any], axes: list[Any], letters: str) -> dict[str, float]:
    """Micrometres of a step along every axis that has a unit of length."""
    factors = [1.0] * len(letters)
    for transform in (*scale["datasets"][0].get("coordinateTransformations", ()),
                      *scale.get("coordinateTransformations", ())):  # fmt: skip
        given = transform.get("scale", []) if isinstance(transform, dict) else []
        if len(given) == len(factors):
            factors = [float(f * g) for f, g in zip(factors, given, strict=True)]
    found = {}
    for letter, axis, factor in zip(letters, axes, factors, strict=False):
        unit = str(axis.get("unit", "")) if isinstance(axis, dict) else ""
        length = to_micrometres(factor, unit)
        if length is not None and letter in "YXZ":
            found[letter] = length
    return found


def _named_axes(array: Any) -> str:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return _letters(names or [])


def _letters(names: list[str | None]) -> str:
    letters = "".join(_LETTERS.get(str(name).lower(), "Q") for name in names)
    return letters if "Y" in letters and "X" in letters else ""


def _guessed_axes(path: Path | str, shape: tuple[int, ...], dtype: str) -> str:
    colour = len(shape) >= 3 and shape[-1] in SAMPLES and dtype == "uint8"
    axes = "YXS" if colour else "YX"
    missing = len(shape) - len(axes)
    if missing not in (0, 1):
        raise FileError(
            f"{path} has {len(shape)} axes, {shape}, and does not say what they are. Accepted without names: "
            "(row, column), one axis before them, and colour samples after them."
        )
    return "Q" * missing + axes
