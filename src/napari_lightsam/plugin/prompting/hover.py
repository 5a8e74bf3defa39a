"""What a first click would outline, shown faintly while the mouse rests over the image. Knows no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.scope import lie_in
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.viewer.preview import Preview
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.viewer.axes import Plane

REST_MS = 120
"""Milliseconds that the mouse stays where it is before the model is asked."""

_OPACITY = 0.5  # of the preview of a click


class Hover:
    """Outlines what lies under the mouse, as long as nothing is clicked yet.

    It only shows: prompts, their undo, labels and the status line stay as they are. The click is an ordinary
    one, and when it hits the same place its answer is known already.

    Parameters
    ----------
    control
        Of the viewer.

    Attributes
    ----------
    moved
        Signal: the mouse moved to a place that may be outlined. Whoever has a clock calls `rest` when it was
        not sent again for `REST_MS`.
    """

    moved = Signal()

    def __init__(self, control: Controller) -> None:
        self._control, self._annotator, self._viewer = control, control.annotator, control.viewer
        self._preview = Preview(
            control.viewer, f"{control.annotator.owner} hover", "LightSAM under the mouse", _OPACITY
        )
        self._on = self._asked = self._adding = False
        self._at: tuple[float, ...] | None = None  # of the mouse, in world coordinates
        self._shown: Mask | None = None

    @property
    def on(self) -> bool:
        """The user wants it."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        if on == self._on:
            return
        self._on = on
        viewer, selection = self._viewer, self._viewer.layers.selection
        if on:
            viewer.mouse_move_callbacks.append(self._on_move)
            viewer.events.mouse_over_canvas.connect(self._on_canvas)
            selection.events.active.connect(self._on_change)
            self._annotator.edited.connect(self._on_edit)
            self._control.changed.connect(self._on_change)
        else:
            viewer.mouse_move_callbacks.remove(self._on_move)
            viewer.events.mouse_over_canvas.disconnect(self._on_canvas)
            selection.events.active.disconnect(self._on_change)
            self._annotator.edited.disconnect(self._on_edit)
            self._control.changed.disconnect(self._on_change)
            self._at = None
            self._hide()
            self._preview.remove()

    def close(self) -> None:
        """Let go of the viewer."""
        self.on = False

    # --- the mouse -----------------------------------------------------------------------------------

    def _on_move(self, viewer: ViewerModel, event: Any) -> None:
        # with Shift a click would say where the object is not
        self._at = None if "Shift" in event.modifiers else tuple(event.position)
        if not self._is_wanted():
            self._hide()
            return
        if self._shown is not None and not self._lies_on(self._shown):
            self._hide()
        self.moved.emit()

    def _on_canvas(self, event: Any = None) -> None:
        if not self._viewer.mouse_over_canvas:
            self._at = None
            self._hide()

    def _on_change(self, event: Any = None) -> None:
        """Hide what is out of date: another layer or tool was taken, the plane or the image changed."""
        if not self._adding and not self._is_wanted():
            self._hide()
            if self._annotator.points is None:
                self._preview.remove()

    def _on_edit(self) -> None:
        # what is shown stays until the answer to the click takes its place, so that nothing flickers
        self._control.worker.cancel(Lane.HOVER)

    def _is_wanted(self) -> bool:
        """Tell whether a click with the tool in hand would be the first one, and be answered at once."""
        annotator, active = self._annotator, self._viewer.layers.selection.active
        points = annotator.points
        return (
            self._on
            and self._at is not None
            and self._control.shown.ready is not None
            and points is not None
            and active is not None
            and active.unique_id == points.unique_id
            and points.mode == "add"
            and not annotator.always_negative
            and not annotator.has_prompts
            and annotator.correction is None
        )

    def _place(self, plane: Plane) -> tuple[float, float] | None:
        """Return (row, column) of the plane where a click would put its point; None beside the plane."""
        points, image = self._annotator.points, self._annotator.image
        if self._at is None or points is None or image is None:
            return None
        # the same way as a point that napari adds, to the last digit: equal prompts are answered once
        at = prompts.to_plane(points, points.world_to_data(self._at), image, plane)
        inside = at is not None and all(-0.5 <= a <= n - 0.5 for a, n in zip(at, plane.shape, strict=True))
        return at if inside else None

    def _lies_on(self, mask: Mask) -> bool:
        try:
            at = self._place(self._annotator.plane())
        except NoPlane:
            return False
        if at is None:
            return False
        row, column = round(at[0]) - mask.offset[0], round(at[1]) - mask.offset[1]
        height, width = mask.crop.shape
        return 0 <= row < height and 0 <= column < width and bool(mask.crop[row, column])

    # --- the model -----------------------------------------------------------------------------------

    def rest(self) -> None:
        """Ask for the outline under the mouse; an answer that is no longer wanted is never shown."""
        if not self._is_wanted():
            return
        try:
            request = self._control.shown.request()
        except NoPlane:
            return
        at = self._place(request.plane)
        if at is None or (request.within and not lie_in([at], request.within)[0]):
            return
        self._asked = True
        settings, prompt = self._control.shown.settings, ObjectPrompt(((*at, True),))
        self._control.worker.submit(
            Lane.HOVER,
            self._control.inference.predict(request, settings, (prompt,)),
            lambda found: self._on_found(request.plane, at, found[0]),
            lambda error: self._hide(),  # a click gives the same error, and says so
        )

    def _on_found(self, plane: Plane, asked: tuple[float, float], found: tuple[Mask, ...]) -> None:
        image = self._annotator.image
        moved_off = bool(found) and self._place(plane) != asked and not self._lies_on(found[0])
        if not self._is_wanted() or image is None or not found or moved_off:
            self._hide()
            return
        self._adding = True  # the first time a layer is added, which is the active one for a moment
        try:
            self._preview.show(image, plane, found[:1])
        finally:
            self._adding = False
        self._shown = found[0]

    def _hide(self) -> None:
        if self._asked:
            self._asked = False
            self._control.worker.cancel(Lane.HOVER)
        if self._shown is not None:
            self._shown = None
            self._preview.hide()
