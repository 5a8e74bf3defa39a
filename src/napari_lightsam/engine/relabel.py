"""An existing label image as proposals: its objects refined, or its nuclei grown to cells, ids kept.

Label images are read in strips, so that one on disk may be larger than memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage, spatial

from napari_lightsam.engine.given import as_array
from napari_lightsam.engine.masks import Mask, clean_object, crop_mask
from napari_lightsam.engine.prompts import NEGATIVE, PAD, POSITIVE
from napari_lightsam.engine.proposals import Proposals, check_ids, propose
from napari_lightsam.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_lightsam.engine.image import ArrayLike

_STRIP_PIXELS = 4_000_000

Use = Literal["box+point", "box", "point", "mask"]


def from_labels(labels: ArrayLike, use: Use = "box+point") -> Proposals:
    """Propose the objects of a label image, such as a result of Cellpose or StarDist, to refine them.

    Parameters
    ----------
    labels
        Integers (H, W), 0 for background. Of an object in several parts the largest is taken.
    use
        What the model is told of each object: its bounding box and innermost point, one of these, or its
        mask (with the box), which follows the given outline more closely.

    Returns
    -------
    Proposals
        With the ids of the label image.

    Raises
    ------
    PromptError
        If the array holds no integers, has not two axes, or has negative ids.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((40, 40), int)
    >>> labels[5:16, 10:21] = 7
    >>> found = from_labels(labels)
    >>> found.ids.tolist(), found.boxes.tolist(), found.points.tolist()
    ([7], [[5.0, 10.0, 16.0, 21.0]], [[[10.0, 15.0]]])
    """
    if use not in ("box+point", "box", "point", "mask"):
        raise PromptError(f"use must be box+point, box, point or mask; got {use!r}.")
    ids, masks = _objects(labels)
    boxes = np.array([mask.box for mask in masks], np.float64).reshape(-1, 4) if use != "point" else None
    points = None
    if use in ("box+point", "point"):
        points = np.array([mask.innermost for mask in masks]).reshape(-1, 1, 2)
    return propose(points, boxes=boxes, masks=tuple(masks) if use == "mask" else None, ids=ids)


def from_nuclei(nuclei: ArrayLike, neighbours: int = 0) -> Proposals:
    """Propose a cell around each nucleus of a label image; experimental.

    The middle of a cell's own nucleus lies inside it, and those of the nearest other nuclei outside. The
    object size of the run is that of the cells, not of the nuclei. Measured only on nuclei that were made
    up inside of labelled cells (`python -m benchmarks.nuclei`); on real ones it depends on the stain.

    Parameters
    ----------
    nuclei
        Integers (H, W), 0 for background.
    neighbours
        How many of the nearest other nuclei are told to lie outside. None by default: the embedded model
        finds cells better without, for it met points outside only as corrections.

    Returns
    -------
    Proposals
        With the ids of the nuclei.

    Raises
    ------
    PromptError
        If the array holds no integers, has not two axes, or has negative ids.
    """
    ids, masks = _objects(nuclei)
    middles = np.array([mask.innermost for mask in masks]).reshape(-1, 2)
    count = max(0, min(neighbours, len(ids) - 1))
    points = middles[:, None]
    if count:
        near = spatial.KDTree(middles).query(middles, k=count + 1)[1][:, 1:]
        points = np.concatenate([points, middles[near]], axis=1)
    labels = np.full(points.shape[:2], NEGATIVE, np.intp)
    labels[:, :1] = POSITIVE
    # Two labels may share a middle, then a cell's own one comes back as its neighbour.
    labels[:, 1:][(points[:, 1:] == points[:, :1]).all(axis=2)] = PAD
    return propose(points, labels, ids=ids)


def _objects(labels: ArrayLike) -> tuple[NDArray[np.intp], list[Mask]]:
    """Return the ids of a label image, rising, and the largest part of each object."""
    labels = as_array(labels)
    dtype, shape = np.dtype(labels.dtype), tuple(labels.shape)
    if dtype.kind not in "ui" or len(shape) != 2:
        raise PromptError(f"A label image holds integers (height, width); got {dtype} of shape {shape}.")
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for ids, found in _boxes(labels):
        for name, box in zip(ids, found, strict=True):
            old = boxes.get(name, box)
            boxes[name] = (
                min(old[0], box[0]), min(old[1], box[1]), max(old[2], box[2]), max(old[3], box[3])
            )  # fmt: skip
    ids = sorted(boxes)
    masks = []
    for name in ids:
        y0, x0, y1, x1 = boxes[name]
        part = np.asarray(labels[y0:y1, x0:x1]) == name
        masks.append(crop_mask(clean_object(part), (y0, x0)))
    return check_ids(np.array(ids, dtype)), masks


def _boxes(labels: ArrayLike) -> Iterator[tuple[list[int], list[tuple[int, int, int, int]]]]:
    """Yield, for each strip of rows, the ids in it and their boxes."""
    height, width = labels.shape
    rows = max(1, _STRIP_PIXELS // width)
    for y in range(0, height, rows):
        strip = np.asarray(labels[y : min(y + rows, height), 0:width])
        ids, places = np.unique(strip, return_inverse=True)
        # The numbers from 1 on stand for the ids, so that large ids cost nothing.
        numbers = np.where(strip == 0, 0, places.reshape(strip.shape) + 1)
        found = ndimage.find_objects(numbers)
        present = [(int(i), parts) for i, parts in zip(ids, found, strict=False) if parts is not None]
        yield (
            [i for i, _ in present],
            [(y + a.start, b.start, y + a.stop, b.stop) for _, (a, b) in present],
        )
