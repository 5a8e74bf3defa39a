"""Masks of single objects, kept cropped: what `predict` returns and what label images are painted from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.resample import FloatArray

BoolArray = NDArray[np.bool_]

HOLE_FRACTION = 0.05
"""Holes smaller than this part of the object's area are filled."""

_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True, eq=False)
class MaskLogits:
    """The decoder's own answer behind a mask, so that the mask can be a prompt again.

    Attributes
    ----------
    level
        Scale it was decoded at.
    origin
        (row, column) of `values[0, 0]` on the level's logit grid.
    values
        (h, w), positive inside; outside of it the object is not.
    """

    level: Level
    origin: tuple[int, int]
    values: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """One object, cropped to its bounding box.

    Attributes
    ----------
    offset
        (row, column) of `crop[0, 0]` in the plane.
    crop
        bool (h, w), tight around the object; (0, 0) when the mask is empty.
    iou
        Predicted intersection over union with the object that was meant.
    stability
        Area above the logit threshold plus an offset, over the area above the threshold minus it.
    logits
        What the decoder gave, or None for a mask from elsewhere.
    """

    offset: tuple[int, int]
    crop: BoolArray
    iou: float = 1.0
    stability: float = 1.0
    logits: MaskLogits | None = field(default=None, repr=False)

    @property
    def area(self) -> int:
        """Area in pixels."""
        return int(np.count_nonzero(self.crop))

    @property
    def diameter(self) -> float:
        """Equivalent circular diameter in pixels."""
        return 2 * math.sqrt(self.area / math.pi)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box (y0, x0, y1, x1), half-open, in pixels."""
        y, x = self.offset
        return y, x, y + self.crop.shape[0], x + self.crop.shape[1]

    @property
    def innermost(self) -> tuple[float, float]:
        """The pixel (row, column) of the plane that is farthest from the edge; the plane's border is one too.

        Of a ridge of equal depth it is the pixel nearest to its middle; of an empty mask it is `offset`.

        Examples
        --------
        >>> import numpy as np
        >>> Mask((10, 20), np.ones((3, 7), bool)).innermost
        (11.0, 23.0)
        """
        if not self.crop.any():
            return float(self.offset[0]), float(self.offset[1])
        depth = ndimage.distance_transform_edt(np.pad(self.crop, 1))[1:-1, 1:-1]
        deepest = np.argwhere(depth == depth.max())
        y, x = deepest[np.argmin(((deepest - deepest.mean(axis=0)) ** 2).sum(axis=1))]
        return float(self.offset[0] + y), float(self.offset[1] + x)

    def to_array(self, shape: tuple[int, int]) -> BoolArray:
        """Return the mask as a bool plane of `shape`."""
        plane = np.zeros(shape, bool)
        y0, x0, y1, x1 = self.box
        plane[y0:y1, x0:x1] = self.crop
        return plane

    def part(self, box: tuple[int, int, int, int]) -> BoolArray:
        """Return what lies in a box (y0, x0, y1, x1), as a bool plane of the box's shape."""
        out = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
        y0, x0 = max(box[0], self.box[0]), max(box[1], self.box[1])
        y1, x1 = min(box[2], self.box[2]), min(box[3], self.box[3])
        if y1 > y0 and x1 > x0:
            crop = self.crop[y0 - self.box[0] : y1 - self.box[0], x0 - self.box[1] : x1 - self.box[1]]
            out[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]] = crop
        return out

    def iou_with(self, other: Mask) -> float:
        """Return the intersection over union with another mask; 0 where both are empty.

        Examples
        --------
        >>> import numpy as np
        >>> Mask((0, 0), np.ones((2, 3), bool)).iou_with(Mask((0, 1), np.ones((2, 3), bool)))
        0.5
        """
        y0, x0, y1, x1 = (f(p, q) for f, p, q in zip((max, max, min, min), self.box, other.box, strict=True))
        if y1 <= y0 or x1 <= x0:
            return 0.0
        shared = int(np.count_nonzero(self.part((y0, x0, y1, x1)) & other.part((y0, x0, y1, x1))))
        return shared / (self.area + other.area - shared)

    def cleaned(self, keep: tuple[float, float] | None = None) -> Mask:
        """Return the mask as one 8-connected object without small holes.

        Parameters
        ----------
        keep
            (row, column) in the plane: keep the part that holds it. Else, or when no part does, the
            largest part is kept.
        """
        at = None if keep is None else (round(keep[0]) - self.offset[0], round(keep[1]) - self.offset[1])
        crop = clean_object(self.crop, at)
        return replace(
            crop_mask(crop, self.offset), iou=self.iou, stability=self.stability, logits=self.logits
        )


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """The masks of N prompted objects, each with its candidates, best first.

    Attributes
    ----------
    shape
        (H, W) of the plane.
    objects
        Candidates of each object, by falling predicted IoU; never empty.
    """

    shape: tuple[int, int]
    objects: tuple[tuple[Mask, ...], ...]

    def __len__(self) -> int:
        return len(self.objects)

    def candidates(self, index: int) -> tuple[Mask, ...]:
        """Return all candidates of one object, best first."""
        return self.objects[index]

    def best(self, index: int) -> Mask:
        """Return the best candidate of one object."""
        return self.objects[index][0]

    def to_array(self) -> BoolArray:
        """Return the best candidate of each object as bool (N, H, W)."""
        planes = np.zeros((len(self.objects), *self.shape), bool)
        for plane, (best, *_) in zip(planes, self.objects, strict=True):
            plane[:] = best.to_array(self.shape)
        return planes


