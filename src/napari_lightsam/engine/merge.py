"""Masks into one label image: deterministic, one connected object a label, nothing thin left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.masks import Mask, clean_object

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_LEAST_LEFT = 0.5  # of a mask that earlier objects overlap
_SQUARE = np.ones((3, 3), bool)


def paint(
    masks: Iterable[Mask], shape: tuple[int, int], *, min_area: float = 1.0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Paint masks into a label image, earlier ones on top.

    Parameters
    ----------
    masks
        Best first; each is reduced to one 8-connected object without small holes.
    shape
        (H, W).
    min_area
        Objects of fewer pixels are left out.

    Returns
    -------
    labels, scores
        int32 (H, W) with ids 1..n in painting order, 0 for background; float32 (n,), predicted IoU.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam.engine.masks import crop_mask
    >>> labels, scores = paint([crop_mask(np.ones((2, 2), bool))], (3, 3))
    >>> labels.tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    labels = np.zeros(shape, np.int32)
    scores: list[float] = []
    for mask in masks:
        whole = mask.cleaned()
        y0, x0, y1, x1 = whole.box
        target = labels[y0:y1, x0:x1]
        free = whole.crop & (target == 0)
        if whole.area and np.count_nonzero(free) < whole.area:
            free = _remainder(free)
        left = np.count_nonzero(free)
        if left < max(min_area, 1) or left < _LEAST_LEFT * whole.area:
            continue
        scores.append(mask.iou)
        target[free] = len(scores)
    return labels, np.asarray(scores, np.float32)


def _remainder(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is left of an overlapped mask: without rings and slivers one or two pixels wide."""
    opened = ndimage.binary_opening(np.pad(free, 1), _SQUARE)[1:-1, 1:-1]
    if not opened.any():
        return np.zeros_like(free)
    left = clean_object(opened) & free
    parts, count = ndimage.label(left, _SQUARE)
    if count > 1:  # free pixels inside an object that lies in a filled hole
        left = parts == int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return np.asarray(left)
