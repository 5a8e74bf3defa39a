"""How much of an image a run covers: a plane, a part of it in view or drawn, or every plane of a stack."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.plugin.prompting.prompts import STRETCH, Placing
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, AxisRole, NoPlane, Plane, level0, roles_of
from napari_lightsam.plugin.viewer.camera import in_window
from napari_lightsam.plugin.viewer.colours import GREEN
from napari_lightsam.plugin.viewer.layers import by_id, is_covered, on_image

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Shapes
    from numpy.typing import ArrayLike, NDArray


Region = tuple[int, int, int, int]
"""(y0, x0, y1, x1), half-open, in pixels of the plane."""


class Scope(StrEnum):
    """How much is segmented in one run."""

    PLANE = "plane"
    VIEW = "view"
    REGION = "region"
    STACK = "stack"


def whole(plane: Plane) -> Region:
    """Return the region that is all of a plane."""
    return 0, 0, *plane.shape


def visible_region(viewer: ViewerModel, image: Image, plane: Plane) -> Region:
    """Return the part of a plane that the window shows.

    Everything, where nothing was drawn yet or the image is out of view: a run on no pixel helps nobody.
    """
    # napari keeps the corners in pixels of the resolution on display
    factors = (
        np.asarray(image.downsample_factors[image.data_level]) if image.multiscale else np.ones(image.ndim)
    )
    first, last = np.asarray(image.corner_pixels, float)[:, : image.ndim]
    low, high = first * factors, (last + 1) * factors  # a coarse pixel covers all of its fine ones
    rows, columns = plane.axes
    drawn = last[rows] > first[rows] and last[columns] > first[columns]
    if image.multiscale:  # napari draws whole chunks of these, or all of a resolution that was chosen
        near, far = in_window(viewer, image)
        low, high = np.maximum(low, near), np.minimum(high, far)
    starts = np.array([low[rows], low[columns]]) - plane.origin
    stops = np.array([high[rows], high[columns]]) - plane.origin
    y0, x0 = np.clip(np.floor(starts), 0, plane.shape).astype(int).tolist()
    y1, x1 = np.clip(np.ceil(stops), 0, plane.shape).astype(int).tolist()
    return (y0, x0, y1, x1) if drawn and y1 > y0 and x1 > x0 else whole(plane)


def chosen_region(
    viewer: ViewerModel, image: Image, plane: Plane, scope: Scope, drawn_on: Hashable | None = None
) -> tuple[Region, list[NDArray[np.float64]]]:
    """Return the part of a plane that a scope covers, and the areas in it where some were drawn.

    Parameters
    ----------
    viewer, image, plane
        What is on display.
    scope
        How much of it.
    drawn_on
        `unique_id` of the Shapes layer of the areas, for `Scope.REGION`.

    Raises
    ------
    NoPlane
        That layer is gone, or nothing is drawn on it here.
    """
    if scope is Scope.VIEW:
        return visible_region(viewer, image, plane), []
    if scope is not Scope.REGION:
        return whole(plane), []
    shapes = by_id(viewer, drawn_on)
    if shapes is None:
        raise NoPlane("The layer of the region was deleted: choose again under 'Where'.")
    polygons = drawn_polygons(shapes, image, plane)
    return region_of(polygons, plane), polygons


def add_region(viewer: ViewerModel, image: Image, plane: Plane) -> Shapes:
    """Add a Shapes layer on an image, ready to drag the rectangle that is to be segmented."""
    shapes = viewer.add_shapes(
        None,
        ndim=image.ndim,
        name="region",
        edge_color=GREEN,
        face_color=[0, 0, 0, 0],
        edge_width=max(1.0, max(plane.shape) / 250),
        **on_image(image, plane, stretch=STRETCH),
    )
    shapes.mode = "add_rectangle"
    viewer.layers.selection.active = shapes
    return shapes


def drawn_polygons(shapes: Shapes, image: Image, plane: Plane) -> list[NDArray[np.float64]]:
    """Return the corners (n, 2) of all areas that were drawn on a plane, as (row, column).

    Raises
    ------
    NoPlane
        There is none.
    """
    found, placing = [], Placing(shapes, image)
    for vertices, kind in zip(shapes.data, shapes.shape_type, strict=True):
        corners, here = placing.to_plane(vertices, plane)
        if here.all() and len(here) >= 3 and kind in ("rectangle", "polygon", "ellipse"):
            found.append(_ellipse(corners) if kind == "ellipse" else corners)
    if not found:
        raise NoPlane(
            f"No area is drawn on this plane of {shapes.name!r}: draw a rectangle or polygon first."
        )
    return found


def _ellipse(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an ellipse as a polygon; napari keeps the four corners of its frame."""
    centre, turn = corners.mean(axis=0), np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    across, down = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    outline: NDArray[np.float64] = centre + np.cos(turn) * across + np.sin(turn) * down
    return outline


