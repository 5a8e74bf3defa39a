"""Image encoders: timm's backbones, stride 16, 256 channels out, any input size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_lightsam.model.importing import import_timm
from napari_lightsam.model.layers import neck
from napari_lightsam.model.spec import TINY_VIT_WIDTHS

timm = import_timm()

_HEAD = 32  # channels of an attention head, in every TinyViT


class TinyVitEncoder(nn.Module):
    """MobileSAM's encoder: timm's TinyViT with its last downsampling at stride 1, and SAM's neck.

    It has no absolute position embedding, so it takes any frame whose sides are multiples of 16.

    Parameters
    ----------
    widths
        Channels of the four stages, multiples of 32 from the second on; TinyViT-5M's by default. The
        embedding has 256 channels whatever the widths.

    Notes
    -----
    TinyViT's attention keeps its gathered bias table in a cache while in evaluation mode. Weights that
    are loaded after a forward pass would leave that table stale and silently ruin every mask, so
    `load_state_dict` empties the cache here.

    References
    ----------
    Zhang et al., *Faster Segment Anything* (MobileSAM), arXiv 2306.14289, section 3. Wu et al., *TinyViT*,
    arXiv 2207.10666 (a family of one shape that differs in width).
    """

    def __init__(self, widths: tuple[int, int, int, int] = TINY_VIT_WIDTHS["vit_t"]) -> None:
        super().__init__()
        backbone: Any = timm.create_model(
            "tiny_vit_5m_224",
            num_classes=0,
            embed_dims=widths,
            num_heads=[max(1, width // _HEAD) for width in widths],
        )
        backbone.head = nn.Identity()  # timm keeps a head norm that SAM never uses
        backbone.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.backbone = backbone
        self.neck = neck(backbone.num_features)
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames (B, 3, H, W) as (B, 256, H/16, W/16)."""
        backbone: Any = self.backbone
        return self.neck(backbone.forward_features(frames))  # type: ignore[no-any-return]


def _after_loading(module: nn.Module, _keys: Any) -> None:
    forget_attention_biases(module)


def forget_attention_biases(module: nn.Module) -> None:
    """Empty timm's cache of gathered attention biases, as is needed whenever weights have changed."""
    for child in module.modules():
        if hasattr(child, "attention_bias_cache"):
            setattr(child, "attention_bias_cache", {})  # noqa: B010  (a plain attribute, no tensor)


class SamVitEncoder(nn.Module):
    """SAM's own ViT encoder through timm, neck included.

    Parameters
    ----------
    variant
        timm's name: `samvit_base_patch16`, `samvit_large_patch16` or `samvit_huge_patch16`.

    References
    ----------
    Kirillov et al., *Segment Anything*, arXiv 2304.02643.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.backbone = timm.create_model(variant, num_classes=0)

    def forward(self, frames: Tensor) -> Tensor:
        """Embed frames (B, 3, H, W) as (B, 256, H/16, W/16)."""
        backbone: Any = self.backbone
        return backbone.forward_features(frames)  # type: ignore[no-any-return]


@torch.no_grad()
def fold_batch_norm(module: nn.Module) -> None:
    """Fold every convolution's batch norm into its weights, in place; inference only.

    Parameters
    ----------
    module
        A module in evaluation mode; timm's `ConvNorm` pairs (`conv`, `bn`) become one convolution.
    """
    for name, child in list(module.named_children()):
        conv, norm = getattr(child, "conv", None), getattr(child, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
        else:
            fold_batch_norm(child)
