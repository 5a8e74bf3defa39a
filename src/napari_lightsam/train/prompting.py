"""Simulated prompts, as a person or a proposal would give them, each with the mask that it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.train.crops import Batch

WINDOWS = (8, 10, 12, 14, 16, 16, 20, 24, 28)
"""Sides, in tokens, of the windows that prompts are decoded in; one for all prompts of a step."""

CHECKED = (14, 16, 20, 24, 28)
"""Those of checks, large enough for every object."""

_WINDOW = 16
_ROOMY = 14  # tokens: smaller windows are for objects that fill no more than _FILLED of their side
_FILLED = 0.75
_OFTEN = 4  # prompts of one object in a step, at most
_FEWEST = 10
_BOXES = 0.5  # of the prompts are boxes; the others are clicks
_CENTRE = 0.35  # of the clicks are innermost pixels
_BACKGROUND = 0.12  # of the prompts ask for nothing: their predicted IoU must be 0
_JITTER = 0.08  # deviation of a box's sides, in parts of its own side
_PIXELS = 1.5  # and in frame pixels
_COMPANIONS = 2  # most further clicks that come with a click
_ABSENT, _OUTSIDE = 0.3, 0.35  # of the further clicks; the others lie in the object
_NEAR = 7  # logits around an object in which a negative click is of use
_HARD = 0.5  # of a step's prompts are asked again when hard ones are


@dataclass(frozen=True, slots=True)
class PromptMix:
    """How prompts vary beyond one click or one box and corrections with the last mask; chances in a step.

    Attributes
    ----------
    several
        Clicks come with further ones, in the object or, negative, close to it.
    pointed
        Boxes come with a click in the object or, negative, close to it.
    bare
        A correction comes without the last mask, as when a person sets several clicks at once.
    hard
        Objects are asked for once more by a single click where the first answer missed them; the worse the
        answer, the likelier.
    """

    several: float = 0.0
    pointed: float = 0.0
    bare: float = 0.0
    hard: float = 0.0


PLAIN = PromptMix()
"""One click or one box, for checks that compare."""

VARIED = PromptMix(several=0.25, pointed=0.2, bare=0.25, hard=0.4)
"""What training asks."""


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

    @property
    def ambiguous(self) -> bool:
        """Whether prompts are single clicks, which a model answers with several masks."""
        return self.boxes is None and self.points.shape[1] == 1

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
        weight = _middle(((logits > 0) != (truth > 0.5)).float())
        weight = torch.where(weight.sum(1, keepdim=True) > 0, weight, truth.flatten(1) + 1e-6)
        place = torch.multinomial(weight, 1, generator=generator)
        inside = truth.flatten(1).gather(1, place) > 0.5
        return self._with(place, inside.long())

    def harder(self, logits: Tensor, generator: torch.Generator) -> Asked:
        """Ask again for some objects, the worse the mask (N, 1, w, w) the likelier, by one click each.

        The click lies in what the mask misses of the object; where it misses nothing, anywhere in it.
        Prompts on background are not asked again.
        """
        truth = F.avg_pool2d(self.truth, LOGIT_STRIDE) > 0.5
        shared = (truth & (logits > 0)).sum((1, 2, 3))
        error = 1 - shared / (truth | (logits > 0)).sum((1, 2, 3)).clamp(min=1)
        chance = (error + 0.05) * truth.flatten(1).any(1)
        count = min(math.ceil(len(truth) * _HARD), int((chance > 0).sum()))
        chosen = self.crop.new_zeros(0)
        if count:
            chosen = torch.multinomial(chance, count, generator=generator)
        missed = _middle((truth & (logits <= 0))[chosen].float())
        weight = torch.where(missed.sum(1, keepdim=True) > 0, missed, truth[chosen].flatten(1).float())
        nothing = Asked(
            self.crop[chosen],
            self.corners[chosen],
            self.window,
            self.truth[chosen],
            self.points.new_zeros(len(chosen), 0, 2),
            self.point_labels.new_zeros(len(chosen), 0),
            None,
        )
        if not count:
            return nothing
        place = torch.multinomial(weight, 1, generator=generator)
        return nothing._with(place, torch.ones_like(place))

    def accompanied(self, most: int, generator: torch.Generator) -> Asked:
        """Add 1 to `most` clicks each: in the object, close to it (negative), or none (padding)."""
        asked, device = self, generator.device
        truth = F.avg_pool2d(self.truth, LOGIT_STRIDE)
        near = F.max_pool2d(truth, 2 * _NEAR + 1, 1, _NEAR)
        inside, outside = (truth > 0.5).flatten(1).float(), ((near > 0) & (truth == 0)).flatten(1).float()
        for _ in range(1 + int(torch.randint(most, (), generator=generator, device=device))):
            draw = torch.rand(len(truth), 1, generator=generator, device=device)
            positive = draw >= _ABSENT + _OUTSIDE
            weight = torch.where(positive, inside, outside)
            absent = (draw < _ABSENT) | (weight.sum(1, keepdim=True) == 0)
            place = torch.multinomial(weight + absent.float(), 1, generator=generator)
            asked = asked._with(place, torch.where(absent, -1, positive.long()))
        return asked

    def _with(self, place: Tensor, labels: Tensor) -> Asked:
        """Add one click each at a logit (N, 1), with its label (N, 1)."""
        side = self.window // LOGIT_STRIDE
        point = torch.cat([place % side, place // side], dim=1) * LOGIT_STRIDE + LOGIT_STRIDE // 2
        return replace(
            self,
            points=torch.cat([self.points, point[:, None].float()], dim=1),
            point_labels=torch.cat([self.point_labels, labels], dim=1),
        )


def ask(
    batch: Batch,
    count: int,
    generator: torch.Generator,
    mix: PromptMix = PLAIN,
    windows: Sequence[int] = WINDOWS,
) -> tuple[Asked, Asked]:
    """Draw prompts: clicks and boxes, on objects and some on background.

    Parameters
    ----------
    batch
        On the generator's device.
    count
        Prompts in windows of 16 tokens; larger windows get fewer, smaller ones more, for about equal work.
    generator
        Of everything that is drawn.
    mix
        What else comes with clicks and boxes.
    windows
        Sides in tokens, one of which is drawn.

    Returns
    -------
    clicks, boxes
        Either may be empty.
    """
    side = batch.frames.shape[-1]
    fitting = [w * STRIDE for w in windows if w * STRIDE <= side]
    window = fitting[int(torch.randint(len(fitting), (), generator=generator, device=generator.device))]
    count = max(_FEWEST, round(count * (_WINDOW * STRIDE / window) ** 2))
    objects = _drawn(batch, count - round(count * _BACKGROUND), window, generator)
    empty = round(count * _BACKGROUND) if len(objects) else count // 2
    by_box = _uniform(len(objects), generator) < _BOXES
    boxes = _asked_by_box(batch, objects[by_box], empty // 2, window, generator)
    clicks = _asked_by_click(batch, objects[~by_box], empty - empty // 2, window, generator)
    if happens(mix.several, generator) and len(clicks.crop):
        clicks = clicks.accompanied(_COMPANIONS, generator)
    if happens(mix.pointed, generator) and len(boxes.crop):
        boxes = boxes.accompanied(1, generator)
    return clicks, boxes


def ask_centres(batch: Batch, objects: Tensor) -> Asked:
    """Ask for objects (K,), numbers in `batch.objects`, by one click each on the innermost pixel."""
    window = min(_WINDOW, batch.frames.shape[-1] // STRIDE) * STRIDE
    crop, label = batch.objects.crop[objects], batch.objects.label[objects]
    points = batch.objects.centres[objects]
    corners, truth = _windows(batch, crop, label, points, window)
    local = (points - corners.flip(1))[:, None]
    return Asked(crop, corners, window, truth, local, torch.ones_like(crop)[:, None], None)


def happens(chance: float, generator: torch.Generator) -> bool:
    """Draw whether something happens; nothing is drawn where it never does."""
    return chance > 0 and bool(_uniform(1, generator) < chance)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _middle(region: Tensor) -> Tensor:
    """Weigh the logits of a region (N, 1, w, w), its middle more than its rim: (N, w * w)."""
    depth = F.avg_pool2d(region, 5, 1, 2, count_include_pad=False) * region
    return depth.flatten(1) ** 3


def _drawn(batch: Batch, count: int, window: int, generator: torch.Generator) -> Tensor:
    """Draw objects, evenly over the crops; where there are few, several prompts ask for the same one."""
    crops, boxes = batch.objects.crop, batch.objects.boxes
    if not len(crops):
        return crops
    share = 1 / torch.bincount(crops, minlength=len(batch.frames))[crops].float()
    if window < _ROOMY * STRIDE:
        share = share * ((boxes[:, 2:] - boxes[:, :2]).amax(1) <= _FILLED * window)
    some = int((share > 0).sum())
    if not some:
        return crops[:0]
    whole, rest = divmod(min(count, _OFTEN * some), some)
    drawn = [torch.nonzero(share).flatten()] * whole
    if rest:
        drawn.append(torch.multinomial(share, rest, generator=generator))
    return torch.cat(drawn)


def _asked_by_click(
    batch: Batch, objects: Tensor, empty: int, window: int, generator: torch.Generator
) -> Asked:
    crop, label = batch.objects.crop[objects], batch.objects.label[objects]
    points = batch.objects.centres[objects].clone()
    anywhere = _uniform(len(points), generator) >= _CENTRE
    for k in torch.nonzero(anywhere).flatten().tolist():
        y, x = torch.nonzero(batch.labels[crop[k]] == label[k], as_tuple=True)
        place = int(torch.randint(len(y), (), generator=generator, device=y.device))
        points[k] = torch.stack([x[place], y[place]])
    some_crop, nowhere = _background(batch, empty, generator)
    crop, points = torch.cat([crop, some_crop]), torch.cat([points, nowhere])
    label = torch.cat([label, label.new_zeros(len(nowhere))])
    corners, truth = _windows(batch, crop, label, points, window)
    local = (points - corners.flip(1))[:, None]
    return Asked(crop, corners, window, truth, local, torch.ones_like(crop)[:, None], None)


def _asked_by_box(
    batch: Batch, objects: Tensor, empty: int, window: int, generator: torch.Generator
) -> Asked:
    crop, label = batch.objects.crop[objects], batch.objects.label[objects]
    boxes = batch.objects.boxes[objects]
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device).clamp(-2.5, 2.5)
    boxes = boxes + noise * torch.minimum(extent * _JITTER + _PIXELS, extent * 0.2)
    some_crop, middles = _background(batch, empty, generator)
    half = 8 + 24 * torch.rand(len(middles), 2, generator=generator, device=middles.device)
    crop, boxes = (
        torch.cat([crop, some_crop]),
        torch.cat([boxes, torch.cat([middles - half, middles + half], dim=1)]),
    )
    boxes = boxes.clamp(0, batch.frames.shape[-1])
    label = torch.cat([label, label.new_zeros(len(middles))])
    corners, truth = _windows(batch, crop, label, (boxes[:, :2] + boxes[:, 2:]) / 2, window)
    local = boxes - corners.flip(1).repeat(1, 2)
    points, labels = boxes.new_zeros(len(boxes), 0, 2), crop.new_zeros(len(boxes), 0)
    return Asked(crop, corners, window, truth, points, labels, local)


def _background(batch: Batch, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw places (x, y) well outside of all objects; crops without background give none."""
    free = (batch.labels == 0) & batch.inside
    coarse = F.avg_pool2d(free[:, None].float(), 8)[:, 0] == 1
    weight = coarse.flatten().float()
    if count == 0 or not coarse.any():
        return batch.objects.crop[:0], batch.objects.centres[:0]
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
        return corners, batch.frames.new_zeros(0, 1, window, window)
    return corners, torch.stack(truth)[:, None].float()
