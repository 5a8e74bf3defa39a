"""A plane of an image that is larger than memory, read in parts by any process that needs one."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError, ImageError
from napari_lightsam.formats.images import ImageFile, check_series, read_info
from napari_lightsam.formats.zarrs import hash_url, is_url, is_zarr, read_zarr

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_lightsam.batch.settings import BatchSettings
    from napari_lightsam.engine.image import ArrayLike

Box = tuple[int, int, int, int]


class SlidePlane:
    """One plane of an image file that is read where it is asked for; travels to other processes as its name.

    Parameters
    ----------
    path
        A zarr folder (OME-Zarr, or a plain array) or its address, or a TIFF file.
    settings
        Their series, channel, z and time choose the plane; their axes go before those of the file.

    Attributes
    ----------
    shape, dtype
        (H, W), or (H, W, C) for several channels or colour.
    rgb
        Whether the last axis is colour.
    pixel_size
        (row, column) in micrometres, or None.
    notes
        What a user should know, such as further images in the file.

    Raises
    ------
    FileError
        If it cannot be opened or read in parts, or several planes are there and none is chosen.
    """

    def __init__(self, path: str | os.PathLike[str], settings: BatchSettings) -> None:
        self.path = path if isinstance(path, str) and is_url(path) else Path(path).absolute()
        self._axes = settings.axes
        self._series = settings.series if isinstance(settings.series, int) else None
        self._image: ImageFile | None = None
        image = self._opened()
        self._selection = image.select(settings.channel, settings.z, settings.time)
        samples = self[0:0, 0:0].shape[2:]
        sides = dict(zip(self._selection.roles, image.shape, strict=True))
        self.shape: tuple[int, ...] = (sides["Y"], sides["X"], *samples)
        self.dtype = image.dtype
        self.rgb = "S" in self._selection.roles and self._selection.channels is None
        self.pixel_size = image.pixel_size
        self.notes = image.notes

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_image": None}

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = key
        chosen, parts = self._selection, {"Y": rows, "X": columns}
        index = tuple(parts.get(role, step) for role, step in zip(chosen.roles, chosen.index, strict=True))
        return self._opened().take(replace(chosen, index=index))

    def _opened(self) -> ImageFile:
        if self._image is None:
            path, series = self.path, self._series
            if isinstance(path, str) or is_zarr(path):
                check_series(path, series, 1)
                image = read_zarr(path)
            else:
                image = _open_tiff(path, series)
            self._image = image.with_axes(self._axes)
        return self._image

    def state(self) -> str:
        """Say what tells these pixels from others that were here before, as `describe_state`."""
        if not isinstance(self.path, Path):
            return hash_url(self.path)
        return describe_state(self._opened().data if is_zarr(self.path) else self.path)


def describe_state(image: Any) -> str:
    """Say what tells the pixels of an image from others that may take their place.

    Parameters
    ----------
    image
        A file, a zarr array, a NumPy array, or a plane that says it by its `state`.

    Returns
    -------
    state
        Size and time of change of the file, or of all files of the array; a hash of the pixels where they
        are in memory; of a dask array its name, which is made of what computes it. Empty for what else
        computes its pixels.
    """
    if hasattr(image, "state"):
        return str(image.state())
    if isinstance(image, np.memmap) and isinstance(image.filename, str | os.PathLike):
        return f"{describe_state(Path(image.filename))}, {_place(image)}"
    if isinstance(image, np.ndarray):
        return f"sha256 {hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:16]}"
    if hasattr(image, "dask"):
        return str(image.name)
    root = getattr(getattr(image, "store", None), "root", None)
    folder = image if isinstance(image, Path) else Path(root) / image.path if root else None
    if folder is None:
        return ""
    found = sorted(_stat(folder))
    if not os.path.isdir(folder):
        return f"{found[0][1]} bytes, changed at {found[0][2]} ns"
    digest = hashlib.sha256(repr(found).encode()).hexdigest()[:16]
    return f"{len(found)} files, {sum(size for _, size, _ in found)} bytes, names and times {digest}"


def _place(part: np.memmap[Any, Any]) -> str:
    """Say which part of its file an array is: planes of one stack differ in nothing else."""
    whole: Any = part
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    first = part.offset + part.ctypes.data - whole.ctypes.data
    return f"from byte {first} in steps of {part.strides}"


def _stat(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of all in a folder."""
    try:
        if not os.path.isdir(path):
            facts = path.stat()
            yield path.name, facts.st_size, facts.st_mtime_ns
            return
        for entry in os.scandir(path):
            if entry.is_dir():
                for name, size, changed in _stat(Path(entry.path)):
                    yield f"{entry.name}/{name}", size, changed
            else:
                yield entry.name, entry.stat().st_size, entry.stat().st_mtime_ns
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def _open_tiff(path: Path, series: int | None = None) -> ImageFile:
    """Open a TIFF file without reading its pixels."""
    import tifffile
    import zarr

    info, number = read_info(path, series), series or 0
    try:
        data: Any = tifffile.memmap(path, series=number, mode="r")
    except ValueError:  # compressed or in several parts
        try:
            store: Any = tifffile.imread(path, aszarr=True, series=number, level=0)
            data = zarr.open(store, mode="r")
        except Exception as error:
            raise FileError(
                f"{path} cannot be read in parts ({type(error).__name__}: {error}). Save it as OME-Zarr, for "
                "instance by bioformats2raw."
            ) from error
    if tuple(data.shape) != tuple(info.shape):
        raise FileError(
            f"{path} holds its axes in an order that cannot be read in parts; save it as OME-Zarr."
        )
    return ImageFile(
        path=path, shape=info.shape, dtype=info.dtype, axes=info.axes, channel_names=info.channel_names,
        pixel_size=info.pixel_size, z_step=info.z_step, pixel_size_source=info.pixel_size_source,
        notes=info.notes, data=data,
    )  # fmt: skip


class Forgiving:
    """A plane whose unreadable parts count as empty: one bad part must not keep the rest from being measured.

    Parameters
    ----------
    data
        The plane.

    Attributes
    ----------
    missing
        (y0, x0, y1, x1) of what could not be read.
    """

    def __init__(self, data: ArrayLike) -> None:
        self._data = data
        self.shape, self.dtype = data.shape, data.dtype
        self.missing: list[Box] = []

    def __getitem__(self, key: Any) -> Any:
        try:
            return np.asarray(self._data[key])
        except Exception:  # readers and codecs raise many kinds; the part's own turn reports it
            y, x = (part.indices(length)[:2] for part, length in zip(key, self.shape[:2], strict=True))
            self.missing.append((y[0], x[0], y[1], x[1]))
            if (y[0], x[0], y[1], x[1]) == (0, 0, *self.shape[:2]):
                raise ImageError("Nothing of the image can be read.") from None
            return np.zeros((y[1] - y[0], x[1] - x[0], *self.shape[2:]), self.dtype)
