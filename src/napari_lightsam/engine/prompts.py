"""Prompts of N objects: checked, and the one place where (row, column) becomes SAM's (x, y)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_lightsam.engine.masks import Mask, Masks, crop_mask
from napari_lightsam.errors import PromptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.engine.level import Level

FloatArray64 = NDArray[np.float64]

PAD, NEGATIVE, POSITIVE = -1, 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class Prompts:
    """Checked prompts of N objects in image pixels.

    Attributes
    ----------
    points
        (N, P, 2) as (row, column); P may be 0.
    labels
        int (N, P): 1 positive, 0 negative, -1 padding.
    boxes
        (N, 4) as (y0, x0, y1, x1), or None.
    masks
        N masks, or None.
    """

    points: FloatArray64
    labels: NDArray[np.intp]
    boxes: FloatArray64 | None = None
    masks: tuple[Mask, ...] | None = None

    def __len__(self) -> int:
        return len(self.points)

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> Prompts:
        """Return the prompts of the chosen objects."""
        return Prompts(
            self.points[index],
            self.labels[index],
            None if self.boxes is None else self.boxes[index],
            None if self.masks is None else tuple(self.masks[i] for i in index),
        )

    def extents(self) -> FloatArray64:
        """Return (N, 4), the box around all prompts of each object."""
        used = (self.labels != PAD)[..., None]
        low = np.where(used, self.points, np.inf).min(axis=1, initial=np.inf)
        high = np.where(used, self.points, -np.inf).max(axis=1, initial=-np.inf)
        boxes = [b for b in (self.boxes, self._mask_boxes()) if b is not None]
        for box in boxes:
            low, high = np.minimum(low, box[:, :2]), np.maximum(high, box[:, 2:])
        return np.concatenate([low, high], axis=1)

    def sizes(self) -> FloatArray64:
        """Return (N,), the object diameters that boxes and masks tell; NaN where there are only points."""
        if self.masks is not None:
            return np.array([mask.diameter for mask in self.masks])
        if self.boxes is not None:
            sides = self.boxes[:, 2:] - self.boxes[:, :2]
            return np.asarray(np.sqrt(sides.prod(axis=1)))
        return np.full(len(self), np.nan)

    def single_clicks(self) -> NDArray[np.bool_]:
        """Return (N,), True where an object has one point and nothing else: an ambiguous prompt."""
        if self.boxes is not None or self.masks is not None:
            return np.zeros(len(self), bool)
        return np.asarray((self.labels != PAD).sum(axis=1) == 1)

    def first_points(self) -> FloatArray64:
        """Return (N, 2), each object's first positive point; NaN where there is none."""
        positive = self.labels == POSITIVE
        points = np.full((len(self), 2), np.nan)
        has = positive.any(axis=1)
        if has.any():  # argmax refuses an axis of no points, as boxes alone have
            points[has] = self.points[has, positive[has].argmax(axis=1)]
        return points

    def _mask_boxes(self) -> FloatArray64 | None:
        if self.masks is None:
            return None
        return np.array([mask.box for mask in self.masks], np.float64)


def check_prompts(
    shape: tuple[int, int],
    points: ArrayLike | None = None,
    point_labels: ArrayLike | None = None,
    boxes: ArrayLike | None = None,
    mask: ArrayLike | Mask | Masks | None = None,
) -> Prompts:
    """Bring prompts into one form and check that they fit the plane and each other.

    Parameters
    ----------
    shape
        (H, W) of the plane.
    points
        (P, 2) of one object, or (N, P, 2), as (row, column).
    point_labels
        (P,) or (N, P): 1 positive, 0 negative, -1 padding; all positive by default.
    boxes
        (4,) or (N, 4) as (y0, x0, y1, x1).
    mask
        bool (H, W) or (N, H, W), or an earlier result.

    Raises
    ------
    PromptError
        If there is no prompt, shapes differ, a prompt lies outside, or nothing positive is given.
    """
    given_points = None if points is None else _check_points(shape, points)
    given_boxes = None if boxes is None else _check_boxes(shape, boxes)
    masks = None if mask is None else _check_masks(shape, mask)
    counts = {
        name: len(value)
        for name, value in (("points", given_points), ("boxes", given_boxes), ("masks", masks))
        if value is not None
    }
    if not counts:
        raise PromptError("No prompt was given: give points, boxes or a mask.")
    n = next(iter(counts.values()))
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise PromptError(
            f"Prompts are for different numbers of objects: {listed}. Give one of each per object."
        )
    if given_points is None:
        if point_labels is not None:
            raise PromptError("point_labels were given without points.")
        given_points = np.zeros((n, 0, 2))
    labels = _check_labels(given_points, point_labels)
    if given_boxes is None and masks is None and not (labels == POSITIVE).any(axis=1).all():
        raise PromptError("Every object needs at least one positive point, a box or a mask.")
    return Prompts(given_points, labels, given_boxes, masks)


