"""From a folder of labelled images to a model file: the whole recipe of `lightsam train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.registry import MODELS, find_model
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.config import TrainConfig
from napari_lightsam.train.crops import CropMaker, TrainingImage, image_weights, load_training_images
from napari_lightsam.train.datasets import find_labelled
from napari_lightsam.train.export import export_weights
from napari_lightsam.train.loop import Trained, start_model, train

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from torch import Tensor

_CHECK_SIZES = (20.0, 64.0)  # frame pixels
_CHECK_BATCHES = 14
_CHECK_SEED = 77


def train_model(
    data: str | Path,
    folder: str | Path,
    config: TrainConfig | None = None,
    *,
    start: str | Path | None = "lightsam",
    sets: Mapping[str, float] | None = None,
) -> Generator[Progress, None, Trained]:
    """Train on the training split of a folder, check on its tuning split, and write the model.

    Parameters
    ----------
    data
        A set of labelled images or a folder of sets; see `datasets`.
    folder
        Gets `log.csv`, `checks.csv`, the state that a later call continues from, and the trained model
        `model.safetensors`, which `load_segmenter` takes by its path.
    config
        Settings; None means the defaults.
    start
        Model or checkpoint to start from; None starts from random weights.
    sets
        How often each set is drawn, by name; 1 unless given.

    Raises
    ------
    FileError
        There are no labelled images in one of the two splits.
    ConfigError
        `sets` names a set that is not there, or `start` is no model that follows object size.
    TrainError
        The loss is no number any more.
    """
    config = config or TrainConfig()
    yield Progress("reading the images", 0, 2)
    images = load_training_images(find_labelled(data, split="training"))
    yield Progress("reading the images", 1, 2)
    held_out = load_training_images(find_labelled(data, split="tuning"))
    _check_sets(sets, images)
    frame = _frame()
    crops = CropMaker(
        images, frame, config.seed, image_weights(images, sets), (config.smallest, config.largest)
    )
    fixed = CropMaker(
        held_out, frame, _CHECK_SEED, image_weights(held_out, sets), _CHECK_SIZES, augment=False
    )
    model = start_model(None if start is None else _tensors(start), config.seed)
    checks = [fixed[index] for index in range(_CHECK_BATCHES)]
    trained = yield from train(model, crops, checks, config, folder)
    export_weights(trained.checkpoint, Path(folder) / "model.safetensors")
    return trained


def _frame() -> ObjectFrame:
    frame = MODELS["lightsam"].spec.frame
    assert isinstance(frame, ObjectFrame)
    return frame


def _tensors(start: str | Path) -> Mapping[str, Tensor]:
    if str(start) in MODELS:
        entry = find_model(str(start))
        if entry.spec.architecture != "vit_t":
            raise ConfigError(f"Only models with a TinyViT encoder can be trained on; {start} has another.")
        paths = find_weights(str(start))
        if paths is None:
            raise FileError(f"{start} is not on this computer; run `lightsam models download {start}` first.")
        return read_checkpoint(paths[0]).tensors
    return read_checkpoint(Path(start)).tensors


def _check_sets(sets: Mapping[str, float] | None, images: list[TrainingImage]) -> None:
    known = sorted({image.dataset for image in images})
    unknown = sorted(set(sets or {}) - set(known))
    if unknown:
        raise ConfigError(f"No set is called {', '.join(unknown)}; the data has {', '.join(known)}.")
    if any(weight < 0 for weight in (sets or {}).values()):
        raise ConfigError(f"Weights of sets are 0 or more; got {dict(sets or {})}.")
