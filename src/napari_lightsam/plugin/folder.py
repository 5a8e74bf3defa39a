"""A folder of images segmented as the one on display is: the batch of the dock widget. Knows no Qt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.everything.choices import counted
from napari_lightsam.plugin.loading import load
from napari_lightsam.plugin.messages import report_error, report_info, report_warning, reworded
from napari_lightsam.plugin.recipes import recipe_from, take_recipe
from napari_lightsam.plugin.viewer.names import unused_name
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lightsam.batch.recipe import Recipe
    from napari_lightsam.batch.settings import BatchReport, FileOutcome
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Folder:
    """What is segmented, and where results go.

    Attributes
    ----------
    source
        Folder of images, or a list of them as CSV.
    out
        Output folder; None: beside the source, called as it is and "_segmented".
    overlay
        Also write pictures of the outlines.
    """

    source: Path | None = None
    out: Path | None = None
    overlay: bool = False

    @property
    def results(self) -> Path | None:
        """The output folder."""
        if self.out is not None or self.source is None:
            return self.out
        dotted = self.source.is_dir() and self.source.suffix.casefold() != ".zarr"  # as dates in names are
        name = self.source.name if dotted else self.source.stem
        return self.source.with_name(f"{name}_segmented")


class FolderBatch:
    """Segments all images of a folder in the background.

    Parameters
    ----------
    control
        The controller, whose settings are used.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: the folder, or the last result, has changed.
    progress
        Signal(object): `Progress` of the run under way, or None when it ended.
    opened
        Signal(object): the Image layer of a result that is looked at.
    folder
        What the next run does.
    report
        What became of the last run; None before.
    """

    changed = Signal()
    progress = Signal(object)
    opened = Signal(object)

    def __init__(self, control: Controller, say: Callable[[str], object]) -> None:
        self._control, self._say = control, say
        self.folder = Folder()
        self.report: BatchReport | None = None
        self._recipe: Recipe | None = None

    def choose(self, **changes: Any) -> None:
        """Change what the next run does, by the names of `Folder`."""
        self.folder = replace(self.folder, **changes)
        self.changed.emit()

    @property
    def is_running(self) -> bool:
        """A run is under way."""
        return self._control.worker.is_busy(Lane.BATCH)

    def start(self) -> bool:
        """Start to segment the folder; tells whether that could be done."""
        source, out = self.folder.source, self.folder.results
        if source is None or out is None:
            report_info("Choose the folder of images first.")
            return False
        try:
            recipe = recipe_from(self._control, overlay=self.folder.overlay)
        except LightSamError as error:
            report_error(error)
            return False
        self._recipe, self.report = recipe, None
        work = _segment(source, out, recipe)
        self._control.worker.submit(
            Lane.BATCH, work, self._on_done, self._on_error, lambda step: self.progress.emit(step)
        )
        self.progress.emit(Progress("starting", 0, 0))
        self._say("Segmenting the folder; you can go on working ...")
        return True

    def cancel(self) -> None:
        """Stop the run; what is finished is kept, and the next run goes on from there."""
        if self._control.worker.cancel(Lane.BATCH):
            self.progress.emit(None)
            stopped = f"Stopped. Finished results are in {self.folder.results}; start again to go on."
            report_info(stopped)
            self._say(stopped)
            self.changed.emit()

    def save_recipe(self, path: Path) -> None:
        """Write the current settings as a recipe."""
        from napari_lightsam.batch.recipe import write_recipe

        try:
            write_recipe(path, recipe_from(self._control, overlay=self.folder.overlay))
        except LightSamError as error:
            report_error(error)
        else:
            self._say(f"The recipe was written to {path}.")

    def load_recipe(self, path: Path) -> None:
        """Choose what a recipe says."""
        from napari_lightsam.batch.recipe import ALWAYS, OVERLAY, read_recipe

        try:
            recipe = read_recipe(path)
        except LightSamError as error:
            report_error(error)
            return
        left = list(take_recipe(self._control, recipe))
        self.choose(overlay=recipe.overlay)
        more = [name for name in recipe.outputs if name not in (*ALWAYS, OVERLAY)]
        left += [f"outputs: {', '.join(more)}"] if more else []
        if not left:
            report_info(f"Model and settings are as {path.name} says.")
        else:
            report_warning(
                f"Model and settings are as {path.name} says, but for {'; '.join(left)}: the image on "
                "display lacks that, or only `lightsam segment --recipe` knows it."
            )

    def show(self, outcome: FileOutcome) -> None:
        """Add an image and its result to the viewer, and look at them alone: others would lie over them."""
        from napari_lightsam.batch.subject import Subject
        from napari_lightsam.formats.images import read_image

        assert self._recipe is not None  # there is an outcome
        try:
            image = read_image(outcome.source, 0)
            labels = read_image(outcome.outputs[0])
            subject = Subject.of(image, self._recipe.settings)
        except LightSamError as error:
            report_error(error)
            return
        viewer, name = self._control.viewer, outcome.image or str(outcome.source)
        size = labels.pixel_size or (1.0, 1.0)
        scale = (*((labels.z_step or 1.0,) if subject.stacked else ()), *size)
        channels = None if subject.rgb or subject.pixels.ndim == labels.data.ndim else -1
        rgb = {"rgb": True} if subject.rgb else {}
        for layer in viewer.layers:
            layer.visible = False
        made = viewer.add_image(subject.pixels, name=name, scale=scale, channel_axis=channels, **rgb)
        viewer.add_labels(labels.data, name=unused_name(viewer, "Objects", name), scale=scale)
        viewer.fit_to_view()
        self.opened.emit(made[0] if isinstance(made, list) else made)
        why = "".join(f" ⚠ {flag.replace('--object-size', 'object size')}" for flag in outcome.flags)
        self._say(f"{name}: {counted(outcome.n_objects or 0)}.{why}")

    def _on_done(self, report: BatchReport) -> None:
        self.report = report
        self.progress.emit(None)
        failed = [outcome for outcome in report.outcomes if outcome.status == "failed"]
        objects = sum(outcome.n_objects or 0 for outcome in report.outcomes)
        done = len(report.outcomes) - len(failed)
        report_info(f"{done} images done, {objects} objects. Results are in {self.folder.results}.")
        self._say(
            f"{done} images done, {len(failed)} failed. 'Open report' shows them; results are in "
            f"{self.folder.results}."
        )
        reasons = [*report.problems, *(f"{outcome.image}: {outcome.message}" for outcome in failed)]
        if reasons:
            more = f"\n... and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
            report_warning(f"{len(failed)} images failed:\n" + "\n".join(reasons[:_SHOWN]) + more)
        self.changed.emit()

    def _on_error(self, error: BaseException) -> None:
        self.progress.emit(None)
        self._say("The folder could not be segmented: see the message.")
        report_error(reworded(error, "Choose another folder with 'Save into ...', or remove those results."))
        self.changed.emit()


def _segment(source: Path, out: Path, recipe: Recipe) -> Work[BatchReport]:
    from napari_lightsam.batch.run import segment_many

    yield Progress("loading the model", 0, 0)
    # Without the embeddings that windows keep on disk: a batch would only fill it, and is not opened again.
    segmenter = load(recipe.model, cache=False)
    return (yield from segment_many([source], out, recipe, segmenter=segmenter))
