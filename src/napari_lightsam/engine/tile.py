"""One block of a level while it is worked on: read once, encoded only when something is asked of it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.resample import apply_weights, axis_weights
from napari_lightsam.model.spec import LOGIT_STRIDE, FixedFrame, ModelSpec, ObjectFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_lightsam.engine.level import Block, BlockReader, Embedding, Level
    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.runtime import Runtime

_ANY_OBJECT = 48.0  # frame pixels, for models that do not follow object size
_BLANK = 0.01  # of the normalised range; less is nothing
_FLAT = 1e-5  # of the normalised range; what resampling makes of a constant


def target_of(spec: ModelSpec) -> float:
    """Return the object diameter, in frame pixels, that a model is shown."""
    return spec.frame.target if isinstance(spec.frame, ObjectFrame) else _ANY_OBJECT


class Tile:
    """One block of a level, its pixels, its embedding, and the part of the plane it answers for.

    Parameters
    ----------
    runtime, spec, embedding, level
        What is asked, about which plane, at which scale.
    block
        The part of the frame.
    reader
        Reads the pixels.

    Attributes
    ----------
    own
        (y0, x0, y1, x1) in frame pixels: each frame pixel belongs to one tile.
    """

    def __init__(
        self,
        runtime: Runtime,
        spec: ModelSpec,
        embedding: Embedding,
        level: Level,
        block: Block,
        reader: BlockReader,
    ) -> None:
        self.runtime, self.spec = runtime, spec
        self.level, self.block = level, block
        self.own = level.own(block)
        self._embedding, self._reader = embedding, reader

    @cached_property
    def pixels(self) -> FloatArray:
        """Standardised input (3, h, w)."""
        return self._reader.read(self.block)

    @cached_property
    def grey(self) -> FloatArray:
        """The part of the block that shows image, in [0, 1], one pixel a mask logit."""
        corner, sizes = self.block[:2], self.block[2:]
        height, width = (
            max(1, min(size, n - at)) for size, n, at in zip(sizes, self.level.frame, corner, strict=True)
        )
        plane, frame = self._embedding.plane, self.spec.frame
        values = self.pixels[:, :height, :width].mean(axis=0)
        if isinstance(frame, FixedFrame):
            grey = (values * np.mean(frame.std) + np.mean(frame.mean)) / 255
        else:
            grey = values * max(plane.std, frame.min_std) + plane.mean
        rows, columns = (
            axis_weights((0, -(-n // LOGIT_STRIDE)), 1 / LOGIT_STRIDE, n, antialias=True)
            for n in (height, width)
        )
        return apply_weights(np.asarray(grey, np.float32), rows, columns)

    @cached_property
    def blank(self) -> bool:
        """Nothing is to be seen: the tile need not be encoded."""
        return bool(np.ptp(self.grey) < _BLANK)

    @cached_property
    def _flat(self) -> NDArray[np.bool_]:
        """Logits around which, as far as an object reaches, the image is constant."""
        side = 2 * round(target_of(self.spec) / LOGIT_STRIDE) + 1
        high = ndimage.maximum_filter(self.grey, side)
        return np.asarray(high - ndimage.minimum_filter(self.grey, side) < _FLAT)

    def tokens(self) -> Tensor:
        """Return the embedding (1, 256, h, w), encoding the block when it is not kept."""
        tokens = self._embedding.cache.get(self.level, self.block)
        if tokens is None:
            tokens = self.runtime.encode(self.pixels)
            self._embedding.cache.put(self.level, self.block, tokens)
        return tokens

    def owns(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which points (N, 2), in image pixels, belong to this tile."""
        at = (points + 0.5) * np.array(self.level.scale)
        return np.asarray(((at >= self.own[:2]) & (at < self.own[2:])).all(axis=1))

    def logits_at(self, points: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the (row, column) of points on the tile's own logit grid."""
        at = (points + 0.5) * np.array(self.level.scale) - self.block[:2]
        return np.asarray(np.floor(at / LOGIT_STRIDE).astype(np.intp).clip(0, np.array(self.grey.shape) - 1))

    def to_image(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where positions on the tile's logit grid lie, in image pixels inside the plane."""
        frame = (logits + 0.5) * LOGIT_STRIDE + self.block[:2]
        # The last logit may reach past the plane.
        return np.asarray((frame / np.array(self.level.scale) - 0.5).clip(0, np.array(self.level.shape) - 1))

    def worth_asking(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the points around which there is anything at all: not those in a saturated or empty part."""
        if len(points) == 0:
            return points
        at = self.logits_at(points)
        return points[~self._flat[at[:, 0], at[:, 1]]]
