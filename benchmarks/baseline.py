"""The published automatic mask generator, written plainly: what every speed is compared with.

The image is resized to a frame of 1024, encoded in float32 by eager PyTorch, and 32 x 32 points are decoded
in batches of 64. The embedding is repeated for each prompt, attention writes its full matrix, all masks are
enlarged to the frame and then to the image before any is dropped, and what passes predicted IoU and
stability goes through box non-maximum suppression. No mask is merged. Networks are this package's own
modules with the batch norms left as they were trained, so that only the procedure differs.

References
----------
Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix B; Zhang et al., *Faster Segment Anything*
(MobileSAM), arXiv 2306.14289.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.weights import read_checkpoint
from napari_lightsam.model.build import build_sam, sam_state_dict
from napari_lightsam.model.decoder import Attention
from napari_lightsam.model.layers import LayerNorm2d
from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import FixedFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_lightsam.model.sam import Sam


class PlainAttention(nn.Module):
    """Attention as published: every prompt has its own keys, and the whole matrix is written out."""

    def __init__(self, trained: Attention) -> None:
        super().__init__()
        self.heads = trained.heads
        self.q_proj, self.k_proj = trained.q_proj, trained.k_proj
        self.v_proj, self.out_proj = trained.v_proj, trained.out_proj

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from q (N, Lq, C) to k and v (N, Lk, C)."""
        q, k, v = (
            projection(x).reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (N, heads, L, d)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2))


class PlainLayerNorm2d(nn.Module):
    """Layer norm over channels as published: mean, deviation and scale in separate passes."""

    def __init__(self, trained: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = trained.weight, trained.bias
        self.eps = trained.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) over C."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def published_network(name: str = "lightsam") -> Sam:
    """Load a TinyViT model in float32 without this package's inference-time changes.

    Batch norm stays apart from its convolution, and neither encoder nor decoder uses fused attention.
    """
    paths = find_weights(name)
    assert paths is not None, f"the weights of {name!r} are not on this machine"
    model = build_sam("vit_t")
    tensors = sam_state_dict(read_checkpoint(paths[0]).tensors, "vit_t")
    model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("proposal_head.")})
    for module in list(model.modules()):
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010  (timm's plain attribute)
        for part, child in list(module.named_children()):
            if isinstance(child, Attention):
                setattr(module, part, PlainAttention(child))
            elif isinstance(child, LayerNorm2d):
                setattr(module, part, PlainLayerNorm2d(child))
    return model.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True)
