"""Objects on their way out or in: a label image with what other programs want to know about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

AXES = ("YX", "ZYX", "TYX", "TZYX")
"""Axes that a label image may have: rows and columns, before them depth, before that time."""

LARGEST_ID = 2**32 - 1
"""Files hold ids in 32 bits."""


class Position(NamedTuple):
    """Where a plane lies in its image, each from 0; None: not told, or all of them."""

    c: int | None = None
    z: int | None = None
    t: int | None = None


_ANYWHERE = Position()


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """A label image and what belongs to it.

    Attributes
    ----------
    labels
        (H, W), (Z, H, W), (T, H, W) or (T, Z, H, W) integers from 0 (background).
    axes
        One of `AXES`; where it is empty, two axes are YX, three ZYX and four TZYX.
    pixel_size, z_step
        (row, column) and distance of planes in micrometres, or None.
    position
        The channel, plane and time point of the image that the labels were made from, as far as one of
        several was chosen.
    table
        Measurements as `measure_objects` gives them, with `z` (and `t`) where there are several planes; or
        None. Objects that it does not list have none.
    nuclei
        Label image of the same shape: each object is a cell, with the nuclei that lie mostly in it.
    name
        Name of the image file; may be empty.
    origin
        (row, column) of the image where the labels begin, for those of a part of a large image. Outlines,
        centres and boxes in files count from the image's first pixel.

    Raises
    ------
    ImageError
        No label image, axes that do not fit, or nuclei of another shape.

    Examples
    --------
    >>> stack = Objects(np.zeros((2, 4, 5), int), axes="TYX")
    >>> [(plane.position.t, plane.labels.shape) for plane in stack.planes()]
    [(0, (4, 5)), (1, (4, 5))]
    """

    labels: NDArray[Any]
    axes: str = ""
    pixel_size: tuple[float, float] | None = None
    z_step: float | None = None
    position: Position = _ANYWHERE
    table: pd.DataFrame | None = None
    nuclei: NDArray[Any] | None = None
    name: str = ""
    origin: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.axes and 2 <= self.labels.ndim <= 4:
            object.__setattr__(self, "axes", "TZYX"[-self.labels.ndim :])
        if self.axes not in AXES or len(self.axes) != self.labels.ndim:
            raise ImageError(
                f"Labels have the axes {', '.join(AXES)}; given: {self.axes or 'none'}, for an array "
                f"of shape {self.labels.shape}. Save one plane or stack of it."
            )
        check_labels(self.labels)
        if self.nuclei is not None:
            check_labels(self.nuclei)
            if self.nuclei.shape != self.labels.shape:
                raise ImageError(
                    f"Cells and nuclei are label images of one shape; given: {self.labels.shape} and "
                    f"{self.nuclei.shape}."
                )

    def planes(self) -> Iterator[Plane]:
        """Give every plane in order, the depth axis fastest."""
        for index in np.ndindex(self.labels.shape[:-2]):
            own = dict(zip(self.axes, index, strict=False))
            position = Position(self.position.c, own.get("Z", self.position.z), own.get("T", self.position.t))
            nuclei = None if self.nuclei is None else np.asarray(self.nuclei[index])
            yield Plane(np.asarray(self.labels[index]), nuclei, position, self._rows(own), self.origin)

    def measured(self) -> pd.DataFrame:
        """Give the table, or measure shapes as `measure_objects` does, plane by plane."""
        if self.table is not None:
            return self.table
        import pandas as pd

        from napari_lightsam.formats.tables import measure_objects

        tables = []
        for index in np.ndindex(self.labels.shape[:-2]):
            table = measure_objects(np.asarray(self.labels[index]), pixel_size=self.pixel_size)
            table = _moved(table, self.origin)
            for axis, step in reversed(list(zip(self.axes.lower(), index, strict=False))):
                table.insert(1, axis, step)
            tables.append(table)
        found = [table for table in tables if len(table)] or tables[:1]
        return pd.concat(found, ignore_index=True)

    def _rows(self, own: dict[str, int]) -> pd.DataFrame | None:
        """Rows of the table that belong to one plane."""
        table = self.table
        if table is None:
            return None
        for axis, step in own.items():
            if axis.lower() in table:
                table = table[table[axis.lower()] == step]
        return table


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """One plane of `Objects`.

    Attributes
    ----------
    labels
        (H, W).
    nuclei
        (H, W) or None.
    position
        Of the plane in its image.
    table
        Its part of the measurements, or None.
    origin
        As in `Objects`.
    """

    labels: NDArray[Any]
    nuclei: NDArray[Any] | None
    position: Position
    table: pd.DataFrame | None
    origin: tuple[int, int] = (0, 0)

    def measurements(self, pixel_size: tuple[float, float] | None) -> dict[int, dict[str, float]]:
        """Give the numbers of every object by its id; area and centre also where no table has them."""
        if self.table is None or "area_px" not in self.table:
            quick = _moved(measure_quickly(self.labels, pixel_size), self.origin)
            table = quick
            if self.table is not None:
                more = [name for name in self.table if name == "label" or name not in quick]
                table = quick.merge(self.table[more], on="label", how="left")
        else:
            table = self.table
        chosen = table.drop(columns=["z", "t"], errors="ignore").select_dtypes(["number", "bool"])
        names = [name for name in chosen.columns if name != "label"]
        values = chosen[names].to_numpy(np.float64)
        finite = np.isfinite(values)
        return {
            label: {name: v for name, v, good in zip(names, row, use, strict=True) if good}
            for label, row, use in zip(
                table["label"].astype(int).tolist(), values.tolist(), finite.tolist(), strict=True
            )
        }


def _moved(table: pd.DataFrame, origin: tuple[int, int]) -> pd.DataFrame:
    """Let the places in a table count from the image's first pixel."""
    if origin == (0, 0):
        return table
    shifts = {f"{name}{axis}{end}": step for axis, step in zip("yx", origin, strict=True)
              for name, end in (("centroid_", ""), ("bbox_", "0"), ("bbox_", "1"))}  # fmt: skip
    return table.assign(**{name: table[name] + step for name, step in shifts.items() if name in table})


