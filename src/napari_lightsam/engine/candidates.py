"""All candidates of a run at one scale: cropped logits and scores, never full-size masks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.config import Thresholds
from napari_lightsam.engine.footprints import Footprints, pack
from napari_lightsam.engine.masks import Mask, MaskLogits, crop_mask
from napari_lightsam.engine.resample import FloatArray, apply_weights, paste
from napari_lightsam.model.spec import LOGIT_STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.merge import Piece, Remainders

_NO_THRESHOLDS = Thresholds(0.0, 0.0)
_OUTSIDE = -10.0  # logit where nothing was kept: safely background


@dataclass(slots=True, eq=False)
class _Kept:
    """What was worked out about candidates and is needed again when they are filtered again."""

    footprints: Footprints | None = None
    pieces: dict[int, Piece] = field(default_factory=dict)
    remainders: Remainders = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """N mask candidates on the logit grid of one level.

    Attributes
    ----------
    level
        The scale they were decoded at.
    logits
        N arrays (h, w), float16, each cropped to its mask and one logit around it.
    origins
        int (N, 2), row and column of each crop on the level's logit grid.
    iou, stability
        float32 (N,), predicted IoU and stability score.
    areas
        float32 (N,), in image pixels, from the logits.
    boxes
        int (N, 4), (y0, x0, y1, x1) half-open, on the logit grid.
    cut
        bool (N,), the mask reaches a border of its decoding window that is no border of the image.
    prompts
        int (N,), index of the prompt each came from.
    points
        float32 (N, 2), (row, column) of that prompt's first point in image pixels; NaN for a box or mask.
    usual
        Thresholds that suit the scores of the model which made them.
    """

    level: Level
    logits: tuple[NDArray[np.float16], ...]
    origins: NDArray[np.intp]
    iou: FloatArray
    stability: FloatArray
    areas: FloatArray
    boxes: NDArray[np.intp]
    cut: NDArray[np.bool_]
    prompts: NDArray[np.intp]
    points: FloatArray
    usual: Thresholds = _NO_THRESHOLDS
    _kept: _Kept = field(default_factory=_Kept, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def diameters(self) -> FloatArray:
        """Equivalent circular diameters in image pixels."""
        return np.asarray(2 * np.sqrt(self.areas / math.pi), np.float32)

    @property
    def quality(self) -> FloatArray:
        """What candidates are ordered by: predicted IoU times stability."""
        return np.asarray(self.iou * self.stability, np.float32)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Candidates:
        """Return the chosen candidates, in the order of `index`."""
        chosen = np.arange(len(self))[index]
        arrays: dict[str, Any] = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        taken = Candidates(self.level, tuple(self.logits[i] for i in chosen), **arrays, usual=self.usual)
        drawn = self._kept.pieces
        if drawn:
            taken._kept.pieces.update({k: drawn[i] for k, i in enumerate(chosen.tolist()) if i in drawn})
        return taken

    def footprints(self) -> Footprints:
        """Return the positive logits as bits; packed once."""
        if self._kept.footprints is None:
            self._kept.footprints = pack(self)
        return self._kept.footprints

    def mask(self, i: int) -> Mask:
        """Draw one candidate at full resolution."""
        origin = int(self.origins[i, 0]), int(self.origins[i, 1])
        logits = MaskLogits(self.level, origin, self.logits[i].astype(np.float32))
        return draw(logits, (float(self.iou[i]), float(self.stability[i])))

    @property
    def remainders(self) -> Remainders:
        """What was left of overlapped candidates when they were drawn; `merge.Pile` fills it."""
        return self._kept.remainders

    def piece(self, i: int) -> Piece:
        """Draw one candidate as one object without small holes; drawn once and kept as bits."""
        from napari_lightsam.engine.merge import Piece

        drawn = self._kept.pieces.get(i)
        if drawn is None:
            drawn = self._kept.pieces[i] = Piece.of(self.mask(i).cleaned())
        return drawn


_ARRAYS = ("origins", "iou", "stability", "areas", "boxes", "cut", "prompts", "points")


def concatenate(parts: Sequence[Candidates], level: Level, usual: Thresholds = _NO_THRESHOLDS) -> Candidates:
    """Join candidates of one level, with what was drawn of them; no parts give an empty value."""
    numbers, places = np.zeros(0, np.float32), np.zeros((0, 2), np.intp)
    empty = Candidates(
        level,
        logits=(),
        origins=places,
        iou=numbers,
        stability=numbers,
        areas=numbers,
        boxes=np.zeros((0, 4), np.intp),
        cut=np.zeros(0, bool),
        prompts=np.zeros(0, np.intp),
        points=np.zeros((0, 2), np.float32),
    )
    parts = [empty, *parts]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS
    }
    crops = tuple(crop for part in parts for crop in part.logits)
    joined, first = Candidates(level, crops, **arrays, usual=usual), 0
    for part in parts:
        joined._kept.pieces.update({first + i: piece for i, piece in part._kept.pieces.items()})
        first += len(part)
    return joined


def collect(
    level: Level,
    logits: FloatArray,
    iou: FloatArray,
    origins: NDArray[np.intp],
    prompts: NDArray[np.intp],
    points: FloatArray,
    *,
    stability_offset: float,
    stability: FloatArray | None = None,
    min_iou: float = -np.inf,
    min_stability: float = -np.inf,
) -> Candidates:
    """Turn one decoded batch into candidates, dropping empty and poor ones before they are stored.

    Parameters
    ----------
    level
        Scale of the batch.
    logits, iou
        (N, M, h, w) and (N, M) from the decoder.
    origins
        (N, 2), where each prompt's window starts on the level's logit grid.
    prompts, points
        (N,) and (N, 2), as in `Candidates`.
    stability_offset
        Half the distance of the two logit levels that the stability score compares.
    stability
        (N, M), where it was measured already; else it is counted on the logits.
    min_iou, min_stability
        Candidates below are dropped.
    """
    n, m, height, width = logits.shape
    valid = _valid_logits(level, origins, (height, width))  # padding around the image is never object
    raw = logits.reshape(n * m, height, width)
    flat = np.where(np.repeat(valid, m, axis=0), raw, _OUTSIDE)
    if stability is None:
        upper = np.count_nonzero(flat > stability_offset, axis=(1, 2))
        lower = np.count_nonzero(flat > -stability_offset, axis=(1, 2))
        stability = (upper / np.maximum(lower, 1)).astype(np.float32)
    stability = stability.reshape(-1)
    inside: NDArray[np.bool_] = flat > 0
    area = np.count_nonzero(inside, axis=(1, 2))
    scores = iou.reshape(-1)
    good = np.flatnonzero((area > 0) & (scores > min_iou) & (stability >= min_stability))
    rows = np.asarray(inside[good].any(axis=2))
    columns = np.asarray(inside[good].any(axis=1))
    y0, y1 = rows.argmax(axis=1), height - rows[:, ::-1].argmax(axis=1)
    x0, x1 = columns.argmax(axis=1), width - columns[:, ::-1].argmax(axis=1)
    owner = good // m
    start = origins[owner]
    boxes = np.stack([y0, x0, y1, x1], axis=1) + np.tile(start, 2)
    cut = _reaches_inner_border(level, boxes, start, (height, width))
    top, left = np.maximum(y0 - 1, 0), np.maximum(x0 - 1, 0)
    # In a fixed frame the last image pixels are interpolated with the first logit of the padding, too.
    kept = raw if level.fixed else flat
    crops = tuple(
        kept[g, a : b + 1, c : d + 1].astype(np.float16)
        for g, a, b, c, d in zip(good, top, y1, left, x1, strict=True)
    )
    return Candidates(
        level,
        crops,
        start + np.stack([top, left], axis=1),
        scores[good].astype(np.float32),
        stability[good],
        (area[good] * level.logit_area).astype(np.float32),
        boxes,
        cut,
        prompts[owner],
        points[owner].astype(np.float32),
    )


def _valid_logits(level: Level, origins: NDArray[np.intp], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which logits (N, h, w) of each window show image."""
    rows = np.asarray(origins[:, 0, None] + np.arange(size[0]) < level.logit_shape[0])
    columns = np.asarray(origins[:, 1, None] + np.arange(size[1]) < level.logit_shape[1])
    return np.asarray(rows[:, :, None] & columns[:, None, :])


