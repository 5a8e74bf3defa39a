"""Prompts that nobody clicked: of a saved object, of a layer or file, of objects that look alike. No Qt."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.objects.made import made_with_area
from napari_lightsam.plugin.objects.results import refusal
from napari_lightsam.plugin.prompting import sources as prompt_sources
from napari_lightsam.plugin.prompting.history import Correction
from napari_lightsam.plugin.scope import lie_in, outline_of
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.viewer.places import view
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.results import Results
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.prompting.single import SingleObjects
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.viewer.axes import Plane
    from napari_lightsam.plugin.worker import Worker


class Suggested:
    """Puts prompts in the place of those that are there; they are previewed, saved and undone like clicks.

    Parameters
    ----------
    single, annotator, worker, inference, results
        Of the controller.
    say
        Shows a sentence in the status line.
    """

    def __init__(
        self,
        single: SingleObjects,
        annotator: Annotator,
        worker: Worker,
        inference: Inference,
        results: Results,
        say: Callable[[str], object],
    ) -> None:
        self._single, self._annotator, self._worker = single, annotator, worker
        self._inference, self._results, self._say = inference, results, say

    def correct(self, labels: Labels, value: int, at: tuple[float, float] | None = None) -> bool:
        """Take an object of a Labels layer up again; a commit then replaces its pixels.

        Where we made it and nobody edited it since, its prompts come back; else its mask becomes the prompt,
        with a point on it.

        Parameters
        ----------
        labels
            Holds the object on the displayed plane; becomes the target.
        value
            Label of the object.
        at
            (row, column) of the plane that certainly belongs to it; by default its innermost pixel.

        Returns
        -------
        bool
            Whether it was done; a message says why not.
        """
        try:
            plane = self._annotator.plane()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        image = self._annotator.image
        assert image is not None  # plane() raises without an image
        place = None if labels.multiscale else layers.place_in(labels, image, plane)
        why_not = refusal(labels)
        if why_not or place is None:
            report_info(
                why_not or f"The layer {labels.name!r} does not lie on {image.name!r} pixel by pixel."
            )
            return False
        mask = crop_mask(view(labels.data, place) == value)
        if not value or not mask.area:
            report_info(f"There is no object {value} on this plane." if value else "There is no object here.")
            return False
        self._results.target = labels.unique_id
        layers.rely_on(labels)
        made = made_with_area(labels, value, mask.area)
        known = made is not None and made.prompt is not None and (made.area, made.plane) == (mask.area, place)
        if made is not None and made.prompt is not None and known:
            prompt = made.prompt
            correction = Correction(labels.unique_id, value, plane.key, prompt.mask)
            self._single.recall({prompt: made.candidate})
            self._annotator.take(prompt.points, [prompt.box] if prompt.box else [], correction)
        else:
            correction = Correction(labels.unique_id, value, plane.key, mask)
            self._annotator.take([(*(at or mask.innermost), True)], [], correction)
        return True

    def take_from(self, source: Layer | str | os.PathLike[str]) -> bool:
        """Take the prompts of a layer or a CSV file over, each point and box an object of its own.

        Returns
        -------
        bool
            Whether there were any on this plane; a message says why not.
        """
        try:
            plane, image = self._annotator.plane(), self._annotator.image
            assert image is not None  # plane() raises without an image
            given = (
                prompt_sources.read_table(source, plane)
                if isinstance(source, str | os.PathLike)
                else prompt_sources.read_layer(source, image, plane)
            )
            self._annotator.take(given.points, given.boxes, each=True)
        except NoPlane as reason:
            report_info(str(reason))
            return False
        except LightSamError as error:
            report_error(error)
            return False
        return True

    def find_similar(self, request: PlaneRequest, settings: Settings) -> bool:
        """Prompt all objects that look like the outlined one, or like the one saved last, in the background.

        They are previewed as objects of their own, to be accepted by a commit or rejected by clearing.

        Returns
        -------
        bool
            Whether there is an object to go by; a message says so where not.
        """
        answer = self._single.answer
        shown = answer.masks()
        mask = shown[0] if len(shown) == 1 else None if shown else self._saved_last(request.plane)
        if mask is None:
            report_info("Outline one object first, or save one: objects like it are looked for.")
            return False
        prompts = answer.prompts if shown else ()
        first = prompts[0].first_positive if prompts else None
        own = [] if not shown else [first or mask.innermost]
        self._say("Looking for similar objects ...")
        self._worker.submit(
            Lane.PROMPT,
            self._inference.similar(request, settings, mask),
            lambda points: self._on_similar(request.plane, own, points),
            self._single.on_error,
        )
        return True

    def _saved_last(self, plane: Plane) -> Mask | None:
        """Return the object whose label is selected in the target layer, if it is on a plane."""
        here, labels = self._saved(plane), layers.by_id(self._results.viewer, self._results.target)
        if here is None or labels is None or not labels.selected_label:
            return None
        mask = crop_mask(here == labels.selected_label)
        return mask if mask.area else None

    def _saved(self, plane: Plane) -> NDArray[Any] | None:
        """Return the plane of the target layer, if there is one."""
        labels, image = layers.by_id(self._results.viewer, self._results.target), self._annotator.image
        if labels is None or image is None or refusal(labels):
            return None
        place = layers.place_in(labels, image, plane)
        return None if place is None else view(labels.data, place)

    def _on_similar(self, plane: Plane, own: list[tuple[float, float]], points: NDArray[np.float64]) -> None:
        try:
            if self._annotator.plane().key != plane.key:
                return  # prompts belong to the plane on display, and these are of another one
        except NoPlane:
            return
        here = self._saved(plane)
        if here is not None:
            row, column = np.rint(points).astype(int).T
            points = points[here[row, column] == 0]
        image = self._annotator.image
        polygons = () if image is None else outline_of(image, plane)
        if polygons:
            points = points[lie_in(points, polygons)]
        if not len(points):
            self._say("No other object like this one was found.")
            return
        self._annotator.take([(float(y), float(x), True) for y, x in (*own, *points.tolist())], [], each=True)
