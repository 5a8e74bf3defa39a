"""How good a segmentation is: instance matching, average precision, panoptic quality, mask IoU.

Two label images are compared through the sparse table of overlapping pairs only, so that thousands of
objects cost no more than one pass over the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from napari_lightsam.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IntArray = npt.NDArray[np.integer[Any]]

THRESHOLDS: tuple[float, ...] = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
"""IoU thresholds whose average precisions are averaged into mSA."""


@dataclass(frozen=True, slots=True)
class Overlaps:
    """The overlapping pairs of two label images, as a sparse contingency table.

    Attributes
    ----------
    truth_ids, predicted_ids
        int64 (n,) and (m,): ids present in each image, ascending, without the background 0.
    truth_areas, predicted_areas
        int64 (n,) and (m,): pixels of each object.
    truth_index, predicted_index
        int64 (k,): positions, in the id arrays, of every pair that shares at least one pixel.
    shared
        int64 (k,): pixels each pair shares.
    """

    truth_ids: npt.NDArray[np.int64]
    predicted_ids: npt.NDArray[np.int64]
    truth_areas: npt.NDArray[np.int64]
    predicted_areas: npt.NDArray[np.int64]
    truth_index: npt.NDArray[np.int64]
    predicted_index: npt.NDArray[np.int64]
    shared: npt.NDArray[np.int64]

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Intersection over union of every pair, float64 (k,) in (0, 1]."""
        union = self.truth_areas[self.truth_index] + self.predicted_areas[self.predicted_index] - self.shared
        return self.shared / union

    @property
    def predicted_iou(self) -> npt.NDArray[np.float64]:
        """Best IoU of each predicted object with any true one, float64 (m,); 0 where it touches none."""
        best = np.zeros(len(self.predicted_ids))
        np.maximum.at(best, self.predicted_index, self.iou)
        return best


def find_overlaps(truth: npt.ArrayLike, predicted: npt.ArrayLike) -> Overlaps:
    """Find all overlapping pairs of objects in two label images.

    Parameters
    ----------
    truth, predicted
        Integer label images of equal shape, any number of dimensions, 0 = background.

    Raises
    ------
    ImageError
        Shapes differ, or an image holds no integers.

    Examples
    --------
    >>> pairs = find_overlaps([[1, 1, 0, 2]], [[7, 0, 0, 7]])
    >>> pairs.shared.tolist(), pairs.iou.round(2).tolist()
    ([1, 1], [0.33, 0.5])
    """
    truth_image, predicted_image = _label_image(truth, "truth"), _label_image(predicted, "prediction")
    if truth_image.shape != predicted_image.shape:
        raise ImageError(
            f"The truth has shape {truth_image.shape}, the prediction {predicted_image.shape}; "
            "both must show the same pixels."
        )
    truth_ids, truth_flat, truth_areas = number_objects(truth_image)
    predicted_ids, predicted_flat, predicted_areas = number_objects(predicted_image)
    both = (truth_flat > 0) & (predicted_flat > 0)
    width = len(predicted_ids)
    codes, shared = np.unique(
        (truth_flat[both] - 1) * np.int64(max(width, 1)) + predicted_flat[both] - 1, return_counts=True
    )
    return Overlaps(
        truth_ids=truth_ids,
        predicted_ids=predicted_ids,
        truth_areas=truth_areas,
        predicted_areas=predicted_areas,
        truth_index=codes // max(width, 1),
        predicted_index=codes % max(width, 1),
        shared=shared.astype(np.int64),
    )


