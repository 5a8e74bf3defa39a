"""What is sent to the worker: a plane of one to three layers or channels, to be read there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ImageError
from napari_lightsam.plugin.scope import outline_of
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import (
    AxisRole,
    NoPlane,
    Plane,
    channel_names,
    displayed_plane,
    full_plane,
    level0,
    roles_of,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_lightsam.plugin.scope import Region

MOST_INPUTS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """Something that can be one of the model's inputs.

    Attributes
    ----------
    layer
        `unique_id` of an Image layer.
    channel
        Position on its channel axis (or its last axis, where that holds samples that are no colours);
        None: all of a colour image, or the channel on display.
    title
        What a chooser shows.
    """

    layer: Hashable
    channel: int | None
    title: str


class _View:
    """A part of an array, such as one of zarr, that only reads what is asked for."""

    def __init__(self, data: Any, index: tuple[int | slice, ...]) -> None:
        self._data, self._index = data, index
        spans = [s.indices(n) for s, n in zip(index, data.shape, strict=True) if isinstance(s, slice)]
        self._starts = [start for start, _, _ in spans]
        self.shape = tuple(stop - start for start, stop, _ in spans)
        self.dtype = np.dtype(data.dtype)

    def __getitem__(self, key: Any) -> Any:
        key = key if isinstance(key, tuple) else (key,)
        asked = iter(zip((*key, *(slice(None),) * (len(self.shape) - len(key))), self.shape, self._starts,
                         strict=True))  # fmt: skip
        return np.asarray(self._data[tuple(
            step if not isinstance(step, slice) else _within(*next(asked)) for step in self._index
        )])  # fmt: skip


def _within(part: slice | int, length: int, start: int) -> slice | int:
    if not isinstance(part, slice):
        return start + part
    low, high, step = part.indices(length)
    return slice(start + low, start + high, step)


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """One array and the part of it that is a plane.

    Attributes
    ----------
    data
        Full-resolution array, possibly lazy; only referred to, never copied here.
    index
        A number or a full slice along every axis.
    axes
        For every axis of the image that is segmented, the same axis of this array; None for channels.
    """

    data: Any
    index: tuple[int | slice, ...]
    axes: tuple[int | None, ...]

    def read(self, region: Region | None = None) -> Any:
        """Return the plane, or a part of it, as a NumPy array (H, W) or (H, W, samples)."""
        return np.asarray(self.data[self._part(region)])

    def refer(self, region: Region | None = None) -> Any:
        """Return the same without reading it, where the array is lazy; as a NumPy array elsewhere."""
        if region is None and all(step == slice(None) for step in self.index):
            return self.data
        part = self.data[self._part(region)]
        return part if hasattr(part, "dask") else np.asarray(part)

    def all_along(self, axes: Iterable[int]) -> Input:
        """Return the same over the whole of some of the image's axes."""
        whole = [self.axes[axis] for axis in axes]
        return replace(
            self, index=tuple(slice(None) if i in whole else step for i, step in enumerate(self.index))
        )

    def length(self, axis: int) -> int:
        """Return how long one of the image's axes is here; a plane is one long."""
        own = self.axes[axis]
        return 1 if own is None else int(self.data.shape[own])

    def refer_stack(self, axis: int) -> Any:
        """Return all planes along one of the image's axes without reading them, where the array is lazy."""
        index = self.all_along([axis]).index
        if all(step == slice(None) for step in index):
            return self.data
        part = self.data[index]
        return part if hasattr(part, "dask") else np.asarray(part)

    def view(self, region: Region) -> Any:
        """Return a part that is read piece by piece, as it is asked for, from arrays of any kind."""
        if isinstance(self.data, np.ndarray) or hasattr(self.data, "dask"):
            return self.data[self._part(region)]
        return _View(self.data, self._part(region))

    def _part(self, region: Region | None) -> tuple[int | slice, ...]:
        if region is None:
            return self.index
        sides = iter(((region[0], region[2]), (region[1], region[3])))
        part: list[int | slice] = []
        for step in self.index:
            # rows and columns come before colour samples
            side = next(sides, None) if isinstance(step, slice) else None
            if side is None or not isinstance(step, slice):
                part.append(step)
            else:
                start = step.start or 0  # of the work region
                part.append(slice(start + side[0], start + side[1]))
        return tuple(part)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneRequest:
    """A plane to be embedded, made on the main thread and read in the worker.

    Attributes
    ----------
    plane
        Where it is.
    key
        Equal for equal pixels: what the worker's memory of embeddings goes by.
    inputs
        One to three arrays.
    rgb
        The one input is a colour image; otherwise every input is a channel of its own.
    within
        Polygons (n, 2) that the work region was drawn as, in pixels of the plane; empty for a rectangle.
    seen
        What each input is called, and its channel; see `Made.inputs`.
    """

    plane: Plane
    key: Hashable
    inputs: tuple[Input, ...]
    rgb: bool
    within: tuple[NDArray[np.float64], ...] = ()
    seen: tuple[tuple[str, int | None], ...] = ()

    def read(self) -> Any:
        """Return (H, W), or (H, W, C) for colour or several inputs."""
        if len(self.inputs) == 1:
            return self.inputs[0].read()
        return np.stack([part.read() for part in self.inputs], axis=-1)

    def refer(self, region: Region) -> Any:
        """Return a part of the same, read as late as possible: it may be larger than memory."""
        part = None if region == (0, 0, *self.plane.shape) else region
        if len(self.inputs) == 1:
            return self.inputs[0].refer(part)
        return np.stack([one.read(part) for one in self.inputs], axis=-1)

    def refer_lazily(self, region: Region) -> Any:
        """Return a part of the same that is read piece by piece, also where the array is no dask array."""
        return self.inputs[0].view(region) if len(self.inputs) == 1 else self.refer(region)

    def whole(self) -> PlaneRequest:
        """Return the same request for the whole plane, out of which a work region was taken."""
        rows, columns = (self.inputs[0].length(axis) for axis in self.plane.axes)
        inputs = tuple(one.all_along(self.plane.axes) for one in self.inputs)
        plane = replace(self.plane, origin=(0, 0), shape=(rows, columns))
        return replace(self, plane=plane, key=(plane.key, self.key), inputs=inputs, within=())

    def check_stack(self) -> None:
        """Make sure that all planes can be referred to, without reading any.

        Raises
        ------
        ImageError
            Inputs are different layers, whose planes may lie elsewhere.
        """
        if len({id(one.data) for one in self.inputs}) > 1:
            raise ImageError(
                "All planes can be segmented of one Image layer only; merge the layers first, or segment "
                "plane by plane."
            )

    def refer_stack(self, axis: int) -> tuple[Any, int]:
        """Return all planes along a data axis of the image, and which axis of the array that is.

        Several channels are put together, which reads them: this belongs in the worker.

        Raises
        ------
        ImageError
            As `check_stack`.
        """
        self.check_stack()
        arrays = [one.refer_stack(axis) for one in self.inputs]
        own = self.inputs[0].axes
        position = sorted((*self.plane.axes, axis), key=lambda of_image: own[of_image] or 0).index(axis)
        return (arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)), position


