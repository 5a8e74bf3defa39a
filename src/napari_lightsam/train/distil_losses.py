"""What a student learns from its teacher: the objectives of decoupled and of full-stage distillation.

References
----------
Zhang et al., *Faster Segment Anything* (MobileSAM), arXiv 2306.14289, section 3 (decoupled). Shu et al.,
*TinySAM*, arXiv 2312.13789, section 3 (full-stage, hard prompt sampling, hard mask weighting).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE
from napari_lightsam.train.losses import answer_loss, proposal_loss, true_iou
from napari_lightsam.train.prompting import VARIED, Asked, ask

if TYPE_CHECKING:
    from napari_lightsam.model.sam import Sam
    from napari_lightsam.train.crops import Batch
    from napari_lightsam.train.distil_teacher import Teacher

EMBEDDING, TOKENS, OUTPUT = 1.0, 1.0, 0.1
"""Weights of full-stage distillation's three losses. Logits are some ten times as large as the other two."""

_EPS = 1e-6


class EmbeddingLoss(NamedTuple):
    """Loss of a step of decoupled distillation."""

    total: Tensor


class FullStageLosses(NamedTuple):
    """Losses of a step of full-stage distillation, unweighted; `total` is what is minimised."""

    total: Tensor
    embedding: Tensor
    tokens: Tensor
    output: Tensor
    truth: Tensor


def visible_mean(values: Tensor, inside: Tensor) -> Tensor:
    """Average over channels and over the tokens that show image.

    Parameters
    ----------
    values
        (B, C, s, s), one for each channel of each token.
    inside
        bool (B, 16s, 16s), where the frame shows image.

    Examples
    --------
    >>> import torch
    >>> inside = torch.zeros(1, 32, 32, dtype=torch.bool)
    >>> inside[:, :16, :16] = True
    >>> float(visible_mean(torch.tensor([[[[3.0, 9.0], [9.0, 9.0]]]]), inside))
    3.0
    """
    seen = F.max_pool2d(inside[:, None].float(), STRIDE)
    return (values * seen).sum() / (seen.sum() * values.shape[1]).clamp(min=1)


def hard_weight(teacher: Tensor, student: Tensor) -> Tensor:
    """Weight masks by how much better the teacher's is: sigmoid(teacher / student - 1) of their true IoU.

    Examples
    --------
    >>> import torch
    >>> hard_weight(torch.tensor([0.8, 0.8, 0.4]), torch.tensor([0.8, 0.2, 0.8])).round(decimals=3)
    tensor([0.5000, 0.9530, 0.3780])
    """
    return torch.sigmoid(teacher / (student + _EPS) - 1)


def ask_harder(asked: Asked, logits: Tensor, generator: torch.Generator) -> Asked:
    """Add one click in what is missing: in the object, outside the mask.

    Parameters
    ----------
    asked
        Prompts so far.
    logits
        (N, 1, w, w), the student's masks for them.
    generator
        Of the places.

    Returns
    -------
    Asked
        With one click more each: on the object, unless the prompt asks for nothing. Where nothing is
        missing, anywhere in the object.
    """
    truth = F.avg_pool2d(asked.truth, LOGIT_STRIDE)
    missing = torch.where(truth > 0.5, logits, -1.0)  # what is too much is no place to ask at
    return asked.corrected(missing, generator)


class Decoupled:
    """Objective: the student's embedding equals the teacher's (mean square error over the visible part).

    The decoder takes no part in it; prompts are not drawn.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def __call__(
        self, model: Sam, batch: Batch, prompts: int, rounds: int, generator: torch.Generator
    ) -> EmbeddingLoss:
        """Return the loss of a batch."""
        taught = self._teacher.tokens(batch)
        apart = model.encode(batch.frames).float() - taught
        return EmbeddingLoss(visible_mean(apart.square(), batch.inside))


class _Turn(NamedTuple):
    """Losses (N,) of one round of prompts."""

    tokens: Tensor
    output: Tensor
    truth: Tensor


class FullStage:
    """Objective: embedding, output tokens and masks equal the teacher's, and the truth is met.

    Both are asked the same prompts. After the first answer a random number of rounds follows, in which the
    student is asked where its mask lacks something (hard prompt sampling); masks count the more, the more
    the teacher's is better (hard mask weighting).

    Parameters
    ----------
    teacher
        A model that follows object size, so that both decode the same windows.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def __call__(
        self, model: Sam, batch: Batch, prompts: int, rounds: int, generator: torch.Generator
    ) -> FullStageLosses:
        """Return the losses of a batch."""
        taught = self._teacher.tokens(batch)
        own = model.encode(batch.frames)
        embedding = visible_mean((own.float() - taught).abs(), batch.inside)
        extra = 0
        if rounds:
            extra = int(torch.randint(rounds + 1, (), generator=generator, device=generator.device))
        first, later = [], []
        for asked in ask(batch, prompts, generator, VARIED):
            if len(asked.crop):
                turn, *more = self._turns(model, asked, (own, taught), extra, generator)
                first.append(turn)
                later += more
        truth = _mean([turn.truth for turn in first], own) + _mean([turn.truth for turn in later], own)
        if model.proposal_head is not None:
            centres, distances = model.proposal_head(own)
            truth = truth + proposal_loss(centres, distances, batch)
        tokens = _mean([turn.tokens for turn in first + later], own)
        output = _mean([turn.output for turn in first + later], own)
        total = truth + EMBEDDING * embedding + TOKENS * tokens + OUTPUT * output
        return FullStageLosses(total, embedding.detach(), tokens.detach(), output.detach(), truth.detach())

    def _turns(
        self,
        model: Sam,
        asked: Asked,
        embeddings: tuple[Tensor, Tensor],
        extra: int,
        generator: torch.Generator,
    ) -> list[_Turn]:
        """Ask both, the student first; then ask again where the student fails."""
        own, taught = (asked.cut(tokens) for tokens in embeddings)
        wise = self._teacher.model
        previous, turns = None, []
        for _ in range(1 + extra):
            given, multimask = asked.tensors(previous), asked.ambiguous
            tokens, pixels = model.attend(own, given)
            logits, iou = (part.float() for part in model.mask_decoder.read(tokens, pixels, multimask))
            with torch.no_grad():
                right_tokens, right_pixels = wise.attend(taught, given)
                right = wise.mask_decoder.read(right_tokens, right_pixels, multimask)[0].float()
                weight = hard_weight(true_iou(right, asked.truth), true_iou(logits, asked.truth))
            turns.append(
                _Turn(
                    tokens=(tokens.float() - right_tokens.float()).abs().mean((1, 2)),
                    output=(weight * (logits - right).abs().mean((2, 3))).mean(1),
                    truth=answer_loss(logits, iou, asked.truth),
                )
            )
            best = iou.detach().argmax(1)
            previous = logits.detach()[torch.arange(len(best), device=best.device), best][:, None]
            asked = ask_harder(asked, previous, generator)
        return turns


def _mean(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat(parts).mean() if parts else like.new_zeros((), dtype=torch.float32)
