"""Outlines of what a run of everything mode has found so far; drawn by the worker, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_lightsam.engine.merge import Piece
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.scope import Region

T = TypeVar("T")

_SIDE = 1000  # pixels of a region for each pixel of a line's width: it shows where all of the region does
_WIDEST = 4
_SPARED = 8  # a line is at most this part as wide as its object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlined(Progress):
    """A step with the outlines of the objects that it added.

    Attributes
    ----------
    rows, columns
        int (N,), the pixels of the outlines in the region.
    plane
        Position along the axis of a stack; 0 for a single plane.
    count
        Objects until now, in this plane.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    plane: int
    count: int


def outlined(
    work: Work[T], region: Region, inside: NDArray[np.bool_] | None = None, *, stack: bool = False
) -> Work[T]:
    """Go through a run, and outline what each of its steps found; the result is the run's own.

    Parameters
    ----------
    work
        The run.
    region
        The part of the plane that it segments.
    inside
        bool (h, w) of the region: objects that lie outside by more than half are left out; None: none are.
    stack
        Progress counts planes; each is outlined by itself.
    """
    from napari_lightsam.engine.found import FirstChoice

    y0, x0, y1, x1 = region
    width = min(max(1, round(max(y1 - y0, x1 - x0) / _SIDE)), _WIDEST)
    choice, plane, count = FirstChoice(), 0, 0
    try:
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if stack and step.done != plane:
                choice, plane, count = FirstChoice(), step.done, 0
            new = [] if step.found is None else [p for p in choice.add(step.found) if _lies_in(p, inside)]
            count += len(new)
            if new:
                rows, columns = _edges(new, width)
                yield Outlined(
                    step.stage, step.done, step.total, rows=rows, columns=columns, plane=plane, count=count
                )
            else:
                yield Progress(step.stage, step.done, step.total)
    finally:
        work.close()


def _lies_in(piece: Piece, inside: NDArray[np.bool_] | None) -> bool:
    if inside is None:
        return True
    y0, x0, y1, x1 = piece.box
    return bool(2 * np.count_nonzero(inside[y0:y1, x0:x1] & piece.crop()) >= piece.area)


def _edges(pieces: Sequence[Piece], width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the outermost pixels of objects, as rows and columns."""
    rows, columns = [], []
    for piece in pieces:
        crop = piece.crop()
        thin = max(1, min(width, min(crop.shape) // _SPARED))
        y, x = np.nonzero(crop & ~ndimage.binary_erosion(crop, iterations=thin))
        rows.append(y + piece.box[0])
        columns.append(x + piece.box[1])
    return np.concatenate(rows), np.concatenate(columns)
