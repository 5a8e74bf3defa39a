"""The layers that prompts are given on: made, bound to keys, and brought from one state to another."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.prompting.history import PromptState
from napari_lightsam.plugin.viewer import layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Points, Shapes

    from napari_lightsam.plugin.prompting.gestures import Gestures
    from napari_lightsam.plugin.viewer.axes import Plane

KEYS = {
    "C": "commit",
    "Shift-C": "clear",
    "Q": "next",
    "Shift-Q": "previous",
    "N": "next_image",
    # napari binds these on Labels layers; on ours they mean the last edit, else the object just saved
    "Control-Z": "undo",
    "Control-Shift-Z": "redo",
}


class PromptLayers:
    """The Points and the Shapes layer of one annotator.

    They are looked up whenever they are needed, so that each may be renamed, hidden, moved or deleted at any
    time.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    owner
        Tells these layers from those of others.
    gestures
        Follows the mouse on them.
    on_edit
        Called when the user changed a prompt.

    Attributes
    ----------
    keys
        Signal(str): a key of ours was pressed on one of them; a value of `KEYS`.
    signs
        Of the points.
    """

    keys = Signal(str)

    def __init__(
        self, viewer: ViewerModel, owner: str, gestures: Gestures, on_edit: Callable[[], object]
    ) -> None:
        self._viewer, self._owner, self._gestures, self._on_edit = viewer, owner, gestures, on_edit
        self._quiet = False
        self.signs = prompts.Signs(self._edited)
        viewer.scene.camera.events.zoom.connect(self.fit_markers)

    @property
    def points(self) -> Points | None:
        """The Points layer, if it exists."""
        return layers.find(self._viewer, "points", self._owner)

    @property
    def boxes(self) -> Shapes | None:
        """The Shapes layer, if it exists."""
        return layers.find(self._viewer, "boxes", self._owner)

    def ensure_points(self, image: Image, plane: Plane) -> Points:
        """Return the Points layer, created on an image when it is missing."""
        points = self.points
        if points is None:
            points = prompts.add_points(self._viewer, image, plane, self._owner, self.signs)
            self._gestures.follow_points(points)
            self.fit_markers()
            self.bind(points)
        return points

    def ensure_boxes(self, image: Image, plane: Plane) -> Shapes:
        """Return the Shapes layer, created on an image when it is missing."""
        boxes = self.boxes
        if boxes is None:
            boxes = prompts.add_boxes(self._viewer, image, plane, self._owner)
            boxes.events.data.connect(self._on_boxes)
            self._gestures.follow_boxes(boxes)
            self.bind(boxes)
        return boxes

    def activate(self, layer: Points | Shapes, mode: str) -> None:
        """Show a layer and take it in hand."""
        layer.visible = True
        layer.mode = mode
        self._viewer.layers.selection.active = layer

    def bind(self, layer: Any) -> None:
        """Bind our keys on a layer of ours, and only there."""
        for key, name in KEYS.items():
            layer.bind_key(key, lambda _layer, name=name: self.keys.emit(name))

    def fit_markers(self, event: Any = None) -> None:
        """Keep markers of one size on the screen at any zoom; napari draws their border in image pixels."""
        points = self.points
        if points is not None:
            shown = [axis - self._viewer.dims.ndim for axis in self._viewer.dims.displayed]
            scale = float(np.mean(np.abs([points.scale[axis] for axis in shown if -axis <= points.ndim])))
            prompts.resize_markers(points, self._viewer.scene.camera.zoom * scale)

    def add_point(self, layer: Points, at: Sequence[float], *, negative: bool) -> None:
        """Add a point at a position in world coordinates, as a click would."""
        self.signs.add(layer, layer.world_to_data(at), negative=negative)

    # --- edits ---------------------------------------------------------------------------------------

    def _edited(self) -> None:
        if not self._quiet:
            self._on_edit()

    def _on_boxes(self, event: Any) -> None:
        if self._quiet or event.action not in ("added", "removed", "changed"):
            return
        if event.action != "added" or not self._gestures.take_click(event.source):
            self._on_edit()

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Change layers without anybody taking it for an edit by the user."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    # --- states --------------------------------------------------------------------------------------

    def state(self) -> PromptState:
        """Return the prompts as they stand in the layers."""
        points, boxes = self.points, self.boxes
        return PromptState(
            np.zeros((0, 2)) if points is None else np.array(points.data),
            () if points is None else tuple(prompts.signs_of(points)),
            () if boxes is None else tuple(np.array(shape) for shape in boxes.data),
            () if boxes is None else tuple(map(str, boxes.shape_type)),
        )

    def state_without(self, image: Image, plane: Plane) -> PromptState:
        """Return the same without the prompts that belong to a plane."""
        state, points, boxes = self.state(), self.points, self.boxes
        kept, left = [], []
        if points is not None and len(state.points):
            placing, each = prompts.Placing(points, image), np.arange(len(state.points))
            kept = np.flatnonzero(~prompts.belong_to(state.points, each, placing, image, plane)).tolist()
        if boxes is not None and state.shapes:
            placing, starts = prompts.Placing(boxes, image), np.cumsum([0, *map(len, state.shapes[:-1])])
            corners = np.concatenate(state.shapes)
            left = np.flatnonzero(~prompts.belong_to(corners, starts, placing, image, plane)).tolist()
        return PromptState(
            state.points[kept],
            tuple(state.signs[i] for i in kept),
            tuple(state.shapes[i] for i in left),
            tuple(state.kinds[i] for i in left),
        )

    def restore(self, state: PromptState) -> None:
        """Bring the layers into a state; a layer that was deleted stays away."""
        with self.quietly():
            points, boxes = self.points, self.boxes
            if points is not None:
                positions = state.points if len(state.points) else np.zeros((0, points.ndim))
                self.signs.restore(points, positions, state.signs)
            if boxes is not None:
                boxes.selected_data = set()
                boxes.data = []
                if state.shapes:
                    boxes.add(list(state.shapes), shape_type=list(state.kinds))

    def close(self) -> None:
        """Let go of the viewer; layers stay."""
        self._viewer.scene.camera.events.zoom.disconnect(self.fit_markers)
