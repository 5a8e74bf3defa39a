"""Going through the objects of a Labels layer and repairing them. Knows napari but no Qt."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin.messages import report_error
from napari_lightsam.plugin.objects.repairing import Repairing
from napari_lightsam.plugin.objects.results import refusal
from napari_lightsam.plugin.objects.table import (
    ObjectTable,
    describe,
    empty_table,
    measure,
    nearest_pixel,
    pixel_area_um2,
    shown_place,
)
from napari_lightsam.plugin.objects.timeline import Step
from napari_lightsam.plugin.objects.undoable import go
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import level0
from napari_lightsam.plugin.viewer.camera import centre_on, look_closely, show_plane, zoom_in_on
from napari_lightsam.plugin.viewer.clicks import Frames, clicked
from napari_lightsam.plugin.viewer.contoured import Contoured
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_lightsam.plugin.objects.results import Results
    from napari_lightsam.plugin.viewer.places import Place
    from napari_lightsam.plugin.worker import Worker

_MOST_FRAMES = 100


class Curating:
    """The table of one Labels layer, what is selected in it, and what can be done with that.

    Parameters
    ----------
    viewer, worker, results
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: the table, the selection or what can be done has changed.
    outdated
        Signal: the layer or the plane changed; call `measure` when the user pauses.
    marked
        Signal(Labels): something was noted of objects: accepted ones, a verdict.
    layer_id
        `unique_id` of the Labels layer, or None.
    table
        As measured last.
    selected
        Labels of the selected objects; the first is the current one.
    repairs
        What can be done with the selected objects.
    """

    changed = Signal()
    outdated = Signal()
    marked = Signal(object)

    def __init__(
        self, viewer: ViewerModel, worker: Worker, results: Results, say: Callable[[str], object]
    ) -> None:
        self.viewer, self.results, self.say = viewer, results, say
        self._worker = worker
        self.owner = uuid.uuid4().hex
        self.layer_id: Hashable | None = None
        self.table = empty_table()
        self.selected: tuple[int, ...] = ()
        self._all_wanted = False
        self._version, self._measured_version = 1, 0
        self._quiet = False
        self._sliced: Place = ()  # what of the layer napari showed last
        self.repairs = Repairing(self)
        self._frames = Frames(viewer, self.owner, Role.SELECTED, "selected objects")
        self._contoured, self._reviews = Contoured(viewer), False
        for emitter in self._emitters():
            emitter.connect(self._on_moved)
        viewer.scene.camera.events.zoom.connect(self._on_zoom)
        viewer.layers.events.removed.connect(self._on_removed)

    def _emitters(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    # --- the layer -----------------------------------------------------------------------------------

    def choices(self) -> Iterator[Labels]:
        """Return the Labels layers that can be looked through."""
        return layers.user_labels(self.viewer)

    @property
    def layer(self) -> Labels | None:
        """The Labels layer, while it exists."""
        return layers.by_id(self.viewer, self.layer_id)

    def use_layer(self, labels: Labels | None) -> None:
        """Look through another Labels layer."""
        new = None if labels is None else labels.unique_id
        if new == self.layer_id:
            return
        self._let_go()
        self.layer_id = new
        if labels is not None:
            labels.events.paint.connect(self._on_paint)
            labels.events.set_data.connect(self._on_set_data)
            labels.events.selected_label.connect(self._on_selected_label)
            labels.mouse_drag_callbacks.append(self._on_mouse)
            self._sliced = shown_place(labels, self.viewer)
        self._show_contours()
        self.mark_outdated()

    def _let_go(self) -> None:
        labels = self.layer
        if labels is not None:
            labels.events.paint.disconnect(self._on_paint)
            labels.events.set_data.disconnect(self._on_set_data)
            labels.events.selected_label.disconnect(self._on_selected_label)
            if self._on_mouse in labels.mouse_drag_callbacks:
                labels.mouse_drag_callbacks.remove(self._on_mouse)
        self._worker.cancel(Lane.MEASURE)
        self.layer_id, self.table, self.selected = None, empty_table(), ()
        self._contoured.hide()  # nobody listens to the layer any more
        self._frames.hide()

    @property
    def all_planes(self) -> bool:
        """Table and edits are of the whole stack, not of the plane on display."""
        return self._all_wanted and self.has_stack

    @property
    def has_stack(self) -> bool:
        """Objects may go through several planes; time points that are numbered by themselves are no such."""
        labels = self.layer
        if labels is None or layers.ours(labels).get("numbered_apart"):
            return False
        return any(n > 1 for n in level0(labels).shape[: labels.ndim - 2])

    def use_all_planes(self, wanted: bool) -> None:
        """Have table and edits be of the whole stack, or of the plane on display."""
        before, self._all_wanted = self.all_planes, wanted
        if before != self.all_planes:
            self.mark_outdated()

    def why_not(self) -> str:
        """Say why nothing can be edited, or ""."""
        labels = self.layer
        if labels is None:
            return "Choose a Labels layer first; segment everything or click objects to make one."
        return refusal(labels)

    @property
    def axes(self) -> tuple[int, int]:
        """The two axes of the Labels array that are on display; the last two in the 3-D view."""
        labels = self.layer
        assert labels is not None
        free = [axis for axis, step in enumerate(shown_place(labels, self.viewer)) if step is None]
        return (free[0], free[1]) if len(free) == 2 else (labels.ndim - 2, labels.ndim - 1)

    @property
    def pixel_area(self) -> float | None:
        """Size of a pixel of the table in um2, um3 for all planes; None when it is not known."""
        labels = self.layer
        fits = labels is not None and len(self.table.place) == labels.ndim
        return pixel_area_um2(labels, self.table.place) if labels is not None and fits else None

    # --- the table -----------------------------------------------------------------------------------

    @property
    def is_current(self) -> bool:
        """The table is of the pixels as they are."""
        return self._measured_version == self._version

    def place_of(self, labels: Labels) -> Place:
        """Return what of a layer table and edits are of."""
        return (None,) * labels.ndim if self.all_planes else shown_place(labels, self.viewer)

    def measure(self) -> None:
        """Measure the objects in the background; a newer call replaces an older one."""
        labels = self.layer
        if labels is None or labels.multiscale or not isinstance(labels.data, np.ndarray):
            self._worker.cancel(Lane.MEASURE)
            self.table, self.selected = empty_table(), ()
            self._frames.hide()
            self.changed.emit()
            return
        version = self._version
        self._worker.submit(
            Lane.MEASURE,
            measure(labels.data, self.place_of(labels)),
            lambda table: self._on_measured(table, version),
            report_error,
        )

    def _on_measured(self, table: ObjectTable, version: int) -> None:
        labels = self.layer
        if labels is None or len(table.place) != labels.ndim:
            return
        self.table, self._measured_version = describe(table, labels), version
        self.selected = tuple(label for label in self.selected if self.table.row(label) is not None)
        self._show_frames()
        self.changed.emit()

    def mark_outdated(self) -> None:
        """Note that pixels of the layer changed, or others are looked at."""
        self._version += 1
        self.outdated.emit()
        self.changed.emit()

    def _on_paint(self, event: Any = None) -> None:
        self.mark_outdated()

    def _on_moved(self, event: Any = None) -> None:
        if self.all_planes:
            self._show_frames()  # another plane on display; what is measured is the same
        else:
            self.mark_outdated()

    def _on_set_data(self, event: Any) -> None:
        """Notice an undo, or another array; napari tells in the same way that it shows another plane."""
        former, self._sliced = self._sliced, shown_place(event.source, self.viewer)
        if self._quiet:  # drawn anew by ourselves, with the same pixels
            return
        if self._sliced == former:
            self.repairs.look_again()
        if not self.all_planes or self._sliced == former:
            self.mark_outdated()

    def _on_removed(self, event: Any) -> None:
        if event.value.unique_id == self.layer_id:
            self._let_go()
            self.mark_outdated()

    # --- what is selected ----------------------------------------------------------------------------

    def select(self, ids: Iterable[int]) -> None:
        """Select objects; the first is the current one, and becomes the layer's selected label."""
        wanted = tuple(dict.fromkeys(int(label) for label in ids))
        if wanted == self.selected:
            return
        self.selected = wanted
        labels = self.layer
        if labels is not None and wanted:
            with self._silent():
                labels.selected_label = wanted[0]
        self._show_frames()
        self.changed.emit()

    def on_renumbered(self, layer: Hashable) -> None:
        """Forget the selection when its labels may be those of other objects now."""
        if layer == self.layer_id:
            self.select([])

    def go_to(self, label: int, *, closely: bool = False) -> None:
        """Select an object and bring it into view: its plane, in the middle of the window.

        Parameters
        ----------
        label
            Of the object.
        closely
            Zoom in or out on it, so that its outline can be judged.
        """
        self.select([label])
        labels = self.layer
        at = None if labels is None else nearest_pixel(labels.data, self.table, label)
        if labels is None or at is None:
            return
        row = self.table.row(label)
        assert row is not None  # its pixel was found
        show_plane(self.viewer, labels, at)
        low, high = self.table.boxes[row]
        shown = np.isin(range(labels.ndim), self.axes)
        centre_on(self.viewer, labels, np.where(shown, (low + high - 1) / 2, at).tolist())
        zoom = look_closely if closely else zoom_in_on
        zoom(self.viewer, float(((high - low) * np.abs(labels.scale))[shown].max()))

    def _show_frames(self) -> None:
        """Frame the selected objects that are on the plane on display."""
        labels = self.layer
        if labels is None:
            return
        rows = [row for label in self.selected if (row := self.table.row(label)) is not None]
        step = shown_place(labels, self.viewer)
        first = np.array([0 if at is None else at for at in step])
        fixed = np.array([at is not None for at in step])
        boxes = [
            (low, high)
            for low, high in self.table.boxes[rows]
            if not (fixed & ((first < low) | (first >= high))).any()
        ]
        shown = [(np.where(fixed, first, a), np.where(fixed, first + 1, b)) for a, b in boxes]
        self._frames.show(labels, self.axes, shown[:_MOST_FRAMES])

    @contextmanager
    def _silent(self) -> Iterator[None]:
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def _on_selected_label(self, event: Any) -> None:
        label = int(event.source.selected_label)
        if not self._quiet and label not in self.selected and self.table.row(label) is not None:
            self.select([label])

    def _on_mouse(self, layer: Labels, event: Any) -> Generator[None, None, None]:
        """Select the object that is clicked, with Shift more of them, while no tool of napari's is in use."""
        if layer.mode != "pan_zoom" or layer.multiscale:
            return
        if not (yield from clicked(event)):
            return
        found = layer.get_value(
            event.position,
            view_direction=event.view_direction,
            dims_displayed=list(event.dims_displayed),
            world=True,
        )
        if found and self.table.row(int(found)) is not None:
            more = "Shift" in event.modifiers
            self.select([*(self.selected if more else ()), int(found)])

    # --- what was looked at --------------------------------------------------------------------------

    @property
    def accepted(self) -> frozenset[int]:
        """Labels of the objects that the user accepted; kept with the layer."""
        labels = self.layer
        return frozenset(() if labels is None else layers.ours(labels).get("accepted", ()))

    def accept(self, ids: Iterable[int], accepted: bool = True) -> None:
        """Note that objects are right, or take that back."""
        labels = self.layer
        if labels is None:
            return
        before, these = self.accepted, set(ids)
        after = before | these if accepted else before - these
        if after != before:
            layers.note_of(labels)["accepted"] = sorted(after)
            self.marked.emit(labels)
            self.changed.emit()

    # --- undo ----------------------------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last step in the layer, on napari's own timeline."""
        labels = self.layer
        if labels is None:
            return
        self.say(f"The last step in {labels.name!r} was taken back.")  # what is known of it is said then
        if go(labels, labels.undo):
            self.results.timeline.take_back(Step(self.layer_id))
        else:
            self.say("There is nothing more to take back.")

    def redo(self) -> None:
        """Repeat the last step that was taken back."""
        labels = self.layer
        if labels is None:
            return
        self.say(f"A step in {labels.name!r} was repeated.")
        if go(labels, labels.redo):
            self.results.timeline.repeat(Step(self.layer_id))
        else:
            self.say("There is nothing more to repeat.")

    # --- beginning and end ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a review: objects are shown as outlines, so that what is beneath can be seen."""
        self._reviews = True
        self._show_contours()

    def _show_contours(self) -> None:
        labels = self.layer
        if self._reviews and labels is not None:
            with self._silent():
                self._contoured.show(labels)

    def _on_zoom(self, event: Any = None) -> None:
        with self._silent():
            self._contoured.follow_zoom()

    def hide(self) -> None:
        """End the review: show no frames, and the layer as it was."""
        self._reviews = False
        with self._silent():
            self._contoured.hide()
        self._frames.hide()

    def close(self) -> None:
        """Let go of the viewer; layers stay, except for the frames."""
        self._let_go()
        self.viewer.scene.camera.events.zoom.disconnect(self._on_zoom)
        for emitter in self._emitters():
            emitter.disconnect(self._on_moved)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
