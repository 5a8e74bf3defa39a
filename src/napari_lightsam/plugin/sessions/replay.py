"""Makes saved objects again from what was recorded of them, without a window, and says how well it went."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_lightsam.engine.config import EverythingConfig, config_from
from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.objects.made import Made, overlay
from napari_lightsam.plugin.sessions.scene import Scene, part_of, region_of
from napari_lightsam.plugin.viewer.axes import AxisRole
from napari_lightsam.plugin.viewer.places import index_of
from napari_lightsam.session.document import areas_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
    from napari_lightsam.session import Document, ImageRecord, LabelRecord

LEAST_IOU = 0.98
"""Intersection over union from which an object counts as made again, where the runtime is another one."""

_SETTINGS = {field.name for field in fields(EverythingConfig)}

Origin = Literal["made again", "edited", "painted", "propagated", "not recorded"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object.

    Attributes
    ----------
    layer
        Number of its Labels layer in the document.
    label
        Its label.
    origin
        "made again"; else why its pixels were kept as they are: "edited" by brush since it was made,
        "painted" by hand or from elsewhere, "propagated" through planes, or "not recorded" well enough.
    iou
        Intersection over union with the saved object; 1 for what was kept.
    """

    layer: int
    label: int
    origin: Origin
    iou: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """The result of a replay.

    Attributes
    ----------
    labels
        One array for each Labels layer of the document.
    outcomes
        One for each object.
    identical
        Every pixel is as it was saved.
    differences
        In what the computation differs from the recorded one; empty where it is the same.
    """

    labels: tuple[NDArray[Any], ...]
    outcomes: tuple[Outcome, ...]
    identical: bool
    differences: tuple[str, ...]

    @property
    def made(self) -> tuple[Outcome, ...]:
        """The objects that were made again."""
        return tuple(one for one in self.outcomes if one.origin == "made again")

    @property
    def missed(self) -> tuple[Outcome, ...]:
        """Those of them that differ too much."""
        return tuple(one for one in self.made if one.iou < LEAST_IOU)

    def describe(self) -> list[str]:
        """Say in sentences how well the work was repeated."""
        made, missed = self.made, self.missed
        where = "the recorded computation" if not self.differences else "another computation"
        lines = [f"Objects made again: {len(made)}, by {where}."]
        lines += [f"  {difference}" for difference in self.differences]
        if self.identical:
            lines.append("Bit-identical: every pixel of every layer is as it was saved.")
        elif made:
            ious = [one.iou for one in made]
            lines.append(
                f"Matched: {len(made) - len(missed)} of {len(made)} objects at IoU >= {LEAST_IOU}; the least "
                f"is {min(ious):.4f}, the median {float(np.median(ious)):.4f}."
            )
        lines += [
            f"Object {one.label} of layer {one.layer} differs: IoU {one.iou:.3f}." for one in missed[:20]
        ]
        kept: dict[str, list[str]] = {}
        for one in self.outcomes:
            if one.origin != "made again":
                kept.setdefault(one.origin, []).append(str(one.label))
        for origin, labels in kept.items():
            some = ", ".join(labels[:20]) + (", ..." if len(labels) > 20 else "")
            lines.append(f"Kept as pixels, {origin}: {len(labels)} ({some}).")
        return lines


def replay(document: Document, path: Path, load: Callable[[str], Segmenter]) -> Work[Replay]:
    """Make all objects again that were prompted or found by everything mode; others are kept as pixels.

    Pixels that belong to other objects stay theirs, as when the objects were made.

    Parameters
    ----------
    document
        From `read_document`.
    path
        Its file, for messages.
    load
        Gives the model of a name; called once for each.

    Yields
    ------
    Progress
        By object.

    Returns
    -------
    Replay

    Raises
    ------
    FileError
        The image is not there, or is another one.
    WeightsError
        A model is not on this computer.
    """
    yield Progress("reading the image", 0, 1)
    scene = Scene(document, path, load)
    results, outcomes = [], []
    for number, record in enumerate(document.labels):
        labels, found = yield from _replay_layer(scene, number, record)
        results.append(labels)
        outcomes += found
    identical = all(
        np.array_equal(new, record.data) for new, record in zip(results, document.labels, strict=True)
    )
    return Replay(tuple(results), tuple(outcomes), identical, scene.differences)


def with_labels(document: Document, result: Replay) -> Document:
    """Return a document whose labels are those that were made again."""
    labels = tuple(
        replace(record, data=data) for record, data in zip(document.labels, result.labels, strict=True)
    )
    return replace(document, labels=labels)


def _replay_layer(scene: Scene, number: int, record: LabelRecord) -> Work[tuple[NDArray[Any], list[Outcome]]]:
    stored = record.data
    areas = areas_of(stored)
    made = {value: Made.from_plain(how) for value, how in record.objects.items() if value in areas}
    origins = {value: origin_of(value, made.get(value), record, scene.document.image) for value in areas}
    again = [value for value in areas if origins[value] == "made again"]
    new = np.where(np.isin(stored, again), 0, stored).astype(stored.dtype)
    automatic = [value for value in again if made[value].source == "auto"]
    if automatic:
        yield from _again_everything(scene, record, made[automatic[0]], automatic, new)
    prompted = [value for value in again if made[value].source == "prompt"]
    for done, value in enumerate(prompted):
        yield Progress("making objects again", done, len(prompted))
        _again_prompted(scene, record, made[value], value, new)
    outcomes = [
        Outcome(number, value, origins[value], _iou(new, stored, value) if value in again else 1.0)
        for value in areas
    ]
    return new, outcomes


