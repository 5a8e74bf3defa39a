"""What an evaluation measured: scores per image, summaries per set, the printed table and the JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.train.calibration import Calibration, calibrate
from napari_lightsam.train.metrics import THRESHOLDS, Matching, mean_segmentation_accuracy, pool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_lightsam.train.datasets import Group, Split


_LONG = ("matchings", "corrected_ious", "careless_ious", "found_ious", "found_predicted")
_DERIVED = ("ap50", "ap75", "msa", "ap_curve", "click_miou", "box_miou", "click_curve", "box_curve")


@dataclass(frozen=True, slots=True)
class ImageScore:
    """Everything measured on one image; parts that were not asked for are empty or `None`.

    Attributes
    ----------
    dataset, name
        Set and image.
    objects, found
        Objects in the truth, and in the everything result.
    object_size
        Diameter handed to the segmenter in pixels; `None` where it estimated the size itself.
    object_size_used
        Diameter that everything mode worked with.
    matchings
        One per threshold of `metrics.THRESHOLDS`.
    click_ious, box_ious
        IoU of each prompted object, in the order of their ids: after one click, and in its exact box.
    click_predicted, box_predicted
        IoU that the model predicted for the same masks.
    corrected_ious
        After each further, corrective click: IoU of each prompted object.
    careless_ious
        For each degree of carelessness above 0: IoU of each prompted object in its box.
    found_ious, found_predicted
        Of each object that everything mode found: best IoU with a true object, and predicted IoU.
    proposals, proposed
        Boxes that the model's head proposed, and true objects that one of them covers with an IoU of at
        least .5; `None` for a model without such a head.
    everything_seconds, embed_seconds, click_seconds, box_seconds
        Wall-clock times; everything includes its own encoding, click and box are for all objects.
    """

    dataset: str
    name: str
    objects: int
    object_size: float | None = None
    found: int | None = None
    object_size_used: float | None = None
    matchings: tuple[Matching, ...] = ()
    click_ious: tuple[float, ...] = ()
    box_ious: tuple[float, ...] = ()
    click_predicted: tuple[float, ...] = ()
    box_predicted: tuple[float, ...] = ()
    corrected_ious: tuple[tuple[float, ...], ...] = ()
    careless_ious: tuple[tuple[float, ...], ...] = ()
    found_ious: tuple[float, ...] = ()
    found_predicted: tuple[float, ...] = ()
    proposals: int | None = None
    proposed: int | None = None
    everything_seconds: float | None = None
    embed_seconds: float | None = None
    click_seconds: float | None = None
    box_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of several images together; `None` where nothing was measured.

    Attributes
    ----------
    images, objects, prompted
        Images, true objects, and objects that were prompted one by one.
    ap50, ap75, msa
        Average precision at IoU .5 and .75 and its mean over .50:.05:.95, each the mean over images.
    ap50_pooled, ap75_pooled, msa_pooled
        The same from the counts of all images together.
    panoptic_quality
        From the counts of all images together, at IoU .5.
    click_miou, box_miou
        Mean IoU over all prompted objects, after one click and in the exact box.
    corrected_miou
        The same after the last corrective click.
    ap_curve, ap_curve_pooled
        Average precision at each of `metrics.THRESHOLDS`, the mean over images and from all counts together.
    click_curve
        Mean IoU after 1, 2, 3 ... clicks.
    box_curve
        Mean IoU for each degree of carelessness that boxes were drawn with.
    prompted_calibration, everything_calibration
        Predicted against true IoU: of the answers to one click and to an exact box, and of the objects that
        everything mode found.
    proposal_recall
        Part of the true objects that a box of the proposal head covers with an IoU of at least .5.
    proposals_per_object
        Proposals over true objects.
    everything_seconds, embed_seconds
        Mean time per image.
    click_seconds, box_seconds
        Mean time per prompted object, decoding only.
    """

    images: int
    objects: int
    prompted: int
    ap50: float | None = None
    ap75: float | None = None
    msa: float | None = None
    ap50_pooled: float | None = None
    ap75_pooled: float | None = None
    msa_pooled: float | None = None
    panoptic_quality: float | None = None
    click_miou: float | None = None
    box_miou: float | None = None
    corrected_miou: float | None = None
    ap_curve: tuple[float, ...] = ()
    ap_curve_pooled: tuple[float, ...] = ()
    click_curve: tuple[float, ...] = ()
    box_curve: tuple[float, ...] = ()
    prompted_calibration: Calibration | None = None
    everything_calibration: Calibration | None = None
    proposal_recall: float | None = None
    proposals_per_object: float | None = None
    everything_seconds: float | None = None
    embed_seconds: float | None = None
    click_seconds: float | None = None
    box_seconds: float | None = None

    @property
    def prompted_error(self) -> float | None:
        """Mean absolute error of the predicted IoU of prompted objects."""
        found = self.prompted_calibration
        return None if found is None else found.mean_absolute_error

    @property
    def everything_error(self) -> float | None:
        """Mean absolute error of the predicted IoU of the objects that everything mode found."""
        found = self.everything_calibration
        return None if found is None else found.mean_absolute_error


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """An image with what is there and what was found, kept to be looked at.

    Attributes
    ----------
    score
        What was measured on it.
    image, truth, predicted
        (H, W) or (H, W, C), and two label images (H, W).
    """

    score: ImageScore
    image: NDArray[Any]
    truth: NDArray[np.int32]
    predicted: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of `evaluate`: how it was run and one `ImageScore` per image.

    Attributes
    ----------
    model, weights_hash, device, precision
        The segmenter.
    object_size
        What was asked for: ``"estimated"``, ``"true"`` or a diameter in pixels.
    split, group, limit, objects_per_image
        Which images and objects.
    corrective_clicks, box_jitter, seed
        How many clicks followed the first one, the degrees of carelessness of the boxes, and what the
        random numbers of these started from.
    images
        One score per image.
    worst
        The images of lowest mSA, worst first, as many as were asked for.
    """

    model: str
    weights_hash: str
    device: str
    precision: str
    object_size: str | float
    split: Split
    group: Group
    limit: int | None
    objects_per_image: int | None
    corrective_clicks: int
    box_jitter: tuple[float, ...]
    seed: int
    images: tuple[ImageScore, ...]
    worst: tuple[Example, ...] = ()

    @property
    def overall(self) -> Summary:
        """Figures of all images together."""
        return summarise(self.images)

    @property
    def sets(self) -> dict[str, Summary]:
        """Figures of each set, by name, sorted."""
        names = sorted({score.dataset for score in self.images})
        return {name: summarise([s for s in self.images if s.dataset == name]) for name in names}

    def to_json(self) -> str:
        """Write settings, summaries and one record per image as JSON, rounded to four decimals."""
        content = {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("images", "worst")},
            "iou_thresholds": THRESHOLDS,
            "overall": asdict(self.overall),
            "sets": {name: asdict(summary) for name, summary in self.sets.items()},
            "images": [_record(score) for score in self.images],
            "worst": [_named(example.score) for example in self.worst],
        }
        return json.dumps(_rounded(content), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Draw a table with one row per set, and one for all images when there are several sets."""
        rows = self.rows
        columns = [(title, cells) for title, cells in _columns(rows, self.corrective_clicks) if any(cells)]
        lines = [
            self.title,
            "",
            *draw_table(
                ["set", *(title for title, _ in columns)],
                [
                    [name, *(cells[index] or "-" for _, cells in columns)]
                    for index, (name, _) in enumerate(rows)
                ],
            ),
        ]
        return "\n".join(lines) + "\n"

    @property
    def title(self) -> str:
        """What was evaluated and how, in one line."""
        size = self.object_size if isinstance(self.object_size, str) else f"{self.object_size:g} px"
        return f"{self.model} on {self.device} in {self.precision}, object size {size}"

    @property
    def rows(self) -> list[tuple[str, Summary]]:
        """Name and figures of each set, and of all images when there are several sets."""
        rows = [*self.sets.items()]
        return rows if len(rows) == 1 else [*rows, ("all images", self.overall)]


