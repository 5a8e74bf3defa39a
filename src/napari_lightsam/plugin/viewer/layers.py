"""Layers that lie exactly on an image: created with its transform, found again by their metadata."""

from __future__ import annotations

import uuid
from copy import deepcopy
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from napari_lightsam.plugin.viewer.axes import METADATA_KEY, AxisRole, Plane, level0
from napari_lightsam.plugin.viewer.names import unused_name
from napari_lightsam.plugin.viewer.places import index_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Points, Shapes

    from napari_lightsam.plugin.viewer.places import Place

AnyLayer = TypeVar("AnyLayer", bound="Layer")


class Role(StrEnum):
    """What one of our layers is for; kept in its metadata."""

    IMAGE = "image"
    OBJECTS = "objects"
    EVERYTHING = "everything"
    """Objects of *Segment everything*."""
    WHOLE = "whole image"
    """Objects on disk, only shown."""
    LESSON = "lesson"
    """What a model found before and after it was taught."""
    POINTS = "points"
    BOXES = "boxes"
    PREVIEW = "preview"
    TYPICAL = "typical"
    """One typical object, to be drawn."""
    SELECTED = "selected"
    SPLIT = "split"
    FIELD = "field"
    MISSED = "missed"
    REGION = "work region"


PROMPTS = (Role.POINTS, Role.BOXES)
_TOOLS = frozenset(
    (
        *PROMPTS, Role.PREVIEW, Role.TYPICAL, Role.SELECTED, Role.SPLIT, Role.FIELD, Role.MISSED, Role.REGION,
    )
)  # fmt: skip
_ON_TOP = (*PROMPTS, Role.PREVIEW)

LARGEST_ARRAY = 4 * 2**30
"""Bytes up to which a Labels layer covers all planes of a stack; of a larger one it holds one plane."""


def ours(layer: Layer) -> dict[str, Any]:
    """Return what we noted in a layer's metadata; empty for layers of others."""
    return layer.metadata.get(METADATA_KEY, {})  # type: ignore[no-any-return]


def rely_on(layer: Labels) -> None:
    """Note that objects of a layer are known by their labels from now on, so that they keep them.

    A result of everything mode is numbered anew with every other choice of its objects; one that is relied
    on stays as it is, as after a stroke of the brush, and another choice goes into a layer of its own.
    """
    ours(layer)["relied_on"] = True


def is_relied_on(layer: Labels) -> bool:
    """Tell whether objects of a layer are known by their labels somewhere."""
    return bool(ours(layer).get("relied_on"))


def note_of(labels: Labels) -> dict[str, Any]:
    """Return our note in the metadata of a Labels layer, to be written in; it is made where there is none."""
    note: dict[str, Any] = labels.metadata.setdefault(METADATA_KEY, {"role": Role.OBJECTS, "version": 1})
    return note


_OF_ONE = ("input_key", "session_file", "first_name", "resume")
"""What tells one image, and is not of its duplicate."""


def own_note(layer: Layer, others: Iterable[Layer]) -> None:
    """Give a duplicate a note of its own: as napari makes it, it shares that of its original.

    A duplicate of a layer that only serves the mouse or the eye is a layer of the user.

    Parameters
    ----------
    layer
        Perhaps a duplicate.
    others
        Perhaps its original.
    """
    note = ours(layer)
    if not note or not any(ours(other) is note for other in others if other.unique_id != layer.unique_id):
        return
    if is_tool(layer):
        del layer.metadata[METADATA_KEY]
    else:
        kept = {key: value for key, value in note.items() if key not in _OF_ONE}
        layer.metadata[METADATA_KEY] = deepcopy(kept)


def is_tool(layer: Layer) -> bool:
    """Tell whether a layer of ours only serves the mouse or the eye: nothing in it is a result."""
    return ours(layer).get("role") in _TOOLS


def holds_objects(layer: Layer) -> TypeGuard[Labels]:
    """Tell whether a layer is a Labels layer of objects that somebody works on."""
    from napari.layers import Labels

    return isinstance(layer, Labels) and not is_tool(layer) and ours(layer).get("role") != Role.LESSON


def user_labels(viewer: ViewerModel) -> Iterator[Labels]:
    """Yield the Labels layers that hold objects somebody works on, from bottom to top."""
    for layer in viewer.layers:
        if holds_objects(layer):
            yield layer


def user_marks(viewer: ViewerModel, ndim: int) -> Iterator[Points | Shapes]:
    """Yield the Points and Shapes layers of so many axes that somebody drew or opened."""
    from napari.layers import Points, Shapes

    for layer in viewer.layers:
        if isinstance(layer, Points | Shapes) and layer.ndim == ndim and not is_tool(layer):
            yield layer


def input_key(layer: Image) -> str:
    """Return what an image is called in what is noted of objects."""
    return str(ours(layer).get("input_key") or layer.unique_id)


