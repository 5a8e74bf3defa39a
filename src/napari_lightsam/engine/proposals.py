"""Where objects probably are, from whatever knows: the model, points, boxes, label images, any function.

Zhang et al., *MobileSAMv2*, arXiv 2312.09579, prompt only where a detector proposes an object. Here the
detector can be the model's own proposal head (`from_head`), the user's points and boxes, another program's
label image (`napari_lightsam.engine.relabel`), or any callable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.given import as_array
from napari_lightsam.engine.prompts import NEGATIVE, PAD, POSITIVE, Prompts, check_prompts
from napari_lightsam.engine.select import box_nms
from napari_lightsam.errors import PromptError
from napari_lightsam.model.spec import PROPOSAL_STRIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from napari_lightsam.engine.image import ArrayLike as ImageArray
    from napari_lightsam.engine.level import Block, Level
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.resample import FloatArray

_SAME_BOX = 0.7  # boxes that overlap by more (IoU) are one object
_LARGEST_ID = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """Prompts of N objects that are probably there, in image pixels.

    Attributes
    ----------
    points
        float (N, P, 2) as (row, column); P may be 0.
    labels
        int (N, P): 1 positive, 0 negative, -1 padding.
    boxes
        float (N, 4) as (y0, x0, y1, x1), half-open, or None.
    masks
        N masks, or None.
    ids
        int (N,), labels to be kept in the result, each positive and used once; or None.
    scores
        float (N,), higher is surer. Surer objects are asked for first.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.intp]
    boxes: NDArray[np.float64] | None
    masks: tuple[Mask, ...] | None
    ids: NDArray[np.intp] | None
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.points)

    def prompts(self) -> Prompts:
        """Return what the decoder is asked."""
        return Prompts(self.points, self.labels, self.boxes, self.masks)

    @property
    def object_size(self) -> float | None:
        """Typical diameter in pixels that boxes or masks tell; None where there are only points."""
        sizes = self.prompts().sizes()
        sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
        return float(np.median(sizes)) if len(sizes) else None

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Proposals:
        """Return the chosen objects."""
        chosen = np.arange(len(self))[index]
        part = self.prompts().take(chosen)
        ids = None if self.ids is None else self.ids[chosen]
        return Proposals(part.points, part.labels, part.boxes, part.masks, ids, self.scores[chosen])


Source: TypeAlias = "Proposals | ArrayLike | Callable[[Any], Any]"
"""What `segment_everything(..., proposals=...)` takes; see `as_proposals`."""


def propose(
    points: NDArray[np.float64] | None = None,
    labels: NDArray[np.intp] | None = None,
    boxes: NDArray[np.float64] | None = None,
    masks: tuple[Mask, ...] | None = None,
    ids: NDArray[np.intp] | None = None,
    scores: NDArray[np.float64] | None = None,
) -> Proposals:
    """Fill in what is missing: no points, positive labels, a score of 1."""
    n = next((len(given) for given in (points, boxes, masks) if given is not None), 0)
    if points is None:
        points = np.zeros((n, 0, 2))
    if labels is None:
        labels = np.full(points.shape[:2], POSITIVE, np.intp)
    return Proposals(points, labels, boxes, masks, ids, np.ones(n) if scores is None else scores)


