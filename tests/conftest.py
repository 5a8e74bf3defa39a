"""What all tests share: the embedded model, the bundled images with ground truth, development data."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tifffile
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # Qt aborts the process without a display

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers that each use all cores slow each other down

DATA = Path(__file__).parent / "data"
DEVELOPMENT = Path(__file__).parents[2] / "shared"

Sample = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep tests away from the models that a developer downloaded, quantised or taught."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTSAM_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("LIGHTSAM_LOCAL_MODELS", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(scope="session")
def segmenter():
    """The embedded model on the CPU by PyTorch in float32, loaded once."""
    from napari_lightsam import load_segmenter

    return load_segmenter("lightsam", device="cpu", precision="float32", runtime="torch")


@pytest.fixture(scope="module")
def kept_models():
    """Those of `loaded_once`."""
    return {}


@pytest.fixture
def loaded_once(kept_models, monkeypatch):
    """Models that are loaded alike are one and the same: loading takes two seconds, and has its own tests."""
    from napari_lightsam.engine import segmenter as engine

    load = engine.load_segmenter

    def load_segmenter(name="lightsam", *, cache=False, **how):
        if cache:
            return load(name, cache=cache, **how)
        wanted = {"device": "auto", "precision": "auto", "runtime": "auto", **how}
        key = str(name), *wanted.values()
        if key not in kept_models:
            kept_models[key] = load(name, **how)
        return kept_models[key]

    monkeypatch.setattr(engine, "load_segmenter", load_segmenter)


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Sample]:
    """Read a bundled image and its ground-truth labels by name."""
    from napari_lightsam.samples import read_sample

    def read(name: str) -> Sample:
        return read_sample(name), tifffile.imread(DATA / "samples" / f"{name}_labels.tif")

    return read


@pytest.fixture(scope="session")
def nuclei(sample) -> Sample:
    """A 256 x 256 crop of fluorescent nuclei (median diameter 26 px) and its ground truth."""
    image, labels = sample("nuclei_fluorescence")
    return image[120:376, 240:496].copy(), labels[120:376, 240:496].copy()


@pytest.fixture
def development() -> Callable[[str], Path]:
    """Return a file of the development data, or skip."""

    def find(name: str) -> Path:
        path = DEVELOPMENT / name
        if not path.exists():
            pytest.skip("development data not present")
        return path

    return find
