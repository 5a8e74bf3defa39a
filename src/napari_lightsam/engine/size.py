"""The typical object size of an image, from a coarse look at several scales."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.candidates import Candidates, concatenate
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.level import Embedding, Level
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import object_aware
from napari_lightsam.engine.scales import pyramid
from napari_lightsam.engine.select import plausible, suppress
from napari_lightsam.engine.walk import Walk
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    from napari_lightsam.engine.segmenter import Segmenter

_SIDE = 512  # frame pixels looked at, at each scale
_WIDEST = 4096  # image pixels of a part that is looked at: more of a large plane is never read
_SURER = (0.1, 0.2)  # above the thresholds of predicted IoU and stability: a few sure objects are enough
_PLACES = 5  # positions along each axis among which the part with most structure is chosen


def estimate_size(segmenter: Segmenter, embedding: Embedding) -> float | None:
    """Estimate the typical object diameter of a plane.

    Parameters
    ----------
    segmenter
        Its model must follow object size; for others the answer is None.
    embedding
        Its own object size, if any, is ignored.

    Returns
    -------
    float or None
        Equivalent circular diameter in pixels; None when nothing was found at any scale.

    Notes
    -----
    At each scale of the pyramid the part of the plane that has most structure is segmented object-aware, and
    objects within the range the model was trained on are kept. The scale at which they cover most of that
    part, weighted by their scores, wins; the size is the median diameter of its objects. Of a plane wider
    than 4096 pixels no larger part is looked at: objects of more than some 700 pixels are not found.
    """
    frame = segmenter.spec.frame
    if not isinstance(frame, ObjectFrame) or embedding.plane.blank:
        return None
    best: tuple[float, float] | None = None
    bare = replace(embedding, object_size=None)
    longest = max(embedding.shape)
    for scale in sorted(pyramid(bare, frame), reverse=True):
        if min(_SIDE / scale, longest) > _WIDEST:
            break
        part = _busiest_part(embedding, round(_SIDE / scale))
        evidence, diameter = _evidence(_look(segmenter, part, segmenter.level(part, scale)), frame)
        if evidence > 0 and (best is None or evidence > best[0]):
            best = evidence, diameter
    return None if best is None else best[1]


def _busiest_part(embedding: Embedding, side: int) -> Embedding:
    """Return the part of the plane, `side` pixels square at most, that has most contrast."""
    plane = embedding.plane
    spans = [min(side, length) for length in plane.shape]
    places = [
        np.unique(np.linspace(0, length - span, _PLACES).round().astype(int))
        for length, span in zip(plane.shape, spans, strict=True)
    ]
    corners = [(int(y), int(x)) for y in places[0] for x in places[1]]
    parts = [plane.part((y, y + spans[0]), (x, x + spans[1])) for y, x in corners]
    if len(parts) == 1:
        return Embedding(parts[0], None, embedding.model)
    return Embedding(max(parts, key=lambda part: part.contrast()), None, embedding.model)


def _look(segmenter: Segmenter, embedding: Embedding, level: Level) -> Candidates:
    """Find what the model is sure of in a part of the plane."""
    own = segmenter.spec.everything
    config = EverythingConfig(
        mode="object-aware",
        iou_threshold=min(own.iou_threshold + _SURER[0], 1.0),
        stability_threshold=min(own.stability_threshold + _SURER[1], 1.0),
    )
    walk = Walk(segmenter, embedding, config)
    parts = drain(walk.through(level, level.block_list(), object_aware))
    found = concatenate(parts, level)
    return found.take(walk.passing(found))


def _evidence(found: Candidates, frame: ObjectFrame) -> tuple[float, float]:
    """Return how well a scale explains the image, and the median diameter of its objects."""
    level = found.level
    scale = math.sqrt(level.scale[0] * level.scale[1])
    good = plausible(found, min_size=frame.smallest / scale * 0.8, max_size=frame.largest / scale * 1.2)
    found = found.take(good & ~found.cut)
    found = found.take(suppress(found, found.iou * found.stability, 0.5))
    if len(found) == 0:
        return 0.0, 0.0
    quality = found.iou * found.stability
    covered = (quality * found.areas).sum() / math.prod(level.shape)
    return float(covered), float(np.median(found.diameters))
