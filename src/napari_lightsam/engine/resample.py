"""Linear resampling as one matrix per axis, so that any part of a resized plane is computed alone.

A block of the resized plane equals the same block cut from the whole resized plane, whatever is asked
for first: results never depend on tiling.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class AxisWeights(NamedTuple):
    """Weights that make output samples of one axis from the input samples `[start, stop)`.

    Attributes
    ----------
    start, stop
        Input range that the outputs need.
    matrix
        (outputs, stop - start), rows sum to 1.
    """

    start: int
    stop: int
    matrix: FloatArray

    def between(self, start: int, stop: int) -> AxisWeights:
        """Return the weights of the inputs in `[start, stop)` alone; parts add up to the whole."""
        start, stop = max(start, self.start), min(stop, self.stop)
        return AxisWeights(start, stop, self.matrix[:, start - self.start : stop - self.start])


def axis_weights(
    outputs: tuple[int, int], scale: float, size: int, *, antialias: bool = False
) -> AxisWeights:
    """Weights of bilinear resampling along one axis, pixel centres at half integers.

    Parameters
    ----------
    outputs
        Half-open range of output samples.
    scale
        Output samples per input sample.
    size
        Number of input samples; beyond them the border sample is repeated.
    antialias
        Widen the triangle by `1 / scale` when shrinking, as PIL and torch do.

    Examples
    --------
    >>> axis_weights((0, 2), 2.0, 3).matrix
    array([[1.  , 0.  ],
           [0.75, 0.25]], dtype=float32)
    """
    width = max(1.0, 1.0 / scale) if antialias else 1.0
    centres = (np.arange(*outputs) + 0.5) / scale - 0.5
    centres = centres if antialias else centres.clip(0, size - 1)
    start = int(np.clip(np.floor(centres[0] - width) + 1, 0, size - 1)) if len(centres) else 0
    stop = int(np.clip(np.ceil(centres[-1] + width), start + 1, size)) if len(centres) else start + 1
    distance = np.abs(np.arange(start, stop) - centres[:, None]) / width
    weights = np.maximum(0, 1 - distance)
    sums = weights.sum(axis=1, keepdims=True)
    return AxisWeights(start, stop, (weights / np.where(sums > 0, sums, 1)).astype(np.float32))


def apply_weights(array: FloatArray, rows: AxisWeights, columns: AxisWeights) -> FloatArray:
    """Resample the last two axes of `array`, which holds just the range that the weights need."""
    return np.asarray(rows.matrix @ array @ columns.matrix.T, np.float32)


def paste(target: FloatArray, values: NDArray[Any], origin: tuple[int, int]) -> None:
    """Copy `values` into `target`, in place, from row and column `origin`; what lies outside is left out."""
    (y, x), (height, width) = origin, values.shape
    part = target[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
    part[:] = values[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
