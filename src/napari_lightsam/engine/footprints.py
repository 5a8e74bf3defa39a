"""Where candidates lie, as bits on the logit grid: which are neighbours and how much they share.

Nothing here is as large as the plane or as a matrix of all candidates: neighbours are found through a hash
of their boxes, and each candidate's bits cover its own box alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_lightsam.engine.candidates import Candidates

Indices = NDArray[np.intp]
Pairs = tuple[Indices, Indices]

_BITS = 64
_SMALLEST_CELL = 3  # boxes up to 2 ** 3 wide share one hash
_CHUNK = 1 << 20  # words, or logits, handled at once
_ONES = np.array([i.bit_count() for i in range(256)], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Footprints:
    """The positive logits of N candidates, 64 columns a word, aligned to the logit grid.

    Attributes
    ----------
    boxes
        int (N, 4), tight and half-open, on the logit grid.
    grid
        int (N, 4), the same in rows and words.
    first
        int (N,), where each candidate's words start.
    words
        uint64 (M,), row by row.
    areas
        int (N,), number of positive logits.
    """

    boxes: Indices
    grid: Indices
    first: Indices
    words: NDArray[np.uint64]
    areas: Indices


def pack(candidates: Candidates) -> Footprints:
    """Pack the positive logits of candidates."""
    return pack_crops(candidates.logits, candidates.origins, candidates.boxes)


def pack_crops(crops: Sequence[NDArray[Any]], origins: Indices, boxes: Indices) -> Footprints:
    """Pack what is positive (or True) in N crops of one grid.

    Parameters
    ----------
    crops
        N arrays (h, w).
    origins
        (N, 2), where each starts on the grid.
    boxes
        (N, 4), half-open, on the grid: the part of each crop that counts.
    """
    grid = boxes.copy()
    grid[:, 1] //= _BITS
    grid[:, 3] = -(-boxes[:, 3] // _BITS)
    sizes = (grid[:, 2:] - grid[:, :2]).prod(axis=1)
    first = np.cumsum(sizes) - sizes
    words = np.zeros(int(sizes.sum()), np.uint64)
    areas = np.zeros(len(boxes), np.intp)
    for index in _chunks((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)):
        _pack_some(crops[index], origins[index], boxes[index], index, grid, first, words, areas)
    return Footprints(boxes, grid, first, words, areas)


def _pack_some(
    values: Sequence[NDArray[Any]],
    origins: Indices,
    boxes: Indices,
    index: slice,
    grid: Indices,
    first: Indices,
    words: NDArray[np.uint64],
    areas: Indices,
) -> None:
    crops = []
    at = boxes - np.tile(origins, 2)
    for crop, (y0, x0, y1, x1) in zip(values, at.tolist(), strict=True):
        crops.append(crop[y0:y1, x0:x1].ravel())
    sizes = np.array([len(crop) for crop in crops], np.intp)
    on = np.flatnonzero(np.concatenate(crops) > 0)
    owner = np.searchsorted(np.cumsum(sizes), on, side="right")
    y, x = np.divmod(on - (np.cumsum(sizes) - sizes)[owner], (boxes[:, 3] - boxes[:, 1])[owner])
    x += boxes[owner, 1]
    wide = (grid[index, 3] - grid[index, 1])[owner]
    place = first[index][owner] + y * wide + x // _BITS - grid[index, 1][owner]
    bits = np.uint64(1) << (x % _BITS).astype(np.uint64)
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    if len(starts):
        words[place[starts]] = np.bitwise_or.reduceat(bits, starts)
    areas[index] = np.bincount(owner, minlength=len(boxes))


def near_pairs(boxes: NDArray[Any]) -> Pairs:
    """Find all pairs (i, j), i < j, of boxes that overlap.

    Parameters
    ----------
    boxes
        int (N, 4) as (y0, x0, y1, x1), half-open, not empty, nowhere negative.

    Returns
    -------
    i, j
        int (P,) each; every pair once, in no particular order.

    Examples
    --------
    >>> i, j = near_pairs(np.array([[0, 0, 4, 4], [9, 9, 12, 12], [2, 2, 10, 10]]))
    >>> sorted(zip(i.tolist(), j.tolist()))
    [(0, 2), (1, 2)]
    """
    if len(boxes) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.intp)
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    size = np.maximum(np.ceil(np.log2(side)), _SMALLEST_CELL).astype(np.intp)
    found = [_pairs_with(boxes, size, large) for large in np.unique(size)]
    first, second = (np.concatenate(part) for part in zip(*found, strict=True))
    return np.minimum(first, second), np.maximum(first, second)


def _pairs_with(boxes: NDArray[Any], size: Indices, large: int) -> Pairs:
    """Find the pairs of boxes of one size class with each other and with all smaller ones."""
    cell = 1 << int(large)
    members, seekers = np.flatnonzero(size == large), np.flatnonzero(size <= large)
    corners = boxes[members, :2] // cell
    across = int(corners[:, 1].max()) + 1
    key = corners[:, 0] * across + corners[:, 1]
    order = np.argsort(key, kind="stable")
    key, members = key[order], members[order]
    # A member is no larger than a cell, so its corner lies less than a cell before the seeker's box.
    low = np.maximum((boxes[seekers, :2] - cell + 1) // cell, 0)
    high = (boxes[seekers, 2:] - 1) // cell
    last = np.minimum(high[:, 1], across - 1)
    firsts, seconds = [], []
    for step in range(3):
        row = low[:, 0] + step
        start = np.searchsorted(key, row * across + low[:, 1])
        stop = np.searchsorted(key, row * across + last, side="right")
        counts = np.where((row <= high[:, 0]) & (low[:, 1] <= last), stop - start, 0)
        one = np.repeat(seekers, counts)
        other = members[spans(start, counts)]
        a, b = boxes[one], boxes[other]
        meet = (a[:, 0] < b[:, 2]) & (b[:, 0] < a[:, 2]) & (a[:, 1] < b[:, 3]) & (b[:, 1] < a[:, 3])
        meet &= (one < other) | (size[one] < large)
        firsts.append(one[meet])
        seconds.append(other[meet])
    return np.concatenate(firsts), np.concatenate(seconds)


def spans(starts: Indices, counts: Indices) -> Indices:
    """Join the ranges `[start, start + count)`."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.repeat(starts - before, counts) + np.arange(int(counts.sum())))


