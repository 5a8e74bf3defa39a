"""A plane at one scale: its frame, the blocks it is encoded in, and the grid of its mask logits."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from napari_lightsam.engine.resample import AxisWeights, FloatArray, axis_weights
from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE, FixedFrame, ModelSpec, ObjectFrame

if TYPE_CHECKING:
    from torch import Tensor

    from napari_lightsam.engine.image import Plane

BLOCK = 1280
"""Largest side, in frame pixels, of what is encoded at once by a model that takes any size."""

_BLOCK_UNIT = 64  # sides of blocks are multiples of it
OVERLAP = 256
"""Frame pixels that neighbouring blocks share, so that every local window lies whole inside one of them."""

NARROW_OVERLAP = 128
"""Enough where objects are decoded in windows of half the usual side; a plane takes a fifth fewer blocks."""

LEAST_BLOCK = 2 * OVERLAP
"""Smaller blocks would hardly advance over their overlap."""

_KEPT_BLOCKS = 24  # 3-7 MB each; as many as a plane of 4096 x 4096 pixels of the frame has
_STRIP_PIXELS = 16_000_000  # source pixels, as uint8 RGB, that a fixed frame is resized from at once


class Block(NamedTuple):
    """A part of the frame that is encoded at once, in frame pixels."""

    y: int
    x: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Level:
    """One scale at which a plane is encoded and prompts are decoded.

    Attributes
    ----------
    shape
        (H, W) of the image plane.
    frame
        (h, w) of the resized plane in frame pixels, before padding.
    padded
        (h, w) after zero padding to the right and below.
    fixed
        SAM's fixed frame: masks are interpolated to the frame first and from there to the image.
    side
        Largest side of a block, in frame pixels; at least `LEAST_BLOCK`, and a multiple of 64.
    overlap
        What neighbouring blocks share at least, in frame pixels; a multiple of 64.
    """

    shape: tuple[int, int]
    frame: tuple[int, int]
    padded: tuple[int, int]
    fixed: bool
    side: int = BLOCK
    overlap: int = OVERLAP

    def narrow(self) -> Level:
        """Return the level in blocks that share less; itself where one block holds the frame."""
        return self if self._block_size() == self.padded else replace(self, overlap=NARROW_OVERLAP)

    @property
    def scale(self) -> tuple[float, float]:
        """Frame pixels per image pixel, along rows and columns."""
        return self.frame[0] / self.shape[0], self.frame[1] / self.shape[1]

    @property
    def logit_shape(self) -> tuple[int, int]:
        """Rows and columns of mask logits that show image, not padding."""
        return math.ceil(self.frame[0] / LOGIT_STRIDE), math.ceil(self.frame[1] / LOGIT_STRIDE)

    @property
    def logit_area(self) -> float:
        """Image pixels per mask logit."""
        return LOGIT_STRIDE**2 / (self.scale[0] * self.scale[1])

    def blocks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the first rows and first columns of the blocks; their product is the layout."""
        y, x = (_starts(size, self.side, self.overlap) for size in self.padded)
        return (0,) if self.fixed else y, (0,) if self.fixed else x

    def block_list(self) -> list[Block]:
        """Return all blocks, row by row."""
        size = self.padded if self.fixed else self._block_size()
        rows, columns = self.blocks()
        return [Block(y, x, size[0], size[1]) for y in rows for x in columns]

    def own(self, block: Block) -> tuple[int, int, int, int]:
        """Return the part (y0, x0, y1, x1) of the frame that a block answers for.

        Blocks share their overlaps halfway, so that each frame pixel belongs to one block, and a window as
        wide as the overlap lies whole inside it around any of them.
        """
        low, high = [], []
        for at, size, starts in zip(block[:2], block[2:], self.blocks(), strict=True):
            i = starts.index(at)
            low.append((starts[i - 1] + size + at) // 2 if i else 0)
            high.append((at + size + starts[i + 1]) // 2 if i + 1 < len(starts) else at + size)
        return low[0], low[1], high[0], high[1]

    def _block_size(self) -> tuple[int, int]:
        height, width = (_block_side(length, self.side, self.overlap) for length in self.padded)
        return height, width

    def block_of(self, y: int, x: int, size: int) -> Block:
        """Return the block whose centre is nearest to that of a square window.

        It holds the window where blocks overlap by as much; else the window reaches past it.
        """
        sides = self._block_size()
        row, column = (
            min(starts, key=lambda start, at=at, side=side: abs(start + side / 2 - at - size / 2))  # type: ignore[misc]
            for at, starts, side in zip((y, x), self.blocks(), sides, strict=True)
        )
        return Block(row, column, *sides)

    def mask_weights(self, axis: int, outputs: tuple[int, int]) -> AxisWeights:
        """Weights from mask logits to image pixels `outputs` along an axis (0 rows, 1 columns)."""
        logits, frame, image = self.padded[axis] // LOGIT_STRIDE, self.frame[axis], self.shape[axis]
        if not self.fixed:
            return axis_weights(outputs, image / frame * LOGIT_STRIDE, min(logits, self.logit_shape[axis]))
        to_image = axis_weights(outputs, image / frame, frame)
        to_frame = axis_weights((to_image.start, to_image.stop), LOGIT_STRIDE, logits)
        return AxisWeights(to_frame.start, to_frame.stop, to_image.matrix @ to_frame.matrix)


def _block_side(size: int, most: int, overlap: int) -> int:
    """Return the side of the blocks along an axis: equal ones, as few and as small as cover it."""
    if size <= most:
        return size
    count = math.ceil((size - overlap) / (most - overlap))
    return math.ceil((size + (count - 1) * overlap) / count / _BLOCK_UNIT) * _BLOCK_UNIT


def _starts(size: int, most: int, overlap: int) -> tuple[int, ...]:
    """Return where overlapping blocks start along an axis; the last one ends with the axis."""
    side = _block_side(size, most, overlap)
    if side == size:
        return (0,)
    return (*range(0, size - side, side - overlap), size - side)


def make_level(shape: tuple[int, int], spec: ModelSpec, scale: float | None = None) -> Level:
    """Lay out a plane at a scale.

    Parameters
    ----------
    shape
        (H, W) of the plane.
    spec
        Its frame decides padding; a fixed frame also decides the scale.
    scale
        Frame pixels per image pixel, for a model that takes any size.
    """
    frame = spec.frame
    if isinstance(frame, FixedFrame):
        factor = frame.size / max(shape)
        resized = (max(1, int(shape[0] * factor + 0.5)), max(1, int(shape[1] * factor + 0.5)))
        return Level(shape, resized, (frame.size, frame.size), fixed=True, side=BLOCK)
    assert scale is not None
    resized = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    padded = tuple(max(frame.least, math.ceil(side / frame.multiple) * frame.multiple) for side in resized)
    return Level(shape, resized, (padded[0], padded[1]), fixed=False, side=BLOCK)


def read_block(plane: Plane, level: Level, block: Block, spec: ModelSpec) -> FloatArray:
    """Return the standardised, zero-padded input (3, h, w) of one block."""
    if isinstance(spec.frame, FixedFrame):
        return _fixed_frame(plane, level, spec.frame)
    return _object_block(plane, level, block, spec.frame)


def _fixed_frame(plane: Plane, level: Level, frame: FixedFrame) -> FloatArray:
    # PIL's antialiased bilinear filter, rounded to uint8, is what these models were trained with; a
    # float filter differs in 5% of the pixels.
    height, width = level.frame
    mean, std = np.array(frame.mean, np.float32), np.array(frame.std, np.float32)
    out = np.zeros((3, *level.padded), np.float32)
    step = max(1, int(_STRIP_PIXELS / plane.shape[1] * level.scale[0]))
    for y in range(0, height, step):
        strip = _resized_rows(plane, level, (y, min(y + step, height)))
        out[:, y : y + len(strip), :width] = ((strip - mean) / std).transpose(2, 0, 1)
    return out


def _resized_rows(plane: Plane, level: Level, rows: tuple[int, int]) -> FloatArray:
    """Return rows of the resized plane (h, W, 3) from just the rows they need; within one grey of PIL's."""
    factor = plane.shape[0] / level.frame[0]
    top, bottom = rows[0] * factor, rows[1] * factor
    halo = math.ceil(factor) + 1
    start, stop = max(0, math.floor(top) - halo), min(plane.shape[0], math.ceil(bottom) + halo)
    box = (0, top - start, plane.shape[1], min(bottom - start, stop - start))
    image = Image.fromarray(plane.to_uint8((start, stop)))
    resized = image.resize((level.frame[1], rows[1] - rows[0]), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized, np.float32)


def _object_block(plane: Plane, level: Level, block: Block, frame: ObjectFrame) -> FloatArray:
    out = np.zeros((3, block.height, block.width), np.float32)
    height = min(block.height, level.frame[0] - block.y)
    width = min(block.width, level.frame[1] - block.x)
    if height > 0 and width > 0:
        rows = axis_weights((block.y, block.y + height), level.scale[0], plane.shape[0], antialias=True)
        columns = axis_weights((block.x, block.x + width), level.scale[1], plane.shape[1], antialias=True)
        if level.frame != level.shape:
            part = plane.resized(rows, columns)
        else:
            part = plane.read((rows.start, rows.stop), (columns.start, columns.stop))
        out[:, :height, :width] = (part - plane.mean) / max(plane.std, frame.min_std)
    return out


class BlockReader:
    """Reads the blocks of one plane in turn; what a block shares with the last one is not read again.

    Parameters
    ----------
    plane, level, spec
        As for `read_block`.
    """

    def __init__(self, plane: Plane, level: Level, spec: ModelSpec) -> None:
        self._plane, self._level, self._spec = plane, level, spec
        self._last: tuple[Block, FloatArray] | None = None

    def read(self, block: Block) -> FloatArray:
        """Return the standardised, zero-padded input (3, h, w) of one block."""
        if self._last is not None and self._last[0] == block:
            return self._last[1]
        shared = self._shared_columns(block)
        if self._last is None or not shared:
            values = read_block(self._plane, self._level, block, self._spec)
        else:
            rest = Block(block.y, block.x + shared, block.height, block.width - shared)
            new = read_block(self._plane, self._level, rest, self._spec)
            values = np.concatenate([self._last[1][:, :, -shared:], new], axis=2)
        self._last = block, values
        return values

    def _shared_columns(self, block: Block) -> int:
        """Return how many columns of a block the last one, to its left, has read already."""
        if self._last is None or self._last[0].y != block.y:
            return 0
        left = self._last[0]
        return max(0, left.x + left.width - block.x) if left.x < block.x else 0


class BlockCache:
    """Encoded blocks of one plane, the least recently used dropped first; safe between threads.

    Parameters
    ----------
    kept
        How many blocks are kept.
    """

    def __init__(self, kept: int = _KEPT_BLOCKS) -> None:
        self._kept = kept
        self._blocks: OrderedDict[tuple[Level, Block], Tensor] = OrderedDict()
        self._lock = Lock()

    def get(self, level: Level, block: Block) -> Tensor | None:
        """Return a block's tokens, or None."""
        with self._lock:
            if (level, block) in self._blocks:
                self._blocks.move_to_end((level, block))
            return self._blocks.get((level, block))

    def put(self, level: Level, block: Block, tokens: Tensor) -> None:
        """Keep a block's tokens."""
        with self._lock:
            self._blocks[level, block] = tokens
            while len(self._blocks) > self._kept:
                self._blocks.popitem(last=False)


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A plane made ready for prompts; its scales are encoded when a prompt first needs them.

    Attributes
    ----------
    plane
        The checked image plane. It is read lazily, so the array must not change meanwhile.
    object_size
        Typical equivalent circular diameter in pixels, or None when it is not known.
    model
        Hash of the weights that this embedding belongs to.
    """

    plane: Plane
    object_size: float | None
    model: str
    cache: BlockCache = field(default_factory=BlockCache, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane in pixels."""
        return self.plane.shape


def window_start(centre: float, length: int, window: int) -> int:
    """Return the first frame pixel of a window along an axis, on the token grid and inside the frame.

    Parameters
    ----------
    centre
        Frame pixel the window is laid around.
    length
        Padded frame length.
    window
        Window length; both are multiples of 16.
    """
    token = int(centre // STRIDE)
    return int(np.clip(token * STRIDE - window // 2, 0, length - window))
