"""What to write in a paper about saved work: one paragraph, references and BibTeX."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.session.checks import is_outdated
from napari_lightsam.session.citations import cite
from napari_lightsam.session.document import areas_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_lightsam.session.document import Document, LabelRecord

_SOURCES = {
    "prompt": "{} outlined from clicks and boxes",
    "auto": "{} found automatically",
    "propagated": "{} followed from plane to plane",
    "manual": "{} drawn by hand or from elsewhere",
}
_MODES = {
    "auto": "prompts placed as suits the model",
    "object-aware": "prompts where objects probably are",
    "hierarchical": "prompts on a coarse, then a fine lattice",
    "grid": "prompts on a regular lattice",
}


def methods_text(document: Document) -> str:
    """Describe saved work as the methods section of a paper does.

    Parameters
    ----------
    document
        From `read_document`, or of a viewer.

    Returns
    -------
    str
        A paragraph with versions, model, weights, parameters, computation, quality check and licences, and
        BibTeX of what is to be cited.

    Raises
    ------
    FileError
        What was saved about the objects is damaged.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam.session import Document, ImageRecord, LabelRecord, Run
    >>> image = ImageRecord(name="cells", shape=(4, 5), dtype="uint8")
    >>> labels = LabelRecord(name="objects", data=np.eye(4, 5, dtype="int32"))
    >>> run = Run(version="0.1.0", model="lightsam", weights_hash="ab" * 32)
    >>> text = methods_text(Document(images=(image,), labels=(labels,), target=0, run=run))
    >>> "napari-lightsam 0.1.0" in text, "@software{napari_lightsam" in text
    (True, True)
    """
    try:
        return _text(document)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"What was saved about the objects is damaged ({type(error).__name__}: {error}): no methods text "
            "can be made of it."
        ) from error


def _text(document: Document) -> str:
    record = document.main
    sentences = [
        _image(document),
        _model(document),
        *_channels(document),
        *([] if record is None else [*_objects(document, record), *_settings(record), *_quality(record)]),
    ]
    models = _models(document)
    licences = [f"The weights of {name} are licensed under {spec.licence}." for name, spec in models.items()]
    paragraph = " ".join([*sentences, "napari-lightsam is licensed under BSD-3-Clause.", *licences])
    cited = "\n\n".join(cite(document.run.version, [spec.citation for spec in models.values()]))
    return f"{paragraph}\n\n{cited}\n"


def _image(document: Document) -> str:
    image, size = document.image, document.pixel_size_um
    calibrated = f", {size:.4g} um a pixel" if size else ""
    where = document.run.packages.get("napari", "")
    shape = " x ".join(map(str, image.shape))
    with_what = f"napari-lightsam {document.run.version} in napari {where}".rstrip()
    return f"Objects in {image.name!r} ({shape}, {image.dtype}{calibrated}) were outlined with {with_what}."


def _model(document: Document) -> str:
    run = document.run
    if not run.weights_hash:
        return "No model was used."
    backend = {"torch": "PyTorch", "openvino": "OpenVINO"}.get(run.runtime, run.runtime)
    number = run.packages.get(run.runtime, "")
    how = f" in {run.precision} by {backend} {number}".rstrip() + f" on {run.device}" if run.device else ""
    threads = f" ({_counted(run.threads, 'thread')})" if run.threads and run.device == "cpu" else ""
    size = document.settings.get("object_size")
    typical = f" A typical object diameter of {size:g} px was set." if size else ""
    title = _models(document)[run.model].title if run.model in _models(document) else run.model
    return (
        f"The model was {title} ({run.model}, weights SHA-256 {run.weights_hash}), run{how}{threads}; image "
        f"values were normalised from the data of each plane by the model's own rule.{typical}"
    )


def _objects(document: Document, record: LabelRecord) -> list[str]:
    axis = _time_axis(document, record)
    made = list(_made(record, axis))
    counts = Counter(str(how.get("source", "manual")) for how in made)
    parts = [text.format(counts[source]) for source, text in _SOURCES.items() if counts[source]]
    if not parts:
        return ["No objects were saved."]
    edited = sum(bool(how.get("edited")) for how in made)
    points = sum(len((how.get("prompt") or {}).get("points") or ()) for how in made)
    boxes = sum(bool((how.get("prompt") or {}).get("box")) for how in made)
    said = f" ({_counted(points, 'point')}, {_counted(boxes, 'box')})" if points or boxes else ""
    were = "was" if edited == 1 else "were"
    corrected = f" {edited} of them {were} corrected by hand afterwards." if edited else ""
    are = "is" if len(made) == 1 else "are"
    when = "" if axis is None else f" at {record.data.shape[axis]} time points, each counted by itself"
    return [f"There {are} {_counted(len(made), 'object')}{when}: {', '.join(parts)}{said}.{corrected}"]


def _time_axis(document: Document, record: LabelRecord) -> int | None:
    """Return the axis of labels whose time points are numbered by themselves; None where there is none."""
    axes = [int(axis) for axis, role in document.image.axes.items() if role == "time"]
    fits = axes and axes[0] < record.data.ndim and record.data.shape[axes[0]] > 1
    return axes[0] if fits else None


def _made(record: LabelRecord, axis: int | None) -> Iterator[Mapping[str, Any]]:
    """Yield how each object was made; a label at several time points is several objects."""
    unknown = {"source": "manual"}
    if axis is None:
        yield from (record.objects.get(value, unknown) for value in areas_of(record.data))
        return
    found = {"source": "auto"} if record.role == "everything" else unknown
    told: set[int] = set()
    for time, plane in enumerate(np.moveaxis(record.data, axis, 0)):
        for value, area in areas_of(plane).items():
            how = record.objects.get(value, unknown)
            where = how.get("plane") or ()
            if axis < len(where) and where[axis] is not None:  # what is noted is of one time point
                here = dict(how, edited=area != how.get("area"))
                yield here if where[axis] == time else found
            else:
                yield dict(how, edited=how.get("edited") and value not in told)
            told.add(value)


def _channels(document: Document) -> list[str]:
    """Say which channels the model saw, where an image has several or several images were put together."""
    record = document.main
    made = [] if record is None else [how for how in record.objects.values() if how.get("model")]
    seen = {
        tuple(map(tuple, document.inputs if how.get("inputs") is None else how["inputs"])) for how in made
    }
    told = [_inputs(document, inputs) for inputs in sorted(seen, key=str) if inputs]
    if not any(len(inputs) > 1 or channel is not None for inputs in seen for _, channel in inputs):
        return []
    return [f"The model saw {'; for other objects '.join(told)} (channels are counted from 0)."]


def _inputs(document: Document, inputs: Sequence[tuple[int, int | None]]) -> str:
    """Name what the model saw at once.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam.session import Document, ImageRecord
    >>> images = [ImageRecord(name=name, shape=(2, 4, 5), dtype="uint8") for name in ("cells", "stain")]
    >>> _inputs(Document(images=tuple(images)), [(0, 1), (0, 0), (1, None)])
    "channel 1 of 'cells' with channel 0 of 'cells' with 'stain'"
    """
    names = [document.images[number].name for number, _ in inputs]
    return " with ".join(
        repr(name) if channel is None else f"channel {channel} of {name!r}"
        for name, (_, channel) in zip(names, inputs, strict=True)
    )


def _counted(count: int, what: str) -> str:
    """Say how many there are.

    Examples
    --------
    >>> _counted(1, "point"), _counted(2, "box")
    ('1 point', '2 boxes')
    """
    plural = f"{what}es" if what.endswith("x") else f"{what}s"
    return f"{count} {what if count == 1 else plural}"


def _settings(record: LabelRecord) -> list[str]:
    settings: Mapping[str, Any] = record.note.get("settings") or {}
    if not settings:
        return []
    size, estimated = record.note.get("object_size"), record.note.get("object_size_estimated")
    diameter = f"object diameter {size:.1f} px ({'estimated' if estimated else 'given'})" if size else ""
    shown = [
        f"{name.replace('_', ' ')} {settings[name]:g}"
        for name in ("balance", "iou_threshold", "stability_threshold", "min_size", "max_size", "overlap")
        if settings.get(name) is not None
    ]
    border = "" if settings.get("keep_border", True) else "objects at the border left out"
    mode = _MODES.get(str(settings.get("mode")), str(settings.get("mode")))
    return [f"Automatic detection: {'; '.join(part for part in (mode, diameter, *shown, border) if part)}."]


def _quality(record: LabelRecord) -> list[str]:
    quality = record.quality
    if not quality:
        return []
    sentences = []
    for name, what in (("precision", "objects looked at were correct"), ("recall", "objects were found")):
        share = quality.get(name) or {}
        if share.get("total"):
            sentences.append(
                f"{share['hits']} of {share['total']} {what}: {name} {share['value']:.2f}, 95% interval "
                f"{share['low']:.2f} to {share['high']:.2f} (Wilson)"
            )
    if not sentences:
        return []
    told = [f"In a random sample (seed {quality.get('seed')}), {'; '.join(sentences)}."]
    if is_outdated(record):
        told.append("Objects were changed after that check, which is not of the result as it is now.")
    return told


def _models(document: Document) -> dict[str, Any]:
    """Return what is known of the models that were used, by name."""
    from napari_lightsam.engine.registry import known_models

    names = [document.run.model, *(str(record.note.get("model", "")) for record in document.labels)]
    names += [str(how.get("model", "")) for record in document.labels for how in record.objects.values()]
    known = known_models()
    return {name: known[name].spec for name in dict.fromkeys(names) if name in known}
