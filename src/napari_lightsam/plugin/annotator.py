"""Prompting on a viewer: prompt layers and the preview of what they mean. Knows napari but no Qt."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin import layers, prompts
from napari_lightsam.plugin.axes import METADATA_KEY, NoPlane, Plane, displayed_plane
from napari_lightsam.plugin.prompt_history import NOTHING, Correction, PromptHistory, PromptState

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

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
_PREVIEW_FILL, _PREVIEW_EDGE = (0.94, 0.89, 0.26, 0.20), (0.94, 0.89, 0.26, 1.0)


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
    each
        Every positive point is an object of its own.
    correction
        The object that all prompts are about, or None.
    history
        Edits since the last save.
    """

    edited = Signal()
    keys = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.owner = uuid.uuid4().hex
        self.image_id: Hashable | None = None
        self.each = False
        self.correction: Correction | None = None
        self.history = PromptHistory()
        self._quiet = False
        self._signs = prompts.Signs(self._on_edit)
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
        return layers.find(self.viewer, "preview", self.owner)

    @property
    def always_negative(self) -> bool:
        """Clicks without Shift are negative too."""
        return self._signs.always_negative

    @always_negative.setter
    def always_negative(self, value: bool) -> None:
        self._signs.always_negative = value

    def use_each(self, each: bool) -> None:
        """Say whether every positive point is an object of its own."""
        if each != self.each:
            self.each = each
            self.edited.emit()

    def use_image(self, image: Image | None) -> None:
        """Work on another image; prompts and preview of the former one are removed."""
        new = None if image is None else image.unique_id
        if new == self.image_id:
            return
        self.remove_prompts()
        self.correction = None
        self.history.forget()
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
        points = self.points
        if points is None:
            image, plane = self._image_and_plane()
            points = prompts.add_points(self.viewer, image, plane, self.owner, self._signs)
            self._fit_markers()
            self._bind(points)
        self._activate(points, "add")
        return points

    def start_boxes(self) -> Shapes:
        """Make our Shapes layer the active one, ready to draw boxes, and create it when it is missing."""
        boxes = self.boxes
        if boxes is None:
            image, plane = self._image_and_plane()
            boxes = prompts.add_boxes(self.viewer, image, plane, self.owner)
            boxes.events.data.connect(self._on_box_edit)
            self._bind(boxes)
        self._activate(boxes, "add_rectangle")
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

    def _image_and_plane(self) -> tuple[Image, Plane]:
        plane = self.plane()
        image = self.image
        assert image is not None  # plane() raises without an image
        return image, plane

    def _bind(self, layer: Any) -> None:
        """Bind our keys on a prompt layer of ours, and only there."""
        for key, name in _KEYS.items():
            layer.bind_key(key, lambda _layer, name=name: self.keys.emit(name))

    def _on_edit(self) -> None:
        if not self._quiet:
            self.history.note(self._state())
            self.edited.emit()

    def _on_box_edit(self, event: Any) -> None:
        if event.action in ("added", "removed", "changed"):
            self._on_edit()

    def read_prompts(self) -> tuple[prompts.ObjectPrompt, ...]:
        """Return what the user said about the objects of the displayed plane.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        image, plane = self._image_and_plane()
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
        image, plane = self._image_and_plane()
        if self.points is None:
            return 0
        here = [prompts.to_plane(self.points, at, image, plane) for at in self.points.data]
        return sum(at is not None for at in here) - len(prompts.read_points(self.points, image, plane))

    def clear(self) -> None:
        """Remove all prompts and the preview; undo brings the prompts back."""
        self._restore(NOTHING)
        self.hide_preview()
        self._on_edit()

    def drop_saved(self) -> None:
        """Remove the prompts of the displayed plane, which were saved; those of other planes stay.

        Raises
        ------
        NoPlane
            As `plane`.
        """
        image, plane = self._image_and_plane()
        state, points, boxes = self._state(), self.points, self.boxes
        kept = [i for i, at in enumerate(state.points) if prompts.to_plane(points, at, image, plane) is None]
        left = [
            i
            for i, shape in enumerate(state.shapes)
            if any(prompts.to_plane(boxes, vertex, image, plane) is None for vertex in shape)
        ]
        self._restore(
            PromptState(
                state.points[kept],
                tuple(state.signs[i] for i in kept),
                tuple(state.shapes[i] for i in left),
                tuple(state.kinds[i] for i in left),
            )
        )
        self.hide_preview()
        self.history.forget(self._state())
        self.edited.emit()

    def take(
        self,
        points: Sequence[tuple[float, float, bool]],
        boxes: Sequence[tuple[float, float, float, float]],
        correction: Correction | None = None,
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

        Raises
        ------
        NoPlane
            As `plane`.
        """
        image, plane = self._image_and_plane()
        if boxes:
            self.start_boxes()
        layer, shapes = self.start_points(), self.boxes
        positions = [prompts.from_plane(layer, (y, x), image, plane) for y, x, _ in points]
        signs = [prompts.POSITIVE if positive else prompts.NEGATIVE for *_, positive in points]
        corners = [prompts.box_corners(shapes, box, image, plane) for box in boxes] if shapes else []
        state = PromptState(
            np.array(positions).reshape(-1, layer.ndim),
            tuple(signs),
            tuple(corners),
            ("rectangle",) * len(corners),
            correction,
        )
        self._restore(state)
        self._fit_markers()
        self._on_edit()

    def _state(self) -> PromptState:
        points, boxes = self.points, self.boxes
        return PromptState(
            np.zeros((0, 2)) if points is None else np.array(points.data),
            () if points is None else tuple(prompts.signs_of(points)),
            () if boxes is None else tuple(np.array(shape) for shape in boxes.data),
            () if boxes is None else tuple(map(str, boxes.shape_type)),
            self.correction,
        )

    def _restore(self, state: PromptState) -> None:
        """Bring the layers into a state; a layer that was deleted stays away."""
        self._quiet = True
        try:
            points, boxes = self.points, self.boxes
            if points is not None:
                positions = state.points if len(state.points) else np.zeros((0, points.ndim))
                self._signs.restore(points, positions, state.signs)
            if boxes is not None:
                boxes.selected_data = set()
                boxes.data = []
                if state.shapes:
                    boxes.add(list(state.shapes), shape_type=list(state.kinds))
            self.correction = state.correction
        finally:
            self._quiet = False

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
        self._quiet = True
        try:
            for layer in (self.preview, self.points, self.boxes):
                if layer is not None:
                    layers.remove(self.viewer, layer)
        finally:
            self._quiet = False

    def close(self) -> None:
        """Let go of the viewer; layers stay."""
        self.viewer.scene.camera.events.zoom.disconnect(self._fit_markers)

    def show_preview(self, plane: Plane, masks: Sequence[Mask]) -> None:
        """Show masks of a plane: filled lightly, with a solid outline."""
        image = self.image
        masks = [mask for mask in masks if mask.area]
        if image is None or not masks:
            self.hide_preview()
            return
        crop, offset = _paint_preview(masks)
        data = crop.reshape(layers.plane_shape(plane, *crop.shape))
        keywords = layers.on_plane(image, plane, offset)
        preview = self.preview
        if preview is not None and not _lies_as(preview, keywords):  # the image was scaled or turned since
            layers.remove(self.viewer, preview)
            preview = None
        if preview is None:
            self._add_preview(data, keywords)
            return
        # the viewer would go through all layers, though the preview changes no extent
        with preview.events.data.blocker():
            preview.data = data  # never painted on, so there is no history that this could spoil
        if not np.array_equal(preview.translate, keywords["translate"]):
            preview.translate = keywords["translate"]
        if not preview.visible:
            preview.visible = True

    def _add_preview(self, data: Any, keywords: dict[str, Any]) -> None:
        from napari.utils.colormaps import DirectLabelColormap

        active = self.viewer.layers.selection.active
        preview = self.viewer.add_labels(
            data,
            name="LightSAM preview",
            colormap=DirectLabelColormap(color_dict={None: (0, 0, 0, 0), 1: _PREVIEW_FILL, 2: _PREVIEW_EDGE}),
            opacity=1.0,
            metadata={METADATA_KEY: {"role": "preview", "owner": self.owner, "version": 1}},
            **keywords,
        )
        preview.editable = False
        names = [layer.unique_id for layer in self.viewer.layers]
        lowest = min(
            (names.index(layer.unique_id) for layer in (self.points, self.boxes) if layer is not None),
            default=len(names),
        )
        self.viewer.layers.move(names.index(preview.unique_id), lowest)  # prompts stay on top
        if active is not None:
            self.viewer.layers.selection.active = active

    def hide_preview(self) -> None:
        """Show no preview."""
        preview = self.preview
        if preview is not None and preview.visible:
            preview.visible = False


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


def _paint_preview(masks: Sequence[Mask]) -> tuple[Any, tuple[int, int]]:
    """Return uint8 (h, w), 1 inside of objects and 2 along their edges, and where it starts."""
    boxes = np.array([mask.box for mask in masks])
    y0, x0 = boxes[:, :2].min(axis=0)
    y1, x1 = boxes[:, 2:].max(axis=0)
    crop = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for mask in masks:
        part = crop[mask.box[0] - y0 : mask.box[2] - y0, mask.box[1] - x0 : mask.box[3] - x0]
        inner = _without_edge(mask.crop)
        np.copyto(part, 1, where=inner & (part == 0))
        np.copyto(part, 2, where=mask.crop & ~inner)
    return crop, (int(y0), int(x0))
