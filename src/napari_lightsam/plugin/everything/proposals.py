"""Prompts from a layer: what Points, Shapes and Labels layers say about where objects are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.prompting.prompts import read_boxes, read_points
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane, Plane

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_lightsam.plugin.scope import Region


def sources(viewer: ViewerModel, image: Image, plane: Plane) -> list[Layer]:
    """Return the layers that can say where objects are: Points, Shapes, and Labels that lie on the image."""
    from napari.layers import Labels, Points, Shapes

    found = []
    for layer in viewer.layers:
        usable = not layers.is_tool(layer) or layers.ours(layer).get("role") in layers.PROMPTS
        marks = isinstance(layer, Points | Shapes) and layer.ndim == image.ndim
        fits = isinstance(layer, Labels) and layers.place_in(layer, image, plane) is not None
        if usable and (marks or fits):
            found.append(layer)
    return found


def read_proposals(layer: Layer, image: Image, plane: Plane, region: Region) -> Any:
    """Read what a layer says about a part of a plane.

    Parameters
    ----------
    layer
        Points, Shapes or Labels.
    image, plane, region
        What is segmented.

    Returns
    -------
    array
        (N, 2) points, (N, 4) boxes, or int (h, w) labels, in pixels of the region.

    Raises
    ------
    NoPlane
        Nothing of the layer lies there, or its array does not lie on the image any more.
    """
    from napari.layers import Labels, Points

    y0, x0, y1, x1 = region
    found: Any
    if isinstance(layer, Labels):
        place = layers.place_in(layer, image, plane)
        if place is None:
            raise NoPlane(f"The layer {layer.name!r} does not lie on {image.name!r} pixel by pixel.")
        part = iter((slice(y0, y1), slice(x0, x1)))
        found = np.array(layer.data[tuple(next(part) if step is None else step for step in place)])
        some = found.any()
    elif isinstance(layer, Points):
        clicks = [(y, x) for y, x, positive in read_points(layer, image, plane) if positive]
        inside = [(y - y0, x - x0) for y, x in clicks if y0 <= y < y1 and x0 <= x < x1]
        found, some = np.array(inside, float).reshape(-1, 2), inside
    else:
        boxes = np.array(read_boxes(layer, image, plane), float).reshape(-1, 4) - (y0, x0, y0, x0)
        found = boxes.clip(0, (y1 - y0, x1 - x0, y1 - y0, x1 - x0))
        found = found[(found[:, 2] - found[:, 0] >= 1) & (found[:, 3] - found[:, 1] >= 1)]
        some = len(found)
    if not some:
        raise NoPlane(f"The layer {layer.name!r} says nothing about this plane: put its objects there first.")
    return found