def is_colour(layer: Image) -> bool:
    """Tell whether an Image layer holds colours.

    napari shows every array whose last axis has three or four samples as RGB. Four samples of more than
    8 bits are four channels of a microscope all the same.
    """
    data = level0(layer)
    return bool(layer.rgb and (np.dtype(data.dtype) == np.uint8 or data.shape[-1] == 3))


def n_channels(layer: Image) -> int:
    """Return how many channels one Image layer holds; a colour image has one."""
    data = level0(layer)
    if layer.rgb:
        return 1 if is_colour(layer) else int(data.shape[-1])
    roles = roles_of(layer)
    return int(data.shape[roles.index(AxisRole.CHANNEL)]) if AxisRole.CHANNEL in roles else 1


def sources(viewer: ViewerModel, image: Image) -> list[Source]:
    """Return what can be mapped to the model's inputs: the image's channels, and other images of its size."""
    found = []
    for layer in sorted(layers.images(viewer), key=lambda other: other.unique_id != image.unique_id):
        same = layer.unique_id == image.unique_id
        if not same and (is_colour(layer) or is_colour(image) or _size(layer) != _size(image)):
            continue
        count = n_channels(layer)
        if count == 1:
            found.append(Source(layer.unique_id, None, layer.name))
        else:
            before = "" if same else f"{layer.name}, "
            names = channel_names(layer, count)
            found += [Source(layer.unique_id, i, before + name) for i, name in enumerate(names)]
    return found


