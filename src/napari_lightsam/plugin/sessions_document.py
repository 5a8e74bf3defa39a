"""From the layers of a viewer to saved work and back. Knows napari but no Qt."""

from __future__ import annotations

import os
import time
import uuid
from copy import deepcopy
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import METADATA_KEY, AxisRole, NoPlane, level0, roles_of
from napari_lightsam.plugin.made import Made, made_objects, made_with_area, note_made
from napari_lightsam.plugin.request import default_sources
from napari_lightsam.plugin.sessions_prompts import open_prompts
from napari_lightsam.session import Document, ImageRecord, LabelRecord, Run
from napari_lightsam.session.document import areas_of
from napari_lightsam.session.fields import plain
from napari_lightsam.session.picture import (
    LARGEST_KEPT,
    hash_content,
    hash_pixels,
    hash_sample,
    is_image,
    read_levels,
)

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.layers import Image, Labels, Layer

    from napari_lightsam.plugin.controller import Controller

LARGEST_COPY = 64 * 2**20
"""Bytes up to which labels are copied before they are written in the background; more would be felt."""

_PACKAGES = ("torch", "timm", "openvino", "numpy", "napari")
_OWN = ("made", "run", "quality", "image", "owner", "resume")  # kept elsewhere, or of one window


@dataclass(slots=True, eq=False)
class Snapshot:
    """What a viewer held at one moment; becomes a `Document` in the background.

    Attributes
    ----------
    document
        Everything but hashes and records of objects, which take time.
    arrays
        Of each image, some perhaps lazy.
    notes
        What was noted of each Labels layer's objects.
    known
        Hashes by what they are of.
    """

    document: Document
    arrays: list[Any]
    notes: list[Any]
    known: dict[Hashable, str] = field(default_factory=dict)

    def finished(self, *, keep_pixels: bool = True) -> Document:
        """Hash images and tell edited objects from others; takes a moment for large ones.

        Parameters
        ----------
        keep_pixels
            Keep the pixels of images that have no file.
        """
        images = tuple(
            _hashed(record, array, self.known, keep_pixels=keep_pixels)
            for record, array in zip(self.document.images, self.arrays, strict=True)
        )
        labels = tuple(
            replace(record, objects=_objects(record.data, notes))
            for record, notes in zip(self.document.labels, self.notes, strict=True)
        )
        return replace(self.document, images=images, labels=labels)


