"""Everything mode as the public generators of SAM and TinySAM do it, for comparison.

Own lattices, filters on masks of full size, box non-maximum suppression, no merging.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.assemble import Segmentation
from napari_lightsam.engine.candidates import collect, concatenate
from napari_lightsam.engine.decode import decode
from napari_lightsam.engine.merge import paint
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.prompts import Prompts
from napari_lightsam.engine.resample import apply_weights
from napari_lightsam.engine.select import box_nms

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.decode import Decoded
    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.merge import LabelArray
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.segmenter import Segmenter

BOX_NMS = 0.7
"""Box IoU above which the public generators drop the worse mask."""

_COARSE = 4


def run_published(
    segmenter: Segmenter,
    embedding: Embedding,
    level: Level,
    config: EverythingConfig,
    out: LabelArray | None = None,
) -> Generator[Progress, None, Segmentation]:
    """Run grid or hierarchical mode; the result's candidates are the generator's masks, best first."""
    n = int(config.points_per_side or max(1, round(max(level.frame) / float(config.point_spacing or 16))))
    if config.mode == "grid":
        parts = yield from _stage(segmenter, embedding, level, config, square_lattice(level.shape, n), None)
    else:
        settled = np.zeros(level.shape, bool)
        coarse = square_lattice(level.shape, max(1, n // _COARSE))
        parts = yield from _stage(segmenter, embedding, level, config, coarse, settled)
        fine = finer_points(coarse, level.shape, n, settled)
        if len(fine):
            parts += yield from _stage(segmenter, embedding, level, config, fine, None)
    found = concatenate(parts, level)
    boxes = np.array([found.mask(i).box for i in range(len(found))], np.float64).reshape(-1, 4)
    boxes[:, 2:] -= 1  # the public code measures boxes from first to last pixel
    kept = found.take(box_nms(boxes, found.iou, BOX_NMS))
    labels, scores = paint((kept.mask(i) for i in range(len(kept))), level.shape, out=out)
    return Segmentation(labels, scores, config.object_size, False, config, kept)


def square_lattice(shape: tuple[int, int], n: int) -> NDArray[np.float64]:
    """Return SAM's n x n points (n * n, 2) as (row, column), whatever the image's proportions."""
    unit = (np.arange(n) + 0.5) / n
    grids = np.meshgrid(unit * shape[0], unit * shape[1], indexing="ij")
    return np.asarray(np.stack(grids, axis=-1).reshape(-1, 2))


def finer_points(
    coarse: NDArray[np.float64], shape: tuple[int, int], n: int, settled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return TinySAM's second lattice: -1..2 strides around each coarse point, settled ones left out."""
    stride = np.array([shape[0] // n, shape[1] // n])
    steps = np.stack(np.meshgrid(np.arange(-1, 3), np.arange(-1, 3), indexing="ij"), axis=-1).reshape(-1, 2)
    points = (coarse[:, None] + steps * stride)[:, (steps != 0).any(axis=1)].reshape(-1, 2)
    points = points[(points < np.array(shape)).all(axis=1)]
    at = points.astype(int)
    return np.asarray(points[~settled[at[:, 0], at[:, 1]]])


def _stage(
    segmenter: Segmenter,
    embedding: Embedding,
    level: Level,
    config: EverythingConfig,
    points: NDArray[np.float64],
    settled: NDArray[np.bool_] | None,
) -> Generator[Progress, None, list[Candidates]]:
    """Decode points and filter at full size; marks confident pixels in `settled` where it is given."""
    rows, columns = (level.mask_weights(axis, (0, level.shape[axis])) for axis in (0, 1))
    offset = segmenter.spec.everything.stability_offset
    min_iou, min_stability = float(config.iou_threshold or 0.0), float(config.stability_threshold or 0.0)

    def measure(batch: Decoded) -> FloatArray:
        scores = np.zeros(batch.iou.shape, np.float32)
        for i, j in np.argwhere(batch.iou > min_iou):
            part = batch.logits[i, j][rows.start : rows.stop, columns.start : columns.stop]
            full = apply_weights(part, rows, columns)
            scores[i, j] = np.sum(full > offset) / max(1, int(np.sum(full > -offset)))
            if settled is not None and scores[i, j] >= min_stability:
                np.logical_or(settled, full > float(config.confident_logit or 0.0), out=settled)
        return scores

    prompts = Prompts(points[:, None], np.ones((len(points), 1), np.intp))
    parts: list[Candidates] = []
    done = 0
    for part in decode(
        segmenter.runtime, embedding, level, prompts, segmenter.spec, multimask=True, batch=config.batch
    ):
        parts.append(
            collect(
                level,
                part.logits,
                part.iou,
                part.origins,
                part.index,
                points[part.index].astype(np.float32),
                stability_offset=offset,
                stability=measure(part),
                min_iou=min_iou,
                min_stability=min_stability,
            )
        )
        done += len(part.index)
        yield Progress("segmenting", done, len(points))
    return parts
