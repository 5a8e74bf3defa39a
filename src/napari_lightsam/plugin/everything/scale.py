"""What the positions of the slider from fewer to more objects mean for the result of one run."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DIGITS = 3  # of a balance that somebody reads, in a script or a file


@dataclass(frozen=True, eq=False)  # without slots, which keep nothing that is cached
class BalanceScale:
    """Steps over the balances at which objects come and go, all as wide as each other.

    Thresholds that suit a model leave out few or no objects of most images: on the scale of the balance
    itself, a large part of the slider would change nothing.

    Parameters
    ----------
    balances
        From which balance on each object of the run is there, rising; without any, as before a run, positions
        and balances are the same.
    """

    balances: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @cached_property
    def _changes(self) -> NDArray[np.float64]:
        return np.unique(self.balances[self.balances > -1])

    @property
    def counts(self) -> tuple[int, int] | None:
        """How many objects there are at the left and at the right end; None where nothing is known."""
        if not len(self._changes):
            return None
        return int(np.count_nonzero(self.balances <= -1)), len(self.balances)

    def balance(self, position: float) -> float:
        """Return the balance of a position between 0, fewest objects, and 1.

        Of the balances that give the same objects it is the usual one, 0, where that is among them.

        Examples
        --------
        >>> scale = BalanceScale(np.array([-1.0, -0.8, -0.4]))
        >>> [scale.balance(position) for position in (0.0, 0.5, 1.0)]
        [-1.0, -0.6, 0.0]
        """
        changes = self._changes
        if not len(changes):
            return 2 * position - 1
        passed = round(position * len(changes))
        low = -1.0 if passed == 0 else float(changes[passed - 1])
        high = np.inf if passed == len(changes) else float(changes[passed])
        if low <= 0 < high:
            return 0.0
        if passed == 0:
            return -1.0
        middle = (low + min(high, 1.0)) / 2
        short = round(middle, _DIGITS)
        return short if low <= short < high else middle

    def position(self, balance: float) -> float:
        """Return the position between 0 and 1 at which a balance stands."""
        changes = self._changes
        if not len(changes):
            return (balance + 1) / 2
        return float(np.searchsorted(changes, balance, side="right")) / len(changes)
