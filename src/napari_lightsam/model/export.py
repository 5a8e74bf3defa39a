"""The encoder as `torch.export` takes it with open sizes, so that one conversion serves every frame."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from timm.models.tiny_vit import TinyVitBlock
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from napari_lightsam.model.sam import Sam

FRAME_UNIT = 32
"""Frames of an exported encoder have sides that are multiples of this."""


class _AnySizeBlock(nn.Module):
    """timm's TinyViT block without a branch on the frame's size, which an export would freeze.

    It pads always, by zero rows where nothing is missing; the result is the same.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.side: int = block.window_size
        self.attn, self.mlp, self.local_conv = block.attn, block.mlp, block.local_conv

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, H, W, C)."""
        batch, height, width, channels = x.shape
        side = self.side
        rows, columns = (height + side - 1) // side, (width + side - 1) // side
        padded = F.pad(x, (0, 0, 0, columns * side - width, 0, rows * side - height))
        windows = padded.reshape(batch, rows, side, columns, side, channels).transpose(2, 3)
        windows = self.attn(windows.reshape(-1, side * side, channels))
        windows = windows.reshape(batch, rows, columns, side, side, channels).transpose(2, 3)
        x = x + windows.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.mlp(x)  # type: ignore[no-any-return]


def export_encoder(model: Sam) -> ExportedProgram:
    """Export a TinyViT encoder: (1, 3, H, W) -> (1, 256, H/16, W/16), sides multiples of `FRAME_UNIT`."""
    encoder = copy.deepcopy(model.image_encoder)
    for stage in encoder.backbone.stages:  # type: ignore[union-attr]
        blocks = getattr(stage, "blocks", None)
        for name, block in list(blocks.named_children()) if blocks is not None else ():
            if isinstance(block, TinyVitBlock):
                setattr(blocks, name, _AnySizeBlock(block))
    # Unequal sides, neither of them a window's: equal sizes would be taken for one and the same.
    example = torch.zeros(1, 3, 8 * FRAME_UNIT, 16 * FRAME_UNIT)
    with torch.inference_mode(False), torch.no_grad():
        encoder(example)  # fills timm's cache of attention biases, which an export must not assign
        sides = [FRAME_UNIT * torch.export.Dim(name, min=2, max=64) for name in ("height", "width")]
        shapes = ({2: sides[0], 3: sides[1]},)
        return torch.export.export(encoder, (example,), strict=False, dynamic_shapes=shapes)
