"""Splitting an object at clicks: the model outlines each part, the object's own pixels are shared out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psygnal import Signal

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.objects.table import shown_place
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.viewer.clicks import Clicks
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.viewer.places import view
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from napari.layers import Labels

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.curating import Curating
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.viewer.places import Place
    from napari_lightsam.plugin.worker import Worker


@dataclass(frozen=True, slots=True)
class _Job:
    """What is split: an object of a layer on a plane, and the clicks in it, in pixels of that plane."""

    layer: Hashable
    place: Place
    label: int
    points: tuple[tuple[float, float], ...]

    @property
    def prompts(self) -> tuple[ObjectPrompt, ...]:
        """One for each part: its own click, and those of the others as what it is not."""
        return tuple(
            ObjectPrompt(
                ((*point, True), *((*other, False) for j, other in enumerate(self.points) if j != i))
            )
            for i, point in enumerate(self.points)
        )


class Splitting:
    """Splits the selected object of a `Curating`.

    Parameters
    ----------
    curating, worker, inference
        Of the controller.
    ask
        Returns the plane on display and the settings; raises `NoPlane`.

    Attributes
    ----------
    changed
        Signal: a split began, ended or has other clicks.
    label
        The object that is being split, or None.
    """

    changed = Signal()

    def __init__(
        self,
        curating: Curating,
        worker: Worker,
        inference: Inference,
        ask: Callable[[], tuple[PlaneRequest, Settings]],
    ) -> None:
        self._curating, self._worker, self._inference, self._ask = curating, worker, inference, ask
        self.label: int | None = None
        self._layer: Hashable | None = None
        keys = {"C": self.apply, "Shift-C": self.give_up}
        self.clicks = Clicks(curating.viewer, curating.owner, Role.SPLIT, "one click in each part", keys)
        self.clicks.changed.connect(self.changed.emit)
        curating.viewer.layers.events.removed.connect(self._on_removed)

    @property
    def is_active(self) -> bool:
        """The user is clicking the parts of an object."""
        return self.label is not None and self.clicks.layer is not None

    def start(self) -> None:
        """Let the user click once in each part of the current object."""
        labels, selected = self._curating.layer, self._curating.selected
        if labels is None or not selected:
            report_info("Select the object to split first.")
            return
        self.label, self._layer = selected[0], labels.unique_id
        layers.rely_on(labels)
        self.clicks.start(labels)
        self._curating.say(f"Click once in each part of object {self.label}, then press C or 'Split now'.")
        self.changed.emit()

    def stop(self) -> None:
        """Split nothing; the clicks go."""
        self._worker.cancel(Lane.EDIT)
        self.label = None
        self.clicks.stop()
        self.changed.emit()

    def give_up(self) -> None:
        """Split nothing, and say so."""
        label, active = self.label, self.is_active
        self.stop()
        if active:
            self._curating.say(f"Object {label} was not split.")

    def apply(self) -> None:
        """Split the object at what was clicked, with the model's help where it can look at the image."""
        labels = self._curating.layer
        if self.label is None or labels is None:
            return
        if labels.unique_id != self._layer:
            self.stop()
            report_info("Another Labels layer was chosen; select the object to split there.")
            return
        place = shown_place(labels, self._curating.viewer)
        if place.count(None) != 2:
            report_info("Switch napari to the 2-D view: objects are split in one plane.")
            return
        free = [axis for axis, step in enumerate(place) if step is None]
        fixed = [(axis, step) for axis, step in enumerate(place) if step is not None]
        here = [at for at in self.clicks.places if all(abs(at[axis] - step) <= 0.5 for axis, step in fixed)]
        points = tuple((at[free[0]], at[free[1]]) for at in here)
        if len(points) < 2:
            report_info(f"Click at least two places inside object {self.label}, one in each part.")
            return
        job = _Job(labels.unique_id, place, self.label, points)
        asked = self._ask_for(labels, place)
        if asked is None:
            self._finish(job, ())
            return
        self._curating.say("Finding the parts ...")
        request, settings = asked
        self._worker.submit(
            Lane.EDIT,
            self._inference.predict(request, settings, job.prompts),
            lambda found: self._finish(job, found, settings.model),
            report_error,
        )

    def _ask_for(self, labels: Labels, place: Place) -> tuple[PlaneRequest, Settings] | None:
        """Return what to ask the model; None when the layer does not lie on the image, or it is not here."""
        try:
            request, settings = self._ask()
        except NoPlane:
            return None
        image = layers.by_id(self._curating.viewer, request.plane.layer)
        fits = image is not None and layers.place_in(labels, image, request.plane) == place
        return (request, settings) if fits and is_here(settings.model) else None

    def _finish(self, job: _Job, found: Sequence[tuple[Mask, ...]], model: str = "") -> None:
        labels = layers.by_id(self._curating.viewer, job.layer)
        if labels is None:
            self.stop()
            return
        shape = view(labels.data, job.place).shape
        best = [candidates[0] if candidates else None for candidates in found]
        outlines = [np.zeros(shape, bool) if mask is None else mask.to_array(shape) for mask in best]
        try:
            labels = self._curating.results.writable(labels)
            self._curating.use_layer(labels)
            first = self._curating.results.next_id(labels)
            edits = self._curating.repairs.edits(labels, job.place, [job.label])
            done = edits.split(job.label, job.points, first, outlines)
        except LightSamError as error:
            report_error(error)  # the clicks stay, to be moved
            return
        if len(done.ids) == len(job.points):
            for part, prompt, mask in zip(done.ids, job.prompts, best or [None] * len(done.ids), strict=True):
                area = int(np.count_nonzero(view(labels.data, job.place) == part))
                score = None if mask is None else float(mask.iou)
                how = Made("prompt", score, prompt, area=area, plane=job.place, model=model, shaped=True)
                note_made(labels, part, how)
        self.stop()
        sentence = f"Object {job.label} split into {', '.join(map(str, done.ids))}."
        self._curating.repairs.finish_edit(done, sentence, [job.label])

    def _on_removed(self, event: object) -> None:
        if self.label is not None and self.clicks.layer is None:
            self.label = None
            self.changed.emit()

    def close(self) -> None:
        """Let go of the viewer."""
        self.stop()
        self._curating.viewer.layers.events.removed.disconnect(self._on_removed)
