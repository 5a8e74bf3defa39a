"""What an evaluation measured: scores per image, summaries per set, the printed table and the JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.train.metrics import Matching, mean_segmentation_accuracy, pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.train.datasets import Group, Split


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
        IoU of each prompted object, in the order of their ids.
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
        Mean IoU over all prompted objects.
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
    everything_seconds: float | None = None
    embed_seconds: float | None = None
    click_seconds: float | None = None
    box_seconds: float | None = None


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
    images
        One score per image.
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
    images: tuple[ImageScore, ...]

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
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "images"},
            "overall": asdict(self.overall),
            "sets": {name: asdict(summary) for name, summary in self.sets.items()},
            "images": [_record(score) for score in self.images],
        }
        return json.dumps(_rounded(content), indent=1) + "\n"

    def to_markdown(self) -> str:
        """Draw a table with one row per set, and one for all images when there are several sets."""
        head = (
            f"{self.model} on {self.device} in {self.precision}, object size {_size_words(self.object_size)}"
        )
        rows = [*self.sets.items()]
        if len(rows) > 1:
            rows.append(("all images", self.overall))
        columns = [(title, cells) for title, cells in _columns(rows) if any(cell != "-" for cell in cells)]
        lines = [
            head,
            "",
            "| set | " + " | ".join(title for title, _ in columns) + " |",
            "|---|" + "---:|" * len(columns),
        ]
        for index, (name, _) in enumerate(rows):
            lines.append(f"| {name} | " + " | ".join(cells[index] for _, cells in columns) + " |")
        return "\n".join(lines) + "\n"


def summarise(scores: Sequence[ImageScore]) -> Summary:
    """Put the scores of several images together."""
    segmented = [score.matchings for score in scores if score.matchings]
    pooled = pool(segmented)
    position = {matching.threshold: index for index, matching in enumerate(pooled)}

    def per_image(threshold: float) -> float | None:
        return _mean([m[position[threshold]].average_precision for m in segmented]) if segmented else None

    clicks = [iou for score in scores for iou in score.click_ious]
    boxes = [iou for score in scores for iou in score.box_ious]
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
        everything_seconds=_mean([s.everything_seconds for s in scores if s.everything_seconds is not None]),
        embed_seconds=_mean([s.embed_seconds for s in scores if s.embed_seconds is not None]),
        click_seconds=_per_object(clicks, [s.click_seconds for s in scores]),
        box_seconds=_per_object(boxes, [s.box_seconds for s in scores]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _per_object(ious: Sequence[float], seconds: Sequence[float | None]) -> float | None:
    return sum(second for second in seconds if second is not None) / len(ious) if ious else None


def _record(score: ImageScore) -> dict[str, Any]:
    """One image as plain values: counts and derived figures in place of the matchings."""
    record = {f.name: getattr(score, f.name) for f in fields(score) if f.name != "matchings"}
    summary = summarise([score])
    record |= {"ap50": summary.ap50, "ap75": summary.ap75, "msa": summary.msa}
    record |= {"click_miou": summary.click_miou, "box_miou": summary.box_miou}
    return record


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def _size_words(object_size: str | float) -> str:
    return str(object_size) if isinstance(object_size, str) else f"{object_size:g} px"


def _columns(rows: Sequence[tuple[str, Summary]]) -> list[tuple[str, list[str]]]:
    """Title and cells of every column of the printed table."""
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
        ("box mIoU", "box_miou", ".3f"),
        ("s/image", "everything_seconds", ".2f"),
    )
    return [
        (title, ["-" if (value := getattr(row, name)) is None else format(value, form) for _, row in rows])
        for title, name, form in layout
    ]
