"""Judge a segmenter on images with ground truth: `evaluate` and the table it prints."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.errors import ConfigError
from napari_lightsam.train.datasets import Group, LabelledImage, Split, find_labelled, read_labelled
from napari_lightsam.train.metrics import crop_iou, equivalent_diameter, innermost_point, match
from napari_lightsam.train.scores import Evaluation, ImageScore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_lightsam.engine.segmenter import Segmenter

Prompting = Literal["everything", "click", "box"]
PROMPTINGS: tuple[Prompting, ...] = get_args(Prompting)

PROMPTS_PER_CALL = 32
"""Objects prompted in one call: progress and cancelling stay prompt, memory small."""


def evaluate(
    folder: str | Path,
    segmenter: Segmenter,
    *,
    limit: int | None = None,
    object_size: Literal["estimated", "true"] | float = "estimated",
    prompts: Sequence[Prompting] = PROMPTINGS,
    split: Split = "all",
    group: Group = "all",
    objects_per_image: int | None = None,
) -> Work[Evaluation]:
    """Run a segmenter over a folder of images with ground truth and score it.

    Parameters
    ----------
    folder
        A set or a folder of sets, in a layout of `napari_lightsam.train.datasets`.
    segmenter
        Only its `embed`, `predict` and `everything` are used.
    limit
        At most this many images of each set, evenly spaced; `None` for all.
    object_size
        ``"estimated"``: the segmenter estimates it, as it does for a user who gives none; ``"true"``: the
        median equivalent diameter of each image's ground truth; a number: this diameter, in pixels.
    prompts
        What to measure: ``"everything"`` (instance matching), ``"click"`` (one click per object, at its
        innermost point), ``"box"`` (each object's bounding box).
    split, group
        Which images; see `datasets.Split` and `datasets.Group`.
    objects_per_image
        At most this many objects of each image are clicked and boxed, evenly spaced over their ids.

    Yields
    ------
    Progress
        One per image, and within an image one per batch of prompts.

    Returns
    -------
    Evaluation

    Raises
    ------
    FileError
        No ground truth, or a file that cannot be read.
    ConfigError
        A setting is not accepted.

    Examples
    --------
    >>> from napari_lightsam import load_segmenter
    >>> from napari_lightsam.engine.progress import drain
    >>> result = drain(evaluate("my_images", load_segmenter()))  # doctest: +SKIP
    >>> print(result.to_markdown())  # doctest: +SKIP
    """
    _check_settings(object_size, prompts, objects_per_image)
    files = find_labelled(folder, split=split, group=group, limit=limit)
    scores: list[ImageScore] = []
    for done, file in enumerate(files):
        yield Progress(f"evaluating {file.dataset}/{file.name}", done, len(files))
        labelled = read_labelled(file)
        size = _given_size(labelled.labels, object_size)
        measured: dict[str, Any] = {}
        if "everything" in prompts:
            measured |= yield from _score_everything(segmenter, labelled, size)
        if "click" in prompts or "box" in prompts:
            measured |= yield from _score_prompts(segmenter, labelled, size, prompts, objects_per_image)
        objects = len(np.unique(labelled.labels[labelled.labels > 0]))
        scores.append(ImageScore(file.dataset, file.name, objects, size, **measured))
    yield Progress("evaluated", len(files), len(files))
    return Evaluation(
        model=segmenter.spec.name,
        weights_hash=segmenter.weights_hash,
        device=segmenter.device,
        precision=segmenter.precision,
        object_size=object_size,
        split=split,
        group=group,
        limit=limit,
        objects_per_image=objects_per_image,
        images=tuple(scores),
    )


def _check_settings(object_size: str | float, prompts: Sequence[str], objects_per_image: int | None) -> None:
    wrong = [prompt for prompt in prompts if prompt not in PROMPTINGS]
    if wrong or not prompts:
        raise ConfigError(
            f"The prompts are {list(prompts)}; accepted are one or more of {', '.join(PROMPTINGS)}."
        )
    number = isinstance(object_size, int | float) and not isinstance(object_size, bool)
    if object_size not in ("estimated", "true") and not (number and 0 < float(object_size) < float("inf")):
        raise ConfigError(
            f"The object size is {object_size!r}; accepted are 'estimated', 'true' or a "
            "diameter in pixels above 0."
        )
    if objects_per_image is not None and objects_per_image < 1:
        raise ConfigError(f"The number of objects per image is {objects_per_image}; it is at least 1.")


def _given_size(labels: npt.NDArray[np.int32], object_size: str | float) -> float | None:
    """Diameter to hand to the segmenter; an image without objects has no true size."""
    if object_size == "estimated":
        return None
    if object_size != "true":
        return float(object_size)
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    return float(np.median(equivalent_diameter(areas))) if areas.size else None


def _score_everything(
    segmenter: Segmenter, labelled: LabelledImage, object_size: float | None
) -> Work[dict[str, Any]]:
    start = time.perf_counter()
    config = EverythingConfig(object_size=object_size)
    result = yield from segmenter.everything(labelled.image, config=config, rgb=labelled.rgb)
    seconds = time.perf_counter() - start
    return {
        "found": len(result.scores),
        "object_size_used": result.object_size,
        "matchings": match(labelled.labels, result.labels),
        "everything_seconds": seconds,
    }


def _score_prompts(
    segmenter: Segmenter,
    labelled: LabelledImage,
    object_size: float | None,
    prompts: Sequence[Prompting],
    objects_per_image: int | None,
) -> Work[dict[str, Any]]:
    """Click and box chosen objects one by one against one embedding of the image."""
    objects = _choose_objects(labelled.labels, objects_per_image)
    if not objects:
        return {}
    start = time.perf_counter()
    embedding = segmenter.embed(labelled.image, object_size=object_size, rgb=labelled.rgb)
    measured: dict[str, Any] = {"embed_seconds": time.perf_counter() - start}
    for kind in ("click", "box"):
        if kind not in prompts:
            continue
        ious: list[float] = []
        seconds = 0.0
        for first in range(0, len(objects), PROMPTS_PER_CALL):
            batch = objects[first : first + PROMPTS_PER_CALL]
            yield Progress(f"prompting with one {kind} per object", first, len(objects))
            start = time.perf_counter()
            if kind == "click":
                masks = segmenter.predict(
                    embedding, points=np.array([[thing.click] for thing in batch], float)
                )
            else:
                masks = segmenter.predict(embedding, boxes=np.array([thing.box for thing in batch], float))
            seconds += time.perf_counter() - start
            for index, thing in enumerate(batch):
                best = masks.best(index)
                ious.append(crop_iou(labelled.labels, thing.label, thing.area, best.crop, best.offset))
        measured[f"{kind}_ious"] = tuple(ious)
        measured[f"{kind}_seconds"] = seconds
    return measured


@dataclass(frozen=True, slots=True)
class _TrueObject:
    label: int
    area: int
    click: tuple[int, int]
    box: tuple[int, int, int, int]


def _choose_objects(labels: npt.NDArray[np.int32], most: int | None) -> list[_TrueObject]:
    places = ndimage.find_objects(labels)
    present = [label for label, place in enumerate(places, start=1) if place is not None]
    if most is not None and len(present) > most:
        present = [present[index * len(present) // most] for index in range(most)]
    objects = []
    for label in present:
        rows, columns = places[label - 1]
        crop = labels[rows, columns] == label
        row, column = innermost_point(crop)
        objects.append(
            _TrueObject(
                label=label,
                area=int(crop.sum()),
                click=(rows.start + row, columns.start + column),
                box=(rows.start, columns.start, rows.stop, columns.stop),
            )
        )
    return objects
