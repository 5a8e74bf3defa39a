"""Which candidates become objects: pure functions over `Candidates`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_lightsam.engine.candidates import Candidates

_BACKGROUND_FRACTION = 0.5  # of the plane
_BACKGROUND_BORDERS = 2
_CONTAINED = 0.8  # an object lies inside a candidate when this part of it does

Indices = NDArray[np.intp]


def plausible(
    candidates: Candidates,
    *,
    iou_threshold: float = 0.0,
    stability_threshold: float = 0.0,
    min_size: float = 0.0,
    max_size: float = np.inf,
    keep_border: bool = True,
) -> NDArray[np.bool_]:
    """Tell which candidates pass all thresholds and are no background.

    Parameters
    ----------
    candidates
        N candidates.
    iou_threshold, stability_threshold
        Least scores.
    min_size, max_size
        Diameters in image pixels.
    keep_border
        Keep masks that touch the image border.

    Returns
    -------
    bool (N,)
        A mask over half the plane that touches two or more borders is background; an object is never
        dropped for being large alone.
    """
    limit = np.asarray(candidates.level.logit_shape)
    borders = (candidates.boxes[:, :2] <= 0).sum(axis=1) + (candidates.boxes[:, 2:] >= limit).sum(axis=1)
    plane = candidates.level.shape[0] * candidates.level.shape[1]
    background = (candidates.areas > _BACKGROUND_FRACTION * plane) & (borders >= _BACKGROUND_BORDERS)
    diameters = candidates.diameters
    passed = (
        (candidates.iou >= iou_threshold)
        & (candidates.stability >= stability_threshold)
        & (diameters >= min_size)
        & (diameters <= max_size)
        & ~background
    )
    return np.asarray(passed if keep_border else passed & (borders == 0))


def suppress(candidates: Candidates, quality: NDArray[np.float32], overlap: float) -> Indices:
    """Choose candidates that do not cover each other, best first.

    Parameters
    ----------
    candidates
        N candidates.
    quality
        (N,), higher is better.
    overlap
        A candidate is dropped when better ones cover more than this part of it, or when a better one
        lies inside it: it is a crowd, or would be left as a ring.

    Returns
    -------
    int (K,)
        Indices in the order they were chosen.
    """
    taken = np.full(candidates.level.logit_shape, -1, np.int32)
    areas = [int(np.count_nonzero(crop > 0)) for crop in candidates.logits]
    chosen: list[int] = []
    for i in np.argsort(-quality, kind="stable"):
        y, x = candidates.origins[i]
        inside = candidates.logits[i] > 0
        part = taken[y : y + inside.shape[0], x : x + inside.shape[1]]
        inside = inside[: part.shape[0], : part.shape[1]]
        met, counts = np.unique(part[inside], return_counts=True)
        met, counts = met[met >= 0], counts[met >= 0]
        if counts.sum() > overlap * areas[i]:
            continue
        if any(c >= _CONTAINED * areas[m] for m, c in zip(met, counts, strict=True)):
            continue
        part[inside & (part < 0)] = i
        chosen.append(int(i))
    return np.asarray(chosen, np.intp)


def box_nms(boxes: NDArray[np.float64], scores: NDArray[np.float32], threshold: float) -> Indices:
    """Greedy non-maximum suppression by box IoU.

    Parameters
    ----------
    boxes
        (N, 4) as (y0, x0, y1, x1).
    scores
        (N,).
    threshold
        A box that overlaps a better one by more is dropped.

    Returns
    -------
    int (K,)
        Kept indices, best first.
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        union = area[best] + area[rest] - shared
        order = rest[shared <= threshold * union]
    return np.asarray(kept, np.intp)
