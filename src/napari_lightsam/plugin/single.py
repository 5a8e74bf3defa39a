"""Single objects: from prompts to outlines on display, and from there into a Labels layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.answer import Answer
from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.plugin.annotator import Annotator
    from napari_lightsam.plugin.axes import Plane
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.prompts import ObjectPrompt
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.results import Commit, Results
    from napari_lightsam.plugin.worker import Worker


class SingleObjects:
    """Outlines prompted objects in the background, and saves those that are on display.

    Parameters
    ----------
    annotator, worker, inference, results
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    answer
        The outlines on display; empty when there are none.
    replace_others
        Commits may take pixels of other objects.
    """

    def __init__(
        self,
        annotator: Annotator,
        worker: Worker,
        inference: Inference,
        results: Results,
        say: Callable[[str], object],
    ) -> None:
        self._annotator, self._worker, self._inference = annotator, worker, inference
        self._results, self._say = results, say
        self.answer = Answer()
        self.replace_others = False

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
        objects = self._annotator.read_prompts()
        if not objects:
            self._worker.cancel(Lane.PROMPT)
            self.forget()
            self._say(
                "That click is beside the image."
                if self._annotator.count_outside()
                else "Click an object, or draw a box around it."
            )
            return
        if not is_here(settings.model):
            self._say("Download the model first.")
            return
        self._say("Finding the outline ...")
        self._worker.submit(
            Lane.PROMPT,
            self._inference.predict(request, settings, objects),
            lambda found: self._on_candidates(request.plane, objects, found),
            self._on_error,
            on_progress,
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
        self._annotator.show_preview(answer.plane, masks)
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

    def _on_error(self, error: BaseException) -> None:
        self.forget()
        self._say("No outline: see the message.")
        report_error(error)

    def forget(self) -> None:
        """Show no outlines; prompts stay."""
        self.answer = Answer()
        self._annotator.hide_preview()

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
        try:
            done = self._results.commit(
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
        self._annotator.clear()
        many = f"Objects {done.ids[0]} to {done.ids[-1]}" if len(done.ids) > 1 else f"Object {done.ids[0]}"
        self._say(f"{many} saved. Ctrl+Z takes it back.")
        return done

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
