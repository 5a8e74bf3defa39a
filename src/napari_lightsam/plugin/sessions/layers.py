"""Saved work as layers for a viewer. Knows napari but no Qt."""

from __future__ import annotations

import uuid
from copy import deepcopy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.viewer.axes import METADATA_KEY
from napari_lightsam.session.picture import read_levels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_lightsam.session import Document, ImageRecord, LabelRecord


def image_keywords(record: ImageRecord, **note: Any) -> dict[str, Any]:
    """Return the keywords of `viewer.add_image` for a saved image."""
    ours = {"role": "image", "version": 1, "axes": {int(i): role for i, role in record.axes.items()}, **note}
    if record.path is not None:
        ours["image_file"] = str(record.path)
    return {"name": record.name, "metadata": {METADATA_KEY: ours}, **record.layer}


def labels_keywords(record: LabelRecord, keys: Mapping[int, str], **note: Any) -> dict[str, Any]:
    """Return the keywords of `viewer.add_labels` for a saved Labels layer, with all that was noted of it.

    Parameters
    ----------
    record
        From the file.
    keys
        What to call each of the file's images in what is noted of objects; see `layers.input_key`.
    **note
        Noted of the layer, besides.
    """
    import pandas as pd

    ours = {"role": "objects", "version": 1, **deepcopy(record.note), **note}
    largest = int(record.data.max(initial=0))
    ours["largest"] = max(int(ours.get("largest") or 0), largest, *record.objects, 0)
    if record.quality is not None:
        ours["quality"] = deepcopy(record.quality)
    holder: Any = SimpleNamespace(metadata={METADATA_KEY: ours})
    for value, how in record.objects.items():
        note_made(holder, value, Made.from_plain(how).with_inputs(keys))
    keywords: dict[str, Any] = {"name": record.name, "metadata": holder.metadata, **record.layer}
    if record.features:
        keywords["features"] = pd.DataFrame(record.features)
    return keywords


def opened_layers(document: Document, path: Path) -> list[tuple[Any, dict[str, Any], str]]:
    """Return the layers of saved work as napari's readers do, the image read and made sure of.

    Parameters
    ----------
    document
        What the file holds.
    path
        The file, noted with the image, so that work on it goes on where it was saved.

    Raises
    ------
    FileError
        An image is not there, cannot be read, or is another one.
    """
    token = uuid.uuid4().hex  # tells these layers from those of the same file opened twice
    resume = {
        "token": token,
        "settings": dict(document.settings),
        "inputs": list(document.inputs),
        "prompts": list(document.prompts),
        "pixel_size_um": document.pixel_size_um,
    }
    keys = {number: f"{token}:{number}" for number in range(len(document.images))}
    found: list[tuple[Any, dict[str, Any], str]] = []
    for number, image in enumerate(document.images):
        note: dict[str, Any] = {"input_key": keys[number]}
        if not number:
            note |= {"resume": resume, "session_file": str(path.absolute())}
        levels = read_levels(image, path)
        keywords = image_keywords(image, **note)
        pyramid = len(levels) > 1
        found.append((levels if pyramid else levels[0], keywords | {"multiscale": pyramid}, "image"))
    for number, record in enumerate(document.labels):
        again = {"token": token, "target": number == document.target, "number": number}
        found.append((record.data, labels_keywords(record, keys, resume=again), "labels"))
    return found
