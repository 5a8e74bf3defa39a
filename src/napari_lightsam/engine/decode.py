"""Decoding prompts at one level: windows, batches and mask prompts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
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

_BOX_PART = 0.6  # of a small window, which a box may fill: what it misses of the object must show as well
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


def window_sizes(prompts: Prompts, level: Level, spec: ModelSpec) -> NDArray[np.intp]:
    """Return the side (N,), in frame pixels, of the smallest window that has room around each object's box.

    Half the side means a quarter of the decoder's work. Prompts without a box get the usual window.
    """
    sides = np.full(len(prompts), window_size(level, spec))
    if prompts.boxes is not None and sides.any():
        spans = (prompts.boxes[:, 2:] - prompts.boxes[:, :2]) * np.array(level.scale)
        for tokens in reversed(spec.small_windows):
            sides[spans.max(axis=1) <= _BOX_PART * tokens * STRIDE] = tokens * STRIDE
    return sides


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
    side = window_size(level, spec)
    starts, places = place(prompts, level, side)
    for block, members in sorted(places.items()):
        tokens = encode_block(runtime, embedding, level, block, spec)
        for first in range(0, len(members), batch):
            index = members[first : first + batch]
            part = decode_batch(
                runtime, tokens, level, block, prompts.take(index), starts[index], side, multimask=multimask
            )
            yield replace(part, index=index)


def place(
    prompts: Prompts, level: Level, window: int
) -> tuple[NDArray[np.intp], dict[Block, NDArray[np.intp]]]:
    """Lay a window around each object's prompts, inside the block that it is cut from.

    Parameters
    ----------
    prompts
        Of N objects.
    level
        The scale.
    window
        Side in frame pixels; 0 for the whole frame.

    Returns
    -------
    starts
        (N, 2), first row and column of each window in frame pixels.
    places
        For each block that holds a window, which of the prompts.
    """
    starts = lay_windows(prompts, level, window)
    if not window:
        return starts, {Block(0, 0, *level.padded): np.arange(len(prompts))}
    places: dict[Block, list[int]] = defaultdict(list)
    for i, (y, x) in enumerate(starts.tolist()):
        block = level.block_of(y, x, window)
        starts[i] = inside(starts[i], block, window)
        places[block].append(i)
    return starts, {block: np.array(members) for block, members in places.items()}


def lay_windows(prompts: Prompts, level: Level, window: int) -> NDArray[np.intp]:
    """Return the first row and column (N, 2), in frame pixels, of a window around each object's prompts."""
    starts = np.zeros((len(prompts), 2), np.intp)
    if window:
        extents = prompts.extents()
        centres = (extents[:, :2] + extents[:, 2:]) / 2 * np.array(level.scale)
        for i, centre in enumerate(centres):
            starts[i] = [window_start(c, n, window) for c, n in zip(centre, level.padded, strict=True)]
    return starts


def inside(starts: NDArray[np.intp], block: Block, window: int) -> NDArray[np.intp]:
    """Move windows (..., 2) that reach past a block into it: nothing is encoded beyond."""
    low = np.array(block[:2])
    return starts.clip(low, low + np.array(block[2:]) - window)


def decode_batch(
    runtime: Runtime,
    tokens: torch.Tensor,
    level: Level,
    block: Block,
    prompts: Prompts,
    starts: NDArray[np.intp],
    window: int,
    *,
    multimask: bool,
) -> Decoded:
    """Decode prompts whose windows of one size lie in one block; their index counts from 0."""
    local = _windows(tokens, starts - (block.y, block.x), window) if window else tokens
    tensors = _tensors(prompts, level, starts, window or level.padded[0])
    logits, iou = runtime.decode(local, tensors, multimask)
    return Decoded(np.arange(len(prompts)), logits, iou, starts // LOGIT_STRIDE)


def _windows(tokens: torch.Tensor, corners: NDArray[np.intp], window: int) -> torch.Tensor:
    """Cut the windows that start at `corners` (frame pixels in the block) out of its tokens."""
    side = window // STRIDE
    if tokens.device.type != "cpu":
        return torch.cat([tokens[..., y : y + side, x : x + side] for y, x in corners // STRIDE])
    # On the CPU without torch, whose threads, once awake, take the cores from those of another runtime.
    bits = tokens.view(torch.int16) if tokens.dtype == torch.bfloat16 else tokens
    source = bits[0].permute(1, 2, 0).numpy()
    cut = np.stack([source[y : y + side, x : x + side] for y, x in corners // STRIDE])
    return torch.from_numpy(cut).view(tokens.dtype).permute(0, 3, 1, 2)


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
