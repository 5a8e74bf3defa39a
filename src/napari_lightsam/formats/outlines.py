"""Outlines of objects along the edges of their pixels: exact in area, with holes, for any number at once.

Pixels of one id that share an edge are one part of the object; pixels that meet only at a corner belong to
different parts. Each part is one polygon: an outer ring and a ring for every hole. All rings are simple:
where the background inside meets that outside only at a corner, the rings touch in a point and do not cross.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Indices = NDArray[np.int64]

_BAND = 1 << 24  # pixels looked at together; bounds the temporary arrays


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Polygons of all objects of a plane, objects in rising order of their ids.

    A pixel (row, column) covers [row, row + 1) x [column, column + 1); corners are whole numbers.

    Attributes
    ----------
    points
        (N, 2) corners (row, column), ring after ring; only where the outline turns, the first not repeated.
    rings
        (R + 1,) where each ring begins in `points`.
    parts
        (P + 1,) where each part begins in `rings`: first its outer ring, then its holes.
    ids
        (P,) id of the object that each part belongs to, rising.

    Notes
    -----
    With x to the right and y as second coordinate, outer rings are counter-clockwise in the sense of
    RFC 7946 (positive by the shoelace formula), holes clockwise.
    """

    points: NDArray[np.int32]
    rings: Indices
    parts: Indices
    ids: Indices

    def objects(self) -> Iterator[tuple[int, list[list[NDArray[np.int32]]]]]:
        """Give every object's id and its parts, each a list of rings (n, 2)."""
        rings = self.rings.tolist()
        parts = self.parts.tolist()
        current: list[list[NDArray[np.int32]]] = []
        ids = self.ids.tolist()
        for i, label in enumerate(ids):
            part = range(parts[i], parts[i + 1])
            current.append([self.points[rings[r] : rings[r + 1]] for r in part])
            if i + 1 == len(ids) or ids[i + 1] != label:
                yield label, current
                current = []

    def areas(self) -> Indices:
        """Area of each part in pixels, holes taken off; exact."""
        y, x = self.points[:, 0].astype(np.int64), self.points[:, 1].astype(np.int64)
        following = np.arange(1, len(self.points) + 1)
        following[self.rings[1:] - 1] = self.rings[:-1]
        doubled = x * y[following] - x[following] * y
        starts = self.rings[self.parts[:-1]]
        return np.add.reduceat(doubled, starts) // 2 if len(starts) else np.zeros(0, np.int64)


