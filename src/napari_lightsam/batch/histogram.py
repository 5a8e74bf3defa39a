"""Counts of any number of values in bins that fit them, without keeping the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

_BINS = 2048
_FINEST = 2.0**-10


class Histogram:
    """Counts values of 0 or more; bins become wider as larger values come.

    Examples
    --------
    >>> histogram = Histogram()
    >>> histogram.add([1, 2, 2, 9])
    >>> edges, counts = histogram.bins(most=4)
    >>> len(edges), int(counts.sum())
    (5, 4)
    """

    def __init__(self) -> None:
        self._width = _FINEST
        self._counts = np.zeros(_BINS, np.int64)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self._counts.sum())

    def add(self, values: ArrayLike) -> None:
        """Count finite values."""
        given = np.asarray(values, np.float64)
        given = given[np.isfinite(given) & (given >= 0)]
        if not given.size:
            return
        while given.max() >= self._width * _BINS:
            self._counts = np.append(self._counts.reshape(-1, 2).sum(axis=1), np.zeros(_BINS // 2, np.int64))
            self._width *= 2
        self._counts += np.bincount((given / self._width).astype(np.int64), minlength=_BINS)

    def bins(self, most: int = 30) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Give the edges (n + 1,) and counts (n,) of at most so many bins from 0; none where nothing came."""
        last = int(np.flatnonzero(self._counts)[-1]) + 1 if self.total else 0
        together = max(1, -(-last // most))
        n = -(-last // together)
        padded = np.zeros(n * together, np.int64)
        padded[:last] = self._counts[:last]
        return np.arange(n + 1) * together * self._width, padded.reshape(n, together).sum(axis=1)
