"""Distillation: a narrower student learns from a teacher, the whole recipe of `lightsam distil`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError
from napari_lightsam.model.build import build_sam, detect_architecture
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.config import DistilConfig, TrainConfig
from napari_lightsam.train.crops import Batch
from napari_lightsam.train.devices import own_random
from napari_lightsam.train.distil_losses import Decoupled, FullStage
from napari_lightsam.train.distil_teacher import EmbeddingCache, Teacher
from napari_lightsam.train.export import export_weights
from napari_lightsam.train.loop import Trained, start_model, train
from napari_lightsam.train.recipe import claim_folder, load_crops, start_tensors, training_device
from napari_lightsam.train.storage import ArrayStore

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import Tensor

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.engine.weights import LoadedModel
    from napari_lightsam.model.sam import Sam

_DECODER = ("prompt_encoder.", "mask_decoder.", "proposal_head.")
_ENCODER = ("image_encoder.",)


def distil_model(
    data: str | Path,
    folder: str | Path,
    config: TrainConfig | None = None,
    distillation: DistilConfig | None = None,
    *,
    teacher: str | Path = "lightsam",
    start: str | Path | None = None,
    sets: Mapping[str, float] | None = None,
    device: str = "auto",
) -> Generator[Progress, None, Trained]:
    """Distil a teacher into a student on the training split of a folder, and write the student.

    Parameters
    ----------
    data, folder, sets, device
        As for `train_model`; the folder also gets the teacher's embeddings, in `embeddings`.
    config
        Settings of the training; None means the defaults, batch norms learning.
    distillation
        Method, student and cache; None means the defaults.
    teacher
        A model on this computer, by name or path. Full-stage distillation takes models that follow object
        size; decoupled distillation also takes the SAM family.
    start
        Student to go on from, for instance a decoupled one for full-stage distillation; None starts with a
        random encoder and the teacher's decoder.

    Raises
    ------
    FileError
        There are no labelled images, or the folder holds another distillation.
    ConfigError
        The teacher cannot teach by this method, or the start is another architecture than the student.
    WeightsError
        The teacher cannot be loaded.
    TrainError
        The loss is no number any more.
    """
    config = config or TrainConfig(freeze_norm=False)
    distillation = distillation or DistilConfig()
    loaded = load_model(teacher)
    check_teacher(loaded, distillation)
    folder = Path(folder)
    first = None if start is None else start_tensors(start)
    student = make_student(loaded, distillation, config.seed, first).to(training_device(device))
    _check_folder(folder, loaded, distillation, start)  # once nothing more is refused: it claims the folder
    cache = EmbeddingCache(folder / "embeddings", loaded.weights_hash, round(distillation.cache * 1e9))
    with ArrayStore(config.memory * 1e9, folder) as store:
        crops, checks = yield from load_crops(data, config, sets, store=store)
        trained = yield from distil(
            student, Teacher(loaded, cache), crops, checks, config, folder, distillation
        )
    export_student(trained.checkpoint, folder / "model.safetensors", loaded, distillation)
    return trained


def check_teacher(loaded: LoadedModel, distillation: DistilConfig) -> None:
    """Refuse a teacher whose answers say nothing about the student's windows.

    Raises
    ------
    ConfigError
        Full-stage distillation from a model of the SAM family.
    """
    if distillation.method == "full-stage" and not isinstance(loaded.spec.frame, ObjectFrame):
        raise ConfigError(
            f"{loaded.spec.name} decodes whole frames of fixed size, but full-stage distillation compares "
            "masks of windows. Use a teacher that follows object size, such as lightsam, or the method "
            "'decoupled'."
        )


def make_student(
    teacher: LoadedModel,
    distillation: DistilConfig,
    seed: int,
    tensors: Mapping[str, Tensor] | None = None,
) -> Sam:
    """Build a student: a random encoder with the teacher's decoder, or from a checkpoint's tensors.

    By the method `supervised` the decoder is random as well, and the encoder the very same as by the others.

    Raises
    ------
    ConfigError
        The tensors are of another architecture than the student that is asked for.
    """
    if tensors is not None:
        given = detect_architecture(tensors)
        if given != distillation.student:
            raise ConfigError(
                f"The student to start from has the encoder {given}, not {distillation.student}; ask for a "
                f"student {given}, or start from another one."
            )
        return start_model(tensors, seed)
    if distillation.method == "supervised":
        return start_model(None, seed, distillation.student)
    with own_random(torch.device("cpu")):
        torch.manual_seed(seed)
        student = build_sam(distillation.student, proposals=teacher.model.proposal_head is not None)
    for part in ("prompt_encoder", "mask_decoder", "proposal_head"):
        own = getattr(student, part)
        if own is not None:
            own.load_state_dict(getattr(teacher.model, part).state_dict())
    return student


def distil(
    student: Sam,
    teacher: Teacher,
    crops: Dataset[Batch],
    validation: Sequence[Batch],
    config: TrainConfig,
    folder: Path,
    distillation: DistilConfig,
) -> Generator[Progress, None, Trained]:
    """Train a student by one method; see `distil_model`.

    Parameters
    ----------
    student
        From `make_student`; trained in place, where it is.
    teacher
        Embeds the crops.
    crops, validation, config, folder
        As for `train`.
    distillation
        The method, and what belongs to it.
    """
    if distillation.distinct:
        crops = _Recurring(crops, distillation.distinct)
    how: dict[str, Any] = {"workers": config.workers}
    if distillation.method == "full-stage":
        how |= {"objective": FullStage(teacher), "slower": dict.fromkeys(_DECODER, distillation.decoder_rate)}
    elif distillation.method == "decoupled":
        how |= {"objective": Decoupled(teacher), "frozen": _DECODER}
    trained = yield from train(student, crops, validation, config, folder, **how)
    if distillation.method != "decoupled" or not distillation.tune:
        return trained
    place = next(student.parameters()).device
    return (yield from _tune(trained, crops, validation, config, folder, distillation.tune, place))


def _tune(
    trained: Trained,
    crops: Dataset[Batch],
    validation: Sequence[Batch],
    config: TrainConfig,
    folder: Path,
    steps: int,
    place: torch.device,
) -> Generator[Progress, None, Trained]:
    """Let the decoder adapt to an embedding that is only nearly the teacher's; the encoder stays as it is."""
    student = start_model(read_checkpoint(trained.checkpoint).tensors, config.seed).to(place)
    config = replace(config, steps=steps, freeze_norm=True)
    tuned = yield from train(
        student, crops, validation, config, folder / "tuning", frozen=_ENCODER, workers=config.workers
    )
    later = tuple((trained.steps + step, found) for step, found in tuned.checks)
    return Trained(tuned.checkpoint, trained.steps + tuned.steps, trained.checks + later)


