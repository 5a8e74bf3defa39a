"""Repairs of the objects that are selected in the table: each one step of napari's own undo. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.everything.choices import counted
from napari_lightsam.plugin.messages import report_error, report_info, shortcut
from napari_lightsam.plugin.objects.edits import Edited, Edits

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from napari.layers import Labels

    from napari_lightsam.plugin.objects.curating import Curating
    from napari_lightsam.plugin.viewer.places import Place

_LIMIT = 100  # steps that napari keeps


class Repairing:
    """Edits of the layer of a `Curating`, and what is said of them.

    Parameters
    ----------
    curating
        Of the controller.
    """

    def __init__(self, curating: Curating) -> None:
        self._curating = curating
        self._edits: list[_Made] = []  # in their order; those that were taken back are last

    def merge(self) -> None:
        """Make one object of those selected."""
        ids = self._curating.selected
        self._edit(
            lambda edits: edits.merge(ids),
            lambda done: (
                f"{_names(ids)} merged into {done.ids[0]}.{' They do not touch.' if done.apart else ''}"
            ),
            ids,
        )

    def delete(self) -> None:
        """Delete the selected objects."""
        ids = self._curating.selected
        self._edit(lambda edits: edits.delete(ids), lambda _: f"{_names(ids)} deleted.", ids)

    def fill_holes(self) -> None:
        """Fill the holes of the selected objects."""
        ids = self._curating.selected
        self._edit(
            lambda edits: edits.fill_holes(ids), lambda done: f"{done.changed} pixels of holes filled.", ids
        )

    def smooth(self) -> None:
        """Smooth the outlines of the selected objects."""
        ids = self._curating.selected
        self._edit(lambda edits: edits.smooth(ids), lambda _: f"{_names(ids)} smoothed.", ids)

    def small(self, least: int) -> list[int]:
        """Return the objects of less than so many pixels."""
        return [int(label) for label in self._curating.table.labels[self._curating.table.areas < least]]

    def remove_small(self, least: int) -> None:
        """Delete all objects of less than so many pixels."""
        if not self._curating.is_current:
            report_info("The objects are still being measured; press again in a moment.")
            return
        ids = self.small(least)
        self._edit(
            lambda edits: edits.delete(ids),
            lambda _: f"{counted(len(ids))} of less than {least} px deleted.",
            ids,
        )

    def _edit(
        self, act: Callable[[Edits], Edited], sentence: Callable[[Edited], str], ids: Sequence[int]
    ) -> None:
        labels = self._curating.layer
        if labels is None:
            report_info(self._curating.why_not())
            return
        try:
            done = act(self.edits(labels, self._curating.place_of(labels), ids))
        except LightSamError as error:
            report_error(error)
            return
        self.finish_edit(done, sentence(done), ids)

    def edits(self, labels: Labels, place: Place, ids: Iterable[int]) -> Edits:
        """Return the edits of a place of the layer; a current table helps to find the objects."""
        regions = {}
        if self._curating.is_current and place == self._curating.table.place:
            found = ((label, self._curating.table.region(label)) for label in ids)
            regions = {label: region for label, region in found if region is not None}
        return Edits(labels, place, self._curating.axes, regions)

    def finish_edit(self, done: Edited, sentence: str, ids: Iterable[int]) -> None:
        """Take note of an edit that was made: say so, and select what came of it."""
        if not done.changed:
            self._curating.say("Nothing had to be changed.")
            return
        accepted = self._curating.accepted.intersection(ids)
        self._curating.accept(ids, accepted=False)
        if done.sample is not None:
            made = _Made(self._curating.layer_id, sentence, accepted, *done.sample)
            self._edits = [*(edit for edit in self._edits if edit.stands), made][-_LIMIT:]
        self._curating.say(f"{sentence} {shortcut('Z')} takes it back.")
        self._curating.selected = done.ids
        self._curating.mark_outdated()

    def look_again(self) -> None:
        """Say so when an edit was taken back or repeated, by whatever key of napari's."""
        labels = self._curating.layer
        if labels is None:
            return
        mine = [edit for edit in self._edits if edit.layer == labels.unique_id]
        back, forth = [edit for edit in mine if edit.stands], [edit for edit in mine if not edit.stands]
        for edit in (*back[-1:], *forth[:1]):
            if int(labels.data[edit.at]) == (edit.before if edit.stands else edit.after):
                self._turn(edit)
                return

    def _turn(self, edit: _Made) -> None:
        """Take note that an edit was taken back, or repeated; what was accepted before it goes along."""
        edit.stands = not edit.stands
        self._curating.accept(edit.accepted, accepted=not edit.stands)
        self._curating.say(
            f"{edit.sentence} {shortcut('Z')} takes it back."
            if edit.stands
            else f"Taken back: {edit.sentence}"
        )


@dataclass(slots=True, eq=False)
class _Made:
    """An edit: of which layer, what was said of it, and a pixel that tells whether it stands."""

    layer: Hashable
    sentence: str
    accepted: frozenset[int]
    at: tuple[int, ...]
    before: int
    after: int
    stands: bool = True


def _names(ids: Sequence[int]) -> str:
    """Name objects for a sentence.

    Examples
    --------
    >>> _names([3]), _names([3, 7, 9])
    ('Object 3', 'Objects 3, 7, 9')
    """
    shown = ", ".join(map(str, ids[:4])) + (", ..." if len(ids) > 4 else "")
    return f"Object{'s' if len(ids) > 1 else ''} {shown}"
