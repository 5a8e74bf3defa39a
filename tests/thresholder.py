"""A model for tests of the plumbing, and images for it; in a module that does not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from skimage.measure import label as label_objects

from napari_lightsam.engine.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from napari_lightsam.engine.config import EverythingConfig


def discs(radius: int = 10, n: int = 3) -> np.ndarray:
    """Draw n x n bright discs of one radius."""
    y, x = np.mgrid[: n * 50, : n * 50]
    inside = (y % 50 - 25) ** 2 + (x % 50 - 25) ** 2 <= radius**2
    return np.where(inside, 1000, 0).astype(np.uint16)


def write(path: Path, data: np.ndarray | None = None, **options: object) -> Path:
    """Write an image, of discs by default, and the folders it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, discs() if data is None else data, **options)
    return path


@dataclass
class Thresholder:
    """Stands in for a model where only the plumbing is tested: bright regions are objects."""

    spec = SimpleNamespace(name="thresholder")
    source = "thresholder"
    weights_hash: str = "00"
    device = "cpu"
    precision = "float32"
    runtime_name = "torch"
    device_reason = "cpu because it is a test."
    size: float | None = 20.0
    stop: Exception | None = None
    calls: int = 0
    looks: int = 0

    def everything(
        self, plane: np.ndarray, config: EverythingConfig, *, rgb: bool
    ) -> Generator[Progress, None, SimpleNamespace]:
        self.calls += 1
        self.rgb = rgb
        self.used = config.object_size
        yield Progress("segmenting", 0, 1)
        if self.stop is not None:
            raise self.stop
        grey = plane.mean(axis=-1) if plane.ndim == 3 else plane
        labels = label_objects(grey > max(float(grey.mean()) * 1.5, 5)).astype(np.int32)
        scores = np.full(labels.max(), 0.9, np.float32)
        return SimpleNamespace(labels=labels, scores=scores, object_size=config.object_size, advice="")

    def estimate_object_size(self, plane: np.ndarray, *, rgb: bool) -> float | None:
        self.looks += 1
        return self.size if plane.max() > 0 else None
