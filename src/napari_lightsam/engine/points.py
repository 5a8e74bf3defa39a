"""The lattice that point prompts stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Level


def lattice_axes(level: Level, spacing: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows and the columns of an even lattice over the whole plane, in image pixels.

    Parameters
    ----------
    level
        Scale at which `spacing` is meant.
    spacing
        Distance of neighbours in frame pixels, rounded so that the lattice fills each axis.
    """
    rows, columns = (
        (np.arange(count) + 0.5) * length / count - 0.5
        for length, count in (
            (length, max(1, round(frame / spacing)))
            for length, frame in zip(level.shape, level.frame, strict=True)
        )
    )
    return rows, columns
