"""Which scales a model that follows object size looks at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.model.spec import STRIDE, ObjectFrame

if TYPE_CHECKING:
    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.prompts import Prompts

_FINEST = 4.0  # frame pixels per image pixel: objects of 6 px reach the model's range
_COARSEST_SIDE = 128  # frame pixels; nothing is gained below half a window
_ROOM = 0.85  # part of a window that prompts may span, so that the object fits as well


def pyramid(embedding: Embedding, frame: ObjectFrame) -> tuple[float, ...]:
    """Return the scales of an embedding in octaves, the object size's own scale first.

    Without an object size the first scale is 1, followed by the finer one and then the coarser ones.
    """
    base = min(frame.target / embedding.object_size, _FINEST) if embedding.object_size else 1.0
    limit = min(1.0, _COARSEST_SIDE / max(embedding.shape))
    finer = [2 * base] if 2 * base <= _FINEST and embedding.object_size is None else []
    coarser = [base / 2**k for k in range(1, 16) if base / 2**k >= limit]
    return (base, *finer, *coarser)


def scales_for(
    embedding: Embedding, prompts: Prompts, frame: ObjectFrame, window: int
) -> list[tuple[float | None, ...]]:
    """Return, for each object, the scales to decode it at.

    A known size (of the image's objects, of the prompt's box or mask) gives one scale; a click on an image
    of unknown object size gives all scales at which its points share a window.
    """
    scales = pyramid(embedding, frame)
    extents, sizes = prompts.extents(), prompts.sizes()
    spans = (extents[:, 2:] - extents[:, :2]).max(axis=1)
    room = window * STRIDE * _ROOM if window else math.inf
    chosen: list[tuple[float | None, ...]] = []
    for span, size in zip(spans, sizes, strict=True):
        fitting = [s for s in scales if span * s <= room] or [room / span]
        if np.isfinite(size):
            fits_base = embedding.object_size and frame.smallest <= size * fitting[0] <= frame.largest
            best = fitting[0] if fits_base else _nearest(fitting, frame.target / max(size, 1.0))
            chosen.append((best,))
        elif embedding.object_size:
            chosen.append((fitting[0],))
        else:
            chosen.append(tuple(fitting))
    return chosen


def _nearest(scales: list[float], wanted: float) -> float:
    wanted = min(wanted, _FINEST)
    octave = 2.0 ** round(math.log2(wanted))
    return min(
        [*scales, octave] if octave > max(scales) else scales, key=lambda s: abs(math.log2(s / wanted))
    )


def escape_scale(candidates: Candidates, frame: ObjectFrame, window: int) -> float | None:
    """Return the scale to try next for an object whose best mask is cut by its window, else None."""
    if len(candidates) == 0:
        return None
    best = int(np.argmax(candidates.iou))
    level = candidates.level
    scale = math.sqrt(level.scale[0] * level.scale[1])
    too_large = candidates.diameters[best] * scale > 1.5 * frame.largest
    return scale / 2 if (candidates.cut[best] or too_large) and can_shrink(level, window) else None


def can_shrink(level: Level, window: int) -> bool:
    """Tell whether more of the plane is seen in a window at a coarser scale; fixed frames show all of it."""
    return not level.fixed and max(level.frame) > max(window, _COARSEST_SIDE)
