"""A model as the workers of a run load it: once in each process."""

from __future__ import annotations

import os
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.settings import load_model
from napari_lightsam.errors import WeightsError

if TYPE_CHECKING:
    from napari_lightsam.batch.settings import BatchSettings
    from napari_lightsam.engine.segmenter import Segmenter

_loaded: dict[WorkerModel, Segmenter] = {}
_runs: Counter[WorkerModel] = Counter()  # of this process that gave each of them
_loading = threading.Lock()


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """A model as every worker loads it, once per process.

    Attributes
    ----------
    name
        Of the registry, or path of a checkpoint.
    device, precision, runtime
        As in `load_segmenter`; never `auto`, so that all workers compute alike.
    weights_hash
        sha256 of the weights that a worker must find under that name.
    threads
        Threads that the model computes with in a worker; None: those of the process that it runs in.
    """

    name: str
    device: str
    precision: str
    runtime: str
    weights_hash: str
    threads: int | None = None

    @classmethod
    def of(cls, segmenter: Segmenter, threads: int | None = None) -> WorkerModel:
        """Describe a loaded model, and keep it for tasks of this process until it is forgotten."""
        model = cls._describe(segmenter, threads)
        with _loading:
            _loaded[model] = segmenter
            _runs[model] += 1
        return model

    @classmethod
    def find(cls, name: str, settings: BatchSettings, threads: int | None) -> WorkerModel:
        """Load a model as settings ask for it, in a worker; `load` then gives this one, here and elsewhere.

        Raises
        ------
        WeightsError, DeviceError, ConfigError
            As `load_segmenter`.
        """
        with _loading:
            _make_room()
            _limit(threads)
            segmenter = load_model(name, settings)
            model = cls._describe(segmenter, threads)
            _loaded[model] = segmenter
            return model

    @classmethod
    def _describe(cls, segmenter: Segmenter, threads: int | None) -> WorkerModel:
        return cls(
            segmenter.source,
            segmenter.device,
            segmenter.precision,
            segmenter.runtime_name,
            segmenter.weights_hash,
            threads,
        )

    def load(self) -> Segmenter:
        """Return the model of this process, loading it at the first call.

        Raises
        ------
        WeightsError
            If the name stands for other weights here, or none.
        DeviceError
            If the device or runtime is not available here.
        """
        with _loading:
            if self not in _loaded:
                _make_room()
                _loaded[self] = self._load()
            return _loaded[self]

    def forget(self) -> None:
        """Give up the model of a run that computes nothing here any more; `load` would load it again."""
        with _loading:
            _runs[self] -= 1
            if _runs[self] <= 0:
                del _runs[self]
                _loaded.pop(self, None)

    def _load(self) -> Segmenter:
        _limit(self.threads)
        from napari_lightsam.engine.segmenter import load_segmenter

        settings: dict[str, Any] = {"precision": self.precision, "runtime": self.runtime}
        segmenter = load_segmenter(self.name, device=self.device, **settings)
        if segmenter.weights_hash != self.weights_hash:
            raise WeightsError(
                f"A worker found other weights under the name {self.name!r} than this process did. Give the "
                "path of a checkpoint that all of them can read, or install the same version everywhere."
            )
        return segmenter


def _make_room() -> None:
    """Let go of the models of other runs: a worker serves one after the other."""
    for other in [one for one in _loaded if not _runs[one]]:
        del _loaded[other]


def _limit(threads: int | None) -> None:
    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)  # OpenVINO is compiled for so many, too
        torch.set_num_threads(threads)
