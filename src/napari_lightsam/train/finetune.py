"""Teach a model with a few corrected images: minutes on a CPU, judged on a part that was held out.

The encoder's backbone stays as it is; neck, decoder and proposal head learn. So what the backbone makes of a
crop is worked out once and kept, and steps neither make crops nor run the backbone.
"""

from __future__ import annotations

import datetime
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.local import check_name, local_folder
from napari_lightsam.engine.progress import Progress, Work
from napari_lightsam.engine.registry import ALIASES, MODELS, known_models
from napari_lightsam.engine.segmenter import load_segmenter
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import check_writable
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.config import SAVING, STAGES, TEACHING, TrainConfig
from napari_lightsam.train.corrections import Corrected, Division, divide, numbered
from napari_lightsam.train.crops import Batch, CropMaker
from napari_lightsam.train.datasets import find_labelled, read_labelled
from napari_lightsam.train.devices import half_precision
from napari_lightsam.train.export import export_weights
from napari_lightsam.train.held_out import HeldOut, Picture, Score, check_gain, gained
from napari_lightsam.train.images import read_unit, sparse_sample, training_image
from napari_lightsam.train.local import save_local
from napari_lightsam.train.loop import start_model, train

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.model.sam import Sam
    from napari_lightsam.train.images import TrainingImage

_BACKBONE = "image_encoder.backbone."
_KEPT = 40  # batches of crops that are looked at once and learned from again and again
_SHAPES = ((4, 224), (2, 320))  # (crops, side) of a batch: small, so that minutes hold many steps


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """A model that was taught and saved.

    Attributes
    ----------
    name, path, card
        Name of the model, its weights, and its card.
    before, after
        What the model that it started from, and what it, made of the held-out part.
    held_out, image
        The held-out rectangle (y0, x0, y1, x1), and which of the images it is of.
    picture
        That part, with what was found in it.
    steps
        Optimiser steps.
    objects
        Number of objects that it learned from, and was tested on.
    object_size
        Their median diameter in pixels.
    """

    name: str
    path: Path
    card: Path
    before: Score
    after: Score
    held_out: tuple[int, int, int, int]
    image: int
    picture: Picture
    steps: int
    objects: tuple[int, int]
    object_size: float

    def in_words(self) -> str:
        """Say in one line what was gained."""
        return gained(self.before, self.after)


def finetune(
    corrected: Sequence[Corrected],
    name: str,
    *,
    start: str | Path = "lightsam",
    config: TrainConfig = TEACHING,
    replace_model: bool = False,
) -> Work[FineTuned]:
    """Teach a model with corrected labels and save it under a name; a generator of `Progress`.

    About a third of the objects, in a part of their own, is held out. The model is saved only if it does
    better there than the one it started from. Closing the generator cancels and leaves nothing behind.

    Parameters
    ----------
    corrected
        Images and labels, at least a dozen objects in all; only their regions count.
    name
        What the model is called from now on: `load_segmenter(name)`.
    start
        Name or path of the model to start from; one that follows object size.
    config
        Settings of the training.
    replace_model
        A model of the user's own with this name may be replaced.

    Yields
    ------
    Progress

    Returns
    -------
    FineTuned

    Raises
    ------
    ConfigError
        The name is not allowed or taken, or `start` cannot be taught.
    TrainError
        Too little was corrected, the labels contradict themselves, or the model did not get better on what
        was held out; nothing is saved, and the message says what to do.
    FileError
        The user's folder of models cannot be written.

    Examples
    --------
    >>> from napari_lightsam.engine.progress import drain
    >>> taught = drain(finetune([Corrected(image, labels)], "my-axons"))  # doctest: +SKIP
    >>> taught.in_words()  # doctest: +SKIP
    'one click 0.45 -> 0.66, box 0.60 -> 0.74, everything 0.20 -> 0.49'
    """
    # a model that is replaced keeps its name as it is written, capitals and all
    name = check_name(name, [*MODELS, *ALIASES], replace=replace_model).stem
    check_writable(local_folder())
    yield Progress("checking the labels", 0, 0)
    division = divide(corrected)
    base, tensors = _startable(start)
    frame = MODELS[base].spec.frame
    assert isinstance(frame, ObjectFrame)
    held = HeldOut.of(corrected, division)
    first = load_segmenter(start, device="cpu", precision="float32", runtime="torch")
    before, found_before = yield from held.judge(first, STAGES[0])
    with tempfile.TemporaryDirectory(prefix="lightsam-", ignore_cleanup_errors=True) as folder:
        images = _training_images(corrected, division)
        model = start_model(tensors, config.seed)
        shares = np.sqrt([len(image.centres) for image in images])
        crops = CropMaker(
            images,
            frame,
            config.seed,
            shares / shares.sum(),
            (config.smallest, config.largest),
            shapes=_SHAPES,
        )
        kept = yield from _keep_features(model, crops, min(_KEPT, config.steps or _KEPT))
        trained = yield from train(model, kept, [], config, folder, frozen=(_BACKBONE,), workers=0)
        trial = export_weights(trained.checkpoint, Path(folder) / "trial.safetensors", spec=base)
        second = load_segmenter(trial, device="cpu", precision="float32", runtime="torch")
        after, found_after = yield from held.judge(second, STAGES[3])
        check_gain(before, after, division)
        picture = Picture(held.image, held.labels, found_before, found_after)
        facts = _facts(corrected, division, first, before, after, trained.steps)
        yield Progress(SAVING, 0, 0)
        path = save_local(trained.checkpoint, name, base, facts, picture.draw(), replace_model=replace_model)
    part = division.held_out
    return FineTuned(
        name=name,
        path=path,
        card=path.with_suffix(".md"),
        before=before,
        after=after,
        held_out=part.box,
        image=part.image,
        picture=picture,
        steps=trained.steps,
        objects=division.objects,
        object_size=division.object_size,
    )


