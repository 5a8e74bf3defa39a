"""Judge a segmenter on images with ground truth: `evaluate` and the table it prints."""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.errors import ConfigError
from napari_lightsam.train.datasets import Group, LabelledImage, Split, find_labelled, read_labelled
from napari_lightsam.train.metrics import (
    THRESHOLDS,
    count_boxed,
    equivalent_diameter,
    find_overlaps,
    match_overlaps,
    mean_segmentation_accuracy,
)
from napari_lightsam.train.probing import (
    box_levels,
    choose_objects,
    click_rounds,
    proposed_boxes,
    true_boxes,
)
from napari_lightsam.train.scores import Evaluation, Example, ImageScore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_lightsam.engine.segmenter import Segmenter

Prompting = Literal["everything", "click", "box"]
PROMPTINGS: tuple[Prompting, ...] = get_args(Prompting)

CORRECTIVE_CLICKS = 3
"""Clicks after the first one."""

BOX_JITTER = (0.0, 0.05, 0.1, 0.2)
"""Degrees of carelessness: how far a box's sides are off at most, in parts of its height and width."""

_UNUSABLE_JITTER = 0.5  # opposite sides may meet


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
    corrective_clicks: int = CORRECTIVE_CLICKS,
    box_jitter: Sequence[float] = BOX_JITTER,
    seed: int = 0,
    worst: int = 0,
) -> Work[Evaluation]:
    """Run a segmenter over a folder of images with ground truth and score it.

    Parameters
    ----------
    folder
        A set or a folder of sets, in a layout of `napari_lightsam.train.datasets`.
    segmenter
        Any model: our own, or a checkpoint of the SAM family.
    limit
        At most this many images of each set, evenly spaced; `None` for all.
    object_size
        ``"estimated"``: the segmenter estimates it, as it does for a user who gives none; ``"true"``: the
        median equivalent diameter of each image's ground truth; a number: this diameter, in pixels.
    prompts
        What to measure: ``"everything"`` (instance matching), ``"click"`` (one click per object, at its
        innermost point, then corrective ones), ``"box"`` (each object's bounding box, exact and careless).
    split, group
        Which images; see `datasets.Split` and `datasets.Group`.
    objects_per_image
        At most this many objects of each image are clicked and boxed, evenly spaced over their ids.
    corrective_clicks
        How many clicks follow the first one, each where the mask so far is most wrong; 0 for none.
    box_jitter
        Degrees of carelessness: how far each side of a box is off at most, in parts of the box's own height
        and width, below .5. 0, the exact box, is always measured.
    seed
        Where the random numbers of careless boxes start; they also depend on the image's name.
    worst
        Keep so many images of lowest mSA to be looked at; needs ``"everything"``.

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
    jitter = _check_extras(corrective_clicks, box_jitter, worst, prompts)
    files = find_labelled(folder, split=split, group=group, limit=limit)
    scores: list[ImageScore] = []
    examples: list[Example] = []
    for done, file in enumerate(files):
        yield Progress(f"evaluating {file.dataset}/{file.name}", done, len(files))
        labelled = read_labelled(file)
        size = _given_size(labelled.labels, object_size)
        measured: dict[str, Any] = {}
        predicted = np.zeros_like(labelled.labels)
        if "everything" in prompts:
            predicted, figures = yield from _score_everything(segmenter, labelled, size)
            measured |= figures
        if "click" in prompts or "box" in prompts:
            rng = np.random.default_rng([seed, zlib.crc32(f"{file.dataset}/{file.name}".encode())])
            measured |= yield from _score_prompts(
                segmenter,
                labelled,
                size,
                objects_per_image,
                corrections=corrective_clicks if "click" in prompts else None,
                jitter=jitter if "box" in prompts else (),
                rng=rng,
            )
        objects = len(np.unique(labelled.labels[labelled.labels > 0]))
        scores.append(ImageScore(file.dataset, file.name, objects, size, **measured))
        if worst:
            examples.append(Example(scores[-1], labelled.image, labelled.labels, predicted))
            examples = sorted(examples, key=_accuracy)[:worst]
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
        corrective_clicks=corrective_clicks,
        box_jitter=jitter,
        seed=seed,
        images=tuple(scores),
        worst=tuple(examples),
    )


def _accuracy(example: Example) -> float:
    return mean_segmentation_accuracy(example.score.matchings)


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


def _check_extras(
    corrections: int, jitter: Sequence[float], worst: int, prompts: Sequence[str]
) -> tuple[float, ...]:
    """Return the degrees of carelessness, rising, the exact box among them."""
    if corrections < 0 or worst < 0:
        raise ConfigError(
            f"The number of corrective clicks is {corrections}, that of worst images {worst}; "
            "both are at least 0."
        )
    wrong = [degree for degree in jitter if not 0 <= degree < _UNUSABLE_JITTER]
    if wrong:
        raise ConfigError(
            f"The boxes' jitter is {list(jitter)}; each is a part of the box's side, at least 0 and below .5."
        )
    if worst and "everything" not in prompts:
        raise ConfigError(
            f"The {worst} worst images are those of lowest mSA, which everything mode gives; the prompts are "
            f"{', '.join(prompts)}. Add 'everything', or ask for no worst images."
        )
    return tuple(sorted({0.0, *(float(degree) for degree in jitter)}))


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
) -> Work[tuple[npt.NDArray[np.int32], dict[str, Any]]]:
    """Segment an image and match it with the truth; returns the labels and the figures."""
    start = time.perf_counter()
    embedding = segmenter.lazy_embedding(labelled.image, object_size=object_size, rgb=labelled.rgb)
    result = yield from segmenter.everything(embedding, EverythingConfig(object_size=object_size))
    seconds = time.perf_counter() - start
    overlaps = find_overlaps(labelled.labels, result.labels)
    boxes = proposed_boxes(segmenter, embedding, result.object_size)
    return result.labels, {
        "found": len(result.scores),
        "object_size_used": result.object_size,
        "matchings": tuple(match_overlaps(overlaps, threshold) for threshold in THRESHOLDS),
        "found_ious": tuple(overlaps.predicted_iou.tolist()),
        "found_predicted": tuple(result.scores[overlaps.predicted_ids - 1].tolist()),
        "proposals": None if boxes is None else len(boxes),
        "proposed": None if boxes is None else count_boxed(true_boxes(labelled.labels), boxes),
        "everything_seconds": seconds,
    }


def _score_prompts(
    segmenter: Segmenter,
    labelled: LabelledImage,
    object_size: float | None,
    objects_per_image: int | None,
    *,
    corrections: int | None,
    jitter: Sequence[float],
    rng: np.random.Generator,
) -> Work[dict[str, Any]]:
    """Click and box chosen objects one by one against one embedding of the image."""
    objects = choose_objects(labelled.labels, objects_per_image)
    if not objects:
        return {}
    start = time.perf_counter()
    embedding = segmenter.embed(labelled.image, object_size=object_size, rgb=labelled.rgb)
    measured: dict[str, Any] = {"embed_seconds": time.perf_counter() - start}
    if corrections is not None:
        first, *later = yield from click_rounds(segmenter, embedding, labelled.labels, objects, corrections)
        measured |= {
            "click_ious": first.ious,
            "click_predicted": first.predicted,
            "click_seconds": first.seconds,
            "corrected_ious": tuple(answers.ious for answers in later),
        }
    if jitter:
        exact, *careless = yield from box_levels(segmenter, embedding, labelled.labels, objects, jitter, rng)
        measured |= {
            "box_ious": exact.ious,
            "box_predicted": exact.predicted,
            "box_seconds": exact.seconds,
            "careless_ious": tuple(answers.ious for answers in careless),
        }
    return measured
