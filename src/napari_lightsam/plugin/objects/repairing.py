"""Repairs of the objects that are selected in the table: each one step of napari's own undo. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.everything.choices import counted
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.objects.edits import Edited, Edits

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from napari.layers import Labels

    from napari_lightsam.plugin.objects.curating import Curating
    from napari_lightsam.plugin.viewer.places import Place


class Repairing:
    """Edits of the layer of a `Curating`, and what is said of them.

    Parameters
    ----------
    curating
        Of the controller.
    """

    def __init__(self, curating: Curating) -> None:
        self._curating = curating
        self._last: _Last | None = None

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
        self._curating.accept(ids, accepted=False)
        if done.sample is not None:
            self._last = _Last(self._curating.layer_id, sentence, *done.sample)
        self._curating.say(f"{sentence} Ctrl+Z takes it back.")
        self._curating.selected = done.ids
        self._curating.mark_outdated()

    def look_again(self) -> None:
        """Say so when the last edit was taken back or repeated, by whatever key of napari's."""
        last, labels = self._last, self._curating.layer
        if last is None or labels is None or last.layer != labels.unique_id:
            return
        now = int(labels.data[last.at])
        if now == (last.before if last.stands else last.after):
            self._last = replace(last, stands=not last.stands)
            self._curating.say(
                f"Taken back: {last.sentence}" if last.stands else f"{last.sentence} Ctrl+Z takes it back."
            )


@dataclass(frozen=True, slots=True)
class _Last:
    """The last edit: of which layer, what was said of it, and a pixel that tells whether it stands."""

    layer: Hashable
    sentence: str
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
