"""The whole network: encoder, prompt encoder and mask decoder, put together by injection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_lightsam.model.decoder import MaskDecoder
    from napari_lightsam.model.prompts import PromptEncoder
    from napari_lightsam.model.proposals import ProposalHead


class PromptTensors(NamedTuple):
    """Prompts of N objects, in frame pixels relative to the area they are decoded in.

    Attributes
    ----------
    points, labels
        (N, P, 2) as (x, y), and (N, P): 1 positive, 0 negative, -1 padding; P may be 0.
    boxes
        (N, 4) as (x0, y0, x1, y1), or None.
    masks
        (N, 1, 4h, 4w) logits, or None.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    masks: Tensor | None = None


class Sam(nn.Module):
    """Segment Anything with any image encoder of stride 16.

    Parameters
    ----------
    image_encoder
        (B, 3, H, W) -> (B, 256, H/16, W/16).
    prompt_encoder, mask_decoder
        SAM's own.
    proposal_head
        Finds objects in the embedding without a prompt; None in models that were not trained with one.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        proposal_head: ProposalHead | None = None,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.proposal_head = proposal_head

    def encode(self, frames: Tensor) -> Tensor:
        """Embed frames (B, 3, H, W) as (B, 256, H/16, W/16)."""
        return self.image_encoder(frames)  # type: ignore[no-any-return]

    def propose(self, tokens: Tensor) -> Tensor | None:
        """Tell where objects are in an embedding (B, 256, h, w); None without a proposal head.

        Returns
        -------
        (B, 5, 2h, 2w)
            A cell for each 8 x 8 frame pixels: the probability that it holds an object's centre, and the
            distances in frame pixels from its middle to the top, left, bottom and right of the object.
        """
        if self.proposal_head is None:
            return None
        centres, distances = self.proposal_head(tokens)
        return torch.cat([centres.sigmoid(), distances], dim=1)

    def decode(self, tokens: Tensor, prompts: PromptTensors, multimask: bool) -> tuple[Tensor, Tensor]:
        """Decode N prompts in one embedding, or each in its own window.

        Parameters
        ----------
        tokens
            (1, 256, h, w) for all prompts, or (N, 256, h, w).
        prompts
            In frame pixels; (0, 0) is the corner of the area that `tokens` covers.
        multimask
            Three masks for an ambiguous prompt instead of one.

        Returns
        -------
        logits, iou
            (N, M, 4h, 4w) and (N, M).
        """
        return self.mask_decoder.read(*self.attend(tokens, prompts), multimask)

    def attend(self, tokens: Tensor, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """Return what the decoder reads its answers from: output tokens and pixels, as `MaskDecoder.attend`.

        Parameters are those of `decode`.
        """
        height, width = tokens.shape[-2:]
        kind = tokens.dtype  # positions are computed in float32 whatever the network's precision
        place = self.prompt_encoder.pe_layer.grid(height, width).to(kind)
        sparse = self.prompt_encoder.tokens(prompts.points, prompts.labels, prompts.boxes, (height, width))
        dense = self.prompt_encoder.dense(None if prompts.masks is None else prompts.masks.to(kind))
        sparse = sparse.to(kind)
        return self.mask_decoder.attend(tokens, place, sparse, dense)
