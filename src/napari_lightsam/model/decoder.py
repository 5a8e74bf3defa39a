"""SAM's mask decoder, batched over prompts without repeating the image embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_lightsam.model.layers import LayerNorm2d, Mlp


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its outer one."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (N or 1, Lq, C) to k and v (N or 1, Lk, C).

        A batch of one on either side is shared by all prompts: its projections are computed once, and
        shared keys see all prompts' queries as one longer sequence, which is exact.
        """
        q, k, v = (
            projection(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (N, heads, L, d)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        n, length = max(q.shape[0], k.shape[0]), q.shape[2]  # len() would fix the batch size in an export
        if k.shape[0] == 1 < q.shape[0]:
            joined = q.transpose(0, 1).flatten(1, 2)[None]  # (1, heads, N * Lq, d)
            out = F.scaled_dot_product_attention(joined, k, v)[0]
            out = out.reshape(self.heads, n, length, -1).permute(1, 2, 0, 3)  # (N, Lq, heads, d)
        else:
            out = F.scaled_dot_product_attention(q.expand(n, -1, -1, -1), k, v).transpose(1, 2)
        return self.out_proj(out.flatten(2))  # type: ignore[no-any-return]


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, to the image, pass an MLP; then the image attends to the tokens."""

    def __init__(self, width: int, heads: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, heads, width)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(width, hidden), "lin2": nn.Linear(hidden, width)})
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, width // 2)

    def forward(self, tokens: Tensor, image: Tensor, prompt: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens (N, T, C) and image (N or 1, L, C).

        `prompt` and `place` are the tokens' and the image's position encodings.
        """
        if self.first:  # the first layer's tokens are the prompts themselves: no encoding, no residual
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + prompt
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompt, image + place, image))
        hidden = F.relu(self.mlp["lin1"](tokens))
        tokens = self.norm3(tokens + self.mlp["lin2"](hidden))
        image = self.norm4(image + self.cross_attn_image_to_token(image + place, tokens + prompt, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """The decoder's two-way layers and a last attention from tokens to image."""

    def __init__(self, width: int = 256, heads: int = 8, hidden: int = 2048, depth: int = 2) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(width, heads, hidden, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(width, heads, width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, image: Tensor, place: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (N, T, C) and image (N, L, C) of image (N or 1, L, C) and prompts (N, T, C)."""
        tokens = prompt
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompt, place)
        last = self.final_attn_token_to_image(tokens + prompt, image + place, image)
        return self.norm_final_attn(tokens + last), image


class MaskDecoder(nn.Module):
    """Masks and their predicted IoU from an image embedding and prompt tokens.

    References
    ----------
    Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix A.
    """

    masks = 4  # mask 0 answers unambiguous prompts, masks 1-3 offer three readings of an ambiguous one

    def __init__(self, transformer: TwoWayTransformer, width: int = 256) -> None:
        super().__init__()
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(self.masks, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp(width, width, width // 8, 3) for _ in range(self.masks)
        )
        self.iou_prediction_head = Mlp(width, width, self.masks, 3)

    def attend(self, image: Tensor, place: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Let N prompts and the image see each other.

        Parameters
        ----------
        image
            (1, C, h, w) shared by all prompts, or (N, C, h, w) with a window for each.
        place
            (1, C, h, w), position encoding of the image tokens.
        sparse
            (N, T, C), prompt tokens.
        dense
            (N or 1, C, h or 1, w or 1), mask prompts.

        Returns
        -------
        tokens, pixels
            (N, 1 + masks, C), the IoU token before the mask tokens, and (N, C/8, 4h, 4w).
        """
        height, width = image.shape[-2:]
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        prompt = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        source = (image + dense).flatten(2).transpose(1, 2)  # (N or 1, L, C)
        tokens, source = self.transformer(source, place.flatten(2).transpose(1, 2), prompt)
        pixels = source.transpose(1, 2).reshape(len(source), -1, height, width)
        return tokens[:, : 1 + self.masks], self.output_upscaling(pixels)

    def read(self, tokens: Tensor, pixels: Tensor, multimask: bool) -> tuple[Tensor, Tensor]:
        """Read the answers from what `attend` returns.

        Parameters
        ----------
        tokens, pixels
            (N, 1 + masks, C) and (N, C/8, 4h, 4w).
        multimask
            Return masks 1-3 instead of mask 0.

        Returns
        -------
        logits, iou
            (N, M, 4h, 4w) and (N, M) with M = 3 or 1.
        """
        wanted = slice(1, self.masks) if multimask else slice(0, 1)
        heads = list(self.output_hypernetworks_mlps)[wanted]
        kernels = [head(tokens[:, 1 + i]) for i, head in zip(range(self.masks)[wanted], heads, strict=True)]
        logits = torch.stack(kernels, dim=1) @ pixels.flatten(2)  # (N, M, 16 L)
        iou = self.iou_prediction_head(tokens[:, 0])[:, wanted]
        return logits.reshape(*logits.shape[:2], *pixels.shape[-2:]), iou
