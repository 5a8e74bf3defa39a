"""The one builder that knows sizes, and the map from published tensor names to ours."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from napari_lightsam.model.decoder import MaskDecoder, TwoWayTransformer
from napari_lightsam.model.encoders import SamVitEncoder, TinyVitEncoder, fold_batch_norm
from napari_lightsam.model.prompts import PositionEncoding, PromptEncoder
from napari_lightsam.model.proposals import ProposalHead
from napari_lightsam.model.sam import Sam
from napari_lightsam.model.spec import TINY_VIT_WIDTHS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor, nn

    from napari_lightsam.model.spec import Architecture

__all__ = [
    "build_sam",
    "detect_architecture",
    "fold_batch_norm",
    "published_state_dict",
    "reduce_precision",
    "sam_state_dict",
]

_VARIANTS: dict[str, str] = {
    "vit_b": "samvit_base_patch16",
    "vit_l": "samvit_large_patch16",
    "vit_h": "samvit_huge_patch16",
}

_ENCODER = "image_encoder."
_STEMS: dict[int, Architecture] = {widths[0]: name for name, widths in TINY_VIT_WIDTHS.items()}
_WIDTHS: dict[int, Architecture] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def build_sam(architecture: Architecture, *, proposals: bool = False) -> Sam:
    """Build the network with random weights, in training mode.

    Parameters
    ----------
    architecture
        `vit_t` (MobileSAM, TinySAM and our own models), `vit_t_3m` or `vit_t_2m` (narrower students),
        `vit_b`, `vit_l` or `vit_h` (SAM).
    proposals
        With a head that proposes objects, as in our own models.

    Examples
    --------
    >>> sum(p.numel() for p in build_sam("vit_t").parameters())
    9808452
    """
    widths = TINY_VIT_WIDTHS.get(architecture)
    encoder: nn.Module = SamVitEncoder(_VARIANTS[architecture]) if widths is None else TinyVitEncoder(widths)
    head = ProposalHead() if proposals else None
    return Sam(encoder, PromptEncoder(), MaskDecoder(TwoWayTransformer()), head)


def reduce_precision(model: Sam, dtype: torch.dtype) -> Sam:
    """Return a copy of the network in a narrower float type; inference only.

    The matrix of the position encoding stays in float32: its phases reach many periods, which eight bits
    cannot resolve.
    """
    reduced = copy.deepcopy(model).to(dtype)
    for own, precise in zip(reduced.modules(), model.modules(), strict=True):
        if isinstance(own, PositionEncoding):
            own.load_state_dict(precise.state_dict(), assign=True)
    return reduced


def detect_architecture(names: Mapping[str, Tensor]) -> Architecture | None:
    """Tell the encoder of a checkpoint in SAM's naming from its tensors; None when it has no known one."""
    stem = names.get(_ENCODER + "patch_embed.seq.0.c.weight")
    if stem is not None:  # its first convolution has half the first stage's channels
        return _STEMS.get(2 * int(stem.shape[0]))
    patch = names.get(_ENCODER + "patch_embed.proj.weight")
    return _WIDTHS.get(int(patch.shape[0])) if patch is not None else None


def sam_state_dict(tensors: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Rename the tensors of a published checkpoint to those of `build_sam`.

    Parameters
    ----------
    tensors
        Under SAM's own names (`image_encoder.`, `prompt_encoder.`, `mask_decoder.`).
    architecture
        Decides how the encoder's names are read.

    Returns
    -------
    dict of str to Tensor
        The classification head that some files carry is left out; every other name is kept, known or
        not, so that a strict load can report it.
    """
    rename = _tiny_vit_name if architecture in TINY_VIT_WIDTHS else _sam_vit_name
    renamed = {}
    for name, tensor in tensors.items():
        inner = name.removeprefix(_ENCODER)
        if inner == name:
            renamed[name] = tensor
        elif not inner.startswith(("norm_head.", "head.")):
            renamed[_ENCODER + rename(inner)] = tensor
    return renamed


def published_state_dict(model: Sam) -> dict[str, Tensor]:
    """Name the tensors of a TinyViT model as published checkpoints do: the inverse of `sam_state_dict`.

    Examples
    --------
    >>> "image_encoder.layers.1.blocks.0.attn.qkv.weight" in published_state_dict(build_sam("vit_t"))
    True
    """
    named = {}
    for name, tensor in model.state_dict().items():
        inner = name.removeprefix(_ENCODER + "backbone.")
        named[name if inner == name else _ENCODER + _published_name(inner)] = tensor
    return named


def _published_name(name: str) -> str:
    """Map timm's TinyViT names to MobileSAM's."""
    name = name.replace(".conv.", ".c.")
    name = name.replace("patch_embed.conv1.", "patch_embed.seq.0.")
    name = name.replace("patch_embed.conv2.", "patch_embed.seq.2.")
    if name.startswith("stages."):
        index, rest = name.removeprefix("stages.").split(".", 1)
        layer = int(index) - 1 if rest.startswith("downsample.") else int(index)
        name = f"layers.{layer}.{rest}"
    return name


def _tiny_vit_name(name: str) -> str:
    """Map MobileSAM's encoder names to timm's TinyViT."""
    if name.startswith("neck."):
        return name
    name = name.replace("patch_embed.seq.0.", "patch_embed.conv1.")
    name = name.replace("patch_embed.seq.2.", "patch_embed.conv2.")
    if name.startswith("layers."):
        index, rest = name.removeprefix("layers.").split(".", 1)
        # MobileSAM downsamples at the end of a layer, timm at the start of the next stage.
        stage = int(index) + 1 if rest.startswith("downsample.") else int(index)
        name = f"stages.{stage}.{rest}"
    return "backbone." + name.replace(".c.", ".conv.")


def _sam_vit_name(name: str) -> str:
    """Map SAM's ViT encoder names to timm's."""
    return "backbone." + name.replace(".mlp.lin", ".mlp.fc")
