"""One training step: what a batch's prompts cost, and how well a model answers validation crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from napari_lightsam.train.losses import answer_loss, proposal_loss, true_iou
from napari_lightsam.train.prompting import CHECKED, VARIED, Asked, PromptMix, ask, happens
from napari_lightsam.train.proposing import match_proposals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.model.sam import Sam
    from napari_lightsam.train.crops import Batch


class StepLosses(NamedTuple):
    """Losses of a step; `total` is what is minimised."""

    total: Tensor
    first: Tensor
    later: Tensor
    proposals: Tensor


def step_losses(
    model: Sam,
    batch: Batch,
    prompts: int,
    rounds: int,
    generator: torch.Generator,
    mix: PromptMix = VARIED,
) -> StepLosses:
    """Encode a batch once, prompt its objects, correct the answers, and add up the losses.

    Parameters
    ----------
    model
        In training mode.
    batch
        Crops and truth.
    prompts
        Prompts drawn.
    rounds
        Most corrective clicks after the first answer; their number is random.
    generator
        Of everything random here, on the batch's device.
    mix
        How prompts vary.
    """
    tokens = encode(model, batch)
    first, later = [], []
    extra = 0
    if rounds:
        extra = int(torch.randint(rounds + 1, (), generator=generator, device=generator.device))
    for asked in ask(batch, prompts, generator, mix):
        if not len(asked.crop):
            continue
        local = asked.cut(tokens)
        logits, iou = decode_asked(model, local, asked, None)
        first.append(answer_loss(logits, iou, asked.truth))
        if happens(mix.hard, generator):
            harder = asked.harder(_best(logits, iou), generator)
            if len(harder.crop):
                answer = decode_asked(model, harder.cut(tokens), harder, None)
                first.append(answer_loss(*answer, harder.truth))
        for _ in range(extra):
            asked, previous = answer_again(asked, logits, iou, generator)
            masks = None if happens(mix.bare, generator) else previous
            logits, iou = decode_asked(model, local, asked, masks)
            later.append(answer_loss(logits, iou, asked.truth))
    zero = tokens.new_zeros((), dtype=torch.float32)
    one = torch.cat(first).mean() if first else zero
    more = torch.cat(later).mean() if later else zero
    found = zero
    if model.proposal_head is not None:
        centres, distances = model.proposal_head(tokens)
        found = proposal_loss(centres, distances, batch)
    return StepLosses(one + more + found, one.detach(), more.detach(), found.detach())


def encode(model: Sam, batch: Batch) -> Tensor:
    """Embed a batch's frames, or go on from the features that it holds."""
    if batch.features is None:
        return model.encode(batch.frames)
    return model.image_encoder.neck(batch.features)  # type: ignore[operator, no-any-return]  # it has one


def decode_asked(model: Sam, local: Tensor, asked: Asked, masks: Tensor | None) -> tuple[Tensor, Tensor]:
    """Answer prompts: logits (N, M, w, w) and predicted IoU (N, M), M = 3 for single clicks."""
    multimask = asked.ambiguous and masks is None
    logits, iou = model.decode(local, asked.tensors(masks), multimask)
    return logits.float(), iou.float()


def _best(logits: Tensor, iou: Tensor) -> Tensor:
    """Return the mask (N, 1, w, w) that the model holds for best."""
    best = iou.detach().argmax(1)
    return logits.detach()[torch.arange(len(best), device=best.device), best][:, None]


def answer_again(
    asked: Asked, logits: Tensor, iou: Tensor, generator: torch.Generator
) -> tuple[Asked, Tensor]:
    """Correct the mask that the model holds for best by one click."""
    previous = _best(logits, iou)
    return asked.corrected(previous, generator), previous


@dataclass(frozen=True, slots=True)
class Check:
    """How a model answers validation crops.

    Attributes
    ----------
    click, box, corrected
        Mean IoU of one click (the mask with the highest predicted IoU), of a jittered box, and after three
        corrective clicks.
    calibration
        Mean absolute error of the predicted IoU, prompts on background included.
    recall, proposals
        Part of the objects that have a proposed box of IoU .5, and proposals per object; 0 without a head.
    """

    click: float
    box: float
    corrected: float
    calibration: float
    recall: float
    proposals: float

    @property
    def score(self) -> float:
        """One number to compare checkpoints by."""
        return (self.click + self.box + self.corrected + self.recall) / 4

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in asdict(self).items())


@torch.no_grad()
def check(model: Sam, batches: Sequence[Batch], prompts: int = 48) -> Check:
    """Measure a model in evaluation mode on fixed crops with fixed prompts."""
    sums = {"click": [0.0, 0], "box": [0.0, 0], "corrected": [0.0, 0], "calibration": [0.0, 0]}

    def note(name: str, values: Tensor) -> None:
        sums[name][0] += float(values.sum())
        sums[name][1] += len(values)

    found = objects = proposed = 0
    for number, batch in enumerate(batches):
        generator = torch.Generator(batch.frames.device).manual_seed(number)
        tokens = model.encode(batch.frames)
        for asked, name in zip(
            ask(batch, prompts, generator, windows=CHECKED), ("click", "box"), strict=True
        ):
            if not len(asked.crop):
                continue
            real = asked.truth.flatten(1).amax(1) > 0
            local = asked.cut(tokens)
            logits, iou = decode_asked(model, local, asked, None)
            best = iou.argmax(1, keepdim=True)
            reached = true_iou(logits, asked.truth).gather(1, best)[:, 0]
            note("calibration", (iou.gather(1, best)[:, 0] - reached).abs())
            note(name, reached[real])
            for _ in range(3):
                asked, previous = answer_again(asked, logits, iou, generator)
                logits, iou = decode_asked(model, local, asked, previous)
            note("corrected", true_iou(logits, asked.truth)[real, 0])
        maps = model.propose(tokens)
        if maps is not None:
            hit, made = match_proposals(maps, batch)
            found, proposed, objects = found + hit, proposed + made, objects + len(batch.objects.crop)
    means = {name: total / max(count, 1) for name, (total, count) in sums.items()}
    return Check(**means, recall=found / max(objects, 1), proposals=proposed / max(objects, 1))