@dataclass(frozen=True, slots=True)
class Matching:
    """Counts of a one-to-one matching at one IoU threshold; matchings of several images add up.

    Attributes
    ----------
    threshold
        A pair may match only when its IoU is greater than this.
    true_positives, false_positives, false_negatives
        Matched pairs, predicted objects without a partner, true objects without a partner.
    iou_sum
        Sum of the IoU of the matched pairs.
    """

    threshold: float
    true_positives: int
    false_positives: int
    false_negatives: int
    iou_sum: float

    @property
    def average_precision(self) -> float:
        """TP / (TP + FP + FN), and 1 where there was nothing to find and nothing was found."""
        return self._share(self.true_positives + self.false_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """TP / (TP + FP): the share of predicted objects that are right; 1 when none was predicted."""
        return self._share(self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """TP / (TP + FN): the share of true objects that were found; 1 when there is none."""
        return self._share(self.true_positives + self.false_negatives)

    @property
    def panoptic_quality(self) -> float:
        """Sum of matched IoU / (TP + FP/2 + FN/2); 1 for nothing to find and nothing found."""
        denominator = self.true_positives + (self.false_positives + self.false_negatives) / 2
        return self.iou_sum / denominator if denominator else 1.0

    def __add__(self, other: Matching) -> Matching:
        """Pool two images: the counts and IoU sums are added."""
        if self.threshold != other.threshold:
            raise ConfigError(
                f"Matchings at IoU {self.threshold} and {other.threshold} cannot be pooled; "
                "pool matchings of one threshold."
            )
        return Matching(
            self.threshold,
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )

    def _share(self, total: int) -> float:
        return self.true_positives / total if total else 1.0


def match_overlaps(overlaps: Overlaps, threshold: float) -> Matching:
    """Match true and predicted objects one to one where their IoU is greater than `threshold`.

    From 0.5 upwards no object can have two partners, so the pairs above the threshold are the matching;
    below, a matching with the most pairs is taken.

    Raises
    ------
    ConfigError
        `threshold` is not in [0, 1).
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"The IoU threshold is {threshold}; it must be at least 0 and below 1.")
    iou = overlaps.iou
    good = np.flatnonzero(iou > threshold)
    if threshold < 0.5 and good.size:
        shape = (len(overlaps.truth_ids), len(overlaps.predicted_ids))
        # The stored value is the pair's position + 1: a stored zero would be no edge of the graph.
        graph = sparse.csr_array(
            (good + 1, (overlaps.truth_index[good], overlaps.predicted_index[good])), shape=shape
        )
        partner = maximum_bipartite_matching(graph, perm_type="column")
        rows = np.flatnonzero(partner >= 0)
        good = np.asarray([graph[row, partner[row]] - 1 for row in rows], dtype=np.int64)
    matched = int(good.size)
    return Matching(
        threshold=threshold,
        true_positives=matched,
        false_positives=len(overlaps.predicted_ids) - matched,
        false_negatives=len(overlaps.truth_ids) - matched,
        iou_sum=float(iou[good].sum()),
    )


def match(
    truth: npt.ArrayLike, predicted: npt.ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[Matching, ...]:
    """Match two label images at every threshold.

    Parameters
    ----------
    truth, predicted
        Integer label images of equal shape, 0 = background. Ids carry no meaning beyond equality.
    thresholds
        IoU thresholds in [0, 1).

    Returns
    -------
    tuple of Matching
        One per threshold, in the order given.

    Examples
    --------
    >>> at_half, = match([[1, 1, 0, 2]], [[7, 7, 0, 0]], thresholds=(0.5,))
    >>> at_half.true_positives, at_half.false_negatives, at_half.average_precision
    (1, 1, 0.5)
    """
    overlaps = find_overlaps(truth, predicted)
    return tuple(match_overlaps(overlaps, threshold) for threshold in thresholds)


def pool(images: Iterable[Sequence[Matching]]) -> tuple[Matching, ...]:
    """Add up the matchings of several images, threshold by threshold; empty for no image."""
    pooled: tuple[Matching, ...] = ()
    for matchings in images:
        pooled = tuple(a + b for a, b in zip(pooled, matchings, strict=True)) if pooled else tuple(matchings)
    return pooled


def mean_segmentation_accuracy(matchings: Sequence[Matching]) -> float:
    """Mean average precision over the thresholds (mSA); over `THRESHOLDS` it is the published measure."""
    return float(np.mean([matching.average_precision for matching in matchings]))


def innermost_point(mask: npt.ArrayLike) -> tuple[int, int]:
    """Return the pixel of a mask that lies farthest from the mask's border: where a careful user clicks.

    Pixels outside the array count as background. Of equally deep pixels the one nearest to the mask's
    centre of mass is taken, then the first in reading order, so that the answer is always the same.

    Parameters
    ----------
    mask
        bool (H, W) with at least one pixel set.

    Returns
    -------
    tuple of int
        (row, column).

    Raises
    ------
    ImageError
        The mask is empty or not two-dimensional.
    """
    inside = np.asarray(mask, dtype=bool)
    if inside.ndim != 2 or not inside.any():
        raise ImageError(
            f"A mask of shape {inside.shape} with {int(inside.sum())} pixels has no innermost point; "
            "give a two-dimensional mask with at least one pixel."
        )
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    deepest = np.argwhere(depth == depth.max())
    to_centre = ((deepest - np.argwhere(inside).mean(axis=0)) ** 2).sum(axis=1)
    row, column = deepest[int(np.argmin(to_centre))]
    return int(row), int(column)


def crop_iou(
    labels: IntArray, label: int, area: int, crop: npt.NDArray[np.bool_], offset: Sequence[int]
) -> float:
    """IoU of one object of a label image and a mask that is kept cropped.

    Parameters
    ----------
    labels
        Integer (H, W).
    label, area
        The object's id and its number of pixels in `labels`.
    crop
        bool (h, w), the mask inside its bounding box; (0, 0) when empty.
    offset
        (row, column) of the crop's first pixel; the crop lies inside the image.
    """
    top, left = offset
    height, width = crop.shape
    window = labels[top : top + height, left : left + width]
    shared = int(np.count_nonzero(crop & (window == label)))
    union = area + int(np.count_nonzero(crop)) - shared
    return shared / union if union else 1.0


def count_boxed(truth: npt.ArrayLike, proposed: npt.ArrayLike, threshold: float = 0.5) -> int:
    """Count the true boxes that some proposed box covers with an IoU of at least `threshold`.

    Parameters
    ----------
    truth, proposed
        (N, 4) and (M, 4) as (y0, x0, y1, x1), half-open.
    threshold
        Least IoU.

    Examples
    --------
    >>> count_boxed([(0, 0, 10, 10), (20, 20, 30, 30)], [(0, 0, 10, 6), (40, 40, 50, 50)])
    1
    """
    wanted, given = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (truth, proposed))
    given_areas = (given[:, 2:] - given[:, :2]).prod(axis=1)
    found = 0
    for box in wanted:  # one by one: thousands of objects times proposals would not fit into memory
        low, high = np.maximum(box[:2], given[:, :2]), np.minimum(box[2:], given[:, 2:])
        shared = (high - low).clip(min=0).prod(axis=1)
        union = (box[2:] - box[:2]).prod() + given_areas - shared
        found += bool((shared >= threshold * union).any())
    return found


def equivalent_diameter(area: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Diameter of the circle with the given area: the package's measure of object size."""
    return 2 * np.sqrt(np.asarray(area, dtype=np.float64) / np.pi)


def _label_image(image: npt.ArrayLike, name: str) -> IntArray:
    array = np.asarray(image)
    if array.dtype.kind not in "iu":
        raise ImageError(
            f"The {name} has dtype {array.dtype}; a label image holds integers, one id per object and 0 "
            "for background. Label its connected parts first if it is a binary mask."
        )
    return array


def number_objects(
    image: IntArray,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ids, the flat image renumbered to 1..n in the ids' order, and areas, without the background."""
    ids, flat, counts = np.unique(image, return_inverse=True, return_counts=True)
    flat = flat.reshape(-1).astype(np.int64)
    zero = np.flatnonzero(ids == 0)
    if zero.size:
        # Everything below the background's position moves up by one, the background itself to 0.
        flat = np.where(flat == zero[0], 0, flat + (flat < zero[0]))
        ids, counts = np.delete(ids, zero), np.delete(counts, zero)
    else:
        flat = flat + 1
    return ids.astype(np.int64), flat, counts.astype(np.int64)
