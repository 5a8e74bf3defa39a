"""The worker's side: loaded models, remembered embeddings, and the three kinds of work."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.plugin.loading import load

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from napari_lightsam.engine.assemble import Segmentation
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.engine.stack import StackSegmentation
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

    def forget(self, model: str) -> None:
        """Let go of a model and all that it answered: its file was replaced."""
        self._segmenters.pop(model, None)
        for key in [key for key in self._embeddings if key[1].model == model]:  # type: ignore[index]
            del self._embeddings[key]
        for key in [key for key in self._answers if key[1].model == model]:  # type: ignore[index]
            del self._answers[key]

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

    def everything(self, request: PlaneRequest, settings: Settings, job: Job) -> Work[Result]:
        """Segment every object of a plane or a part of it, exactly as `segment_everything` does."""
        segmenter = yield from self._load(settings.model)
        found = yield from segmenter.everything(
            request.refer(job.region), job.config, rgb=request.rgb, proposals=job.proposals, stop=job.stop
        )
        objects = _objects(found.labels, found.scores, found.ids)
        return Result(found, objects, found.config.mode, segmenter.spec.name, segmenter.weights_hash)

    def stack(self, request: PlaneRequest, settings: Settings, job: Job) -> Work[Result]:
        """Segment all planes slice by slice, exactly as `segment_stack` does."""
        segmenter = yield from self._load(settings.model)
        assert job.axis is not None
        array, axis = request.refer_stack(job.axis)
        found = yield from segment_planes(
            array,
            axis=axis,
            config=job.config,
            model=segmenter,
            link=job.link,
            rgb=request.rgb,
            stop=job.stop,
        )
        scores = found.table["score"].to_numpy() if len(found.table) else np.zeros(0)
        table = found.table if job.link else None
        objects = Objects(found.labels, np.unique(found.table["label"].to_numpy(np.intp)), scores)
        return Result(found, objects, found.config.mode, segmenter.spec.name, segmenter.weights_hash, table)

    def filter(self, segmentation: Segmentation, config: EverythingConfig) -> Work[Objects]:
        """Choose again among the candidates of a run."""
        yield Progress("choosing objects", 0, 1)
        return choose_again(segmentation, config)


class Job(NamedTuple):
    """What is to be done in one run.

    Attributes
    ----------
    config
        Settings of the engine.
    region
        (y0, x0, y1, x1) of the plane.
    proposals
        Where objects are, in pixels of the region: labels, points or boxes; None: the model looks.
    stop
        Asked between steps: end now, with what was found.
    axis
        Data axis of a stack whose planes are all segmented, or None.
    link
        Objects go on from plane to plane.
    """

    config: EverythingConfig
    region: tuple[int, int, int, int]
    proposals: Any
    stop: Callable[[], bool]
    axis: int | None = None
    link: bool = False


class Objects(NamedTuple):
    """What a run found, or what was chosen of it.

    Attributes
    ----------
    labels
        int32 (h, w), or of a stack.
    ids
        Labels that occur.
    scores
        Predicted IoU of each object, by rising label; time points are numbered by themselves, so that there
        are more scores than labels.
    """

    labels: NDArray[np.int32]
    ids: NDArray[np.intp]
    scores: NDArray[Any]


class Result(NamedTuple):
    """A finished run and what made it; `table` has a row for each linked object."""

    found: Segmentation | StackSegmentation
    objects: Objects
    mode: str
    model: str
    weights_hash: str
    table: pd.DataFrame | None = None


def segment_planes(*args: Any, **keywords: Any) -> Work[StackSegmentation]:
    """Call `segment_stack`, importing it in the worker."""
    from napari_lightsam.engine.stack import segment_stack

    return segment_stack(*args, **keywords)


def choose_again(segmentation: Segmentation, config: EverythingConfig) -> Objects:
    """Choose among the candidates of a run with other settings; milliseconds."""
    from napari_lightsam.engine.assemble import to_labels
    from napari_lightsam.engine.kept import keep_ids

    if segmentation.ids is None:
        return _objects(*to_labels(segmentation.candidates, config))
    ids = np.union1d(segmentation.ids, segmentation.missing).astype(np.intp)
    labels, scores, found, _ = keep_ids(segmentation.candidates, config, ids)
    return Objects(labels, found, scores)


def _objects(labels: NDArray[np.int32], scores: NDArray[Any], ids: NDArray[np.intp] | None = None) -> Objects:
    return Objects(labels, np.arange(1, len(scores) + 1) if ids is None else ids, scores)


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
