"""How training crops are varied, and what is put in their place when there should be nothing to find.

Operations are torchvision's where they cost the same. Noise is not, as it would draw from PyTorch's global
state instead of the crop's own numbers; nor are blur and rotation, which take several times as long as a
separable filter and as sampling only the pixels that are kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

if TYPE_CHECKING:
    import numpy.typing as npt

_GAMMA = 0.35  # deviation of its logarithm
_GAIN, _OFFSET = (0.6, 1.15), 0.1
_INVERTED = 0.25
_GREY = 0.15  # of colour crops
_BLURRED, _BLUR = 0.25, (0.3, 1.5)
_NOISY, _NOISE = 0.3, (0.01, 0.1)


def vary_intensity(part: Tensor, sample: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Change contrast, polarity, the order of channels, sharpness and noise.

    Parameters
    ----------
    part
        float32 (C, h, w) in [0, 1], the crop.
    sample
        float32 (C, y, x), a sparse sample of the whole image, which is changed alike, but for sharpness: its
        mean and deviation are those of the changed image.
    random
        Of everything that is drawn.

    Returns
    -------
    part, sample
        Within [0, 1].
    """
    gamma = math.exp(random.normal(0, _GAMMA))
    part, sample = (transforms.adjust_gamma(one.clamp(0, 1), gamma) for one in (part, sample))
    gain, offset = random.uniform(*_GAIN), random.uniform(-_OFFSET, _OFFSET)
    part, sample = part * gain + offset, sample * gain + offset
    if random.random() < _INVERTED:
        part, sample = transforms.invert(part), transforms.invert(sample)
    if len(part) == 3:
        order = random.permutation(3).tolist()
        part, sample = (transforms.permute_channels(one, order) for one in (part, sample))
        if random.random() < _GREY:
            part, sample = part.mean(0, keepdim=True), sample.mean(0, keepdim=True)
    if random.random() < _BLURRED:
        sigma = random.uniform(*_BLUR)
        part = torch.from_numpy(ndimage.gaussian_filter(part.numpy(), (0, sigma, sigma)))
    if random.random() < _NOISY:
        strength = random.uniform(*_NOISE)
        part, sample = (one + strength * _grain(one.shape, random) for one in (part, sample))
    return part.clamp(0, 1), sample.clamp(0, 1)


def orient(stacked: Tensor, random: np.random.Generator) -> Tensor:
    """Turn (C, S, S) by a random number of quarters and perhaps mirror it."""
    stacked = stacked.rot90(int(random.integers(4)), (1, 2))
    return transforms.horizontal_flip(stacked) if random.random() < 0.5 else stacked


def draw_noise(side: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Make a plane (S, S) in [0, 1] in which there is nothing to find: white or smooth noise."""
    sigma = random.uniform(0.5, 2.5) if random.random() < 0.5 else 0.0
    grain = ndimage.gaussian_filter(random.standard_normal((side, side), np.float32), sigma)
    grain *= random.uniform(0.02, 0.3) / grain.std()
    plane: npt.NDArray[np.float32] = (random.uniform(0.1, 0.9) + grain).clip(0, 1).astype(np.float32)
    return plane


def place(stacked: Tensor, side: int, random: np.random.Generator) -> Tensor:
    """Cut or pad (zeros right and below) to a square."""
    height, width = stacked.shape[1:]
    y = int(random.integers(max(height - side, 0) + 1))
    x = int(random.integers(max(width - side, 0) + 1))
    part = stacked[:, y : y + side, x : x + side]
    return F.pad(part, (0, side - part.shape[2], 0, side - part.shape[1]))


def turn(stacked: Tensor, angle: float, side: int) -> Tensor:
    """Turn about the middle and cut a square; the last two planes by the nearest pixel."""
    height, width = stacked.shape[1:]
    middle = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)[None]
    smooth = F.grid_sample(stacked[None, :-2], grid, align_corners=False, padding_mode="zeros")[0]
    exact = F.grid_sample(stacked[None, -2:], grid, mode="nearest", align_corners=False)[0]
    return torch.cat([smooth, exact])


def _grain(shape: torch.Size, random: np.random.Generator) -> Tensor:
    return torch.from_numpy(random.standard_normal(tuple(shape), np.float32))
