"""Everything at once: choices, runs, stopping, and what a run found. Knows napari but no Qt."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.inside import paint_polygons
from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.everything.choices import Asked, Choices, LastResult, counted
from napari_lightsam.plugin.everything.layer import describe
from napari_lightsam.plugin.everything.outlines import Outlined
from napari_lightsam.plugin.everything.preview import RunPreview
from napari_lightsam.plugin.everything.proposals import read_proposals
from napari_lightsam.plugin.everything.result import Job, Result
from napari_lightsam.plugin.everything.scale import BalanceScale
from napari_lightsam.plugin.messages import report_error, report_info, report_warning
from napari_lightsam.plugin.scope import Scope, all_planes, chosen_region
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import AxisRole, NoPlane, in_unit
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lightsam.plugin.everything.layer import Written
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.targets import Targets
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.shown import Shown


@dataclass(slots=True, eq=False)
class _Run:
    """A run under way."""

    asked: Asked
    preview: RunPreview
    so_far: int | None = None
    stage: str = ""
    started: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)


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
        Signal: choices, or what there is to choose from, have changed.
    progress
        Signal(object): `Progress` of the run under way, or None when it ended.
    choices
        What the next run does.
    last
        The last result.
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
        self._viewer, self._worker, self._inference, self._say = shown.viewer, worker, inference, say
        self.choices = Choices()
        self.last = LastResult(shown, worker, inference, targets, say)
        self.last.changed.connect(self.changed.emit)
        self.later: Callable[[Callable[[], None]], object] = lambda act: act()
        self._preview: RunPreview | None = None
        self._run: _Run | None = None

    # --- what is shown -------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """A run is under way and was not stopped."""
        return self._run is not None and not self._run.stop.is_set()

    @property
    def so_far(self) -> int | None:
        """Objects that the run under way has found in its plane; None before the first, and in a stack."""
        return self._run.so_far if self._run is not None and self.is_running else None

    def needs_a_run(self, settings: Settings) -> bool:
        """Tell whether something was chosen that the last result cannot follow."""
        return self.last.needs_a_run(self.choices, settings)

    def choose(self, choices: Choices) -> None:
        """Take new choices; the last result follows them at once where it can."""
        if choices != self.choices:
            self.choices = choices
            self.last.follow(choices)
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
            region, polygons = chosen_region(
                self._viewer, image, request.plane, choices.scope, choices.region_from
            )
            proposals = None if source is None else read_proposals(source, image, request.plane, region)
            axis = all_planes(image, request.plane) if choices.scope is Scope.STACK else None
            if axis is not None and source is not None:
                raise NoPlane("Objects from a layer are for one plane: choose another 'Where', or no layer.")
            if axis is not None and request.within:
                raise NoPlane(
                    "All planes need a rectangle as work region: draw one, or choose another 'Where'."
                )
            polygons = polygons or list(request.within)  # what was drawn for a run goes first
        except NoPlane as reason:
            report_info(str(reason))
            return False
        self._clear()  # of a run that is still stopping, whose result this one takes the place of
        config = replace(choices.config, object_size=settings.object_size)
        inside = paint_polygons(polygons, region) if polygons else None
        note["polygons"] = [polygon.round(3).tolist() for polygon in polygons]
        note["inputs"] = [list(one) for one in request.seen]
        asked = Asked(request.plane, region, axis, inside, settings, choices, note)
        preview = self._preview = RunPreview(self._viewer, request.plane, region, axis)
        run = self._run = _Run(asked, preview)
        link = axis is not None and request.plane.roles[axis] is AxisRole.DEPTH
        if axis is not None and not link:
            note["numbered_apart"] = True  # an object of one time point is another than that of this number
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

    def stop(self) -> None:
        """End the run under way; what it found until now is kept in a layer that says so."""
        if self.is_running:
            assert self._run is not None
            self._run.stop.set()  # the worker sees it at its next step, well within a second
            self.progress.emit(None)
            self._say("Stopping; what was found until now is kept ...")

    def _on_progress(self, run: _Run, step: Progress) -> None:
        run.preview.follow(step)
        run.stage = step.stage
        if isinstance(step, Outlined) and run.asked.axis is None:  # linked, those of many planes are fewer
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
        asked, found, count = run.asked, result.found, len(result.objects.scores)
        if found.advice:
            report_warning(found.advice)
        if not count:
            self._say(
                "No objects were found." if found.complete else "Stopped; nothing was found until then."
            )
            return
        asked.note.update(
            model=result.model,
            weights_hash=result.weights_hash,
            mode=result.mode,
            object_size=found.object_size,
            object_size_estimated=found.object_size_estimated,
            complete=found.complete,
            settings=asdict(found.config),
            part=list(asked.region),  # `region` is what the layer covers, where that is a work region
            axis=asked.axis,
            prompted=asked.choices.prompts_from is not None,
        )
        kept = found if asked.axis is None else None
        scale = BalanceScale(result.balances)
        written = self.last.write(asked, kept, result.objects, found.config, scale)  # type: ignore[arg-type]
        if written is None:
            return
        estimated = ""
        if found.object_size_estimated and found.object_size:
            estimated = f" (size estimated: {in_unit(found.object_size, asked.note.get('pixel_size_um'))})"
        seconds = time.monotonic() - run.started
        doubts = self._describe(result, written)
        if found.complete:
            self._say(f"{counted(count)} in {seconds:.0f} s{estimated}.{doubts}")
        else:
            then = "then" if asked.axis is None else run.stage  # "plane 3 of 25"
            self._say(f"Stopped. {counted(count)} found until {then} are kept.{doubts}")
        self.last.follow(self.choices)  # the user may have moved a slider meanwhile

    def _describe(self, result: Result, written: Written) -> str:
        """Note what is known of linked objects, and say which to look at."""
        if result.table is None:
            return ""
        doubtful = describe(self._viewer, written, result.table)
        if not doubtful:
            return ""
        return (
            f" Look at {doubtful} that are in one plane only or jump in area: see the layer's features "
            "(Layers > Metadata > Features table widget)."
        )

    def _clear(self) -> None:
        if self._preview is not None:
            self._preview.remove()

    def close(self) -> None:
        """Take the outlines of a run out of the viewer; results stay."""
        self._clear()
        self.last.close()
