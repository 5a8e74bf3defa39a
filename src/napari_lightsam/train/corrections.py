"""What a user corrected: checked for sense, then parted into what is learned from and what is held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label as connected

from napari_lightsam.errors import TrainError
from napari_lightsam.train.metrics import equivalent_diameter, match

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Box = tuple[int, int, int, int]
"""(y0, x0, y1, x1), half-open, in pixels."""

LEAST_LEARNED = 8
LEAST_HELD_OUT = 4
"""Objects that are learned from, and that it is tested on, at least."""

_HELD_OUT = 0.3  # of the objects, about
_SPECK = 12  # pixels: smaller pieces are no objects, as in training
_THINNEST = 32  # pixels: narrower strips of a region show too little of any object
_GIANT = 0.7  # of a region in one object: its background got an id
_AGREEMENT = 0.5  # AP at IoU .5 of two annotations of the same pixels


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    """An image with the labels that a person made or corrected.

    Attributes
    ----------
    image
        (H, W) or (H, W, C), any real dtype.
    labels
        Integer (H, W), one id an object, 0 for background.
    rgb
        The last axis is colour; None: only for uint8 with 3 or 4 samples.
    regions
        Rectangles in which every object is labelled; what lies outside of them does not count. None: the
        whole image.
    name
        For messages and the model card.

    Examples
    --------
    >>> import numpy as np
    >>> Corrected(np.zeros((64, 64)), np.zeros((64, 64), int), regions=((0, 0, 32, 64),)).name
    'image'
    """

    image: npt.NDArray[Any]
    labels: npt.NDArray[np.integer[Any]]
    rgb: bool | None = None
    regions: tuple[Box, ...] | None = None
    name: str = "image"


class Part(NamedTuple):
    """A rectangle of one of the images: which image, and where."""

    image: int
    box: Box

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return _slices(self.box)


@dataclass(frozen=True, slots=True)
class Division:
    """What is learned from and what is tested on, without a pixel in common.

    Attributes
    ----------
    learned
        Rectangles to learn from.
    held_out
        The rectangle to test on.
    objects
        Number of objects to learn from, and to test on.
    object_size
        Median equivalent circular diameter of all of them, in pixels.
    """

    learned: tuple[Part, ...]
    held_out: Part
    objects: tuple[int, int]
    object_size: float


def labelled_region(labels: npt.NDArray[np.integer[Any]]) -> Box:
    """Return the rectangle around all labels, with a margin of half a typical object.

    This is what counts as corrected when nobody says which part was: the far, unlabelled part of an image
    is no proof that nothing is there. The box is empty where there are no labels.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((100, 100), int)
    >>> labels[40:50, 20:30] = 1
    >>> labelled_region(labels)
    (34, 14, 56, 36)
    """
    rows, columns = (np.flatnonzero(labels.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return 0, 0, 0, 0
    areas = np.unique(labels[labels > 0], return_counts=True)[1]
    margin = round(float(np.median(equivalent_diameter(areas))) / 2)
    height, width = labels.shape
    return (
        max(0, int(rows[0]) - margin),
        max(0, int(columns[0]) - margin),
        min(height, int(rows[-1]) + 1 + margin),
        min(width, int(columns[-1]) + 1 + margin),
    )


def divide(corrected: Sequence[Corrected]) -> Division:
    """Check corrections and part them.

    Raises
    ------
    TrainError
        There is too little, nothing can be held out, or the labels make no sense; the message says what
        to do.
    """
    if not corrected:
        raise TrainError("There is nothing to learn from: give at least one image with its corrected labels.")
    for item in corrected:
        _check_arrays(item)
    parts = [part for i, item in enumerate(corrected) for part in _parts(i, item)]
    parts = _without_repeats(corrected, parts)
    if not parts:
        raise TrainError(
            f"None of the corrected regions is at least {_THINNEST} pixels wide and high. Draw larger ones."
        )
    for part in parts:
        _check_sense(corrected[part.image], part.box)
    middles, sizes = zip(*(_objects(corrected[part.image].labels, part.box) for part in parts), strict=True)
    total = sum(map(len, middles))
    if total < LEAST_LEARNED + LEAST_HELD_OUT:
        raise TrainError(
            f"{_counted(total)} are too few to learn from and to be tested on: at least "
            f"{LEAST_LEARNED + LEAST_HELD_OUT} are needed, and some 50 are better. Outline more objects, all "
            "that lie in one part of the image, and try again."
        )
    size = float(np.median(np.concatenate(sizes)))
    return _held_out_whole(parts, middles, size) or _held_out_strip(parts, middles, size)


# --- does it make sense? ---------------------------------------------------------------------------------


def _check_arrays(item: Corrected) -> None:
    image, labels, name = item.image, item.labels, item.name
    if labels.ndim != 2 or image.ndim not in (2, 3) or image.shape[:2] != labels.shape:
        raise TrainError(
            f"{name}: the image has shape {image.shape}, its labels {labels.shape}. Labels are one plane "
            "of the same height and width as the image; choose the Labels layer that belongs to it."
        )
    if labels.dtype.kind not in "iu":
        raise TrainError(
            f"{name}: the labels have dtype {labels.dtype}; they are integers, one id for each object and 0 "
            "for background. Convert them first."
        )
    if labels.size and labels.min() < 0:
        raise TrainError(f"{name}: the labels go down to {labels.min()}; ids are 0 or more. Renumber them.")
    if not labels.any():
        raise TrainError(f"{name}: there are no labels. Outline objects first, then teach the model.")


def _check_sense(item: Corrected, box: Box) -> None:
    """Refuse what cannot be outlines of objects."""
    region = item.labels[_slices(box)]
    ids, labels = numbered(region)
    if not len(ids):
        return
    areas = np.bincount(labels.ravel())[1:]
    largest = int(areas.argmax())
    if areas[largest] > _GIANT * labels.size:
        raise TrainError(
            f"{item.name}: object {ids[largest]} covers {areas[largest] / labels.size:.0%} of the corrected "
            "region. If it is the background, give it the id 0; if the region shows only one object, choose "
            "a larger one."
        )
    pieces, largest_piece = _pieces(labels)
    torn = (pieces > 1) & (largest_piece < 0.8 * areas)
    if len(ids) == 1 and pieces[0] > 2:
        raise TrainError(
            f"{item.name}: all {pieces[0]} pieces have the id {ids[0]}, as in a mask of foreground. Every "
            "object needs an id of its own: scikit-image's measure.label numbers pieces that do not touch."
        )
    if torn.sum() > 0.5 * len(ids):
        raise TrainError(
            f"{item.name}: {int(torn.sum())} of {len(ids)} ids consist of scraps that do not touch, so they "
            "contradict what an object is. Give every object one id in one piece, or choose the Labels layer "
            "that was corrected."
        )
    if np.median(areas) < _SPECK:
        raise TrainError(
            f"{item.name}: the typical object has {np.median(areas):.0f} pixels, too small for an outline. "
            "Choose the layer with filled objects, or enlarge image and labels."
        )


def numbered(
    labels: npt.NDArray[np.integer[Any]],
) -> tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.int32]]:
    """Return the ids (N,) that occur, without the background, and the labels as 1..N in their order."""
    ids, flat = np.unique(labels, return_inverse=True)
    flat = flat.reshape(labels.shape).astype(np.int32)
    return (ids[1:], flat) if len(ids) and ids[0] == 0 else (ids, flat + 1)


def _pieces(labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each of the ids 1..N the number of its connected pieces and the area of the largest one."""
    parts = np.asarray(connected(labels, connectivity=2))  # type: ignore[no-untyped-call]
    areas = np.bincount(parts.ravel())
    owner = np.zeros(len(areas), np.intp)
    owner[parts.ravel()] = labels.ravel()
    counts, most = (np.zeros(int(labels.max()) + 1, np.intp) for _ in range(2))
    np.add.at(counts, owner[1:], 1)
    np.maximum.at(most, owner[1:], areas[1:])
    return counts[1:], most[1:]


