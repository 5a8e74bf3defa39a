"""Repairing the objects of a Labels layer: every edit is one step of napari's own undo."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.objects.results import LARGEST_STEP, refusal
from napari_lightsam.plugin.objects.undoable import write_step
from napari_lightsam.plugin.viewer.places import Place, view

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import BoolArray

_EIGHT = np.ones((3, 3), bool)
_SMOOTHING = 0.07
"""Width of the Gaussian that smooths an outline, as part of the object's diameter."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What an edit did.

    Attributes
    ----------
    ids
        The objects that came of it; empty when they were deleted.
    changed
        Pixels that got another value.
    apart
        Objects were merged that do not touch.
    sample
        One of these pixels, with its values before and after: it tells whether the edit was taken back.
    """

    ids: tuple[int, ...]
    changed: int
    apart: bool = False
    sample: tuple[tuple[int, ...], int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    index: tuple[NDArray[np.intp], ...]
    value: int


class Edits:
    """Edits of one Labels layer at one place: a plane, or the whole stack.

    Parameters
    ----------
    labels
        The layer.
    place
        What of its array may change.
    axes
        The two axes on display: holes and outlines are those of the planes along them.
    regions
        Box of each object as slices into the array, where it is known; others are searched for.

    Raises
    ------
    LightSamError
        The layer cannot be edited.
    """

    def __init__(
        self,
        labels: Labels,
        place: Place,
        axes: tuple[int, int],
        regions: Mapping[int, tuple[slice, ...]] | None = None,
    ) -> None:
        reason = refusal(labels)
        if reason:
            raise LightSamError(reason)
        self._labels, self._place, self._axes = labels, place, axes
        self._regions = regions or {}

    # --- whole objects -------------------------------------------------------------------------------

    def merge(self, ids: Sequence[int], keep: int | None = None) -> Edited:
        """Make one object of several.

        Parameters
        ----------
        ids
            At least two labels.
        keep
            Which of them the object keeps; the smallest by default.
        """
        if len(set(ids)) < 2:
            raise LightSamError("Select at least two objects to merge them into one.")
        kept = min(ids) if keep is None or keep not in ids else keep
        steps = [_Step(self._pixels(label), kept) for label in ids if label != kept]
        apart = not self._hang_together(ids)
        return replace(self._apply(steps, (kept,)), apart=apart)

    def _hang_together(self, ids: Sequence[int]) -> bool:
        """Tell whether one can go through objects from each to every other one, also over corners."""
        reached, waiting = {ids[0]}, [ids[0]]
        while waiting:
            label = waiting.pop()
            region = self._region(label)
            if region is None:
                continue
            around = tuple(
                slice(max(0, part.start - 1), part.stop + 1) if step is None else part
                for part, step in zip(region, self._place, strict=True)
            )
            part = self._labels.data[around]
            near = ndimage.binary_dilation(part == label, np.ones((3,) * part.ndim, bool))
            found = set(np.unique(part[near]).tolist()) & set(ids) - reached
            reached |= found
            waiting.extend(found)
        return reached == set(ids)

    def delete(self, ids: Iterable[int]) -> Edited:
        """Turn objects into background."""
        return self._apply([_Step(self._pixels(label), 0) for label in ids], ())

    # --- outlines ------------------------------------------------------------------------------------

    def fill_holes(self, ids: Iterable[int]) -> Edited:
        """Fill the background that an object encloses in a plane."""
        return self._reshape(ids, ndimage.binary_fill_holes)

    def smooth(self, ids: Iterable[int]) -> Edited:
        """Round off an outline where it is ragged; loose bits go, pixels of other objects stay theirs."""
        return self._reshape(ids, smooth_outline)

    def _reshape(self, ids: Iterable[int], change: Any) -> Edited:
        kept = tuple(ids)
        steps: list[_Step] = []
        for label in kept:
            region = self._region(label, margin=True)
            if region is None:
                continue
            part = np.moveaxis(self._labels.data[region], self._axes, (-2, -1))
            after = np.zeros(part.shape, bool)
            for at in np.ndindex(part.shape[:-2]):
                mine = part[at] == label
                if mine.any():
                    after[at] = change(mine) & (mine | (part[at] == 0))
            mine = part == label
            for where, value in ((mine & ~after, 0), (after & ~mine, label)):
                inside = np.nonzero(np.moveaxis(where, (-2, -1), self._axes))
                steps.append(_Step(_shifted(inside, region), value))
        return self._apply(steps, kept)

    # --- splitting -----------------------------------------------------------------------------------

    def split(
        self,
        label: int,
        points: Sequence[tuple[float, float]],
        first_id: int,
        outlines: Sequence[BoolArray] = (),
    ) -> Edited:
        """Split an object of a plane into one part for each point.

        Parameters
        ----------
        label
            The object.
        points
            (row, column) in the plane, one in each part; those beside the object do not count.
        first_id
            Label of the first part; the others follow.
        outlines
            What the model outlined for each point, bool planes; empty: by shape alone.

        Raises
        ------
        LightSamError
            Fewer than two points lie in the object, or it is not in one plane.
        """
        region = self._region(label)
        if region is None or self._place.count(None) != 2:
            raise LightSamError(f"Object {label} is not on this plane any more; select another one.")
        mask = self._labels.data[region] == label
        squeezed = mask.reshape([n for n, step in zip(mask.shape, self._place, strict=True) if step is None])
        y0, x0 = (region[axis].start for axis in sorted(self._axes))
        inside = _inside(squeezed, [(y - y0, x - x0) for y, x in points])
        if len(inside) < 2:
            raise LightSamError(f"Click at least two places inside object {label}, one in each part.")
        window = (slice(y0, y0 + squeezed.shape[0]), slice(x0, x0 + squeezed.shape[1]))
        hints = [outlines[i][window] for i in inside] if outlines else []
        parts = split_mask(squeezed, list(inside.values()), hints).reshape(mask.shape)
        count = len(inside)
        if first_id + count - 1 > np.iinfo(self._labels.data.dtype).max:
            raise LightSamError(
                f"The Labels layer {self._labels.name!r} is {self._labels.data.dtype} and has no free label "
                "left. Convert it with a right click on the layer: Convert data type."
            )
        steps = [
            _Step(_shifted(np.nonzero(parts == part), region), first_id + part - 1)
            for part in range(1, count + 1)
        ]
        return self._apply(steps, tuple(range(first_id, first_id + count)))

    # --- pixels --------------------------------------------------------------------------------------

    def _region(self, label: int, *, margin: bool = False) -> tuple[slice, ...] | None:
        """Return the box of an object in the Labels array, perhaps with a margin in the plane."""
        region = self._regions.get(label)
        if region is None:
            mask = view(self._labels.data, self._place) == label
            found = ndimage.find_objects(mask.view(np.uint8))
            if not found:
                return None
            free = iter(found[0])
            region = tuple(next(free) if s is None else slice(s, s + 1) for s in self._place)
        if margin:
            shape, grown = self._labels.data.shape, list(region)
            for axis in self._axes:
                width = max(2, round(0.1 * (region[axis].stop - region[axis].start)))
                grown[axis] = slice(
                    max(0, region[axis].start - width), min(shape[axis], region[axis].stop + width)
                )
            region = tuple(grown)
        return region

    def _pixels(self, label: int) -> tuple[NDArray[np.intp], ...]:
        region = self._region(label)
        if region is None:
            return tuple(np.zeros(0, np.intp) for _ in self._place)
        return _shifted(np.nonzero(self._labels.data[region] == label), region)

    def _apply(self, steps: Sequence[_Step], ids: tuple[int, ...]) -> Edited:
        steps = [step for step in steps if len(step.index[0])]
        changed = sum(len(step.index[0]) for step in steps)
        if changed > LARGEST_STEP:
            raise LightSamError(
                f"This would change {changed:,} pixels in one step, {LARGEST_STEP:,} at most can be undone "
                "quickly. Select fewer objects, or look at one plane only."
            )
        sample = None
        if steps:
            at = tuple(int(axis[0]) for axis in steps[0].index)
            sample = at, int(self._labels.data[at]), steps[0].value
            index = tuple(np.concatenate(axis) for axis in zip(*(s.index for s in steps), strict=True))
            values = np.concatenate([np.full(len(step.index[0]), step.value) for step in steps])
            write_step(self._labels, index, values.astype(self._labels.data.dtype))
        return Edited(ids, changed, sample=sample)


def smooth_outline(mask: BoolArray) -> BoolArray:
    """Round off the outline of an object and drop what is not connected with its largest part.

    Parameters
    ----------
    mask
        bool (h, w), with a margin around the object.

    Returns
    -------
    BoolArray
        The same shape. An object too small to be smoothed stays as it is.

    Examples
    --------
    >>> import numpy as np
    >>> disc = np.hypot(*np.ogrid[-20:21, -20:21]) < 12
    >>> ragged = disc.copy()
    >>> ragged[20, 32:38] = True  # a thread
    >>> int((smooth_outline(ragged) ^ disc).sum()) <= 10
    True
    """
    diameter = 2 * np.sqrt(np.count_nonzero(mask) / np.pi)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), max(0.7, _SMOOTHING * diameter), mode="nearest")
    parts, count = ndimage.label(soft > 0.5, _EIGHT)
    if count == 0:
        return mask
    return np.asarray(parts == np.bincount(parts.ravel())[1:].argmax() + 1)


def split_mask(
    mask: BoolArray, points: Sequence[tuple[int, int]], outlines: Sequence[BoolArray] = ()
) -> NDArray[np.int32]:
    """Split a mask into one part for each point.

    What the model outlines for one point and for no other is sure; a watershed of the distance to the edge
    shares out the rest. On 46 pairs of touching objects of four kinds of images this got both parts right
    (IoU of at least 0.8) in 0.85 of the pairs, the best watershed from the points alone in 0.65, and the
    model's outlines as they are in 0.17.

    Parameters
    ----------
    mask
        bool (h, w).
    points
        (row, column) inside the mask, at least two.
    outlines
        bool (h, w) each, of every point; empty where there is no model.

    Returns
    -------
    int32 (h, w)
        1, 2, ... in the order of the points, 0 outside of the mask.

    Examples
    --------
    >>> import numpy as np
    >>> parts = split_mask(np.ones((4, 10), bool), [(2, 2), (2, 7)])
    >>> parts[:, :5].max(), parts[:, 5:].min()
    (np.int32(1), np.int32(2))
    """
    from skimage.segmentation import watershed

    markers = np.zeros(mask.shape, np.int32)
    if len(outlines):
        claims = np.stack([outline & mask for outline in outlines])
        alone = claims.sum(axis=0) == 1
        for number, (point, claim) in enumerate(zip(points, claims, strict=True), 1):
            sure, _ = ndimage.label(claim & alone, _EIGHT)
            if sure[point]:
                markers[sure == sure[point]] = number
    for number, point in enumerate(points, 1):
        markers[point] = number
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    # Without outlines, the one deepest place would flood an uneven pair: parts grow evenly instead.
    compactness = 0.0 if len(outlines) else 1.0
    parts: NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]
        -distance, markers, mask=mask, compactness=compactness
    )
    return parts.astype(np.int32)


def _inside(mask: BoolArray, points: Sequence[tuple[float, float]]) -> dict[int, tuple[int, int]]:
    """Return the points that lie in a mask as its pixels, by their number; the first of equal ones."""
    found: dict[int, tuple[int, int]] = {}
    for number, (y, x) in enumerate(points):
        at = (round(y), round(x))
        within = all(0 <= step < length for step, length in zip(at, mask.shape, strict=True))
        if within and mask[at] and at not in found.values():
            found[number] = at
    return found


def _shifted(inside: tuple[NDArray[np.intp], ...], region: tuple[slice, ...]) -> tuple[NDArray[np.intp], ...]:
    return tuple(axis + part.start for axis, part in zip(inside, region, strict=True))