def read_corrected(folder: str | Path) -> list[Corrected]:
    """Read a folder of images with corrected labels, in a layout of `datasets`; of a volume the middle plane.

    Raises
    ------
    FileError
        There are no labelled images, or one cannot be read.
    """
    files = [f for f in find_labelled(folder) if f.plane is None or f.plane == f.planes // 2]
    read = [(file, read_labelled(file)) for file in files]
    return [Corrected(found.image, found.labels, found.rgb, name=file.name) for file, found in read]


def _startable(start: str | Path) -> tuple[str, Mapping[str, Tensor]]:
    """Return which published model a start is used like, and its tensors."""
    known = known_models().get(str(start))
    if known is not None and not isinstance(known.spec.frame, ObjectFrame):
        raise ConfigError(
            f"{start} cannot be taught: it sees images at one fixed size. Start from 'lightsam' or a "
            "model that was taught before."
        )
    paths = (Path(start),) if known is None else find_weights(str(start))
    if not paths or not os.path.isfile(paths[0]):
        raise FileError(f"There is no model {start}; `lightsam models list` shows those that there are.")
    checkpoint = read_checkpoint(paths[0])
    base = str(start) if str(start) in MODELS else checkpoint.metadata.get("spec", "")
    if base not in MODELS or not isinstance(MODELS[base].spec.frame, ObjectFrame):
        raise ConfigError(
            f"{start} cannot be taught: it is no model of ours. Start from 'lightsam', from a model that was "
            "taught before, or from a file that `lightsam train` wrote."
        )
    return base, checkpoint.tensors


def _training_images(corrected: Sequence[Corrected], division: Division) -> list[TrainingImage]:
    """Cut out what is learned from; each image is normalised as a whole, as it will be for inference."""
    images = []
    units = {
        part.image: read_unit(corrected[part.image].image, corrected[part.image].rgb)
        for part in division.learned
    }
    for part in division.learned:
        rows, columns = part.slices
        unit = units[part.image]
        labels = numbered(corrected[part.image].labels[rows, columns])[1]
        name = corrected[part.image].name
        made = training_image("corrected", name, unit[:, rows, columns], labels, whole=sparse_sample(unit))
        if made is not None:
            images.append(replace(made, object_size=division.object_size))
    return images


class _Kept(Dataset[Batch]):
    """Batches that are used over and over."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def __getitem__(self, step: int) -> Batch:
        return self._batches[step % len(self._batches)]


def _keep_features(model: Sam, crops: CropMaker, count: int) -> Work[_Kept]:
    """Make batches and let the backbone look at each of them once."""
    backbone: Any = model.image_encoder.backbone
    model.eval()
    batches = []
    for step in range(count):
        yield Progress(STAGES[1], step, count)
        batch = crops[step]
        with torch.no_grad(), half_precision(batch.frames.device):
            features = backbone.forward_features(batch.frames)
        # of the frames themselves only the shape is asked for from now on
        nothing = batch.frames.new_zeros(()).expand(batch.frames.shape)
        batches.append(batch._replace(frames=nothing, features=features))
    return _Kept(batches)


def _facts(
    corrected: Sequence[Corrected],
    division: Division,
    first: Segmenter,
    before: Score,
    after: Score,
    steps: int,
) -> dict[str, str]:
    """Describe the model for its header and card."""
    learned, tested = division.objects
    used = sorted({corrected[part.image].name for part in (*division.learned, division.held_out)})
    names = ", ".join(used[:5]) + (f" and {len(used) - 5} more" if len(used) > 5 else "")
    spec = first.spec
    return {
        "trained_on": (
            f"what {spec.title} was, then {learned} corrected objects of {names} (on {tested} held-out ones: "
            f"{gained(before, after)})"
        ),
        "not_trained_on": f"other images since: there it may be worse than {spec.title}",
        "licence": spec.licence,
        "citation": spec.citation,
        "made_from": spec.name,
        "made_from_sha256": first.weights_hash,
        "date": datetime.date.today().isoformat(),
        "steps": str(steps),
        "objects_learned": str(learned),
        "objects_held_out": str(tested),
        "object_size": f"{division.object_size:.1f}",
        "before": str(before),
        "after": str(after),
    }
