"""From a model's name or a checkpoint file to a network that is ready to use."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from napari_lightsam.engine.checkpoint import Checkpoint, read_checkpoint
from napari_lightsam.engine.download import find_weights, identify
from napari_lightsam.engine.folders import expanded
from napari_lightsam.engine.forked import begin_computing
from napari_lightsam.engine.registry import ALIASES, MODELS, described_spec, find_model, known_models
from napari_lightsam.errors import WeightsError
from napari_lightsam.model.build import build_sam, detect_architecture, fold_batch_norm, sam_state_dict
from napari_lightsam.model.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from napari_lightsam.model.sam import Sam
    from napari_lightsam.model.spec import Architecture

__all__ = ["Checkpoint", "LoadReport", "LoadedModel", "load_model", "read_checkpoint"]

_HEADS = ("image_encoder.norm_head.", "image_encoder.head.")
_PROPOSALS = "proposal_head."
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How a checkpoint's tensors compare with what the network needs.

    Attributes
    ----------
    missing
        Names, in the network, of what the file lacks.
    unexpected
        Names, in the file, of what the network has no place for.
    misshaped
        (name, shape in the file, shape that is needed).
    dropped
        Names left out on purpose (the encoder's unused classification head).
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshaped: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Nothing is missing, unexpected or misshaped."""
        return not (self.missing or self.unexpected or self.misshaped)

    def in_words(self) -> str:
        """Summarise in a few sentences, grouped by module; "" when everything fits."""
        sentences = []
        if self.missing:
            sentences.append(f"{_tensors(self.missing)} missing: {_grouped(self.missing)}.")
        if self.unexpected:
            sentences.append(f"{_tensors(self.unexpected)} unexpected: {_grouped(self.unexpected)}.")
        if self.misshaped:
            shown = "; ".join(
                f"{name} has {_shape(given)} instead of {_shape(needed)}"
                for name, given, needed in self.misshaped[:_SHOWN]
            )
            more = f"; and {len(self.misshaped) - _SHOWN} more" if len(self.misshaped) > _SHOWN else ""
            sentences.append(f"{_tensors(self.misshaped)} of another shape: {shown}{more}.")
        return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A network with weights, and what is known about them.

    Attributes
    ----------
    model
        In evaluation mode, float32, on the CPU, batch norm folded into the convolutions.
    spec
        How it must be fed and read.
    weights_hash
        sha256 of the weights file, hex; of the files' hashes, joined, where there are several.
    source
        The file (the first of several).
    report
        What was dropped on loading.
    reference
        What loads it again, from any folder: its name in the registry, or the absolute path of the file.
    """

    model: Sam
    spec: ModelSpec
    weights_hash: str
    source: Path
    report: LoadReport
    reference: str


def load_model(name_or_path: str | Path, *, spec: ModelSpec | None = None) -> LoadedModel:
    """Build a network and load its weights strictly.

    Parameters
    ----------
    name_or_path
        A name in the registry or of a model of your own, or the path of a checkpoint in any layout that
        `read_checkpoint` knows. A file that has the name of a model is given as `./name`.
    spec
        How the model is to be fed. Without it: the file's own metadata, else the registry entry that has
        the file's hash, else SAM's conventions for the architecture that the tensors show.

    Returns
    -------
    LoadedModel

    Raises
    ------
    WeightsError
        The name is not known, the model is not on this computer, the file is unusable, or its tensors are
        not those of the architecture.
    DeviceError
        This process was forked from one that had loaded a model.

    Examples
    --------
    >>> loaded = load_model("lightsam")
    >>> loaded.spec.window, loaded.model.training
    (16, False)
    """
    paths, registered = _locate(name_or_path)
    begin_computing()
    checkpoints = [read_checkpoint(path) for path in paths]
    if registered is not None:
        tensors = _select(checkpoints, MODELS[registered].parts)
        chosen = spec or MODELS[registered].spec
    else:
        tensors = checkpoints[0].tensors
        chosen = spec or _spec_of(checkpoints[0])
    _check_architecture(tensors, chosen.architecture, paths[0])
    model, report = _fill(tensors, chosen.architecture, paths)
    hashes = [checkpoint.sha256 for checkpoint in checkpoints]
    joined = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return LoadedModel(model, chosen, joined, paths[0], report, registered or str(paths[0].absolute()))


def _locate(name_or_path: str | Path) -> tuple[tuple[Path, ...], str | None]:
    """Return the files, and the registry name unless a path was given."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and (name in MODELS or name in ALIASES):
        name = ALIASES.get(name, name)
        paths = find_weights(name)
        if paths is None:
            entry = MODELS[name]
            raise WeightsError(
                f"The model {name!r} is not on this computer. Fetch it once with `lightsam models download "
                f"{name}` (about {entry.download_size / 1e6:.0f} MB, licence {entry.spec.licence}), or use "
                "'lightsam', which is part of the package."
            )
        return paths, name
    own = known_models().get(name) if isinstance(name_or_path, str) else None
    if own is not None and own.local is not None:
        return (own.local,), None
    path = expanded(name_or_path)
    looks_like_name = isinstance(name_or_path, str) and path.name == name and not os.path.exists(path)
    if looks_like_name and path.suffix not in {".pt", ".pth", ".safetensors", ".ckpt", ".bin"}:
        find_model(name)  # raises with the names that are known
    return (path,), None


