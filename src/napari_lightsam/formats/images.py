"""Microscopy images from files of any kind that is read."""

from __future__ import annotations

import math
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import FileError
from napari_lightsam.formats.axes import COLOURS, ImageInfo, PlaneSelection
from napari_lightsam.formats.memory import check_fits

__all__ = [
    "SUFFIXES",
    "ImageFile",
    "ImageInfo",
    "PlaneSelection",
    "check_series",
    "check_values",
    "read_image",
    "read_info",
    "read_pixel_size",
]

Plane = NDArray[Any]

SUFFIXES = (".tif", ".tiff", ".lsm", ".png", ".jpg", ".jpeg", ".bmp")
"""File name endings that folders are searched for; a file given by name is recognised by its content."""

_ADVICE = "Accepted are TIFF (also OME, ImageJ, BigTIFF, LSM), PNG, JPEG, BMP and OME-Zarr"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageFile(ImageInfo):
    """An image with everything its file says about it; see `ImageInfo` for the other attributes.

    Attributes
    ----------
    data
        The array, with the axes that `axes` names.
    """

    data: Plane = field(repr=False)

    def plane(
        self,
        channel: int | str | tuple[int | str, ...] | None = None,
        z: int | Literal["max"] | None = None,
        time: int | None = None,
    ) -> tuple[Plane, bool]:
        """Take the plane to segment out of the array.

        Parameters
        ----------
        channel, z, time
            As in `ImageInfo.select`.

        Returns
        -------
        plane
            (H, W), or (H, W, C) for two or three chosen channels or a colour image; values as in the file.
        rgb
            Whether the last axis is colour.

        Raises
        ------
        FileError
            More than one channel, plane or time point and no choice, or a choice that does not exist.
        """
        data, rgb = self._take(self.select(channel, z, time), depth=False)
        return np.ascontiguousarray(data), rgb

    def stack(
        self, channel: int | str | tuple[int | str, ...] | None = None, time: int | None = None
    ) -> tuple[NDArray[Any], bool]:
        """Take all planes of a depth axis out of the array; one plane where there is none.

        Parameters
        ----------
        channel, time
            As in `ImageInfo.select`.

        Returns
        -------
        stack
            (Z, H, W), or (Z, H, W, C) for two or three chosen channels or a colour image; values as in the
            file, a view of `data` where possible.
        rgb
            Whether the last axis is colour.

        Raises
        ------
        FileError
            More than one channel or time point and no choice, or a choice that does not exist.

        Examples
        --------
        >>> import numpy as np
        >>> data = np.zeros((4, 2, 8, 9))
        >>> image = ImageFile(path=Path("a.tif"), shape=data.shape, dtype=data.dtype, axes="ZCYX", data=data)
        >>> image.stack(channel=1)[0].shape
        (4, 8, 9)
        """
        selection = self.select(channel, "max", time)
        data, rgb = self._take(selection, depth=True)
        return (data if "Z" in selection.roles else data[None]), rgb

    def channels(self, selection: PlaneSelection, *, depth: bool = False) -> dict[str, NDArray[Any]]:
        """Give every raw channel of a selected plane by its name, also those that were not chosen.

        Parameters
        ----------
        selection
            As given by `select`; its channels do not count.
        depth
            All planes of a stack instead of their maximum, where the selection says so.

        Returns
        -------
        channels
            (H, W) or (Z, H, W) each, values as in the file; called "" where there is a single one without a
            name, "red", "green" and "blue" in colour images.
        """
        sizes = dict(zip(selection.roles, self.shape, strict=True))
        colour, n = "S" in sizes, sizes.get("C", 0)
        given = self.channel_names if len(self.channel_names) == n else ("",) * n
        names = [name or ("" if n == 1 else f"ch{i}") for i, name in enumerate(given)]
        names = [f"{name}_ch{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
        chosen = replace(selection, channels=tuple(range(n)) if n else None)
        data, _ = self._take(chosen, depth=depth)
        if colour and n > 1:  # (..., S, C)
            return {
                f"{name}_{tint}": data[..., s, i]
                for i, name in enumerate(names)
                for s, tint in enumerate(COLOURS)
            }
        if colour:
            return {tint: data[..., s] for s, tint in enumerate(COLOURS)}
        return {name: data[..., i] for i, name in enumerate(names)} if n > 1 else {(names or [""])[0]: data}

    def read(self, index: Any = ...) -> Plane:
        """Take a part out of the array as it is.

        Raises
        ------
        FileError
            Pixels that are read only now are damaged, or out of reach.
        """
        try:
            return np.asarray(self.data[index])
        except (FileError, MemoryError):
            raise
        except Exception as error:  # stores and codecs raise many kinds
            raise FileError(f"{self.path} cannot be read ({type(error).__name__}: {error}).") from error

    def take(self, selection: PlaneSelection) -> Plane:
        """Take a plane, or with shorter slices in `selection.index` a part of it, as `plane` returns it."""
        return np.ascontiguousarray(self._take(selection, depth=False)[0])

    def _take(self, selection: PlaneSelection, *, depth: bool) -> tuple[NDArray[Any], bool]:
        """Cut out a selection, with all its planes or their maximum, in the order (Z) Y X (samples)."""
        kept = [(role, n) for role, i, n in zip(selection.roles, selection.index, self.shape, strict=True)
                if isinstance(i, slice)]  # fmt: skip
        roles = [role for role, _ in kept]
        data = self.data
        if not isinstance(data, np.ndarray):  # read only now
            check_fits(self.path, math.prod(n for _, n in kept) * self.dtype.itemsize)
        data = self.read(selection.index)
        if "Z" in roles and not depth:
            axis = roles.index("Z")
            # What could not be measured in one plane may be known from another.
            data = np.fmax.reduce(data, axis=axis) if data.dtype.kind == "f" else data.max(axis=axis)
            del roles[axis]
        data = data.squeeze(tuple(i for i, role in enumerate(roles) if role == "1"))
        roles = [role for role in roles if role != "1"]
        data = data.transpose([roles.index(role) for role in "ZYXSC" if role in roles])
        chosen = selection.channels or (0,)
        if "C" in roles or ("S" in roles and selection.channels is not None):
            data = data[..., chosen[0]] if len(chosen) == 1 else data[..., list(chosen)]
            roles.remove("C" if "C" in roles else "S")
        rgb = "S" in roles
        return data[..., :3] if rgb else data, rgb


def read_image(path: str | os.PathLike[str], series: int | None = None, *, lazily: bool = False) -> ImageFile:
    """Read an image file with its axes, channel names and pixel size.

    The type is recognised by content.

    Parameters
    ----------
    path
        A TIFF, PNG, JPEG or BMP file; a zarr folder, whose planes are read when they are taken, or its
        address (`s3://`, `https://` or any other that fsspec knows); a CZI, ND2 or LIF file, where its reader
        is installed.
    series
        Which image of a file that holds several, from 0. None reads the first, with a warning.
    lazily
        Of a stack or time series read planes only when they are taken; damage in others is not noticed then.

    Raises
    ------
    FileError
        Missing, unreadable, truncated or damaged, no image, of an unknown type, or larger than memory.

    Examples
    --------
    >>> import numpy as np, tempfile, tifffile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = f"{folder}/cells.ome.tif"
    ...     metadata = {"axes": "CYX", "PhysicalSizeX": 0.5}
    ...     tifffile.imwrite(path, np.zeros((2, 8, 9), "uint16"), metadata=metadata)
    ...     image = read_image(path)
    >>> image.axes, image.pixel_size
    ('CYX', (0.5, 0.5))
    >>> plane, rgb = image.plane(channel=1)
    >>> plane.shape, rgb
    ((8, 9), False)
    """
    image = _read(path, pixels=True, series=series, lazily=lazily)
    check_values(image.path, image.dtype)
    for note in image.notes:
        tell(f"{image.path}: {note}", stacklevel=2)
    assert isinstance(image, ImageFile)
    return image


def read_info(path: str | os.PathLike[str], series: int | None = None) -> ImageInfo:
    """Read everything `read_image` does but the pixels, which is quick for any size of file.

    Raises
    ------
    FileError
        As `read_image`; damage inside compressed pixels is not noticed.
    """
    image = _read(path, pixels=False, series=series)
    check_values(image.path, image.dtype)
    return image


def read_pixel_size(path: str | os.PathLike[str]) -> tuple[tuple[float, float] | None, float | None, str]:
    """Read the microscope calibration of a file.

    Returns
    -------
    pixel_size
        (row, column) in micrometres, or `None`.
    z_step
        Distance of planes in micrometres, or `None`.
    source
        "OME", "ImageJ", "file" (of a microscope maker) or "".

    Raises
    ------
    FileError
        As `read_info`.
    """
    info = read_info(path)
    return info.pixel_size, info.z_step, info.pixel_size_source


def check_values(path: Path | str, dtype: np.dtype[Any]) -> None:
    """Refuse what is no real number.

    Raises
    ------
    FileError
        The values are of another type.
    """
    if dtype.kind not in "buif":
        what = "complex numbers" if dtype.kind == "c" else f"values of the type {dtype}"
        raise FileError(f"{path} holds {what}. Save one real number a pixel, such as the magnitude.")


def _read(
    path: str | os.PathLike[str], *, pixels: bool, series: int | None, lazily: bool = False
) -> ImageInfo:
    from napari_lightsam.formats import zarrs

    if zarrs.is_url(path) or zarrs.is_zarr(Path(path)):
        return _only_first(zarrs.read_zarr(path), series)
    return _read_file(Path(path), pixels=pixels, series=series, lazily=lazily)


def _read_file(path: Path, *, pixels: bool, series: int | None, lazily: bool) -> ImageInfo:
    from napari_lightsam.formats import vendors

    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of which reading may never end, or never begin
            raise FileError(f"{path} is no file but a pipe, socket or device.")
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder, not an image file.") from None
    except OSError as error:
        if os.path.isdir(path):  # Windows answers "permission denied" for a folder
            raise FileError(f"{path} is a folder, not an image file.") from None
        raise FileError(f"{path} cannot be opened: {error.strerror or error}.") from error
    if not head:
        raise FileError(f"{path} is empty (0 bytes).")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from napari_lightsam.formats import tiff

        return tiff.read(path, pixels=pixels, series=series, lazily=lazily)
    if path.suffix.casefold() in vendors.SUFFIXES:
        return vendors.read(path, pixels=pixels, series=series, lazily=lazily)
    if head.startswith((b"\x89PNG", b"\xff\xd8\xff", b"BM")):
        from napari_lightsam.formats import pictures

        return _only_first(pictures.read(path, head, pixels=pixels), series)
    raise FileError(
        f"{path} is no image of a known type. {_ADVICE}; "
        "open other formats in Fiji and save them as OME-TIFF."
    )


def check_series(path: str | os.PathLike[str], series: int | None, n: int) -> int:
    """Return the number of the image to read in a file of `n`.

    Raises
    ------
    FileError
        The file has no such image.
    """
    if series is not None and not 0 <= series < n:
        images = "one image, number 0" if n == 1 else f"{n} images, numbered from 0 to {n - 1}"
        raise FileError(f"{path} holds {images}; there is no number {series} (--series).")
    return series or 0


def _only_first(image: ImageInfo, series: int | None) -> ImageInfo:
    check_series(image.path, series, 1)
    return image
