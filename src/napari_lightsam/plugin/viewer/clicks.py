"""Short-lived layers on top of a Labels layer: places to be clicked, and boxes that point something out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY
from napari_lightsam.plugin.viewer.colours import SKY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Labels, Points, Shapes
    from numpy.typing import NDArray

STILL = 5.0
"""Pixels on the screen that the mouse may move in a click; napari adds a point up to there."""

_ON_SCREEN = 14  # pixels across
_THIN, _THICK = 2.0, 4.0  # pixels on the screen: a line of less is not drawn at all on some sides


def clicked(event: Any) -> Generator[None, None, bool]:
    """Follow the mouse from press to release, as a part of a mouse callback of napari.

    Returns
    -------
    bool
        Whether it was a click: a mouse that moved by `STILL` or more dragged something.
    """
    press = np.array(event.pos, float)
    yield
    while event.type == "mouse_move":
        yield
    return not moved(event, press)


def moved(event: Any, press: NDArray[np.float64]) -> bool:
    """Tell whether the mouse is farther from where it was pressed than in a click."""
    return bool(np.linalg.norm(np.array(event.pos, float) - press) >= STILL)


class Clicks:
    """A Points layer on a Labels layer that exists until it is stopped.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    owner
        Tells the layers of several viewers apart.
    role
        What the clicks are for; kept in the layer's metadata.
    name
        Of the layer.
    keys
        What a key does that is pressed on the layer; Ctrl+Z removes the last click.

    Attributes
    ----------
    changed
        Signal: a place was added, moved or removed.
    """

    changed = Signal()

    def __init__(
        self,
        viewer: ViewerModel,
        owner: str,
        role: str,
        name: str,
        keys: Mapping[str, Callable[[], object]] | None = None,
    ) -> None:
        self._viewer, self._owner, self._role, self._name = viewer, owner, role, name
        self._keys = {"Control-Z": self.take_back, **(keys or {})}
        self._former: Hashable | None = None

    @property
    def layer(self) -> Points | None:
        """The layer to click on, if it exists."""
        return layers.find(self._viewer, self._role, self._owner)

    @property
    def places(self) -> list[tuple[float, ...]]:
        """What was clicked, in pixels along every axis of the Labels array."""
        layer = self.layer
        return [] if layer is None else [tuple(float(v) for v in place) for place in layer.data]

    def start(self, labels: Labels) -> None:
        """Let the user click on a Labels layer; clicks that are there already are dropped."""
        self.stop()
        self._former = layers.active_id(self._viewer)
        zoom = self._viewer.scene.camera.zoom * float(np.mean(np.abs(labels.scale[-2:])))
        points = self._viewer.add_points(
            None,
            ndim=labels.ndim,
            name=self._name,
            symbol="cross",
            size=_ON_SCREEN / max(zoom, 1e-9),
            face_color=SKY,
            border_color="white",
            metadata={METADATA_KEY: {"role": self._role, "owner": self._owner, "version": 1}},
            **on_labels(labels),
        )
        for key, action in self._keys.items():
            points.bind_key(key, lambda _layer, action=action: action())
        points.events.data.connect(self._on_data)
        points.mode = "add"
        self._viewer.layers.selection.active = points

    def stop(self) -> None:
        """Remove the layer; the layer that was active before is active again."""
        layer = self.layer
        if layer is None:
            return
        for key in self._keys:
            layer.bind_key(key, None)  # napari keeps the layer, and it would keep all of the tool
        layers.remove(self._viewer, layer)
        layers.activate(self._viewer, self._former)

    def take_back(self) -> None:
        """Remove the last click."""
        layer = self.layer
        if layer is not None and len(layer.data):
            layer.selected_data = {len(layer.data) - 1}
            layer.remove_selected()

    def _on_data(self, event: Any) -> None:
        if event.action in ("added", "removed", "changed"):
            self.changed.emit()


class Frames:
    """Boxes around what is to be looked at; a layer that cannot be edited.

    Parameters
    ----------
    viewer, owner, role, name
        As of `Clicks`.
    """

    def __init__(self, viewer: ViewerModel, owner: str, role: str, name: str) -> None:
        self._viewer, self._owner, self._role, self._name = viewer, owner, role, name
        self._axes = -2, -1

    @property
    def layer(self) -> Shapes | None:
        """The layer of boxes, if it exists."""
        return layers.find(self._viewer, self._role, self._owner)

    def show(self, labels: Labels, axes: tuple[int, int], boxes: Sequence[tuple[Any, ...]]) -> None:
        """Frame boxes on a Labels layer.

        Parameters
        ----------
        labels
            The layer.
        axes
            The two axes on display.
        boxes
            First pixel and one past the last of each, along every axis of the Labels array.
        """
        if not boxes:
            self.hide()
            return
        self._axes = axes
        corners = [_corners(low, high, axes) for low, high in boxes]
        shown = self.layer
        if shown is not None and layers.ours(shown)["on"] == str(labels.unique_id):
            shown.data = corners  # another layer for every step through a table would flicker
            shown.visible = True
            self._on_zoom()
            return
        self.hide()
        active = self._viewer.layers.selection.active
        note = {"role": self._role, "owner": self._owner, "version": 1, "on": str(labels.unique_id)}
        shapes = self._viewer.add_shapes(
            corners,
            shape_type="rectangle",
            ndim=labels.ndim,
            name=self._name,
            edge_color=SKY,
            face_color=[0, 0, 0, 0],
            edge_width=(_THIN + _THICK) / 2 * self._screen_pixel(labels),
            metadata={METADATA_KEY: note},
            **on_labels(labels),
        )
        shapes.editable = False
        self._viewer.scene.camera.events.zoom.connect(self._on_zoom)
        if active is not None:
            self._viewer.layers.selection.active = active

    def _screen_pixel(self, layer: Labels | Shapes) -> float:
        """Return how long a pixel of the screen is, in those of a layer; along its coarser side."""
        finest = min(abs(float(layer.scale[axis])) for axis in self._axes)
        return 1 / max(float(self._viewer.scene.camera.zoom) * finest, 1e-9)

    def _on_zoom(self, event: Any = None) -> None:
        """Keep the lines as thick on the screen as they were."""
        shapes = self.layer
        if shapes is None or not len(shapes.data):
            return
        pixel = self._screen_pixel(shapes)
        if not _THIN <= shapes.edge_width[0] / pixel <= _THICK:
            shapes.edge_width = (_THIN + _THICK) / 2 * pixel
            shapes.current_edge_width = shapes.edge_width[0]  # this alone has napari draw them anew

    def hide(self) -> None:
        """Remove the boxes."""
        self._viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
        layer = self.layer
        if layer is not None:
            active = self._viewer.layers.selection.active
            layers.remove(self._viewer, layer)
            if active is not None and active.unique_id != layer.unique_id:
                self._viewer.layers.selection.active = active


def on_labels(labels: Labels) -> dict[str, Any]:
    """Return the transform of a layer whose coordinates are pixels of a Labels layer, as keywords."""
    return {
        "scale": labels.scale,
        "translate": labels.translate,
        "rotate": labels.rotate,
        "shear": labels.shear,
        "affine": labels.affine.affine_matrix,
        "units": labels.units,
        "axis_labels": labels.axis_labels,
    }


def _corners(low: Sequence[float], high: Sequence[float], axes: tuple[int, int]) -> Any:
    rows, columns = axes
    middle = (np.asarray(low, float) + np.asarray(high, float) - 1) / 2
    corners = np.tile(middle, (4, 1))
    # pixel centres are whole numbers, so that the outline runs half a pixel outside of the first one
    corners[:, rows] = np.array([low[rows], low[rows], high[rows], high[rows]]) - 0.5
    corners[:, columns] = np.array([low[columns], high[columns], high[columns], low[columns]]) - 0.5
    return corners