def note_of_image(layer: Image) -> dict[str, Any]:
    """Return what is noted about an image, to be added to."""
    note: dict[str, Any] = layer.metadata.setdefault(METADATA_KEY, {"role": Role.IMAGE, "version": 1})
    return note


def renew_key(layer: Image) -> None:
    """Call an image by another name in what is noted of objects: its pixels are others from now on."""
    note_of_image(layer)["input_key"] = uuid.uuid4().hex


def find(viewer: ViewerModel, role: str, owner: str) -> Any | None:
    """Find our layer of a role, however it is called now and wherever it was moved; None when deleted."""
    for layer in viewer.layers:
        note = ours(layer)
        if note.get("role") == role and note.get("owner") == owner:
            return layer
    return None


def by_id(viewer: ViewerModel, unique_id: Hashable | None) -> Any | None:
    """Find a layer by its `unique_id`; None when it was deleted."""
    return next((layer for layer in viewer.layers if layer.unique_id == unique_id), None)


def remove(viewer: ViewerModel, layer: Layer) -> None:
    """Remove a layer, also one that came as a proxy: widgets get these, and the list knows none of them."""
    viewer.layers.remove(getattr(layer, "__wrapped__", layer))


def active_id(viewer: ViewerModel) -> Hashable | None:
    """Return the `unique_id` of the active layer; None when there is none."""
    active = viewer.layers.selection.active
    return None if active is None else active.unique_id


def activate(viewer: ViewerModel, unique_id: Hashable | None) -> None:
    """Make a layer active, unless it was deleted."""
    layer = by_id(viewer, unique_id)
    if layer is not None:
        viewer.layers.selection.active = layer


def add(
    viewer: ViewerModel, layer: AnyLayer, *, keep_active: bool = False, below: Sequence[str] = _ON_TOP
) -> AnyLayer:
    """Add a layer below our prompts and preview, which must stay visible and clickable.

    Parameters
    ----------
    viewer
        Where to.
    layer
        In no viewer yet.
    keep_active
        The active layer stays active; napari makes a new one active.
    below
        Roles of the layers of ours that stay above it.
    """
    active = active_id(viewer)
    roles = [ours(other).get("role") for other in viewer.layers]
    # not added and then moved: each of the two makes napari draw all layers anew
    viewer.layers.insert(next((i for i, role in enumerate(roles) if role in below), len(roles)), layer)
    if keep_active:
        activate(viewer, active)
    return layer


def images(viewer: ViewerModel) -> Iterator[Image]:
    """Yield the Image layers that can be segmented."""
    from napari.layers import Image

    for layer in viewer.layers:
        if isinstance(layer, Image) and layer.ndim >= 2:
            yield layer


def on_image(
    image: Image, plane: Plane, *, stretch: float = 1.0, on_all_planes: bool = False
) -> dict[str, Any]:
    """Return the transform of a layer that lies on an image, as keywords for `viewer.add_*`.

    Channel axes have length one in our layers, because an object is the same in all channels. Their one
    pixel is stretched over all of them, so that the layer shows whatever channel is chosen.

    Parameters
    ----------
    image
        The image.
    plane
        Names the channel axes.
    stretch
        Further stretching of channel axes: prompts need it, as a point shows only within half a pixel.
    on_all_planes
        The layer is the same on all planes too, as in all channels.
    """
    shape = level0(image).shape
    scale, translate = np.array(image.scale, float), np.array(image.translate, float)
    for axis, role in enumerate(plane.roles):
        if role is AxisRole.CHANNEL or (on_all_planes and axis not in plane.axes):
            translate[axis] += scale[axis] * (shape[axis] - 1) / 2
            scale[axis] *= shape[axis] * stretch
    return {
        "scale": scale,
        "translate": translate,
        "rotate": image.rotate,
        "shear": image.shear,
        "affine": image.affine.affine_matrix,
        "units": image.units,
        "axis_labels": image.axis_labels,
    }


