"""How proposals compare with the objects that are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_lightsam.model.spec import PROPOSAL_STRIDE

if TYPE_CHECKING:
    from napari_lightsam.train.crops import Batch

_THRESHOLD = 0.3


def match_proposals(maps: Tensor, batch: Batch, threshold: float = _THRESHOLD) -> tuple[int, int]:
    """Count the objects that have a proposed box of IoU .5, and all proposals.

    Parameters
    ----------
    maps
        (B, 5, s, s) from `Sam.propose`.
    batch
        Truth.
    threshold
        Least probability of a centre.
    """
    chance = maps[:, :1]
    peaks = (chance == F.max_pool2d(chance, 3, 1, 1)) & (chance >= threshold)
    found = made = 0
    for crop in range(len(maps)):
        y, x = torch.nonzero(peaks[crop, 0], as_tuple=True)
        middle = torch.stack([x, y], dim=1).float() * PROPOSAL_STRIDE + PROPOSAL_STRIDE / 2
        top, left, bottom, right = maps[crop, 1:, y, x]
        boxes = torch.stack(
            [middle[:, 0] - left, middle[:, 1] - top, middle[:, 0] + right, middle[:, 1] + bottom], dim=1
        )
        truth = batch.objects.boxes[batch.objects.crop == crop]
        made += len(boxes)
        if len(boxes) and len(truth):
            found += int((box_iou(truth, boxes).amax(1) >= 0.5).sum())
    return found, made


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (N, M) of boxes (N, 4) and (M, 4), each (x0, y0, x1, y1)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(2)
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared).clamp(min=1e-6)
