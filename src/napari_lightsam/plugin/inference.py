"""The worker's side: loaded models, remembered embeddings, and the three kinds of work."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.plugin.loading import load

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari_lightsam.engine.everything import Segmentation
    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.plugin.prompts import ObjectPrompt
    from napari_lightsam.plugin.request import PlaneRequest

_EMBEDDINGS = 3  # some 10 to 100 MB each
_ANSWERS = 200


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides an answer besides image and prompts.

    Attributes
    ----------
    model
        Name in the registry, or path of a checkpoint.
    object_size
        Typical diameter in pixels, or None.
    """

    model: str = "lightsam"
    object_size: float | None = None


class Ready(NamedTuple):
    """A plane is embedded; what with and where, for the status line."""

    model: str
    device: str
    precision: str
    reason: str


class Inference:
    """Models and embeddings of one widget. All methods run on the worker's thread, so none takes a lock."""

    def __init__(self) -> None:
        self._segmenters: dict[str, Segmenter] = {}
        self._embeddings: OrderedDict[Hashable, Embedding] = OrderedDict()
        self._answers: OrderedDict[Hashable, tuple[Mask, ...]] = OrderedDict()

    def _load(self, model: str) -> Work[Segmenter]:
        if model not in self._segmenters:
            yield Progress("loading the model", 0, 0)
            # torch and timm take seconds to import; only this thread ever does
            self._segmenters[model] = load(model)
        return self._segmenters[model]

    def _embed(self, request: PlaneRequest, settings: Settings) -> Work[tuple[Segmenter, Embedding]]:
        segmenter = yield from self._load(settings.model)
        key = (request.key, settings)
        if key not in self._embeddings:
            yield Progress("preparing the image", 0, 0)
            image = request.read()
            while len(self._embeddings) >= _EMBEDDINGS:
                self._embeddings.popitem(last=False)
            self._embeddings[key] = segmenter.embed(image, object_size=settings.object_size, rgb=request.rgb)
        self._embeddings.move_to_end(key)
        return segmenter, self._embeddings[key]

    def prepare(self, request: PlaneRequest, settings: Settings) -> Work[Ready]:
        """Load the model and embed a plane, so that the first click is answered at once."""
        segmenter, embedding = yield from self._embed(request, settings)
        yield Progress("preparing the image", 1, 2)
        # A click encodes the scales that its object may have; this one encodes them before the user clicks.
        segmenter.predict(embedding, points=[(embedding.shape[0] // 2, embedding.shape[1] // 2)])
        return Ready(segmenter.spec.title, segmenter.device, segmenter.precision, segmenter.device_reason)

    def predict(
        self, request: PlaneRequest, settings: Settings, objects: Sequence[ObjectPrompt]
    ) -> Work[tuple[tuple[Mask, ...], ...]]:
        """Return the candidates of every object, best first; objects answered before are remembered."""
        segmenter, embedding = yield from self._embed(request, settings)
        found = []
        for number, prompt in enumerate(objects):
            key = (request.key, settings, prompt)
            if key not in self._answers:
                yield Progress("finding the outline", number, len(objects))
                self._answers[key] = _predict_one(segmenter, embedding, prompt)
                while len(self._answers) > _ANSWERS:
                    self._answers.popitem(last=False)
            found.append(self._answers[key])
        return tuple(found)

    def everything(self, request: PlaneRequest, settings: Settings) -> Work[Result]:
        """Segment every object of a plane, exactly as `segment_everything` does."""
        segmenter = yield from self._load(settings.model)
        from napari_lightsam.engine.config import EverythingConfig

        config = EverythingConfig(object_size=settings.object_size)
        segmentation = yield from segmenter.everything(request.read(), config, rgb=request.rgb)
        return Result(segmentation, segmenter.spec.name, segmenter.weights_hash)


class Result(NamedTuple):
    """A finished run and what made it."""

    segmentation: Segmentation
    model: str
    weights_hash: str


def _predict_one(segmenter: Segmenter, embedding: Embedding, prompt: ObjectPrompt) -> tuple[Mask, ...]:
    points: dict[str, Any] = {}
    if prompt.points:
        points = {
            "points": [(y, x) for y, x, _ in prompt.points],
            "point_labels": [int(positive) for _, _, positive in prompt.points],
        }
    masks = segmenter.predict(embedding, boxes=prompt.box, **points)
    cleaned = (mask.cleaned(keep=prompt.first_positive) for mask in masks.candidates(0))
    # the logits would keep the whole decoder answer in memory
    return tuple(replace(mask, logits=None) for mask in cleaned if mask.area)
