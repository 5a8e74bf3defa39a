"""Prompting on a viewer: prompt layers and the preview of what they mean. Knows napari but no Qt."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin import layers, prompts
from napari_lightsam.plugin.axes import NoPlane, Plane, displayed_plane, resting_plane
from napari_lightsam.plugin.gestures import Gestures
from napari_lightsam.plugin.preview import Preview
from napari_lightsam.plugin.prompt_history import NOTHING, Correction, PromptHistory, PromptState
from napari_lightsam.plugin.timeline import PROMPTS, Timeline

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points, Shapes
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask

_KEYS = {
    "C": "commit",
    "Shift-C": "clear",
    "Q": "next",
    "Shift-Q": "previous",
    "N": "next_image",
    # napari binds these on Labels layers; on ours they mean the last edit, else the object just saved
    "Control-Z": "undo",
    "Control-Shift-Z": "redo",
}


class Annotator:
    """Prompts and preview of one viewer.

    Layers are looked up whenever they are needed, so that each may be renamed, hidden, moved or deleted
    at any time.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.

    Attributes
    ----------
    edited
        Signal: the user changed the prompts.
    keys
        Signal(str): a key of ours was pressed on a prompt layer; a value of `_KEYS`.
    correction
        The object that all prompts are about, or None.
    history
        Edits since the last save.
    timeline
        In which order these and steps in Labels layers came.
    """

    edited = Signal()
    keys = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.owner = uuid.uuid4().hex
        self.image_id: Hashable | None = None
        self._each = self._each_for_now = False
        self.correction: Correction | None = None
        self.history = PromptHistory()
        self.timeline = Timeline()
        self._quiet = False
        self._signs = prompts.Signs(self.note_edit)
        self._gestures = Gestures(self)
        self._preview = Preview(viewer, self.owner, "LightSAM preview")
        viewer.scene.camera.events.zoom.connect(self._fit_markers)

    @property
    def image(self) -> Image | None:
        """The image that is being segmented; None when there is none or it was deleted."""
        return layers.by_id(self.viewer, self.image_id)

    @property
    def points(self) -> Points | None:
        """Our Points layer, if it exists."""
        return layers.find(self.viewer, "points", self.owner)

    @property
    def boxes(self) -> Shapes | None:
        """Our Shapes layer, if it exists."""
        return layers.find(self.viewer, "boxes", self.owner)

    @property
    def preview(self) -> Labels | None:
        """Our preview layer, if it exists."""
        return self._preview.layer

    @property
    def always_negative(self) -> bool:
        """Clicks without Shift are negative too."""
        return self._signs.always_negative

    @always_negative.setter
    def always_negative(self, value: bool) -> None:
        self._signs.always_negative = value

    @property
    def each(self) -> bool:
        """Every positive point is an object of its own: the user said so, or who put the prompts there."""
        return self._each or self._each_for_now

    def use_each(self, each: bool) -> None:
        """Say whether every positive point is an object of its own."""
        if each != self.each:
            self._each, self._each_for_now = each, False
            self.edited.emit()

    def use_image(self, image: Image | None) -> None:
        """Work on another image; prompts and preview of the former one are removed."""
        new = None if image is None else image.unique_id
        if new == self.image_id:
            return
        self.remove_prompts()
        self.correction = None
        self.history.forget()
        self.timeline.clear()
        self.image_id = new

    def plane(self) -> Plane:
        """Return the displayed plane of the image.

        Raises
        ------
        NoPlane
            There is no image, or no plane of it on display; the message says why.
        """
        image = self.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        return displayed_plane(image, self.viewer)

    def start_points(self) -> Points:
        """Make our Points layer the active one, ready for clicks, and create it when it is missing."""
        if self.points is None:
            self.plane()  # says why nobody could click
        points = self.ensure_points()
        self._activate(points, "add")
        return points

    def ensure_points(self) -> Points:
        """Return our Points layer, created when it is missing."""
        points = self.points
        if points is None:
            image, plane = self._image_at_rest()
            points = prompts.add_points(self.viewer, image, plane, self.owner, self._signs)
            self._gestures.follow_points(points)
            self._fit_markers()
            self._bind(points)
        return points

    def start_boxes(self) -> Shapes:
        """Make our Shapes layer the active one, ready to draw boxes, and create it when it is missing."""
        if self.boxes is None:
            self.plane()  # says why nobody could draw
        boxes = self.ensure_boxes()
        self._activate(boxes, "add_rectangle")
        return boxes

    def ensure_boxes(self) -> Shapes:
        """Return our Shapes layer, created when it is missing."""
        boxes = self.boxes
        if boxes is None:
            image, plane = self._image_at_rest()
            boxes = prompts.add_boxes(self.viewer, image, plane, self.owner)
            boxes.events.data.connect(self._on_box_edit)
            self._gestures.follow_boxes(boxes)
            self._bind(boxes)
        return boxes

    def _fit_markers(self, event: Any = None) -> None:
        """Keep markers of one size on the screen at any zoom; napari draws their border in image pixels."""
        points, image = self.points, self.image
        if points is not None and image is not None:
            shown = [axis - self.viewer.dims.ndim for axis in self.viewer.dims.displayed]
            scale = float(np.mean(np.abs([image.scale[axis] for axis in shown if -axis <= image.ndim])))
            prompts.resize_markers(points, self.viewer.scene.camera.zoom * scale)

    def _activate(self, layer: Any, mode: str) -> None:
        layer.visible = True
        layer.mode = mode
        self.viewer.layers.selection.active = layer

    def image_and_plane(self) -> tuple[Image, Plane]:
        """Return the image and its displayed plane.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        plane = self.plane()
        image = self.image
        assert image is not None  # plane() raises without an image
        return image, plane

    def _image_at_rest(self) -> tuple[Image, Plane]:
        """Return the image and the plane that is on display, or would be in the 2-D view."""
        image = self.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        return image, resting_plane(image, self.viewer)

    def _bind(self, layer: Any) -> None:
        """Bind our keys on a prompt layer of ours, and only there."""
        for key, name in _KEYS.items():
            layer.bind_key(key, lambda _layer, name=name: self.keys.emit(name))

    def note_edit(self) -> None:
        """Keep the prompts as they are now as a step to go back to, and tell of them."""
        if not self._quiet:
            if self.history.note(self._state()):
                self.timeline.note(PROMPTS)
            self.edited.emit()

    def _on_box_edit(self, event: Any) -> None:
        if self._quiet or event.action not in ("added", "removed", "changed"):
            return
        if event.action != "added" or not self._gestures.take_click(event.source):
            self.note_edit()

    def click(self, at: Sequence[float], *, negative: bool) -> None:
        """Add a point at a position in world coordinates, as a click would."""
        points = self.ensure_points()
        self._signs.add(points, points.world_to_data(at), negative=negative)

    def read_prompts(self) -> tuple[prompts.ObjectPrompt, ...]:
        """Return what the user said about the objects of the displayed plane.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        return self.prompts_on(*self.image_and_plane())

    def prompts_on(self, image: Image, plane: Plane) -> tuple[prompts.ObjectPrompt, ...]:
        """Return what the user said about the objects of a plane, which need not be on display."""
        points = prompts.read_points(self.points, image, plane)
        boxes = prompts.read_boxes(self.boxes, image, plane)
        correction = self.correction
        if correction is not None and correction.plane == plane.key:
            return (prompts.ObjectPrompt(tuple(points), boxes[0] if boxes else None, correction.mask),)
        return prompts.group_prompts(points, boxes, each=self.each)

    @property
    def has_prompts(self) -> bool:
        """There are points or boxes, on whatever plane."""
        return any(layer is not None and len(layer.data) for layer in (self.points, self.boxes))

    def count_outside(self) -> int:
        """Return how many points lie beside the image and are ignored."""
        image, plane = self.image_and_plane()
        if self.points is None:
            return 0
        _, here = prompts.Placing(self.points, image).to_plane(self.points.data, plane)
        return int(here.sum()) - len(prompts.read_points(self.points, image, plane))

    def clear(self) -> None:
        """Remove all prompts and the preview; undo brings the prompts back."""
        self._restore(NOTHING)
        self.hide_preview()
        self.note_edit()

    def drop_saved(self) -> None:
        """Remove the prompts of the displayed plane, which were saved.

        Those of other planes stay, and those beside the work region.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        image, plane = self.image_and_plane()
        state, points, boxes = self._state(), self.points, self.boxes
        kept, left = [], []
        if points is not None and len(state.points):
            placing, each = prompts.Placing(points, image), np.arange(len(state.points))
            kept = np.flatnonzero(~prompts.belong_to(state.points, each, placing, image, plane)).tolist()
        if boxes is not None and state.shapes:
            placing, starts = prompts.Placing(boxes, image), np.cumsum([0, *map(len, state.shapes[:-1])])
            corners = np.concatenate(state.shapes)
            left = np.flatnonzero(~prompts.belong_to(corners, starts, placing, image, plane)).tolist()
        self._restore(
            PromptState(
                state.points[kept],
                tuple(state.signs[i] for i in kept),
                tuple(state.shapes[i] for i in left),
                tuple(state.kinds[i] for i in left),
                each=state.each and bool(kept),
            )
        )
        self.hide_preview()
        self.history.forget(self._state())
        self.timeline.forget_prompts()
        self.edited.emit()

    def take(
        self,
        points: Sequence[tuple[float, float, bool]],
        boxes: Sequence[tuple[float, float, float, float]],
        correction: Correction | None = None,
        *,
        each: bool = False,
    ) -> None:
        """Put prompts of the displayed plane in the place of all that are there, as one edit.

        Parameters
        ----------
        points
            (row, column, positive) in pixels of the plane.
        boxes
            (y0, x0, y1, x1), half-open.
        correction
            The object that they are about, or None.
        each
            Every positive point is an object of its own, until they are saved or cleared.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        plane = self.plane()
        objects = [prompts.ObjectPrompt(tuple(points)), *(prompts.ObjectPrompt(box=box) for box in boxes)]
        self.put([(plane, prompt) for prompt in objects], correction, each=each)

    def put(
        self,
        parts: Sequence[tuple[Plane, prompts.ObjectPrompt]],
        correction: Correction | None = None,
        *,
        each: bool = False,
    ) -> None:
        """Put prompts of any planes in the place of all that are there, as one edit.

        Parameters
        ----------
        parts
            Points and boxes, in their order, and the plane that they count their pixels on.
        correction
            The object that those of the displayed plane are about, or None.
        each
            As in `take`.

        Raises
        ------
        NoPlane
            There is no image.
        """
        image, _ = self._image_at_rest()
        if any(prompt.box for _, prompt in parts):
            self._activate(self.ensure_boxes(), "add_rectangle")
        layer, shapes = self.ensure_points(), self.boxes
        self._activate(layer, "add")
        placing = prompts.Placing(layer, image)
        positions = [np.zeros((0, layer.ndim))]
        corners: list[NDArray[np.float64]] = []
        for plane, same in groupby(parts, key=lambda part: part[0]):
            here = [prompt for _, prompt in same]
            positions.append(placing.from_plane([at[:2] for one in here for at in one.points], plane))
            boxes = [one.box for one in here if one.box is not None]
            corners += [] if shapes is None else list(prompts.Placing(shapes, image).corners(boxes, plane))
        points = [point for _, prompt in parts for point in prompt.points]
        state = PromptState(
            np.concatenate(positions),
            tuple(prompts.POSITIVE if positive else prompts.NEGATIVE for *_, positive in points),
            tuple(corners),
            ("rectangle",) * len(corners),
            correction,
            each,
        )
        self._restore(state)
        self._fit_markers()
        self.note_edit()

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Change layers without anybody taking it for an edit by the user."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _state(self) -> PromptState:
        points, boxes = self.points, self.boxes
        return PromptState(
            np.zeros((0, 2)) if points is None else np.array(points.data),
            () if points is None else tuple(prompts.signs_of(points)),
            () if boxes is None else tuple(np.array(shape) for shape in boxes.data),
            () if boxes is None else tuple(map(str, boxes.shape_type)),
            self.correction,
            self._each_for_now,
        )

    def _restore(self, state: PromptState) -> None:
        """Bring the layers into a state; a layer that was deleted stays away."""
        with self.quietly():
            points, boxes = self.points, self.boxes
            if points is not None:
                positions = state.points if len(state.points) else np.zeros((0, points.ndim))
                self._signs.restore(points, positions, state.signs)
            if boxes is not None:
                boxes.selected_data = set()
                boxes.data = []
                if state.shapes:
                    boxes.add(list(state.shapes), shape_type=list(state.kinds))
            self.correction, self._each_for_now = state.correction, state.each

    def undo(self) -> bool:
        """Take back the last edit of the prompts; tells whether there was one."""
        return self._go(self.history.back())

    def redo(self) -> bool:
        """Repeat the edit that was taken back last; tells whether there was one."""
        return self._go(self.history.forward())

    def _go(self, state: PromptState | None) -> bool:
        if state is None:
            return False
        self._restore(state)
        self._fit_markers()
        self.edited.emit()
        return True

    def remove_prompts(self) -> None:
        """Remove our prompt and preview layers; Labels layers stay."""
        with self.quietly():
            for layer in (self.preview, self.points, self.boxes):
                if layer is not None:
                    layers.remove(self.viewer, layer)

    def close(self) -> None:
        """Let go of the viewer; layers stay."""
        self.viewer.scene.camera.events.zoom.disconnect(self._fit_markers)

    def show_preview(self, plane: Plane, masks: Sequence[Mask]) -> None:
        """Show masks of a plane: filled lightly, with a solid outline."""
        image = self.image
        if image is None:
            self.hide_preview()
            return
        new = self.preview is None
        self._preview.show(image, plane, masks)
        made = self.preview
        if new and made is not None:
            self._bind(made)  # whoever selects it means the prompts

    def hide_preview(self) -> None:
        """Show no preview."""
        self._preview.hide()