def take_snapshot(control: Controller, known: dict[Hashable, str]) -> Snapshot | None:
    """Take down the image, its Labels layers and all settings; None without an image.

    Parameters
    ----------
    control
        Of the viewer.
    known
        Hashes by what they are of, kept from one snapshot to the next.
    """
    image = control.annotator.image
    if image is None:
        return None
    pictures, inputs = _inputs(control, image)
    found = labels_of(control, image)
    target = next((i for i, layer in enumerate(found) if layer.unique_id == control.results.target), None)
    document = Document(
        images=tuple(_image_record(picture) for picture in pictures),
        inputs=inputs,
        settings={"model": control.shown.settings.model, "object_size": control.shown.settings.object_size},
        pixel_size_um=control.pixel_size_um,
        run=_run(control),
        labels=tuple(_label_record(layer) for layer in found),
        target=target,
        prompts=open_prompts(control.annotator, control.single.answer, [layer.unique_id for layer in found]),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    arrays = [level0(picture) for picture in pictures]
    return Snapshot(document, arrays, [_notes(layer) for layer in found], known)


def labels_of(control: Controller, image: Image) -> list[Labels]:
    """Return the Labels layers that belong to an image: ours, and others that lie exactly on it."""
    from napari.layers import Labels

    try:
        plane = control.annotator.plane()
    except NoPlane:
        plane = None
    found = []
    for layer in control.viewer.layers:
        note = layers.ours(layer)
        if not isinstance(layer, Labels) or layer.multiscale or layers.is_tool(layer):
            continue
        if not isinstance(layer.data, np.ndarray) or layer.ndim < 2:
            continue
        mine = note.get("image") == str(image.unique_id)
        if mine or (plane is not None and layers.place_in(layer, image, plane) is not None):
            found.append(layer)
    return found


def image_path(layer: Layer) -> Path | None:
    """Return the file or zarr folder that an Image layer shows; None for images that have none."""
    given = layers.ours(layer).get("image_file") or layer.source.path
    if not given or Path(given).suffix.casefold() == ".lightsam":
        return None
    path = Path(os.path.abspath(given))
    return path if is_image(path) else None


def _image_record(layer: Image) -> ImageRecord:
    data = level0(layer)
    known = {str(i): str(role) for i, role in enumerate(roles_of(layer)) if role is not AxisRole.UNKNOWN}
    shown = {"rgb": bool(layer.rgb)}
    if not layer.rgb:
        shown["contrast_limits"] = plain(layer.contrast_limits)
    return ImageRecord(
        name=layer.name,
        shape=tuple(int(n) for n in data.shape),
        dtype=np.dtype(data.dtype).name,
        path=image_path(layer),
        layer=_place(layer) | shown,
        axes=known,
    )


def _label_record(layer: Labels) -> LabelRecord:
    note = layers.ours(layer)
    small = layer.data.nbytes <= LARGEST_COPY
    features = layer.features
    return LabelRecord(
        name=layer.name,
        data=layer.data.copy() if small else layer.data,
        layer=_place(layer) | {"opacity": float(layer.opacity), "visible": bool(layer.visible)},
        note=plain({key: value for key, value in note.items() if key not in _OWN}),
        features={str(name): plain(features[name].tolist()) for name in features.columns},
        quality=plain(note["quality"]) if note.get("quality") else None,
    )


def _place(layer: Layer) -> dict[str, Any]:
    return {
        "scale": plain(layer.scale),
        "translate": plain(layer.translate),
        "rotate": plain(layer.rotate),
        "shear": plain(layer.shear),
        "affine": plain(layer.affine.affine_matrix),
        "units": [str(unit) for unit in layer.units],
        "axis_labels": list(layer.axis_labels),
    }


def _inputs(control: Controller, image: Image) -> tuple[list[Image], tuple[tuple[int, int | None], ...]]:
    """Return the images that the model sees, the annotated one first, and which channel of each."""
    pictures, inputs = [image], []
    for source in control.shown.sources or default_sources(control.viewer, image):
        layer = layers.by_id(control.viewer, source.layer)
        if layer is None:
            continue
        numbers = {picture.unique_id: i for i, picture in enumerate(pictures)}
        if layer.unique_id not in numbers:
            numbers[layer.unique_id] = len(pictures)
            pictures.append(layer)
        channel = source.channel
        roles = roles_of(layer)
        if channel is None and AxisRole.CHANNEL in roles:
            step = layer.world_to_data(control.viewer.dims.point)[roles.index(AxisRole.CHANNEL)]
            channel = int(np.rint(step))
        inputs.append((numbers[layer.unique_id], channel))
    return pictures, tuple(inputs) or ((0, None),)


def _run(control: Controller) -> Run:
    from napari_lightsam import __version__

    segmenter = control.inference.loaded(control.shown.settings.model)
    if segmenter is None:
        return Run(version=__version__, model=control.shown.settings.model)
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return Run(
        version=__version__,
        model=segmenter.spec.name,
        weights_hash=segmenter.weights_hash,
        device=segmenter.device,
        precision=segmenter.precision,
        runtime=getattr(segmenter, "runtime_name", ""),
        threads=_threads(),
        packages=packages,
    )


def _threads() -> int:
    import sys

    torch = sys.modules.get("torch")  # never imported here: it takes seconds
    return 0 if torch is None else int(torch.get_num_threads())


def _notes(layer: Labels) -> Any:
    """Return a stand-in for a layer that is read in the background, while notes go on changing."""
    note = layers.ours(layer)
    kept = {key: deepcopy(note[key]) for key in ("made", "run") if key in note}
    return SimpleNamespace(metadata={METADATA_KEY: kept})


def _objects(labels: Any, notes: Any) -> dict[int, dict[str, Any]]:
    """Return how every object that is there was made, and whether its pixels were changed since."""
    found = {}
    made = made_objects(notes)
    for value, area in areas_of(labels).items():
        how = made.get(value)
        if how is not None and how.area != area:
            how = made_with_area(notes, value, area)  # an undo brought former pixels back
        if how is not None:
            found[value] = how.to_plain() | {"edited": how.area != area}
    return found


def _hashed(record: ImageRecord, array: Any, known: dict[Hashable, str], *, keep_pixels: bool) -> ImageRecord:
    """Complete the record of an image; hashes of images and files that did not change are remembered."""
    pixels = content = ""
    key: Hashable
    if isinstance(array, np.ndarray):
        # an image whose values were changed in place is told by a few of them
        key = ("pixels", id(array), array.shape, array.flat[:: max(1, array.size // 64)].tobytes())
    else:
        key = ("pixels", id(array), array.shape, str(record.path))
    if key not in known:
        known[key] = identity(array, record.path)
    pixels = known[key]
    if record.path is not None and record.path.is_file():
        stat = record.path.stat()
        key = ("file", str(record.path), stat.st_size, stat.st_mtime_ns)
        if key not in known:
            known[key] = hash_content(record.path)
        content = known[key]
    kept = keep_pixels and record.path is None and isinstance(array, np.ndarray)
    kept = kept and array.nbytes <= LARGEST_KEPT
    return replace(
        record, pixels_hash=pixels, file_hash=content, pixels=np.ascontiguousarray(array) if kept else None
    )


def identity(array: Any, path: Path | None) -> str:
    """Return a hash that tells an image from others, for `ImageRecord.pixels_hash`.

    Parameters
    ----------
    array
        In memory, or lazy.
    path
        Of its file or zarr folder.

    Returns
    -------
    str
        Of some pixels of a zarr folder, of all pixels of other images in memory; empty for other lazy images,
        which may have to be computed first, and where none can be read.
    """
    if path is None or path.is_file():
        return hash_pixels(array) if isinstance(array, np.ndarray) else ""
    try:
        return hash_sample(array)
    except FileError:  # the work is saved all the same
        return ""


# --- back into layers --------------------------------------------------------------------------------


def image_keywords(record: ImageRecord, **note: Any) -> dict[str, Any]:
    """Return the keywords of `viewer.add_image` for a saved image."""
    ours = {"role": "image", "version": 1, "axes": {int(i): role for i, role in record.axes.items()}, **note}
    if record.path is not None:
        ours["image_file"] = str(record.path)
    return {"name": record.name, "metadata": {METADATA_KEY: ours}, **record.layer}


def labels_keywords(record: LabelRecord, **note: Any) -> dict[str, Any]:
    """Return the keywords of `viewer.add_labels` for a saved Labels layer, with all that was noted of it."""
    import pandas as pd

    ours = {"role": "objects", "version": 1, **deepcopy(record.note), **note}
    largest = int(record.data.max(initial=0))
    ours["largest"] = max(int(ours.get("largest") or 0), largest, *record.objects, 0)
    if record.quality is not None:
        ours["quality"] = deepcopy(record.quality)
    holder: Any = SimpleNamespace(metadata={METADATA_KEY: ours})
    for value, how in record.objects.items():
        note_made(holder, value, Made.from_plain(how))
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
    }
    found: list[tuple[Any, dict[str, Any], str]] = []
    for number, image in enumerate(document.images):
        note = {"resume": resume, "session_file": str(path.absolute())} if not number else {}
        levels = read_levels(image, path)
        keywords = image_keywords(image, **note)
        pyramid = len(levels) > 1
        found.append((levels if pyramid else levels[0], keywords | {"multiscale": pyramid}, "image"))
    for number, record in enumerate(document.labels):
        again = {"token": token, "target": number == document.target, "number": number}
        found.append((record.data, labels_keywords(record, resume=again), "labels"))
    return found
