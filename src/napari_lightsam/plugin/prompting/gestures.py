"""Mouse gestures on prompt layers: a drag with the point tool is a box, a click with the box tool a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.viewer.clicks import clicked, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.layers import Points, Shapes

    from napari_lightsam.plugin.prompting.annotator import Annotator


class DragBox:
    """Tells of drags with the left button on a Points layer that adds points; Shift moves the view as before.

    Parameters
    ----------
    draw
        Called with where the drag began and where it is, positions in world coordinates.
    end
        Called at its end, with whether it is a box; not when it came back to where it began.
    """

    def __init__(self, draw: Callable[[Any, Any], object], end: Callable[[bool], object]) -> None:
        self._draw, self._end = draw, end

    def follow(self, points: Points) -> None:
        """Watch a layer."""
        points.mouse_drag_callbacks.insert(0, self.on_drag)

    def on_drag(self, layer: Points, event: Any) -> Generator[None, None, None]:
        """Follow the mouse from press to release."""
        if str(layer.mode) != "add" or event.button != 1 or "Shift" in event.modifiers:
            return
        press, first, drawn = np.array(event.pos, float), tuple(event.position), False
        layer.mouse_pan = False  # the view stays; napari delivers moves too late for `event.handled`
        yield
        while event.type == "mouse_move":
            if drawn or moved(event, press):
                drawn = True
                self._draw(first, tuple(event.position))
            yield
        layer.mouse_pan = True
        if drawn:
            self._draw(first, tuple(event.position))
            self._end(moved(event, press))


class ClickOrDrag:
    """Notices clicks on a Shapes layer that adds rectangles, of which napari makes tiny ones."""

    def __init__(self) -> None:
        self._click: tuple[tuple[float, ...], bool] | None = None

    def follow(self, boxes: Shapes) -> None:
        """Watch a layer."""
        boxes.mouse_drag_callbacks.insert(0, self.on_drag)

    def on_drag(self, layer: Shapes, event: Any) -> Generator[None, None, None]:
        """Follow the mouse from press to release."""
        shift, self._click = "Shift" in event.modifiers, None
        if (yield from clicked(event)):  # known before napari tells of the new shape
            self._click = tuple(event.position), shift

    def take(self) -> tuple[tuple[float, ...], bool] | None:
        """Return where the click was that made a shape, in world coordinates, and whether Shift was held.

        None where it was a drag, and once it was told.
        """
        click, self._click = self._click, None
        return click


class Gestures:
    """Makes prompts of the gestures on the prompt layers of an annotator.

    Parameters
    ----------
    annotator
        Whose layers are followed.
    """

    def __init__(self, annotator: Annotator) -> None:
        self._annotator = annotator
        self._drag = DragBox(self._sketch, self._end)
        self._click = ClickOrDrag()
        self._sketched = False
        self.follow_points, self.follow_boxes = self._drag.follow, self._click.follow

    def _sketch(self, first: Sequence[float], last: Sequence[float]) -> None:
        """Show the box between two places in world coordinates; it is no prompt before it ends."""
        annotator = self._annotator
        image, plane = annotator.image_and_plane()
        ends = [np.asarray(image.world_to_data(at), float)[list(plane.axes)] for at in (first, last)]
        at = np.clip(np.array(ends) - plane.origin + 0.5, 0, plane.shape)  # napari's pixels are centres
        box = (*at.min(axis=0), *at.max(axis=0))
        ours = annotator.prompt_layers
        with ours.quietly():
            boxes = ours.ensure_boxes(image, plane)
            if self._sketched:
                _drop_last(boxes)
            boxes.add_rectangles(list(prompts.Placing(boxes, image).corners([box], plane)))
            self._sketched = True

    def _end(self, keep: bool) -> None:
        """Make the box that was shown a prompt, or take it away."""
        annotator, sketched, self._sketched = self._annotator, self._sketched, False
        if annotator.boxes is None or not sketched:
            return
        if keep:
            annotator.note_edit()
        else:
            with annotator.prompt_layers.quietly():
                _drop_last(annotator.boxes)

    def take_click(self, boxes: Shapes) -> bool:
        """Make a point of the box that a click has just made; tells whether it was one."""
        click = self._click.take()
        if click is None:
            return False
        with self._annotator.prompt_layers.quietly():
            _drop_last(boxes)
        at, negative = click
        self._annotator.click(at, negative=negative)
        return True


def _drop_last(boxes: Shapes) -> None:
    boxes.selected_data = {len(boxes.data) - 1}
    boxes.remove_selected()
