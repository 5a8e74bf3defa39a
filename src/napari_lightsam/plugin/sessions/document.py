"""From the layers of a viewer to saved work and back. Knows napari but no Qt."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.objects.made import made_objects, made_with_area
from napari_lightsam.plugin.request import default_sources
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.sessions.prompts import open_prompts
from napari_lightsam.plugin.sessions.scene import here_and_now
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import (
    METADATA_KEY,
    AxisRole,
    level0,
    resting_plane,
    roles_of,
)
from napari_lightsam.session import Document, ImageRecord, LabelRecord, Run
from napari_lightsam.session.document import areas_of
from napari_lightsam.session.fields import plain
from napari_lightsam.session.picture import LARGEST_KEPT, is_image

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from napari.layers import Image, Labels, Layer
    from numpy.typing import NDArray

    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions.hashes import Hashes

LARGEST_COPY = 16 * 2**20
"""Bytes up to which labels are copied at once; larger ones in the background, as that would be felt."""

_OWN = ("made", "run", "quality", "image", "owner", "resume", "inputs")  # kept elsewhere, or of one window


@dataclass(frozen=True, slots=True, eq=False)
class Notes:
    """What was noted of a Labels layer and takes time to be read; none of it is changed in place.

    Attributes
    ----------
    made, run
        As `made.note_made` and `made.note_run` keep them.
    features
        The layer's table.
    """

    made: dict[str, Any]
    run: dict[str, Any]
    features: Any


@dataclass(frozen=True, slots=True, eq=False)
class Former:
    """What is known of an image that another one was chosen after.

    Attributes
    ----------
    document
        The work when it was left, without pixels.
    target
        `unique_id` of the Labels layer that objects were saved into, or None.
    pictures, labels
        `unique_id` of each Image layer of the document, and of each Labels layer that its prompts count.
    """

    document: Document
    target: Hashable | None
    pictures: tuple[Hashable, ...]
    labels: tuple[Hashable, ...]


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
        What was noted of each Labels layer.
    keys
        Number of each image by what objects call it.
    hashes
        Remembered.
    former
        What stays known when another image is chosen.
    """

    document: Document
    arrays: list[Any]
    notes: list[Notes]
    keys: dict[str, int]
    hashes: Hashes
    former: Former

    def finished(self, *, briefly: bool = False) -> Document:
        """Hash images and tell edited objects from others; takes a moment for large ones.

        Parameters
        ----------
        briefly
            Leave out the pixels of images that have no file, and trust what is known of large images.
        """
        images = tuple(
            _hashed(record, array, self.hashes, briefly=briefly)
            for record, array in zip(self.document.images, self.arrays, strict=True)
        )
        labels = tuple(
            _completed(record, notes, self.keys)
            for record, notes in zip(self.document.labels, self.notes, strict=True)
        )
        return replace(self.document, images=images, labels=labels)


def take_snapshot(
    control: Controller,
    image: Image,
    hashes: Hashes,
    *,
    former: Former | None = None,
    copied: Callable[[Labels], NDArray[Any]] | None = None,
) -> Snapshot:
    """Take down an image, its Labels layers and all settings.

    Parameters
    ----------
    control
        Of the viewer.
    image
        The chosen one, or another one.
    hashes
        Kept from one snapshot to the next.
    former
        What is known of an image that is not the chosen one.
    copied
        Returns a copy of a layer's labels, or the labels themselves where they are large; None: makes one.
    """
    found = labels_of(control, image)
    notes = [_notes(layer) for layer in found]
    if image.unique_id == control.annotator.image_id:
        document, target, pictures = _chosen_work(control, image, found)
    else:
        document, target, pictures = _former_work(control, image, former)
        if former is not None:
            document = replace(document, prompts=_counted_anew(document.prompts, former.labels, found))
    keys = {layers.input_key(picture): number for number, picture in enumerate(pictures)}
    for picture in _further_pictures(control, notes, keys):
        keys[layers.input_key(picture)] = len(pictures)
        pictures.append(picture)
    records = tuple(_label_record(layer, copied or copy_of) for layer in found)
    document = replace(
        document,
        images=tuple(_image_record(picture) for picture in pictures),
        labels=records,
        target=next((i for i, layer in enumerate(found) if layer.unique_id == target), None),
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    )
    left = replace(document, labels=())
    known = Former(
        left,
        target,
        tuple(picture.unique_id for picture in pictures),
        tuple(layer.unique_id for layer in found),
    )
    return Snapshot(document, [level0(picture) for picture in pictures], notes, keys, hashes, known)


def _chosen_work(
    control: Controller, image: Image, found: list[Labels]
) -> tuple[Document, Hashable | None, list[Image]]:
    pictures, inputs = _inputs(control, image)
    document = Document(
        images=(),
        inputs=inputs,
        settings=settings_of(control),
        pixel_size_um=control.pixel_size_um,
        run=_run(control),
        prompts=open_prompts(control.annotator, control.single.answer, [layer.unique_id for layer in found]),
    )
    return document, control.results.target, pictures


def _former_work(
    control: Controller, image: Image, former: Former | None
) -> tuple[Document, Hashable | None, list[Image]]:
    if former is None:
        return Document(images=(), settings=settings_of(control), run=_run(control)), None, [image]
    pictures = [layers.by_id(control.viewer, picture) for picture in former.pictures]
    if None in pictures:  # one of them was deleted
        return replace(former.document, inputs=((0, None),)), former.target, [image]
    return former.document, former.target, pictures


