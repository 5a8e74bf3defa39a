"""Asking for true objects one by one: rounds of corrective clicks, boxes drawn with more and less care."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lightsam.engine.level import BlockReader
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.engine.prompts import NEGATIVE, POSITIVE
from napari_lightsam.engine.proposals import from_head
from napari_lightsam.engine.samplers import level_of
from napari_lightsam.engine.tile import Tile
from napari_lightsam.train.metrics import crop_iou, innermost_point, number_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.segmenter import Segmenter

PROMPTS_PER_CALL = 32
"""Objects prompted in one call: progress and cancelling stay prompt, memory small."""


@dataclass(frozen=True, slots=True)
class TrueObject:
    """One object of the ground truth.

    Attributes
    ----------
    label, area
        Id and number of pixels.
    click
        (row, column) of its innermost pixel.
    box
        (y0, x0, y1, x1), half-open.
    """

    label: int
    area: int
    click: tuple[int, int]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Answers:
    """Masks of N objects after one round of prompts, judged.

    Attributes
    ----------
    ious, predicted
        True and predicted IoU of each object's best mask.
    seconds
        Time spent in the decoder by this round.
    """

    ious: tuple[float, ...]
    predicted: tuple[float, ...]
    seconds: float


def choose_objects(labels: npt.NDArray[np.int32], most: int | None = None) -> list[TrueObject]:
    """Describe the objects of a label image, or `most` of them, evenly spaced over their ids."""
    present = _places(labels)
    if most is not None and len(present) > most:
        present = [present[index * len(present) // most] for index in range(most)]
    objects = []
    for label, (rows, columns) in present:
        crop = labels[rows, columns] == label
        row, column = innermost_point(crop)
        objects.append(
            TrueObject(
                label=label,
                area=int(crop.sum()),
                click=(rows.start + row, columns.start + column),
                box=(rows.start, columns.start, rows.stop, columns.stop),
            )
        )
    return objects


def true_boxes(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """Return the bounding boxes (N, 4) of all objects of a label image."""
    boxes = [(rows.start, columns.start, rows.stop, columns.stop) for _, (rows, columns) in _places(labels)]
    return np.array(boxes, np.float64).reshape(-1, 4)


def _places(labels: npt.NDArray[np.int32]) -> list[tuple[int, tuple[slice, slice]]]:
    """Return the rows and columns of each object, by rising id; large ids cost nothing."""
    ids, numbers, _ = number_objects(labels)
    places = ndimage.find_objects(numbers.reshape(labels.shape))
    return list(zip(ids.tolist(), places, strict=True))


def place_correction(
    labels: npt.NDArray[np.int32], thing: TrueObject, mask: Mask, clicked: Sequence[tuple[int, int]] = ()
) -> tuple[tuple[int, int], bool] | None:
    """Place the next click where a mask is most wrong: at the innermost point of its largest error.

    An error is a connected region that was missed, or one that does not belong to the object. This is the
    simulated user of the literature on interactive segmentation (for instance Sofiiuk et al., *Reviving
    iterative training with mask guidance*, arXiv 2102.06583).

    Parameters
    ----------
    labels
        int (H, W), the truth.
    thing
        The object that was meant.
    mask
        What was answered.
    clicked
        (row, column) of the clicks so far; the same pixel is never clicked twice.

    Returns
    -------
    click, inside
        (row, column), and whether it lies inside the object; `None` for a perfect mask.
    """
    boxes = [thing.box, mask.box] if mask.crop.size else [thing.box]
    y0, x0 = (min(box[axis] for box in boxes) for axis in (0, 1))
    y1, x1 = (max(box[axis] for box in boxes) for axis in (2, 3))
    truth = labels[y0:y1, x0:x1] == thing.label
    answer = np.zeros(truth.shape, bool)
    if mask.crop.size:
        top, left, bottom, right = mask.box
        answer[top - y0 : bottom - y0, left - x0 : right - x0] = mask.crop
    open_pixels = np.ones(truth.shape, bool)
    for row, column in clicked:
        if y0 <= row < y1 and x0 <= column < x1:
            open_pixels[row - y0, column - x0] = False
    regions = [
        (region, inside)
        for wrong, inside in ((truth & ~answer & open_pixels, True), (answer & ~truth & open_pixels, False))
        if (region := _largest_part(wrong)) is not None
    ]
    if not regions:
        return None
    region, inside = max(regions, key=lambda found: np.count_nonzero(found[0]))
    row, column = innermost_point(region)
    return (y0 + row, x0 + column), inside


def _largest_part(wrong: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    parts, count = ndimage.label(wrong)
    if not count:
        return None
    return np.asarray(parts == 1 + int(np.bincount(parts.ravel())[1:].argmax()))


def click_rounds(
    segmenter: Segmenter,
    embedding: Embedding,
    labels: npt.NDArray[np.int32],
    objects: Sequence[TrueObject],
    corrections: int,
) -> Work[list[Answers]]:
    """Click each object once, then correct its mask click by click.

    The segmenter gets all clicks on an object so far, as it does from a person in the viewer. An object whose
    mask is perfect is clicked no further.

    Returns
    -------
    list of Answers
        After 1, 2 ... `corrections` + 1 clicks.
    """
    clicks = [[thing.click] for thing in objects]
    signs = [[POSITIVE] for _ in objects]
    masks: dict[int, Mask] = {}
    asked = list(range(len(objects)))
    rounds: list[Answers] = []
    for count in range(corrections + 1):
        if count:
            asked = []
            for i, thing in enumerate(objects):
                correction = place_correction(labels, thing, masks[i], clicks[i])
                if correction is not None:
                    place, inside = correction
                    clicks[i].append(place)
                    signs[i].append(POSITIVE if inside else NEGATIVE)
                    asked.append(i)
        seconds = 0.0
        for first in range(0, len(asked), PROMPTS_PER_CALL):
            batch = asked[first : first + PROMPTS_PER_CALL]
            yield Progress(_click_stage(count), first, len(asked))
            start = time.perf_counter()
            found = segmenter.predict(
                embedding,
                points=np.array([clicks[i] for i in batch], float),
                point_labels=np.array([signs[i] for i in batch]),
            )
            seconds += time.perf_counter() - start
            masks |= {i: found.best(k) for k, i in enumerate(batch)}
        rounds.append(_judge(labels, objects, [masks[i] for i in range(len(objects))], seconds))
    return rounds


def _click_stage(corrections: int) -> str:
    return f"correcting with click {corrections}" if corrections else "prompting with one click per object"


def box_levels(
    segmenter: Segmenter,
    embedding: Embedding,
    labels: npt.NDArray[np.int32],
    objects: Sequence[TrueObject],
    jitter: Sequence[float],
    rng: np.random.Generator,
) -> Work[list[Answers]]:
    """Box each object, once for each degree of carelessness.

    All degrees use the same random numbers, so that their difference is due to the degree alone.

    Parameters
    ----------
    segmenter, embedding, labels, objects
        What is asked about which objects.
    jitter
        How far a box's sides are off at most, in parts of the box's own height and width; below .5.
    rng
        Draws where the sides go.

    Returns
    -------
    list of Answers
        One per degree.
    """
    exact = np.array([thing.box for thing in objects], float)
    shift = rng.uniform(-1, 1, exact.shape)
    levels: list[Answers] = []
    for degree in jitter:
        boxes = careless_boxes(exact, degree * shift, labels.shape)
        masks: list[Mask] = []
        seconds = 0.0
        for first in range(0, len(boxes), PROMPTS_PER_CALL):
            stage = (
                f"prompting with boxes {degree:.0%} off" if degree else "prompting with one box per object"
            )
            yield Progress(stage, first, len(boxes))
            start = time.perf_counter()
            found = segmenter.predict(embedding, boxes=boxes[first : first + PROMPTS_PER_CALL])
            seconds += time.perf_counter() - start
            masks += [found.best(k) for k in range(min(PROMPTS_PER_CALL, len(boxes) - first))]
        levels.append(_judge(labels, objects, masks, seconds))
    return levels


def careless_boxes(
    boxes: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """Move the sides of boxes by parts of their own height and width, but not out of the image.

    Parameters
    ----------
    boxes
        (N, 4) as (y0, x0, y1, x1).
    shift
        (N, 4), each above -.5 and below .5, so that no box turns inside out.
    shape
        (H, W) of the image.

    Examples
    --------
    >>> careless_boxes(np.array([[10.0, 10, 20, 50]]), np.array([[0.1, -0.1, 0.2, 0]]), (100, 100)).tolist()
    [[11.0, 6.0, 22.0, 50.0]]
    """
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return np.asarray((boxes + shift * sides).clip(0, np.tile(shape[:2], 2)))


def _judge(
    labels: npt.NDArray[np.int32], objects: Sequence[TrueObject], masks: Sequence[Mask], seconds: float
) -> Answers:
    ious = [
        crop_iou(labels, thing.label, thing.area, mask.crop, mask.offset)
        for thing, mask in zip(objects, masks, strict=True)
    ]
    return Answers(tuple(ious), tuple(float(mask.iou) for mask in masks), seconds)


def proposed_boxes(
    segmenter: Segmenter, embedding: Embedding, size: float | None
) -> npt.NDArray[np.float64] | None:
    """Return the boxes that everything mode asks about where a model proposes objects itself.

    Parameters
    ----------
    segmenter, embedding
        The model and the plane; what is encoded already is not encoded again.
    size
        Object diameter that everything mode worked with.

    Returns
    -------
    ndarray or None
        float (N, 4) as (y0, x0, y1, x1) in image pixels; `None` for a model without a proposal head.
    """
    embedding = replace(embedding, object_size=size)
    spec = segmenter.spec
    level = level_of("object-aware", segmenter.level(embedding), spec)
    reader = BlockReader(embedding.plane, level, spec)
    unasked = embedding.plane.blank or (size is None and not level.fixed)
    parts = [np.zeros((0, 4))]
    for block in level.block_list():
        tile = Tile(segmenter.runtime, spec, embedding, level, block, reader)
        heat = segmenter.runtime.propose(tile.tokens())
        if heat is None:
            return None
        if unasked:
            break
        found = from_head(heat, level, block, spec.everything.proposal_threshold)
        if not tile.blank and found.boxes is not None:
            parts.append(found.boxes)
    return np.concatenate(parts)
