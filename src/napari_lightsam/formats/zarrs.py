"""Images in zarr folders, plain arrays or OME-Zarr, of which only the planes asked for are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import ImageFile

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

SUFFIX = ".zarr"

_MARKS = ("zarr.json", ".zarray", ".zgroup")
_LETTERS = {"t": "T", "time": "T", "c": "C", "channel": "C", "z": "Z", "y": "Y", "x": "X"}
_COLOURS = (3, 4)  # samples of a colour image in a plain array


def is_zarr(path: Path) -> bool:
    """Tell whether a folder holds a zarr array or group."""
    return path.is_dir() and any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: str | os.PathLike[str]) -> ImageFile:
    """Open a zarr array, or the finest level of an OME-Zarr image.

    Parameters
    ----------
    path
        Folder of the array or group.

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
    path = Path(path)
    opened = _open(path)
    array, axes = _finest(path, opened) if hasattr(opened, "keys") else (opened, _named_axes(opened))
    shape = tuple(array.shape)
    axes = axes or _guessed_axes(path, shape, str(array.dtype))
    if len(axes) != len(shape) or "Y" not in axes or "X" not in axes:
        raise FileError(
            f"{path} has axes {axes or shape}; an image needs a row axis 'y' and a column axis 'x'."
        )
    return ImageFile(path=path, shape=shape, dtype=array.dtype, axes=axes, data=array)


def find_zarr_labels(path: Path) -> Path | None:
    """Return the first label image inside an OME-Zarr image, or None where it has none."""
    if not is_zarr(path / "labels"):
        return None
    names = _ome(_open(path / "labels")).get("labels") or []
    return path / "labels" / str(names[0]) if names else None


def _open(path: Path) -> Any:
    import zarr

    if not is_zarr(path):
        raise FileError(f"{path} is no zarr folder: it holds none of {', '.join(_MARKS)}.")
    try:
        return zarr.open(path, mode="r")
    except Exception as error:  # stores and codecs raise many kinds for damaged metadata
        raise FileError(f"{path} cannot be read as zarr ({type(error).__name__}: {error}).") from error


def _ome(group: Any) -> Mapping[str, Any]:
    """Metadata of OME-Zarr 0.5, or of earlier versions, which lack the outer level."""
    attributes: dict[str, Mapping[str, Any]] = group.attrs.asdict()
    return attributes.get("ome", attributes)


def _finest(path: Path, group: Any) -> tuple[Any, str]:
    scales = _ome(group).get("multiscales")
    if not scales:
        raise FileError(f"{path} is a zarr group without an OME image; give the array inside it.")
    try:
        array = group[scales[0]["datasets"][0]["path"]]
    except (KeyError, IndexError) as error:
        raise FileError(f"{path} does not hold the array that its OME metadata name ({error}).") from error
    names = [axis["name"] if isinstance(axis, dict) else axis for axis in scales[0].get("axes", [])]
    return array, _letters(names) or ("TCZYX" if array.ndim == 5 else "")  # 0.1 and 0.2 name no axes


def _named_axes(array: Any) -> str:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return _letters(names or [])


def _letters(names: list[str | None]) -> str:
    letters = "".join(_LETTERS.get(str(name).lower(), "Q") for name in names)
    return letters if "Y" in letters and "X" in letters else ""


def _guessed_axes(path: Path, shape: tuple[int, ...], dtype: str) -> str:
    colour = len(shape) >= 3 and shape[-1] in _COLOURS and dtype == "uint8"
    axes = "YXS" if colour else "YX"
    missing = len(shape) - len(axes)
    if missing not in (0, 1):
        raise FileError(
            f"{path} has {len(shape)} axes, {shape}, and does not say what they are. Accepted without names: "
            "(row, column), one axis before them, and colour samples after them."
        )
    return "Q" * missing + axes
