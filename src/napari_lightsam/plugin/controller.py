"""What happens when: connects viewer, prompts, worker and results. Knows napari but no Qt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.annotator import Annotator
from napari_lightsam.plugin.answer import Answer
from napari_lightsam.plugin.axes import NoPlane, Plane
from napari_lightsam.plugin.downloads import Downloads
from napari_lightsam.plugin.everything import Everything
from napari_lightsam.plugin.inference import Inference, Ready, Settings
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.request import PlaneRequest, Source, default_sources, make_request
from napari_lightsam.plugin.results import Commit, Results
from napari_lightsam.plugin.teaching import Teaching
from napari_lightsam.plugin.typical import TypicalObject
from napari_lightsam.plugin.warned import Warned
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.plugin.prompts import ObjectPrompt


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
    everything
        Segments all objects, and keeps the last result open for other choices.
    typical
        Measures the object size by drawing.
    notes
        What the engine had to say about the image, each sentence once.
    downloads
        Fetches models, when asked.
    teaching
        Teaches a model with corrected labels, when asked.
    status
        One sentence: what goes on, or what to do next.
    settings
        Model and object size.
    sources
        What the model's inputs are mapped to; empty for the default.
    replace_others
        Commits may take pixels of other objects.
    pixel_size_um
        Micrometres a pixel, or None; noted with results.
    closed
        The tool was closed.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, deliver: Callable[[Callable[[], None]], object]) -> None:
        self.viewer = viewer
        self.annotator = Annotator(viewer)
        self.results = Results(viewer)
        self.worker = Worker(deliver)
        self.inference = Inference()
        self.everything = Everything(viewer, self.worker, self.inference, self.results, self._say)
        self.typical = TypicalObject(viewer, self.annotator.owner, deliver)
        self.downloads = Downloads(self.worker, self._say)
        self.teaching = Teaching(viewer, self.worker, self.inference, self._say)
        self.notes: list[str] = []
        self._warned = Warned(lambda text: deliver(lambda: self._on_warning(text)))
        self.settings = Settings()
        self.sources: tuple[Source, ...] = ()
        self.replace_others = False
        self.pixel_size_um: float | None = None
        self.status = ""
        self.ready: Ready | None = None
        self.answer = Answer()
        self._versions: Counter[Hashable] = Counter()
        self._followed: Hashable | None = None
        self.closed = False
        self.annotator.edited.connect(self.predict)
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
        self.annotator.use_image(image)
        self.results.target = None
        self.sources = ()
        self.notes.clear()
        self.typical.stop()
        self._forget()
        if image is not None:
            self._follow(image)
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
        self._forget()
        self.prepare()
        if self.annotator.points is not None or self.annotator.boxes is not None:
            self.predict()

    def _follow(self, image: Image) -> None:
        image.events.data.disconnect(self._on_data)
        image.events.data.connect(self._on_data)

    def _on_data(self, event: Any) -> None:
        self._versions[event.source.unique_id] += 1
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

    def _on_removed(self, event: Any) -> None:
        gone = event.value
        if gone.unique_id == self.annotator.image_id:
            self.worker.cancel(Lane.PROMPT)
            self.worker.cancel(Lane.PREPARE)
            self._forget()
            self.annotator.remove_prompts()
            self.annotator.image_id = None
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
        if not self.model_is_here():
            self.worker.cancel(Lane.PREPARE)
            self._say("Download the model first.")
            return
        self._say("Preparing the image ...")
        work = self.inference.prepare(request, self.settings)
        self.worker.submit(Lane.PREPARE, work, self._on_ready, self._on_prepare_error, self._on_stage)

    def model_is_here(self) -> bool:
        """Tell whether the chosen model is on this computer; never uses the network."""
        from napari_lightsam.engine.download import list_models

        known = {model.name: model.available for model in list_models()}
        return known.get(self.settings.model, True)

    def _on_stage(self, progress: Progress) -> None:
        self._say(progress.stage.capitalize() + " ...")

    def _on_ready(self, ready: Ready) -> None:
        self.ready = ready
        if not self.answer.candidates:
            self._say("Ready. Click an object, or segment everything.")
        self.changed.emit()

    def _on_prepare_error(self, error: BaseException) -> None:
        self._say("This image could not be prepared.")
        report_error(error)

    def predict(self) -> None:
        """Answer the prompts in the background; a newer call replaces an older one."""
        if self.closed:
            return
        try:
            objects = self.annotator.read_prompts()
            request = self.request()
            outside = self.annotator.count_outside()
        except NoPlane as reason:
            self._say(str(reason))
            return
        if not objects:
            self.worker.cancel(Lane.PROMPT)
            self._forget()
            beside = (
                "That click is beside the image." if outside else "Click an object, or draw a box around it."
            )
            self._say(beside)
            return
        if not self.model_is_here():
            self._say("Download the model first.")
            return
        self._say("Finding the outline ...")
        work = self.inference.predict(request, self.settings, objects)
        self.worker.submit(
            Lane.PROMPT,
            work,
            lambda found: self._on_candidates(request.plane, objects, found),
            self._on_predict_error,
            self._on_stage,
        )

    def _on_candidates(
        self, plane: Plane, objects: tuple[ObjectPrompt, ...], found: tuple[tuple[Mask, ...], ...]
    ) -> None:
        before = (
            dict(zip(self.answer.prompts, self.answer.chosen, strict=True))
            if self.answer.plane == plane
            else {}
        )
        new = [i for i, prompt in enumerate(objects) if prompt not in before]
        chosen = [before.get(prompt, 0) for prompt in objects]
        self.answer = Answer(plane, objects, found, chosen, new[-1] if new else len(objects) - 1)
        self._show_answer()

    def _show_answer(self) -> None:
        answer = self.answer
        assert answer.plane is not None
        masks = answer.masks()
        self.annotator.show_preview(answer.plane, masks)
        mine = answer.mine
        if not masks:
            self._say("Nothing was found here: click nearer to the object's centre, or draw a box around it.")
        elif len(masks) > 1:
            self._say(f"{len(masks)} objects outlined. Press C to save them.")
        else:
            which = (
                f" Outline {answer.chosen[answer.active] + 1} of {len(mine)}, Q shows others."
                if len(mine) > 1
                else ""
            )
            self._say(f"{masks[0].diameter:.0f} px across. Press C to save.{which}")

    def _on_predict_error(self, error: BaseException) -> None:
        self._forget()
        self._say("No outline: see the message.")
        report_error(error)

    def _forget(self) -> None:
        self.answer = Answer()
        self.annotator.hide_preview()

    # --- actions -------------------------------------------------------------------------------------

    def _on_key(self, name: str) -> None:
        {
            "commit": self.commit,
            "clear": self.clear,
            "next": lambda: self.cycle(1),
            "previous": lambda: self.cycle(-1),
            "undo": self.results.undo,
            "redo": self.results.redo,
        }[name]()

    def start(self, tool: str, *, negative: bool = False) -> None:
        """Take a tool: "points" or "boxes"."""
        try:
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
        answer = self.answer
        image = self.annotator.image
        if image is None or answer.plane is None or not answer.masks():
            waiting = self.worker.is_busy(Lane.PROMPT)
            report_info(
                "The outline is still being found; press again in a moment."
                if waiting
                else "There is nothing to save yet: click an object or draw a box around it first."
            )
            return None
        try:
            done = self.results.commit(
                image, answer.plane, answer.masks(), replace_others=self.replace_others
            )
        except LightSamError as error:
            report_error(error)
            return None
        if not done.ids:
            report_info(
                "Nothing was saved: all of these pixels belong to other objects. Tick "
                "'Replace other objects' to take them over."
            )
            return done
        self.annotator.clear()
        many = f"Objects {done.ids[0]} to {done.ids[-1]}" if len(done.ids) > 1 else f"Object {done.ids[0]}"
        self._say(f"{many} saved. Ctrl+Z takes it back.")
        return done

    def clear(self) -> None:
        """Remove the prompts; nothing is saved."""
        self.annotator.clear()

    def cycle(self, step: int) -> None:
        """Show another candidate of the object that was prompted last."""
        answer = self.answer
        if not answer.candidates or len(answer.mine) < 2:
            report_info("There is only one candidate for this object; add a point to change it.")
            return
        count = len(answer.mine)
        answer.chosen[answer.active] = (answer.chosen[answer.active] + step) % count
        self._show_answer()

    def measured_size(self) -> float | None:
        """Return the diameter of the object outlined last, in pixels; None when there is none."""
        answer = self.answer
        if not answer.masks():
            return None
        mine = answer.mine
        return mine[answer.chosen[answer.active]].diameter if mine else answer.masks()[-1].diameter

    # --- everything ----------------------------------------------------------------------------------

    def targets(self) -> list[Labels]:
        """Return the Labels layers that objects of the displayed plane can be saved into."""
        image = self.annotator.image
        try:
            return [] if image is None else self.results.targets(image, self.annotator.plane())
        except NoPlane:
            return []

    def segment_everything(self) -> bool:
        """Start segmenting the displayed plane; tells whether it could be started."""
        try:
            request = self.request()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        if not self.model_is_here():
            report_info("This model is not on your computer: press Download first, or choose another one.")
            return False
        return self.everything.start(request, self.settings, {"pixel_size_um": self.pixel_size_um})

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

    def _say(self, sentence: str) -> None:
        self.status = sentence
        self.changed.emit()

    def close(self) -> None:
        """End the work and let go of the viewer; results stay."""
        if self.closed:
            return
        self.closed = True
        self._warned.close()
        self.worker.close()
        for emitter in (
            self.viewer.dims.events.current_step,
            self.viewer.dims.events.order,
            self.viewer.dims.events.ndisplay,
        ):
            emitter.disconnect(self._on_plane_change)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.annotator.close()
