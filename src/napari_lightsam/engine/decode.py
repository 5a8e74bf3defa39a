"""Decoding prompts at one level: windows, batches and mask prompts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_lightsam.engine.level import Block, Embedding, Level, read_block, window_start
from napari_lightsam.engine.prompts import Prompts, to_frame
from napari_lightsam.engine.resample import FloatArray, apply_weights, axis_weights, paste
from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE, ModelSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.runtime import Runtime

BATCH = 64
"""Prompts decoded at once."""

_MASK_LOGIT = 8.0  # logit that stands for "certainly inside" when a plain mask becomes a prompt


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """One decoded batch.

    Attributes
    ----------
    index
        (n,), which of the prompts.
    logits, iou
        (n, M, h, w) and (n, M).
    origins
        (n, 2), where each prompt's window starts on the level's logit grid.
    """

    index: NDArray[np.intp]
    logits: FloatArray
    iou: FloatArray
    origins: NDArray[np.intp]


def window_size(level: Level, spec: ModelSpec) -> int:
    """Return the side of the decoding window in frame pixels; 0 when the whole frame is decoded."""
    return 0 if level.fixed or spec.window is None else min(spec.window * STRIDE, *level.padded)


def encode_block(
    runtime: Runtime, embedding: Embedding, level: Level, block: Block, spec: ModelSpec
) -> torch.Tensor:
    """Return the tokens (1, 256, h, w) of a block, encoding it when they are not kept."""
    tokens = embedding.cache.get(level, block)
    if tokens is None:
        tokens = runtime.encode(read_block(embedding.plane, level, block, spec))
        embedding.cache.put(level, block, tokens)
    return tokens


def decode(
    runtime: Runtime,
    embedding: Embedding,
    level: Level,
    prompts: Prompts,
    spec: ModelSpec,
    *,
    multimask: bool,
    batch: int = BATCH,
) -> Iterator[Decoded]:
    """Decode the prompts of N objects at one level, block by block.

    Yields
    ------
    Decoded
        After each batch; every prompt comes exactly once.
    """
    window = window_size(level, spec)
    starts = np.zeros((len(prompts), 2), np.intp)
    places: dict[Block, list[int]] = defaultdict(list)
    whole = Block(0, 0, *level.padded)
    if window:
        extents = prompts.extents()
        centres = (extents[:, :2] + extents[:, 2:]) / 2 * np.array(level.scale)
        for i, centre in enumerate(centres):
            starts[i] = [window_start(c, n, window) for c, n in zip(centre, level.padded, strict=True)]
            places[level.block_of(int(starts[i, 0]), int(starts[i, 1]), window)].append(i)
    else:
        places[whole] = list(range(len(prompts)))
    for block, members in sorted(places.items()):
        tokens = encode_block(runtime, embedding, level, block, spec)
        for first in range(0, len(members), batch):
            index = np.array(members[first : first + batch])
            corner = starts[index]
            local = _windows(tokens, corner - (block.y, block.x), window) if window else tokens
            tensors = _tensors(prompts.take(index), level, corner, window or level.padded[0])
            logits, iou = runtime.decode(local, tensors, multimask)
            yield Decoded(index, logits, iou, corner // LOGIT_STRIDE)


def _windows(tokens: torch.Tensor, corners: NDArray[np.intp], window: int) -> torch.Tensor:
    """Cut the windows that start at `corners` (frame pixels in the block) out of its tokens."""
    side = window // STRIDE
    return torch.cat([tokens[..., y : y + side, x : x + side] for y, x in corners // STRIDE])


def _tensors(prompts: Prompts, level: Level, corners: NDArray[np.intp], window: int) -> PromptTensors:
    origins = corners.astype(np.float64)
    points = to_frame(prompts.points, level, origins)
    boxes = None
    if prompts.boxes is not None:
        flipped = to_frame(prompts.boxes.reshape(-1, 2, 2), level, origins, corners=True)
        boxes = torch.from_numpy(flipped.reshape(-1, 4)).float()
    masks = None
    if prompts.masks is not None:
        side = window // LOGIT_STRIDE
        drawn = [
            _mask_prompt(m, level, c // LOGIT_STRIDE, side)
            for m, c in zip(prompts.masks, corners, strict=True)
        ]
        masks = torch.from_numpy(np.stack(drawn)[:, None])
    return PromptTensors(torch.from_numpy(points).float(), torch.from_numpy(prompts.labels), boxes, masks)


def _mask_prompt(mask: Mask, level: Level, corner: NDArray[np.intp], side: int) -> FloatArray:
    """Return a mask as logits (side, side) of the window that starts at `corner` on the logit grid."""
    if mask.logits is not None and mask.logits.level == level:
        values, origin = mask.logits.values, np.array(mask.logits.origin) - corner
        out = np.full((side, side), min(-_MASK_LOGIT, float(values.min())), np.float32)
    else:
        values, origin = _rasterise(mask, level), _logit_box(mask, level)[:2] - corner
        out = np.full((side, side), -_MASK_LOGIT, np.float32)
    paste(out, values, (int(origin[0]), int(origin[1])))
    return out


def _logit_box(mask: Mask, level: Level) -> NDArray[np.intp]:
    """Return the box (y0, x0, y1, x1) on the logit grid that a mask can touch."""
    box = np.array(mask.box) * np.tile(level.scale, 2) / LOGIT_STRIDE
    low = np.floor(box[:2]).astype(np.intp)
    high = np.ceil(box[2:]).astype(np.intp)
    return np.concatenate([low, np.maximum(high, low + 1)])


def _rasterise(mask: Mask, level: Level) -> FloatArray:
    """Return a mask as logits from the fraction of each logit's area that it covers."""
    y0, x0, y1, x1 = _logit_box(mask, level)
    weights = [
        axis_weights((int(a), int(b)), scale / LOGIT_STRIDE, size, antialias=True)
        for a, b, scale, size in (
            (y0, y1, level.scale[0], level.shape[0]),
            (x0, x1, level.scale[1], level.shape[1]),
        )
    ]
    plane = np.zeros((weights[0].stop - weights[0].start, weights[1].stop - weights[1].start), np.float32)
    paste(plane, mask.crop, (mask.offset[0] - weights[0].start, mask.offset[1] - weights[1].start))
    return (2 * apply_weights(plane, *weights) - 1) * _MASK_LOGIT