def own_sources(viewer: ViewerModel, image: Image, channels: Sequence[object]) -> list[Source]:
    """Return channels of an image as inputs of the model, by their numbers; empty when one is not there."""
    own: dict[object, Source] = {
        one.channel: one for one in sources(viewer, image) if one.layer == image.unique_id
    }
    return [own[channel] for channel in channels] if set(channels) <= set(own) else []


def _size(layer: Image) -> tuple[int, ...]:
    return tuple(
        n
        for n, role in zip(level0(layer).shape, roles_of(layer), strict=False)
        if role is not AxisRole.CHANNEL
    )


def default_sources(viewer: ViewerModel, image: Image) -> list[Source]:
    """Return what is segmented when the user chose nothing: the image, or the channel on display."""
    count = n_channels(image)
    if count == 1:
        return [Source(image.unique_id, None, image.name)]
    if image.rgb:
        names = channel_names(image, count)[:MOST_INPUTS]
        return [Source(image.unique_id, i, name) for i, name in enumerate(names)]
    return [Source(image.unique_id, None, "channel on display")]


def make_request(
    viewer: ViewerModel, image: Image, chosen: Sequence[Source], versions: Sequence[int] = ()
) -> PlaneRequest:
    """Describe the displayed plane of an image with the chosen inputs.

    Parameters
    ----------
    viewer, image
        What is on display.
    chosen
        One to three sources.
    versions
        Counters of changes of the layers' data, part of the key.

    Raises
    ------
    NoPlane
        There is no plane to work on, or an input was deleted or does not reach it.
    """
    plane = displayed_plane(image, viewer)
    inputs, steps, seen = [], [], []
    for source in chosen[:MOST_INPUTS]:
        layer = layers.by_id(viewer, source.layer)
        if layer is None:
            raise NoPlane(f"The input {source.title!r} was deleted; choose another one.")
        same = layer.unique_id == image.unique_id
        other = plane if same else full_plane(layer, viewer)
        if not same and other.shape != full_plane(image, viewer).shape:
            raise NoPlane(f"The input {source.title!r} has another size than {image.name!r}.")
        if not same and plane.origin + plane.shape != (0, 0, *other.shape):
            (y0, x0), (height, width) = plane.origin, plane.shape
            other = other.narrowed((y0, x0, y0 + height, x0 + width))
        index = _full_index(layer, other, source.channel)
        inputs.append(Input(level0(layer), index, _same_axes(plane, other)))
        steps.append((layer.unique_id, str(index)))
        seen.append((layers.input_key(layer), _channel_of(layer, other, index)))
    colour = len(inputs) == 1 and is_colour(layers.by_id(viewer, chosen[0].layer))
    key = plane.key, tuple(steps), tuple(versions)
    return PlaneRequest(plane, key, tuple(inputs), colour, outline_of(image, plane), tuple(seen))


def _channel_of(layer: Image, plane: Plane, index: tuple[int | slice, ...]) -> int | None:
    """Return the channel of an input; None for a colour image, and for one that has no channels."""
    if layer.rgb:
        last = index[-1]
    elif AxisRole.CHANNEL in plane.roles:
        last = index[plane.roles.index(AxisRole.CHANNEL)]
    else:
        return None
    return None if isinstance(last, slice) else int(last)


def _same_axes(plane: Plane, other: Plane) -> tuple[int | None, ...]:
    """Return which axis of another layer each axis of an image is: both end alike, channels left out."""
    ours, theirs = (
        [axis for axis, role in enumerate(one.roles) if role is not AxisRole.CHANNEL]
        for one in (plane, other)
    )
    found = dict(zip(reversed(ours), reversed(theirs), strict=False))
    return tuple(found.get(axis) for axis in range(len(plane.roles)))


def _full_index(layer: Image, plane: Plane, channel: int | None) -> tuple[int | slice, ...]:
    index: list[int | slice] = [slice(None) if step is None else step for step in plane.index]
    for axis, start, length in zip(plane.axes, plane.origin, plane.shape, strict=True):
        if start or length != level0(layer).shape[axis]:
            index[axis] = slice(start, start + length)
    if layer.rgb:
        index.append(slice(None) if channel is None else channel)
    elif channel is not None:
        index[plane.roles.index(AxisRole.CHANNEL)] = channel
    return tuple(index)
