"""Teaching the model with the labels of a layer: what is sent to the worker, and what comes back."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.local import check_name, local_models
from napari_lightsam.engine.progress import Progress, Work, drain, relay
from napari_lightsam.engine.registry import ALIASES, MODELS, known_models
from napari_lightsam.errors import ConfigError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.plugin.lesson_time import LessonTime
from napari_lightsam.plugin.loading import import_training
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.objects.table import describe, measure
from napari_lightsam.plugin.prompting.prompts import read_boxes
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, NoPlane, Plane
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.viewer.names import unused_name
from napari_lightsam.plugin.viewer.places import view
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes
    from numpy.typing import NDArray

    from napari_lightsam.plugin.inference import Inference
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.train.finetune import FineTuned


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the user chose.

    Attributes
    ----------
    labels
        `unique_id` of the Labels layer that was corrected, or None.
    regions
        `unique_id` of a Shapes layer whose rectangles say where every object is labelled; None: the
        rectangle around all labels.
    name
        Of the new model.
    minutes
        Time to learn.
    replace_model
        An own model of this name is replaced.
    """

    labels: Hashable | None = None
    regions: Hashable | None = None
    name: str = "my-model"
    minutes: float = 5.0
    replace_model: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A finished lesson, and the plane that it was about."""

    result: FineTuned
    plane: Plane


class Teaching:
    """Teaches a model in the background, one lesson at a time.

    Parameters
    ----------
    viewer, worker, inference
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    progress
        Signal(object): `Progress` of the lesson under way, or None when it ended.
    taught
        Signal(str): the model of this name exists now.
    asked
        Signal(str): what the user should think of before the lesson; another `start` goes on all the same.
    ended
        Signal(str): why a lesson gave no model; it may be read long after.
    lesson
        What the next lesson is.
    last
        The last finished lesson, or None.
    took
        Seconds that it took in all.
    """

    progress = Signal(object)
    taught = Signal(str)
    asked = Signal(str)
    ended = Signal(str)

    def __init__(
        self, viewer: ViewerModel, worker: Worker, inference: Inference, say: Callable[[str], object]
    ) -> None:
        self._viewer, self._worker, self._inference, self._say = viewer, worker, inference, say
        self.lesson = Lesson()
        self.last: Taught | None = None
        self.took: float | None = None
        self._asked_about: Hashable | None = None  # layer of which the user knows that it is uncorrected
        self._deciding = threading.Lock()  # whether a lesson is cancelled or saved
        self._saving = threading.Event()  # of the latest lesson: it is too late to cancel it

    # --- choices -------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """A lesson is under way."""
        return self._worker.is_busy(Lane.TEACH)

    @property
    def name_is_own(self) -> bool:
        """The chosen name is that of an own model, which would be replaced."""
        return any(model.name.casefold() == self.lesson.name.casefold() for model in local_models())

    def corrected_layers(self, image: Image, plane: Plane) -> Iterator[Labels]:
        """Yield the Labels layers that lie on a plane."""
        for labels in layers.user_labels(self._viewer):
            if layers.place_in(labels, image, plane) is not None:
                yield labels

    def region_layers(self, image: Image) -> Iterator[Shapes]:
        """Yield the Shapes layers that can say where every object is labelled."""
        from napari.layers import Shapes

        for layer in layers.user_marks(self._viewer, image.ndim):
            if isinstance(layer, Shapes):
                yield layer

    def why_not(self, model: str) -> str:
        """Say why no lesson can be started with a model, or ""."""
        if self.lesson.labels is None:
            return (
                "Outline objects first: teaching needs a Labels layer of this image, with every object right."
            )
        known = known_models().get(model)
        if known is not None and not isinstance(known.spec.frame, ObjectFrame):
            return (
                f"{known.spec.title} cannot be taught. Choose LightSAM, or a model of your own, at the top."
            )
        try:
            check_name(self.lesson.name, [*MODELS, *ALIASES], replace=self.lesson.replace_model)
        except ConfigError as error:
            if self.name_is_own:
                return "You have a model of this name: choose another one, or tick 'Replace it'."
            return str(error)
        return ""

    # --- a lesson ------------------------------------------------------------------------------------

    def start(self, request: PlaneRequest, model: str) -> bool:
        """Start a lesson in the background; tells whether it could be started.

        Parameters
        ----------
        request
            The plane on display.
        model
            Name or path of the model to start from.
        """
        if self.is_running:
            report_info("The model is being taught; cancel that first.")
            return False
        reason = self.why_not(model)
        if reason:
            report_info(reason)
            return False
        try:
            labels, regions, name = self._read(request)
        except NoPlane as error:
            report_info(str(error))
            return False
        question = self._uncorrected(request)
        if question:
            self.asked.emit(question)
            return False
        lesson, self._saving = self.lesson, threading.Event()
        work = self._work(request, model, lesson, labels, regions, name)
        self._worker.submit(
            Lane.TEACH,
            self._until_saved(work, self._saving, 60 * lesson.minutes),
            lambda result: self._on_done(Taught(result, request.plane)),
            self._on_error,
            self.progress.emit,
        )
        self.progress.emit(Progress("starting", 0, 0))
        self._say("Teaching the model; you can go on working meanwhile.")
        return True

    def _uncorrected(self, request: PlaneRequest) -> str:
        """Ask for corrections, once for each layer, where none were made: own mistakes teach nothing."""
        layer = layers.by_id(self._viewer, self.lesson.labels)
        image = layers.by_id(self._viewer, request.plane.layer)
        place = None if layer is None or image is None else layers.place_in(layer, image, request.plane)
        if layer is None or place is None or layer.unique_id == self._asked_about:
            return ""
        note = layers.ours(layer)
        if note.get("role") != Role.EVERYTHING or note.get("accepted"):
            return ""
        table = describe(drain(measure(layer.data, place)), layer)
        if not len(table) or set(table.sources) != {"auto"}:
            return ""
        self._asked_about = layer.unique_id
        return (
            f"All {len(table)} objects are as 'Segment everything' found them: the model would learn its own "
            "mistakes. Correct what is wrong first. If everything is right, press 'Teach' again."
        )

    def _read(self, request: PlaneRequest) -> tuple[NDArray[Any], tuple[Region, ...] | None, str]:
        """Copy what may change while the lesson goes on: labels and rectangles."""
        plane, lesson = request.plane, self.lesson
        image = layers.by_id(self._viewer, plane.layer)
        layer = layers.by_id(self._viewer, lesson.labels)
        if image is None:
            raise NoPlane("The image was deleted; choose another one.")
        place = None if layer is None else layers.place_in(layer, image, plane)
        if layer is None or place is None:
            raise NoPlane("The Labels layer does not lie on this image pixel by pixel; choose another one.")
        labels = np.array(view(layer.data, place))
        shapes = layers.by_id(self._viewer, lesson.regions)
        if shapes is None:
            return labels, None, image.name
        boxes = np.rint(np.array(read_boxes(shapes, image, plane), float).reshape(-1, 4)).astype(int)
        if not len(boxes):
            raise NoPlane(
                f"There is no rectangle on this plane in {shapes.name!r}: draw one around each part that you "
                "corrected, or choose 'around the labels'."
            )
        return labels, tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in boxes), image.name

    def _work(
        self,
        request: PlaneRequest,
        model: str,
        lesson: Lesson,
        labels: NDArray[Any],
        regions: tuple[Region, ...] | None,
        name: str,
    ) -> Work[FineTuned]:
        yield Progress("getting ready", 0, 0)
        import_training()  # torch comes with it: here, in the worker
        from napari_lightsam.train.config import TEACHING
        from napari_lightsam.train.corrections import Corrected, labelled_region
        from napari_lightsam.train.finetune import finetune

        where = regions or (labelled_region(labels),)
        corrected = Corrected(request.read(), labels, request.rgb, where, name)
        config = replace(TEACHING, minutes=lesson.minutes)
        result = yield from finetune(
            [corrected], lesson.name, start=model, config=config, replace_model=lesson.replace_model
        )
        self._inference.forget(result.name)  # on the worker's thread, as all that concerns it
        return result

    def _until_saved(
        self, work: Work[FineTuned], saving: threading.Event, learning: float
    ) -> Work[FineTuned]:
        """Pass a lesson on with the time left, noting in the worker when its model is about to be saved."""
        import_training()
        from napari_lightsam.train.config import SAVING, STAGES

        begun, clock = time.monotonic(), LessonTime(learning, STAGES)

        def note(step: Progress) -> Progress:
            if step.stage == SAVING:
                with self._deciding:
                    saving.set()
            return clock.note(step, time.monotonic())

        result = yield from relay(work, note)
        self.took = time.monotonic() - begun
        return result

    def cancel(self) -> None:
        """Stop the lesson; nothing is kept. One that is being saved, or has ended, is not lost."""
        if not self.is_running:
            return
        with self._deciding:
            if self._saving.is_set():
                self._say("The lesson is over and the model is being saved: it is too late to cancel.")
                return
            self._worker.cancel(Lane.TEACH)
        self.progress.emit(None)
        self._say("Teaching cancelled; nothing was kept.")

    def _on_done(self, taught: Taught) -> None:
        self.last = taught
        self.lesson = replace(self.lesson, replace_model=False)
        self.progress.emit(None)
        self._say(f"{taught.result.name} is taught and saved.")
        self.taught.emit(taught.result.name)

    def _on_error(self, error: BaseException) -> None:
        self.progress.emit(None)
        self._say("The lesson ended without a new model: see the message.")
        self.ended.emit(str(error))
        report_error(error)

    # --- what came of it -----------------------------------------------------------------------------

    def show_on_image(self) -> None:
        """Add what was found in the held-out part before and after as two Labels layers."""
        taught = self.last
        image = None if taught is None else layers.by_id(self._viewer, taught.plane.layer)
        if taught is None or image is None:
            report_info("The image of this lesson is not open any more.")
            return
        result, plane = taught.result, taught.plane
        y0, x0, _, _ = result.held_out
        for word, labels in (("Before", result.picture.before), ("After", result.picture.after)):
            shape = layers.plane_shape(plane, *labels.shape)
            layer = self._viewer.add_labels(
                labels.reshape(shape),
                name=unused_name(self._viewer, f"{word} {result.name}", image.name),
                metadata={METADATA_KEY: {"version": 1, "image": str(image.unique_id), "role": Role.LESSON}},
                **layers.on_plane(image, plane, (y0, x0)),
            )
            layer.contour = 2  # outlines, so that both can be seen over the image
