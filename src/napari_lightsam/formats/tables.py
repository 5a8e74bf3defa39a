"""One row of measurements per object."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

_LENGTHS = {"axis_major_length": "axis_major", "axis_minor_length": "axis_minor", "perimeter": "perimeter"}


def measure_objects(
    labels: NDArray[Any],
    intensity: Mapping[str, NDArray[Any]] | NDArray[Any] | None = None,
    pixel_size: tuple[float, float] | None = None,
    scores: NDArray[Any] | None = None,
) -> pd.DataFrame:
    """Measure every object of a label image.

    Parameters
    ----------
    labels
        (H, W) integers, 0 is background.
    intensity
        Raw values: (H, W), or a mapping of channel names to (H, W) arrays.
    pixel_size
        (row, column) size of a pixel in micrometres. Lengths of oblong pixels are measured in
        micrometres, not scaled; their perimeter is left empty, as no exact estimate is known.
    scores
        (n,) score of label i + 1.

    Returns
    -------
    table
        One row per label, ascending. `label`, `centroid_y`, `centroid_x` and the half-open box
        `bbox_y0`, `bbox_x0`, `bbox_y1`, `bbox_x1` in pixels; `area_px`, `equivalent_diameter_px`,
        `axis_major_px`, `axis_minor_px`, `perimeter_px`; where calibrated the same with `_um` (`_um2` for
        the area); `eccentricity`, `solidity`; per channel `intensity_mean`, `_sd`, `_min`, `_max`, `_sum`
        (with `_NAME` behind where channels have names; NaN pixels are left out); `score`;
        `touches_border`.

    Raises
    ------
    ImageError
        Labels are no plane of integers, or an intensity plane has another shape.

    Examples
    --------
    >>> labels = np.zeros((8, 8), int)
    >>> labels[2:4, 2:6] = 1
    >>> table = measure_objects(labels, labels * 10, pixel_size=(0.5, 0.25))
    >>> [float(table[c][0]) for c in ("area_px", "area_um2", "intensity_mean")]
    [8.0, 1.0, 10.0]
    """
    import pandas as pd

    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ImageError(f"Labels are a 2-D array of integers; given: shape {labels.shape}, {labels.dtype}.")
    if labels.max(initial=0) > labels.size:  # what measures them takes memory for every number up to the last
        ids, dense = np.unique(labels[labels > 0], return_inverse=True)
        numbered = np.zeros(labels.shape, np.int32)
        numbered[labels > 0] = dense + 1
        columns = _measure_shapes(numbered, pixel_size)
        columns["label"] = ids.astype(np.int64)[columns["label"] - 1]
    else:
        columns = _measure_shapes(labels, pixel_size)
    planes = intensity if isinstance(intensity, Mapping) else {"": intensity}
    for name, plane in planes.items():
        if plane is not None:
            columns |= _measure_intensity(labels, columns["label"], np.asarray(plane), name)
    if scores is not None:
        columns["score"] = np.asarray(scores)[columns["label"] - 1]
    height, width = labels.shape
    columns["touches_border"] = (
        (columns["bbox_y0"] == 0)
        | (columns["bbox_x0"] == 0)
        | (columns["bbox_y1"] == height)
        | (columns["bbox_x1"] == width)
    )
    return pd.DataFrame(columns)


def _measure_shapes(labels: NDArray[Any], pixel_size: tuple[float, float] | None) -> dict[str, NDArray[Any]]:
    box = ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")
    raw = _regionprops(labels, ("label", "area", "centroid", "bbox", "eccentricity", "solidity", *_LENGTHS))
    columns: dict[str, NDArray[Any]] = {
        "label": raw["label"],
        "centroid_y": raw["centroid-0"],
        "centroid_x": raw["centroid-1"],
        **{name: raw[f"bbox-{i}"] for i, name in enumerate(box)},
        "area_px": raw["area"].astype(np.int64),
        "equivalent_diameter_px": 2 * np.sqrt(raw["area"] / math.pi),
        **{f"{name}_px": raw[key] for key, name in _LENGTHS.items()},
    }
    shape = raw
    if pixel_size is not None:
        square = math.isclose(*pixel_size, rel_tol=1e-3)
        spacing = (pixel_size[0], pixel_size[0]) if square else pixel_size
        lengths = [key for key in _LENGTHS if square or key != "perimeter"]
        shape = _regionprops(labels, ("eccentricity", *lengths), spacing)
        area = raw["area"] * (pixel_size[0] * pixel_size[1])
        columns["area_um2"] = area
        columns["equivalent_diameter_um"] = 2 * np.sqrt(area / math.pi)
        empty = np.full(len(area), np.nan)
        columns |= {f"{name}_um": shape.get(key, empty) for key, name in _LENGTHS.items()}
    columns["eccentricity"] = shape["eccentricity"]
    columns["solidity"] = raw["solidity"]
    return columns


def _regionprops(
    labels: NDArray[Any], properties: tuple[str, ...], spacing: tuple[float, float] = (1.0, 1.0)
) -> dict[str, NDArray[Any]]:
    from skimage.measure import regionprops_table

    with warnings.catch_warnings():
        # Objects of one pixel or line have no convex hull; their solidity is what it is.
        warnings.simplefilter("ignore")
        measure: Callable[..., dict[str, NDArray[Any]]] = regionprops_table
        return measure(labels, properties=properties, spacing=spacing)


def _measure_intensity(
    labels: NDArray[Any], ids: NDArray[Any], plane: NDArray[Any], name: str
) -> dict[str, NDArray[Any]]:
    if plane.shape != labels.shape:
        raise ImageError(f"The intensity plane has shape {plane.shape}, the labels {labels.shape}.")
    inside = (labels > 0) & np.isfinite(plane)
    row = np.searchsorted(ids, labels[inside])
    order = np.argsort(row, kind="stable")
    row, values = row[order], plane[inside][order].astype(np.float64)
    count = np.bincount(row, minlength=len(ids))
    total = np.bincount(row, values, minlength=len(ids))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        variance = np.bincount(row, (values - mean[row]) ** 2, minlength=len(ids)) / count
    lowest, highest = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    present = count > 0
    if present.any():
        starts = (np.cumsum(count) - count)[present]
        lowest[present] = np.minimum.reduceat(values, starts)
        highest[present] = np.maximum.reduceat(values, starts)
    end = f"_{name}" if name else ""
    results = {"mean": mean, "sd": np.sqrt(variance), "min": lowest, "max": highest, "sum": total}
    return {f"intensity_{key}{end}": value for key, value in results.items()}
