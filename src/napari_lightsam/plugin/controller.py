"""What happens when: connects viewer, prompts, worker and results. Knows napari but no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.warned import Warned
from napari_lightsam.plugin.downloads import Downloads, is_here
from napari_lightsam.plugin.everything.run import Everything
from napari_lightsam.plugin.exporting import Exporting
from napari_lightsam.plugin.folder import FolderBatch
from napari_lightsam.plugin.inference import Inference
from napari_lightsam.plugin.messages import report_info
from napari_lightsam.plugin.objects.checking import Checking
from napari_lightsam.plugin.objects.curating import Curating
from napari_lightsam.plugin.objects.results import Results
from napari_lightsam.plugin.objects.splitting import Splitting
from napari_lightsam.plugin.objects.targets import Targets
from napari_lightsam.plugin.prompting.annotator import Annotator
from napari_lightsam.plugin.prompting.hover import Hover
from napari_lightsam.plugin.prompting.picking import Picking
from napari_lightsam.plugin.prompting.single import SingleObjects
from napari_lightsam.plugin.prompting.suggested import Suggested
from napari_lightsam.plugin.propagation import Propagation
from napari_lightsam.plugin.region import WorkRegion
from napari_lightsam.plugin.series.annotating import Series
from napari_lightsam.plugin.sessions.saving import Sessions
from napari_lightsam.plugin.shown import Shown
from napari_lightsam.plugin.teaching import Teaching
from napari_lightsam.plugin.typical import TypicalObject
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane, resting_plane
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.engine.propagate import Direction


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
    settings_taken
        Signal: settings were chosen elsewhere than in the dock: by saved work, or by a recipe.
    shown
        What is segmented now: image, plane, inputs, model and object size.
    single
        Outlines prompted objects, and saves them.
    suggested
        Prompts for saved objects, from layers and files, and for objects that look alike.
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
    exporting
        Writes objects for other programs.
    series
        Annotates the images of a folder one after the other.
    batch
        Segments the images of a folder.
    curating, splitting, checking
        Go through the objects of a Labels layer: repair, split and judge them.
    status
        One sentence: what goes on, or what to do next.
    pixel_size_um
        Micrometres a pixel, or None; noted with results.
    closed
        The tool was closed.
    """

    changed = Signal()
    mentioned = Signal(str)
    settings_taken = Signal()

    def __init__(self, viewer: ViewerModel, deliver: Callable[[Callable[[], None]], object]) -> None:
        self.viewer = viewer
        self.annotator = Annotator(viewer)
        self.results = Results(viewer, self.annotator.timeline)
        self.worker = Worker(deliver)
        self.inference = Inference()
        self.region = WorkRegion(viewer, self.annotator, self.worker, self.inference, self._say)
        self.shown = Shown(self.annotator, self.region, self.worker, self.inference, self._say, self._mention)
        self.single = SingleObjects(
            self.annotator,
            self.worker,
            self.inference,
            self.results,
            self._say,
            lambda: self.pixel_size_um,
            self._mention,
        )
        self.suggested = Suggested(
            self.single, self.annotator, self.worker, self.inference, self.results, self._say
        )
        self.picking = Picking(
            self.annotator, self.targets, lambda: self.results.target, self.suggested.correct
        )
        self.hover = Hover(self)
        self._targets = Targets(self.results)
        self.everything = Everything(self.shown, self.worker, self.inference, self._targets, self._say)
        self.propagation = Propagation(
            viewer, self.annotator, self.worker, self.inference, self._targets, self._say
        )
        self.typical = TypicalObject(viewer, self.annotator.owner, deliver)
        self.downloads = Downloads(self.worker, self._say)
        self.teaching = Teaching(viewer, self.worker, self.inference, self._say)
        self.curating = Curating(viewer, self.worker, self.results, self._say)
        self.splitting = Splitting(
            self.curating, self.worker, self.inference, lambda: (self.shown.request(), self.shown.settings)
        )
        self.checking = Checking(self.curating)
        self.annotator.edited.connect(self.predict)  # before who saves the prompts: the answer comes first
        self.sessions = Sessions(self, deliver, self._say)
        self.exporting = Exporting(self, self._say)
        self.series = Series(self, self._say)
        self.batch = FolderBatch(self, self._say)
        self.notes: list[str] = []
        self._warned = Warned(lambda text: deliver(lambda: self._on_warning(text)))
        self.pixel_size_um: float | None = None
        self.status = "Open an image first: drag a file into the window."
        self.closed = False
        self._connect()

    def _connect(self) -> None:
        shown = self.shown
        shown.image_left.connect(self.sessions.leave)
        shown.image_changed.connect(self._targets.use_image)
        shown.image_changed.connect(self._on_image)
        shown.image_changed.connect(self.sessions.use_image)
        shown.changed.connect(self._on_shown)
        shown.prepared.connect(self._on_prepared)
        self.everything.last.renumbered.connect(self.curating.on_renumbered)
        self.curating.marked.connect(layers.rely_on)
        self.annotator.prompt_layers.keys.connect(self._on_key)
        self.downloads.finished.connect(self._on_new_model)
        self.teaching.taught.connect(self._on_new_model)
        present = list(self.viewer.layers)  # a part of napari's own list would listen to all its layers
        for number, layer in enumerate(present):
            layers.own_note(layer, present[:number])
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        self.viewer.layers.events.removed.connect(self._on_removed)

    # --- what is segmented ---------------------------------------------------------------------------

    def _on_image(self, image: Image | None) -> None:
        self.notes.clear()
        self.typical.stop()

    def _on_shown(self) -> None:
        """Something else is segmented: what was previewed belongs to what was shown before."""
        self.single.forget()
        self.shown.prepare()
        if self.annotator.points is not None or self.annotator.boxes is not None:
            self.predict()
        else:
            self.worker.cancel(Lane.PROMPT)
        self.propagation.show_plane()

    def _on_prepared(self) -> None:
        if self.single.answer.candidates:
            self.single.tell()  # whose outline was there before its image was ready
        elif self.annotator.is_clicking:
            self._say("Ready. Click an object, or segment everything.")
        else:
            self._say("Ready. Press 'Object' and click one, or segment everything.")

    def _on_inserted(self, event: Any) -> None:
        layers.own_note(event.value, self.viewer.layers)

    def _on_removed(self, event: Any) -> None:
        gone = event.value
        self._targets.forget(gone.unique_id)
        note = layers.ours(gone)
        if note.get("owner") == self.annotator.owner and note["role"] in layers.PROMPTS:
            self.predict()
        self.changed.emit()

    # --- single objects ------------------------------------------------------------------------------

    def predict(self) -> None:
        """Answer the prompts in the background; a newer call replaces an older one."""
        if self.closed:
            return
        try:
            request = self.shown.request()
        except NoPlane as reason:
            self.worker.cancel(Lane.PROMPT)  # its answer would be of a plane that is not on display any more
            self._say(str(reason))
            return
        self.single.predict(request, self.shown.settings, self.shown.on_stage)

    def _on_key(self, name: str) -> None:
        {
            "commit": self.single.commit,
            "clear": self.annotator.clear,
            "next": lambda: self.single.cycle(1),
            "previous": lambda: self.single.cycle(-1),
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
        if self.shown.ready is None and not self.worker.is_busy(Lane.PREPARE):
            self.shown.prepare()

    def find_similar(self) -> bool:
        """Look for objects like the outlined or last saved one; tells whether that could be started."""
        try:
            return self.suggested.find_similar(self.shown.request(), self.shown.settings)
        except NoPlane as reason:
            report_info(str(reason))
            return False

    # --- everything ----------------------------------------------------------------------------------

    def targets(self) -> list[Labels]:
        """Return the Labels layers that objects of the displayed plane can be saved into.

        In the 3-D view, of the plane that the 2-D view comes back to.
        """
        image = self.annotator.image
        return [] if image is None else self.results.targets(image, resting_plane(image, self.viewer))

    def propagate(self, direction: Direction) -> bool:
        """Follow the selected object through the stack; tells whether that could be started."""
        self.propagation.replace_others = self.single.replace_others
        try:
            return self.propagation.start(self.shown.request(), self.shown.settings, direction)
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def segment_everything(self) -> bool:
        """Start segmenting the displayed plane; tells whether it could be started."""
        try:
            request = self.shown.request()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        if not is_here(self.shown.settings.model):
            report_info("This model is not on your computer: press Download first, or choose another one.")
            return False
        return self.everything.start(request, self.shown.settings, {"pixel_size_um": self.pixel_size_um})

    def segment_whole(self, path: Path) -> bool:
        """Start segmenting all of a large image into a zarr folder; tells whether it could be started."""
        try:
            return self.region.segment_whole(
                self.shown.request(), self.shown.settings, self.everything.choices.config, path
            )
        except NoPlane as reason:
            report_info(str(reason))
            return False

    def teach(self) -> bool:
        """Start teaching the chosen model with corrected labels; tells whether it could be started."""
        try:
            return self.teaching.start(self.shown.request(), self.shown.settings.model)
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
        self._say("Drag a box around one typical object.")

    def _on_warning(self, text: str) -> None:
        if text not in self.notes and not self.closed:
            self.notes.append(text)
            self.changed.emit()

    def _on_new_model(self, name: str) -> None:
        if name == self.shown.settings.model:
            self.shown.look(anew=True)
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
        self.series.close()
        self.sessions.close()
        self.picking.stop()
        for part in (self.hover, self.checking, self.splitting, self.curating, self.everything):
            part.close()
        self.worker.close()
        self.shown.close()
        self.results.close()
        self.region.close()
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.annotator.close()
