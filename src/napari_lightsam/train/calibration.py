"""Whether a model knows how good its masks are: predicted IoU against the IoU that was reached."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_lightsam.errors import ConfigError

BINS = 10
"""Rows of the reliability table."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of a reliability table: the masks whose predicted IoU lies in [low, high).

    Attributes
    ----------
    low, high
        Limits of the predicted IoU; the last row includes its upper limit.
    count
        Masks.
    predicted, reached
        Means of the predicted and of the true IoU; `None` for an empty row.
    """

    low: float
    high: float
    count: int
    predicted: float | None = None
    reached: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far predicted IoU is from the IoU that was reached.

    Attributes
    ----------
    count
        Masks compared.
    mean_absolute_error
        Mean distance of the two.
    bias
        Mean of predicted - reached: above 0, the model thinks too well of its masks.
    bins
        The reliability table, by rising predicted IoU.
    """

    count: int
    mean_absolute_error: float
    bias: float
    bins: tuple[Bin, ...]


def calibrate(predicted: npt.ArrayLike, reached: npt.ArrayLike, bins: int = BINS) -> Calibration | None:
    """Compare predicted IoU with the IoU that was reached.

    Parameters
    ----------
    predicted
        (N,) as the model gave them; values outside [0, 1] count as 0 or 1.
    reached
        (N,) in [0, 1].
    bins
        Rows of the table, equally wide.

    Returns
    -------
    Calibration
        `None` when there is no mask.

    Raises
    ------
    ConfigError
        The two differ in length, or `bins` is below 1.

    Examples
    --------
    >>> result = calibrate([0.9, 0.8, 0.3], [0.8, 0.8, 0.5], bins=2)
    >>> round(result.mean_absolute_error, 3), round(result.bias, 3)
    (0.1, -0.033)
    >>> [(row.low, row.count, round(row.reached, 3)) for row in result.bins]
    [(0.0, 1, 0.5), (0.5, 2, 0.8)]
    """
    given, real = (np.asarray(values, np.float64).reshape(-1) for values in (predicted, reached))
    if len(given) != len(real) or bins < 1:
        raise ConfigError(
            f"{len(given)} predicted and {len(real)} true IoU in {bins} bins; give one of each per mask, "
            "and at least 1 bin."
        )
    if not len(given):
        return None
    given = given.clip(0, 1)
    row = np.minimum((given * bins).astype(np.intp), bins - 1)
    return Calibration(
        count=len(given),
        mean_absolute_error=float(np.abs(given - real).mean()),
        bias=float((given - real).mean()),
        bins=tuple(_bin(k / bins, (k + 1) / bins, given[row == k], real[row == k]) for k in range(bins)),
    )


def _bin(low: float, high: float, given: npt.NDArray[np.float64], real: npt.NDArray[np.float64]) -> Bin:
    if not len(given):
        return Bin(low, high, 0)
    return Bin(low, high, len(given), float(given.mean()), float(real.mean()))