def draw_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: the first column to the left, numbers to the right."""
    head = ["| " + " | ".join(titles) + " |", "|---|" + "---:|" * (len(titles) - 1)]
    return [*head, *("| " + " | ".join(cells) + " |" for cells in rows)]


def summarise(scores: Sequence[ImageScore]) -> Summary:
    """Put the scores of several images together."""
    segmented = [score.matchings for score in scores if score.matchings]
    pooled = pool(segmented)
    position = {matching.threshold: index for index, matching in enumerate(pooled)}

    def per_image(threshold: float) -> float | None:
        return _mean([m[position[threshold]].average_precision for m in segmented]) if segmented else None

    clicks = _joined(score.click_ious for score in scores)
    boxes = _joined(score.box_ious for score in scores)
    click_curve = _curve(clicks, [score.corrected_ious for score in scores])
    headed = [score for score in scores if score.proposals is not None]
    headed_objects = sum(score.objects for score in headed)
    return Summary(
        images=len(scores),
        objects=sum(score.objects for score in scores),
        prompted=sum(max(len(score.click_ious), len(score.box_ious)) for score in scores),
        ap50=per_image(0.5),
        ap75=per_image(0.75),
        msa=_mean([mean_segmentation_accuracy(matchings) for matchings in segmented]),
        ap50_pooled=pooled[position[0.5]].average_precision if pooled else None,
        ap75_pooled=pooled[position[0.75]].average_precision if pooled else None,
        msa_pooled=mean_segmentation_accuracy(pooled) if pooled else None,
        panoptic_quality=pooled[position[0.5]].panoptic_quality if pooled else None,
        click_miou=_mean(clicks),
        box_miou=_mean(boxes),
        corrected_miou=click_curve[-1] if len(click_curve) > 1 else None,
        ap_curve=tuple(per_image(matching.threshold) or 0.0 for matching in pooled),
        ap_curve_pooled=tuple(matching.average_precision for matching in pooled),
        click_curve=click_curve,
        box_curve=_curve(boxes, [score.careless_ious for score in scores]),
        prompted_calibration=calibrate(
            _joined((*score.click_predicted, *score.box_predicted) for score in scores),
            _joined((*score.click_ious, *score.box_ious) for score in scores),
        ),
        everything_calibration=calibrate(
            _joined(score.found_predicted for score in scores), _joined(score.found_ious for score in scores)
        ),
        proposal_recall=_ratio(sum(score.proposed or 0 for score in headed), headed_objects),
        proposals_per_object=_ratio(sum(score.proposals or 0 for score in headed), headed_objects),
        everything_seconds=_mean([s.everything_seconds for s in scores if s.everything_seconds is not None]),
        embed_seconds=_mean([s.embed_seconds for s in scores if s.embed_seconds is not None]),
        click_seconds=_per_object(clicks, [s.click_seconds for s in scores]),
        box_seconds=_per_object(boxes, [s.box_seconds for s in scores]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _joined(values: Iterable[Iterable[float]]) -> list[float]:
    return list(chain.from_iterable(values))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _curve(first: Sequence[float], later: Sequence[Sequence[Sequence[float]]]) -> tuple[float, ...]:
    """Mean IoU of each round over the objects of all images; `later` holds, by image, the further rounds."""
    if not first:
        return ()
    rounds = zip(*[image for image in later if image], strict=True)
    return tuple(float(np.mean(values)) for values in (first, *(_joined(parts) for parts in rounds)))


def _per_object(ious: Sequence[float], seconds: Sequence[float | None]) -> float | None:
    return sum(second for second in seconds if second is not None) / len(ious) if ious else None


def _record(score: ImageScore) -> dict[str, Any]:
    """One image as plain values: counts and derived figures in place of the longest lists."""
    record = {f.name: getattr(score, f.name) for f in fields(score) if f.name not in _LONG}
    summary = asdict(summarise([score]))
    return record | {name: summary[name] for name in _DERIVED}


def _named(score: ImageScore) -> dict[str, Any]:
    msa = mean_segmentation_accuracy(score.matchings)
    return {"dataset": score.dataset, "name": score.name, "msa": msa}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _columns(rows: Sequence[tuple[str, Summary]], corrections: int) -> list[tuple[str, list[str]]]:
    """Title and cells of every column of the printed table; a cell is empty where nothing was measured."""
    layout = (
        ("images", "images", "d"),
        ("objects", "objects", "d"),
        ("AP .5", "ap50", ".3f"),
        ("AP .75", "ap75", ".3f"),
        ("mSA", "msa", ".3f"),
        ("AP .5 pooled", "ap50_pooled", ".3f"),
        ("mSA pooled", "msa_pooled", ".3f"),
        ("PQ", "panoptic_quality", ".3f"),
        ("click mIoU", "click_miou", ".3f"),
        (f"+{corrections} click{'s' if corrections > 1 else ''}", "corrected_miou", ".3f"),
        ("box mIoU", "box_miou", ".3f"),
        ("IoU error, prompted", "prompted_error", ".3f"),
        ("IoU error, everything", "everything_error", ".3f"),
        ("proposal recall", "proposal_recall", ".3f"),
        ("proposals/object", "proposals_per_object", ".2f"),
        ("s/image", "everything_seconds", ".2f"),
    )
    return [(title, [as_cell(getattr(row, name), form) for _, row in rows]) for title, name, form in layout]


def as_cell(value: float | None, form: str = ".3f") -> str:
    """Format a figure; empty where nothing was measured."""
    return "" if value is None else format(value, form)
