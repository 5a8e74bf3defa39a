"""Leading the user through a quality check of a Labels layer. Knows napari but no Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.messages import report_info
from napari_lightsam.plugin.objects import quality
from napari_lightsam.plugin.objects.table import shown_place
from napari_lightsam.plugin.viewer.camera import centre_on, fit, show_plane
from napari_lightsam.plugin.viewer.clicks import Clicks, Frames
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.viewer.places import view

if TYPE_CHECKING:
    from napari_lightsam.plugin.objects.curating import Curating
    from napari_lightsam.plugin.objects.quality import Check, Field, Verdict


class Checking:
    """The quality check of the layer of a `Curating`; kept with the layer after every answer.

    Parameters
    ----------
    curating
        Of the controller.

    Attributes
    ----------
    changed
        Signal: another answer, another layer, another step.
    current
        Label of the object that is being judged, or None.
    field
        Where missed objects are being counted, or None. It belongs to the check once that is done.
    """

    changed = Signal()

    def __init__(self, curating: Curating) -> None:
        self._curating = curating
        self.current: int | None = None
        self.field: Field | None = None
        self._base = 0  # missed objects of the field that were counted before its clicks
        self._awaited: int | None = None  # object whose plane is being measured
        viewer, owner = curating.viewer, curating.owner
        self._frames = Frames(viewer, owner, Role.FIELD, "field to search")
        self._clicks = Clicks(viewer, owner, Role.MISSED, "missed objects", {"C": self.end_field})
        self._clicks.changed.connect(self._on_clicks)
        curating.changed.connect(self._on_curating)
        self._layer_id = curating.layer_id

    @property
    def check(self) -> Check | None:
        """The check that is kept with the layer; None where there is none, or one that cannot be read."""
        labels = self._curating.layer
        try:
            return None if labels is None else quality.read_check(labels)
        except FileError:
            return None

    @property
    def is_outdated(self) -> bool:
        """The layer was changed since the objects were drawn: the check is of what it was before."""
        check, curating = self.check, self._curating
        known = check is not None and curating.is_current and check.place == curating.table.place
        return known and check is not None and check.fingerprint != curating.table.fingerprint

    def why_not(self) -> str:
        """Say why no check can be started, or ""."""
        if self._curating.layer is None:
            return self._curating.why_not()
        if not self._curating.is_current:
            return "The objects are still being measured."
        return "" if len(self._curating.table) else "There is no object to judge on this plane."

    def _keep(self, check: Check | None) -> None:
        labels = self._curating.layer
        if labels is not None:
            quality.keep_check(labels, check)
            self._curating.marked.emit(labels)
        self.changed.emit()

    # --- precision -----------------------------------------------------------------------------------

    def start(self, seed: int) -> None:
        """Draw objects and show the first; a check that is there already is replaced."""
        reason = self.why_not()
        if reason:
            report_info(reason)
            return
        self.drop_field()
        self._keep(quality.draw_sample(self._curating.table, seed))
        self.resume()

    def resume(self) -> None:
        """Go on with the first object that was not judged."""
        check = self.check
        self._curating.say("What is the framed object? Press 1, 2, 3 or 4, or a button below the table.")
        self._show(None if check is None else check.next)

    def pause(self) -> None:
        """Stop asking; what was answered is kept, and can be gone on with."""
        asked, check = self.current is not None, self.check
        self.drop_field()
        self.current = self._awaited = None
        if asked and check is not None:
            self._curating.say(f"The check is paused: {len(check.verdicts)} of {len(check.sampled)} judged.")
        self.changed.emit()

    def step_back(self) -> None:
        """Show the object before the current one again, to judge it anew."""
        check = self.check
        if check is None:
            return
        order = list(check.sampled)
        at = order.index(self.current) if self.current in order else len(order)
        if at > 0:
            self._show(order[at - 1])

    def judge(self, verdict: Verdict) -> None:
        """Say what the current object is; the next one is shown."""
        check = self.check
        if check is None or self.current is None:
            return
        check = check.judge(self.current, verdict)
        self.current = check.next
        self._keep(check)
        self._show(self.current)

    def _show(self, label: int | None) -> None:
        self.current, self._awaited = label, None
        if label is None:
            if self.check is not None:
                self._curating.say("All objects are judged. Now count what was missed in a random field.")
        elif self._is_there():
            if self._curating.table.row(label) is None:
                self._curating.say(f"Object {label} is not there any more: was it wrong, merged or split?")
            self._curating.go_to(label, closely=True)
        else:
            self._go_there(label)
        self.changed.emit()

    def _is_there(self) -> bool:
        """Tell whether the table is of what the objects were drawn from, as it is now."""
        check, curating = self.check, self._curating
        return check is not None and curating.is_current and curating.table.place == check.place

    def _go_there(self, label: int) -> None:
        """Move the sliders to where the objects were drawn from; the object is shown once it is measured."""
        check, curating = self.check, self._curating
        labels, viewer = curating.layer, curating.viewer
        if check is None or labels is None:
            return
        stack = check.place == (None,) * len(check.place) and len(check.place) > 2
        curating.use_all_planes(stack)
        if not stack:
            viewer.dims.ndisplay = 3 if check.place.count(None) == 3 else 2
            show_plane(viewer, labels, [step or 0 for step in check.place])
        if not stack and shown_place(labels, viewer) != check.place:
            self.current = None
            report_info("The objects to judge lie in planes along other axes: swap the axes back first.")
            return
        self._awaited = label
        curating.measure()

    # --- recall --------------------------------------------------------------------------------------

    def add_field(self) -> None:
        """Frame another random part of the plane, in which the user clicks what was missed."""
        check, labels = self.check, self._curating.layer
        if check is None or labels is None:
            return
        table = self._curating.table
        if not self._curating.is_current:
            report_info("The objects are still being measured; press again in a moment.")
            return
        if table.place.count(None) != 2:
            report_info(
                "Missed objects are counted on one plane: choose 'this plane' above the table, and the 2-D "
                "view."
            )
            return
        self.drop_field()
        shape = view(labels.data, table.place).shape
        self.field, self._base = quality.draw_field(table, (shape[0], shape[1]), check), 0
        self._curating.select([])
        self._show_field(self.field)
        self._clicks.start(labels)
        self._curating.say("Click every object in the frame that has no outline. Press C when done.")
        self.changed.emit()

    def _show_field(self, field: Field) -> None:
        labels = self._curating.layer
        assert labels is not None  # asked for by the caller
        low, high = _ends(field)
        self._frames.show(labels, self._curating.axes, [(low, high)])
        middle = [(a + b - 1) / 2 for a, b in zip(low, high, strict=True)]
        centre_on(self._curating.viewer, labels, middle)
        sides = [(high[axis] - low[axis]) * abs(float(labels.scale[axis])) for axis in self._curating.axes]
        fit(self._curating.viewer, max(sides))

    def set_missed(self, missed: int) -> None:
        """Say how many objects of the field were missed, in place of clicking them."""
        if self.field is not None:
            self._base = missed - self._clicked(self.field)
            self._note_field(replace(self.field, missed=max(0, missed)))

    def set_false(self, false: int) -> None:
        """Say how many of the outlined objects in the field are no real ones."""
        if self.field is not None:
            self._note_field(replace(self.field, false=min(max(0, false), self.field.outlined)))

    def end_field(self) -> None:
        """End the counting: the field was searched, and counts."""
        check, field = self.check, self.field
        if field is not None and check is not None:
            self.drop_field()
            self._curating.say(f"The field counts: {field.missed} missed, {field.false} false.")
            self._keep(check.with_field(field))

    def drop_field(self) -> None:
        """Give the counting up: a field that was not searched to its end tells nothing."""
        if self.field is not None:
            self._end_field()
            self._curating.say("The field was not searched to its end and does not count.")
            self.changed.emit()

    def _end_field(self) -> None:
        self.field = None
        self._clicks.stop()
        self._frames.hide()

    def _on_clicks(self) -> None:
        if self.field is None:
            return
        inside = self._clicked(self.field)
        if inside < len(self._clicks.places):
            self._curating.say("Only clicks in the frame count: what lies outside of it was not searched.")
        self._note_field(replace(self.field, missed=max(0, self._base + inside)))

    def _clicked(self, field: Field) -> int:
        """Return how many of the clicks lie in a field."""
        low, high = map(np.array, _ends(field))
        places = np.reshape(self._clicks.places, (-1, len(low)))  # of pixels' centres
        return int(((places >= low - 0.5) & (places < high - 0.5)).all(axis=1).sum())

    def _note_field(self, field: Field) -> None:
        if field != self.field:
            self.field = field
            self.changed.emit()

    # --- the layer -----------------------------------------------------------------------------------

    def _on_curating(self) -> None:
        if self._curating.layer_id != self._layer_id:
            self._layer_id = self._curating.layer_id
            self.drop_field()
            self.current = self._awaited = None
        if self._awaited is not None and self._is_there():
            self._show(self._awaited)
        else:
            self.changed.emit()

    def close(self) -> None:
        """End the counting; what was answered stays with the layer."""
        if self.field is not None:
            self._end_field()


def _ends(field: Field) -> tuple[list[int], list[int]]:
    """Return the first pixel of a field and one past the last, along every axis of the Labels array."""
    corners = (iter(field.box[:2]), iter(field.box[2:]))
    low, high = (
        [next(corner) if step is None else step + add for step in field.place]
        for corner, add in zip(corners, (0, 1), strict=True)
    )
    return low, high
