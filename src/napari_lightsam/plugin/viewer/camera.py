"""Bringing a place of a Labels layer into view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

_LEAST_ON_SCREEN, _WANTED_ON_SCREEN = 40, 64  # pixels across: a smaller object is zoomed in on
_FIELD_ON_SCREEN = 400  # fits into the smallest window
_PART = 0.2  # of the window that an object takes when it is judged


def show_plane(viewer: ViewerModel, labels: Labels, at: Sequence[int]) -> None:
    """Move the sliders to the plane that holds a pixel of a Labels array; those that show it already stay."""
    world, extra = labels.data_to_world(at), viewer.dims.ndim - labels.ndim
    here = np.rint(labels.world_to_data(viewer.dims.point))
    for axis in range(labels.ndim):
        # one pixel of ours covers all channels: whichever of them is on display stays
        if axis + extra not in viewer.dims.displayed and here[axis] != at[axis]:
            viewer.dims.set_point(axis + extra, world[axis])


def centre_on(viewer: ViewerModel, labels: Labels, middle: Sequence[float]) -> None:
    """Move a place of a Labels array, in pixels along every axis, into the middle of the window."""
    world, extra = labels.data_to_world(middle), viewer.dims.ndim - labels.ndim
    viewer.scene.camera.center = tuple(world[axis - extra] for axis in viewer.dims.displayed if axis >= extra)


def zoom_in_on(viewer: ViewerModel, length: float) -> None:
    """Zoom in, unless an object of this length in world units can be seen well enough."""
    camera = viewer.scene.camera
    if 0 < length * camera.zoom < _LEAST_ON_SCREEN:
        camera.zoom = _WANTED_ON_SCREEN / length


def look_closely(viewer: ViewerModel, length: float) -> None:
    """Zoom such that an object of this length in world units takes about a fifth of the window."""
    if length > 0:
        viewer.scene.camera.zoom = _PART * min(viewer.canvas.size) / length


def fit(viewer: ViewerModel, length: float) -> None:
    """Zoom such that a square of this length in world units fills most of the window."""
    viewer.scene.camera.zoom = _FIELD_ON_SCREEN / length


def in_window(viewer: ViewerModel, image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return between which pixels of an image, along every axis, lies what the 2-D window shows of it.

    Axes that are not on display do not count: they lie between minus and plus infinity.
    """
    camera, displayed = viewer.scene.camera, list(viewer.dims.displayed[-2:])
    half = np.array(viewer.canvas.size) / camera.zoom / 2
    world = np.tile(np.array(viewer.dims.point, float), (4, 1))
    turns = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    world[:, displayed] = np.array(camera.center[-2:]) + turns * half
    corners = np.array([image.world_to_data(corner) for corner in world])
    corners += 0.5  # the middle of a pixel is a whole number
    low, high = corners.min(axis=0), corners.max(axis=0)
    shown = np.isin(np.arange(image.ndim) + viewer.dims.ndim - image.ndim, displayed)
    return np.where(shown, low, -np.inf), np.where(shown, high, np.inf)