def _reaches_inner_border(
    level: Level, boxes: NDArray[np.intp], start: NDArray[np.intp], size: tuple[int, int]
) -> NDArray[np.bool_]:
    end = start + np.asarray(size)
    limit = np.asarray(level.logit_shape)
    low = (boxes[:, :2] <= start) & (start > 0)
    high = (boxes[:, 2:] >= end) & (end < limit)
    return np.asarray((low | high).any(axis=1))


def draw(logits: MaskLogits, scores: tuple[float, float] = (1.0, 1.0)) -> Mask:
    """Interpolate logits to image pixels, inside their bounding box only, and threshold at 0.

    Parameters
    ----------
    logits
        With a margin of one negative logit wherever the object does not end at a border.
    scores
        Predicted IoU and stability score to carry over.
    """
    level, origin, values = logits.level, logits.origin, logits.values
    ranges = [_image_range(level, axis, origin[axis], origin[axis] + values.shape[axis]) for axis in (0, 1)]
    rows, columns = (level.mask_weights(axis, ranges[axis]) for axis in (0, 1))
    padded = np.full((rows.stop - rows.start, columns.stop - columns.start), _OUTSIDE, np.float32)
    paste(padded, values, (origin[0] - rows.start, origin[1] - columns.start))
    inside = apply_weights(padded, rows, columns) > 0
    mask = crop_mask(inside, (ranges[0][0], ranges[1][0]))
    return Mask(mask.offset, mask.crop, *scores, logits)


def _image_range(level: Level, axis: int, start: int, stop: int) -> tuple[int, int]:
    """Return the image pixels along an axis that logits `[start, stop)` can reach."""
    pixels = LOGIT_STRIDE / level.scale[axis]
    first = math.floor((start - 0.5) * pixels) - 1
    last = math.ceil((stop + 0.5) * pixels) + 1
    return max(0, min(first, level.shape[axis] - 1)), min(level.shape[axis], max(last, 1))
