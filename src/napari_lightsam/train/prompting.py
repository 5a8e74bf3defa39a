"""Simulated prompts, as a person or a proposal would give them, each with the mask that it asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE

if TYPE_CHECKING:
    from napari_lightsam.train.crops import Batch

WINDOWS = (14, 16, 20, 24, 28)
"""Sides, in tokens, of the windows that prompts are decoded in; one for all prompts of a step."""

_WINDOW = 16
_FEWEST = 10
_BOXES = 0.45  # of the prompts are boxes; the others are clicks
_CENTRE = 0.35  # of the clicks are innermost pixels
_BACKGROUND = 0.12  # of the prompts ask for nothing: their predicted IoU must be 0
_JITTER = 0.08  # deviation of a box's sides, in parts of its own side
_PIXELS = 1.5  # and in frame pixels


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """N prompts of one step, windows laid out, with the truth in each window.

    Attributes
    ----------
    crop
        int (N,), which crop of the batch.
    corners
        int (N, 2), (y, x) of each window in frame pixels.
    window
        Side of the windows in frame pixels.
    truth
        float (N, 1, W, W), 1 inside the object; all 0 for a prompt on background.
    points, point_labels
        (N, P, 2) as (x, y) in the window, and (N, P), -1 pads.
    boxes
        (N, 4) in the window, or None: all prompts of one value have boxes or none has.
    """

    crop: Tensor
    corners: Tensor
    window: int
    truth: Tensor
    points: Tensor
    point_labels: Tensor
    boxes: Tensor | None

    def tensors(self, masks: Tensor | None = None) -> PromptTensors:
        """Return the decoder's input, with the logits of an earlier round if there was one."""
        return PromptTensors(self.points, self.point_labels, self.boxes, masks)

    def cut(self, tokens: Tensor) -> Tensor:
        """Cut each prompt's window out of the embeddings (B, 256, h, w) of all crops."""
        side = self.window // STRIDE
        places = (self.corners // STRIDE).tolist()
        return torch.stack(
            [
                tokens[crop, :, y : y + side, x : x + side]
                for crop, (y, x) in zip(self.crop.tolist(), places, strict=True)
            ]
        )

    def corrected(self, logits: Tensor, generator: torch.Generator) -> Asked:
        """Add one click in the region where the mask (N, 1, w, w) is wrong, the middle of it likelier."""
        truth = F.avg_pool2d(self.truth, LOGIT_STRIDE)
        wrong = ((logits > 0) != (truth > 0.5)).float()
        depth = F.avg_pool2d(wrong, 5, 1, 2, count_include_pad=False) * wrong
        weight = depth.flatten(1) ** 3
        weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, truth.flatten(1) + 1e-6)
        place = torch.multinomial(weight, 1, generator=generator)
        side = truth.shape[-1]
        point = torch.cat([place % side, place // side], dim=1) * LOGIT_STRIDE + LOGIT_STRIDE // 2
        inside = truth.flatten(1).gather(1, place) > 0.5
        return replace(
            self,
            points=torch.cat([self.points, point[:, None].float()], dim=1),
            point_labels=torch.cat([self.point_labels, inside.long()], dim=1),
        )


def ask(batch: Batch, count: int, generator: torch.Generator) -> tuple[Asked, Asked]:
    """Draw prompts: clicks and boxes, on objects and some on background.

    `count` is meant for windows of 16 tokens; larger windows get fewer prompts, for about equal work.

    Returns
    -------
    clicks, boxes
        Either may be empty.
    """
    side = batch.frames.shape[-1]
    fitting = [w * STRIDE for w in WINDOWS if w * STRIDE <= side]
    window = fitting[int(torch.randint(len(fitting), (), generator=generator))]
    count = max(_FEWEST, round(count * (_WINDOW * STRIDE / window) ** 2))
    objects = _drawn(batch, count - round(count * _BACKGROUND), generator)
    empty = round(count * _BACKGROUND) if len(objects) else count // 2
    by_box = torch.rand(len(objects), generator=generator) < _BOXES
    boxes = _asked_by_box(batch, objects[by_box], empty // 2, window, generator)
    return _asked_by_click(batch, objects[~by_box], empty - empty // 2, window, generator), boxes


def _drawn(batch: Batch, count: int, generator: torch.Generator) -> Tensor:
    """Draw objects, evenly over the crops."""
    crops = batch.objects.crop
    if not len(crops):
        return crops
    share = 1 / torch.bincount(crops, minlength=len(batch.frames))[crops].float()
    return torch.multinomial(share, min(count, len(crops)), generator=generator)


def _asked_by_click(
    batch: Batch, objects: Tensor, empty: int, window: int, generator: torch.Generator
) -> Asked:
    crop, label = batch.objects.crop[objects], batch.objects.label[objects]
    points = batch.objects.centres[objects].clone()
    anywhere = torch.rand(len(points), generator=generator) >= _CENTRE
    for k in torch.nonzero(anywhere).flatten().tolist():
        y, x = torch.nonzero(batch.labels[crop[k]] == label[k], as_tuple=True)
        place = int(torch.randint(len(y), (), generator=generator))
        points[k] = torch.stack([x[place], y[place]])
    some_crop, nowhere = _background(batch, empty, generator)
    crop, points = torch.cat([crop, some_crop]), torch.cat([points, nowhere])
    label = torch.cat([label, label.new_zeros(len(nowhere))])
    corners, truth = _windows(batch, crop, label, points, window)
    local = points - corners.flip(1)
    return Asked(crop, corners, window, truth, local[:, None], torch.ones(len(local), 1).long(), None)


def _asked_by_box(
    batch: Batch, objects: Tensor, empty: int, window: int, generator: torch.Generator
) -> Asked:
    crop, label = batch.objects.crop[objects], batch.objects.label[objects]
    boxes = batch.objects.boxes[objects]
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator).clamp(-2.5, 2.5)
    boxes = boxes + noise * torch.minimum(extent * _JITTER + _PIXELS, extent * 0.2)
    some_crop, middles = _background(batch, empty, generator)
    half = 8 + 24 * torch.rand(len(middles), 2, generator=generator)
    crop, boxes = (
        torch.cat([crop, some_crop]),
        torch.cat([boxes, torch.cat([middles - half, middles + half], dim=1)]),
    )
    boxes = boxes.clamp(0, batch.frames.shape[-1])
    label = torch.cat([label, label.new_zeros(len(middles))])
    corners, truth = _windows(batch, crop, label, (boxes[:, :2] + boxes[:, 2:]) / 2, window)
    local = boxes - corners.flip(1).repeat(1, 2)
    points, labels = torch.zeros(len(boxes), 0, 2), torch.zeros(len(boxes), 0).long()
    return Asked(crop, corners, window, truth, points, labels, local)


def _background(batch: Batch, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw places (x, y) well outside of all objects; crops without background give none."""
    free = (batch.labels == 0) & batch.inside
    coarse = F.avg_pool2d(free[:, None].float(), 8)[:, 0] == 1
    weight = coarse.flatten().float()
    if count == 0 or not coarse.any():
        return batch.objects.crop[:0], torch.zeros(0, 2)
    place = torch.multinomial(weight, count, replacement=True, generator=generator)
    side = coarse.shape[-1]
    crop, rest = place // side**2, place % side**2
    return crop, torch.stack([rest % side, rest // side], dim=1) * 8.0 + 4


def _windows(
    batch: Batch, crop: Tensor, label: Tensor, centres: Tensor, window: int
) -> tuple[Tensor, Tensor]:
    """Lay a window around each centre (x, y), as for inference, and cut out the truth."""
    side = batch.frames.shape[-1]
    corners = (centres.flip(1) // STRIDE * STRIDE - window // 2).long()
    corners = (corners // STRIDE * STRIDE).clamp(0, side - window)
    truth = [
        (batch.labels[c, y : y + window, x : x + window] == wanted) & (wanted > 0)
        for c, wanted, (y, x) in zip(crop.tolist(), label, corners.tolist(), strict=True)
    ]
    if not truth:
        return corners, torch.zeros(0, 1, window, window)
    return corners, torch.stack(truth)[:, None].float()
