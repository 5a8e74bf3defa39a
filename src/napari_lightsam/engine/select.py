"""Which candidates become objects: pure functions over `Candidates`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.footprints import Indices, count_bits, count_shared, meetings, near_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.footprints import Footprints

_BACKGROUND_FRACTION = 0.5  # of the plane
_BACKGROUND_BORDERS = 2
_CONTAINED = 0.8  # an object lies inside a candidate when this part of it does
_WORTH = 0.05  # of the candidates: as long as one choice settles more, choices are made singly
_NEARLY = 0.95  # of a part's quality: enough for the whole to be the object


def plausible(
    candidates: Candidates,
    *,
    iou_threshold: float = 0.0,
    stability_threshold: float = 0.0,
    min_size: float = 0.0,
    max_size: float = np.inf,
    keep_border: bool = True,
) -> NDArray[np.bool_]:
    """Tell which candidates pass all thresholds and are no background.

    Parameters
    ----------
    candidates
        N candidates.
    iou_threshold, stability_threshold
        Least scores.
    min_size, max_size
        Diameters in image pixels.
    keep_border
        Keep masks that touch the image border.

    Returns
    -------
    bool (N,)
        A mask over half the plane that touches two or more borders is background; an object is never
        dropped for being large alone.
    """
    limit = np.asarray(candidates.level.logit_shape)
    borders = (candidates.boxes[:, :2] <= 0).sum(axis=1) + (candidates.boxes[:, 2:] >= limit).sum(axis=1)
    plane = candidates.level.shape[0] * candidates.level.shape[1]
    background = (candidates.areas > _BACKGROUND_FRACTION * plane) & (borders >= _BACKGROUND_BORDERS)
    diameters = candidates.diameters
    passed = (
        (candidates.iou >= iou_threshold)
        & (candidates.stability >= stability_threshold)
        & (diameters >= min_size)
        & (diameters <= max_size)
        & ~background
    )
    return np.asarray(passed if keep_border else passed & (borders == 0))


def suppress(
    candidates: Candidates, quality: NDArray[np.float32], overlap: float, among: Indices | None = None
) -> Indices:
    """Choose candidates that do not cover each other, best first.

    Every candidate is judged by the better ones that were chosen:

    - when they cover more than `overlap` of it, it is a repetition or a part, and is dropped;
    - when two or more of them lie inside it, it is a crowd, and is dropped;
    - when one lies inside it, that one is its part (a nucleus in a cell) if the whole is nearly as good:
      the whole takes its place. A much worse whole is dropped, as it would be left as a ring.

    Parameters
    ----------
    candidates
        N candidates.
    quality
        (N,), higher is better; of equal ones the first comes first.
    overlap
        Between 0 and 1.
    among
        int (M,), rising, the candidates to choose from; None: all.

    Returns
    -------
    int (K,)
        Indices of the chosen, best first.
    """
    return choose(candidates.footprints(), quality, overlap, among)


def choose(
    prints: Footprints, quality: NDArray[np.float32], overlap: float, among: Indices | None = None
) -> Indices:
    """Choose footprints by the rules of `suppress`, whose parameters and result these are."""
    pool = np.arange(len(prints.boxes)) if among is None else among
    ranked = pool[np.argsort(-quality[pool], kind="stable")]
    return ranked[_Choice(prints, ranked, quality[ranked], overlap).made()]


class _Choice:
    """Greedy choice in rounds: whoever has no undecided better neighbour is decided, all of these at once.

    The outcome is that of going through the candidates one by one, best first.
    """

    def __init__(
        self, prints: Footprints, ranked: Indices, quality: NDArray[np.float32], overlap: float
    ) -> None:
        self.prints, self.ranked, self.quality = prints, ranked, quality
        self.areas = prints.areas[ranked]
        self.room = overlap * self.areas
        self.free = prints.words.copy()  # what no better chosen candidate has taken of each
        self.covered = np.zeros(len(ranked), np.intp)
        self.open = np.asarray(self.areas > 0)
        self.chosen = np.zeros(len(ranked), bool)
        none = np.zeros(0, np.intp)
        self.inner, self.outer = none, none  # chosen candidates and undecided ones they lie inside

    def made(self) -> NDArray[np.bool_]:
        """Return which of the ranked candidates are chosen."""
        self._peel()
        left = np.flatnonzero(self.open)
        better, worse = (left[part] for part in near_pairs(self.prints.boxes[self.ranked[left]]))
        while self.open.any():
            ready = self.open.copy()
            ready[worse] = False
            now = self._decide(ready)
            taking = now[better]
            self._take(better[taking], worse[taking])
            waiting = self.open[better] & self.open[worse]
            better, worse = better[waiting], worse[waiting]
        return self.chosen

    def _peel(self) -> None:
        """Choose the best one by one while each settles many: large objects are repeated very often."""
        boxes = self.prints.boxes[self.ranked]
        left = np.flatnonzero(self.open)
        while len(left) > 1:
            best, rest = boxes[left[0]], boxes[left[1:]]
            near = (best[:2] < rest[:, 2:]).all(axis=1) & (rest[:, :2] < best[2:]).all(axis=1)
            ready = np.zeros(len(boxes), bool)
            ready[left[0]] = True
            if self._decide(ready).any():
                worse = left[1:][near]
                self._take(np.full(len(worse), left[0]), worse)
            before, left = len(left), np.flatnonzero(self.open)
            if len(left) > (1 - _WORTH) * before:
                break

    def _decide(self, ready: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Decide candidates whose better neighbours are all decided; return the newly chosen."""
        live = self.chosen[self.inner] & self.open[self.outer]
        self.inner, self.outer = self.inner[live], self.outer[live]
        held = np.bincount(self.outer, minlength=len(ready))
        asked = ready[self.outer] & (held[self.outer] == 1)
        whole, part = self.outer[asked], self.inner[asked]
        poor = self.quality[whole] < _NEARLY * self.quality[part]
        now = ready & (held < 2)
        now[whole[poor]] = False
        self.chosen[part[~poor]] = False
        self.chosen |= now
        self.open &= ~ready
        return now

    def _take(self, better: Indices, worse: Indices) -> None:
        """Take the logits of newly chosen candidates away from their undecided neighbours."""
        first, second, words = self.ranked[better], self.ranked[worse], self.prints.words
        for part, starts, one, other in meetings(self.prints, first, second):
            both = words[one] & words[other]
            shared = np.add.reduceat(count_bits(both), starts)
            # Two candidates may take different bits of one word, and the same bit twice.
            again = np.argsort(other, kind="stable")
            target, at = np.unique(other[again], return_index=True)
            taken = np.bitwise_or.reduceat(both[again], at) & self.free[target]
            self.free[target] &= ~taken
            owner = np.zeros(len(other), np.intp)
            owner[starts] = 1
            owner = worse[part][np.cumsum(owner) - 1][again][at]
            np.add.at(self.covered, owner, count_bits(taken))
            inside = shared >= _CONTAINED * self.areas[better[part]]
            self.inner = np.concatenate([self.inner, better[part][inside]])
            self.outer = np.concatenate([self.outer, worse[part][inside]])
        self.open &= self.covered <= self.room


