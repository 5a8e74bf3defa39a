"""The order of what Ctrl+Z takes back: edits of prompts, and steps in Labels layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

_LIMIT = 200  # napari keeps 100 steps of a layer


@dataclass(frozen=True, slots=True)
class Step:
    """Something that can be taken back.

    Attributes
    ----------
    layer
        `unique_id` of the Labels layer that has it on its own timeline; None for an edit of the prompts.
    new
        The layer itself is what was made.
    """

    layer: Hashable | None = None
    new: bool = False


PROMPTS = Step()


class Timeline:
    """What was done to one image, in its order; how it is taken back is known to prompts and layers.

    Examples
    --------
    >>> timeline = Timeline()
    >>> for step in (Step("labels"), PROMPTS):
    ...     timeline.note(step)
    >>> timeline.back(), timeline.back(), timeline.back(), timeline.forward()
    (Step(layer=None, new=False), Step(layer='labels', new=False), None, Step(layer='labels', new=False))
    """

    def __init__(self) -> None:
        self._done: list[Step] = []
        self._undone: list[Step] = []

    def note(self, step: Step) -> None:
        """Add what was done now; what had been taken back cannot be repeated any more."""
        self._done = [*self._done, step][-_LIMIT:]
        self._undone.clear()

    def forget_prompts(self) -> None:
        """Pass over all edits of prompts until now: they were saved."""
        self._done = [step for step in self._done if step != PROMPTS]
        self._undone = [step for step in self._undone if step != PROMPTS]

    def clear(self) -> None:
        """Forget everything."""
        self._done, self._undone = [], []

    def back(self) -> Step | None:
        """Return what is to be taken back next; None when there is nothing."""
        return self._pass(self._done, self._undone)

    def forward(self) -> Step | None:
        """Return what is to be repeated next; None when there is nothing."""
        return self._pass(self._undone, self._done)

    def take_back(self, step: Step) -> None:
        """Take note that the last one of such steps was taken back by somebody else."""
        self._move(step, self._done, self._undone)

    def repeat(self, step: Step) -> None:
        """Take note that the one of such steps that was taken back last was repeated by somebody else."""
        self._move(step, self._undone, self._done)

    @staticmethod
    def _move(step: Step, here: list[Step], there: list[Step]) -> None:
        if step in here:
            del here[len(here) - 1 - here[::-1].index(step)]
            there.append(step)

    @staticmethod
    def _pass(here: list[Step], there: list[Step]) -> Step | None:
        if not here:
            return None
        there.append(here.pop())
        return there[-1]
