"""Single objects: from prompts to outlines on display, and into a Labels layer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.messages import report_error, report_info, shortcut
from napari_lightsam.plugin.objects.timeline import PROMPTS
from napari_lightsam.plugin.objects.undoable import go
from napari_lightsam.plugin.prompting.answer import Answer
from napari_lightsam.plugin.scope import lie_in, outline_of
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane, in_unit
from napari_lightsam.plugin.viewer.places import view
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Labels

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.progress import Progress, Work
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.results import Commit, Results
    from napari_lightsam.plugin.objects.timeline import Step
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.prompting.history import Correction
    from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.worker import Worker

_MOMENT = 0.03
"""Seconds that painting waits for an outline: a marker and its outline painted one by one take longer."""

_DOUBTFUL = 0.3
"""Score below which a single outline is rather a mistake than an object."""

_FEW = 8
"""Objects that painting waits for; the progress of more is shown."""


class SingleObjects:
    """Outlines prompted objects in the background, and saves those that are on display.

    Parameters
    ----------
    annotator, worker, inference, results
        Of the controller.
    say
        Shows a sentence in the status line.
    pixel_size
        Returns micrometres a pixel, or None.
    mention
        As `say`, for what changes nothing else that is shown.

    Attributes
    ----------
    answer
        The outlines on display; empty when there are none.
    replace_others
        Commits may take pixels of other objects.
    replace_same
        A commit of another version of a saved object takes that object's place.
    """

    def __init__(
        self,
        annotator: Annotator,
        worker: Worker,
        inference: Inference,
        results: Results,
        say: Callable[[str], object],
        pixel_size: Callable[[], float | None] = lambda: None,
        mention: Callable[[str], object] | None = None,
    ) -> None:
        self._annotator, self._worker, self._inference = annotator, worker, inference
        self._results, self._say, self._pixel_size = results, say, pixel_size
        self._mention = mention or say
        self.answer = Answer()
        self.replace_others = False
        self.replace_same = True
        self._seconds = 0.0  # that the last outlines took
        self._former: dict[ObjectPrompt, int] = {}

    # --- outlines ------------------------------------------------------------------------------------

    def predict(
        self, request: PlaneRequest, settings: Settings, on_progress: Callable[[Progress], object]
    ) -> None:
        """Answer the prompts in the background; a newer call replaces an older one.

        Parameters
        ----------
        request
            The plane on display.
        settings
            Model and object size.
        on_progress
            Called with every step of the work.
        """
        correction = self._annotator.correction
        if correction is not None and correction.plane != request.plane.key:
            self._annotator.correction = None
        objects = self._asked()
        if not objects:
            self._worker.cancel(Lane.PROMPT)
            self.forget()
            self._say(self._why_nothing())
            return
        if self._inference.loaded(settings.model) is None and not is_here(settings.model):
            self._worker.cancel(Lane.PROMPT)
            self._say("Download the model first.")
            return
        few, known = len(objects) <= _FEW, self._inference.is_embedded(request, settings)
        quick = few and known and self._seconds < _MOMENT
        if not quick:
            self._mention("Finding the outline ...")
        self._worker.submit(
            Lane.PROMPT,
            self._timed(self._inference.predict(request, settings, objects)),
            lambda found: self._on_candidates(request, settings, objects, found),
            self.on_error,
            None if quick else on_progress,
        )
        if quick:
            # after napari is done with the click, and before it is painted
            self._worker.later(self._answer_now)

    def _asked(self) -> tuple[ObjectPrompt, ...]:
        """Return the prompted objects; of a work region that was drawn, those that belong to it."""
        objects, plane, image = self._annotator.read_prompts(), self._annotator.plane(), self._annotator.image
        polygons = () if image is None else outline_of(image, plane)
        if not polygons or not objects or self._annotator.correction is not None:
            return objects
        inside = lie_in([prompt.place or (np.inf, np.inf) for prompt in objects], polygons)
        return tuple(prompt for prompt, belongs in zip(objects, inside, strict=True) if belongs)

    def _why_nothing(self) -> str:
        """Say why there is nothing to outline."""
        image = self._annotator.image
        if not (self._annotator.read_prompts() or self._annotator.count_outside()):
            return "Click an object, or draw a box around it."
        if image is None or "work_region" not in layers.ours(image):
            return "That click is beside the image."
        return "That click is outside of the work region: click inside its green outline."

    def _timed(self, work: Work[Any]) -> Work[Any]:
        begun = time.perf_counter()
        found = yield from work
        self._seconds = time.perf_counter() - begun
        return found

    def _answer_now(self) -> None:
        self._worker.answer_now(Lane.PROMPT, _MOMENT)

    def _on_candidates(
        self,
        request: PlaneRequest,
        settings: Settings,
        objects: tuple[ObjectPrompt, ...],
        found: tuple[tuple[Mask, ...], ...],
    ) -> None:
        plane = request.plane
        before = (
            dict(zip(self.answer.prompts, self.answer.chosen, strict=True))
            if self.answer.plane == plane
            else {}
        )
        new = [i for i, prompt in enumerate(objects) if prompt not in before]
        former = {} if not self._former else {one: self._former.get(one.rounded, 0) for one in objects}
        chosen = [
            min(before.get(prompt, former.get(prompt, 0)), max(len(candidates) - 1, 0))
            for prompt, candidates in zip(objects, found, strict=True)
        ]
        active = new[-1] if new else len(objects) - 1
        weights = self._inference.weights_hash(settings.model)
        self.answer = Answer(plane, objects, found, chosen, active, settings, request.seen, weights)
        self._show_answer()

    def _show_answer(self) -> None:
        self._outline()
        self.tell()

    def _outline(self) -> None:
        """Preview the answer, and find the saved object that it is another version of."""
        answer, masks = self.answer, self.answer.masks()
        assert answer.plane is not None
        self._annotator.show_preview(answer.plane, masks)
        image, correction = self._annotator.image, self._annotator.correction
        alone = len(masks) == 1 and correction is None and image is not None
        answer.same = self._results.same_object(image, answer.plane, masks[0]) if alone and image else None

    def tell(self) -> None:
        """Say what is outlined, and what a commit would do."""
        answer, masks, correction = self.answer, self.answer.masks(), self._annotator.correction
        if not masks:
            self._say("Nothing was found here: click nearer to the object's centre, or draw a box around it.")
        elif len(masks) > 1:
            self._say(f"{len(masks)} objects outlined. Press C to save them.")
        elif correction is not None:
            self._say(
                f"Object {correction.value}: click what is missing, Shift+click what is too much. "
                f"C replaces it. {self.facts()}"
            )
        elif answer.same is not None:
            self._say(f"Replace object {answer.same}? C does. {self.facts()}")
        else:
            self._say(f"{self.facts()} {self._advice()}")

    def _advice(self) -> str:
        """Say what to do with the only outline on display."""
        prompt, mask = self.answer.prompts[self.answer.active], self.answer.current
        if mask is None or mask.iou >= _DOUBTFUL:
            return "Press C to save."
        if sum(positive for *_, positive in prompt.points) > 1:
            return "Are these several objects? Press C between them, or tick 'Each point is its own object'."
        return "That is hardly an object: click nearer to the centre of one, or drag a box around it."

    def facts(self) -> str:
        """Say how large and how good the outline on display is; empty when there is none."""
        answer, mask = self.answer, self.answer.current
        if mask is None or len(answer.masks()) > 1:
            return ""
        micrometres = self._pixel_size()
        area = f"{mask.area} px" if micrometres is None else f"{mask.area * micrometres**2:.3g} µm²"
        across = in_unit(mask.diameter, micrometres)
        count = len(answer.mine)
        which = f" Outline {answer.chosen[answer.active] + 1} of {count} (Q)." if count > 1 else ""
        return f"Score {min(max(mask.iou, 0), 1):.2f}, {area}, {across} across.{which}"

    def on_error(self, error: BaseException) -> None:
        """Show no outlines where something went wrong, and say so."""
        self.forget()
        self._say("No outline: see the message.")
        report_error(error)

    def forget(self) -> None:
        """Show no outlines; prompts stay."""
        self.answer = Answer()
        self._annotator.hide_preview()

    def recall(self, chosen: Mapping[ObjectPrompt, int]) -> None:
        """Show of prompts that come back the outlines that were chosen of them, not the best ones."""
        for prompt, candidate in chosen.items():
            self._former.pop(prompt.rounded, None)
            if candidate:  # of most it is the best, which needs no note
                self._former[prompt.rounded] = candidate

    # --- what is done with them ----------------------------------------------------------------------

    def commit(self) -> Commit | None:
        """Save the outlined objects; prompts are removed afterwards."""
        answer = self.answer
        image = self._annotator.image
        if image is None or answer.plane is None or not answer.masks():
            waiting = self._worker.is_busy(Lane.PROMPT)
            report_info(
                "The outline is still being found; press again in a moment."
                if waiting
                else "There is nothing to save yet: click an object or draw a box around it first."
            )
            return None
        if not self._is_answered():
            report_info("The outline is still being found; press again in a moment.")
            return None
        correction = self._annotator.correction
        if correction is not None and not self._is_there(correction):
            report_info(f"Object {correction.value} was deleted meanwhile; the outline becomes a new object.")
            correction = self._annotator.correction = None
        if answer.same is not None:  # the layer was edited meanwhile, or another one is chosen
            now = self._results.same_object(image, answer.plane, answer.masks()[0])
            answer.same = now if now == answer.same else None
        try:
            done = self._results.commit(
                image,
                answer.plane,
                answer.masks(),
                replace_others=self.replace_others,
                made=answer.made(),
                replaces=self._replaced(correction),
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
        replaced = correction is not None or self._replaced(None) is not None
        self._annotator.drop_saved()
        known = "" if not done.refused else f" {done.refused} lie on objects that were saved before."
        many = f"Objects {done.ids[0]} to {done.ids[-1]}" if len(done.ids) > 1 else f"Object {done.ids[0]}"
        if done.written:
            self._say(f"{many} {'replaced' if replaced else 'saved'}.{known} {shortcut('Z')} takes it back.")
        else:
            self._say(f"{many} stays as it was.")
        return done

    def _is_answered(self) -> bool:
        """Tell whether the outlines on display answer the prompts as they are now; else they will."""
        try:
            if self._asked() == self.answer.prompts:
                return True
        except NoPlane:
            return False
        if not self._worker.is_busy(Lane.PROMPT):
            self._annotator.edited.emit()
        return False

    def look_again(self) -> None:
        """Compare the outline on display with another target layer."""
        if self.answer.candidates:
            self._show_answer()

    def _replaced(self, correction: Correction | None) -> int | None:
        """Return the saved object that a commit takes the place of."""
        if correction is not None:
            return correction.value
        return self.answer.same if self.replace_same else None

    def _is_there(self, correction: Correction) -> bool:
        """Tell whether the object under correction still exists, and make its layer the target."""
        labels = layers.by_id(self._results.viewer, correction.layer)
        if labels is None:
            return False
        self._results.target = correction.layer
        image, plane = self._annotator.image, self.answer.plane
        place = layers.place_in(labels, image, plane) if image is not None and plane is not None else None
        return place is not None and bool((view(labels.data, place) == correction.value).any())

    def undo(self) -> None:
        """Take back what was done last: an edit of the prompts, or a step in a Labels layer.

        Where nothing is known, the last step in the target layer: of the brush, or of an earlier session.
        """
        annotator = self._annotator
        step, labels = self._go(annotator.timeline.back, annotator.undo, lambda layer: layer.undo)
        if step == PROMPTS:
            return
        if labels is None:
            self._say("There is nothing more to take back.")
        elif step is not None and step.new:
            report_info(f"What was saved last is a layer, {labels.name!r}: delete the layer to take it back.")
        else:
            self._say(f"The last step in {labels.name!r} was taken back.")

    def redo(self) -> None:
        """Repeat what `undo` took back last."""
        annotator = self._annotator
        step, labels = self._go(annotator.timeline.forward, annotator.redo, lambda layer: layer.redo)
        if step == PROMPTS:
            return
        if labels is None:
            self._say("There is nothing more to repeat.")
        elif not (step is not None and step.new):
            self._say(f"A step in {labels.name!r} was repeated.")

    def _go(
        self,
        step_on: Callable[[], Step | None],
        edit_prompts: Callable[[], bool],
        way: Callable[[Labels], Callable[[], object]],
    ) -> tuple[Step | None, Labels | None]:
        """Go along the timeline over a step that there still is; returns it, and the layer that it is of.

        At the end of the timeline, over one in the target layer. What napari's own keys went over, or is in a
        layer that was deleted, is passed over.
        """
        viewer = self._results.viewer
        while (step := step_on()) is not None:
            labels = layers.by_id(viewer, step.layer)
            if step == PROMPTS:
                done = edit_prompts()
            else:
                done = labels is not None and (step.new or go(labels, way(labels)))
            if done:
                return step, labels
        labels = layers.by_id(viewer, self._results.target)
        return None, labels if labels is not None and go(labels, way(labels)) else None

    # --- the outline on display ----------------------------------------------------------------------

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
        masks = self.answer.masks()
        shown = self.answer.current or (masks[-1] if masks else None)
        return None if shown is None else shown.diameter
