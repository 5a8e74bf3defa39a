"""The lattice that point prompts stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Level


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
