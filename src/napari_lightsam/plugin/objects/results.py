"""Where outlined objects end up: commits into Labels layers, on napari's own undo timeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.masks import one_piece
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.messages import report_info
from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.objects.timeline import Step, Timeline
from napari_lightsam.plugin.objects.undoable import write_step
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.names import unused_name
from napari_lightsam.plugin.viewer.places import view

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.viewer.axes import Plane

LARGEST_STEP = 1_000_000
"""Pixels that one undoable step may change; a larger mask becomes a layer of its own."""

_LOOKED_THROUGH = 2**25  # pixels whose largest label is looked for at every commit: some 10 ms

SAME_OBJECT = 0.5
"""Intersection over union from which an outline is taken for another version of an object."""

_LEFT = 0.5
"""Part of each of several objects that others must leave, or it is one of them once more."""


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
        Objects that were not saved: their pixels belong to other objects, all of them or, of several saved
        at once, more than half.
    """

    layer: Hashable
    ids: tuple[int, ...]
    written: int
    refused: int = 0


class Results:
    """Saves objects into the Labels layers of one viewer.

    Parameters
    ----------
    viewer
        Where they are.
    timeline
        Takes down every step in any Labels layer that objects are in, whoever made it.

    Attributes
    ----------
    target
        `unique_id` of the Labels layer that commits go into; None makes a new one.
    timeline
        As given.
    """

    def __init__(self, viewer: ViewerModel, timeline: Timeline | None = None) -> None:
        self.viewer = viewer
        self.timeline = timeline or Timeline()
        self.target: Hashable | None = None
        self._looked: set[Hashable] = set()
        viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in layers.user_labels(viewer):
            self._watch(layer)

    def targets(self, image: Image, plane: Plane) -> list[Labels]:
        """Return the Labels layers that commits of a plane can go into."""
        return [
            labels
            for labels in layers.user_labels(self.viewer)
            if layers.place_in(labels, image, plane) is not None
        ]

    def commit(
        self,
        image: Image,
        plane: Plane,
        masks: Sequence[Mask],
        *,
        replace_others: bool = False,
        made: Sequence[Made] = (),
        replaces: int | None = None,
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
        made
            How each object came to be, to be noted; area and plane are filled in here.
        replaces
            Label of the object whose pixels the one mask takes the place of; None: all are new objects.

        Raises
        ------
        LightSamError
            There is nothing to write, or the layer cannot be written.
        """
        told = list(made) or [Made("prompt", score=mask.iou) for mask in masks]
        given = [(mask, how) for mask, how in zip(masks, told, strict=True) if mask.area]
        if not given:
            raise LightSamError(
                "There is nothing to save yet: click an object or draw a box around it first."
            )
        large = replaces is None and sum(mask.area for mask, _ in given) > LARGEST_STEP
        labels = None if large else layers.by_id(self.viewer, self.target)
        place = None if labels is None else layers.place_in(labels, image, plane)
        if large:
            done = self._commit_as_layer(image, plane, given)
        else:
            if labels is None or place is None:
                labels = self._new_layer(image, plane)
                place = layers.place_in(labels, image, plane)
            assert place is not None  # a layer that we just made lies on the image
            done = self._write(self.writable(labels), place, given, replaces, replace_others)
        if large:
            self.timeline.note(Step(done.layer, new=True))
        return done

    def _new_layer(self, image: Image, plane: Plane) -> Labels:
        name = unused_name(self.viewer, "Objects", image.name)
        labels = layers.make_labels(image, plane, name, {"role": "objects"})
        layers.add(self.viewer, labels, keep_active=True)
        self.target = labels.unique_id
        return labels

    def writable(self, labels: Labels) -> Labels:
        """Return a layer that objects can be written into: this one, or an int32 copy with a message.

        Parameters
        ----------
        labels
            A Labels layer. One of 8 or 16 bits holds few labels; its copy has the same transform and becomes
            the target where this layer was, and the layer itself is hidden.

        Raises
        ------
        LightSamError
            The layer is multiscale, lazily loaded or locked; the message says what to do.
        """
        why_not = refusal(labels)
        if why_not:
            raise LightSamError(why_not)
        if labels.data.dtype.itemsize >= np.dtype(np.int32).itemsize:
            return labels
        active = self.viewer.layers.selection.active
        copy = layers.copy_as_int32(self.viewer, labels)
        labels.visible = False
        if self.target == labels.unique_id:
            self.target = copy.unique_id
        if active is not None and active.unique_id != labels.unique_id:
            self.viewer.layers.selection.active = active
        report_info(
            f"{labels.name!r} is {labels.data.dtype} and has room for few labels, so it was copied to "
            f"{copy.name!r}; the layer itself is unchanged and hidden."
        )
        return copy

    def _write(
        self,
        labels: Labels,
        place: tuple[int | None, ...],
        given: Sequence[tuple[Mask, Made]],
        replaces: int | None,
        replace_others: bool,
    ) -> Commit:
        first = self.next_id(labels)
        if replaces is None and first + len(given) - 1 > np.iinfo(labels.data.dtype).max:
            raise LightSamError(
                f"The Labels layer {labels.name!r} is {labels.data.dtype} and has no free label left. "
                "Choose a new layer under 'Save into'."
            )
        step = _Step(view(labels.data, place), replaces, several=len(given) > 1)
        ids: list[int] = []
        for mask, how in given:
            value = first + len(ids) if replaces is None else replaces
            keep = None if how.prompt is None else how.prompt.first_positive
            written = step.add(mask, value, keep, replace_others=replace_others)
            if written.any():
                ids.append(value)
                note_made(labels, value, replace(how.drawn(mask, written), plane=place))
        if ids:
            changed = step.write(labels, place)
            self._note_largest(labels, ids[-1])
            labels.selected_label = ids[-1]  # so that napari's brush corrects what was just saved
            return Commit(labels.unique_id, tuple(ids), changed, len(given) - len(ids))
        return Commit(labels.unique_id, (), 0, len(given))

    def _commit_as_layer(self, image: Image, plane: Plane, given: Sequence[tuple[Mask, Made]]) -> Commit:
        """Save a very large mask as a layer of its own: an undo step of that size would freeze napari."""
        content = np.zeros(plane.shape, np.int32)
        for value, (mask, _) in reversed(list(enumerate(given, 1))):
            y0, x0, y1, x1 = mask.box
            content[y0:y1, x0:x1][mask.crop] = value
        note = {"role": "objects", "largest": len(given)}
        name = unused_name(self.viewer, "Large object", image.name)
        labels = layers.make_labels(image, plane, name, note, content)
        place = layers.place_in(labels, image, plane)
        assert place is not None  # a layer that we just made lies on the image
        for value, (mask, how) in enumerate(given, 1):
            y0, x0, y1, x1 = mask.box
            mine = mask.crop & (content[y0:y1, x0:x1] == value)
            note_made(labels, value, replace(how.drawn(mask, mine), plane=place))
        layers.add(self.viewer, labels, keep_active=True)
        ids = tuple(range(1, len(given) + 1))
        return Commit(labels.unique_id, ids, int(np.count_nonzero(content)))

    def same_object(self, image: Image, plane: Plane, mask: Mask) -> int | None:
        """Return the object of the target layer that a mask is another version of.

        Returns
        -------
        int or None
            Its label, when the intersection over union is at least `SAME_OBJECT`; None when there is none.
        """
        labels = layers.by_id(self.viewer, self.target)
        place = None if labels is None or refusal(labels) else layers.place_in(labels, image, plane)
        fits = 0 < mask.area <= LARGEST_STEP  # larger ones become layers of their own
        if labels is None or place is None or not fits:
            return None
        here = view(labels.data, place)
        y0, x0, y1, x1 = mask.box
        covered = here[y0:y1, x0:x1][mask.crop]
        covered = covered[covered != 0]
        if len(covered) < SAME_OBJECT * mask.area:
            return None
        found, counts = np.unique(covered, return_counts=True)
        for value, shared in zip(found.tolist(), counts.tolist(), strict=True):
            # the whole plane is searched only for an object that covers half of the mask
            if shared >= SAME_OBJECT * mask.area:
                whole = int(np.count_nonzero(here == value))
                if shared >= SAME_OBJECT * (mask.area + whole - shared):
                    return int(value)
        return None

    def next_id(self, labels: Labels) -> int:
        """Return 1 + the largest label ever used in a layer, deleted and undone ones included."""
        new = labels.unique_id not in self._looked
        if new or labels.data.size <= _LOOKED_THROUGH:  # scripts write into arrays without telling anybody
            self._looked.add(labels.unique_id)
            self._note_largest(labels, int(labels.data.max(initial=0)))
        return int(layers.ours(labels)["largest"]) + 1

    def _on_inserted(self, event: Any) -> None:
        if layers.holds_objects(event.value):
            self._watch(event.value)

    def _watch(self, labels: Labels) -> None:
        labels.events.paint.connect(self._on_paint)
        labels.events.data.connect(self._on_data)

    def _on_paint(self, event: Any) -> None:
        """Take down a step that napari can take back: a stroke of its brush, or what a tool of ours wrote."""
        self.timeline.note(Step(event.source.unique_id))
        # the values before and after: those that a step erases or takes back may be nowhere else
        steps = [atom for atom in event.value if isinstance(atom, tuple)]
        seen = [int(np.max(values)) for *_, before, after in steps for values in (before, after)]
        self._note_largest(event.source, max([int(event.source.selected_label), *seen]))

    def _on_data(self, event: Any) -> None:
        labels = event.source
        if isinstance(labels.data, np.ndarray):  # another array was put in the place of the old one
            self._note_largest(labels, int(labels.data.max(initial=0)))

    def close(self) -> None:
        """Let go of the viewer; layers stay."""
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in layers.user_labels(self.viewer):
            layer.events.paint.disconnect(self._on_paint)
            layer.events.data.disconnect(self._on_data)

    @staticmethod
    def _note_largest(labels: Labels, value: int) -> None:
        note = layers.note_of(labels)
        note["largest"] = max(int(note.get("largest", 0)), value)


class _Step:
    """Pixels of one plane that one undoable step changes.

    Parameters
    ----------
    here
        int (H, W), the plane as it is; only read.
    replaces
        Label whose pixels are given up first, or None.
    several
        Many objects are added, of which nobody looked at each.
    """

    def __init__(self, here: NDArray[Any], replaces: int | None, *, several: bool) -> None:
        self._here, self._replaces, self._several = here, replaces, several
        self._rows: list[NDArray[np.intp]] = []
        self._columns: list[NDArray[np.intp]] = []
        self._values: list[NDArray[np.int64]] = []
        self._taken = np.zeros(here.shape, bool)  # by the objects added so far; of thousands, maybe

    def add(
        self, mask: Mask, value: int, keep: tuple[float, float] | None, *, replace_others: bool
    ) -> NDArray[np.bool_]:
        """Add one object and return which pixels of its box are its own; of overlapping ones the first's."""
        y0, x0, y1, x1 = mask.box
        part = self._here[y0:y1, x0:x1]
        free = mask.crop.copy()
        if not replace_others:
            free &= (part == 0) | ((part == self._replaces) if self._replaces is not None else False)
        if self._several:
            free &= ~self._taken[y0:y1, x0:x1]
            if np.count_nonzero(free) < _LEFT * mask.area:
                return np.zeros_like(free)  # another outline of an object that is there already
        if np.count_nonzero(free) < mask.area:
            free = one_piece(free, None if keep is None else (round(keep[0]) - y0, round(keep[1]) - x0))
        if free.any():
            rows, columns = np.nonzero(free & (part != value))  # an object that is corrected has most of them
            self._rows.append(rows + y0)
            self._columns.append(columns + x0)
            self._values.append(np.full(len(rows), value, np.int64))
            self._taken[y0:y1, x0:x1] |= free
        return free

    def write(self, labels: Labels, place: tuple[int | None, ...]) -> int:
        """Write all objects and return how many pixels changed."""
        if self._replaces is not None:
            former = np.flatnonzero(self._here == self._replaces)
            rows, columns = np.divmod(former, self._here.shape[1])
            left = ~self._taken[rows, columns]
            self._rows.append(rows[left])
            self._columns.append(columns[left])
            self._values.append(np.zeros(np.count_nonzero(left), np.int64))
        of_plane = iter((np.concatenate(self._rows), np.concatenate(self._columns)))
        values = np.concatenate(self._values).astype(labels.data.dtype)
        index = tuple(next(of_plane) if step is None else np.full(len(values), step) for step in place)
        write_step(labels, index, values)
        return len(values)


def refusal(labels: Labels) -> str:
    """Say why nothing can be written into a Labels layer and what to do instead; empty when it can."""
    what = ""
    if labels.multiscale:
        what = "is multiscale"
    elif not isinstance(labels.data, np.ndarray):
        what = "is loaded lazily"
    elif not labels.data.flags.writeable:
        what = "is read-only"
    elif not labels.editable:
        what = "is locked"
    if not what:
        return ""
    return (
        f"The Labels layer {labels.name!r} {what} and cannot be edited. Save into a new layer, or open its "
        "full resolution as an array in memory."
    )