class Settings:
    """Thresholds of the generator; the published values by default.

    Attributes
    ----------
    points_per_side, batch
        Lattice of prompts, and how many are decoded at once.
    iou_threshold, stability_threshold, stability_offset
        A mask needs this predicted IoU, and this stability between the logit levels +-offset.
    box_nms
        A box that overlaps a better one by more than this IoU is dropped.
    """

    points_per_side: int = 32
    batch: int = 64
    iou_threshold: float = 0.88
    stability_threshold: float = 0.95
    stability_offset: float = 1.0
    box_nms: float = 0.7

    @property
    def batches(self) -> int:
        """Number of decoder batches of one image."""
        return math.ceil(self.points_per_side**2 / self.batch)


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Masks that passed: bool (n, H, W), predicted IoU (n,) and boxes (n, 4) as (x0, y0, x1, y1)."""

    masks: Tensor
    iou: Tensor
    boxes: Tensor


class PlainGenerator:
    """The published procedure for uint8 images.

    Parameters
    ----------
    network
        From `published_network`.
    frame
        Size, mean and deviation of the square frame.
    settings
        Thresholds.
    """

    def __init__(
        self, network: Sam, frame: FixedFrame | None = None, settings: Settings | None = None
    ) -> None:
        self.network = network
        self.frame = frame or FixedFrame()
        self.settings = settings or Settings()

    def resized(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the size an image is resized to: its longer side fills the frame."""
        scale = self.frame.size / max(shape)
        return int(shape[0] * scale + 0.5), int(shape[1] * scale + 0.5)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Return the standardised, padded frame (1, 3, size, size) of an image (H, W) or (H, W, 3)."""
        colour = image if image.ndim == 3 else np.stack([image] * 3, axis=-1)
        height, width = self.resized(image.shape[:2])
        resized = Image.fromarray(colour).resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized, np.float32))
        standard = (pixels - torch.tensor(self.frame.mean)) / torch.tensor(self.frame.std)
        padding = (0, self.frame.size - width, 0, self.frame.size - height)
        return F.pad(standard.permute(2, 0, 1), padding)[None]

    @torch.no_grad()
    def encode(self, frame: Tensor) -> Tensor:
        """Return the embedding (1, 256, size/16, size/16)."""
        return self.network.encode(frame)

    @torch.no_grad()
    def predict(
        self,
        tokens: Tensor,
        shape: tuple[int, int],
        points: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode N points (N, 2), or N boxes (N, 4), in (x, y); the masks come at the size of the image.

        Returns
        -------
        logits, iou
            (N, M, H, W) and (N, M) with M = 3 for points and 1 for boxes.
        """
        height, width = self.resized(shape)
        scale = torch.tensor([width / shape[1], height / shape[0]], dtype=torch.float64)
        n = len(points) if points is not None else len(boxes) if boxes is not None else 0
        xy = torch.zeros(n, 0, 2) if points is None else (points * scale).float()[:, None]
        box = None if boxes is None else (boxes.reshape(-1, 2, 2) * scale).reshape(-1, 4).float()
        prompts = PromptTensors(xy, torch.ones(xy.shape[:2], dtype=torch.int64), box)
        repeated = torch.repeat_interleave(tokens, n, dim=0)
        small, iou = self.network.decode(repeated, prompts, points is not None)
        size = (self.frame.size, self.frame.size)
        framed = F.interpolate(small, size, mode="bilinear", align_corners=False)
        framed = framed[..., :height, :width]
        return F.interpolate(framed, shape, mode="bilinear", align_corners=False), iou

    def lattice(self, shape: tuple[int, int]) -> Tensor:
        """Return the prompts (n * n, 2) as (x, y) in image pixels."""
        unit = (torch.arange(self.settings.points_per_side, dtype=torch.float64) + 0.5) / (
            self.settings.points_per_side
        )
        y, x = torch.meshgrid(unit * shape[0], unit * shape[1], indexing="ij")
        return torch.stack([x, y], dim=-1).reshape(-1, 2)

    @torch.no_grad()
    def batch(self, tokens: Tensor, shape: tuple[int, int], points: Tensor) -> Kept:
        """Decode one batch of points, enlarge all its masks, then drop the poor ones."""
        chosen = self.settings
        logits, scores = self.predict(tokens, shape, points)
        flat, iou = logits.flatten(0, 1), scores.flatten()
        good = iou > chosen.iou_threshold
        flat, iou = flat[good], iou[good]
        inner = (flat > chosen.stability_offset).sum(dim=(1, 2))
        outer = (flat > -chosen.stability_offset).sum(dim=(1, 2))
        good = inner / outer >= chosen.stability_threshold
        masks = flat[good] > 0
        return Kept(masks, iou[good], mask_boxes(masks))

    def generate(
        self, image: NDArray[np.uint8], after: Callable[[int], object] = lambda done: None
    ) -> NDArray[np.bool_]:
        """Segment everything; returns bool masks (n, H, W), best first."""
        shape = (image.shape[0], image.shape[1])
        tokens = self.encode(self.prepare(image))
        kept = []
        for done, points in enumerate(self.lattice(shape).split(self.settings.batch), start=1):
            kept.append(self.batch(tokens, shape, points))
            after(done)
        boxes, iou = torch.cat([k.boxes for k in kept]), torch.cat([k.iou for k in kept])
        masks = torch.cat([k.masks for k in kept])
        return masks[box_nms(boxes, iou, self.settings.box_nms)].numpy()


def mask_boxes(masks: Tensor) -> Tensor:
    """Return the boxes (n, 4) of bool masks (n, H, W), from first to last pixel, as (x0, y0, x1, y1)."""
    boxes = torch.zeros(len(masks), 4)
    for i, mask in enumerate(masks):
        y, x = torch.nonzero(mask, as_tuple=True)
        if len(y):
            boxes[i] = torch.stack([x.min(), y.min(), x.max(), y.max()]).float()
    return boxes


def box_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Return the indices, best first, of boxes that overlap no better one by more than `threshold`."""
    kept: list[int] = []
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        low = torch.maximum(boxes[i, :2], boxes[kept, :2])
        high = torch.minimum(boxes[i, 2:], boxes[kept, 2:])
        shared = (high - low).clamp(min=0).prod(dim=1)
        if not (shared > threshold * (areas[i] + areas[kept] - shared)).any():
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)
