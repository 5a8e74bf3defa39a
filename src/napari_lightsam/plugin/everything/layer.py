"""The Labels layer of a run: written whole, replaced while nobody touched it, never after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.objects.made import Made, note_run
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import AxisRole, level0
from napari_lightsam.plugin.viewer.names import unused_name

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.plugin.everything.result import Objects
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.viewer.axes import Plane

_COVERED = 0.5
"""Part of an earlier result that a new one covers before it is hidden: one on the other cannot be read."""


@dataclass(eq=False)  # no slots: napari refers weakly to who listens
class Written:
    """What was written last, and where.

    Attributes
    ----------
    layer
        `unique_id` of the Labels layer.
    extent
        The pixels of the image that the run covers, along every axis.
    index
        The part of its array that belongs to the run.
    objects
        As written.
    touched
        Someone else wrote into the layer: the brush, a commit, an undo; or its labels are relied on.
    """

    layer: Hashable
    extent: tuple[range, ...]
    index: tuple[int | slice, ...]
    objects: Objects
    touched: bool = field(default=False)

    def on_paint(self, event: Any = None) -> None:
        """Note an edit."""
        self.touched = True


def write(
    viewer: ViewerModel,
    plane: Plane,
    region: Region,
    axis: int | None,
    objects: Objects,
    note: dict[str, Any],
) -> Written:
    """Add the objects of a run as a new Labels layer over the whole image.

    Parameters
    ----------
    viewer
        Where to.
    plane, region
        What the labels are of.
    axis
        The data axis that the labels go through, for those of a whole stack.
    objects
        Of the region, or of all planes.
    note
        Kept in the layer's metadata.

    Raises
    ------
    LightSamError
        The image was deleted while the run was under way.
    """
    image = layers.by_id(viewer, plane.layer)
    if image is None:
        raise LightSamError("The image was deleted while it was being segmented; the result was dropped.")
    what = "Everything" if note.get("complete", True) else "Everything (stopped)"
    name = unused_name(viewer, what, image.name)
    layer = layers.make_labels(image, plane, name, {**note, "role": "everything", "largest": 0})
    place = layers.place_in(layer, image, plane)
    assert place is not None  # a layer that we just made lies on the image
    extent = _extent(image, plane, region, axis)
    written = Written(layer.unique_id, extent, _index(place, region, axis), objects)
    _fill(layer, written)  # before the viewer has it, so that it is painted once
    layer.events.paint.connect(written.on_paint)
    active = viewer.layers.selection.active
    clicking = active is not None and layers.ours(active).get("role") in layers.PROMPTS
    layers.add(viewer, layer, keep_active=clicking)
    return written


def update(viewer: ViewerModel, written: Written, objects: Objects, note: dict[str, Any]) -> bool:
    """Replace what was written, and what is noted; tells whether it was done, never once it was edited."""
    layer = layers.by_id(viewer, written.layer)
    if layer is None or is_touched(layer, written):
        return False
    written.objects = objects
    layers.ours(layer).update(note)
    # `data = ...` would leave napari's undo steps behind; there are none here, and the array stays the same
    _fill(layer, written)
    return True


def describe(viewer: ViewerModel, written: Written, table: pd.DataFrame) -> int:
    """Put what is known of linked objects into the layer's features; returns how many to look at."""
    layer = layers.by_id(viewer, written.layer)
    if layer is not None:
        layer.features = table.rename(columns={"label": "index"})
    return int((table["single_plane"] | table["area_jump"]).sum())


def is_touched(layer: Labels, written: Written) -> bool:
    """Tell whether a layer holds anything else than what was written, or somebody relies on its labels."""
    if not written.touched:
        changed = not np.array_equal(layer.data[written.index], written.objects.labels)
        written.touched = changed or layers.is_relied_on(layer)
    return written.touched


def hide_covered(viewer: ViewerModel, former: Written, written: Written) -> bool:
    """Hide an earlier result that a new one covers by half or more, unless it was worked on.

    Returns
    -------
    bool
        It is hidden, or was worked on or deleted: later results need not look at it any more.
    """
    layer = layers.by_id(viewer, former.layer)
    if layer is None or is_touched(layer, former):
        return True
    shared = [
        len(range(max(a.start, b.start), min(a.stop, b.stop))) / max(1, len(a))
        for a, b in zip(former.extent, written.extent, strict=True)
    ]
    if np.prod(shared) < _COVERED:
        return False
    layer.visible = False
    return True


def _fill(layer: Labels, written: Written) -> None:
    import pandas as pd

    labels, ids, scores, _ = written.objects
    layer.data[written.index] = labels
    by_id = {} if len(ids) != len(scores) else {"score": np.asarray(scores, float)}
    layer.features = pd.DataFrame({"index": ids, **by_id})
    note = layers.ours(layer)
    note["largest"] = max(int(note["largest"]), int(ids.max(initial=0)))
    _note_made(layer, written)
    layer.refresh()


def _note_made(layer: Labels, written: Written) -> None:
    objects, note = written.objects, layers.ours(layer)
    place = tuple(None if isinstance(step, slice) else step for step in written.index)
    made = Made(
        "auto",
        plane=place if place.count(None) == 2 else (),  # objects of a stack go through many planes
        model=str(note.get("model", "")),
        object_size=note.get("object_size"),
        weights_hash=str(note.get("weights_hash", "")),
        inputs=tuple((image, channel) for image, channel in note.get("inputs", ())) or None,
    )
    scores = objects.scores if len(objects.scores) == len(objects.ids) else None
    note_run(layer, objects.ids, scores, objects.areas, made)


def _extent(image: Image, plane: Plane, region: Region, axis: int | None) -> tuple[range, ...]:
    """Return the pixels of an image that a run covers; objects are the same in all channels."""
    shape, (y0, x0, y1, x1), (top, left) = level0(image).shape, region, plane.origin
    of_plane = iter((range(top + y0, top + y1), range(left + x0, left + x1)))
    return tuple(
        next(of_plane)
        if step is None
        else range(shape[i])
        if i == axis or plane.roles[i] is AxisRole.CHANNEL
        else range(step, step + 1)
        for i, step in enumerate(plane.index)
    )


def _index(place: tuple[int | None, ...], region: Region, axis: int | None) -> tuple[int | slice, ...]:
    y0, x0, y1, x1 = region
    of_plane = iter((slice(y0, y1), slice(x0, x1)))
    return tuple(
        slice(None) if i == axis else next(of_plane) if step is None else step for i, step in enumerate(place)
    )