def from_points(
    points: ArrayLike, objects: ArrayLike | None = None, labels: ArrayLike | None = None
) -> Proposals:
    """Propose an object at each point, or one for all points that share an id.

    Parameters
    ----------
    points
        (K, 2) as (row, column) in image pixels.
    objects
        int (K,): which object each point belongs to. These ids are kept in the result.
    labels
        (K,): 1 for a point inside its object, 0 for one outside; 1 by default.

    Raises
    ------
    PromptError
        If shapes differ, or an object has no point inside.

    Examples
    --------
    >>> from_points([(10, 10), (40, 42)]).points.shape
    (2, 1, 2)
    >>> from_points([(10, 10), (40, 42), (12, 9)], objects=[7, 5, 7]).ids.tolist()
    [5, 7]
    """
    given = np.asarray(points, np.float64)
    if given.size == 0:
        given = given.reshape(0, 2)
    if given.ndim != 2 or given.shape[1] != 2:
        raise PromptError(f"Points must be (K, 2) as (row, column); got an array of shape {given.shape}.")
    signs = np.full(len(given), POSITIVE, np.intp) if labels is None else np.asarray(labels, np.intp)
    groups = np.arange(len(given)) if objects is None else np.asarray(objects)
    if signs.shape != (len(given),) or groups.shape != (len(given),):
        raise PromptError(
            f"{len(given)} points need as many labels and objects; got {signs.shape} and {groups.shape}."
        )
    ids, owner = np.unique(groups, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=len(ids))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    grouped = np.zeros((len(ids), int(counts.max(initial=1)), 2))
    padded = np.full(grouped.shape[:2], PAD, np.intp)
    grouped[owner[order], place] = given[order]
    padded[owner[order], place] = signs[order]
    lost = ids[~(padded == POSITIVE).any(axis=1)]
    if len(lost):
        raise PromptError(f"Object {lost[0]} has no point inside it (label 1); give it at least one.")
    return propose(grouped, padded, ids=None if objects is None else check_ids(ids))


def from_boxes(boxes: ArrayLike, ids: ArrayLike | None = None) -> Proposals:
    """Propose an object in each box, such as the rectangles of a Shapes layer.

    Parameters
    ----------
    boxes
        (N, 4) as (y0, x0, y1, x1) in image pixels, half-open.
    ids
        int (N,), labels that are kept in the result.

    Raises
    ------
    PromptError
        If the shape is another one, or ids are not positive or not different.

    Examples
    --------
    >>> len(from_boxes([(0, 0, 20, 30), (40, 40, 60, 60)]))
    2
    """
    given = np.asarray(boxes, np.float64)
    if given.size == 0:
        given = given.reshape(0, 4)
    if given.ndim != 2 or given.shape[1] != 4:
        raise PromptError(f"Boxes must be (N, 4) as (y0, x0, y1, x1); got an array of shape {given.shape}.")
    return propose(boxes=given, ids=None if ids is None else check_ids(ids, len(given)))


def from_head(heat: FloatArray, level: Level, block: Block, threshold: float) -> Proposals:
    """Propose the objects that the model's proposal head sees in one block.

    Parameters
    ----------
    heat
        float32 (5, h, w), a cell for each 8 x 8 frame pixels of the block: the probability that an object's
        centre lies in the cell, and the distances in frame pixels from the cell's middle to the top, left,
        bottom and right of the object.
    level, block
        What the block shows. Neighbouring blocks share their overlap halfway, so that each object is
        proposed once.
    threshold
        Least probability.

    Returns
    -------
    Proposals
        Centre and box of each object, surest first.
    """
    centre = heat[0]
    peaks = (centre == ndimage.maximum_filter(centre, 3)) & (centre > threshold)
    cells = np.argwhere(peaks)
    middles = (cells + 0.5) * PROPOSAL_STRIDE + np.array(block[:2])
    far = heat[1:, cells[:, 0], cells[:, 1]].T.astype(np.float64)
    limit = np.tile(level.frame, 2)
    boxes = np.concatenate([middles - far[:, :2], middles + far[:, 2:]], axis=1).clip(0, limit)
    scores = centre[cells[:, 0], cells[:, 1]]
    inside = (middles < level.frame).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    middles, boxes, scores = middles[inside], boxes[inside], scores[inside]
    kept = box_nms(boxes, scores, _SAME_BOX)
    y0, x0, y1, x1 = level.own(block)
    y, x = middles[kept].T
    kept = kept[(y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)]
    scale = np.array(level.scale)
    points = (middles[kept] / scale - 0.5).clip(0, np.array(level.shape) - 1)
    return propose(
        points[:, None], boxes=boxes[kept] / np.tile(scale, 2), scores=scores[kept].astype(np.float64)
    )


