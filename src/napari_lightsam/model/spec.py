"""What one checkpoint needs to be used rightly: a frozen `ModelSpec`, free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["vit_t", "vit_t_3m", "vit_t_2m", "vit_b", "vit_l", "vit_h"]

TINY_VIT_WIDTHS: dict[Architecture, tuple[int, int, int, int]] = {
    "vit_t": (64, 128, 160, 320),
    "vit_t_3m": (48, 96, 128, 256),
    "vit_t_2m": (32, 64, 96, 192),
}
"""Channels of each stage of the TinyViT encoders: TinyViT-5M, and narrower ones named by their parameters."""

STRIDE = 16
"""Frame pixels per embedding token, in every architecture of the family."""

LOGIT_STRIDE = 4
"""Frame pixels per mask logit."""

PROPOSAL_STRIDE = 8
"""Frame pixels per cell of the proposal head."""


@dataclass(frozen=True, slots=True)
class FixedFrame:
    """SAM's preprocessing: uint8, longest side resized to `size`, fixed mean and deviation, zero padding.

    Attributes
    ----------
    size
        Side of the square frame in pixels.
    mean, std
        Per channel, on the 0..255 scale.
    """

    size: int = 1024
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class ObjectFrame:
    """Preprocessing of our own models: the object's size decides the scale, the frame has any size.

    Attributes
    ----------
    target
        Object diameter, in frame pixels, that images are scaled to.
    smallest, largest
        Range of object diameters, in frame pixels, that the model was trained on.
    multiple, least
        The frame is zero-padded right and below to a multiple of this many pixels, and to at least this side.
    min_std
        Floor of the standard deviation by which the [0, 1] image is divided, so that noise stays small.
    """

    target: float = 52.0
    smallest: float = 12.0
    largest: float = 96.0
    multiple: int = 64
    least: int = 256
    min_std: float = 0.2


@dataclass(frozen=True, slots=True)
class EverythingDefaults:
    """Settings of everything mode that suit one model's scores.

    Attributes
    ----------
    points_per_side
        Prompt lattice of a fixed frame; `None` where `point_spacing` decides.
    point_spacing
        Distance of neighbouring prompts in frame pixels; `None` where `points_per_side` decides.
    iou_threshold, stability_threshold, stability_offset
        A candidate needs this predicted IoU and this stability score between the logit levels +-offset.
    confident_logit
        Logit above which hierarchical mode takes a pixel as settled (TinySAM's tau).
    proposal_threshold
        Least centre probability at which the proposal head, where a model has one, proposes an object.
    """

    points_per_side: int | None = 32
    point_spacing: float | None = None
    iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    confident_logit: float = 8.5
    proposal_threshold: float = 0.3


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a checkpoint is built, fed and read, and what a user must know about it.

    Attributes
    ----------
    name
        Name in the registry, or the file's stem for a local checkpoint.
    title
        What the model chooser shows.
    architecture
        Image encoder: TinyViT-5M (`vit_t`), a narrower one of `TINY_VIT_WIDTHS`, or SAM's ViT-B, L, H.
    frame
        Preprocessing.
    window
        Side, in embedding tokens, of the local window a prompt is decoded in; `None` decodes globally.
    small_windows
        Smaller sides, rising, in which everything mode decodes small objects; only for weights trained so.
    always_multimask
        The model answers every prompt with the best of its three masks (TinySAM).
    everything
        Defaults of everything mode.
    trained_on, not_trained_on
        Kinds of images, for the chooser and for advice.
    licence, citation, source
        Licence of the weights, what to cite, where they come from.
    """

    name: str
    title: str
    architecture: Architecture = "vit_t"
    frame: FixedFrame | ObjectFrame = FixedFrame()
    window: int | None = None
    small_windows: tuple[int, ...] = ()
    always_multimask: bool = False
    everything: EverythingDefaults = EverythingDefaults()
    trained_on: str = ""
    not_trained_on: str = ""
    licence: str = ""
    citation: str = ""
    source: str = ""