def _check_points(shape: tuple[int, int], points: ArrayLike) -> FloatArray64:
    array = _numbers(points, "points")
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.shape[2] != 2 or array.size == 0:
        raise PromptError(
            f"points must be (P, 2) for one object or (N, P, 2), as (row, column); got {np.shape(points)}."
        )
    # A click lands within half a pixel of the first and last pixel centres.
    outside = ((array < -0.5) | (array > np.array(shape) - 0.5)).any(axis=2)
    if outside.any():
        at = tuple(float(v) for v in array[outside][0])
        raise PromptError(f"The point {at} lies outside the image of {shape} (row, column).")
    return array


def _check_boxes(shape: tuple[int, int], boxes: ArrayLike) -> FloatArray64:
    array = np.atleast_2d(_numbers(boxes, "boxes"))
    if array.ndim != 2 or array.shape[1] != 4 or array.size == 0:
        raise PromptError(f"boxes must be (4,) or (N, 4) as (y0, x0, y1, x1); got {np.shape(boxes)}.")
    clipped = array.clip(0, np.tile(shape, 2))
    empty = (clipped[:, 2:] <= clipped[:, :2]).any(axis=1)
    if empty.any():
        at = tuple(float(v) for v in array[empty][0])
        raise PromptError(
            f"The box {at} is empty or outside the image of {shape}; boxes are (y0, x0, y1, x1) with y0 < y1."
        )
    return np.asarray(clipped)


def _check_masks(shape: tuple[int, int], mask: ArrayLike | Mask | Masks) -> tuple[Mask, ...]:
    if isinstance(mask, Masks):
        masks = tuple(mask.best(i) for i in range(len(mask)))
    elif isinstance(mask, Mask):
        masks = (mask,)
    else:
        array = np.asarray(mask)
        array = array[None] if array.ndim == 2 else array
        if array.dtype != bool or array.ndim != 3 or array.shape[1:] != shape:
            raise PromptError(
                f"mask must be bool of shape {shape} or (N, *{shape}), or an earlier result; got "
                f"{array.dtype} of shape {np.shape(mask)}."
            )
        masks = tuple(crop_mask(plane) for plane in array)
    if any(m.area == 0 for m in masks):
        raise PromptError("A mask prompt is empty; it must hold at least one pixel.")
    if any(m.box[2] > shape[0] or m.box[3] > shape[1] for m in masks):
        raise PromptError(f"A mask prompt does not fit the image of {shape}; it belongs to a larger image.")
    return masks


def _check_labels(points: FloatArray64, labels: ArrayLike | None) -> NDArray[np.intp]:
    if labels is None:
        return np.ones(points.shape[:2], np.intp)
    array = np.atleast_2d(_numbers(labels, "point_labels"))
    if array.shape != points.shape[:2] or not np.isin(array, (PAD, NEGATIVE, POSITIVE)).all():
        raise PromptError(
            f"point_labels must be 1, 0 or -1 in the shape {points.shape[:2]} of the points; got shape "
            f"{np.shape(labels)}."
        )
    return array.astype(np.intp)


def _numbers(values: ArrayLike, what: str) -> FloatArray64:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors that have a gradient
        raise PromptError(f"{what} must be numbers; got {values!r} ({error}).") from None
    if not np.isfinite(array).all():
        raise PromptError(f"{what} must be finite numbers.")
    return array


def to_frame(
    coordinates: FloatArray64, level: Level, origins: FloatArray64, *, corners: bool = False
) -> FloatArray64:
    """Turn (row, column) in image pixels into (x, y) in frame pixels relative to each object's window.

    Parameters
    ----------
    coordinates
        (N, P, 2) as (row, column).
    level
        Scale of the frame.
    origins
        (N, 2), first row and column of each window in frame pixels.
    corners
        The coordinates are box corners, which scale like lengths.

    Notes
    -----
    SAM scales pixel indices like lengths too, and so do its checkpoints here; our own models keep pixel
    centres where they are.
    """
    scale = np.array(level.scale)
    shift = 0.0 if corners or level.fixed else 0.5
    frame = (coordinates + shift) * scale - shift - origins[:, None]
    return np.ascontiguousarray(frame[..., ::-1])
