"""The worker's side: loaded models, remembered embeddings, and the three kinds of work."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_lightsam.engine.alike import batches, predict_alike
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.plugin.everything.outlines import outlined
from napari_lightsam.plugin.everything.result import (
    Choice,
    Job,
    Result,
    choose_again,
    inside_only,
    known_balances,
    measured,
    numbered,
)
from napari_lightsam.plugin.loading import load
from napari_lightsam.plugin.viewer.layers import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_lightsam.batch import SlideReport
    from napari_lightsam.engine.assemble import Segmentation
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.propagate import Direction, Propagation
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.engine.stack import StackSegmentation
    from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.whole import WholePlane

_EMBEDDINGS = 3  # some 10 to 100 MB each
_ANSWERS = 200
_ANSWER_BYTES = 256 * 2**20


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
        self._is_warm = False

    def _load(self, model: str) -> Work[Segmenter]:
        if model not in self._segmenters:
            yield Progress("loading the model", 0, 0)
            # torch and timm take seconds to import; only this thread ever does
            self._segmenters[model] = load(model)
        return self._segmenters[model]

    def loaded(self, model: str) -> Segmenter | None:
        """Return a model that was loaded already; may be asked from any thread."""
        return self._segmenters.get(model)

    def weights_hash(self, model: str) -> str:
        """Return the SHA-256 of a loaded model's weights, else ""; may be asked from any thread."""
        segmenter = self.loaded(model)
        return "" if segmenter is None else segmenter.weights_hash

    def is_embedded(self, request: PlaneRequest, settings: Settings) -> bool:
        """Tell whether prompts on a plane can be answered at once; may be asked from any thread."""
        return (request.key, settings) in self._embeddings

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
        if not self._is_warm:
            yield Progress("preparing the image", 1, 2)  # a click goes first
            warm_up()
            self._is_warm = True
        return Ready(segmenter.spec.title, segmenter.device, segmenter.precision, segmenter.device_reason)

    def prepare_ahead(self, read: Callable[[], tuple[Any, bool] | None], settings: Settings) -> Work[None]:
        """Embed the image that will be opened next: the store on disk then answers for it.

        Parameters
        ----------
        read
            Returns the plane and whether it is colour, or None where that cannot be told before opening it.
        settings
            Model and object size.
        """
        segmenter = yield from self._load(settings.model)
        yield Progress("preparing the next image", 0, 1)
        found = read()
        if found is not None:
            segmenter.embed(found[0], object_size=settings.object_size, rgb=found[1])

    def predict(
        self, request: PlaneRequest, settings: Settings, objects: Sequence[ObjectPrompt]
    ) -> Work[tuple[tuple[Mask, ...], ...]]:
        """Return the candidates of every object, best first; objects answered before are remembered."""
        segmenter, embedding = yield from self._embed(request, settings)
        keys = {prompt: (request.key, settings, prompt) for prompt in objects}
        known = {prompt: self._answers[key] for prompt, key in keys.items() if key in self._answers}
        for batch in batches([prompt for prompt in keys if prompt not in known]):
            yield Progress("finding the outline", len(known), len(keys))
            known.update(
                zip(batch, predict_alike(segmenter, embedding, batch, settings.object_size), strict=True)
            )
        for prompt, key in keys.items():
            self._answers[key] = known[prompt]
            self._answers.move_to_end(key)
        self._forget_answers(2 * len(objects))
        return tuple(known[prompt] for prompt in objects)

    def _forget_answers(self, least: int) -> None:
        """Forget what was asked longest ago: outlines of large objects are large, too."""
        held = sum(map(_n_bytes, self._answers.values()))
        while len(self._answers) > max(_ANSWERS, least) or (held > _ANSWER_BYTES and len(self._answers) > 1):
            _, answer = self._answers.popitem(last=False)
            held -= _n_bytes(answer)

    def similar(self, request: PlaneRequest, settings: Settings, mask: Mask) -> Work[NDArray[np.float64]]:
        """Return points (N, 2) on objects that look like one, most similar first."""
        segmenter, embedding = yield from self._embed(request, settings)
        return (yield from look_alike(segmenter, embedding, mask))

    def everything(self, request: PlaneRequest, settings: Settings, job: Job) -> Work[Result]:
        """Segment every object of a plane or a part of it, exactly as `segment_everything` does."""
        segmenter = yield from self._load(settings.model)
        work = segmenter.everything(
            request.refer(job.region), job.config, rgb=request.rgb, proposals=job.proposals, stop=job.stop
        )
        found = yield from outlined(work, job.region, job.inside)
        objects = inside_only(numbered(found.labels, found.scores, found.ids), job.inside)
        balances = known_balances(found, found.config)
        return Result(
            found, objects, found.config.mode, segmenter.spec.name, segmenter.weights_hash, balances=balances
        )

    def stack(self, request: PlaneRequest, settings: Settings, job: Job) -> Work[Result]:
        """Segment all planes slice by slice, exactly as `segment_stack` does."""
        segmenter = yield from self._load(settings.model)
        assert job.axis is not None
        array, axis = request.refer_stack(job.axis)
        work = segment_planes(
            array,
            axis=axis,
            config=job.config,
            model=segmenter,
            link=job.link,
            rgb=request.rgb,
            stop=job.stop,
        )
        found = yield from outlined(work, job.region, stack=True)
        scores = found.table["score"].to_numpy() if len(found.table) else np.zeros(0)
        table = found.table if job.link else None
        objects = measured(found.labels, np.unique(found.table["label"].to_numpy(np.intp)), scores)
        return Result(found, objects, found.config.mode, segmenter.spec.name, segmenter.weights_hash, table)

    def follow(
        self,
        request: PlaneRequest,
        image_axis: int,
        start: int,
        mask: Mask,
        settings: Settings,
        direction: Direction,
        within: tuple[int, int],
        stop: Callable[[], bool],
    ) -> Work[Propagation]:
        """Follow an object through a stack, exactly as `propagate` does."""
        segmenter = yield from self._load(settings.model)
        stack, axis = request.refer_stack(image_axis)
        return (
            yield from follow(
                stack,
                start,
                mask,
                axis=axis,
                direction=direction,
                within=within,
                model=segmenter,
                object_size=settings.object_size,
                rgb=request.rgb,
                stop=stop,
            )
        )

    def whole(
        self,
        plane: WholePlane,
        settings: Settings,
        config: EverythingConfig,
        path: Path,
        stop: Callable[[], bool],
    ) -> Work[tuple[SlideReport | None, NDArray[Any] | None]]:
        """Segment a plane that is larger than memory into a label image on disk.

        Returns
        -------
        report : SlideReport or None
            None when it was stopped.
        small : array or None
            What was done until then, `thinned`; None when it was not stopped, or before anything was done.
        """
        from napari_lightsam.plugin.whole import segment_whole, sized, thinned

        segmenter = yield from self._load(settings.model)
        config = sized(config, settings.object_size)
        report = yield from segment_whole(segmenter, plane, config, path, stop)
        if report is not None or not path.exists():
            return report, None
        return None, (yield from thinned(path))

    def filter(
        self,
        segmentation: Segmentation,
        config: EverythingConfig,
        inside: NDArray[np.bool_] | None = None,
        balances: NDArray[np.float64] | None = None,
    ) -> Work[Choice]:
        """Choose again among the candidates of a run; `balances` where they are the same as before."""
        yield Progress("choosing objects", 0, 1)
        objects = inside_only(choose_again(segmentation, config), inside)
        return Choice(objects, known_balances(segmentation, config) if balances is None else balances)


def follow(*args: Any, **keywords: Any) -> Work[Propagation]:
    """Call `propagate`, importing it in the worker."""
    from napari_lightsam.engine.propagate import propagate

    return propagate(*args, **keywords)


def segment_planes(*args: Any, **keywords: Any) -> Work[StackSegmentation]:
    """Call `segment_stack`, importing it in the worker."""
    from napari_lightsam.engine.stack import segment_stack

    return segment_stack(*args, **keywords)


def look_alike(segmenter: Segmenter, embedding: Embedding, mask: Mask) -> Work[NDArray[np.float64]]:
    """Call `find_similar`, importing it in the worker."""
    from napari_lightsam.engine.similar import find_similar

    return find_similar(segmenter, embedding, mask)


def _n_bytes(answer: tuple[Mask, ...]) -> int:
    return sum(mask.crop.nbytes for mask in answer)
