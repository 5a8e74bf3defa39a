"""What one undoable step changes on many planes of a Labels layer, and what earlier ones wrote there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin import layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask

NOTE = "propagated"
"""Key in our note on a layer: for each label, the planes that a run wrote, with the pixels on each."""


class PlanesStep:
    """Pixels of many planes that one undoable step changes.

    Attributes
    ----------
    indices, values
        Where, as index arrays into the layer, and what is written there.
    before
        What was there.
    areas
        Pixels that the object gets, by plane.
    gone
        Planes that it is taken from.
    """

    def __init__(self) -> None:
        self.indices: list[tuple[NDArray[np.intp], ...]] = []
        self.values: list[NDArray[np.int64]] = []
        self.before: list[NDArray[Any]] = []
        self.areas: dict[str, int] = {}
        self.gone: list[str] = []

    def add(
        self,
        plane: NDArray[Any],
        place: tuple[int | None, ...],
        mask: Mask | None,
        value: int,
        *,
        replace_others: bool,
    ) -> int:
        """Replace the object on one plane; returns the pixels that it gets there."""
        mine = plane == value
        new = np.zeros(plane.shape, bool)
        if mask is not None:
            y0, x0, y1, x1 = mask.box
            new[y0:y1, x0:x1] = mask.crop
            if not replace_others:
                new &= mine | (plane == 0)
        for where, label in ((mine & ~new, 0), (new & ~mine, value)):
            rows, columns = np.nonzero(where)
            if len(rows):
                of_plane = iter((rows, columns))
                self.indices.append(
                    tuple(next(of_plane) if k is None else np.full(len(rows), k) for k in place)
                )
                self.values.append(np.full(len(rows), label, np.int64))
                self.before.append(plane[rows, columns])
        return int(np.count_nonzero(new))

    def fits(self, data: NDArray[Any]) -> bool:
        """Tell whether an array still holds what was there."""
        there = zip(self.indices, self.before, strict=True)
        return all(np.array_equal(data[index], before) for index, before in there)


def on_plane_number(place: tuple[int | None, ...], axis: int, number: int) -> tuple[int | None, ...]:
    """Return the place of another plane along an axis."""
    return tuple(number if i == axis else step for i, step in enumerate(place))


def plane_key(place: tuple[int | None, ...]) -> str:
    """Name a plane of a Labels layer; text, since notes are kept as JSON."""
    return ",".join("" if step is None else str(step) for step in place)


def written_planes(labels: Labels, value: int) -> dict[str, int]:
    """Return the planes that earlier runs wrote for a label, with the pixels on each."""
    notes: Mapping[str, Mapping[str, int]] = layers.ours(labels).get(NOTE, {})
    return {key: int(area) for key, area in notes.get(str(value), {}).items()}
