"""A plane at one scale: its frame, the blocks it is encoded in, and the grid of its mask logits."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from napari_lightsam.engine.resample import AxisWeights, FloatArray, apply_weights, axis_weights
from napari_lightsam.model.spec import LOGIT_STRIDE, STRIDE, FixedFrame, ModelSpec, ObjectFrame

if TYPE_CHECKING:
    from torch import Tensor

    from napari_lightsam.engine.image import Plane

BLOCK = 1024
"""Largest side, in frame pixels, of what is encoded at once by a model that takes any size."""

_OVERLAP = 256  # every local window lies whole inside one block
_KEPT_BLOCKS = 64  # 2-4 MB each


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
    """

    shape: tuple[int, int]
    frame: tuple[int, int]
    padded: tuple[int, int]
    fixed: bool

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
        y, x = (_starts(size) for size in self.padded)
        return (0,) if self.fixed else y, (0,) if self.fixed else x

    def block_of(self, y: int, x: int, size: int) -> Block:
        """Return the block whose centre is nearest to a square window, among those that hold it."""
        starts = (
            min(
                (s for s in _starts(length) if s <= at and at + size <= s + min(BLOCK, length)),
                key=lambda s, at=at, length=length: abs(s + min(BLOCK, length) / 2 - at - size / 2),  # type: ignore[misc]
            )
            for at, length in zip((y, x), self.padded, strict=True)
        )
        row, column = starts
        return Block(row, column, min(BLOCK, self.padded[0]), min(BLOCK, self.padded[1]))

    def mask_weights(self, axis: int, outputs: tuple[int, int]) -> AxisWeights:
        """Weights from mask logits to image pixels `outputs` along an axis (0 rows, 1 columns)."""
        logits, frame, image = self.padded[axis] // LOGIT_STRIDE, self.frame[axis], self.shape[axis]
        if not self.fixed:
            return axis_weights(outputs, image / frame * LOGIT_STRIDE, min(logits, self.logit_shape[axis]))
        to_image = axis_weights(outputs, image / frame, frame)
        to_frame = axis_weights((to_image.start, to_image.stop), LOGIT_STRIDE, logits)
        return AxisWeights(to_frame.start, to_frame.stop, to_image.matrix @ to_frame.matrix)


def _starts(size: int) -> tuple[int, ...]:
    """Return where overlapping blocks start along an axis; the last one ends with the axis."""
    if size <= BLOCK:
        return (0,)
    steps = range(0, size - BLOCK, BLOCK - _OVERLAP)
    return (*steps, size - BLOCK)


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
        return Level(shape, resized, (frame.size, frame.size), fixed=True)
    assert scale is not None
    resized = (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
    padded = tuple(math.ceil(side / frame.multiple) * frame.multiple for side in resized)
    return Level(shape, resized, (padded[0], padded[1]), fixed=False)


def read_block(plane: Plane, level: Level, block: Block, spec: ModelSpec) -> FloatArray:
    """Return the standardised, zero-padded input (3, h, w) of one block."""
    if isinstance(spec.frame, FixedFrame):
        return _fixed_frame(plane, level, spec.frame)
    return _object_block(plane, level, block, spec.frame)


def _fixed_frame(plane: Plane, level: Level, frame: FixedFrame) -> FloatArray:
    # PIL's antialiased bilinear filter, rounded to uint8, is what these models were trained with; a
    # float filter differs in 5% of the pixels.
    height, width = level.frame
    resized = Image.fromarray(plane.to_uint8()).resize((width, height), Image.Resampling.BILINEAR)
    mean, std = np.array(frame.mean, np.float32), np.array(frame.std, np.float32)
    standard = (np.asarray(resized, np.float32) - mean) / std
    out = np.zeros((3, *level.padded), np.float32)
    out[:, :height, :width] = standard.transpose(2, 0, 1)
    return out


def _object_block(plane: Plane, level: Level, block: Block, frame: ObjectFrame) -> FloatArray:
    out = np.zeros((3, block.height, block.width), np.float32)
    height = min(block.height, level.frame[0] - block.y)
    width = min(block.width, level.frame[1] - block.x)
    if height > 0 and width > 0:
        rows = axis_weights((block.y, block.y + height), level.scale[0], plane.shape[0], antialias=True)
        columns = axis_weights((block.x, block.x + width), level.scale[1], plane.shape[1], antialias=True)
        part = plane.read((rows.start, rows.stop), (columns.start, columns.stop))
        if level.frame != level.shape:
            part = apply_weights(part, rows, columns)
        out[:, :height, :width] = (part - plane.mean) / max(plane.std, frame.min_std)
    return out


class BlockCache:
    """Encoded blocks of one plane, the least recently used dropped first; safe between threads."""

    def __init__(self) -> None:
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
            while len(self._blocks) > _KEPT_BLOCKS:
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
