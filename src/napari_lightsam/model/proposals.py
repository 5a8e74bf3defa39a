"""A light head on the image embedding that proposes objects: where their centres are, how far they reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_lightsam.model.layers import LayerNorm2d
from napari_lightsam.model.spec import PROPOSAL_STRIDE

_RARE = 0.01  # prior probability that a cell holds a centre, so that training starts calm
FARTHEST = 5.0  # natural logarithm of cells: boxes of up to 300 cells


class ProposalHead(nn.Module):
    """Class-agnostic object proposals on the shared embedding, at twice its resolution.

    It takes the place of MobileSAMv2's separate detector: no second network looks at the image.

    Parameters
    ----------
    channels
        Channels of the embedding.
    width
        Channels of the head.

    References
    ----------
    Zhou et al., *Objects as Points*, arXiv 1904.07850 (centre heat-map). Tian et al., *FCOS*, arXiv
    1904.01355 (distances to the four sides). Zhang et al., *MobileSAMv2*, arXiv 2312.09579 (object-aware
    prompts).
    """

    def __init__(self, channels: int = 256, width: int = 96) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.ConvTranspose2d(channels, width, 2, stride=2),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )
        self.centre = nn.Conv2d(width, 1, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        nn.init.constant_(self.centre.bias, -math.log((1 - _RARE) / _RARE))  # type: ignore[arg-type]
        nn.init.constant_(self.sides.bias, math.log(3.0))  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Propose objects in (B, 256, h, w).

        Returns
        -------
        centres, distances
            (B, 1, 2h, 2w) logits, and (B, 4, 2h, 2w) frame pixels to top, left, bottom and right.
        """
        features = self.trunk(tokens)
        distances = torch.exp(self.sides(features).float().clamp(max=FARTHEST)) * PROPOSAL_STRIDE
        return self.centre(features).float(), distances