def region_of(polygons: list[NDArray[np.float64]], plane: Plane) -> Region:
    """Return the part of a plane around some polygons.

    Raises
    ------
    NoPlane
        They lie beside the image.
    """
    corners = np.concatenate(polygons)
    y0, x0 = np.clip(np.floor(corners.min(axis=0) + 0.5), 0, plane.shape).astype(int)
    y1, x1 = np.clip(np.ceil(corners.max(axis=0) + 0.5), 0, plane.shape).astype(int)
    if y1 <= y0 or x1 <= x0:
        raise NoPlane("The area that was drawn lies beside the image.")
    return int(y0), int(x0), int(y1), int(x1)


def outline_of(image: Image, plane: Plane) -> tuple[NDArray[np.float64], ...]:
    """Return the polygons (n, 2) that a work region was drawn as, in pixels of a plane.

    Returns
    -------
    tuple
        Empty for a work region that is a rectangle, and for an image that has none.
    """
    note = image.metadata.get(METADATA_KEY, {}).get("work_region")
    if note is None or tuple(note["axes"]) != plane.axes:
        return ()
    return tuple(np.asarray(polygon, float) - plane.origin for polygon in note.get("polygons", ()))


def lie_in(points: ArrayLike, polygons: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
    """Tell which points (N, 2) lie in any of some polygons.

    Examples
    --------
    >>> lie_in([(1, 1), (9, 9)], [np.array([(0, 0), (0, 5), (5, 5), (5, 0)])]).tolist()
    [True, False]
    """
    y, x = np.asarray(points, float).reshape(-1, 2, 1).swapaxes(0, 1)
    inside = np.zeros(len(y), bool)
    for polygon in polygons:
        (y0, x0), (y1, x1) = polygon.T, np.roll(polygon, -1, axis=0).T
        slope = (x1 - x0) / np.where(y1 == y0, 1, y1 - y0)  # level sides are crossed by no row
        crossed = ((y0 > y) != (y1 > y)) & (x < x0 + slope * (y - y0))
        inside |= crossed.sum(axis=1) % 2 == 1
    return inside


def is_box(polygon: NDArray[np.float64]) -> bool:
    """Tell whether a polygon is an upright rectangle."""
    ends = np.stack([polygon.min(axis=0), polygon.max(axis=0)])
    at_end = np.isclose(polygon[:, None], ends).any(axis=1).all()
    return len(polygon) == 4 and bool(at_end) and len(np.unique(polygon.round(3), axis=0)) == 4


def name_of_plane(image: Image, plane: Plane) -> str:
    """Return what all of a plane is to the user: the image, one plane of it, or a part of that."""
    shape = level0(image).shape
    if plane.shape != tuple(shape[axis] for axis in plane.axes):
        return "the work region"
    return "the whole image" if stack_axis(image, plane) is None else "this plane"


def stack_axis(image: Image, plane: Plane) -> int | None:
    """Return the data axis that a run over all planes moves along: depth first, else time; or None."""
    shape, roles = level0(image).shape, roles_of(image)
    for wanted in (AxisRole.DEPTH, AxisRole.TIME):
        for axis, role in enumerate(roles):
            if role is wanted and axis not in plane.axes and shape[axis] > 1:
                return axis
    return None


def all_planes(image: Image, plane: Plane) -> int:
    """Return the data axis of all planes of an image, for a run that writes them into one layer.

    Raises
    ------
    NoPlane
        There is none, or one layer does not hold them.
    """
    axis = stack_axis(image, plane)
    if axis is None:
        raise NoPlane("There are no planes to go through: no slider of this view is depth or time.")
    if not is_covered(image, plane):
        raise NoPlane(
            "This stack is too large for one layer in memory: segment plane by plane, or use "
            "`lightsam segment`."
        )
    return axis
