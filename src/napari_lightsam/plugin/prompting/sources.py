"""Prompts that exist already: in a Points or Shapes layer, or in a table that napari saved of one."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.prompting.prompts import read_boxes, read_points
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import AxisRole, NoPlane, Plane

if TYPE_CHECKING:
    import os

    from napari.components import ViewerModel
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

MOST = 10_000
"""Prompts that are taken at once; for more there is everything mode."""


@dataclass(frozen=True, slots=True)
class Given:
    """Prompts of one plane.

    Attributes
    ----------
    points
        (row, column, positive) in pixels of the plane.
    boxes
        (y0, x0, y1, x1), half-open.
    """

    points: tuple[tuple[float, float, bool], ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()


def sources(viewer: ViewerModel, image: Image) -> list[Layer]:
    """Return the Points and Shapes layers that are not ours and may lie on an image."""
    return list(layers.user_marks(viewer, image.ndim))


def read_layer(layer: Layer, image: Image, plane: Plane) -> Given:
    """Read the prompts that a Points or Shapes layer holds on a plane; shapes give the boxes around them.

    Raises
    ------
    NoPlane
        It holds none there, or too many.
    """
    from napari.layers import Points

    found = (
        Given(points=tuple(read_points(layer, image, plane)))
        if isinstance(layer, Points)
        else Given(boxes=tuple(read_boxes(layer, image, plane)))
    )
    _check(found, f"The layer {layer.name!r}")
    return found


def read_table(path: str | os.PathLike[str], plane: Plane) -> Given:
    """Read the prompts of a plane from a CSV file as napari saves it of Points and Shapes layers.

    Parameters
    ----------
    path
        Columns `axis-0`, `axis-1`, ...: positions in pixels, one column for each axis of the image, or the
        rows and columns of the plane alone. With a column `vertex-index`, rows of the same `index` are the
        corners of one shape.
    plane
        Where they are taken from.

    Raises
    ------
    FileError
        The file cannot be read, or is no such table.
    NoPlane
        It holds no prompts of this plane, or too many.
    """
    path = Path(path)
    rows = _rows(path)
    names = [f"axis-{i}" for i in range(len(plane.index))]
    columns = [name for name in rows[0] if name and name.startswith("axis-")] if rows else []
    if len(columns) not in (2, len(names)):
        raise FileError(
            f"{path} has {len(columns)} columns axis-0, axis-1, ...; for this image there must be "
            f"{' or '.join(map(str, sorted({2, len(names)})))}."
        )
    try:
        positions = np.array([[float(row[name]) for name in sorted(columns)] for row in rows])
    except (TypeError, ValueError) as error:
        raise FileError(f"{path} holds a position that is no number: {error}.") from error
    on_plane, here = _on_plane(positions, plane)
    if "vertex-index" not in rows[0]:
        inside = (on_plane >= -0.5) & (on_plane <= np.array(plane.shape) - 0.5)
        kept = on_plane[here & inside.all(axis=1)]
        found = Given(points=tuple((float(y), float(x), True) for y, x in kept))
    else:
        shapes: dict[str | None, list[int]] = {}
        for number, row in enumerate(rows):
            shapes.setdefault(row.get("index"), []).append(number)
        boxes = [_box(on_plane[at], plane) for at in shapes.values() if here[at].all()]
        found = Given(boxes=tuple(box for box in boxes if box is not None))
    _check(found, path.name)
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path} cannot be read as a table: {error}.") from error
    if not rows:
        raise FileError(f"{path} is empty; a CSV file of a Points or Shapes layer is needed.")
    return rows


def _on_plane(positions: NDArray[Any], plane: Plane) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return (N, 2) row and column of every position, and which of them lie on the plane."""
    if positions.shape[1] == 2 and len(plane.index) > 2:
        return positions - plane.origin, np.ones(len(positions), bool)
    here = np.isfinite(positions).all(axis=1)
    for axis, (step, role) in enumerate(zip(plane.index, plane.roles, strict=True)):
        if step is not None and role is not AxisRole.CHANNEL:
            here &= np.abs(positions[:, axis] - step) <= 0.5
    return positions[:, list(plane.axes)] - plane.origin, here


def _box(vertices: NDArray[Any], plane: Plane) -> tuple[float, float, float, float] | None:
    y0, x0 = np.clip(vertices.min(axis=0) + 0.5, 0, plane.shape)
    y1, x1 = np.clip(vertices.max(axis=0) + 0.5, 0, plane.shape)
    return (float(y0), float(x0), float(y1), float(x1)) if y1 - y0 >= 1 and x1 - x0 >= 1 else None


def _check(found: Given, name: str) -> None:
    count = len(found.points) + len(found.boxes)
    if not count:
        raise NoPlane(f"{name} holds no points or boxes on this plane.")
    if count > MOST:
        raise NoPlane(
            f"{name} holds {count} prompts; up to {MOST} are taken at once. Use it under 'Objects from' of "
            "'Segment everything'."
        )