def _select(checkpoints: Sequence[Checkpoint], parts: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
    """Join what is taken from each of a model's files."""
    tensors: dict[str, Tensor] = {}
    for index, checkpoint in enumerate(checkpoints):
        wanted = parts[index] if parts else ("",)
        tensors |= {name: value for name, value in checkpoint.tensors.items() if name.startswith(wanted)}
    return tensors


def _spec_of(checkpoint: Checkpoint) -> ModelSpec:
    """Tell how a local file must be fed: its metadata, else its hash, else SAM's conventions."""
    stem = checkpoint.path.stem
    base = checkpoint.metadata.get("spec") if checkpoint.metadata.get("format") == "napari-lightsam" else None
    if base is not None:
        if base not in MODELS:
            raise WeightsError(
                f"{checkpoint.path} says that it is to be used like {base!r}, which this version does not "
                f"know (known: {', '.join(MODELS)}). Update napari-lightsam, or pass a ModelSpec as `spec`."
            )
        described = {"name": stem, "source": str(checkpoint.path), **checkpoint.metadata}
        # what is fed like another model may yet have a narrower encoder
        own = detect_architecture(checkpoint.tensors) or MODELS[base].spec.architecture
        return replace(described_spec(base, described), architecture=own)
    known = identify(checkpoint.path)
    if known is not None:
        return MODELS[known].spec
    architecture = detect_architecture(checkpoint.tensors)
    if architecture is None:
        raise WeightsError(_no_encoder(checkpoint.tensors, checkpoint.path))
    return ModelSpec(name=stem, title=stem, architecture=architecture, source=str(checkpoint.path))


def _check_architecture(tensors: dict[str, Tensor], wanted: Architecture, path: Path) -> None:
    """Refuse a file whose encoder is another one, before hundreds of names fail to fit."""
    given = detect_architecture(tensors)
    if given is None:
        raise WeightsError(_no_encoder(tensors, path))
    if given != wanted:
        raise WeightsError(
            f"{path} holds a {given} encoder, but the model is described as {wanted}. Leave `spec` out, or "
            f"pass one with architecture={given!r}."
        )


def _no_encoder(tensors: dict[str, Tensor], path: Path) -> str:
    """Say what is wrong with a file whose encoder is missing or unknown."""
    if any(name.startswith("image_encoder.") for name in tensors):
        return (
            f"The image encoder in {path} is none of those this package builds (TinyViT-5M as in MobileSAM "
            "and TinySAM, its narrower versions, or SAM's ViT-B, ViT-L, ViT-H)."
        )
    return (
        f"{path} holds a prompt encoder and mask decoder but no image encoder. The decoder of MobileSAMv2 is "
        "used by the model 'mobilesamv2', which takes the encoder of MobileSAM."
    )


def _fill(
    tensors: dict[str, Tensor], architecture: Architecture, paths: Iterable[Path]
) -> tuple[Sam, LoadReport]:
    """Build the network and load every tensor, or say in words why that is not possible."""
    dropped = tuple(sorted(name for name in tensors if name.startswith(_HEADS)))
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEADS)}
    model = build_sam(architecture, proposals=any(name.startswith(_PROPOSALS) for name in kept))
    state = sam_state_dict(kept, architecture)
    # what is reported is named as in the file, where it comes from the file
    original = {new: name for name in kept for new in sam_state_dict({name: kept[name]}, architecture)}
    needed = model.state_dict()
    report = LoadReport(
        # the count of batches seen in training has no part in inference, and fp16 exports may lack it
        missing=tuple(
            sorted(name for name in needed if name not in state and not name.endswith("num_batches_tracked"))
        ),
        unexpected=tuple(sorted(original[name] for name in state if name not in needed)),
        misshaped=tuple(
            (original[name], tuple(state[name].shape), tuple(needed[name].shape))
            for name in sorted(state)
            if name in needed and state[name].shape != needed[name].shape
        ),
        dropped=dropped,
    )
    where = " and ".join(str(path) for path in paths)
    if not report.fits:
        raise WeightsError(f"{where} does not fit the {architecture} model. {report.in_words()}")
    bad = [original[name] for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise WeightsError(
            f"{where} holds values that are no numbers (NaN or infinite) in {_grouped(bad)}: training "
            "diverged, or half precision overflowed. Use another checkpoint."
        )
    model.load_state_dict(state, strict=False)  # compared above, name by name
    model.eval()
    fold_batch_norm(model)
    model.requires_grad_(False)
    return model, report


def _grouped(names: Iterable[str]) -> str:
    """Count names by module, largest group first, with one example each."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:4]), []).append(name)
    largest = sorted(groups.values(), key=len, reverse=True)
    shown = [group[0] if len(group) == 1 else f"{len(group)} like {group[0]}" for group in largest[:_SHOWN]]
    rest = sum(len(group) for group in largest[_SHOWN:])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def _tensors(names: Sequence[object]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape) or "one value"
