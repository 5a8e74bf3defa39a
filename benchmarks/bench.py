"""The contestants of a run: the embedded model in two precisions, and the plain baseline."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.segmenter import load_segmenter
from napari_lightsam.train.metrics import match, mean_segmentation_accuracy

from . import scenes
from .baseline import PlainGenerator, published_network
from .report import Quality
from .timing import Measured, Timing, interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    import torch

    from napari_lightsam.engine.everything import Segmentation
    from napari_lightsam.engine.segmenter import Segmenter

    from .scenes import Scene


def load(precision: str, runtime: str | None = None) -> Segmenter:
    """Load the embedded model on the CPU, with a runtime if one is named."""
    options: dict[str, Any] = {"device": "cpu", "precision": precision}
    if runtime is not None:
        options["runtime"] = runtime
    return load_segmenter("lightsam", **options)


def segment(segmenter: Segmenter, scene: Scene, *, estimate: bool = False, **settings: Any) -> Segmentation:
    """Segment everything in a scene, nothing cached; the object size is given unless it is estimated."""
    size = None if estimate else scene.object_size
    return drain(segmenter.everything(scene.image, EverythingConfig(object_size=size, **settings)))


def judge(scene: Scene, labels: np.ndarray[Any, np.dtype[np.int32]]) -> Quality:
    """Compare labels with the scene's ground truth."""
    matchings = match(scene.labels, labels)
    return Quality(
        matchings[0].average_precision, mean_segmentation_accuracy(matchings), int(labels.max(initial=0))
    )


class Bench:
    """One run: the contestants, and the baseline's timings so far.

    Parameters
    ----------
    repeat
        Samples of each job.
    runtime
        Passed to `load_segmenter`; None for its default.
    """

    def __init__(self, repeat: int, runtime: str | None = None) -> None:
        self.repeat = repeat
        self.runtime = runtime
        self.plain: dict[str, Timing] = {}

    @cached_property
    def segmenters(self) -> dict[str, Segmenter]:
        """The CPU's best precision, and float32."""
        return {"best": load("auto", self.runtime), "float32": load("float32", self.runtime)}

    @cached_property
    def generator(self) -> PlainGenerator:
        """The plain baseline."""
        return PlainGenerator(published_network())

    @cached_property
    def plain_tokens(self) -> torch.Tensor:
        """The baseline's embedding of the scene of 1024 pixels; batches cost the same for any image."""
        return self.generator.encode(self.generator.prepare(scenes.cells_1024().image))

    def plain_jobs(self, scene: Scene) -> dict[str, Callable[[], object]]:
        """Return the steps of the baseline's everything mode, but those already timed in this run."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        points = self.generator.lattice(shape)[: self.generator.settings.batch]
        frame = self.generator.prepare(scenes.cells_1024().image)
        jobs: dict[str, Callable[[], object]] = {
            "encoder": lambda: self.generator.encode(frame),
            f"batch {shape}": lambda: self.generator.batch(self.plain_tokens, shape, points),
        }
        return {name: job for name, job in jobs.items() if name not in self.plain}

    def plain_everything(self, scene: Scene) -> Timing:
        """Return the time of all batches, from one of them."""
        shape = (scene.image.shape[0], scene.image.shape[1])
        n = self.generator.settings.batches
        return self.plain["encoder"] + self.plain[f"batch {shape}"].times(n)

    def measure(
        self, jobs: Mapping[str, Callable[[], Any]], plain: Mapping[str, Callable[[], object]] | None = None
    ) -> dict[str, Measured]:
        """Time our jobs, with those of the baseline between them, which are remembered."""
        measured = interleave({**(plain or {}), **jobs}, self.repeat)
        self.plain |= {name: measured[name].timing for name in plain or {}}
        return measured

    def both(self, job: Callable[[Segmenter], Any]) -> dict[str, Callable[[], Any]]:
        """Return a job for each column."""
        return {name: partial(job, s) for name, s in self.segmenters.items()}