def check_labels(labels: NDArray[Any]) -> None:
    """Refuse what is no label image.

    Raises
    ------
    ImageError
        Not integers, empty, below 0, or beyond 32 bits.
    """
    if labels.dtype.kind not in "iu" or labels.size == 0:
        raise ImageError(
            f"Labels are a 2-D or 3-D array of integers; given: shape {labels.shape}, {labels.dtype}."
        )
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise ImageError(f"Labels start at 0 (background); given: {labels.min()}.")
    if labels.dtype.itemsize > 4 and labels.max() > LARGEST_ID:
        raise ImageError(f"Ids of objects go up to {LARGEST_ID:,}; given: {labels.max():,}. Renumber them.")


def measure_quickly(labels: NDArray[Any], pixel_size: tuple[float, float] | None = None) -> pd.DataFrame:
    """Measure area and centre of every object of a plane, in one pass for any number of them.

    Parameters
    ----------
    labels
        (H, W) integers.
    pixel_size
        (row, column) in micrometres.

    Returns
    -------
    table
        `label`, `area_px`, `centroid_y`, `centroid_x`, and `area_um2` where calibrated; as `measure_objects`.
    """
    import pandas as pd

    y, x = np.nonzero(labels)
    ids, row = np.unique(labels[y, x], return_inverse=True)
    area = np.bincount(row, minlength=len(ids))
    columns: dict[str, NDArray[Any]] = {
        "label": ids.astype(np.int64),
        "area_px": area,
        "centroid_y": np.bincount(row, y, minlength=len(ids)) / area,
        "centroid_x": np.bincount(row, x, minlength=len(ids)) / area,
    }
    if pixel_size is not None:
        columns["area_um2"] = area * (pixel_size[0] * pixel_size[1])
    return pd.DataFrame(columns)
