"""Where outlined objects end up: commits into Labels layers, on napari's own undo timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import METADATA_KEY, Plane

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.engine.masks import Mask

LARGEST_STEP = 1_000_000
"""Pixels that one undoable step may change; a larger mask becomes a layer of its own."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit wrote.

    Attributes
    ----------
    layer
        `unique_id` of the Labels layer.
    ids
        New label of each object.
    written
        Pixels that changed.
    refused
        Objects that changed nothing, because all of their pixels belong to other objects.
    """

    layer: Hashable
    ids: tuple[int, ...]
    written: int
    refused: int = 0


class Results:
    """Saves objects into the Labels layers of one viewer.

    Attributes
    ----------
    target
        `unique_id` of the Labels layer that commits go into; None makes a new one.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.target: Hashable | None = None
        self._watched: set[Hashable] = set()

    def targets(self, image: Image, plane: Plane) -> list[Labels]:
        """Return the Labels layers that commits of a plane can go into."""
        from napari.layers import Labels

        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels)
            and layers.ours(layer).get("role") != "preview"
            and layers.place_in(layer, image, plane) is not None
        ]

    def commit(
        self, image: Image, plane: Plane, masks: Sequence[Mask], *, replace_others: bool = False
    ) -> Commit:
        """Write masks into the target Labels layer as one step on its own undo timeline.

        Parameters
        ----------
        image, plane
            What the masks are of.
        masks
            One of each object.
        replace_others
            Also write on pixels that belong to other objects; otherwise on background only.

        Raises
        ------
        LightSamError
            There is nothing to write, or the layer cannot be written.
        """
        masks = [mask for mask in masks if mask.area]
        if not masks:
            raise LightSamError(
                "There is nothing to save yet: click an object or draw a box around it first."
            )
        total = sum(mask.area for mask in masks)
        labels = None if total > LARGEST_STEP else layers.by_id(self.viewer, self.target)
        place = None if labels is None else layers.place_in(labels, image, plane)
        active = self.viewer.layers.selection.active
        if labels is None or place is None:
            if total > LARGEST_STEP:
                return self._commit_as_layer(image, plane, masks)
            labels = layers.add_labels(
                self.viewer, image, plane, f"{image.name} objects", {"role": "objects"}
            )
            place = layers.place_in(labels, image, plane)
            self.target = labels.unique_id
            layers.below_prompts(self.viewer, labels)
            if active is not None:
                self.viewer.layers.selection.active = active
        assert place is not None  # a layer that we just made lies on the image
        return self._write(labels, place, plane, masks, replace_others)

    def _write(
        self,
        labels: Labels,
        place: tuple[int | None, ...],
        plane: Plane,
        masks: Sequence[Mask],
        replace_others: bool,
    ) -> Commit:
        if not isinstance(labels.data, np.ndarray) or not labels.editable:
            raise LightSamError(
                f"The Labels layer {labels.name!r} cannot be edited (it is lazily loaded or locked). "
                "Choose a new layer under 'Save into'."
            )
        first = self.next_id(labels)
        if first + len(masks) - 1 > np.iinfo(labels.data.dtype).max:
            raise LightSamError(
                f"The Labels layer {labels.name!r} is {labels.data.dtype} and has no free label left. "
                "Choose a new layer under 'Save into'."
            )
        steps: list[tuple[tuple[Any, ...], int]] = []
        taken = np.zeros(0, np.int64)
        for mask in masks:
            index = _index(place, mask)
            keep = np.ones(len(index[0]), bool) if replace_others else labels.data[index] == 0
            flat = np.ravel_multi_index(index, labels.data.shape)
            keep &= ~np.isin(flat, taken)  # the first of overlapping objects keeps the pixel
            if keep.any():
                steps.append((tuple(axis[keep] for axis in index), first + len(steps)))
                taken = np.concatenate([taken, flat[keep]])
        if steps:
            labels.visible = True  # napari cannot update a layer that it never sliced
            with labels.block_history():
                for index, value in steps:
                    labels.data_setitem(index, value)
            last = steps[-1][1]
            self._note_largest(labels, last)
            labels.selected_label = last  # so that napari's brush corrects what was just saved
        ids = tuple(value for _, value in steps)
        return Commit(labels.unique_id, ids, len(taken), len(masks) - len(steps))

    def _commit_as_layer(self, image: Image, plane: Plane, masks: Sequence[Mask]) -> Commit:
        """Save a very large mask as a layer of its own: an undo step of that size would freeze napari."""
        content = np.zeros(plane.shape, np.int32)
        for value, mask in reversed(list(enumerate(masks, 1))):
            y0, x0, y1, x1 = mask.box
            content[y0:y1, x0:x1][mask.crop] = value
        active = self.viewer.layers.selection.active
        note = {"role": "objects", "largest": len(masks)}
        labels = layers.add_labels(self.viewer, image, plane, f"{image.name} large object", note, content)
        layers.below_prompts(self.viewer, labels)
        if active is not None:
            self.viewer.layers.selection.active = active
        ids = tuple(range(1, len(masks) + 1))
        return Commit(labels.unique_id, ids, int(np.count_nonzero(content)))

    def next_id(self, labels: Labels) -> int:
        """Return 1 + the largest label ever used in a layer, deleted and undone ones included."""
        if labels.unique_id not in self._watched:
            self._watched.add(labels.unique_id)
            self._note_largest(labels, int(labels.data.max(initial=0)))
            labels.events.paint.connect(self._on_paint)
        return int(layers.ours(labels)["largest"]) + 1

    def _on_paint(self, event: Any) -> None:
        self._note_largest(event.source, int(event.source.selected_label))

    @staticmethod
    def _note_largest(labels: Labels, value: int) -> None:
        note = labels.metadata.setdefault(METADATA_KEY, {"role": "objects", "version": 1})
        note["largest"] = max(int(note.get("largest", 0)), value)

    def undo(self) -> None:
        """Take back the last step in the target layer, on napari's own timeline."""
        labels = layers.by_id(self.viewer, self.target)
        if labels is not None:
            labels.undo()

    def redo(self) -> None:
        """Repeat the last step that was taken back."""
        labels = layers.by_id(self.viewer, self.target)
        if labels is not None:
            labels.redo()


def _index(place: tuple[int | None, ...], mask: Mask) -> tuple[Any, ...]:
    """Return the pixels of a mask as index arrays into a Labels array."""
    rows, columns = np.nonzero(mask.crop)
    of_plane = iter((rows + mask.offset[0], columns + mask.offset[1]))
    return tuple(next(of_plane) if step is None else np.full(len(rows), step) for step in place)
