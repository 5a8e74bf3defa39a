"""One object followed through neighbouring planes of a stack: mask to prompts to mask, until it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.carry import carry
from napari_lightsam.engine.config import check_ranges, ranged
from napari_lightsam.engine.given import as_segmenter, check_size
from napari_lightsam.engine.level import Embedding
from napari_lightsam.engine.masks import Mask, clean_object, crop_mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.stack import Planes
from napari_lightsam.errors import ConfigError, ImageError, PromptError
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

    from napari_lightsam.engine.image import ArrayLike as ImageArray
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter

Direction = Literal["forward", "backward", "both"]
_WAYS: dict[str, tuple[int, ...]] = {"forward": (1,), "backward": (-1,), "both": (1, -1)}

_LEAST_AREA = 4  # pixels; of less nothing can be followed
_BAND = 0.15  # of the diameter: how far the model may move the edge away from where it was carried to
_LEAST_BAND = 2  # pixels


class Ending(StrEnum):
    """Why a direction ended; its value is what a user reads."""

    EDGE = "the stack ends"
    SCORE = "low score"
    GONE = "the object vanished"
    JUMP = "its area jumped"
    LIMIT = "the last plane that was asked for"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class PropagateConfig:
    """When an object counts as ended, and when the model has a say in its outline.

    Each field's `metadata` carries `help`, `unit` and `range`.

    Raises
    ------
    ConfigError
        If a value is outside its range.

    Examples
    --------
    >>> PropagateConfig(max_jump=3).min_score
    0.5
    """

    min_score: float = ranged(0.5, "Least score of a plane; below it the object has ended", "", 0, 1)
    min_area: float = ranged(
        0.05, "Least part of the first plane's area; below it the object has vanished", "", 0, 1
    )
    max_jump: float = ranged(
        2.0, "Largest ratio of the areas of neighbouring planes; beyond it something else was found", "", 1
    )
    min_trust: float = ranged(
        0.8,
        "The model has a say in the outline of objects that it outlines like this on the first plane (IoU "
        "with the mask that was given)",
        "",
        0,
        1,
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, slots=True, eq=False)
class Found(Progress):
    """Progress that brings the object on one more plane.

    Attributes
    ----------
    plane
        Number of the plane.
    mask
        The object there, in pixels of the plane.
    score
        0 to 1: how sure it is that this is the same object, see `propagate`.
    """

    plane: int = 0
    mask: Mask = field(default_factory=lambda: crop_mask(np.zeros((1, 1), bool)))
    score: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Propagation:
    """An object through a stack.

    Attributes
    ----------
    start
        The plane whose mask was given.
    masks
        The object by plane, without the plane `start`.
    scores
        One for each of `masks`.
    endings
        By +1 (forward) and -1 (backward), where asked: the plane that the object was not found on any more,
        and why.
    trust
        IoU of the model's own outline on the plane `start` with the mask that was given.
    """

    start: int
    masks: Mapping[int, Mask]
    scores: Mapping[int, float]
    endings: Mapping[int, tuple[int, Ending]]
    trust: float

    @property
    def score(self) -> float | None:
        """The lowest score; None where nothing was found."""
        return min(self.scores.values(), default=None)


def propagate(
    stack: ImageArray,
    start: int,
    mask: ArrayLike | Mask,
    *,
    axis: int = 0,
    direction: Direction = "both",
    within: tuple[int, int] | None = None,
    model: str | os.PathLike[str] | Segmenter = "lightsam",
    object_size: float | None = None,
    rgb: bool | None = None,
    config: PropagateConfig | None = None,
    stop: Callable[[], bool] | None = None,
) -> Work[Propagation]:
    """Follow an object from one plane through its neighbours; a generator that returns a `Propagation`.

    Planes before and after are never touched twice, and none is written: what to do with the masks is the
    caller's choice. To correct a plane, correct its mask and propagate from there in one direction.

    Parameters
    ----------
    stack
        (Z, H, W), or (Z, H, W, C); any real dtype. Read plane by plane, lazily.
    start
        Number of the plane that `mask` is of.
    mask
        bool (H, W), or a `Mask`.
    axis
        The axis of the planes.
    direction
        `forward` to higher plane numbers, `backward` to lower ones, or `both`.
    within
        First plane, and one past the last, that the object may be followed to; None: all.
    model
        A name, the path of a checkpoint, or a loaded `Segmenter`.
    object_size
        As for `Segmenter.embed`.
    rgb
        The last axis is colour. None: only for uint8 with 3 or 4 samples.
    config
        When to end; None means the defaults.
    stop
        Asked before each plane; once it says True, the run ends with what it has.

    Yields
    ------
    Progress
        Of them a `Found` for every plane.

    Returns
    -------
    Propagation

    Raises
    ------
    ImageError
        The array is no stack, has no plane `start`, or a plane cannot be read; the message names it.
    PromptError
        The mask is empty or of another shape.
    ConfigError
        There is no such direction.

    Notes
    -----
    The mask is carried to the next plane by the motion of the picture (`carry`). Box, innermost point and
    mask of what arrives there are the model's prompt, and within a narrow band around the carried edge its
    answer wins, if it can be trusted: if, on the plane that was given, it outlines the object as the user
    did. The score of a plane is then the model's predicted IoU; else the correlation of the carried picture
    with the one that is there, times the score of the plane before, as small errors add up.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam import load_segmenter
    >>> from napari_lightsam.engine.progress import drain
    >>> from napari_lightsam.samples import read_sample
    >>> plane = read_sample("nuclei_fluorescence")[170:266, 330:436]
    >>> segmenter = load_segmenter()
    >>> nucleus = segmenter.predict(segmenter.embed(plane, object_size=26), points=[(49, 53)]).best(0)
    >>> found = drain(propagate(np.stack([plane] * 3), 1, nucleus, model=segmenter, object_size=26))
    >>> sorted(found.masks), found.endings[1]
    ([0, 2], (3, <Ending.EDGE: 'the stack ends'>))
    """
    ways = _WAYS.get(direction)
    if ways is None:
        raise ConfigError(f"direction must be {', '.join(_WAYS)}; got {direction!r}.")
    planes = Planes.of(stack, axis, rgb)
    given = _check_mask(planes, start, mask)
    check_size(object_size)
    segmenter = as_segmenter(model)
    limits = (0, len(planes)) if within is None else (max(0, within[0]), min(len(planes), within[1]))
    run = _Run(segmenter, planes, object_size, config or PropagateConfig(), limits, stop)
    yield Progress("looking at the object", 0, 0)
    run.trust = run.trust_in_model(start, given)
    endings = {}
    for way in ways:
        endings[way] = yield from run.go(start, given, way)
    return Propagation(start, run.masks, run.scores, endings, run.trust)


def _check_mask(planes: Planes, start: int, mask: ArrayLike | Mask) -> Mask:
    if not 0 <= start < len(planes):
        raise ImageError(f"There is no plane {start}: the stack has planes 0 to {len(planes) - 1}.")
    shape = tuple(n for k, n in enumerate(planes.shape) if k != planes.axis)
    if not isinstance(mask, Mask):
        array = np.asarray(mask)
        if array.dtype != bool or array.shape != shape:
            raise PromptError(
                f"mask must be bool of shape {shape}, as the planes are; got {array.dtype} of {array.shape}."
            )
        mask = crop_mask(array)
    y0, x0, y1, x1 = mask.box
    if not mask.area:
        raise PromptError("The mask is empty: there is no object to follow on this plane.")
    if min(y0, x0) < 0 or y1 > shape[0] or x1 > shape[1]:
        raise PromptError(f"The mask reaches to {mask.box}, beyond the planes of {shape}.")
    return mask


@dataclass(slots=True, eq=False)
class _Run:
    """An object on its way through a stack."""

    segmenter: Segmenter
    planes: Planes
    object_size: float | None
    config: PropagateConfig
    limits: tuple[int, int]
    stop: Callable[[], bool] | None
    trust: float = 0.0
    masks: dict[int, Mask] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def embed(self, number: int) -> Embedding:
        """Make a plane ready as a click on it does, so that each finds what the other has encoded."""
        size = self.object_size if isinstance(self.segmenter.spec.frame, ObjectFrame) else None
        return Embedding(self.planes.read(number), size, self.segmenter.weights_hash)

    def trust_in_model(self, start: int, given: Mask) -> float:
        """Return how well the model outlines the object where its outline is known."""
        return self.ask(self.embed(start), given).iou_with(given)

    def ask(self, embedding: Embedding, near: Mask) -> Mask:
        """Ask the model for the object that lies about where a mask is."""
        masks = self.segmenter.predict(
            embedding, points=[[near.innermost]], boxes=[near.box], mask=near, multimask=False
        )
        return masks.best(0)

    def go(self, start: int, given: Mask, way: int) -> Work[tuple[int, Ending]]:
        """Follow the object in one direction; returns the first plane without it, and why."""
        last, sure, least = given, 1.0, max(_LEAST_AREA, self.config.min_area * given.area)
        ready = self.embed(start)
        total = max(0, self.limits[1] - 1 - start if way > 0 else start - self.limits[0])
        for done in range(total):
            number = start + way * (done + 1)
            if self.stop is not None and self.stop():
                return number, Ending.STOPPED
            yield Progress(f"plane {number + 1} of {len(self.planes)}", done, total)
            before, ready = ready, self.embed(number)
            found, score = self.follow(last, sure, before, ready)
            if found.area < least:
                return number, Ending.GONE
            if score < self.config.min_score:
                return number, Ending.SCORE
            if not 1 / self.config.max_jump <= found.area / last.area <= self.config.max_jump:
                return number, Ending.JUMP
            self.masks[number], self.scores[number] = found, score
            last, sure = found, score
            stage = f"plane {number + 1} of {len(self.planes)}"
            yield Found(stage, done + 1, total, plane=number, mask=found, score=score)
        beyond = start + way * (total + 1)
        return beyond, Ending.LIMIT if 0 <= beyond < len(self.planes) else Ending.EDGE

    def follow(self, last: Mask, sure: float, before: Embedding, after: Embedding) -> tuple[Mask, float]:
        """Return the object on the next plane, and how sure that is."""
        moved, match = carry(last, before.plane, after.plane)
        if not moved.area or self.trust < self.config.min_trust:
            return moved, sure * match  # each plane adds its error to those before
        answer = self.ask(after, moved)
        return within_band(answer, moved), answer.iou


def within_band(answer: Mask, carried: Mask) -> Mask:
    """Return what the model says near the edge of a carried mask, and that mask elsewhere."""
    reach = max(_LEAST_BAND, round(_BAND * carried.diameter))
    y0, x0, y1, x1 = carried.box
    box = (y0 - reach, x0 - reach, y1 + reach, x1 + reach)
    known = np.pad(carried.crop, reach)
    said = answer.part(box)
    steps = np.ones((3, 3), bool)
    outer = ndimage.binary_dilation(known, steps, iterations=reach)
    # a thin object has no inside that is far from its edge: its axis stays all the same
    inner = ndimage.binary_erosion(known, steps, iterations=min(reach, max(1, round(carried.diameter / 8))))
    kept = (said & outer) | inner
    at = carried.innermost
    seed = round(at[0]) - box[0], round(at[1]) - box[1]
    return crop_mask(clean_object(kept, seed), box[:2]) if kept.any() else carried
