"""Prompting on a viewer: prompt layers and the preview of what they mean. Knows napari but no Qt."""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin.objects.timeline import PROMPTS, Timeline
from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.prompting.gestures import Gestures
from napari_lightsam.plugin.prompting.history import NOTHING, Correction, PromptHistory, PromptState
from napari_lightsam.plugin.prompting.layers import PromptLayers
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane, Plane, displayed_plane, resting_plane
from napari_lightsam.plugin.viewer.preview import Preview

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Points, Shapes
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask


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
    prompt_layers
        The layers that prompts are given on.
    correction
        The object that all prompts are about, or None.
    history
        Edits since the last save.
    timeline
        In which order these and steps in Labels layers came.
    """

    edited = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.owner = uuid.uuid4().hex
        self.image_id: Hashable | None = None
        self._each = self._each_for_now = False
        self.correction: Correction | None = None
        self.history = PromptHistory()
        self.timeline = Timeline()
        self.prompt_layers = PromptLayers(viewer, self.owner, Gestures(self), self.note_edit)
        self._preview = Preview(viewer, self.owner, "LightSAM preview")

    @property
    def image(self) -> Image | None:
        """The image that is being segmented; None when there is none or it was deleted."""
        return layers.by_id(self.viewer, self.image_id)

    @property
    def points(self) -> Points | None:
        """Our Points layer, if it exists."""
        return self.prompt_layers.points

    @property
    def boxes(self) -> Shapes | None:
        """Our Shapes layer, if it exists."""
        return self.prompt_layers.boxes

    @property
    def preview(self) -> Labels | None:
        """Our preview layer, if it exists."""
        return self._preview.layer

    @property
    def always_negative(self) -> bool:
        """Clicks without Shift are negative too."""
        return self.prompt_layers.signs.always_negative

    @always_negative.setter
    def always_negative(self, value: bool) -> None:
        self.prompt_layers.signs.always_negative = value

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
        return self.image_and_plane()[1]

    def start_points(self) -> Points:
        """Make our Points layer the active one, ready for clicks, and create it when it is missing."""
        if self.points is None:
            self.plane()  # says why nobody could click
        points = self.prompt_layers.ensure_points(*self._image_at_rest())
        self.prompt_layers.activate(points, "add")
        return points

    def start_boxes(self) -> Shapes:
        """Make our Shapes layer the active one, ready to draw boxes, and create it when it is missing."""
        if self.boxes is None:
            self.plane()  # says why nobody could draw
        boxes = self.prompt_layers.ensure_boxes(*self._image_at_rest())
        self.prompt_layers.activate(boxes, "add_rectangle")
        return boxes

    def image_and_plane(self) -> tuple[Image, Plane]:
        """Return the image and its displayed plane.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        image = self._need_image()
        return image, displayed_plane(image, self.viewer)

    def _image_at_rest(self) -> tuple[Image, Plane]:
        """Return the image and the plane that is on display, or would be in the 2-D view."""
        image = self._need_image()
        return image, resting_plane(image, self.viewer)

    def _need_image(self) -> Image:
        image = self.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        return image

    def note_edit(self) -> None:
        """Keep the prompts as they are now as a step to go back to, and tell of them."""
        if self.history.note(self._state()):
            self.timeline.note(PROMPTS)
        self.edited.emit()

    def click(self, at: Sequence[float], *, negative: bool) -> None:
        """Add a point at a position in world coordinates, as a click would."""
        points = self.prompt_layers.ensure_points(*self._image_at_rest())
        self.prompt_layers.add_point(points, at, negative=negative)

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

    @property
    def is_clicking(self) -> bool:
        """One of our prompt layers is active: a click of the mouse is a prompt."""
        active = layers.active_id(self.viewer)
        held = (layer.unique_id for layer in (self.points, self.boxes) if layer is not None)
        return active is not None and active in held

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
        state = self.prompt_layers.state_without(*self.image_and_plane())
        self._restore(replace(state, each=self._each_for_now and bool(len(state.points))))
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
        image, plane = self._image_at_rest()
        ours = self.prompt_layers
        if any(prompt.box for _, prompt in parts):
            ours.activate(ours.ensure_boxes(image, plane), "add_rectangle")
        layer, shapes = ours.ensure_points(image, plane), self.boxes
        ours.activate(layer, "add")
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
        self.prompt_layers.fit_markers()
        self.note_edit()

    def _state(self) -> PromptState:
        return replace(self.prompt_layers.state(), correction=self.correction, each=self._each_for_now)

    def _restore(self, state: PromptState) -> None:
        self.prompt_layers.restore(state)
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
        self.prompt_layers.fit_markers()
        self.edited.emit()
        return True

    def remove_prompts(self) -> None:
        """Remove our prompt and preview layers; Labels layers stay."""
        with self.prompt_layers.quietly():
            for layer in (self.preview, self.points, self.boxes):
                if layer is not None:
                    layers.remove(self.viewer, layer)

    def close(self) -> None:
        """Let go of the viewer; layers stay."""
        self.prompt_layers.close()

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
            self.prompt_layers.bind(made)  # whoever selects it means the prompts

    def hide_preview(self) -> None:
        """Show no preview."""
        self._preview.hide()
