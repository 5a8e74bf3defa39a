"""COCO JSON: every object as run lengths, as pycocotools and the tools around it read them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_lightsam.formats.objects import Objects, Plane

    Indices = NDArray[np.int64]

_MOST_PIXELS = 2**32 - 1  # run lengths are unsigned 32-bit numbers in pycocotools
_CHARACTERS = 7  # of five bits each: enough for the difference of two of them


def save_coco(path: Path, objects: Objects) -> None:
    """Write images, one category and the annotations to a file that has no name yet.

    Every plane is an image; that of a part of a larger image says with `y0` and `x0` where it begins.
    Annotations are numbered through; `label` is the object's id, and `score` stands where the table has one.

    Raises
    ------
    ImageError
        A plane has more pixels than the format can count.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, plane in enumerate(objects.planes(), start=1):
        height, width = plane.labels.shape
        image: dict[str, Any] = {"id": number, "file_name": objects.name, "width": width, "height": height}
        if plane.origin != (0, 0):
            image |= {"y0": plane.origin[0], "x0": plane.origin[1]}
        images.append(image | {a: step for a, step in plane.position._asdict().items() if step is not None})
        for annotation in _annotate(plane):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": 1, **annotation}
            )
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "object", "supercategory": ""}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")


def _annotate(plane: Plane) -> list[dict[str, Any]]:
    height, width = plane.labels.shape
    ids, counts, splits, boxes, areas = encode_runs(plane.labels)
    texts = _compress(counts, splits)
    scores: dict[int, float] = {}
    if plane.table is not None and "score" in plane.table:
        known = plane.table.dropna(subset=["score"])
        scores = dict(zip(known["label"].astype(int).tolist(), known["score"].tolist(), strict=True))
    annotations = []
    for label, text, box, area in zip(ids.tolist(), texts, boxes.tolist(), areas.tolist(), strict=True):
        annotation: dict[str, Any] = {
            "segmentation": {"size": [height, width], "counts": text},
            "area": area,
            "bbox": box,
            "iscrowd": 0,
            "label": label,
        }
        if label in scores:
            annotation["score"] = scores[label]
        annotations.append(annotation)
    return annotations


def encode_runs(labels: NDArray[Any]) -> tuple[Indices, Indices, Indices, Indices, Indices]:
    """Encode every object of a plane as COCO's run lengths, all at once.

    Parameters
    ----------
    labels
        (H, W) integers, 0 is background.

    Returns
    -------
    ids
        (N,) rising.
    counts
        Lengths of runs outside and inside the object in turn, column by column, object after object.
    splits
        (N + 1,) where each object begins in `counts`.
    boxes
        (N, 4): x, y, width, height.
    areas
        (N,) in pixels.

    Raises
    ------
    ImageError
        More pixels than the format can count.

    Examples
    --------
    >>> ids, counts, splits, boxes, areas = encode_runs(np.array([[0, 5, 0], [0, 5, 5]]))
    >>> ids.tolist(), counts.tolist(), boxes.tolist(), areas.tolist()
    ([5], [2, 2, 1, 1], [[1, 0, 2, 2]], [3])
    """
    height = labels.shape[0]
    if labels.size > _MOST_PIXELS:
        raise ImageError(
            f"COCO's run lengths end at {_MOST_PIXELS:,} pixels; given: {labels.size:,}. Tile it."
        )
    flat = labels.ravel(order="F")
    change = np.nonzero(flat[1:] != flat[:-1])[0] + 1
    start = np.concatenate([[0], change]).astype(np.int64)
    length = np.diff(start, append=flat.size)
    value = flat[start].astype(np.int64)
    order = np.argsort(value, kind="stable")
    order = order[value[order] > 0]
    if not len(order):
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(1, np.int64), none.reshape(0, 4), none
    start, length, value = start[order], length[order], value[order]
    ids, first = np.unique(value, return_index=True)
    end = start + length
    before = np.concatenate([[0], end[:-1]])
    before[first] = 0
    last = np.append(first[1:], len(value)) - 1
    # Two numbers per run, the gap and the run, and the rest of the plane behind the last unless it is none.
    rest = flat.size - end[last]
    counts = np.insert(np.stack([start - before, length], axis=1).ravel(), 2 * (last + 1), rest)
    keep = np.ones(len(counts), bool)
    closing = 2 * (last + 1) + np.arange(len(last))
    keep[closing[rest == 0]] = False
    sizes = 2 * np.diff(first, append=len(value)) + (rest > 0)
    splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return ids, counts[keep], splits, _boxes(start, length, first, height), np.add.reduceat(length, first)


def _boxes(start: Indices, length: Indices, first: Indices, height: int) -> Indices:
    end = start + length - 1
    left, right = start // height, end // height
    # A run that goes on in the next column has touched the bottom and the top.
    top = np.where(right > left, 0, start % height)
    bottom = np.where(right > left, height - 1, end % height)
    x, y = np.minimum.reduceat(left, first), np.minimum.reduceat(top, first)
    far_x, far_y = np.maximum.reduceat(right, first), np.maximum.reduceat(bottom, first)
    return np.stack([x, y, far_x - x + 1, far_y - y + 1], axis=1)


def _compress(counts: Indices, splits: Indices) -> Sequence[str]:
    """Write counts as COCO's text: differences to the count before last, in digits of five bits.

    A digit's sixth bit says that more follow, its highest data bit carries the sign, and 48 makes it a
    character.
    """
    place = np.arange(len(counts)) - np.repeat(splits[:-1], np.diff(splits))
    values = counts.copy()
    late = np.nonzero(place > 2)[0]
    values[late] -= counts[late - 2]
    digits = np.zeros((len(values), _CHARACTERS), np.uint8)
    used = np.zeros((len(values), _CHARACTERS), bool)
    active = np.ones(len(values), bool)
    for i in range(_CHARACTERS):
        digit = values & 31
        values >>= 5
        more = np.where(digit & 16, values != -1, values != 0)
        digits[:, i] = digit + 32 * more + 48
        used[:, i] = active
        active &= more
    text = digits[used].tobytes().decode("ascii")
    ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])[splits].tolist()
    return [text[a:b] for a, b in pairwise(ends)]
