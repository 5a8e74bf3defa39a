"""Undo of prompts that were not saved yet: every edit is a state to go back to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask

LIMIT = 100
"""States that are kept; prompts are small."""


@dataclass(frozen=True, slots=True)
class Correction:
    """An object of a Labels layer that the prompts are about.

    Attributes
    ----------
    layer
        `unique_id` of the Labels layer.
    value
        Its label.
    plane
        Key of the plane that it is corrected on.
    mask
        What is to be corrected; None where the prompts alone made the object.
    """

    layer: Hashable
    value: int
    plane: Hashable
    mask: Mask | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PromptState:
    """All prompts at one moment, as they stand in the layers.

    Attributes
    ----------
    points
        (N, D) positions in the Points layer.
    signs
        One for each point.
    shapes, kinds
        Vertices and shape type of each box.
    correction
        The object under correction, or None.
    each
        Every positive point is an object of its own, whatever the user chose for others.
    """

    points: NDArray[np.float64]
    signs: tuple[str, ...]
    shapes: tuple[NDArray[np.float64], ...]
    kinds: tuple[str, ...]
    correction: Correction | None = None
    each: bool = False

    def same(self, other: PromptState) -> bool:
        """Tell whether nothing differs."""
        return (
            self.signs == other.signs
            and self.kinds == other.kinds
            and (self.correction, self.each) == (other.correction, other.each)
            and np.array_equal(self.points, other.points)
            and all(map(np.array_equal, self.shapes, other.shapes))
        )


NOTHING = PromptState(np.zeros((0, 2)), (), (), ())
"""No prompts at all."""


class PromptHistory:
    """The states that prompts went through since the last save.

    Examples
    --------
    >>> history = PromptHistory()
    >>> one = PromptState(np.zeros((1, 2)), ("positive",), (), ())
    >>> history.note(one), history.back() is NOTHING, history.back(), history.forward() is one
    (True, True, None, True)
    """

    def __init__(self) -> None:
        self._states: list[PromptState] = [NOTHING]
        self._at = 0

    def note(self, state: PromptState) -> bool:
        """Add the state after an edit, if it is another one; what had been undone is gone then."""
        state = _plain(state)
        if state.same(self._states[self._at]):
            return False
        self._states = [*self._states[: self._at + 1], state][-LIMIT:]
        self._at = len(self._states) - 1
        return True

    def back(self) -> PromptState | None:
        """Return the state before the last edit; None when there is none."""
        return self._go(-1)

    def forward(self) -> PromptState | None:
        """Return the state that was undone last; None when there is none."""
        return self._go(1)

    def _go(self, step: int) -> PromptState | None:
        if not 0 <= self._at + step < len(self._states):
            return None
        self._at += step
        return self._states[self._at]

    def forget(self, state: PromptState = NOTHING) -> None:
        """Start anew from a state: all other prompts were saved."""
        self._states, self._at = [_plain(state)], 0


def _plain(state: PromptState) -> PromptState:
    """Return `NOTHING` for every state without prompts, however many axes its arrays have."""
    empty = len(state.points) == 0 and not state.shapes and state.correction is None
    return NOTHING if empty else state
