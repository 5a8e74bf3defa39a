"""An object followed through the planes of a stack, and saved as one step. Knows napari but no Qt."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import METADATA_KEY, AxisRole, NoPlane
from napari_lightsam.plugin.made import Made, note_made
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.planes_step import NOTE, PlanesStep, on_plane_number, plane_key, written_planes
from napari_lightsam.plugin.results import LARGEST_STEP, plane_of, refusal, show
from napari_lightsam.plugin.scope import stack_axis
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.propagate import Direction
    from napari_lightsam.engine.propagate import Propagation as Followed
    from napari_lightsam.plugin.annotator import Annotator
    from napari_lightsam.plugin.axes import Plane
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.results import Results
    from napari_lightsam.plugin.worker import Worker


@dataclass(frozen=True, slots=True, eq=False)
class Followable:
    """An object that can be followed from the plane on display.

    Attributes
    ----------
    labels
        The Labels layer that holds it.
    value
        Its label.
    place
        Where the plane is in that layer.
    mask
        Its pixels on the plane.
    axis
        Data axis of the image that counts the planes.
    """

    labels: Labels
    value: int
    place: tuple[int | None, ...]
    mask: Mask
    axis: int


@dataclass(slots=True, eq=False)
class _Run:
    layer: Hashable
    value: int
    start: Plane
    axis: int
    settings: Settings
    limits: dict[int, int]
    """Planes at most, by direction."""
    found: dict[int, Mask] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)


class Propagation:
    """Follows saved objects through a stack.

    Parameters
    ----------
    viewer, annotator, worker, inference, results
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: whether a run is under way has changed.
    progress
        Signal(object): `Progress` of the run under way, or None when it ended.
    replace_others
        Also write on pixels that belong to other objects.
    """

    changed = Signal()
    progress = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        annotator: Annotator,
        worker: Worker,
        inference: Inference,
        results: Results,
        say: Callable[[str], object],
    ) -> None:
        self._viewer, self._annotator, self._worker = viewer, annotator, worker
        self._inference, self._results, self._say = inference, results, say
        self.replace_others = False
        self._run: _Run | None = None

    # --- what can be followed ------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """A run is under way and was not stopped."""
        return self._run is not None and not self._run.stop.is_set()

    def has_depth(self) -> bool:
        """Tell whether the image has planes to go through: an axis that is depth and not on display."""
        try:
            plane = self._annotator.plane()
        except NoPlane:
            return False
        return self._axis(plane) is not None

    def _axis(self, plane: Plane) -> int | None:
        image = self._annotator.image
        axis = None if image is None else stack_axis(image, plane)
        return axis if axis is not None and plane.roles[axis] is AxisRole.DEPTH else None

    def candidate(self) -> Followable:
        """Return the object that a run would follow: the selected label of the target layer.

        Raises
        ------
        NoPlane
            There is none on the displayed plane; the message says what to do.
        """
        plane, image = self._annotator.plane(), self._annotator.image
        axis = self._axis(plane)
        if image is None or axis is None:
            raise NoPlane("There are no planes to go through: no slider of this view is depth.")
        labels = layers.by_id(self._viewer, self._results.target)
        place = None if labels is None else layers.place_in(labels, image, plane)
        if labels is None or place is None:
            raise NoPlane("Save an object on this plane first; it is then followed from here.")
        why_not = refusal(labels)
        if why_not:
            raise NoPlane(why_not)
        value = int(labels.selected_label)
        mask = crop_mask(plane_of(labels, place) == value)
        if not value or not mask.area:
            raise NoPlane(
                f"Object {value} is not on this plane: go to a plane that shows it, or select another label "
                f"of {labels.name!r}."
            )
        return Followable(labels, value, place, mask, axis)

    # --- running -------------------------------------------------------------------------------------

    def start(self, request: PlaneRequest, settings: Settings, direction: Direction) -> bool:
        """Follow the selected object in the background; tells whether that could be started.

        Planes on the other side, and planes beyond one that was edited by hand, are never touched.

        Parameters
        ----------
        request
            The plane on display.
        settings
            Model and object size.
        direction
            `forward` to higher plane numbers, `backward`, or `both`.
        """
        if self._run is not None:
            report_info("The run before this one has not ended yet; press again in a moment.")
            return False
        try:
            found = self.candidate()
            request.check_stack()
        except (NoPlane, LightSamError) as reason:
            report_info(str(reason))
            return False
        start = request.plane.index[found.axis]
        assert start is not None  # the axis is not on display
        limits = {way: self._free_planes(found, way) for way in (1, -1)}
        within = start - limits[-1], start + limits[1] + 1
        run = self._run = _Run(
            found.labels.unique_id, found.value, request.plane, found.axis, settings, limits
        )
        work = self._inference.follow(
            request, found.axis, start, found.mask, settings, direction, within, run.stop.is_set
        )
        self._worker.submit(
            Lane.FOLLOW,
            work,
            lambda result: self._on_done(run, result),
            lambda error: self._on_error(run, error),
            lambda step: self._on_progress(run, step),
        )
        self._say(f"Following object {found.value} ...")
        self.progress.emit(Progress("starting", 0, 0))
        self.changed.emit()
        return True

    def _free_planes(self, found: Followable, way: int) -> int:
        """Return how many planes lie before the next one on which the object was drawn or edited by hand."""
        at = _layer_axis(found.labels, found.axis, self._annotator.image)
        written = written_planes(found.labels, found.value)
        position = found.place[at]
        assert position is not None  # the axis is not on display
        count = 0
        while 0 <= position + way * (count + 1) < found.labels.data.shape[at]:
            number = position + way * (count + 1)
            place = on_plane_number(found.place, at, number)
            area = int(np.count_nonzero(plane_of(found.labels, place) == found.value))
            if area and area != written.get(plane_key(place)):
                break
            count += 1
        return count

    def stop(self) -> None:
        """End the run under way; the planes until now are saved."""
        if self.is_running:
            assert self._run is not None
            self._run.stop.set()
            self._say("Stopping; what was found until now is kept ...")

    def _on_progress(self, run: _Run, step: Progress) -> None:
        from napari_lightsam.engine.propagate import Found

        if isinstance(step, Found):
            run.found[step.plane] = step.mask
            self.show_plane()
        self.progress.emit(step)

    def show_plane(self) -> None:
        """Preview what a run under way has found on the displayed plane."""
        run = self._run
        if run is None:
            return
        try:
            plane = self._annotator.plane()
        except NoPlane:
            return
        mask = run.found.get(plane.index[run.axis] or 0)
        if mask is not None and _steps(plane, run.axis) == _steps(run.start, run.axis):
            self._annotator.show_preview(plane, [mask])

    def _end(self, run: _Run) -> None:
        if self._run is run:
            self._run = None
            self._annotator.hide_preview()
            if self._annotator.has_prompts:
                self._annotator.edited.emit()  # their outline is shown again, as it can still be saved
            self.progress.emit(None)
            self.changed.emit()

    def _on_error(self, run: _Run, error: BaseException) -> None:
        self._end(run)
        self._say("The object could not be followed; nothing was changed.")
        report_error(error)

    # --- saving --------------------------------------------------------------------------------------

    def _on_done(self, run: _Run, result: Followed) -> None:
        self._end(run)
        labels, image = layers.by_id(self._viewer, run.layer), layers.by_id(self._viewer, run.start.layer)
        place = None if labels is None or image is None else layers.place_in(labels, image, run.start)
        if labels is None or place is None:
            self._say("The layer of the object was deleted meanwhile; nothing was saved.")
            return
        try:
            count = self._save(run, result, labels, image, place)
        except LightSamError as error:
            report_error(error)
            return
        planes = "1 more plane" if count == 1 else f"{count} more planes"
        reasons = " ".join(self._reason(run, way, ending) for way, ending in result.endings.items())
        self._say(f"Object {run.value} is on {planes}. {reasons}")
        self.changed.emit()

    @staticmethod
    def _reason(run: _Run, way: int, ending: tuple[int, Any]) -> str:
        from napari_lightsam.engine.propagate import Ending

        number, why = ending
        side = "Forward" if way > 0 else "Backward"
        if why is Ending.EDGE:
            return f"{side}: to the end."
        if why is Ending.LIMIT:
            return f"{side}: up to plane {number}, which you edited."
        return f"{side}: until plane {number} ({why.value})."

    def _save(
        self, run: _Run, result: Followed, labels: Labels, image: Any, place: tuple[int | None, ...]
    ) -> int:
        """Write all planes as one step; returns how many there are."""
        step = self._plan(run, result, labels, place, _layer_axis(labels, run.axis, image))
        if not step.values:
            return 0
        if sum(len(part) for part in step.values) > LARGEST_STEP:
            labels = self._as_layer(run, labels, image, step)
        else:
            index = tuple(np.concatenate(parts) for parts in zip(*step.indices, strict=True))
            show(labels)
            with labels.block_history():
                labels.data_setitem(index, np.concatenate(step.values).astype(labels.data.dtype))
        written = written_planes(labels, run.value)
        for key in step.gone:
            written.pop(key, None)
        written.update(step.areas)
        note = labels.metadata.setdefault(METADATA_KEY, {"role": "objects", "version": 1})
        note.setdefault(NOTE, {})[str(run.value)] = written
        total = int(np.count_nonzero(labels.data == run.value))
        model, size = run.settings.model, run.settings.object_size
        note_made(
            labels,
            run.value,
            Made("propagated", result.score, area=total, model=model, object_size=size),
        )
        return len(step.areas)

    def _plan(
        self, run: _Run, result: Followed, labels: Labels, place: tuple[int | None, ...], at: int
    ) -> PlanesStep:
        """Find what changes: the object's new pixels, and those of an earlier run that it gives up."""
        from napari_lightsam.engine.propagate import Ending

        step, written = PlanesStep(), written_planes(labels, run.value)
        here = place[at]
        assert here is not None  # the axis is not on display
        for way, (end, why) in result.endings.items():
            reach = range(1, run.limits[way] + 1)
            if why is Ending.STOPPED:  # what was not looked at stays
                reach = range(1, abs(end - result.start))
            for distance in reach:
                there = on_plane_number(place, at, here + way * distance)
                mask = result.masks.get(result.start + way * distance)
                plane = plane_of(labels, there)
                if mask is None and plane_key(there) not in written:
                    continue
                area = step.add(plane, there, mask, run.value, replace_others=self.replace_others)
                if area:
                    step.areas[plane_key(there)] = area
                else:
                    step.gone.append(plane_key(there))
        return step

    def _as_layer(self, run: _Run, labels: Labels, image: Any, step: PlanesStep) -> Labels:
        """Save a very large object into a layer of its own: an undo step of that size would freeze napari."""
        note = {"role": "objects", "largest": run.value}
        made = layers.add_labels(self._viewer, image, run.start, f"{image.name} object {run.value}", note)
        if made.data.shape != labels.data.shape:
            self._viewer.layers.remove(made)
            raise LightSamError(
                f"Object {run.value} is too large to be saved in one step. Follow it in one direction at a "
                "time, or in a smaller work region."
            )
        made.data[labels.data == run.value] = run.value
        for index, values in zip(step.indices, step.values, strict=True):
            made.data[index] = values
        made.refresh()
        layers.below_prompts(self._viewer, made)
        self._results.target = made.unique_id
        made.selected_label = run.value
        return made


def _layer_axis(labels: Labels, axis: int, image: Any) -> int:
    """Return which axis of a Labels layer is an axis of the image."""
    return axis - int(image.ndim - labels.ndim)


def _steps(plane: Plane, axis: int) -> tuple[Any, ...]:
    """Return where a plane is, apart from the axis that is gone through and the channel shown."""
    free = [i == axis or role is AxisRole.CHANNEL for i, role in enumerate(plane.roles)]
    return (
        plane.layer, plane.axes,
        *(None if skipped else step for skipped, step in zip(free, plane.index, strict=True)),
    )  # fmt: skip
