"""Objects of neighbouring planes linked into objects of a volume, by their overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from napari_lightsam.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from numpy.typing import NDArray

MIN_IOU = 0.3
"""Objects of neighbouring planes that overlap by this IoU may be one."""

JUMP = 2.0
"""An object whose area changes by more than this factor between two of its planes is flagged."""


@dataclass(frozen=True, slots=True, eq=False)
class _Linked:
    """A plane with volume ids."""

    labels: NDArray[np.int32]
    ids: NDArray[np.int32]
    areas: NDArray[np.int64]


class _Record(NamedTuple):
    """The objects of one plane."""

    ids: NDArray[np.int32]
    areas: NDArray[np.int64]
    scores: NDArray[np.float64]
    bridged: NDArray[np.bool_]


class PlaneLinker:
    """Links planes one after the other; keeps the last two planes and four numbers an object and plane.

    Parameters
    ----------
    min_iou
        Least IoU, in (0, 1], of two objects in neighbouring planes that are one.
    bridge_gap
        Objects that are missing in one plane go on in the next one.

    Raises
    ------
    ConfigError
        `min_iou` is out of range.

    Notes
    -----
    Of all pairs that overlap enough, the one-to-one links with the greatest total IoU are taken. Objects
    left over are then linked, in the same way, to those that were last seen two planes before. The planes'
    own numbers carry no meaning: new ids are given in reading order.

    Examples
    --------
    >>> linker = PlaneLinker()
    >>> linker.add(np.array([[5, 5, 0, 0]])).tolist(), linker.add(np.array([[2, 2, 0, 9]])).tolist()
    ([[1, 1, 0, 0]], [[1, 1, 0, 2]])
    >>> linker.table()["n_planes"].tolist()
    [2, 1]
    """

    def __init__(self, *, min_iou: float = MIN_IOU, bridge_gap: bool = True) -> None:
        if not 0 < min_iou <= 1:
            raise ConfigError(f"The least IoU of linked objects is above 0 and at most 1; got {min_iou}.")
        self._min_iou, self._bridge_gap = min_iou, bridge_gap
        self._last: _Linked | None = None
        self._before: _Linked | None = None
        self._records: list[_Record] = []
        self._count = 0

    @property
    def n_objects(self) -> int:
        """Number of objects in all planes so far."""
        return self._count

    def add(self, labels: NDArray[Any], scores: NDArray[Any] | None = None) -> NDArray[np.int32]:
        """Link the next plane.

        Parameters
        ----------
        labels
            Integers (H, W), 0 for background.
        scores
            (n,) score of label i + 1.

        Returns
        -------
        int32 (H, W)
            The plane with the ids of the volume.

        Raises
        ------
        ImageError
            If this is no plane of labels, or not of the shape of the others.
        """
        self._check(labels)
        numbers, own, areas = _in_reading_order(labels)
        ids, bridged = np.zeros(len(own), np.int32), np.zeros(len(own), bool)
        if self._last is not None:
            self._continue(numbers, areas, ids, self._last, self._last.ids)
        if self._before is not None and self._last is not None and self._bridge_gap:
            open_before = ids == 0
            gone = np.setdiff1d(self._before.ids, self._last.ids)
            self._continue(numbers, areas, ids, self._before, gone)
            bridged = open_before & (ids > 0)
        new = ids == 0
        ids[new] = self._count + 1 + np.arange(np.count_nonzero(new))
        self._count += int(np.count_nonzero(new))
        linked = np.concatenate([[0], ids]).astype(np.int32)[numbers]
        given = np.full(len(own), np.nan) if scores is None else np.asarray(scores, float)[own - 1]
        self._records.append(_Record(ids, areas, given, bridged))
        self._before, self._last = self._last, _Linked(linked, ids, areas)
        return linked

    def _check(self, labels: NDArray[Any]) -> None:
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
            raise ImageError(
                "A plane of labels is a 2-D array of integers from 0 (background); got shape "
                f"{labels.shape}, {labels.dtype}."
            )
        if self._last is not None and labels.shape != self._last.labels.shape:
            raise ImageError(
                f"Planes that are linked have one shape; plane {len(self._records)} has {labels.shape}, "
                f"those before {self._last.labels.shape}."
            )

    def _continue(
        self,
        numbers: NDArray[np.intp],
        areas: NDArray[np.int64],
        ids: NDArray[np.int32],
        earlier: _Linked,
        allowed: NDArray[np.int32],
    ) -> None:
        """Give the ids of an earlier plane's allowed objects to those of this plane that have none yet."""
        order = np.argsort(earlier.ids)
        first, second, shared = _overlaps(earlier.labels, numbers)
        position = order[np.searchsorted(earlier.ids, first, sorter=order)]
        iou = shared / (earlier.areas[position] + areas[second - 1] - shared)
        good = (iou >= self._min_iou) & np.isin(first, allowed) & (ids[second - 1] == 0)
        chosen = assign(first[good], second[good], iou[good])
        ids[second[good][chosen] - 1] = first[good][chosen]

    def table(self) -> pd.DataFrame:
        """Describe the objects of all planes so far, one row each.

        Returns
        -------
        table
            `label`; `first_plane` and `last_plane`, from 0; `n_planes` in which it was found; `volume_px`,
            its pixels in all of them; `score`, the mean where scores were given; `area_ratio`, the greatest
            change of its area from one of its planes to the next; and what to look at: `single_plane`,
            `area_jump` (more than twofold), `gap_bridged`.
        """
        import pandas as pd

        planes = np.repeat(np.arange(len(self._records)), [len(r.ids) for r in self._records])
        columns = [np.concatenate(part) if part else np.zeros(0) for part in zip(*self._records, strict=True)]
        ids, areas, scores, bridged = columns or [np.zeros(0)] * 4
        order = np.lexsort((planes, ids))
        ids, planes, areas, scores = ids[order].astype(int), planes[order], areas[order], scores[order]
        starts = np.flatnonzero(np.diff(ids, prepend=0))
        ratio = np.ones(len(ids))
        ratio[1:] = np.maximum(areas[1:], areas[:-1]) / np.maximum(np.minimum(areas[1:], areas[:-1]), 1)
        ratio[starts] = 1.0  # the first plane of an object follows another object's last
        counts = np.diff(starts, append=len(ids))
        columns_by_name = {
            "label": ids[starts],
            "first_plane": planes[starts],
            "last_plane": planes[starts + counts - 1],
            "n_planes": counts,
            "volume_px": _add_up(areas, starts).astype(np.int64),
            "score": _add_up(scores, starts) / np.maximum(counts, 1),
            "area_ratio": np.maximum.reduceat(ratio, starts) if len(starts) else np.zeros(0),
            "single_plane": counts == 1,
        }
        columns_by_name["area_jump"] = columns_by_name["area_ratio"] > JUMP
        columns_by_name["gap_bridged"] = _add_up(bridged[order].astype(int), starts) > 0
        if np.isnan(scores).all():
            del columns_by_name["score"]
        return pd.DataFrame(columns_by_name)