def on_plane(image: Image, plane: Plane, offset: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    """Return the transform of a layer of one plane, or of a part of it that starts at `offset`."""
    start = [
        0 if step is None or role is AxisRole.CHANNEL else step
        for step, role in zip(plane.index, plane.roles, strict=True)
    ]
    start[plane.axes[0]], start[plane.axes[1]] = (a + b for a, b in zip(offset, plane.origin, strict=True))
    return _shifted(image, plane, start)


def on_region(image: Image, plane: Plane) -> dict[str, Any]:
    """Return the transform of a layer over all planes of an image, of the work region where there is one."""
    start = [0] * image.ndim
    start[plane.axes[0]], start[plane.axes[1]] = plane.origin
    return _shifted(image, plane, start)


def _shifted(image: Image, plane: Plane, start: list[int]) -> dict[str, Any]:
    """Return the transform of a layer whose first pixel lies on a pixel of an image."""
    keywords = on_image(image, plane)
    moved = np.subtract(image.data_to_world(start), image.data_to_world([0] * image.ndim))
    # `affine` acts after `translate`, so the shift is taken back through it
    keywords["translate"] = keywords["translate"] + np.linalg.solve(image.affine.linear_matrix, moved)
    return keywords


def whole_shape(image: Image, plane: Plane) -> tuple[int, ...]:
    """Return the shape of a Labels array over all planes: the image's, with one for channels.

    Along the two axes of the plane it is as large as the plane: as the work region, where there is one.
    """
    shape = list(level0(image).shape)
    shape[plane.axes[0]], shape[plane.axes[1]] = plane.shape
    return tuple(1 if role is AxisRole.CHANNEL else shape[i] for i, role in enumerate(plane.roles))


def is_covered(image: Image, plane: Plane) -> bool:
    """Tell whether one Labels layer covers the whole image; of a larger one only a plane."""
    return int(np.prod(whole_shape(image, plane))) * 4 <= LARGEST_ARRAY


def plane_shape(plane: Plane, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of an array that holds (a part of) one plane only."""
    shape = [1] * len(plane.index)
    shape[plane.axes[0]], shape[plane.axes[1]] = height, width
    return tuple(shape)


def make_labels(image: Image, plane: Plane, name: str, note: dict[str, Any], content: Any = None) -> Labels:
    """Return an int32 Labels layer that lies on an image, and is in no viewer yet.

    Parameters
    ----------
    image
        What it lies on.
    plane
        The plane that `content` is of.
    name
        Name of the layer.
    note
        Kept in the layer's metadata; `image` and `version` are added.
    content
        int32 (H, W) of the plane, or None for an empty layer.
    """
    from napari.layers import Labels

    shape = whole_shape(image, plane)
    whole = is_covered(image, plane)
    if not whole:
        shape = plane_shape(plane, *plane.shape)
    data = np.zeros(shape, np.int32)
    if content is not None:
        steps = zip(plane.index, shape, strict=True)
        data[index_of(tuple(0 if step and length == 1 else step for step, length in steps))] = content
    keywords = on_region(image, plane) if whole else on_plane(image, plane)
    metadata = {METADATA_KEY: {"version": 1, "image": str(image.unique_id), **note}}
    if plane.shape != tuple(level0(image).shape[axis] for axis in plane.axes):
        y0, x0 = plane.origin
        metadata[METADATA_KEY]["region"] = [y0, x0, y0 + plane.shape[0], x0 + plane.shape[1]]
        drawn = ours(image).get("work_region", {}).get("polygons")
        if drawn:
            metadata[METADATA_KEY]["region_polygons"] = drawn
    return Labels(data, name=name, metadata=metadata, **keywords)


def warm_up() -> None:
    """Have napari compile what it shows labels with: it takes a second, so it belongs in the worker."""
    from napari.layers import Labels

    Labels(np.zeros((1, 1), np.int32))


def copy_as_int32(viewer: ViewerModel, labels: Labels) -> Labels:
    """Add an int32 copy of a Labels layer right above it, with its transform, features and notes."""
    keywords = {
        name: getattr(labels, name)
        for name in ("scale", "translate", "rotate", "shear", "units", "axis_labels", "opacity", "features")
    }
    copy = viewer.add_labels(
        labels.data.astype(np.int32),
        name=unused_name(viewer, "Int32 copy", labels.name, "of"),
        affine=labels.affine.affine_matrix,
        metadata=deepcopy(labels.metadata),
        **keywords,
    )
    order = [layer.unique_id for layer in viewer.layers]
    viewer.layers.move(order.index(copy.unique_id), order.index(labels.unique_id) + 1)
    return copy


def place_in(labels: Labels, image: Image, plane: Plane) -> Place | None:
    """Find where a plane of an image lies in a Labels layer.

    Returns
    -------
    tuple or None
        Position along every axis of the Labels layer, `None` on the two axes of the plane; or None when
        the layer does not lie pixel on pixel on the image, or is multiscale.
    """
    return None if labels.multiscale else lies_at(labels, image, plane)


def lies_at(labels: Labels, image: Image, plane: Plane) -> Place | None:
    """Do the same as `place_in`, for multiscale layers too: where in their full resolution."""
    shape, skipped = level0(labels).shape, image.ndim - labels.ndim
    rows, columns = (axis - skipped for axis in plane.axes)
    if skipped < 0 or rows < 0 or (shape[rows], shape[columns]) != plane.shape:
        return None
    height, width = (length - 1 for length in plane.shape)
    places = []
    for row, column in ((0, 0), (0, width), (height, width)):  # two of them are the same when turned over
        position = list(plane.corner())
        position[plane.axes[0]] += row
        position[plane.axes[1]] += column
        index = np.rint(labels.world_to_data(image.data_to_world(position))).astype(int)
        if (index[rows], index[columns]) != (row, column):
            return None
        places.append(
            tuple(None if axis in (rows, columns) else int(step) for axis, step in enumerate(index))
        )
    first = places[0]
    inside = all(step is None or 0 <= step < n for step, n in zip(first, shape, strict=True))
    return first if inside and len(set(places)) == 1 else None
