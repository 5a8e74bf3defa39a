"""Masks into one label image: deterministic, one connected object a label, nothing thin left over.

Objects are settled one by one as cropped bits, each against the better ones near it, and written part by
part: the label image may be an array on disk that is larger than memory.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.masks import BoolArray, Mask, clean_object
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_LEAST_LEFT = 0.5  # of a mask that earlier objects overlap
_SQUARE = np.ones((3, 3), bool)
_CELL = 64  # pixels: side of the squares by which neighbours are found
_PART_PIXELS = 1_000_000

Box = tuple[int, int, int, int]


class LabelArray(Protocol):
    """What labels can be written into: a NumPy array, a memory map, a zarr array ..."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def dtype(self) -> Any: ...  # noqa: D102

    def __setitem__(self, index: Any, values: Any) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One object as packed bits of its bounding box.

    Attributes
    ----------
    box
        (y0, x0, y1, x1) in the plane, half-open.
    bits
        uint8 (h, w / 8), each row packed by itself.
    area
        In pixels.
    iou
        Predicted IoU of the mask it comes from.
    """

    box: Box
    bits: NDArray[np.uint8]
    area: int
    iou: float = 1.0

    @classmethod
    def of(cls, mask: Mask) -> Piece:
        """Pack a mask."""
        return cls(mask.box, np.packbits(mask.crop, axis=1), mask.area, mask.iou)

    def crop(self, y0: int | None = None, y1: int | None = None) -> BoolArray:
        """Unpack to bool (h, w), or the plane's rows `[y0, y1)` alone."""
        top, x0, bottom, x1 = self.box
        low, high = top if y0 is None else y0, bottom if y1 is None else y1
        return np.unpackbits(self.bits[low - top : high - top], axis=1, count=x1 - x0).view(bool)

    def cut(self, crop: BoolArray) -> Piece:
        """Return the piece with other pixels of the same box."""
        return Piece(self.box, np.packbits(crop, axis=1), int(np.count_nonzero(crop)), self.iou)


Remainders = dict[tuple[Box, float, bytes], "Piece"]
"""What was left of overlapped pieces, by their box, score and free pixels."""


class Pile:
    """Objects without overlap: whoever comes first keeps its pixels.

    Parameters
    ----------
    seen
        Kept from one pile to the next, it saves finding the same remainders again.
    """

    def __init__(self, seen: Remainders | None = None) -> None:
        self.pieces: list[Piece] = []
        self._seen: Remainders = {} if seen is None else seen
        self._near: defaultdict[tuple[int, int], list[int]] = defaultdict(list)

    def free(self, piece: Piece) -> BoolArray | None:
        """Return the piece's pixels that nobody has, as bool (h, w); None: all of them."""
        crop = None
        y0, x0, y1, x1 = piece.box
        for i in sorted({i for cell in _cells(piece.box) for i in self._near.get(cell, ())}):
            v0, u0, v1, u1 = self.pieces[i].box
            top, left, bottom, right = max(y0, v0), max(x0, u0), min(y1, v1), min(x1, u1)
            if top < bottom and left < right:
                crop = piece.crop() if crop is None else crop
                taken = self.pieces[i].crop(top, bottom)[:, left - u0 : right - u0]
                crop[top - y0 : bottom - y0, left - x0 : right - x0] &= ~taken
        return crop

    def add(self, piece: Piece) -> None:
        """Put a piece on the pile; its pixels must be free."""
        for cell in _cells(piece.box):
            self._near[cell].append(len(self.pieces))
        self.pieces.append(piece)

    def settle(self, piece: Piece, min_area: float = 1.0, *, within: Piece | None = None) -> bool:
        """Put what is free of a piece on the pile, if that is an object still; tell whether it was.

        Parameters
        ----------
        piece
            One connected object.
        min_area
            Least number of pixels.
        within
            Pixels outside of this object are not free.
        """
        if piece.area == 0:
            return False
        free = self.free(piece)
        if within is not None:
            free = _inside(piece, within, free)
        left = piece if free is None else self._left_of(piece, piece.cut(free))
        if left.area < max(min_area, 1) or left.area < _LEAST_LEFT * piece.area:
            return False
        self.add(left)
        return True

    def _left_of(self, piece: Piece, free: Piece) -> Piece:
        """Return what remains as an object of a piece of which some pixels are free."""
        if free.area == piece.area:
            return piece
        key = piece.box, piece.iou, free.bits.tobytes()
        left = self._seen.get(key)
        if left is None:
            left = self._seen[key] = piece.cut(_remainder(free.crop()))
        return left


def _inside(piece: Piece, within: Piece, free: BoolArray | None) -> BoolArray:
    """Return the free pixels of a piece that lie inside another one."""
    (y0, x0, y1, x1), (v0, u0, v1, u1) = piece.box, within.box
    top, left, bottom, right = max(y0, v0), max(x0, u0), min(y1, v1), min(x1, u1)
    crop = piece.crop() if free is None else free
    inside = np.zeros_like(crop)
    if top < bottom and left < right:
        window = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
        inside[window] = crop[window] & within.crop(top, bottom)[:, left - u0 : right - u0]
    return inside


