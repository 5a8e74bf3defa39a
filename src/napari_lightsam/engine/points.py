"""Points as prompts: the lattice they stand on, and one object decoded at each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.candidates import Candidates, collect
from napari_lightsam.engine.decode import BATCH, Decoded, decode
from napari_lightsam.engine.prompts import Prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.segmenter import Segmenter


def lattice(level: Level, spacing: float) -> NDArray[np.float64]:
    """Return an even lattice (rows, columns, 2) over the whole plane, in image pixels.

    Parameters
    ----------
    level
        Scale at which `spacing` is meant.
    spacing
        Distance of neighbours in frame pixels, rounded so that the lattice fills each axis.
    """
    return np.stack(np.meshgrid(*lattice_axes(level, spacing), indexing="ij"), axis=-1)


def lattice_axes(level: Level, spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows and the columns that the lattice of `lattice` stands on, in image pixels."""
    rows, columns = (
        (np.arange(count) + 0.5) * length / count - 0.5
        for length, count in (
            (length, max(1, round(frame / spacing)))
            for length, frame in zip(level.shape, level.frame, strict=True)
        )
    )
    return rows, columns


def decode_points(
    segmenter: Segmenter,
    embedding: Embedding,
    level: Level,
    points: NDArray[np.float64],
    *,
    min_iou: float,
    min_stability: float,
    batch: int = BATCH,
    stability: Callable[[Decoded], FloatArray] | None = None,
) -> Iterator[tuple[int, Candidates]]:
    """Decode each point as a click of its own and keep what passes.

    Parameters
    ----------
    segmenter, embedding, level
        What is asked, about which plane, at which scale.
    points
        (N, 2) as (row, column) in image pixels.
    min_iou, min_stability
        Candidates below are dropped.
    batch
        Points decoded at once.
    stability
        Measures the stability scores (n, M) of a batch; by default they are counted on the logits.

    Yields
    ------
    asked, candidates
        Number of points of the batch, and what passed.
    """
    prompts = Prompts(points[:, None], np.ones((len(points), 1), np.intp))
    own = segmenter.spec.everything
    for part in decode(
        segmenter.runtime, embedding, level, prompts, segmenter.spec, multimask=True, batch=batch
    ):
        yield (
            len(part.index),
            collect(
                level,
                part.logits,
                part.iou,
                part.origins,
                part.index,
                points[part.index].astype(np.float32),
                stability_offset=own.stability_offset,
                stability=None if stability is None else stability(part),
                min_iou=min_iou,
                min_stability=min_stability,
            ),
        )