# --- what counts ----------------------------------------------------------------------------------------


def _parts(number: int, item: Corrected) -> Iterator[Part]:
    height, width = item.labels.shape
    boxes = ((0, 0, height, width),) if item.regions is None else item.regions
    clipped = [(max(0, y0), max(0, x0), min(height, y1), min(width, x1)) for y0, x0, y1, x1 in boxes]
    for box in _disjoint([box for box in clipped if box[2] > box[0] and box[3] > box[1]]):
        yield Part(number, box)


def _disjoint(boxes: Sequence[Box]) -> list[Box]:
    """Cut rectangles so that none overlaps another, larger ones first; narrow strips are left out."""
    kept: list[Box] = []
    for box in sorted(boxes, key=_area, reverse=True):
        left = [box]
        for other in kept:
            left = [strip for rest in left for strip in _minus(rest, other)]
        kept += [rest for rest in left if min(rest[2] - rest[0], rest[3] - rest[1]) >= _THINNEST]
    return kept


def _minus(box: Box, other: Box) -> list[Box]:
    """Return what is left of a rectangle without another one, as up to four rectangles."""
    y0, x0, y1, x1 = box
    top, left = max(y0, other[0]), max(x0, other[1])
    bottom, right = min(y1, other[2]), min(x1, other[3])
    if top >= bottom or left >= right:
        return [box]
    strips = [(y0, x0, top, x1), (bottom, x0, y1, x1), (top, x0, bottom, left), (top, right, bottom, x1)]
    return [strip for strip in strips if strip[2] > strip[0] and strip[3] > strip[1]]