def origin_of(value: int, how: Made | None, record: LabelRecord, image: ImageRecord) -> Origin:
    """Say whether an object can be made again, and else why its pixels are kept."""
    if how is None or how.source == "manual":
        return "painted"
    if record.objects[value].get("edited"):
        return "edited"
    if how.source == "propagated":
        return "propagated"
    if not how.model or how.shaped or how.inputs == ():
        return "not recorded"
    known = how.source == "prompt" or "part" in record.note  # in a region, early files do not tell
    if not (_is_whole(record, image) or (known and _is_region(record))) or not _tells_plane(record, image):
        return "not recorded"
    if how.source == "prompt":
        return "made again" if how.prompt is not None and how.plane.count(None) == 2 else "not recorded"
    complete = bool(record.note.get("settings")) and record.note.get("complete", True)
    return "made again" if complete and not record.note.get("prompted") else "not recorded"


def _is_whole(record: LabelRecord, image: ImageRecord) -> bool:
    """Tell whether labels cover whole planes: in a part of one, prompts do not tell enough."""
    shape = image.shape[: len(image.shape) - bool(image.layer.get("rgb"))]
    sides = zip(reversed(record.data.shape), reversed(shape), strict=False)
    return all(mine in (1, whole) for mine, whole in sides)


def _tells_plane(record: LabelRecord, image: ImageRecord) -> bool:
    """Tell whether labels have all axes along which the image has planes: else nobody knows on which one."""
    shape = image.shape[: len(image.shape) - bool(image.layer.get("rgb"))]
    missing = range(len(shape) - record.data.ndim)
    return all(shape[i] == 1 or image.axes.get(str(i)) == AxisRole.CHANNEL for i in missing)


def _is_region(record: LabelRecord) -> bool:
    """Tell whether labels cover all of a work region, on the last two axes as nearly always."""
    region = region_of(record)
    return region is not None and record.data.shape[-2:] == (region[2] - region[0], region[3] - region[1])


def _again_prompted(scene: Scene, record: LabelRecord, how: Made, value: int, new: NDArray[Any]) -> None:
    from napari_lightsam.engine.alike import predict_alike
    from napari_lightsam.engine.masks import one_piece

    assert how.prompt is not None
    segmenter, embedding = scene.embedding(how, record)
    here = index_of(how.plane)
    found = predict_alike(segmenter, embedding, [how.prompt], how.object_size)[0]
    if not found:
        return
    mask = found[min(how.candidate, len(found) - 1)]
    y0, x0, y1, x1 = mask.box
    painted, stored = new[here][y0:y1, x0:x1], record.data[here][y0:y1, x0:x1]
    free = mask.crop & (painted == 0) & ((stored == 0) | (stored == value))
    if how.cut is not None:
        free &= ~overlay(how.cut, mask)
    elif np.count_nonzero(free) < mask.area:
        free = one_piece(free, _within(how.prompt, mask.offset))
    painted[free] = value


def _within(prompt: ObjectPrompt, offset: tuple[int, int]) -> tuple[int, int] | None:
    keep = prompt.first_positive
    return None if keep is None else (round(keep[0]) - offset[0], round(keep[1]) - offset[1])


def _again_everything(
    scene: Scene, record: LabelRecord, how: Made, values: Sequence[int], new: NDArray[Any]
) -> Work[None]:
    """Run everything mode once more, and draw the objects that are still as it made them."""
    from napari_lightsam.plugin.everything.result import inside_only, measured
    from napari_lightsam.plugin.inference import segment_planes

    note = record.note
    settings = {key: value for key, value in note["settings"].items() if key in _SETTINGS}
    config, segmenter, inputs = config_from(settings), scene.model_of(how), scene.inputs_of(how)
    axis = note.get("axis")
    y0, x0, y1, x1 = part_of(record)
    if axis is None:
        pixels, rgb = scene.plane(inputs, how.plane, record)
        found = yield from segmenter.everything(pixels[y0:y1, x0:x1], config, rgb=rgb)
        ids = np.arange(1, len(found.scores) + 1) if found.ids is None else found.ids
        polygons = note.get("polygons") or []
        inside = None
        if polygons:
            from napari_lightsam.engine.inside import paint_polygons

            inside = paint_polygons(polygons, (y0, x0, y1, x1))
        labels = inside_only(measured(found.labels, ids, found.scores), inside).labels
        here = index_of(how.plane)
        target, stored = new[here][y0:y1, x0:x1], record.data[here][y0:y1, x0:x1]
    else:
        roles = scene.roles
        plane_axes = [i for i, role in enumerate(roles) if role == AxisRole.PLANE]
        place = [None if i in plane_axes else 0 for i in range(len(roles))]
        pixels, rgb = scene.plane(inputs, place, record, axis)
        position = sum(before in plane_axes for before in range(axis))
        link = roles[axis] == AxisRole.DEPTH
        stack = yield from segment_planes(
            pixels, axis=position, config=config, model=segmenter, link=link, rgb=rgb, stop=lambda: False
        )
        labels, target, stored = stack.labels.reshape(new.shape), new, record.data
    wanted = np.isin(labels, values) & (target == 0) & ((stored == 0) | (stored == labels))
    target[wanted] = labels[wanted]


def _iou(new: NDArray[Any], stored: NDArray[Any], value: int) -> float:
    one, other = new == value, stored == value
    return float(np.count_nonzero(one & other)) / max(1, int(np.count_nonzero(one | other)))
