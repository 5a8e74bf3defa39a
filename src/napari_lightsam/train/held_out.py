"""The part of corrected images that is held out: how well a model does on it, and a picture of that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.image import Plane, prepare_plane
from napari_lightsam.engine.level import Embedding
from napari_lightsam.engine.progress import Progress, Work, relay
from napari_lightsam.errors import TrainError
from napari_lightsam.formats.overlay import draw_overlay
from napari_lightsam.train.corrections import Corrected, Division, numbered
from napari_lightsam.train.metrics import match
from napari_lightsam.train.probing import box_levels, choose_objects, click_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.engine.segmenter import Segmenter

T = TypeVar("T")

_MOST_ASKED = 40  # objects that are prompted one by one
_LEAST_GAIN = 0.01  # of the score: less is no improvement
_GAP = 8  # pixels between the halves of a picture


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did on the held-out part.

    Attributes
    ----------
    click, box
        Mean IoU of the answers to one click and to the bounding box of each object.
    everything
        Average precision of everything mode at IoU .5.
    """

    click: float
    box: float
    everything: float

    @property
    def mean(self) -> float:
        """The one number that must rise."""
        return (self.click + self.box + self.everything) / 3

    def __str__(self) -> str:
        return f"click {self.click:.3f}, box {self.box:.3f}, everything {self.everything:.3f}"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The held-out part with what was found in it.

    Attributes
    ----------
    image
        (h, w) or (h, w, C), as given.
    truth, before, after
        int32 (h, w): the user's labels, and what everything mode found before and after.
    """

    image: npt.NDArray[Any]
    truth: npt.NDArray[np.int32]
    before: npt.NDArray[np.int32]
    after: npt.NDArray[np.int32]

    def draw(self) -> npt.NDArray[np.uint8]:
        """Draw before and after side by side, (H, W, 3)."""
        halves = [draw_overlay(self.image, labels) for labels in (self.before, self.after)]
        gap = np.full((halves[0].shape[0], _GAP, 3), 255, np.uint8)
        return np.concatenate([halves[0], gap, halves[1]], axis=1)


def gained(before: Score, after: Score) -> str:
    """Say what changed from one score to the other.

    Examples
    --------
    >>> gained(Score(0.4, 0.6, 0.3), Score(0.5, 0.7, 0.45))
    'one click 0.40 -> 0.50, box 0.60 -> 0.70, everything 0.30 -> 0.45'
    """
    return (
        f"one click {before.click:.2f} -> {after.click:.2f}, box {before.box:.2f} -> {after.box:.2f}, "
        f"everything {before.everything:.2f} -> {after.everything:.2f}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """The part that is tested on.

    Attributes
    ----------
    image
        (h, w) or (h, w, C), as given.
    plane
        The same, normalised as a part of its whole image: that is how the user will ask about it.
    labels
        int32 (h, w), ids from 1 on.
    object_size
        Typical diameter in pixels, which the model is told.
    """

    image: npt.NDArray[Any]
    plane: Plane
    labels: npt.NDArray[np.int32]
    object_size: float

    @staticmethod
    def of(corrected: Sequence[Corrected], division: Division) -> HeldOut:
        """Cut out the part that a division holds out."""
        item, (rows, columns) = corrected[division.held_out.image], division.held_out.slices
        plane = prepare_plane(item.image, rgb=item.rgb).part(
            (rows.start, rows.stop), (columns.start, columns.stop)
        )
        labels = numbered(item.labels[rows, columns])[1]
        return HeldOut(np.array(item.image[rows, columns]), plane, labels, division.object_size)

    def judge(self, segmenter: Segmenter, stage: str) -> Work[tuple[Score, npt.NDArray[np.int32]]]:
        """Score a model; also return what everything mode found."""
        yield Progress(stage, 0, 3)
        config = EverythingConfig(object_size=self.object_size)
        embedding = Embedding(self.plane, self.object_size, segmenter.weights_hash)
        found = yield from _as_stage(segmenter.everything(embedding, config=config), stage, 0)
        objects = choose_objects(self.labels, _MOST_ASKED)
        clicks = yield from _as_stage(click_rounds(segmenter, embedding, self.labels, objects, 0), stage, 1)
        exact = np.random.default_rng(0)  # draws nothing that counts: the boxes are drawn without error
        boxes = yield from _as_stage(
            box_levels(segmenter, embedding, self.labels, objects, (0.0,), exact), stage, 2
        )
        score = Score(
            float(np.mean(clicks[0].ious)),
            float(np.mean(boxes[0].ious)),
            match(self.labels, found.labels)[0].average_precision,
        )
        return score, found.labels


def _as_stage(work: Work[T], stage: str, done: int) -> Work[T]:
    """Run some work as a part of a stage."""
    return relay(work, lambda _: Progress(stage, done, 3))


def check_gain(before: Score, after: Score, division: Division) -> None:
    """Refuse a model that did not get better.

    Raises
    ------
    TrainError
        The mean of its score did not rise; the message has the figures, and says what may help.
    """
    if after.mean >= before.mean + _LEAST_GAIN:
        return
    learned, tested = division.objects
    raise TrainError(
        f"Nothing was saved, because the model did not get better on the {tested} objects that were held out "
        f"({gained(before, after)}; {learned} objects were learned from). Correct more objects, check that "
        "every object in the corrected regions has a label, or give it more minutes."
    )
