"""What one undoable step changes on many planes of a Labels layer, and what earlier ones wrote there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.viewer import layers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.propagate import Ending
    from napari_lightsam.plugin.viewer.places import Place

NOTE = "propagated"
"""Key in our note on a layer: for each label, the planes that a run wrote, with the pixels on each."""


class PlanesStep:
    """Pixels of many planes that one undoable step changes.

    Attributes
    ----------
    areas
        Pixels that the object gets, by plane.
    gone
        Planes that it is taken from.
    gained
        Pixels of the object after the step, less those before.
    endings
        By +1 (forward) and -1 (backward): the plane that the object does not reach any more, and why.
    index, values, before
        Where, as index arrays into the layer, what is written there, and what was there; once `pack` was
        called.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self.areas: dict[str, int] = {}
        self.gone: list[str] = []
        self.gained = 0
        self.endings: dict[int, tuple[int, Ending]] = {}
        self.index: tuple[NDArray[np.intp], ...] = ()
        self.values: NDArray[Any] = np.zeros(0, np.int64)
        self.before: NDArray[Any] = np.zeros(0, np.int64)

    def add(
        self, plane: NDArray[Any], place: Place, mask: Mask | None, value: int, *, replace_others: bool
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
                index = (next(of_plane) if k is None else np.full(len(rows), k) for k in place)
                written = np.full(len(rows), label, plane.dtype)
                self._parts.append((*index, written, plane[rows, columns]))
                self.gained += len(rows) if label else -len(rows)
        return int(np.count_nonzero(new))

    def pack(self) -> None:
        """Put all planes together: that takes a moment, and so belongs in the worker."""
        if self._parts:
            columns = zip(*self._parts, strict=True)
            *index, self.values, self.before = (np.concatenate(parts) for parts in columns)
            self.index = tuple(index)
            self._parts = []

    def __len__(self) -> int:
        return len(self.values)

    def fits(self, data: NDArray[Any]) -> bool:
        """Tell whether an array still holds what was there."""
        return not len(self) or np.array_equal(data[self.index], self.before)


def on_plane_number(place: Place, axis: int, number: int) -> Place:
    """Return the place of another plane along an axis."""
    return tuple(number if i == axis else step for i, step in enumerate(place))


def plane_key(place: Place) -> str:
    """Name a plane of a Labels layer; text, since notes are kept as JSON."""
    return ",".join("" if step is None else str(step) for step in place)


def written_planes(labels: Labels, value: int) -> dict[str, int]:
    """Return the planes that earlier runs wrote for a label, with the pixels on each."""
    notes: Mapping[str, Mapping[str, int]] = layers.ours(labels).get(NOTE, {})
    return {key: int(area) for key, area in notes.get(str(value), {}).items()}