def trace_outlines(labels: NDArray[Any], origin: tuple[int, int] = (0, 0)) -> Outlines:
    """Trace every object of a label image.

    Parameters
    ----------
    labels
        (H, W) integers, 0 is background.
    origin
        (row, column) of the first pixel, where the labels are a part of a larger image.

    Raises
    ------
    ImageError
        No plane of integers.

    Examples
    --------
    >>> ring = np.pad(np.array([[7, 7, 7], [7, 0, 7], [7, 7, 7]]), 1)
    >>> outlines = trace_outlines(ring)
    >>> outlines.ids.tolist(), outlines.areas().tolist()
    ([7], [8])
    >>> [ring.tolist() for ring in next(outlines.objects())[1][0]]
    [[[1, 1], [1, 4], [4, 4], [4, 1]], [[2, 2], [3, 2], [3, 3], [2, 3]]]
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ImageError(f"Labels are a 2-D array of integers; given: shape {labels.shape}, {labels.dtype}.")
    components, ids = _split(labels)
    rank = np.empty(len(ids) + 1, np.int64)
    order = np.argsort(ids, kind="stable")
    rank[order + 1] = np.arange(len(ids))
    corners = _find_corners(components)
    corners.part[:] = rank[corners.part]
    del components
    found = _join(corners, ids[order], labels.shape)
    return found if origin == (0, 0) else replace(found, points=found.points + np.array(origin, np.int32))


def _split(labels: NDArray[Any]) -> tuple[NDArray[Any], Indices]:
    """Find the parts, numbered from 1, and the id of the object that each belongs to."""
    from skimage.measure import label as connect

    number: Callable[..., NDArray[Any]] = connect
    components = number(labels, connectivity=1, background=0)
    ids = np.zeros(int(components.max(initial=0)) + 1, np.int64)
    ids[components.ravel()] = labels.ravel()
    return components, ids[1:]


@dataclass(slots=True)
class _Corners:
    """Where outlines turn.

    The outline of `part` comes to (row, column) along one axis and leaves along the other: one of its edges
    there goes `right` or left, the other `down` or up, and it `leaves` along the row or else the column.
    """

    part: Indices
    row: Indices
    column: Indices
    right: NDArray[np.bool_]
    down: NDArray[np.bool_]
    leaves: NDArray[np.bool_]


def _find_corners(components: NDArray[Any]) -> _Corners:
    """Look at the four pixels around every corner of the pixel grid, band by band."""
    height, width = components.shape
    step = max(1, _BAND // (width + 2))
    found: list[tuple[NDArray[Any], ...]] = []
    for first in range(0, height + 1, step):
        last = min(first + step, height + 1)
        band = np.zeros((last - first + 1, width + 2), components.dtype)
        top, bottom = max(first - 1, 0), min(last, height)
        band[top - first + 1 : bottom - first + 1, 1:-1] = components[top:bottom]
        found += _corners_of_band(band, first)
    return _Corners(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _corners_of_band(band: NDArray[Any], first: int) -> Iterator[tuple[NDArray[Any], ...]]:
    north, south = band[:-1], band[1:]
    turns = north[:, :-1] != north[:, 1:]
    turns |= south[:, :-1] != south[:, 1:]
    turns &= (north[:, :-1] != south[:, :-1]) | (north[:, 1:] != south[:, 1:])
    row, column = np.nonzero(turns)
    nw, ne, sw, se = (p[row, c] for p in (north, south) for c in (column, column + 1))
    for own, beside, over, across, right, down in (
        (se, sw, ne, nw, True, True),
        (sw, se, nw, ne, False, True),
        (nw, ne, sw, se, False, False),
        (ne, nw, se, sw, True, False),
    ):
        # A pixel that sticks out: its own corner. One that is cut out of its neighbours: theirs, around it.
        # So a background that meets itself only at a corner is cut there, and no ring touches itself.
        out = (own > 0) & (own != beside) & (own != over) & (own != across)
        cut = (beside > 0) & (beside == over) & (own != beside)
        for which, part, leaves in ((out, own, right == down), (cut, beside, right != down)):
            i = np.nonzero(which)[0]
            flags = (np.full(len(i), flag) for flag in (right, down, leaves))
            yield part[i].astype(np.int64), row[i] + first, column[i], *flags


def _join(corners: _Corners, ids: Indices, shape: tuple[int, ...]) -> Outlines:
    """Join corners to rings: along every row, and along every column, a part's corners come in pairs."""
    height, width = shape[0] + 1, shape[1] + 1
    order = np.argsort(((corners.part * height + corners.row) * width + corners.column) * 2 + corners.right)
    part, row, column = corners.part[order], corners.row[order], corners.column[order]
    down, leaves = corners.down[order], corners.leaves[order]
    index = np.arange(len(order))
    upright = np.argsort(((part * width + column) * height + row) * 2 + down)
    vertical = np.empty_like(index)
    vertical[upright] = upright[index ^ 1]
    leader, left = _follow(np.where(leaves, index ^ 1, vertical))
    heads = np.nonzero(leader == index)[0]  # outer rings first: theirs is the part's topmost corner
    ring = np.empty_like(index)
    ring[heads] = np.arange(len(heads))
    ring = ring[leader]
    lengths = np.bincount(ring, minlength=len(heads))
    rings = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    place = rings[ring] + (lengths[ring] - left) % np.maximum(lengths[ring], 1)
    points = np.empty((len(index), 2), np.int32)
    points[place, 0], points[place, 1] = row, column
    parts = np.searchsorted(part[heads], np.arange(len(ids) + 1)).astype(np.int64)
    return Outlines(points, rings, parts, ids)


def _follow(after: Indices) -> tuple[Indices, Indices]:
    """Lowest index of the ring that each corner lies in, and the number of steps until that is reached.

    Every pass doubles the reach of a step, so that the longest ring costs its logarithm.
    """
    leader = np.arange(len(after))
    jump = after
    while True:
        lower = np.minimum(leader, leader[jump])
        if np.array_equal(lower, leader):
            break
        leader, jump = lower, jump[jump]
    here = np.arange(len(after))
    steps = (leader != here).astype(np.int64)
    jump = np.where(steps > 0, after, here)
    while not np.array_equal(jump, leader):
        steps, jump = steps + steps[jump], jump[jump]
    return leader, steps