def _counted_anew(
    saved: tuple[dict[str, Any], ...], former: tuple[Hashable, ...], found: list[Labels]
) -> tuple[dict[str, Any], ...]:
    """Let corrections name their Labels layers by the numbers that these have now."""
    now = {layer.unique_id: number for number, layer in enumerate(found)}
    counted = []
    for prompt in saved:
        kept = {key: value for key, value in prompt.items() if key != "corrects"}
        given: dict[str, int] = prompt.get("corrects", {})
        number = now.get(former[given["labels"]]) if given else None
        counted.append(kept if number is None else kept | {"corrects": given | {"labels": number}})
    return tuple(counted)


def _further_pictures(control: Controller, notes: list[Notes], known: dict[str, int]) -> list[Image]:
    """Return the images that objects were made with, besides those that are known."""
    seen: set[Any] = set()
    for note in notes:
        for made in (note.run, *(past[0] for past in note.made.values())):
            seen.update(key for key, _ in made.get("inputs") or ())
    missing = seen.difference(known)
    return [x for x in layers.images(control.viewer) if missing and layers.input_key(x) in missing]


def labels_of(control: Controller, image: Image) -> list[Labels]:
    """Return the Labels layers that belong to an image: ours, and others that lie exactly on it."""
    from napari.layers import Labels

    plane = resting_plane(image, control.viewer)
    found = []
    for layer in control.viewer.layers:
        note = layers.ours(layer)
        if not isinstance(layer, Labels) or layer.multiscale or layers.is_tool(layer):
            continue
        if not isinstance(layer.data, np.ndarray) or layer.ndim < 2:
            continue
        mine = note.get("image") == str(image.unique_id)
        if mine or layers.place_in(layer, image, plane) is not None:
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


def copy_of(layer: Labels) -> NDArray[Any]:
    """Return a copy of a layer's labels; large ones as they are, to be copied in the background."""
    data: NDArray[Any] = layer.data
    return data.copy() if data.nbytes <= LARGEST_COPY else data


def _label_record(layer: Labels, copied: Callable[[Labels], NDArray[Any]]) -> LabelRecord:
    note = layers.ours(layer)
    return LabelRecord(
        name=layer.name,
        data=copied(layer),
        layer=_place(layer) | {"opacity": float(layer.opacity), "visible": bool(layer.visible)},
        note=plain({key: value for key, value in note.items() if key not in _OWN}),
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


def settings_of(control: Controller) -> dict[str, Any]:
    """Return what was chosen, as `Document.settings`."""
    choices = control.everything.choices
    where = Scope.PLANE if choices.scope is Scope.REGION else choices.scope  # its layer is not saved
    return {
        "everything": {"scope": str(where), "config": asdict(choices.config)},
        "model": control.shown.settings.model,
        "object_size": control.shown.settings.object_size,
        "inputs_chosen": bool(control.shown.sources),
    }


def _run(control: Controller) -> Run:
    segmenter = control.inference.loaded(control.shown.settings.model)
    here = here_and_now()
    if segmenter is None:
        return Run(version=here.version, model=control.shown.settings.model)
    return replace(
        here,
        model=segmenter.spec.name,
        weights_hash=segmenter.weights_hash,
        device=segmenter.device,
        precision=segmenter.precision,
        runtime=getattr(segmenter, "runtime_name", ""),
    )


def _notes(layer: Labels) -> Notes:
    note = layers.ours(layer)
    return Notes(dict(note.get("made", {})), dict(note.get("run", {})), layer.features.copy())


def _completed(record: LabelRecord, notes: Notes, keys: Mapping[str, int]) -> LabelRecord:
    large = record.data.nbytes > LARGEST_COPY
    data = record.data.copy() if large else record.data  # it may change while it is written
    features = notes.features
    return replace(
        record,
        data=data,
        objects=_objects(data, notes, keys),
        features={str(name): plain(features[name].tolist()) for name in features.columns},
    )


def _objects(labels: Any, notes: Notes, keys: Mapping[str, int]) -> dict[int, dict[str, Any]]:
    """Return how every object that is there was made, and whether its pixels were changed since."""
    holder: Any = SimpleNamespace(metadata={METADATA_KEY: {"made": notes.made, "run": notes.run}})
    found = {}
    made = made_objects(holder)
    for value, area in areas_of(labels).items():
        how = made.get(value)
        if how is not None and how.area != area:
            how = made_with_area(holder, value, area)  # an undo brought former pixels back
        if how is not None:
            found[value] = how.with_inputs(keys).to_plain() | {"edited": how.area != area}
    return found


def _hashed(record: ImageRecord, array: Any, hashes: Hashes, *, briefly: bool) -> ImageRecord:
    """Complete the record of an image."""
    pixels = hashes.pixels(array, record.path, anew=not briefly)
    path, small = record.path, isinstance(array, np.ndarray) and array.nbytes <= LARGEST_KEPT
    here = path is not None and path.is_file()
    if path and here and small and not briefly and not hashes.holds(replace(record, pixels_hash=pixels)):
        path, here = None, False  # another reader opened it, or its pixels were changed since
    kept = not briefly and path is None and small
    return replace(
        record,
        path=path,
        pixels_hash=pixels,
        # of a lazy image autosaving reads nothing: it may be larger than what can be read in time
        file_hash=hashes.file(path) if here and path and (pixels or not briefly) else "",
        pixels=np.ascontiguousarray(array) if kept else None,
    )