def _without_repeats(corrected: Sequence[Corrected], parts: list[Part]) -> list[Part]:
    """Leave out what was annotated twice alike; what was annotated twice differently is refused."""
    kept: list[Part] = []
    for part in parts:
        item, twins = corrected[part.image], []
        for other in kept:
            first = corrected[other.image]
            if other.image != part.image and _same_pixels(first.image, item.image):
                _check_agreement(first, item, other.box, part.box)
                twins.append(other.box)
        left = [part.box]
        for twin in twins:
            left = [strip for rest in left for strip in _minus(rest, twin)]
        kept += [Part(part.image, box) for box in left if not twins or min(_sides(box)) >= _THINNEST]
    return kept


def _same_pixels(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b)))


def _check_agreement(first: Corrected, second: Corrected, a: Box, b: Box) -> None:
    shared = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    if shared[0] >= shared[2] or shared[1] >= shared[3]:
        return
    one, two = (item.labels[_slices(shared)] for item in (first, second))
    if not one.any() and not two.any():
        return
    agreement = match(one, two)[0].average_precision
    if agreement < _AGREEMENT:
        raise TrainError(
            f"{first.name} and {second.name} show the same pixels with labels that contradict each other "
            f"(AP at IoU .5 is {agreement:.2f}). Keep the right one."
        )


# --- what is held out -----------------------------------------------------------------------------------


def _held_out_whole(
    parts: Sequence[Part], middles: Sequence[npt.NDArray[np.float64]], size: float
) -> Division | None:
    """Hold one of several regions or images out, if one has about the right number of objects."""
    counts = [len(found) for found in middles]
    total = sum(counts)
    fitting = [
        i
        for i, count in enumerate(counts)
        if LEAST_HELD_OUT <= count <= total / 2 and total - count >= LEAST_LEARNED
    ]
    if not fitting:
        return None
    chosen = min(fitting, key=lambda i: abs(counts[i] - _HELD_OUT * total))
    learned = tuple(part for i, part in enumerate(parts) if i != chosen and counts[i])
    return Division(learned, parts[chosen], (total - counts[chosen], counts[chosen]), size)


def _held_out_strip(
    parts: Sequence[Part], middles: Sequence[npt.NDArray[np.float64]], size: float
) -> Division:
    """Cut the region with most objects in two, where few objects are cut."""
    chosen = max(range(len(parts)), key=lambda i: len(middles[i]))
    part, found = parts[chosen], middles[chosen]
    total = sum(map(len, middles))
    best: tuple[float, int, int, bool, int] | None = None
    for axis in (0, 1):
        low, high = part.box[axis], part.box[axis + 2]
        narrowest = max(_THINNEST, round(1.5 * size))
        for cut in range(low + narrowest, high - narrowest + 1, max(1, round(size / 8))):
            after = int((found[:, axis] >= cut).sum())
            crossed = int((np.abs(found[:, axis] - cut) < size / 2).sum())
            for last, count in ((True, after), (False, len(found) - after)):
                if count < LEAST_HELD_OUT or total - count < LEAST_LEARNED:
                    continue
                cost = abs(count / total - _HELD_OUT) + crossed / total
                if best is None or cost < best[0]:
                    best = (cost, axis, cut, last, count)
    if best is None:
        raise TrainError(
            f"The {total} objects lie all in one place, so that no part can be held out to tell whether the "
            "model got better. Correct a larger part of the image, or a second one elsewhere."
        )
    _, axis, cut, last, count = best
    before, after_box = list(part.box), list(part.box)
    before[axis + 2], after_box[axis] = cut, cut
    sides = [Part(part.image, (b[0], b[1], b[2], b[3])) for b in (before, after_box)]
    learned, held = (sides[0], sides[1]) if last else (sides[1], sides[0])
    others = tuple(other for i, other in enumerate(parts) if i != chosen and len(middles[i]))
    return Division((learned, *others), held, (total - count, count), size)


def _objects(
    labels: npt.NDArray[np.integer[Any]], box: Box
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the middles (N, 2), in pixels of the image, and diameters (N,) of a region's objects."""
    parts = np.asarray(connected(labels[_slices(box)], connectivity=2))  # type: ignore[no-untyped-call]
    areas = np.bincount(parts.ravel())
    kept = [i for i in range(1, len(areas)) if areas[i] >= _SPECK]
    middles = np.array(ndimage.center_of_mass(parts > 0, parts, kept), float).reshape(-1, 2)
    return middles + np.array(box[:2]), equivalent_diameter(areas[kept])


def _slices(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])


def _sides(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _area(box: Box) -> int:
    return _sides(box)[0] * _sides(box)[1]


def _counted(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"
