"""A layer that shows outlines for a moment: a small one around them, above the image, below the prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY
from napari_lightsam.plugin.viewer.colours import YELLOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.viewer.axes import Plane

Box = tuple[int, int, int, int]

_SIDE = 1024
"""Pixels a side of the layer, at least, as far as the plane reaches: the next outline mostly fits in too."""

_LARGEST_STEP = 20_000
"""Pixels that are changed as one undoable step: the layer keeps a hundred steps that nobody goes back to."""

_FILL, _EDGE = (*YELLOW[:3], 0.20), YELLOW


@dataclass(frozen=True, slots=True)
class _Place:
    """The part of a plane that the layer covers: where it starts, its size, and the size of the plane."""

    start: tuple[int, int]
    sides: tuple[int, int]
    of: tuple[int, int]

    def holds(self, box: Box, plane: Plane) -> bool:
        (y, x), (height, width) = self.start, self.sides
        inside = y <= box[0] and x <= box[1] and box[2] <= y + height and box[3] <= x + width
        return inside and self.of == plane.shape


class Preview:
    """Shows masks of a plane, filled lightly and with a solid outline.

    The layer is looked up whenever it is needed, so that it may be renamed, hidden, moved or deleted.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    owner
        Tells this layer from those of others.
    name
        Of the layer.
    opacity
        Of the layer, from 0 to 1.
    """

    def __init__(self, viewer: ViewerModel, owner: str, name: str, opacity: float = 1.0) -> None:
        self._viewer, self._owner, self._name, self._opacity = viewer, owner, name, opacity
        self._place: _Place | None = None
        self._drawn: Box | None = None

    @property
    def layer(self) -> Labels | None:
        """The layer, if it exists."""
        return layers.find(self._viewer, "preview", self._owner)

    def show(self, image: Image, plane: Plane, masks: Sequence[Mask]) -> None:
        """Show masks of a plane of an image; empty ones are left out."""
        masks = [mask for mask in masks if mask.area]
        if not masks:
            self.hide()
            return
        crop, box = _paint(masks)
        layer, former = self.layer, self._place
        place = former if former is not None and former.holds(box, plane) else _place_around(box, plane)
        keywords = layers.on_plane(image, plane, place.start)
        if layer is not None and not _lies_as(layer, keywords):  # the image was scaled or turned since
            layers.remove(self._viewer, layer)
            layer = None
        if layer is not None and not layer.visible:
            layer.visible = True
        self._place = place
        if layer is not None and place is former and np.array_equal(layer.translate, keywords["translate"]):
            self._draw(layer, crop, box)
            return
        data = np.zeros(place.sides, np.uint8)
        data[_within(box, place.start)] = crop
        self._drawn = box
        data = data.reshape(layers.plane_shape(plane, *place.sides))
        if layer is None:
            self._add(data, keywords)
            return
        # the viewer would go through all layers, though the preview changes no extent
        with layer.events.data.blocker():
            layer.data = data
        layer.translate = keywords["translate"]

    def _draw(self, layer: Labels, crop: NDArray[np.uint8], box: Box) -> None:
        """Change the pixels of the layer that are not yet as they should be, and paint no others anew."""
        place, drawn = self._place, self._drawn
        assert place is not None  # of the layer
        around = box if drawn is None else _around((box, drawn))
        wanted = np.zeros((around[2] - around[0], around[3] - around[1]), np.uint8)
        wanted[_within(box, around[:2])] = crop
        canvas = layer.data.reshape(place.sides)  # the other axes have length one
        shown = canvas[_within(around, place.start)]
        rows, columns = np.nonzero(shown != wanted)
        self._drawn = box if crop.size else None
        if layer.ndim == 2 and layer.visible and 0 < len(rows) <= _LARGEST_STEP:
            at = (rows + around[0] - place.start[0], columns + around[1] - place.start[1])
            layer.data_setitem(at, wanted[rows, columns])
        elif len(rows):  # its undo step would be large, or its plane is not on display
            shown[...] = wanted
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _add(self, data: Any, keywords: dict[str, Any]) -> None:
        from napari.layers import Labels
        from napari.utils.colormaps import CyclicLabelColormap

        layer = Labels(
            data,
            name=self._name,
            # one that lists its labels would be compiled at the first click, for seconds
            colormap=CyclicLabelColormap(colors=[(0, 0, 0, 0), _FILL, _EDGE], background_value=0),
            opacity=self._opacity,
            metadata={METADATA_KEY: {"role": "preview", "owner": self._owner, "version": 1}},
            **keywords,
        )
        layer.editable = False
        layers.add(self._viewer, layer, keep_active=True, below=("points", "boxes"))

    def hide(self) -> None:
        """Show nothing; the layer stays, so that the next outline only changes pixels."""
        layer, drawn = self.layer, self._drawn
        if layer is not None and drawn is not None:
            self._draw(layer, np.zeros((0, 0), np.uint8), (drawn[0], drawn[1], drawn[0], drawn[1]))

    def remove(self) -> None:
        """Remove the layer, if it exists."""
        layer = self.layer
        if layer is not None:
            layers.remove(self._viewer, layer)


def _place_around(box: Box, plane: Plane) -> _Place:
    starts, sides = [], []
    for low, high, length in zip(box[:2], box[2:], plane.shape, strict=True):
        first, last = min(low, 0), max(high, length)
        side = min(max(_SIDE, high - low), last - first)
        sides.append(side)
        starts.append(min(max((low + high - side) // 2, first), last - side))
    return _Place((starts[0], starts[1]), (sides[0], sides[1]), plane.shape)


def _around(boxes: Sequence[Box]) -> Box:
    low, high = np.array(boxes)[:, :2].min(axis=0), np.array(boxes)[:, 2:].max(axis=0)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _within(box: Box, start: tuple[int, int]) -> tuple[slice, slice]:
    """Return where a box of the plane lies in an array that starts somewhere."""
    return slice(box[0] - start[0], box[2] - start[0]), slice(box[1] - start[1], box[3] - start[1])


def _lies_as(layer: Labels, keywords: dict[str, Any]) -> bool:
    """Tell whether a layer has a transform, wherever it is shifted to."""
    same = all(np.array_equal(getattr(layer, name), keywords[name]) for name in ("scale", "rotate", "shear"))
    return same and np.array_equal(layer.affine.affine_matrix, keywords["affine"])


def _without_edge(crop: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels whose four neighbours are inside too, faster than a general erosion."""
    inner = np.zeros_like(crop)
    middle = crop[1:-1, 1:-1] & crop[:-2, 1:-1]
    middle &= crop[2:, 1:-1]
    middle &= crop[1:-1, :-2]
    middle &= crop[1:-1, 2:]
    inner[1:-1, 1:-1] = middle
    return inner


def _paint(masks: Sequence[Mask]) -> tuple[NDArray[np.uint8], Box]:
    """Return uint8 (h, w), 1 inside of objects and 2 along their edges, and its box."""
    box = _around([mask.box for mask in masks])
    crop = np.zeros((box[2] - box[0], box[3] - box[1]), np.uint8)
    for mask in masks:
        part = crop[_within(mask.box, box[:2])]
        inner = _without_edge(mask.crop)
        np.copyto(part, 1, where=inner & (part == 0))
        np.copyto(part, 2, where=mask.crop & ~inner)
    return crop, box
