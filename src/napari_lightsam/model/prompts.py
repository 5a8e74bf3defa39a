"""SAM's prompt encoder: points, boxes and masks become tokens."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_lightsam.model.layers import LayerNorm2d
from napari_lightsam.model.spec import STRIDE

PAD, NEGATIVE, POSITIVE = -1, 0, 1


class PositionEncoding(nn.Module):
    """Random-Fourier features of positions in the unit square."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, unit: Tensor) -> Tensor:
        """Encode (x, y) in [0, 1]: (..., 2) -> (..., channels), in the precision of its matrix."""
        matrix = self.get_buffer("positional_encoding_gaussian_matrix")
        x, y = (2 * unit.to(matrix.dtype) - 1).chunk(2, dim=-1)
        phase = 2 * math.pi * (x * matrix[0] + y * matrix[1])  # a matrix product would follow autocast
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def grid(self, height: int, width: int) -> Tensor:
        """Encode the centres of a token grid: (1, channels, height, width)."""
        device = self.get_buffer("positional_encoding_gaussian_matrix").device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        unit = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        return self(unit).permute(2, 0, 1)[None]  # type: ignore[no-any-return]


class PromptEncoder(nn.Module):
    """Tokens of points and boxes, dense embedding of masks.

    The area that prompts refer to (the whole frame, or a local window of it) is given with each call, so
    that one set of weights serves any size.

    References
    ----------
    Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix A.
    """

    def __init__(self, channels: int = 256, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = PositionEncoding(channels)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def tokens(self, points: Tensor, labels: Tensor, boxes: Tensor | None, tokens: tuple[int, int]) -> Tensor:
        """Encode the sparse prompts of N objects.

        Parameters
        ----------
        points
            (N, P, 2), (x, y) in frame pixels relative to the area; P may be 0.
        labels
            (N, P): 1 positive, 0 negative, -1 padding.
        boxes
            (N, 4), (x0, y0, x1, y1) in the same pixels, or None.
        tokens
            Height and width of the area in embedding tokens.

        Returns
        -------
        Tensor
            (N, T, 256).
        """
        height, width = tokens
        size = points.new_tensor([width * STRIDE, height * STRIDE])
        kinds = [self.not_a_point_embed, *self.point_embeddings]
        table = torch.cat([kind.get_parameter("weight") for kind in kinds])
        if boxes is None:  # SAM pads with one empty point where there is no box
            points = F.pad(points, (0, 0, 0, 1))
            labels = F.pad(labels, (0, 1), value=PAD)
        else:
            points = torch.cat([points, boxes.reshape(-1, 2, 2)], dim=1)
            corners = labels.new_tensor([2, 3]).expand(len(boxes), 2)
            labels = torch.cat([labels, corners], dim=1)
        position: Tensor = self.pe_layer((points + 0.5) / size)  # (N, T, 256)
        position = position * (labels != PAD)[..., None]
        return position + table[labels.long() + 1]

    def dense(self, masks: Tensor | None) -> Tensor:
        """Encode mask logits (N, 1, 4h, 4w) as (N, 256, h, w); no mask gives (1, 256, 1, 1)."""
        if masks is None:
            return self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return self.mask_downscaling(masks)  # type: ignore[no-any-return]
