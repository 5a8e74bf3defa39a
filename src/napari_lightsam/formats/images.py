"""Microscopy images from files of any kind that is read, with what their axes and pixels mean."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_lightsam.engine.image import LightSamWarning
from napari_lightsam.errors import FileError
from napari_lightsam.formats.memory import check_fits

if TYPE_CHECKING:
    import os

Plane = NDArray[Any]
_Info = TypeVar("_Info", bound="ImageInfo")

SUFFIXES = (".tif", ".tiff", ".lsm", ".png", ".jpg", ".jpeg", ".bmp")
"""File name endings that folders are searched for; a file given by name is recognised by its content."""

_COLOURS = ("red", "green", "blue")
_ADVICE = "Accepted are TIFF (also OME, ImageJ, BigTIFF, LSM), PNG, JPEG, BMP and OME-Zarr"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageInfo:
    """What a file says about its image, without the pixels.

    Attributes
    ----------
    path
        The file or folder; text where it is an address.
    shape, dtype
        Of the whole array.
    axes
        One letter per dimension: T time, C channel, Z depth, Y row, X column, S colour sample
        (red, green, blue and perhaps alpha; always last), Q a meaning the file does not tell.
    channel_names
        One name per channel, or empty.
    pixel_size
        (row, column) size of a pixel in micrometres; `None` where the file carries no microscope
        calibration. Dots per inch are none.
    z_step
        Distance of planes in micrometres, or `None`.
    pixel_size_source
        "OME", "ImageJ", "file" (of a microscope maker) or "".
    notes
        What a user should know, such as further images in the file that are not read.
    n_images
        Images (series, scenes) in the file.
    """

    path: Path | str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    channel_names: tuple[str, ...] = ()
    pixel_size: tuple[float, float] | None = None
    z_step: float | None = None
    pixel_size_source: Literal["OME", "ImageJ", "file", ""] = ""
    notes: tuple[str, ...] = ()
    n_images: int = 1

    @property
    def n_channels(self) -> int:
        """Number of channels; a colour image counts as one."""
        return self._size("C")

    def count_planes(
        self, channel: int | str | tuple[int | str, ...] | None = None, time: int | None = None
    ) -> int:
        """Count the planes of the stack that `ImageFile.stack` gives; 1 where there is no depth axis.

        Raises
        ------
        FileError
            As in `select`.
        """
        roles = self.select(channel, "max", time).roles
        return dict(zip(roles, self.shape, strict=True)).get("Z", 1)

    def _size(self, axis: str) -> int:
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def select(
        self,
        channel: int | str | tuple[int | str, ...] | None = None,
        z: int | Literal["max"] | None = None,
        time: int | None = None,
    ) -> PlaneSelection:
        """Say which part of the array one plane is, or why that cannot be told.

        Parameters
        ----------
        channel
            Number (from 0) or name of a channel, or a tuple of one to three of them. In a colour image
            0, 1, 2 or "red", "green", "blue" pick one sample.
        z
            Plane of a stack, from 0, or "max" for the maximum over all planes.
        time
            Time point, from 0.

        Raises
        ------
        FileError
            More than one channel, plane or time point and no choice, or a choice that does not exist.
        """
        roles = self._roles(channel is not None, z is not None, time is not None)
        index: list[int | slice] = [slice(None)] * len(self.shape)
        channels: tuple[int, ...] | None = None
        if "C" in roles.values():
            n = self.shape[_position(roles, "C")]
            channels = self._channels(channel, n)
        elif channel is not None:
            channels = self._channels(channel, 3 if "S" in self.axes else 1)
        for axis, role in roles.items():
            if role == "Z" and z != "max":
                index[axis] = self._pick(z, self.shape[axis], "planes", "z")
            elif role == "T":
                index[axis] = self._pick(time, self.shape[axis], "time points", "time")
        if "Z" not in roles.values() and z not in (None, "max"):
            self._pick(z, 1, "planes", "z")
        if "T" not in roles.values():
            self._pick(time, 1, "time points", "time")
        return PlaneSelection(tuple(roles.get(i, "") for i in range(len(self.shape))), tuple(index), channels)

    def _roles(self, channel: bool, z: bool, time: bool) -> dict[int, str]:
        """Role of every axis; one axis of unknown meaning takes the role the caller asked for."""
        roles = dict(enumerate(self.axes))
        unknown = [i for i, a in roles.items() if a == "Q"]
        for i in unknown:
            if self.shape[i] == 1:
                roles[i] = "1"
        unknown = [i for i in unknown if self.shape[i] > 1]
        asked = [
            role
            for role, given in (("C", channel and "S" not in self.axes), ("Z", z), ("T", time))
            if given and self._size(role) == 1 and role not in self.axes
        ]
        if len(unknown) == 1 and len(asked) == 1:
            roles[unknown[0]] = asked[0]
        elif unknown:
            sizes = " and ".join(str(self.shape[i]) for i in unknown)
            raise FileError(
                f"{self.path} has an axis of {sizes} planes, and the file does not say what it is. "
                "Choose a plane of it as depth (--z N or --z max), time (--time N) or channel (--channel N)."
            )
        return roles

    def _pick(self, given: int | str | None, n: int, what: str, name: str) -> int:
        if given is None:
            if n == 1:
                return 0
            also = " or max" if name == "z" else ""
            raise FileError(f"{self.path} has {n} {what}. Choose one with --{name} 0 to {n - 1}{also}.")
        if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or not 0 <= given < n:
            raise FileError(
                f"{self.path} has {n} {what}, numbered from 0 to {n - 1}; {name} {given!r} is not one."
            )
        return int(given)

    def _channels(self, given: int | str | tuple[int | str, ...] | None, n: int) -> tuple[int, ...]:
        if given is None:
            if n == 1:
                return (0,)
            raise FileError(
                f"{self.path} has {n} channels: {self.list_channels(n)}. Choose one with --channel, by "
                "number or name, or up to three separated by commas."
            )
        chosen = given if isinstance(given, tuple) else (given,)
        if not 1 <= len(chosen) <= 3:
            raise FileError(f"One to three channels can be segmented together; {len(chosen)} were given.")
        numbers = tuple(self._channel(c, n) for c in chosen)
        if len(set(numbers)) != len(numbers):
            raise FileError(f"A channel was given twice: {', '.join(map(str, chosen))}.")
        return numbers

    def _channel(self, given: int | str, n: int) -> int:
        names = [c.casefold() for c in self._names(n)]
        if isinstance(given, str) and names.count(given.strip().casefold()) == 1:
            return names.index(given.strip().casefold())
        try:
            number = int(given)
        except ValueError:
            number = -1
        if not 0 <= number < n:
            raise FileError(f"{self.path} has no channel {given!r}. It has {n}: {self.list_channels(n)}.")
        return number

    def _names(self, n: int) -> tuple[str, ...]:
        if "S" in self.axes and "C" not in self.axes:
            return _COLOURS
        return self.channel_names if len(self.channel_names) == n else ()

    def list_channels(self, n: int | None = None) -> str:
        """Channels by number and, where the file tells it, by name: "0 (DAPI), 1 (GFP)"."""
        n = self.n_channels if n is None else n
        names = self._names(n) or ("",) * n
        return ", ".join(f"{i} ({name})" if name else str(i) for i, name in enumerate(names[:n]))

    def with_axes(self: _Info, axes: str | None) -> _Info:
        """Return the image with other axes than the file names; None leaves them.

        Raises
        ------
        FileError
            Not a letter for each dimension.
        """
        if axes is None or axes == self.axes:
            return self
        if len(axes) != len(self.shape):
            raise FileError(
                f"{self.path} has {len(self.shape)} dimensions, {self.shape}; the axes {axes} do not fit."
            )
        return replace(self, axes=axes)

    def name_channels(self, selection: PlaneSelection) -> tuple[str, ...]:
        """Name each channel or colour sample of a selected plane, in the order of its last axis."""
        colour = "S" in self.axes
        n = 3 if colour else dict(zip(selection.roles, self.shape, strict=True)).get("C", 1)
        names = self._names(n)
        numbers = selection.channels if selection.channels is not None else tuple(range(3 if colour else 1))
        if not names and len(numbers) == 1 and n == 1:
            return ("",)
        return tuple(names[i] if names and names[i] else f"ch{i}" for i in numbers)


@dataclass(frozen=True, slots=True)
class PlaneSelection:
    """One plane of an array, as resolved by `ImageInfo.select`.

    Attributes
    ----------
    roles
        Letter of every dimension, with unknown ones resolved.
    index
        A number or a full slice per dimension. A full slice over depth means its maximum, in a stack all of
        its planes.
    channels
        Chosen channels (or colour samples), or `None` for all samples of a colour image.
    """

    roles: tuple[str, ...]
    index: tuple[int | slice, ...]
    channels: tuple[int, ...] | None


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
                for s, tint in enumerate(_COLOURS)
            }
        if colour:
            return {tint: data[..., s] for s, tint in enumerate(_COLOURS)}
        return {name: data[..., i] for i, name in enumerate(names)} if n > 1 else {(names or [""])[0]: data}

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
        data = np.asarray(data[selection.index])
        if "Z" in roles and not depth:
            axis = roles.index("Z")
            data = data.max(axis=axis)
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


def _position(roles: dict[int, str], role: str) -> int:
    return next(i for i, r in roles.items() if r == role)


def read_image(path: str | os.PathLike[str], series: int | None = None) -> ImageFile:
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
    image = _read(path, pixels=True, series=series)
    for note in image.notes:
        warnings.warn(f"{image.path}: {note}", LightSamWarning, stacklevel=2)
    assert isinstance(image, ImageFile)
    return image


def read_info(path: str | os.PathLike[str], series: int | None = None) -> ImageInfo:
    """Read everything `read_image` does but the pixels, which is quick for any size of file.

    Raises
    ------
    FileError
        As `read_image`; damage inside compressed pixels is not noticed.
    """
    return _read(path, pixels=False, series=series)


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


def _read(path: str | os.PathLike[str], *, pixels: bool, series: int | None) -> ImageInfo:
    from napari_lightsam.formats import zarrs

    if zarrs.is_url(path) or zarrs.is_zarr(Path(path)):
        return _only_first(zarrs.read_zarr(path), series)
    return _read_file(Path(path), pixels=pixels, series=series)


def _read_file(path: Path, *, pixels: bool, series: int | None) -> ImageInfo:
    from napari_lightsam.formats import vendors

    try:
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except IsADirectoryError:
        raise FileError(f"{path} is a folder, not an image file.") from None
    except OSError as error:
        if path.is_dir():  # Windows answers "permission denied" for a folder
            raise FileError(f"{path} is a folder, not an image file.") from None
        raise FileError(f"{path} cannot be opened: {error.strerror or error}.") from error
    if not head:
        raise FileError(f"{path} is empty (0 bytes).")
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from napari_lightsam.formats import tiff

        return tiff.read(path, pixels=pixels, series=series)
    if path.suffix.casefold() in vendors.SUFFIXES:
        return vendors.read(path, pixels=pixels, series=series)
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