def by_size(masks: Sequence[Mask], size: float | None) -> list[Mask]:
    """Order candidates of the same predicted IoU by how near they are to the object size.

    Parameters
    ----------
    masks
        Best first. Neighbours count as the same where the IoU agrees to two digits, as it is shown.
    size
        Typical diameter in pixels; None leaves the order as it is.

    Examples
    --------
    >>> import numpy as np
    >>> small, large = (Mask((0, 0), np.ones((n, n), bool), iou=0.9) for n in (3, 9))
    >>> by_size([small, large], 10)[0] is large
    True
    """
    if size is None:
        return list(masks)
    ordered: list[Mask] = []
    for _, same in groupby(masks, key=lambda mask: round(mask.iou, 2)):
        ordered += sorted(same, key=lambda mask: abs(math.log(mask.diameter / size)))
    return ordered


def crop_mask(mask: BoolArray, offset: tuple[int, int] = (0, 0)) -> Mask:
    """Crop a bool plane, or a part of one that starts at `offset`, to its object.

    Examples
    --------
    >>> import numpy as np
    >>> crop_mask(np.eye(4, dtype=bool)[1:]).box
    (0, 1, 3, 4)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return Mask(offset, np.zeros((0, 0), bool))
    tight = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Mask((offset[0] + int(rows[0]), offset[1] + int(columns[0])), np.ascontiguousarray(tight))


def clean_object(crop: BoolArray, keep: tuple[int, int] | None = None) -> BoolArray:
    """Keep one 8-connected part of a mask and fill its small holes.

    Parameters
    ----------
    crop
        bool (h, w).
    keep
        (row, column) in the crop: keep the part there; else, or where there is none, the largest part.

    Returns
    -------
    BoolArray
        Same shape; holes of less than `HOLE_FRACTION` of the part's area are filled.
    """
    return _fill_small_holes(one_piece(crop, keep))


def one_piece(mask: BoolArray, keep: tuple[int, int] | None = None) -> BoolArray:
    """Return the 8-connected part of a mask that holds a pixel (row, column); else the largest part.

    Examples
    --------
    >>> import numpy as np
    >>> one_piece(np.array([[True, False, True, True]])).tolist()
    [[False, False, True, True]]
    """
    parts, count = ndimage.label(mask, _EIGHT)
    if count < 2:
        return mask
    inside = keep is not None and all(0 <= k < n for k, n in zip(keep, mask.shape, strict=True))
    chosen = int(parts[keep]) if inside else 0
    chosen = chosen or int(np.bincount(parts.ravel())[1:].argmax()) + 1
    return np.asarray(parts == chosen)


def _fill_small_holes(mask: BoolArray) -> BoolArray:
    holes, count = ndimage.label(~np.pad(mask, 1))  # 4-connected, the complement of 8-connected objects
    if count <= 1:
        return mask
    sizes = np.bincount(holes.ravel())
    small = sizes < HOLE_FRACTION * np.count_nonzero(mask)
    small[[0, holes[0, 0]]] = False  # the object itself and the outside
    filled: BoolArray = mask | small[holes][1:-1, 1:-1]
    return filled