def as_proposals(given: Source, image: ImageArray) -> Proposals:
    """Bring whatever tells where objects are into one form, and check that it fits the plane.

    Parameters
    ----------
    given
        `Proposals`; integers of the plane's shape (a label image, whose ids are kept); points (N, 2); boxes
        (N, 4); or a function that is called with the plane's array and returns one of these.
    image
        The plane's array, (H, W) or (H, W, C).

    Raises
    ------
    PromptError
        If it is none of these, or lies outside the plane.
    """
    from napari_lightsam.engine.relabel import from_labels

    shape = int(image.shape[0]), int(image.shape[1])
    if callable(given) and not hasattr(given, "shape"):
        given = given(image)
    if isinstance(given, Proposals):
        return _fitted(given, shape)
    values: Any = as_array(
        given if hasattr(given, "shape") and hasattr(given, "dtype") else np.asarray(given)
    )
    kind = np.dtype(values.dtype).kind
    if tuple(values.shape) == shape and kind in "ui":
        return from_labels(values)
    if kind in "uif" and values.ndim == 2 and values.shape[1] == 2:
        return _fitted(from_points(values), shape)
    if kind in "uif" and values.ndim == 2 and values.shape[1] == 4:
        return _fitted(from_boxes(values), shape)
    if kind in "uif" and values.size == 0:
        return propose()
    raise PromptError(
        f"Proposals must be integer labels of shape {shape}, points (N, 2), boxes (N, 4), Proposals, or a "
        f"function that returns one of these; got {values.dtype} of shape {tuple(values.shape)}."
    )


def _fitted(proposals: Proposals, shape: tuple[int, int]) -> Proposals:
    """Check proposals against the plane and clip their boxes to it."""
    if len(proposals) == 0:
        return proposals
    has_points = proposals.points.shape[1] > 0
    # Padding may stand anywhere.
    points = np.where((proposals.labels == PAD)[..., None], 0.0, proposals.points) if has_points else None
    labels = proposals.labels if has_points else None
    if points is None and proposals.boxes is None and proposals.masks is not None:
        return proposals
    checked = check_prompts(shape, points, labels, proposals.boxes)
    ids = None if proposals.ids is None else check_ids(proposals.ids, len(proposals))
    return replace(proposals, points=checked.points, boxes=checked.boxes, ids=ids)


def check_ids(ids: ArrayLike, count: int | None = None) -> NDArray[np.intp]:
    """Return ids as integers; each must be positive and used once.

    Raises
    ------
    PromptError
        If they are not, or are not `count`.
    """
    given = np.asarray(ids)
    whole = (given.dtype.kind in "ui" or not given.size) and given.ndim == 1
    if not whole or (count is not None and len(given) != count):
        raise PromptError(f"Ids must be whole numbers, one for each object; got {given.dtype} {given.shape}.")
    if len(given) and (given.min() < 1 or given.max() > _LARGEST_ID):
        raise PromptError(f"Ids must lie between 1 and {_LARGEST_ID}; got {given.min()} to {given.max()}.")
    if len(np.unique(given)) < len(given):
        raise PromptError("Two objects have the same id; give each its own, or group their points.")
    return given.astype(np.intp)


def within(prompts: Prompts, reach: float) -> Prompts:
    """Drop negative points farther than `reach` pixels from the first positive one: a window ends there."""
    if prompts.points.shape[1] == 0:
        return prompts
    away = np.abs(prompts.points - prompts.first_points()[:, None]).max(axis=2)
    far = (prompts.labels == NEGATIVE) & (away > reach)  # false where there is no positive point: NaN
    return replace(prompts, labels=np.where(far, PAD, prompts.labels))
