"""Label images from outlines: the way back from files of other programs.

A pixel belongs to an outline when its centre lies inside, by the even-odd rule; so outlines that run along
the edges of pixels give exactly the pixels they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.objects import LARGEST_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from napari_lightsam.formats.layout import Layout

    Indices = NDArray[np.int64]

MOST_PIXELS = 1 << 30
"""Label images that a file asks for are refused beyond this size; it is 4 GiB."""

_LARGEST_INT = 2**31 - 1
_FARTHEST = 1e9  # pixels; beyond it a number is no coordinate
_BATCH = 1 << 21  # crossings and pixels handled together
_MOST_CORNERS = 1 << 26  # of all outlines: some 5 GiB while they are drawn; a small zip can hold many more
_MOST_CROSSINGS = 20_000_000  # of one object: memory is bounded, and no real outline comes near
_ALL_CROSSINGS = 1 << 28  # of all objects together, and
_LAYERS, _PAINTED = 8, 1 << 28  # times the image, or pixels, that are painted: so much takes some seconds


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """An object in one plane as a file holds it.

    Attributes
    ----------
    name
        As in the file; a whole number from 1 is the object's id.
    rings
        Closed outlines, each (n, 2) corners (row, column); the first is not repeated.
    t, z
        Time point and plane from 0.
    """

    name: str
    rings: Sequence[NDArray[np.float64]]
    t: int = 0
    z: int = 0


def number_objects(drawn: Sequence[Drawn]) -> Indices:
    """Give every object its id.

    A name that is a number is kept, in several planes too; a name that a plane has twice, and every other
    name, gets the next free number.

    Examples
    --------
    >>> number_objects([Drawn("4", []), Drawn("nucleus", []), Drawn("4", []), Drawn("4", [], z=1)]).tolist()
    [4, 5, 6, 4]
    """
    ids = np.zeros(len(drawn), np.int64)
    taken = set()
    for i, one in enumerate(drawn):
        number = int(one.name) if one.name.isascii() and one.name.isdigit() and len(one.name) <= 10 else 0
        if 0 < number <= LARGEST_ID and (number, one.t, one.z) not in taken:
            taken.add((number, one.t, one.z))
            ids[i] = number
    free = np.nonzero(ids == 0)[0]
    first = int(ids.max(initial=0)) + 1
    new = np.arange(first, first + len(free))
    if first + len(free) > _LARGEST_INT:  # no room above: those below that are not in use
        new = np.setdiff1d(np.arange(1, len(drawn) + len(free) + 1), ids)[: len(free)]
    ids[free] = new
    return ids


def used_axes(shape: Sequence[int], layout: Layout) -> tuple[str, list[int]]:
    """Return the axes of a shape (T, Z, H, W), and their lengths, without a T or Z of one that none tells."""
    axes = "T" * (shape[0] > 1 or layout.t is not None) + "Z" * (shape[1] > 1 or layout.z is not None) + "YX"
    return axes, [n for n, axis in zip(shape, "TZYX", strict=True) if axis in axes]


def find_shape(
    path: Path, drawn: Sequence[Drawn], layout: Layout, plane: tuple[int, int] | None = None
) -> tuple[int, ...]:
    """Shape of the label image: as the file tells it, else as far as the outlines reach.

    Parameters
    ----------
    path
        The file, for messages.
    drawn
        What it holds.
    layout
        What the file tells.
    plane
        (H, W) instead, or None.

    Returns
    -------
    shape
        (T, Z, H, W).

    Raises
    ------
    FileError
        Coordinates that are no pixels, or more corners or pixels than fit into memory.
    """
    count = sum(len(ring) for one in drawn for ring in one.rings)
    if count > _MOST_CORNERS:
        raise FileError(
            f"{path} has outlines of {count:,} corners; at most {_MOST_CORNERS:,} are read. Save it in parts."
        )
    corners, _, owner = _gather(drawn)
    wrong = ~(np.isfinite(corners).all(axis=1) & (np.abs(corners) <= _FARTHEST).all(axis=1))
    if wrong.any():
        name = drawn[owner[np.argmax(wrong)]].name
        raise FileError(f"{path}: the object {name!r} has coordinates that are no pixels.")
    reach = np.ceil(corners.max(axis=0, initial=1)).astype(int)
    height, width = plane or layout.plane or (int(reach[0]), int(reach[1]))
    t, z = (
        max(told or 1, 1 + max((getattr(one, axis) for one in drawn), default=0))
        for axis, told in (("t", layout.t), ("z", layout.z))
    )
    if t * z * height * width > MOST_PIXELS:
        raise FileError(
            f"{path} asks for labels of {t} x {z} x {height:,} x {width:,} pixels; at most {MOST_PIXELS:,} "
            "are made. Crop the image, or export fewer planes."
        )
    return t, z, height, width


def fill_outlines(path: Path, drawn: Sequence[Drawn], ids: Indices, shape: tuple[int, ...]) -> NDArray[Any]:
    """Draw objects into a label image; where they overlap, later ones lie over earlier ones.

    Parameters
    ----------
    path
        The file, for messages.
    drawn, ids
        Objects and their ids.
    shape
        (T, Z, H, W); what lies outside is cut off.

    Returns
    -------
    labels
        int32 of that shape, or uint32 where an id needs it.

    Raises
    ------
    FileError
        An outline of absurd length, or objects that lie over each other without end: a small file could keep
        a machine busy for days.
    """
    labels = np.zeros(shape, np.int32 if ids.max(initial=0) <= _LARGEST_INT else np.uint32)
    flat = labels.reshape(-1)
    places = np.array([one.t * shape[1] + one.z for one in drawn], np.int64)
    upper, lower, owner = _edges(drawn)
    rows = np.clip(lower[:, 0], 0, shape[2]) - np.clip(upper[:, 0], 0, shape[2])
    crossings = np.bincount(owner, rows + 1, minlength=len(drawn))
    if crossings.max(initial=0) > _MOST_CROSSINGS:
        name = drawn[int(np.argmax(crossings))].name
        raise FileError(f"{path}: the outline of the object {name!r} is too long to be one.")
    if crossings.sum() > _ALL_CROSSINGS:
        raise FileError(f"{path} has outlines of absurd length. Save it in parts.")
    ends = np.cumsum(crossings)
    room = max(_LAYERS * labels.size, _PAINTED)
    first = 0
    while first < len(drawn):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] - crossings[first] + _BATCH)))
        part = slice(*np.searchsorted(owner, [first, last]))
        starts, lengths, owners = _runs(upper[part], lower[part], owner[part], places, shape)
        room -= int(lengths.sum())
        if room < 0:
            raise FileError(
                f"{path}: its objects cover the image more than {_LAYERS} times over; labels hold one layer. "
                "Save them in parts."
            )
        _paint(flat, starts, lengths, ids[owners].astype(labels.dtype))
        first = last
    return labels


def _paint(flat: NDArray[Any], starts: Indices, lengths: Indices, values: NDArray[Any]) -> None:
    """Set runs of pixels, some at a time; later ones over earlier ones."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        last = max(first + 1, int(np.searchsorted(ends, ends[first] - lengths[first] + _BATCH)))
        n = lengths[first:last]
        offset = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        flat[np.repeat(starts[first:last], n) + offset] = np.repeat(values[first:last], n)
        first = last


