"""Open prompts, those of objects that were not saved yet: written with the work, and brought back. No Qt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.messages import report_error
from napari_lightsam.plugin.objects.made import Made
from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.prompting.history import Correction
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import AxisRole, Plane, level0, resting_plane

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from napari.layers import Image

    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.prompting.answer import Answer
    from napari_lightsam.plugin.scope import Region


def open_prompts(
    annotator: Annotator, answer: Answer, saved: Sequence[Hashable]
) -> tuple[dict[str, Any], ...]:
    """Describe all prompts by object, those of planes that are not on display included.

    Parameters
    ----------
    annotator
        Of the viewer.
    answer
        The outlines on display.
    saved
        `unique_id` of each Labels layer that is saved with them.

    Returns
    -------
    tuple of dict
        As `docs/sessions.md` says.
    """
    image = annotator.image
    if image is None or not (annotator.has_prompts or annotator.correction):
        return ()
    shown = resting_plane(image, annotator.viewer)
    drawn = layers.ours(image).get("work_region", {}).get("polygons", [])
    chosen = dict(zip(answer.prompts, answer.chosen, strict=True))
    found = []
    for plane in _planes(annotator, image, shown):
        correction = annotator.correction
        at_work = correction is not None and correction.plane == plane.key
        objects = annotator.prompts_on(image, plane) if at_work else _objects(annotator, image, plane)
        for prompt in objects:
            plain = _plain(plane, prompt, annotator)
            plain["candidate"] = chosen.get(prompt, 0) if plane == answer.plane else 0
            if drawn:
                plain["polygons"] = drawn
            if at_work and correction is not None and correction.layer in saved:
                plain["corrects"] = {"labels": saved.index(correction.layer), "label": correction.value}
            found.append(plain)
        whole = _whole(image, plane)
        found += [_plain(whole, prompt, annotator) for prompt in _beside(annotator, image, plane, whole)]
    return tuple(sorted(found, key=lambda plain: "corrects" not in plain))  # what is gone on with comes first


def _plain(plane: Plane, prompt: ObjectPrompt, annotator: Annotator) -> dict[str, Any]:
    plain: dict[str, Any] = Made("prompt", prompt=prompt).to_plain()["prompt"]
    return plain | {
        "candidate": 0, "plane": list(plane.index), "region": list(_box(plane)), "each": annotator.each,
    }  # fmt: skip


def _whole(image: Image, plane: Plane) -> Plane:
    """Return the whole plane of an image that a work region is a part of."""
    shape = level0(image).shape
    return replace(plane, origin=(0, 0), shape=(shape[plane.axes[0]], shape[plane.axes[1]]))


def _box(plane: Plane) -> Region:
    (y0, x0), (height, width) = plane.origin, plane.shape
    return y0, x0, y0 + height, x0 + width


def _planes(annotator: Annotator, image: Image, shown: Plane) -> Iterator[Plane]:
    """Yield the plane on display, then all others that hold prompts."""
    yield shown
    fixed = [
        axis
        for axis, step in enumerate(shown.index)
        if step is not None and shown.roles[axis] is not AxisRole.CHANNEL
    ]
    if not fixed:
        return
    places = []
    for layer, given in (
        (annotator.points, [] if annotator.points is None else annotator.points.data),
        (annotator.boxes, [] if annotator.boxes is None else [shape[0] for shape in annotator.boxes.data]),
    ):
        if layer is not None and len(given):
            # thousands lie on few planes, and napari takes its time for every position
            positions = np.asarray(given, float)
            _, firsts = np.unique(positions[:, fixed].round(), axis=0, return_index=True)
            places += [image.world_to_data(layer.data_to_world(at)) for at in positions[firsts]]
    shape = level0(image).shape
    for step in sorted({tuple(round(float(at[axis])) for axis in fixed) for at in places}):
        if not all(0 <= value < shape[axis] for axis, value in zip(fixed, step, strict=True)):
            continue
        index = list(shown.index)
        for axis, value in zip(fixed, step, strict=True):
            index[axis] = value
        if tuple(index) != shown.index:
            yield replace(shown, index=tuple(index))


def _objects(annotator: Annotator, image: Image, plane: Plane) -> tuple[ObjectPrompt, ...]:
    points = prompts.read_points(annotator.points, image, plane)
    boxes = prompts.read_boxes(annotator.boxes, image, plane)
    return _grouped(points, boxes, each=annotator.each)


def _beside(annotator: Annotator, image: Image, plane: Plane, whole: Plane) -> tuple[ObjectPrompt, ...]:
    """Return the prompts on a whole plane that lie beside the work region, as in another one before."""
    if plane == whole:
        return ()
    y0, x0, y1, x1 = _box(plane)
    points = [
        (y, x, positive)
        for y, x, positive in prompts.read_points(annotator.points, image, whole)
        if not (y0 <= y + 0.5 <= y1 and x0 <= x + 0.5 <= x1)
    ]
    boxes = [
        box
        for box in prompts.read_boxes(annotator.boxes, image, whole)
        if min(box[2], y1) - max(box[0], y0) < 1 or min(box[3], x1) - max(box[1], x0) < 1
    ]
    return _grouped(points, boxes, each=annotator.each)


def _grouped(
    points: Sequence[tuple[float, float, bool]],
    boxes: Sequence[tuple[float, float, float, float]],
    *,
    each: bool,
) -> tuple[ObjectPrompt, ...]:
    objects = prompts.group_prompts(points, boxes, each=each)
    held = {point for prompt in objects for point in prompt.points}
    alone = tuple(point for point in points if point not in held)  # negative ones, as long as no object is
    return (*objects, ObjectPrompt(alone)) if alone else objects


# --- and back ----------------------------------------------------------------------------------------


def bring_back(
    control: Controller,
    saved: Sequence[Mapping[str, Any]],
    added: Mapping[int, Hashable],
    *,
    show: bool = True,
) -> None:
    """Put saved prompts into the viewer, as one edit; prompts that are there already are not touched.

    A message says so where they cannot be brought back.

    Parameters
    ----------
    control
        Of the viewer, with the image chosen.
    saved
        From the file.
    added
        `unique_id` of the Labels layers from the same file, by their number in it.
    show
        Move the sliders to a plane that holds some of them, and the work region to theirs.
    """
    annotator, image = control.annotator, control.annotator.image
    if image is None or not saved or annotator.has_prompts:
        return
    shown = resting_plane(image, control.viewer)
    try:
        read = [_read(plain, image, shown) for plain in saved]
        parts = [(plane, prompt) for plane, prompt, _ in read]
        control.single.recall({prompt: candidate for _, prompt, candidate in read})
        if show:
            _go_to(control, image, shown, parts[0][0], _polygons(saved[0]))
        # what stood on display when the work was saved comes first
        correction = _correction(saved[0], *parts[0], added)
        annotator.put(parts, correction, each=bool(saved[0].get("each")))
    except FileError as error:
        report_error(error)


def _read(plain: Mapping[str, Any], image: Image, shown: Plane) -> tuple[Plane, ObjectPrompt, int]:
    """Return the plane and prompt of one object, and which outline was chosen; of early files the first.

    Files of earlier versions mean the plane on display.
    """
    made = Made.from_plain({"source": "prompt", "prompt": plain, "candidate": plain.get("candidate", 0)})
    prompt, candidate = made.prompt, max(made.candidate, 0)
    assert prompt is not None  # it was read from one
    if not np.isfinite([at for point in prompt.points for at in point[:2]] + [*(prompt.box or ())]).all():
        raise FileError("Saved clicks lie at places that are no numbers.")
    if "plane" not in plain:
        return shown, prompt, candidate
    shape = level0(image).shape
    index, box = plain["plane"], plain.get("region")
    steps = isinstance(index, list) and len(index) == len(shown.index) and index.count(None) == 2
    if not steps or not all(_is_step(step, n) for step, n in zip(index, shape, strict=False)):
        raise FileError(f"Saved clicks lie on a plane that the image has not: {index!r}.")
    rows, columns = axes = (index.index(None), len(index) - 1 - index[::-1].index(None))
    plane = replace(shown, axes=axes, index=tuple(index), shape=(shape[rows], shape[columns]), origin=(0, 0))
    if not (isinstance(box, list) and len(box) == 4 and all(type(side) is int for side in box)):
        raise FileError(f"The region of saved clicks must be four whole numbers; it is {box!r}.")
    plane = plane.narrowed(box)
    if prompt.mask is not None:
        y0, x0, y1, x1 = prompt.mask.box
        if min(y0, x0) < 0 or y1 > plane.shape[0] or x1 > plane.shape[1]:
            raise FileError("A saved outline lies outside of its image.")
    return plane, prompt, candidate


def _is_step(step: Any, length: int) -> bool:
    return step is None or (type(step) is int and 0 <= step < length)


def _polygons(plain: Mapping[str, Any]) -> list[list[list[float]]]:
    """Return what the work region was drawn as, in pixels of the whole plane."""
    try:
        polygons = [np.array(polygon, float).reshape(-1, 2) for polygon in plain.get("polygons", ())]
    except (OverflowError, TypeError, ValueError):
        polygons = [np.zeros((0, 2))]
    if any(len(polygon) < 3 or not np.isfinite(polygon).all() for polygon in polygons):
        raise FileError("The outline of the work region of saved clicks is damaged.")
    return [polygon.tolist() for polygon in polygons]


def _go_to(
    control: Controller, image: Image, shown: Plane, first: Plane, polygons: list[list[list[float]]]
) -> None:
    """Show the plane that was on display, or another one that holds prompts, and work in their region."""
    if first.axes == shown.axes:
        skipped = control.viewer.dims.ndim - image.ndim
        world = image.data_to_world(first.corner())
        for axis, step in enumerate(first.index):
            if step not in (None, shown.index[axis]):
                control.viewer.dims.set_point(axis + skipped, world[axis])
    if first != _whole(image, first):  # those beside the work region do not tell it
        control.region.use(_box(first), polygons)


def _correction(
    plain: Mapping[str, Any], plane: Plane, prompt: ObjectPrompt, added: Mapping[int, Hashable]
) -> Correction | None:
    """Return which object the prompts are about, if it is one that was saved."""
    given = plain.get("corrects")
    if not isinstance(given, dict) or not all(type(given.get(key)) is int for key in ("labels", "label")):
        return None
    layer = added.get(given["labels"])
    return None if layer is None else Correction(layer, given["label"], plane.key, prompt.mask)
