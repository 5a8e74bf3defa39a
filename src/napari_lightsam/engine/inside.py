"""Objects of a drawn region: those that lie in it by half or more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray


def paint_polygons(polygons: Iterable[ArrayLike], box: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Return which pixels of a box lie in any of some polygons.

    Parameters
    ----------
    polygons
        Corners (n, 2) of each, (row, column) in pixels of the plane; pixel centres are whole numbers.
    box
        (y0, x0, y1, x1), half-open.

    Returns
    -------
    bool (y1 - y0, x1 - x0)
        A pixel is inside when its centre is.

    Examples
    --------
    >>> paint_polygons([[(0, 0), (0, 2), (2, 2), (2, 0)]], (1, 1, 4, 4)).sum()
    np.int64(4)
    """
    from skimage.draw import polygon

    y0, x0, y1, x1 = box
    inside = np.zeros((y1 - y0, x1 - x0), bool)
    for corners in polygons:
        rows, columns = (np.asarray(corners, float) - (y0, x0)).T
        inside[polygon(rows, columns, inside.shape)] = True  # type: ignore[no-untyped-call]
    return inside


def keep_inside(
    labels: NDArray[np.int32],
    ids: NDArray[np.intp],
    scores: NDArray[Any],
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.int32], NDArray[np.intp], NDArray[Any]]:
    """Drop the objects that lie outside by more than half.

    Parameters
    ----------
    labels
        int32 (H, W).
    ids, scores
        (N,), the labels that occur, rising, and the score of each.
    inside
        bool (H, W).

    Returns
    -------
    labels, ids, scores
        Of what is left, numbered anew from 1 where it was numbered so before.

    Examples
    --------
    >>> labels = np.array([[1, 1, 0, 2]], np.int32)
    >>> inside = np.array([[False, False, True, True]])
    >>> left, ids, scores = keep_inside(labels, np.array([1, 2]), np.array([0.5, 0.9]), inside)
    >>> left.tolist(), ids.tolist(), scores.tolist()
    ([[0, 0, 0, 1]], [1], [0.9])
    """
    # Places among the ids stand for these, so that large ids cost nothing; 0 is the background.
    places = np.searchsorted(ids, labels, side="right")
    whole = np.bincount(places.ravel(), minlength=len(ids) + 1)[1:]
    kept = 2 * np.bincount(places[inside], minlength=len(ids) + 1)[1:] >= whole
    numbered = np.array_equal(ids, np.arange(1, len(ids) + 1))
    new = np.arange(1, np.count_nonzero(kept) + 1) if numbered else ids[kept]
    table = np.zeros(len(ids) + 1, np.int32)
    table[1:][kept] = new
    return table[places], new, scores[kept]
