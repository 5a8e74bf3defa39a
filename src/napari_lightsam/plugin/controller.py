"""What happens when: connects viewer, prompts, worker and results. Knows napari but no Qt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.plugin import layers
from napari_lightsam.plugin.annotator import Annotator
from napari_lightsam.plugin.axes import NoPlane
from napari_lightsam.plugin.checking import Checking
from napari_lightsam.plugin.curating import Curating
from napari_lightsam.plugin.downloads import Downloads, is_here
from napari_lightsam.plugin.everything import Everything
from napari_lightsam.plugin.folder import FolderBatch
from napari_lightsam.plugin.hover import Hover
from napari_lightsam.plugin.inference import Inference, Ready, Settings
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.picking import Picking
from napari_lightsam.plugin.propagation import Propagation
from napari_lightsam.plugin.region import WorkRegion
from napari_lightsam.plugin.request import PlaneRequest, Source, default_sources, make_request
from napari_lightsam.plugin.results import Results
from napari_lightsam.plugin.series import Series
from napari_lightsam.plugin.sessions import Sessions
from napari_lightsam.plugin.single import SingleObjects
from napari_lightsam.plugin.splitting import Splitting
from napari_lightsam.plugin.targets import Targets
from napari_lightsam.plugin.teaching import Teaching
from napari_lightsam.plugin.typical import TypicalObject
from napari_lightsam.plugin.warned import Warned
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.engine.propagate import Direction
    from napari_lightsam.plugin.answer import Answer
    from napari_lightsam.plugin.results import Commit


class Controller:
    """The tool without its buttons: every action of the widget is a method here.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    deliver
        Calls a function on the main thread, later.

    Attributes
    ----------
    changed
        Signal: something that a user interface shows has changed; see the attributes below.
    mentioned
        Signal(str): the status alone has changed.
    single
        Outlines prompted objects, and saves them.
    picking
        Takes saved objects up again.
    hover
        Outlines what lies under the mouse, when asked.
    everything
        Segments all objects, and keeps the last result open for other choices.
    region
        The work region of a large image.
    propagation
        Follows saved objects through a stack.
    typical
        Measures the object size by drawing.
    notes
        What the engine had to say about the image, each sentence once.
    downloads
        Fetches models, when asked.
    teaching
        Teaches a model with corrected labels, when asked.
    sessions
        Saves the work, and goes on with it.
    series
        Annotates the images of a folder one after the other.
    batch
        Segments the images of a folder.
    curating, splitting, checking
        Go through the objects of a Labels layer: repair, split and judge them.
    status
        One sentence: what goes on, or what to do next.
    settings
        Model and object size.
    sources
        What the model's inputs are mapped to; empty for the default.
    ready
        What the displayed plane was embedded with; None before.
    pixel_size_um
        Micrometres a pixel, or None; noted with results.
    closed
        The tool was closed.
    """

    changed = Signal()
    mentioned = Signal(str)

    def __init__(self, viewer: ViewerModel, deliver: Callable[[Callable[[], None]], object]) -> None:
        self.viewer = viewer
        self.annotator = Annotator(viewer)
        self.results = Results(viewer)
        self.worker = Worker(deliver)
        self.inference = Inference()
        self.single = SingleObjects(
            self.annotator,
            self.worker,
            self.inference,
            self.results,
            self._say,
            lambda: self.pixel_size_um,
            self._mention,
        )
        self.picking = Picking(self.annotator, self.targets, lambda: self.results.target, self.single.correct)
        self.hover = Hover(self)
        self.everything = Everything(viewer, self.worker, self.inference, self.results, self._say)
        self.region = WorkRegion(viewer, self.annotator, self.worker, self.inference, self._say)
        self.propagation = Propagation(
            viewer, self.annotator, self.worker, self.inference, self.results, self._say
        )
        self.typical = TypicalObject(viewer, self.annotator.owner, deliver)
        self.downloads = Downloads(self.worker, self._say)
        self.teaching = Teaching(viewer, self.worker, self.inference, self._say)
        self.curating = Curating(viewer, self.worker, self.results, self._say)
        self.splitting = Splitting(
            self.curating, self.worker, self.inference, lambda: (self.request(), self.settings)
        )
        self.checking = Checking(self.curating)
        self.sessions = Sessions(self, deliver)
        self.series = Series(self)
        self.batch = FolderBatch(self)
        self.notes: list[str] = []
        self._warned = Warned(lambda text: deliver(lambda: self._on_warning(text)))
        self.settings = Settings()
        self.sources: tuple[Source, ...] = ()
        self.pixel_size_um: float | None = None
        self.status = ""
        self.ready: Ready | None = None
        self._chosen = Targets()
        self._versions: Counter[Hashable] = Counter()
        self._followed: Hashable | None = None
        self.closed = False
        self.annotator.edited.connect(self.predict)
        self.region.changed.connect(self._on_plane_change)
        self.annotator.keys.connect(self._on_key)
        self.downloads.finished.connect(self._on_new_model)
        self.teaching.taught.connect(self._on_new_model)
        viewer.dims.events.current_step.connect(self._on_plane_change)
        viewer.dims.events.order.connect(self._on_plane_change)
        viewer.dims.events.ndisplay.connect(self._on_plane_change)
        viewer.layers.events.removed.connect(self._on_removed)

    # --- what is segmented ---------------------------------------------------------------------------

    def use_image(self, image: Image | None) -> None:
        """Choose the image; it is embedded in the background."""
        new = None if image is None else image.unique_id
        if new == self.annotator.image_id:
            return
        self._chosen.keep(self.annotator.image_id, self.results.target)
        self.annotator.use_image(image)
        self.results.target = self._chosen.of(new)
        self.sources = ()
        self.notes.clear()
        self.typical.stop()
        self.single.forget()
        if image is not None:
            self._follow(image)
        self.sessions.use_image(image)
        self.prepare()

    def use_settings(self, settings: Settings) -> None:
        """Choose model and object size; the image is embedded again and prompts are answered again."""
        if settings != self.settings:
            self.settings = settings
            self._renew()

    def use_sources(self, chosen: Sequence[Source]) -> None:
        """Map one to three layers or channels to the model's inputs; empty for the default."""
        if tuple(chosen) != self.sources:
            self.sources = tuple(chosen)
            for source in self.sources:
                layer = layers.by_id(self.viewer, source.layer)
                if layer is not None:
                    self._follow(layer)
            self._renew()

    def _renew(self) -> None:
        self.single.forget()
        self.prepare()
        if self.annotator.points is not None or self.annotator.boxes is not None:
            self.predict()

    def _follow(self, image: Image) -> None:
        image.events.data.disconnect(self._on_data)
        image.events.data.connect(self._on_data)

    def _on_data(self, event: Any) -> None:
        changed = event.source.unique_id
        self._versions[changed] += 1
        used = {self.annotator.image_id, *(source.layer for source in self.sources)}
        if changed in used and not self.closed:
            self._renew()

    def _on_plane_change(self, event: Any = None) -> None:
        """Another plane is shown: what was previewed belongs to the former one."""
        if self.closed:
            return
        try:
            request = self.request()
        except NoPlane:
            key: Hashable = None
        else:
            key = request.key
            self.everything.show_plane(request.plane)
        if key != self._followed:
            self._followed = key
            self._renew()
        self.propagation.show_plane()

    def _on_removed(self, event: Any) -> None:
        gone = event.value
        self._chosen.forget(gone.unique_id)
        if gone.unique_id == self.annotator.image_id:
            self.worker.cancel(Lane.PROMPT)
            self.worker.cancel(Lane.PREPARE)
            self.single.forget()
            self.annotator.remove_prompts()
            self.annotator.image_id = None
        self.region.on_removed(gone)
        if any(source.layer == gone.unique_id for source in self.sources):
            self.sources = ()
        if gone.unique_id == self.results.target:
            self.results.target = None
        note = layers.ours(gone)
        if note.get("owner") == self.annotator.owner and note["role"] in ("points", "boxes"):
            self.predict()
        self.changed.emit()

    def request(self) -> PlaneRequest:
        """Describe the plane on display.

        Raises
        ------
        NoPlane
            There is none; the message says why.
        """
        image = self.annotator.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        self.region.ensure()
        chosen = self.sources or default_sources(self.viewer, image)
        versions = [self._versions[source.layer] for source in chosen]
        return make_request(self.viewer, image, chosen, versions)

    # --- the worker ----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Embed the displayed plane in the background, unless that was done."""
        self.ready = None
        try:
            request = self.request()
        except NoPlane as reason:
            self._followed = None
            self.worker.cancel(Lane.PREPARE)
            self._say(str(reason))
            return
        self._followed = request.key
        if not is_here(self.settings.model):
            self.worker.cancel(Lane.PREPARE)
            self._say("Download the model first.")
            return
        self._say("Preparing the image ...")
        work = self.inference.prepare(request, self.settings)
        self.worker.submit(Lane.PREPARE, work, self._on_ready, self._on_prepare_error, self._on_stage)

    def _on_stage(self, progress: Progress) -> None:
        self._mention(progress.stage.capitalize() + " ...")

    def _on_ready(self, ready: Ready) -> None:
        self.ready = ready
        if not self.answer.candidates:
            self._say("Ready. Click an object, or segment everything.")
        self.changed.emit()

    def _on_prepare_error(self, error: BaseException) -> None:
        self._say("This image could not be prepared.")
        report_error(error)

    # --- single objects ------------------------------------------------------------------------------

    @property
    def answer(self) -> Answer:
        """The outlines on display."""
        return self.single.answer

    @property
    def replace_others(self) -> bool:
        """Commits may take pixels of other objects."""
        return self.single.replace_others

    @replace_others.setter
    def replace_others(self, value: bool) -> None:
        self.single.replace_others = value

    def predict(self) -> None:
        """Answer the prompts in the background; a newer call replaces an older one."""
        if self.closed:
            return
        try:
            request = self.request()
        except NoPlane as reason:
            self.worker.cancel(Lane.PROMPT)  # its answer would be of a plane that is not on display any more
            self._say(str(reason))
            return
        self.single.predict(request, self.settings, self._on_stage)

    def _on_key(self, name: str) -> None:
        {
            "commit": self.commit,
            "clear": self.clear,
            "next": lambda: self.cycle(1),
            "previous": lambda: self.cycle(-1),
            "next_image": self.series.next,
            "undo": self.single.undo,
            "redo": self.single.redo,
        }[name]()

    def start(self, tool: str, *, negative: bool = False) -> None:
        """Take a tool: "points", "boxes" or "correct"."""
        try:
            if tool == "correct":
                if self.picking.start():
                    self._say("Click the object that is to be corrected.")
                return
            if tool == "boxes":
                self.annotator.start_boxes()
                self._say("Drag a box around each object.")
            else:
                self.annotator.always_negative = negative
                self.annotator.start_points()
                where = "outside of the object" if negative else "an object; Shift+click where it is not"
                self._say(f"Click {where}.")
        except NoPlane as reason:
            report_info(str(reason))
        if self.ready is None and not self.worker.is_busy(Lane.PREPARE):
            self.prepare()

    def commit(self) -> Commit | None:
        """Save the outlined objects; prompts are removed afterwards."""
        return self.single.commit()

    def clear(self) -> None:
        """Remove the prompts; nothing is saved."""
        self.annotator.clear()

    def find_similar(self) -> bool:
        """Look for objects like the outlined or last saved one; tells whether that could be started."""
        try:
            return self.single.find_similar(self.request(), self.settings)
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def cycle(self, step: int) -> None:
        """Show another candidate of the object that was prompted last."""
        self.single.cycle(step)

    def measured_size(self) -> float | None:
        """Return the diameter of the object outlined last, in pixels; None when there is none."""
        return self.single.measured_size()

    # --- everything ----------------------------------------------------------------------------------

    def targets(self) -> list[Labels]:
        """Return the Labels layers that objects of the displayed plane can be saved into."""
        image = self.annotator.image
        try:
            return [] if image is None else self.results.targets(image, self.annotator.plane())
        except NoPlane:
            return []

    def propagate(self, direction: Direction) -> bool:
        """Follow the selected object through the stack; tells whether that could be started."""
        self.propagation.replace_others = self.replace_others
        try:
            return self.propagation.start(self.request(), self.settings, direction)
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def segment_everything(self) -> bool:
        """Start segmenting the displayed plane; tells whether it could be started."""
        try:
            request = self.request()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        if not is_here(self.settings.model):
            report_info("This model is not on your computer: press Download first, or choose another one.")
            return False
        return self.everything.start(request, self.settings, {"pixel_size_um": self.pixel_size_um})

    def segment_whole(self, path: Path) -> bool:
        """Start segmenting all of a large image into a zarr folder; tells whether it could be started."""
        try:
            return self.region.segment_whole(
                self.request(), self.settings, self.everything.choices.config, path
            )
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def teach(self) -> bool:
        """Start teaching the chosen model with corrected labels; tells whether it could be started."""
        try:
            return self.teaching.start(self.request(), self.settings.model)
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def draw_typical(self) -> None:
        """Let the user draw one typical object, whose size is then used."""
        try:
            plane = self.annotator.plane()
        except NoPlane as reason:
            report_info(str(reason))
            return
        image = self.annotator.image
        assert image is not None  # plane() raises without an image
        self.typical.start(image, plane)
        self._say("Drag an ellipse around one typical object.")

    def _on_warning(self, text: str) -> None:
        if text not in self.notes and not self.closed:
            self.notes.append(text)
            self.changed.emit()

    def _on_new_model(self, name: str) -> None:
        if name == self.settings.model:
            self._renew()
        self.changed.emit()

    # --- end -----------------------------------------------------------------------------------------

    def _mention(self, sentence: str) -> None:
        self.status = sentence
        self.mentioned.emit(sentence)

    def _say(self, sentence: str) -> None:
        self.status = sentence
        self.changed.emit()

    def close(self) -> None:
        """End the work and let go of the viewer; results stay."""
        if self.closed:
            return
        self.closed = True
        self._warned.close()
        self.sessions.close()
        self.picking.stop()
        for part in (self.hover, self.checking, self.splitting, self.curating, self.everything):
            part.close()
        self.worker.close()
        for emitter in (
            self.viewer.dims.events.current_step,
            self.viewer.dims.events.order,
            self.viewer.dims.events.ndisplay,
        ):
            emitter.disconnect(self._on_plane_change)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.annotator.close()
