"""What is segmented now: image, plane, inputs, model and object size; others are told when it changes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.inference import Inference, Ready, Settings
from napari_lightsam.plugin.messages import report_error
from napari_lightsam.plugin.request import PlaneRequest, Source, default_sources, make_request
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from napari.layers import Image

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.region import WorkRegion
    from napari_lightsam.plugin.viewer.axes import Plane


class Shown:
    """Knows what a click or a run would be answered from, and embeds it in the background.

    Parameters
    ----------
    annotator, region, worker, inference
        Of the controller.
    say
        Shows a sentence in the status line.
    mention
        As `say`, for what changes nothing else that is shown.

    Attributes
    ----------
    image_left
        Signal: another image will be chosen; all is still as it was.
    image_changed
        Signal(object): another `Image` was chosen, or None.
    plane_changed
        Signal: `plane` is another one.
    changed
        Signal: image, plane, pixels, inputs or settings are others, and so is what a model makes of them.
    prepared
        Signal: `ready` is there.
    settings
        Model and object size.
    sources
        What the model's inputs are mapped to; empty for the default.
    plane
        Of the image, as displayed last; None while there was none.
    ready
        What the displayed plane was embedded with; None before.
    """

    image_left = Signal()
    image_changed = Signal(object)
    plane_changed = Signal()
    changed = Signal()
    prepared = Signal()

    def __init__(
        self,
        annotator: Annotator,
        region: WorkRegion,
        worker: Worker,
        inference: Inference,
        say: Callable[[str], object],
        mention: Callable[[str], object],
    ) -> None:
        self.viewer = annotator.viewer
        self._annotator, self._region = annotator, region
        self._worker, self._inference = worker, inference
        self._say, self.mention = say, mention
        self.settings = Settings()
        self.sources: tuple[Source, ...] = ()
        self.plane: Plane | None = None
        self.ready: Ready | None = None
        self._versions: Counter[Hashable] = Counter()
        self._key: Hashable | None = None
        self._closed = self._changing = False
        self._next: list[Image | None] = []  # chosen while another one is being changed to
        region.changed.connect(self._on_event)
        for emitter in self._emitters():
            emitter.connect(self._on_event)
        self.viewer.layers.events.removed.connect(self._on_removed)

    def _emitters(self) -> tuple[Any, ...]:
        events = self.viewer.dims.events
        return events.current_step, events.order, events.ndisplay

    # --- choices -------------------------------------------------------------------------------------

    def use_image(self, image: Image | None) -> None:
        """Choose the image; it is embedded in the background."""
        if self._changing:  # layers of ours that go with an image have others choose at once
            self._next = [image]
            return
        if self._annotator.image_id == (None if image is None else image.unique_id):
            return
        self._changing = True
        try:
            self.image_left.emit()
            self.sources, self.plane = (), None
            self._annotator.use_image(image)
            if image is not None:
                self._follow(image)
            self.image_changed.emit(image)
            self.plane_changed.emit()
            self.look(anew=True)
        finally:
            self._changing = False
        while self._next:
            self.use_image(self._next.pop())

    def use_settings(self, settings: Settings) -> None:
        """Choose model and object size; the image is embedded again and prompts are answered again."""
        if settings != self.settings:
            self.settings = settings
            self.look(anew=True)

    def use_sources(self, chosen: Sequence[Source]) -> None:
        """Map one to three layers or channels to the model's inputs; empty for the default."""
        self.sources = tuple(chosen)
        for source in self.sources:
            layer = layers.by_id(self.viewer, source.layer)
            if layer is not None:
                self._follow(layer)
        self.look()

    def _follow(self, image: Image) -> None:
        image.events.data.disconnect(self._on_data)
        image.events.data.connect(self._on_data)

    # --- what is on display --------------------------------------------------------------------------

    def look(self, *, anew: bool = False) -> None:
        """Look at the viewer, and announce what is another than before.

        Parameters
        ----------
        anew
            Announce a change in any case.
        """
        if self._closed:
            return
        key: Hashable | None = None
        try:
            request = self.request()
        except NoPlane:
            pass  # a view without a plane, as in 3-D, makes the last one no other
        else:
            key = request.key
            if self.plane is None or request.plane.key != self.plane.key:
                self.plane = request.plane
                self.plane_changed.emit()
        if anew or key != self._key:
            self._key = key
            self.changed.emit()

    def request(self) -> PlaneRequest:
        """Describe the plane on display.

        Raises
        ------
        NoPlane
            There is none; the message says why.
        """
        image = self._annotator.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        self._region.ensure()
        chosen = self.sources or default_sources(self.viewer, image)
        versions = [self._versions[source.layer] for source in chosen]
        return make_request(self.viewer, image, chosen, versions)

    def _on_event(self, event: Any = None) -> None:
        self.look()

    def _on_data(self, event: Any) -> None:
        self._versions[event.source.unique_id] += 1  # part of the key of all that is made of it
        layers.renew_key(event.source)
        self.look()

    def _on_removed(self, event: Any) -> None:
        gone = event.value.unique_id
        self._region.on_removed(event.value)
        if gone == self._annotator.image_id:
            self.use_image(None)
        elif any(source.layer == gone for source in self.sources):
            self.use_sources(())

    # --- the model -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Embed the displayed plane in the background, unless that was done."""
        self.ready = None
        try:
            request = self.request()
        except NoPlane as reason:
            self._worker.cancel(Lane.PREPARE)
            self._say(str(reason))
            return
        if not is_here(self.settings.model):
            self._worker.cancel(Lane.PREPARE)
            self._say("Download the model first.")
            return
        self._say("Preparing the image ...")
        work = self._inference.prepare(request, self.settings)
        self._worker.submit(Lane.PREPARE, work, self._on_ready, self._on_error, self.on_stage)

    def on_stage(self, progress: Progress) -> None:
        """Show how far the model has come, in the status line."""
        self.mention(progress.stage.capitalize() + " ...")

    def _on_ready(self, ready: Ready) -> None:
        self.ready = ready
        self.prepared.emit()

    def _on_error(self, error: BaseException) -> None:
        self._say("This image could not be prepared.")
        report_error(error)

    def close(self) -> None:
        """Let go of the viewer."""
        self._closed = True
        for emitter in self._emitters():
            emitter.disconnect(self._on_event)
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for image in layers.images(self.viewer):
            image.events.data.disconnect(self._on_data)
