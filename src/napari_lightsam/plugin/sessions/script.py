"""Work as a Python script that gives the same labels."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import read_info
from napari_lightsam.plugin.objects.made import Made, plain_mask
from napari_lightsam.plugin.sessions.replay import origin_of
from napari_lightsam.plugin.sessions.scene import image_index, is_colour, part_of
from napari_lightsam.samples import SAMPLES, read_sample
from napari_lightsam.session.document import areas_of
from napari_lightsam.session.picture import hash_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.session import Document, ImageRecord, LabelRecord

_HEAD = '''"""{title}"""

import numpy as np

{imports}
'''

_DRAW = '''

def draw(label, plane, embedding, size, candidate, points=(), box=None, cut=None):
    """Outline one object, and draw it where no other one is."""
    keep = next(((y, x) for y, x, positive in points if positive), None)
    given = {}
    if points:
        given["points"] = [[(y, x) for y, x, _ in points]]
        given["point_labels"] = [[int(positive) for *_, positive in points]]
    if box is not None:
        given["boxes"] = [box]
    masks = segmenter.predict(embedding, **given).candidates(0)
    masks = by_size([m for m in (mask.cleaned(keep=keep) for mask in masks) if m.area], size)
    mask = masks[min(candidate, len(masks) - 1)]
    y0, x0, y1, x1 = mask.box
    part = labels[plane][y0:y1, x0:x1]
    free = mask.crop & (part == 0)
    if cut is not None:  # what belonged to other objects then
        free &= ~overlay(mask_from(cut), mask)
    elif free.sum() < mask.area:
        free = one_piece(free, None if keep is None else (round(keep[0]) - y0, round(keep[1]) - x0))
    part[free] = label

'''


def as_python(document: Document, path: Path | None = None) -> str:
    """Write work down as a script that runs as it is and gives the same labels.

    Parameters
    ----------
    document
        The work; of several Labels layers the one that was worked on.
    path
        Where it is saved: pixels that were painted or edited by hand are read from there. Without it they are
        left out, and the script says so.
    """
    number = len(document.labels) - 1 if document.target is None else document.target
    if not document.labels:
        return _head(document, ()) + "\n# No objects were saved yet.\n"
    record = document.labels[number]
    areas = areas_of(record.data)
    made = {value: Made.from_plain(how) for value, how in record.objects.items() if value in areas}
    kept: list[int] = []
    prompted: list[int] = []
    found: list[int] = []
    for value in areas:
        how = made.get(value)
        again = origin_of(value, how, record, document.image) == "made again"
        if not again or how is None or not _is_plain(how, record):
            kept.append(value)
        else:
            (found if how.source == "auto" else prompted).append(value)
    parts = [image.path is not None and not _is_all_of(image.path, image) for image in document.images]
    body = [_pixels(document, path, parts)]
    model = next((made[value].model for value in [*found, *prompted]), "")
    if model:
        body.append(_load(document, model))
    body.append(f"labels = np.zeros({record.data.shape}, np.int32)\n")
    if kept:
        body.append(_kept(kept, number, path))
    if found:
        body.append(_everything(document, record, made[found[0]], found))
    if prompted:
        body += _prompts(document, record, {value: made[value] for value in prompted}, model)
    name = f"{Path(document.image.path or document.image.name).stem}_labels.tif"
    body.append(
        f"\nprint(len(np.unique(labels[labels > 0])), 'objects')\nwrite_labels({name!r}, labels.squeeze())\n"
    )
    imports = [
        "from napari_lightsam.formats.labels import write_labels",
        *(["from napari_lightsam import load_segmenter"] if model else []),
        *(["from napari_lightsam import segment_everything"] if found else []),
        *(["from napari_lightsam.engine.masks import by_size, one_piece"] if prompted else []),
        *(["from napari_lightsam.plugin.objects.made import mask_from, overlay"] if prompted else []),
        *_reading(document, path, kept, parts),
    ]
    return _head(document, imports) + "".join(body)


def _head(document: Document, imports: Sequence[str]) -> str:
    when = document.created[:10]
    title = f"Objects of {document.image.name}, outlined with napari-lightsam {document.run.version} {when}"
    return _HEAD.format(title=title.replace('"', "'").rstrip() + ".", imports="\n".join(sorted(imports)))


def _is_plain(how: Made, record: LabelRecord) -> bool:
    """Tell whether an object is made by a few lines; others come from the file."""
    if how.source == "auto":
        return record.note.get("axis") is None and not record.note.get("polygons")
    return how.prompt is not None and how.prompt.mask is None


@cache
def _samples() -> dict[str, str]:
    """Return the name of each image of the package by the hash of its pixels."""
    return {hash_pixels(read_sample(name)): name for name in SAMPLES}


def _sample(image: ImageRecord) -> str | None:
    """Return which image of the package this is, whatever its layer is called; None: it is none."""
    return _samples().get(image.pixels_hash) if image.path is None else None


def _is_all_of(path: Path, image: ImageRecord) -> bool:
    """Tell whether an image is all that its file holds, and not one channel of it that was a layer."""
    try:
        return math.prod(read_info(path).shape) == math.prod(image.shape)
    except FileError:  # not there now: the script says so when it runs
        return True


def _reading(document: Document, path: Path | None, kept: Sequence[int], parts: Sequence[bool]) -> list[str]:
    files = [image.path is not None for image in document.images]
    samples = [_sample(image) is not None for image in document.images]
    others = not all(file or sample for file, sample in zip(files, samples, strict=True))
    lines = []
    if any(file and not part for file, part in zip(files, parts, strict=True)):
        lines.append("from napari_lightsam.formats.images import read_image")
    if any(parts):
        lines += [
            "from pathlib import Path",
            "from napari_lightsam.session import ImageRecord",
            "from napari_lightsam.session.picture import read_pixels",
        ]
    if any(samples):
        lines.append("from napari_lightsam.samples import read_sample")
    if path is not None and (kept or others):
        lines.append("from napari_lightsam.session import read_document")
    return lines


def _pixels(document: Document, path: Path | None, parts: Sequence[bool]) -> str:
    lines = []
    for number, image in enumerate(document.images):
        name = "image" if not number else f"image_{number}"
        if parts[number]:
            lines.append(
                f"{name} = np.asarray(read_pixels(ImageRecord(name={image.name!r}, shape={image.shape}, "
                f"dtype={image.dtype!r}, path=Path({str(image.path)!r}), pixels_hash={image.pixels_hash!r}), "
                'Path("this script")))\n'
            )
        elif image.path is not None:
            part = "[:]" if image.path.is_dir() else ""  # of a zarr folder, which reads nothing before
            lines.append(f"{name} = read_image({str(image.path)!r}).data{part}.reshape({image.shape})\n")
        elif (sample := _sample(image)) is not None:
            lines.append(f"{name} = read_sample({sample!r})\n")
        elif path is not None:
            lines.append(f"{name} = read_document({str(path)!r}).images[{number}].pixels\n")
        else:
            lines.append(
                f"{name} = ...  # {image.name}: it has no file; save the session, and copy the script again\n"
            )
    return "".join(lines)


def _load(document: Document, model: str) -> str:
    run = document.run
    chosen = "".join(
        f", {key}={value!r}" for key in ("device", "precision", "runtime") if (value := getattr(run, key))
    )
    return f"segmenter = load_segmenter({model!r}{chosen})\n"


def _kept(kept: Sequence[int], number: int, path: Path | None) -> str:
    if path is None:
        some = ", ".join(map(str, kept[:20])) + (", ..." if len(kept) > 20 else "")
        return (
            f"# Not in this script: {len(kept)} painted, edited or followed through planes ({some}).\n"
            "# Save the session and copy the script again: then they are read from its file.\n"
        )
    return (
        f"saved = read_document({str(path)!r}).labels[{number}].data\n"
        f"kept = np.isin(saved, {_wrapped(kept)})  # painted, edited or followed through planes\n"
        "labels[kept] = saved[kept]\n"
    )


def _wrapped(values: Sequence[int]) -> str:
    return json.dumps(list(values))


def _plane(document: Document, record: LabelRecord, how: Made) -> tuple[str, str]:
    """Return expressions for the plane that the model saw, and for its place in the labels."""
    parts = []
    inputs = _inputs(document, how)
    for source in inputs:
        name = "image" if not source[0] else f"image_{source[0]}"
        parts.append(name + _index(image_index(document, source, how.plane, record)))
    seen = parts[0] if len(parts) == 1 else f"np.stack([{', '.join(parts)}], axis=-1)"
    return seen, _index(how.plane) or "[...]"


def _inputs(document: Document, how: Made) -> Sequence[tuple[int, int | None]]:
    if how.inputs is None:
        return document.inputs
    return [(int(image), channel) for image, channel in how.inputs]


def _index(index: Sequence[int | slice | None]) -> str:
    if all(step is None or step == slice(None) for step in index):
        return ""
    return "[" + ", ".join(_step(step) for step in index) + "]"


def _step(step: int | slice | None) -> str:
    if isinstance(step, int):
        return str(step)
    return ":" if step is None or step == slice(None) else f"{step.start}:{step.stop}"


def _everything(document: Document, record: LabelRecord, how: Made, values: Sequence[int]) -> str:
    usual = {field.name: field.default for field in fields(EverythingConfig)}
    settings: dict[str, Any] = record.note["settings"]
    given = {key: value for key, value in settings.items() if key in usual and value != usual[key]}
    seen, place = _plane(document, record, how)
    y0, x0, y1, x1 = part_of(record)
    part = f"[{y0}:{y1}, {x0}:{x1}]"
    colour = is_colour(document, _inputs(document, how))
    keywords = "".join(f", {key}={value!r}" for key, value in given.items())
    return (
        f"found = segment_everything({seen}{part}, model=segmenter, rgb={colour}{keywords})\n"
        f"found[~np.isin(found, {_wrapped(values)})] = 0  # deleted or edited since\n"
        f"part = labels{place}{part}\n"
        "part[part == 0] = found[part == 0]\n"
    )


def _prompts(document: Document, record: LabelRecord, made: dict[int, Made], model: str) -> list[str]:
    lines, before = [_DRAW], None
    for value, how in made.items():
        if how.model != model:
            lines.append(_load(document, how.model))
            model, before = how.model, None
        seen, place = _plane(document, record, how)
        size = how.object_size
        if (seen, size) != before:
            colour = is_colour(document, _inputs(document, how))
            lines.append(f"embedding = segmenter.embed({seen}, object_size={size}, rgb={colour})\n")
            before = (seen, size)
        assert how.prompt is not None
        said = f", points={[tuple(point) for point in how.prompt.points]}" if how.prompt.points else ""
        said += f", box={how.prompt.box}" if how.prompt.box else ""
        said += f", cut={plain_mask(how.cut)}" if how.cut is not None else ""
        plane = f"np.s_{place}"
        lines.append(f"draw({value}, {plane}, embedding, {size}, {how.candidate}{said})\n")
    return lines
