"""The tasks of a slide that workers do: segment a block, draw a chunk, make smaller copies.

A block's objects are kept on disk until the slide is finished, one file a block, so that a run that was
stopped goes on where it was; a file takes its name only when it is whole, and says for which settings.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_lightsam.engine.assemble import pile_objects, usual_thresholds
from napari_lightsam.engine.candidates import concatenate
from napari_lightsam.engine.larger import ask_larger
from napari_lightsam.engine.level import BlockCache, Embedding
from napari_lightsam.engine.merge import Piece
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import SAMPLERS, level_of
from napari_lightsam.engine.stopping import Stopped
from napari_lightsam.engine.walk import Walk
from napari_lightsam.errors import ConfigError, DeviceError, FileError, WeightsError
from napari_lightsam.formats.atomic import WriteError, written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_lightsam.batch.lock import Hold
    from napari_lightsam.batch.worker_model import WorkerModel
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.image import Plane
    from napari_lightsam.engine.level import Block, Level
    from napari_lightsam.engine.merge import Box
    from napari_lightsam.engine.segmenter import Segmenter

Boxes: TypeAlias = NDArray[np.int64]
Changes = dict[int, bytes | None]
"""Objects of a block that neighbours changed, by index: the bits that are left, or None."""


@dataclass(frozen=True, slots=True, eq=False)
class SlidePlan:
    """What is fixed for a whole slide before its first block.

    Attributes
    ----------
    plane
        The image, with its normalisation.
    config
        Settings with the model's defaults and thresholds filled in.
    model
        What each worker loads.
    block
        Largest side of what is encoded at once, in frame pixels.
    out, parts
        Folders of the label image, and of the blocks that are finished; absolute.
    identity
        Hash of all that decides the result.
    hold
        Tells workers when to stop.
    """

    plane: Plane
    config: EverythingConfig
    model: WorkerModel
    block: int
    out: Path
    parts: Path
    identity: str
    hold: Hold

    def look(self, segmenter: Segmenter) -> tuple[Embedding, Level]:
        """Return the image as the model looks at it."""
        cache = BlockCache(kept=1)
        embedding = Embedding(self.plane, self.config.object_size, segmenter.weights_hash, cache)
        level = replace(segmenter.level(embedding), side=self.block)
        return embedding, level_of(self.config.mode, level, segmenter.spec)

    def kept(self, index: int) -> Path:
        """Name the file of a block."""
        return self.parts / f"block_{index:07d}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A block that was segmented.

    Attributes
    ----------
    count
        Number of objects.
    reach
        (y0, x0, y1, x1) in image pixels around all of them.
    boxes, which
        int (K, 4) and (K,): boxes and indices of those that reach past the part the block answers for.
    earlier
        Its objects were there already.
    """

    count: int
    reach: Box
    boxes: Boxes
    which: Boxes
    earlier: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A block that could not be segmented.

    Attributes
    ----------
    box
        (y0, x0, y1, x1), the part of the image that it answers for.
    message
        Why.
    """

    box: Box
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The objects of a block.

    Attributes
    ----------
    boxes
        int64 (N, 4), (y0, x0, y1, x1) in image pixels.
    areas, iou, quality
        (N,): pixels, predicted IoU, and what the objects are ordered by, highest first.
    starts, bits
        (N + 1,) and uint8 (M,): object i is `bits[starts[i]:starts[i + 1]]`, rows packed as in `Piece`.
    crossing
        bool (N,), the object reaches past the part the block answers for.
    """

    boxes: Boxes
    areas: NDArray[np.int64]
    iou: NDArray[np.float32]
    quality: NDArray[np.float32]
    starts: NDArray[np.int64]
    bits: NDArray[np.uint8]
    crossing: NDArray[np.bool_]

    @classmethod
    def of(cls, pieces: Sequence[Piece], quality: NDArray[np.float32], own: Box) -> Kept:
        """Pack the objects of a block that answers for `own`."""
        boxes = np.array([piece.box for piece in pieces], np.int64).reshape(-1, 4)
        low, high = np.array(own[:2]), np.array(own[2:])
        return cls(
            boxes,
            np.array([piece.area for piece in pieces], np.int64),
            np.array([piece.iou for piece in pieces], np.float32),
            np.asarray(quality, np.float32),
            np.cumsum([0, *(piece.bits.size for piece in pieces)], dtype=np.int64),
            np.concatenate([np.zeros(0, np.uint8), *(piece.bits.ravel() for piece in pieces)]),
            np.asarray((boxes[:, :2] < low).any(axis=1) | (boxes[:, 2:] > high).any(axis=1)),
        )

    def piece(self, i: int) -> Piece:
        """Unpack one object."""
        y0, x0, y1, x1 = self.boxes[i].tolist()
        bits = self.bits[self.starts[i] : self.starts[i + 1]].reshape(y1 - y0, -1)
        return Piece((y0, x0, y1, x1), bits, int(self.areas[i]), float(self.iou[i]))

    def save(self, path: Path, identity: str, stop: Callable[[], bool] | None = None) -> None:
        """Write a file; `Stopped` is raised, and none is there, when `stop` says True to what is written."""
        arrays = {name: getattr(self, name) for name in self.__slots__}
        with written_whole(path) as part:
            with part.open("wb") as file:
                np.savez_compressed(file, identity=np.array(identity), **arrays)
            if stop is not None and stop():
                raise Stopped

    @classmethod
    def load(cls, path: Path, identity: str) -> Kept | None:
        """Read a file; None where there is none, or one of other settings, or it is damaged."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["identity"]) != identity:
                    return None
                return cls(**{name: file[name] for name in cls.__slots__})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def summary(self) -> Finished:
        """Say what neighbours must know."""
        which = np.flatnonzero(self.crossing).astype(np.int64)
        reach = (0, 0, 0, 0)
        if len(self.boxes):
            reach = (*self.boxes[:, :2].min(axis=0).tolist(), *self.boxes[:, 2:].max(axis=0).tolist())
        return Finished(len(self.boxes), reach, self.boxes[which], which)


def read_kept(plan: SlidePlan, index: int) -> Kept:
    """Read the objects of a block that is finished.

    Raises
    ------
    FileError
        They are gone: something else took them away during the run.
    """
    kept = Kept.load(plan.kept(index), plan.identity)
    if kept is None:
        raise FileError(f"{plan.kept(index)} is gone or was changed during the run. Start it again.")
    return kept


def own_part(level: Level, block: Block) -> Box:
    """Return the image pixels (y0, x0, y1, x1) that lie whole inside what a block answers for."""
    own = level.own(block)
    low = [int(np.ceil(own[axis] / level.scale[axis] - 1e-9)) for axis in (0, 1)]
    high = [
        level.shape[axis]
        if own[axis + 2] >= level.frame[axis]
        else int(np.floor(own[axis + 2] / level.scale[axis] + 1e-9))
        for axis in (0, 1)
    ]
    return low[0], low[1], high[0], high[1]


def segment_block(plan: SlidePlan, index: int, block: Block) -> Finished | Failed | None:
    """Segment one block and keep its objects; None when the run was cancelled before.

    The objects are those whose prompts lie in the part that the block answers for; they may reach past it.
    """
    kept = Kept.load(plan.kept(index), plan.identity)
    if kept is not None:
        return replace(kept.summary(), earlier=True)
    if plan.hold.lost():
        return None
    segmenter = plan.model.load()
    embedding, level = plan.look(segmenter)
    own = own_part(level, block)
    try:
        kept = _segment(plan, segmenter, embedding, level, block)
        if kept is not None:
            kept.save(plan.kept(index), plan.identity, plan.hold.lost)
    except Stopped:
        return None
    except (WriteError, WeightsError, DeviceError, ConfigError):
        raise  # every other block would fail alike
    except MemoryError:
        return Failed(own, "the memory of its worker does not suffice")
    except Exception as error:  # readers and codecs raise many kinds; the other blocks must not suffer
        return Failed(own, str(error) or type(error).__name__)
    return None if kept is None else kept.summary()


def _segment(
    plan: SlidePlan, segmenter: Segmenter, embedding: Embedding, level: Level, block: Block
) -> Kept | None:
    config = plan.config
    walk = Walk(segmenter, embedding, config, plan.hold.lost)
    parts = drain(walk.through(level, [block], SAMPLERS[config.mode]))
    parts = drain(ask_larger(walk, level, parts))
    if walk.stopped:
        return None
    found = replace(concatenate(parts, level), usual=usual_thresholds(segmenter.spec))
    pile, chosen = pile_objects(found, config)
    return Kept.of(pile.pieces, found.quality[chosen], own_part(level, block))


@dataclass(frozen=True, slots=True)
class Ids:
    """The labels of a block's objects.

    Attributes
    ----------
    index
        Of the block.
    first
        Label before that of its first object; the objects that are left are counted on from there.
    changes
        What neighbours left of its objects; None before they were compared.
    """

    index: int
    first: int
    changes: Changes | None = None


def draw_chunk(plan: SlidePlan, box: Box, blocks: Sequence[Ids], *_: Any) -> int | None:
    """Write the labels of one or more whole chunks; returns how many objects lie in them.

    None: they were not written, for the run was cancelled.

    Parameters
    ----------
    plan
        Of the slide.
    box
        The part of the label image; no other task writes its chunks.
    blocks
        Those with objects there. Where objects of two overlap, which happens only before they were
        compared, the later block's are on top.
    """
    import zarr

    if plan.hold.lost():
        return None
    y0, x0, y1, x1 = box
    labels = np.zeros((y1 - y0, x1 - x0), np.uint32)
    drawn = 0
    for ids in blocks:
        if ids.changes is None:
            kept = Kept.load(plan.kept(ids.index), plan.identity)
            if kept is None:
                continue  # it failed
        else:
            kept = read_kept(plan, ids.index)
        changes = ids.changes or {}
        dropped = np.array(sorted(i for i, bits in changes.items() if bits is None), np.int64)
        boxes = kept.boxes
        inside = (boxes[:, 0] < y1) & (boxes[:, 1] < x1) & (boxes[:, 2] > y0) & (boxes[:, 3] > x0)
        for i in np.setdiff1d(np.flatnonzero(inside), dropped).tolist():
            piece = kept.piece(i)
            left = changes.get(i)
            if left is not None:
                bits = np.frombuffer(left, np.uint8).reshape(piece.bits.shape)
                piece = Piece(piece.box, bits, piece.area, piece.iou)
            name = ids.first + 1 + i - int(np.searchsorted(dropped, i))
            _draw(labels, (y0, x0), piece, name)
            drawn += 1
    if plan.hold.lost():  # another run may have drawn there since
        return None
    zarr.open_array(plan.out / "0", mode="r+")[y0:y1, x0:x1] = labels
    return drawn


def _draw(labels: NDArray[np.uint32], corner: tuple[int, int], piece: Piece, name: int) -> None:
    """Draw the part of an object that lies in a window of the label image."""
    (top, left), (y0, x0, y1, x1) = corner, piece.box
    low, high = max(y0, top), min(y1, top + labels.shape[0])
    first, last = max(x0, left), min(x1, left + labels.shape[1])
    inside = piece.crop(low, high)[:, first - x0 : last - x0]
    labels[low - top : high - top, first - left : last - left][inside] = name


def shrink_chunk(plan: SlidePlan, level: int, box: Box) -> int | None:
    """Fill a part of a smaller copy with every second pixel of the next larger one.

    Returns the number of pixels; None: they were not written, for the run was cancelled.
    """
    import zarr

    if plan.hold.lost():
        return None
    y0, x0, y1, x1 = box
    source = zarr.open_array(plan.out / str(level - 1), mode="r")
    target = zarr.open_array(plan.out / str(level), mode="r+")
    pixels = np.asarray(source[2 * y0 : 2 * y1, 2 * x0 : 2 * x1])[::2, ::2]
    if plan.hold.lost():
        return None
    target[y0:y1, x0:x1] = pixels
    return pixels.size
