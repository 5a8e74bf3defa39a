"""An object followed through the planes of a stack, and saved as one step. Knows napari but no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.objects.planes_step import NOTE, written_planes
from napari_lightsam.plugin.objects.results import LARGEST_STEP, refusal
from napari_lightsam.plugin.objects.undoable import write_step
from napari_lightsam.plugin.propagation_run import Followable, Run, plan, survey
from napari_lightsam.plugin.scope import stack_axis
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import AxisRole, NoPlane
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.viewer.names import unused_name
from napari_lightsam.plugin.viewer.places import view
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.propagate import Direction
    from napari_lightsam.engine.propagate import Propagation as Followed
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.planes_step import PlanesStep
    from napari_lightsam.plugin.objects.targets import Targets
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.viewer.axes import Plane
    from napari_lightsam.plugin.worker import Worker


class Propagation:
    """Follows saved objects through a stack.

    Parameters
    ----------
    viewer, annotator, worker, inference, targets
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
        targets: Targets,
        say: Callable[[str], object],
    ) -> None:
        self._viewer, self._annotator, self._worker = viewer, annotator, worker
        self._inference, self._targets, self._say = inference, targets, say
        self._results = targets.results
        self.replace_others = False
        self._run: Run | None = None

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
        mask = crop_mask(view(labels.data, place) == value)
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
        run = self._run = Run(
            found,
            found.labels.data,
            _layer_axis(found.labels, found.axis, self._annotator.image),
            request.plane,
            settings,
            written_planes(found.labels, found.value),
            self.replace_others,
        )
        layers.rely_on(found.labels)  # another choice of what a run found must not number it anew meanwhile
        self._submit(run, self._work(run, request, direction))
        self._say(f"Following object {found.value} ...")
        self.progress.emit(Progress("starting", 0, 0))
        self.changed.emit()
        return True

    def _submit(self, run: Run, work: Work[tuple[Followed, PlanesStep]]) -> None:
        self._worker.submit(
            Lane.FOLLOW,
            work,
            lambda done: self._on_done(run, *done),
            lambda error: self._on_error(run, error),
            lambda step: self._on_progress(run, step),
        )

    def _work(
        self, run: Run, request: PlaneRequest, direction: Direction
    ) -> Work[tuple[Followed, PlanesStep]]:
        """Follow the object, and find what changes in the Labels array; in the worker."""
        yield from survey(run)
        start = run.start.index[run.of.axis]
        assert start is not None  # the axis is not on display
        within = start - run.limits[-1], start + run.limits[1] + 1
        result = yield from self._inference.follow(
            request, run.of.axis, start, run.of.mask, run.settings, direction, within, run.stop.is_set
        )
        return (yield from self._place(run, result))

    @staticmethod
    def _place(run: Run, result: Followed) -> Work[tuple[Followed, PlanesStep]]:
        """Find what a result changes in the Labels array as it is now; in the worker."""
        return result, (yield from plan(run, result))

    def stop(self) -> None:
        """End the run under way; the planes until now are saved."""
        if self.is_running:
            assert self._run is not None
            self._run.stop.set()
            self._say("Stopping; what was found until now is kept ...")

    def _on_progress(self, run: Run, step: Progress) -> None:
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
        axis = run.of.axis
        if _steps(plane, axis) != _steps(run.start, axis):
            return
        mask = run.found.get(plane.index[axis] or 0)
        if mask is not None:
            self._annotator.show_preview(plane, [mask])

    def _end(self, run: Run) -> None:
        if self._run is run:
            self._run = None
            self._annotator.hide_preview()
            if self._annotator.has_prompts:
                self._annotator.edited.emit()  # their outline is shown again, as it can still be saved
            self.progress.emit(None)
            self.changed.emit()

    def _on_error(self, run: Run, error: BaseException) -> None:
        self._end(run)
        self._say("The object could not be followed; nothing was changed.")
        report_error(error)

    # --- saving --------------------------------------------------------------------------------------

    def _on_done(self, run: Run, result: Followed, step: PlanesStep) -> None:
        labels = layers.by_id(self._viewer, run.of.labels.unique_id)
        image = layers.by_id(self._viewer, run.start.layer)
        place = None if labels is None or image is None else layers.place_in(labels, image, run.start)
        if labels is None or place != run.of.place or labels.data is not run.data:
            self._end(run)
            self._say("The layer of the object was deleted or moved meanwhile; nothing was saved.")
            return
        if not run.holds_start:
            self._end(run)
            self._say(
                f"Object {run.of.value} was taken back or deleted while it was followed; nothing was saved."
            )
            return
        if not step.fits(run.data):  # somebody wrote there since a moment ago
            self._submit(run, self._place(run, result))
            return
        self._end(run)
        try:
            count = self._save(run, result, labels, image, step)
        except LightSamError as error:
            report_error(error)
            return
        planes = "1 more plane" if count == 1 else f"{count} more planes"
        reasons = " ".join(self._reason(way, ending) for way, ending in step.endings.items())
        self._say(f"Object {run.of.value} is on {planes}. {reasons}")
        self.changed.emit()

    @staticmethod
    def _reason(way: int, ending: tuple[int, Any]) -> str:
        from napari_lightsam.engine.propagate import Ending

        number, why = ending
        side = "Forward" if way > 0 else "Backward"
        if why is Ending.EDGE:
            return f"{side}: to the end."
        if why is Ending.LIMIT:
            return f"{side}: up to plane {number}, which you edited."
        return f"{side}: until plane {number} ({why.value})."

    def _save(self, run: Run, result: Followed, labels: Labels, image: Any, step: PlanesStep) -> int:
        """Write all planes as one step; returns how many there are."""
        if not len(step):
            return 0
        value = run.of.value
        if len(step) > LARGEST_STEP:
            labels = self._as_layer(run, labels, image, step)
        else:
            write_step(labels, step.index, step.values)
        for key in step.gone:
            run.written.pop(key, None)
        run.written.update(step.areas)
        layers.note_of(labels).setdefault(NOTE, {})[str(value)] = run.written
        model, size = run.settings.model, run.settings.object_size
        area = run.total + step.gained
        note_made(labels, value, Made("propagated", result.score, area=area, model=model, object_size=size))
        return len(step.areas)

    def _as_layer(self, run: Run, labels: Labels, image: Any, step: PlanesStep) -> Labels:
        """Save a very large object into a layer of its own: an undo step of that size would freeze napari."""
        value = run.of.value
        note = {"role": Role.OBJECTS, "largest": value}
        name = unused_name(self._viewer, f"Object {value}", image.name)
        made = layers.make_labels(image, run.start, name, note)
        if made.data.shape != labels.data.shape:
            raise LightSamError(
                f"Object {value} is too large to be saved in one step. Follow it in one direction at a "
                "time, or in a smaller work region."
            )
        for number in np.flatnonzero(run.areas):
            plane, place = run.plane(int(number))
            view(made.data, place)[plane == value] = value
        made.data[step.index] = step.values
        made.selected_label = value
        layers.add(self._viewer, made)
        self._targets.set(run.start.layer, made.unique_id)  # another image may be chosen by now
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
