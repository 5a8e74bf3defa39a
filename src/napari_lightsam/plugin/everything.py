"""Everything at once: choices, runs, stopping, and re-filtering what a run kept. Knows napari but no Qt."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.config import EverythingConfig, keep_floors, thresholds
from napari_lightsam.engine.inside import paint_polygons
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import AxisRole, NoPlane
from napari_lightsam.plugin.everything_layer import Written, describe, hide_covered, update, write
from napari_lightsam.plugin.everything_outlines import Outlined
from napari_lightsam.plugin.everything_preview import RunPreview
from napari_lightsam.plugin.inference import Job, Result, Settings
from napari_lightsam.plugin.messages import report_error, report_info, report_warning
from napari_lightsam.plugin.proposals import read_proposals
from napari_lightsam.plugin.scope import (
    Scope,
    drawn_polygons,
    region_of,
    stack_axis,
    visible_region,
    whole,
)
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_lightsam.engine.assemble import Segmentation
    from napari_lightsam.plugin.axes import Plane
    from napari_lightsam.plugin.inference import Inference, Objects
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.shown import Shown
    from napari_lightsam.plugin.targets import Targets

LIVE = ("balance", "min_size", "max_size", "keep_border", "iou_threshold", "stability_threshold", "overlap")
"""Settings that choose among what a run kept, so that they need no new run."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose for everything mode.

    Attributes
    ----------
    scope
        How much is segmented.
    config
        Settings of the engine; the object size stands in `Settings`, as clicks use it too.
    prompts_from
        `unique_id` of the layer that says where objects are, or None.
    region_from
        `unique_id` of the Shapes layer whose areas are segmented, for `Scope.REGION`.
    """

    scope: Scope = Scope.PLANE
    config: EverythingConfig = field(default_factory=EverythingConfig)
    prompts_from: Hashable | None = None
    region_from: Hashable | None = None


@dataclass(slots=True, eq=False)
class _Run:
    """A run under way."""

    request: PlaneRequest
    settings: Settings
    choices: Choices
    region: Region
    axis: int | None
    note: dict[str, Any]
    preview: RunPreview
    inside: NDArray[np.bool_] | None = None
    so_far: int | None = None
    started: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True, eq=False)
class _Kept:
    """A finished run whose candidates are still there, and the layer that shows a choice of them."""

    run: _Run
    segmentation: Segmentation | None
    """None for a stack, whose candidates are not kept."""
    written: Written
    shown: EverythingConfig


class Everything:
    """Runs everything mode in one viewer and keeps its last result open for other choices.

    Parameters
    ----------
    shown, worker, inference, targets
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: `count`, or whether there is a result to choose from, has changed.
    progress
        Signal(object): `Progress` of the run under way, or None when it ended.
    choices
        What the next run does.
    later
        Does something that may wait until the window is painted; at once where there is no window.
    """

    changed = Signal()
    progress = Signal(object)

    def __init__(
        self,
        shown: Shown,
        worker: Worker,
        inference: Inference,
        targets: Targets,
        say: Callable[[str], object],
    ) -> None:
        self._shown, self._viewer, self._worker, self._inference = shown, shown.viewer, worker, inference
        self._targets, self._say = targets, say
        self.choices = Choices()
        self.later: Callable[[Callable[[], None]], object] = lambda act: act()
        self._preview: RunPreview | None = None
        self._run: _Run | None = None
        self._kept: _Kept | None = None
        self._waiting = False
        shown.plane_changed.connect(self._on_plane)

    # --- what is shown -------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """A run is under way and was not stopped."""
        return self._run is not None and not self._run.stop.is_set()

    @property
    def count(self) -> int | None:
        """Objects in the layer of the last run; None when that layer is gone."""
        return None if self._live() is None else self._live_count()

    @property
    def so_far(self) -> int | None:
        """Objects that the run under way has found in its plane; None before the first, and in a stack."""
        return self._run.so_far if self._run is not None and self.is_running else None

    def _live_count(self) -> int:
        assert self._kept is not None
        return len(self._kept.written.objects.scores)

    def needs_a_run(self, settings: Settings) -> bool:
        """Tell whether something was chosen that the last result cannot follow."""
        kept = self._live()
        if kept is None:
            return False
        made, now = kept.run.choices, self.choices
        if kept.segmentation is not None:
            if made.config.min_size is not None and now.config.min_size is None:
                return True  # what the model would take was not asked for
            if not _holds(kept.segmentation, made.config, now.config):
                return True
            made = replace(made, config=_with(made.config, now.config, LIVE))
        return now != made or settings != kept.run.settings

    def _live(self) -> _Kept | None:
        """Return the last result while its layer exists and its plane is on display."""
        kept = self._kept
        if kept is None or layers.by_id(self._viewer, kept.written.layer) is None:
            return None
        plane = self._shown.plane  # a result of another one must not change unseen
        return kept if plane is not None and plane.key == kept.run.request.plane.key else None

    def _on_plane(self) -> None:
        self.refilter()  # what was chosen while another plane was shown
        self.changed.emit()

    # --- running -------------------------------------------------------------------------------------

    def start(self, request: PlaneRequest, settings: Settings, note: dict[str, Any]) -> bool:
        """Start a run in the background; tells whether it could be started.

        Parameters
        ----------
        request
            The plane on display.
        settings
            Model and object size.
        note
            Further facts, kept with the result.
        """
        if self.is_running:
            report_info("A run is under way; cancel it first.")
            return False
        image = layers.by_id(self._viewer, request.plane.layer)
        choices = self.choices
        source = layers.by_id(self._viewer, choices.prompts_from)
        try:
            region, polygons = self._region(image, request.plane, choices)
            proposals = None if source is None else read_proposals(source, image, request.plane, region)
            axis = self._axis(image, request.plane, choices)
            if axis is not None and request.within:
                raise NoPlane("All planes need a rectangle as work region: draw one, or choose 'this plane'.")
            polygons = polygons or list(request.within)  # what was drawn for a run goes first
        except NoPlane as reason:
            report_info(str(reason))
            return False
        self.close()  # of a run that is still stopping, whose result this one takes the place of
        config = replace(choices.config, object_size=settings.object_size)
        inside = paint_polygons(polygons, region) if polygons else None
        preview = self._preview = RunPreview(self._viewer, request.plane, region, axis)
        run = self._run = _Run(request, settings, choices, region, axis, note, preview, inside)
        note["polygons"] = [polygon.round(3).tolist() for polygon in polygons]
        link = axis is not None and request.plane.roles[axis] is AxisRole.DEPTH
        job = Job(config, region, proposals, run.stop.is_set, axis, link, inside)
        work = self._inference.everything if axis is None else self._inference.stack
        self._worker.submit(
            Lane.RUN,
            work(request, settings, job),
            lambda result: self._on_done(run, result),
            lambda error: self._on_error(run, error),
            lambda step: self._on_progress(run, step),
        )
        self.progress.emit(Progress("starting", 0, 0))
        self._say("Segmenting everything ...")
        return True

    def _region(
        self, image: Image, plane: Plane, choices: Choices
    ) -> tuple[Region, list[NDArray[np.float64]]]:
        """Return the part of the plane to segment, and the areas in it where some were drawn."""
        if choices.scope is Scope.VIEW:
            return visible_region(image, plane), []
        if choices.scope is not Scope.REGION:
            return whole(plane), []
        shapes = layers.by_id(self._viewer, choices.region_from)
        if shapes is None:
            raise NoPlane("The layer of the region was deleted: choose again under 'Where'.")
        polygons = drawn_polygons(shapes, image, plane)
        return region_of(polygons, plane), polygons

    @staticmethod
    def _axis(image: Image, plane: Plane, choices: Choices) -> int | None:
        """Return the axis of the planes, where all are wanted."""
        if choices.scope is not Scope.STACK:
            return None
        axis = stack_axis(image, plane)
        if axis is None:
            raise NoPlane("There are no planes to go through: no slider of this view is depth or time.")
        if choices.prompts_from is not None:
            raise NoPlane("Prompts from a layer are for one plane: choose 'this plane', or no layer.")
        if not layers.is_covered(image, plane):
            raise NoPlane(
                "This stack is too large for one layer in memory: segment plane by plane, or use "
                "`lightsam segment`."
            )
        return axis

    def stop(self) -> None:
        """End the run under way; what it found until now is kept in a layer that says so."""
        if self.is_running:
            assert self._run is not None
            self._run.stop.set()  # the worker sees it at its next step, well within a second
            self.progress.emit(None)
            self._say("Stopping; what was found until now is kept ...")

    def _on_progress(self, run: _Run, step: Progress) -> None:
        run.preview.follow(step)
        if isinstance(step, Outlined) and run.axis is None:  # linked, those of many planes are fewer
            run.so_far = step.count
        if not run.stop.is_set():
            self.progress.emit(step)

    def _end(self, run: _Run) -> None:
        run.preview.hide()
        self.later(run.preview.remove)  # napari clears up after each layer, for longer than the result takes
        if self._run is run:  # else a newer one was started while this one was stopping
            self._run = None
            self.progress.emit(None)

    def _on_error(self, run: _Run, error: BaseException) -> None:
        self._end(run)
        self._say("The run stopped; nothing was changed.")
        report_error(error)

    def _on_done(self, run: _Run, result: Result) -> None:
        self._end(run)
        found, count = result.found, len(result.objects.scores)
        if found.advice:
            report_warning(found.advice)
        if not count:
            self._say(
                "No objects were found." if found.complete else "Stopped; nothing was found until then."
            )
            return
        run.note |= {
            "model": result.model,
            "weights_hash": result.weights_hash,
            "mode": result.mode,
            "object_size": found.object_size,
            "object_size_estimated": found.object_size_estimated,
            "complete": found.complete,
            "settings": asdict(found.config),
            "region": list(run.region),
            "axis": run.axis,
            "prompted": run.choices.prompts_from is not None,
        }
        kept = found if run.axis is None else None
        if not self._write(run, kept, result.objects, found.config):  # type: ignore[arg-type]
            return
        size = found.object_size
        estimated = f" (size estimated: {size:.0f} px)" if found.object_size_estimated and size else ""
        seconds = time.monotonic() - run.started
        doubts = self._describe(result)
        if found.complete:
            self._say(f"{_counted(count)} in {seconds:.0f} s{estimated}.{doubts}")
        else:
            self._say(f"Stopped. {_counted(count)} found until then are kept.{doubts}")
        self.refilter()  # the user may have moved a slider meanwhile

    def _describe(self, result: Result) -> str:
        """Note what is known of linked objects, and say which to look at."""
        if result.table is None or self._kept is None:
            return ""
        doubtful = describe(self._viewer, self._kept.written, result.table)
        if not doubtful:
            return ""
        return (
            f" Look at {doubtful} that are in one plane only or jump in area: see the layer's features "
            "(Layers > Visualize > Features table widget)."
        )

    def _write(
        self, run: _Run, found: Segmentation | None, objects: Objects, shown: EverythingConfig
    ) -> bool:
        try:
            written = write(self._viewer, run.request.plane, run.region, run.axis, objects, run.note)
        except LightSamError as error:
            report_error(error)
            return False
        former = self._live()
        if former is not None and former.run.request.plane.layer == run.request.plane.layer:
            hide_covered(self._viewer, former.written, written)
        self._kept = _Kept(run, found, written, shown)
        self._targets.set(run.request.plane.layer, written.layer)
        self.changed.emit()
        return True

    def _write_again(self, kept: _Kept, objects: Objects, config: EverythingConfig) -> bool:
        kept.run.note["settings"] = asdict(config)
        return self._write(kept.run, kept.segmentation, objects, config)

    def close(self) -> None:
        """Take the outlines of a run out of the viewer; results stay."""
        if self._preview is not None:
            self._preview.remove()

    # --- choosing among what was kept ----------------------------------------------------------------

    def choose(self, choices: Choices) -> None:
        """Take new choices; the last result follows them at once where it can."""
        if choices != self.choices:
            self.choices = choices
            self.refilter()
            self.changed.emit()

    def refilter(self) -> None:
        """Bring the last result in step with the choices, in the background; the latest choice wins."""
        kept = self._live()
        if kept is None or kept.segmentation is None:
            return
        config = _chosen(kept.segmentation, kept.run.choices.config, self.choices.config)
        if self._worker.is_busy(Lane.FILTER):
            self._waiting = True  # a submit now would drop the one under way, and a drag show nothing
            return
        if config == kept.shown:
            return
        self._worker.submit(
            Lane.FILTER,
            self._inference.filter(kept.segmentation, config, kept.run.inside),
            lambda objects: self._on_filtered(kept, config, objects),
            report_error,
        )

    def _on_filtered(self, kept: _Kept, config: EverythingConfig, objects: Objects) -> None:
        if kept is self._live():
            kept.shown = config
            if update(self._viewer, kept.written, objects, {"settings": asdict(config)}):
                self._say(f"{_counted(len(objects.scores))} chosen, without a new run.")
            elif self._write_again(kept, objects, config):
                self._say("The layer was edited and stays as it is; the new choice is in another layer.")
            self.changed.emit()
        if self._waiting:
            self._waiting = False
            self.refilter()


def _with(config: EverythingConfig, other: EverythingConfig, names: tuple[str, ...]) -> EverythingConfig:
    """Return a config with some settings of another one."""
    return replace(config, **{name: getattr(other, name) for name in names})


def _chosen(found: Segmentation, made: EverythingConfig, now: EverythingConfig) -> EverythingConfig:
    """Return the settings of a run with what is chosen now, filled in as the run did."""
    config = _with(found.config, now, LIVE)
    left = [name for name in LIVE if getattr(now, name) is None and getattr(made, name) is None]
    if config.min_size is None:
        left.append("min_size")
    return _with(config, found.config, tuple(left))


def _holds(found: Segmentation, made: EverythingConfig, now: EverythingConfig) -> bool:
    """Tell whether a run kept all candidates that thresholds chosen now let pass."""
    usual = found.candidates.usual
    floors, wanted = keep_floors(made, usual), thresholds(now, usual)
    return wanted.iou >= floors.iou and wanted.stability >= floors.stability


def _counted(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"