def link_planes(
    planes: Iterable[NDArray[Any]],
    *,
    out: Any = None,
    min_iou: float = MIN_IOU,
    bridge_gap: bool = True,
) -> tuple[Any, pd.DataFrame]:
    """Link the label images of consecutive planes into objects of one volume.

    Parameters
    ----------
    planes
        Integers (H, W), 0 for background; two are held at a time.
    out
        Array-like (Z, H, W), on disk for instance, that planes are written to; None: a new array.
    min_iou, bridge_gap
        As in `PlaneLinker`.

    Returns
    -------
    labels
        `out`, or int32 (Z, H, W): ids 1..n over all planes.
    table
        As in `PlaneLinker.table`.

    Raises
    ------
    ImageError
        If a plane is no label image, or not of the shape of the others.
    ConfigError
        If `min_iou` is out of range.

    Examples
    --------
    >>> planes = [np.array([[7, 7, 0]]), np.array([[0, 0, 0]]), np.array([[3, 3, 0]])]
    >>> labels, table = link_planes(planes)
    >>> labels[:, 0].tolist(), table["gap_bridged"].tolist()
    ([[1, 1, 0], [0, 0, 0], [1, 1, 0]], [True])
    """
    linker = PlaneLinker(min_iou=min_iou, bridge_gap=bridge_gap)
    linked = []
    for i, plane in enumerate(planes):
        labels = linker.add(np.asarray(plane))
        if out is None:
            linked.append(labels)
        else:
            out[i] = labels
    if out is None:
        out = np.stack(linked) if linked else np.zeros((0, 0, 0), np.int32)
    return out, linker.table()


