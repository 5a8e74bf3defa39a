"""What the axes, channels and pixels of an image mean, and which part of it a plane is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES = (3, 4)
"""Of a colour image."""

_Info = TypeVar("_Info", bound="ImageInfo")

COLOURS = ("red", "green", "blue")
"""Names of the samples of a colour image."""


class OpenChoiceError(FileError):
    """Several channels, planes or time points are there, and none was chosen."""


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
        """Count the planes of the stack that `images.ImageFile.stack` gives; 1 where there is no depth axis.

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
            Number (from 0) or name of a channel, or a tuple of one to three of them. A colour image is one
            channel of which a number takes all; "red", "green" or "blue" picks one of its samples.
        z
            Plane of a stack, from 0, or "max" for the maximum over all planes.
        time
            Time point, from 0.

        Raises
        ------
        OpenChoiceError
            More than one channel, plane or time point and no choice.
        FileError
            A choice that does not exist.
        """
        roles = self._roles(channel is not None, z is not None, time is not None)
        index: list[int | slice] = [slice(None)] * len(self.shape)
        channels: tuple[int, ...] | None = None
        if "C" in roles.values():
            n = self.shape[_position(roles, "C")]
            channels = self._channels(channel, n)
        elif channel is not None and "S" not in self.axes:
            channels = self._channels(channel, 1)
        elif channel is not None and not _is_numbered(channel):
            channels = self._channels(channel, len(COLOURS))
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
            raise OpenChoiceError(
                f"{self.path} has an axis of {sizes} planes, and the file does not say what it is. "
                "Choose a plane of it as depth (--z N or --z max), time (--time N) or channel (--channel N)."
            )
        return roles

    def _pick(self, given: int | str | None, n: int, what: str, name: str) -> int:
        if given is None:
            if n == 1:
                return 0
            also = " or max" if name == "z" else ""
            raise OpenChoiceError(f"{self.path} has {n} {what}. Choose one with --{name} 0 to {n - 1}{also}.")
        if not isinstance(given, (int, np.integer)) or isinstance(given, bool) or not 0 <= given < n:
            raise FileError(
                f"{self.path} has {n} {what}, numbered from 0 to {n - 1}; {name} {given!r} is not one."
            )
        return int(given)

    def _channels(self, given: int | str | tuple[int | str, ...] | None, n: int) -> tuple[int, ...]:
        if given is None:
            if n == 1:
                return (0,)
            raise OpenChoiceError(
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
            return COLOURS
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
            Not a letter for each dimension, or colour samples that are none.
        """
        if axes is None or axes == self.axes:
            return self
        if len(axes) != len(self.shape):
            raise FileError(
                f"{self.path} has {len(self.shape)} dimensions, {self.shape}; the axes {axes} do not fit."
            )
        if "S" in axes and (axes[-1] != "S" or self.shape[-1] not in SAMPLES):
            raise FileError(
                f"{self.path} has the dimensions {self.shape}; the axes {axes} do not fit: colour samples "
                "(S) are the last one, of 3 or 4."
            )
        return replace(self, axes=axes)


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


def _is_numbered(channel: int | str | tuple[int | str, ...]) -> bool:
    """Whether channels are told by number, be it as text."""
    given = channel if isinstance(channel, tuple) else (channel,)
    return any(not isinstance(one, str) or one.strip().isdecimal() for one in given)


def _position(roles: dict[int, str], role: str) -> int:
    return next(i for i, r in roles.items() if r == role)
