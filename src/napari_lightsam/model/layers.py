"""Layers that encoder, prompt encoder and mask decoder share."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of an (N, C, H, W) tensor.

    It goes through `F.layer_norm`, which accumulates in float32: neck activations near 1e3 overflow a
    hand-written variance in float16.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every pixel over its channels."""
        last = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        normal = F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps)
        return normal.permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Linear layers with ReLU between them (SAM's hypernetworks and IoU head)."""

    def __init__(self, width: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [width, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers to the last axis."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]


def neck(width: int, channels: int = 256) -> nn.Sequential:
    """SAM's neck, from the encoder's width to the embedding's channels.

    Parameters
    ----------
    width
        Channels of the encoder's last stage.
    channels
        Channels of the image embedding.
    """
    return nn.Sequential(
        nn.Conv2d(width, channels, 1, bias=False),
        LayerNorm2d(channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        LayerNorm2d(channels),
    )
