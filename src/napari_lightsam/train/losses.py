"""What training minimises: masks, their predicted IoU, and proposals.

References
----------
Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix A (20 focal + dice, minimum over three masks,
predicted IoU by mean square error). Li et al., *Generalized Focal Loss*, arXiv 2006.04388 (soft targets).
Law and Deng, *CornerNet*, arXiv 1808.01244 (focal loss of a heat-map). Rezatofighi et al., *Generalized IoU*,
arXiv 1902.09630.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_lightsam.model.spec import LOGIT_STRIDE

if TYPE_CHECKING:
    from napari_lightsam.train.crops import Batch

FOCAL, DICE, IOU = 20.0, 1.0, 1.0
"""Weights of a mask's three losses."""

_SURE = 1e-4  # probabilities are kept this far from 0 and 1 where logarithms are taken


def mask_losses(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 20 focal + dice of each mask.

    Parameters
    ----------
    logits
        (N, M, w, w).
    truth
        (N, 1, 4w, 4w), 1 inside. Its mean over each logit is the target, so that a border that runs through
        a logit is learned where it is.

    Returns
    -------
    (N, M)
    """
    target = F.avg_pool2d(truth, LOGIT_STRIDE).expand_as(logits)
    chance = logits.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # Divided by the object's own area rather than the window's: small objects count like large ones.
    extent = target.sum((2, 3)).clamp(min=16.0) * 8
    focal = ((chance - target).square() * cross).sum((2, 3)) / extent
    shared = (chance * target).sum((2, 3))
    dice = 1 - (2 * shared + 1) / (chance.square().sum((2, 3)) + target.square().sum((2, 3)) + 1)
    return FOCAL * focal + DICE * dice


@torch.no_grad()
def true_iou(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the IoU (N, M) of masks (N, M, w, w), drawn at full size, with the truth (N, 1, 4w, 4w)."""
    drawn = F.interpolate(logits, scale_factor=LOGIT_STRIDE, mode="bilinear", align_corners=False) > 0
    inside = truth > 0.5
    shared = (drawn & inside).sum((2, 3))
    either = (drawn | inside).sum((2, 3))
    return shared / either.clamp(min=1)


def answer_loss(logits: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the loss (N,) of answers: the best mask's loss, and how well every mask judges itself.

    A prompt on background has no mask to learn from; its masks must judge themselves 0.
    """
    real = (truth.flatten(1).amax(1) > 0).float()
    judged = (predicted - true_iou(logits, truth)).square().mean(1)
    return mask_losses(logits, truth).amin(1) * real + IOU * judged


def proposal_loss(centres: Tensor, distances: Tensor, batch: Batch) -> Tensor:
    """Return the loss of a batch's proposals: focal on the heat-map, generalised IoU on the boxes.

    Parameters
    ----------
    centres, distances
        (B, 1, s, s) logits and (B, 4, s, s) frame pixels, from the head.
    batch
        Truth.
    """
    chance = centres.sigmoid().clamp(_SURE, 1 - _SURE)
    peak = batch.heat > 0.99
    found = -((1 - chance).square() * chance.log())[peak].sum()
    seen = F.max_pool2d(batch.inside[:, None].float(), 8) > 0
    quiet = (1 - batch.heat) ** 4 * chance.square() * (1 - chance).log() * seen
    missed = -quiet[~peak].sum()
    heat = (found + missed) / peak.sum().clamp(min=1)
    weight = batch.weights
    apart = 1 - generalised_iou(distances, batch.distances)
    return heat + 2 * (apart * weight).sum() / weight.sum().clamp(min=1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalised IoU (B, 1, ...) of boxes given as distances (B, 4, ...) from a common point.

    Examples
    --------
    >>> import torch
    >>> one = torch.ones(1, 4, 1)
    >>> float(generalised_iou(one, one)), float(generalised_iou(one, 2 * one))
    (1.0, 0.25)
    """
    top, left, bottom, right = torch.minimum(a, b).chunk(4, dim=1)
    far_top, far_left, far_bottom, far_right = torch.maximum(a, b).chunk(4, dim=1)
    shared = (top + bottom).clamp(min=0) * (left + right).clamp(min=0)
    hull = (far_top + far_bottom) * (far_left + far_right)
    areas = [
        (box[:, 0:1] + box[:, 2:3]).clamp(min=0) * (box[:, 1:2] + box[:, 3:4]).clamp(min=0) for box in (a, b)
    ]
    union = areas[0] + areas[1] - shared
    similarity: Tensor = shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
    return similarity