class _Recurring(Dataset[Batch]):
    """Batches that come again in turn, so that the teacher is asked once about each."""

    def __init__(self, crops: Dataset[Batch], distinct: int) -> None:
        self._crops, self._distinct = crops, distinct

    def __getitem__(self, step: int) -> Batch:
        return self._crops[step % self._distinct]


def export_student(source: Path, target: Path, teacher: LoadedModel, distillation: DistilConfig) -> Path:
    """Write a student that `load_segmenter` takes by its path, with the teacher's licence."""
    about: dict[str, str] = {
        "student": distillation.student,
        "method": distillation.method,
        # else it would say of itself what the model that it is fed like says
        "title": f"{distillation.student}, trained from labels alone",
        "trained_on": "labelled images of your own",
        "not_trained_on": "other images",
    }
    if distillation.method != "supervised":
        spec = teacher.spec
        about |= {
            "title": f"{distillation.student}, distilled from {spec.name}",
            "trained_on": f"labelled images of your own, taught by {spec.title}",
            "teacher_sha256": teacher.weights_hash,
            "licence": spec.licence,
            "citation": spec.citation,
        }
    return export_weights(source, target, metadata=about)


def _check_folder(
    folder: Path, teacher: LoadedModel, distillation: DistilConfig, start: str | Path | None
) -> None:
    """Make sure that a folder that is gone on with holds this very distillation."""
    about = {
        "method": distillation.method,
        "student": distillation.student,
        "distinct": distillation.distinct,
        "decoder_rate": distillation.decoder_rate,
        "teacher": teacher.weights_hash,
        "start": None if start is None else str(start),
    }
    claim_folder(folder, "distillation", about)