def _gather(drawn: Sequence[Drawn]) -> tuple[NDArray[np.float64], Indices, Indices]:
    """Put all corners into one array; with the length of each ring, and the object of each corner."""
    rings = [(i, ring) for i, one in enumerate(drawn) for ring in one.rings if len(ring)]
    if not rings:
        return np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.int64)
    count = np.array([len(ring) for _, ring in rings])
    return np.concatenate([ring for _, ring in rings]), count, np.repeat([i for i, _ in rings], count)


def _edges(drawn: Sequence[Drawn]) -> tuple[NDArray[np.float64], NDArray[np.float64], Indices]:
    """Upper and lower end of every edge, and its object; in the order of the objects."""
    corners, count, owner = _gather(drawn)
    following = np.arange(1, len(corners) + 1)
    following[np.cumsum(count) - 1] = np.cumsum(count) - count
    swap = (corners[:, 0] > corners[following, 0])[:, None]
    return (
        np.where(swap, corners[following], corners),
        np.where(swap, corners, corners[following]),
        owner,
    )


def _runs(
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    owner: Indices,
    places: Indices,
    shape: tuple[int, ...],
) -> tuple[Indices, Indices, Indices]:
    """Find the runs of pixels inside, by start in the flat array, length and object."""
    height, width = shape[2:]
    # The rows whose centres an edge crosses, its upper end included: every ring crosses each evenly often.
    first = np.ceil(np.clip(upper[:, 0], 0, height) - 0.5).astype(np.int64)
    n = np.ceil(np.clip(lower[:, 0], 0, height) - 0.5).astype(np.int64) - first
    edge = np.repeat(np.arange(len(n)), n)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(n) - n, n)
    (y0, x0), (y1, x1) = upper[edge].T, lower[edge].T
    x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    column = np.ceil(np.clip(x, 0, width) - 0.5).astype(np.int64)
    key = np.sort((owner[edge] * height + row) * (width + 1) + column)
    begin, end = key[0::2], key[1::2]
    line, start = np.divmod(begin, width + 1)
    which, line = np.divmod(line, height)
    start = (places[which] * height + line) * width + start
    inside = end > begin
    return start[inside], (end - begin)[inside], which[inside]