def parts_of(
    candidates: Candidates, objects: Indices, among: Indices, overlap: float
) -> tuple[Indices, Indices]:
    """Find candidates that are parts of objects: they lie inside one and are clearly smaller.

    Parameters
    ----------
    candidates
        N candidates.
    objects
        int (K,), the objects.
    among
        int (M,), what may be a part.
    overlap
        A part covers no more than this fraction of its object.

    Returns
    -------
    parts, owners
        int (P,), rising, and the position in `objects` of each one's object: the smallest that holds it.
    """
    prints = candidates.footprints()
    both = np.concatenate([objects, among])
    first, second = near_pairs(prints.boxes[both])
    across = (first < len(objects)) & (second >= len(objects))
    owner, part = first[across], both[second[across]]
    whole = objects[owner]
    small = prints.areas[part] <= overlap * prints.areas[whole]
    owner, part, whole = owner[small], part[small], whole[small]
    inside = count_shared(prints, whole, part) >= _CONTAINED * prints.areas[part]
    owner, part, whole = owner[inside], part[inside], whole[inside]
    order = np.lexsort((owner, prints.areas[whole], part))
    parts, at = np.unique(part[order], return_index=True)
    return parts, owner[order][at]


def box_nms(boxes: NDArray[np.float64], scores: NDArray[np.float32], threshold: float) -> Indices:
    """Greedy non-maximum suppression by box IoU.

    Parameters
    ----------
    boxes
        (N, 4) as (y0, x0, y1, x1).
    scores
        (N,).
    threshold
        A box that overlaps a better one by more is dropped.

    Returns
    -------
    int (K,)
        Kept indices, best first.
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(int(best))
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        union = area[best] + area[rest] - shared
        order = rest[shared <= threshold * union]
    return np.asarray(kept, np.intp)
