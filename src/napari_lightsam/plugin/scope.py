"""How much of an image a run covers: a plane, the part of it in view, or every plane of a stack."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.plugin.axes import AxisRole, Plane, level0, roles_of

if TYPE_CHECKING:
    from napari.layers import Image

Region = tuple[int, int, int, int]
"""(y0, x0, y1, x1), half-open, in pixels of the plane."""


class Scope(StrEnum):
    """How much is segmented in one run."""

    PLANE = "plane"
    VIEW = "view"
    STACK = "stack"


def whole(plane: Plane) -> Region:
    """Return the region that is all of a plane."""
    return 0, 0, *plane.shape


def visible_region(image: Image, plane: Plane) -> Region:
    """Return the part of a plane that the window shows.

    Everything, where nothing was drawn yet or the image is out of view: a run on no pixel helps nobody.
    """
    # napari keeps the corners in pixels of the resolution on display
    factors = (
        np.asarray(image.downsample_factors[image.data_level]) if image.multiscale else np.ones(image.ndim)
    )
    low, high = np.asarray(image.corner_pixels, float)[:, : image.ndim] * factors
    rows, columns = plane.axes
    y0, x0 = (int(np.clip(np.floor(low[axis]), 0, plane.shape[i])) for i, axis in enumerate((rows, columns)))
    y1, x1 = (
        int(np.clip(np.ceil(high[axis]) + 1, 0, plane.shape[i])) for i, axis in enumerate((rows, columns))
    )
    drawn = high[rows] > low[rows] and high[columns] > low[columns]
    return (y0, x0, y1, x1) if drawn and y1 > y0 and x1 > x0 else whole(plane)


def stack_axis(image: Image, plane: Plane) -> int | None:
    """Return the data axis that a run over all planes moves along: depth first, else time; or None."""
    shape, roles = level0(image).shape, roles_of(image)
    for wanted in (AxisRole.DEPTH, AxisRole.TIME):
        for axis, role in enumerate(roles):
            if role is wanted and axis not in plane.axes and shape[axis] > 1:
                return axis
    return None