def assign(
    first: NDArray[np.integer[Any]], second: NDArray[np.integer[Any]], gain: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Choose one-to-one pairs with the greatest total gain.

    Parameters
    ----------
    first, second
        (k,), what each pair joins.
    gain
        (k,), positive.

    Returns
    -------
    (m,)
        Positions of the chosen pairs, ascending.

    Examples
    --------
    >>> assign(np.array([1, 1, 2]), np.array([8, 9, 9]), np.array([0.5, 0.6, 0.4])).tolist()
    [0, 2]
    """
    if len(first) == 0:
        return np.zeros(0, np.intp)
    rows, columns = (np.unique(side, return_inverse=True)[1] for side in (first, second))
    size = int(rows.max()) + int(columns.max()) + 2
    graph = sparse.coo_array((np.ones(len(rows)), (rows, columns + rows.max() + 1)), shape=(size, size))
    group = connected_components(graph, directed=False)[1][rows]
    alone = np.bincount(group)[group] == 1
    chosen = [np.flatnonzero(alone)]
    # Pairs that compete with no other need no solver, and are nearly all of them.
    rest = np.flatnonzero(~alone)
    rest = rest[np.argsort(group[rest], kind="stable")]
    for part in np.split(rest, np.flatnonzero(np.diff(group[rest])) + 1):
        chosen.append(_best_of(part, rows, columns, gain))
    return np.sort(np.concatenate(chosen))


def _best_of(
    part: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp], gain: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Solve the assignment among some pairs."""
    if len(part) == 0:
        return part
    row, column = (np.unique(side[part], return_inverse=True)[1] for side in (rows, columns))
    table = np.zeros((row.max() + 1, column.max() + 1))
    pair = np.full(table.shape, -1, np.intp)
    table[row, column], pair[row, column] = gain[part], part
    chosen = pair[linear_sum_assignment(table, maximize=True)]
    return np.asarray(chosen[chosen >= 0], np.intp)


def _in_reading_order(
    labels: NDArray[Any],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Give objects the numbers 1..n by their first pixel; return also their own labels and their areas."""
    inside = labels > 0
    own, first, inverse, areas = np.unique(
        labels[inside], return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    rank = np.empty(len(own), np.intp)
    rank[order] = np.arange(len(own))
    numbers = np.zeros(labels.shape, np.intp)
    numbers[inside] = rank[inverse.reshape(-1)] + 1
    return numbers, own[order].astype(np.intp), areas[order].astype(np.int64)


def _overlaps(
    first: NDArray[np.int32], second: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """Return the pairs of ids that share pixels, and how many they share."""
    both = (first > 0) & (second > 0)
    width = int(second.max(initial=0)) + 1
    codes, shared = np.unique(first[both].astype(np.intp) * width + second[both], return_counts=True)
    return codes // width, codes % width, shared


def _add_up(values: NDArray[Any], starts: NDArray[np.intp]) -> NDArray[Any]:
    """Sum the values from each start to the next."""
    return np.asarray(np.add.reduceat(values, starts)) if len(starts) else np.zeros(0, values.dtype)
