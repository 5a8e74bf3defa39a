"""From a folder of labelled images to a model file: the whole recipe of `lightsam train`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.registry import MODELS, find_model, known_models
from napari_lightsam.engine.runtime import choose_device
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.model.spec import TINY_VIT_WIDTHS, ObjectFrame
from napari_lightsam.train.config import TrainConfig
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.datasets import find_labelled
from napari_lightsam.train.export import export_weights
from napari_lightsam.train.images import TrainingImage, image_weights, load_training_images
from napari_lightsam.train.journal import Journal, has_tensorboard
from napari_lightsam.train.loop import Trained, start_model, train
from napari_lightsam.train.storage import ArrayStore

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import Tensor

    from napari_lightsam.train.crops import Batch

_ABOUT = "run.json"
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
    device: str = "auto",
    tensorboard: bool | None = None,
) -> Generator[Progress, None, Trained]:
    """Train on the training split of a folder, check on its tuning split, and write the model.

    Parameters
    ----------
    data
        A set of labelled images or a folder of sets; see `datasets`.
    folder
        Gets `log.csv`, `checks.csv`, `pictures`, the state that a later call continues from, and the trained
        model `model.safetensors`, which `load_segmenter` takes by its path.
    config
        Settings; None means the defaults.
    start
        Model or checkpoint to start from; None starts from random weights.
    sets
        How often each set is drawn, by name; 1 unless given.
    device
        `auto` (an NVIDIA or ROCm GPU where there is one), `cpu`, `cuda`, `cuda:N` or `mps`.
    tensorboard
        Also write events for TensorBoard; None: where it is installed.

    Raises
    ------
    FileError
        There are no labelled images in one of the two splits, or the folder holds another run.
    ConfigError
        `sets` names a set that is not there, `start` is no model that follows object size, or TensorBoard is
        asked for and not installed.
    TrainError
        The loss is no number any more.
    """
    config = config or TrainConfig()
    tensors = None if start is None else start_tensors(start)
    journal = Journal(folder, tensorboard=has_tensorboard() if tensorboard is None else tensorboard)
    place = training_device(device)
    claim = {
        "data": str(Path(data).resolve()),
        "start": None if start is None else str(start),
        "sets": dict(sorted((sets or {}).items())),
    }
    claim_folder(Path(folder), "training run", claim)  # once nothing more is refused
    with ArrayStore(config.memory * 1e9, folder) as store:
        crops, checks = yield from load_crops(data, config, sets, store=store)
        model = start_model(tensors, config.seed)
        trained = yield from train(
            model, crops, checks, config, folder, workers=config.workers, journal=journal, device=place
        )
    about = {
        "title": f"{Path(folder).resolve().name}, trained by you",
        "trained_on": f"labelled images of your own ({Path(data).resolve().name})",
        "not_trained_on": "other images",
    }
    export_weights(trained.checkpoint, Path(folder) / "model.safetensors", metadata=about)
    return trained


def claim_folder(folder: Path, kind: str, about: Mapping[str, Any]) -> None:
    """Write down what a folder is for, or make sure that it is for the same.

    Raises
    ------
    FileError
        The folder holds something else, or a file that cannot be read.
    """
    path = folder / _ABOUT
    wanted = {"kind": kind, **about}
    if not os.path.exists(path):
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            part.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}); choose another folder.") from error
    if found != wanted:
        other = found.get("kind", "run") if isinstance(found, dict) else "run"
        raise FileError(
            f"{folder} holds another {other}: {found}. Give the same settings to go on with it, or another "
            "folder to start anew."
        )


def training_device(device: str) -> str:
    """Say where to train: as `choose_device`, but `auto` stays on the CPU where there is no CUDA or ROCm."""
    return "cpu" if device == "auto" and not torch.cuda.is_available() else choose_device(device).name


def load_crops(
    data: str | Path,
    config: TrainConfig,
    sets: Mapping[str, float] | None = None,
    *,
    shapes: Sequence[tuple[int, int]] | None = None,
    limit: int | None = None,
    checks: int | None = None,
    store: ArrayStore | None = None,
) -> Generator[Progress, None, tuple[CropMaker, list[Batch]]]:
    """Read a folder's training and tuning splits; returns what makes crops, and fixed batches to check on.

    Parameters
    ----------
    data, config, sets
        As for `train_model`.
    shapes
        (crops, side) of the training batches; None for the usual ones.
    limit
        At most this many images of each set and split.
    checks
        Batches to check on; None for the usual number.
    store
        Where pixels are kept; None keeps all of them in memory.
    """
    yield Progress("reading the images", 0, 2)
    images = load_training_images(find_labelled(data, split="training", limit=limit), store)
    yield Progress("reading the images", 1, 2)
    held_out = load_training_images(find_labelled(data, split="tuning", limit=limit), store)
    _check_sets(sets, images)
    frame = _frame()
    sizes = (config.smallest, config.largest)
    crops = CropMaker(images, frame, config.seed, image_weights(images, sets), sizes, shapes=shapes)
    fixed = CropMaker(
        held_out, frame, _CHECK_SEED, image_weights(held_out, sets), _CHECK_SIZES, augment=False
    )
    return crops, [fixed[index] for index in range(_CHECK_BATCHES if checks is None else checks)]


def _frame() -> ObjectFrame:
    frame = MODELS["lightsam"].spec.frame
    assert isinstance(frame, ObjectFrame)
    return frame


def start_tensors(start: str | Path) -> Mapping[str, Tensor]:
    """Read a model that can be trained on, by its name or path.

    Raises
    ------
    ConfigError
        Its encoder is not a TinyViT.
    FileError
        It is not on this computer.
    """
    if str(start) in known_models():
        entry = find_model(str(start))
        if entry.spec.architecture not in TINY_VIT_WIDTHS:
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
    if not all(0 <= weight < float("inf") for weight in (sets or {}).values()):
        raise ConfigError(f"Weights of sets are 0 or more, and finite; got {dict(sets or {})}.")
