"""What is written of every image of a series, and what was there before. Knows no Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.series.items import move_aside
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, AxisRole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.formats.objects import Objects
    from napari_lightsam.plugin.series.items import Item
    from napari_lightsam.plugin.sessions.document import Snapshot
    from napari_lightsam.session import Document, ImageRecord, LabelRecord

FORMATS = ("tiff", "csv")
"""What is written of every image, besides the session."""
CHECKS = "checks.csv"
"""A table of the quality checks of all images."""


def files_of(item: Item) -> list[Path]:
    """Return what is written of an image when it is done."""
    from napari_lightsam.formats.export import FORMATS as ALL

    return [
        item.session,
        *(item.base.with_name(item.base.name + ALL[name].ending) for name in FORMATS),
    ]


def write_item(item: Item, snapshot: Snapshot, seen: object) -> Work[Path | None]:
    """Write the outputs of an image, the session last: where it is, the image counts as done.

    Parameters
    ----------
    item
        The image.
    snapshot
        The work on it.
    seen
        `Item.stamp` when that work was begun. What somebody else has written since is not written over.

    Returns
    -------
    path
        Where such results were moved to; None where there were none.
    """
    from napari_lightsam.formats.export import export_objects
    from napari_lightsam.session import write_document
    from napari_lightsam.session.checks import note_check

    yield Progress("saving", 0, 1)
    document = snapshot.finished()
    aside = None if item.stamp == seen else move_aside(files_of(item), item.base.parent)
    export_objects(item.base, _described(objects_of(document), document.main), FORMATS)
    note_check(item.session.with_name(CHECKS), item.source.name, document.main)
    write_document(item.session, document)
    return aside


def objects_of(document: Document) -> Objects:
    """Return the objects that files hold: those of the layer that was worked on, else of the topmost one."""
    from napari_lightsam.plugin.writer import layer_objects

    record = document.main
    name = document.image.name
    if record is None:
        data, place = _nothing_found(document.image), document.image.layer
        return layer_objects(data, _spatial(place) | {"name": name})
    meta = _spatial(record.layer) | {"name": name, "metadata": {METADATA_KEY: record.note}}
    return layer_objects(record.data, meta)


def _described(objects: Objects, record: LabelRecord | None) -> Objects:
    """Add to the measurements of objects how each was made, and how sure the model was."""
    if record is None:
        return objects
    table = objects.measured()
    automatic = dict(zip(record.features.get("index", ()), record.features.get("score", ()), strict=False))
    made = [record.objects.get(int(label), {}) for label in table["label"]]
    scores = [
        automatic.get(label) if how.get("score") is None else how["score"]
        for label, how in zip(table["label"], made, strict=True)
    ]
    kinds = ["edited" if how.get("edited") else how.get("source", "manual") for how in made]
    return replace(objects, table=table.assign(score=np.array(scores, float), source=kinds))


def _spatial(place: Mapping[str, Any]) -> dict[str, Any]:
    return {key: place.get(key) for key in ("axis_labels", "units", "scale")}


def _nothing_found(image: ImageRecord) -> Any:
    """Return empty labels of an image's size: one that holds no object is annotated as well."""
    shape = image.shape[:-1] if image.layer.get("rgb") else image.shape
    channels = [int(axis) for axis, role in image.axes.items() if role == AxisRole.CHANNEL]
    return np.zeros([1 if axis in channels else n for axis, n in enumerate(shape)], np.int32)