def count_shared(prints: Footprints, first: Indices, second: Indices) -> Indices:
    """Count the logits that candidates `first[p]` and `second[p]` share; their boxes must overlap."""
    shared = np.zeros(len(first), np.intp)
    for part, starts, one, other in meetings(prints, first, second):
        shared[part] = np.add.reduceat(count_bits(prints.words[one] & prints.words[other]), starts)
    return shared


def meetings(
    prints: Footprints, first: Indices, second: Indices
) -> Iterator[tuple[slice, Indices, Indices, Indices]]:
    """Go through the words in which the boxes of pairs overlap, a bounded number at once.

    Yields
    ------
    part, starts, one, other
        Which pairs; where each pair's words start in the next two; indices of words of the first and of the
        second candidate, equally long.
    """
    top = np.maximum(prints.grid[first, :2], prints.grid[second, :2])
    size = np.minimum(prints.grid[first, 2:], prints.grid[second, 2:]) - top
    for part in _chunks(size.prod(axis=1)):
        rows, wide = size[part, 0], size[part, 1]
        lines = np.repeat(np.arange(len(rows)), rows)
        row = top[part, 0][lines] + spans(np.zeros_like(rows), rows)
        each = wide[lines]
        indices = []
        for member in (first[part], second[part]):
            grid = prints.grid[member]
            start = prints.first[member] + top[part, 1] - grid[:, 1] - grid[:, 0] * (grid[:, 3] - grid[:, 1])
            indices.append(spans(start[lines] + row * (grid[:, 3] - grid[:, 1])[lines], each))
        words = rows * wide
        yield part, np.cumsum(words) - words, indices[0], indices[1]


def count_bits(words: NDArray[np.uint64]) -> Indices:
    """Count the ones in each word."""
    if hasattr(np, "bitwise_count"):  # NumPy 2
        return np.asarray(np.bitwise_count(words), np.intp)
    return np.asarray(_ONES[words.view(np.uint8)].reshape(-1, 8).sum(axis=1, dtype=np.intp))


def _chunks(sizes: Indices) -> Iterator[slice]:
    """Cut a list into runs whose sizes add up to about `_CHUNK`."""
    total = np.cumsum(sizes)
    begin = 0
    while begin < len(sizes):
        done = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _CHUNK, side="right")))
        yield slice(begin, end)
        begin = end