def _cells(box: Box) -> Iterator[tuple[int, int]]:
    """Go through the squares of a coarse grid that a box touches."""
    y0, x0, y1, x1 = box
    for row in range(y0 // _CELL, (y1 - 1) // _CELL + 1):
        for column in range(x0 // _CELL, (x1 - 1) // _CELL + 1):
            yield row, column


def _remainder(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what is left of an overlapped mask: without rings and slivers one or two pixels wide."""
    opened = ndimage.binary_opening(np.pad(free, 1), _SQUARE)[1:-1, 1:-1]
    if not opened.any():
        return np.zeros_like(free)
    left = clean_object(opened) & free
    parts, count = ndimage.label(left, _SQUARE)
    if count > 1:  # free pixels inside an object that lies in a filled hole
        left = parts == int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return np.asarray(left)


def paint(
    masks: Iterable[Mask],
    shape: tuple[int, int],
    *,
    min_area: float = 1.0,
    out: LabelArray | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Paint masks into a label image, earlier ones on top.

    Parameters
    ----------
    masks
        Best first; each is reduced to one 8-connected object without small holes.
    shape
        (H, W).
    min_area
        Objects of fewer pixels are left out.
    out
        See `write_pieces`.

    Returns
    -------
    labels, scores
        int32 (H, W), or `out`, with ids 1..n in painting order, 0 for background; float32 (n,), predicted
        IoU.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam.engine.masks import crop_mask
    >>> labels, scores = paint([crop_mask(np.ones((2, 2), bool))], (3, 3))
    >>> labels.tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    pile = Pile()
    for mask in masks:
        pile.settle(Piece.of(mask.cleaned()), min_area)
    labels: NDArray[np.int32] = write_pieces(pile.pieces, shape, out)
    return labels, scores_of(pile.pieces)


def scores_of(pieces: Sequence[Piece]) -> NDArray[np.float32]:
    """Return the predicted IoU of each piece, float32 (n,)."""
    return np.array([piece.iou for piece in pieces], np.float32)


def check_out(out: LabelArray | None, shape: tuple[int, int]) -> None:
    """Refuse an array that a label image cannot be written into.

    Raises
    ------
    ConfigError
        If it is not of the plane's shape, holds no integers, or cannot be written.
    """
    if out is None:
        return
    wants = "an integer array of the plane's shape that can be written: NumPy, a memory map or zarr"
    given = getattr(out, "shape", None), getattr(out, "dtype", None)
    if None in given or np.dtype(given[1]).kind not in "ui" or not hasattr(out, "__setitem__"):
        raise ConfigError(f"out must be {wants}; got {type(out).__name__} of dtype {given[1]}.")
    if tuple(out.shape) != tuple(shape):
        raise ConfigError(f"out must have the plane's shape {tuple(shape)}; it has {tuple(out.shape)}.")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ConfigError(f"out is read-only; give {wants}.")


def write_pieces(
    pieces: Sequence[Piece],
    shape: tuple[int, int],
    out: Any = None,
    *,
    ids: Sequence[int] | None = None,
    part: tuple[int, int] | None = None,
) -> Any:
    """Write objects that do not overlap into a label image, part by part.

    Parameters
    ----------
    pieces
        The objects.
    shape
        (H, W) of the plane.
    out
        Where to: any integer array of this shape that takes slices, all of which is overwritten; None: a
        new int32 array.
    ids
        Label of each object; 1..n by default.
    part
        Rows and columns written at once; None: about a million pixels, in whole chunks of `out`.

    Returns
    -------
    out
        The array that was given, or int32 (H, W).

    Raises
    ------
    ConfigError
        If `out` does not fit, or its dtype cannot hold the largest id; nothing is written then.
    """
    check_out(out, shape)
    labels = np.zeros(shape, np.int32) if out is None else out
    names = range(1, len(pieces) + 1) if ids is None else ids
    largest = max(names, default=0)
    if largest > np.iinfo(labels.dtype).max:
        raise ConfigError(
            f"out holds {labels.dtype}, which has no room for the label {largest}; give an array of int32."
        )
    rows, columns = part or _part_shape(labels)
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, piece in enumerate(pieces):
        y0, x0, y1, x1 = piece.box
        for row in range(y0 // rows, (y1 - 1) // rows + 1):
            for column in range(x0 // columns, (x1 - 1) // columns + 1):
                waiting[row, column].append(i)
    in_place = isinstance(labels, np.ndarray)
    for top in range(0, shape[0], rows):
        bottom = min(top + rows, shape[0])
        for left in range(0, shape[1], columns):
            right = min(left + columns, shape[1])
            window = (
                labels[top:bottom, left:right]
                if in_place
                else np.zeros((bottom - top, right - left), labels.dtype)
            )
            if in_place and out is not None:
                window[:] = 0
            for i in waiting.pop((top // rows, left // columns), ()):
                y0, x0, y1, x1 = pieces[i].box
                low, high, first, last = max(y0, top), min(y1, bottom), max(x0, left), min(x1, right)
                inside = pieces[i].crop(low, high)[:, first - x0 : last - x0]
                window[low - top : high - top, first - left : last - left][inside] = names[i]
            if not in_place:
                labels[top:bottom, left:right] = window
    return labels


def _part_shape(labels: LabelArray) -> tuple[int, int]:
    """Return how many rows and columns are written at once: whole chunks where the array has some."""
    chunks = getattr(labels, "chunks", None)
    high, wide = 1, labels.shape[1]
    if isinstance(chunks, tuple) and len(chunks) == 2 and all(isinstance(side, int) for side in chunks):
        high, wide = chunks
    columns = max(wide, _PART_PIXELS // max(1, high) // wide * wide)
    columns = max(1, min(columns, labels.shape[1]))
    rows = max(high, _PART_PIXELS // columns // high * high)
    return max(1, min(rows, labels.shape[0])), columns
