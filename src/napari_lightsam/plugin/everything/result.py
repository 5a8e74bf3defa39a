"""What a run of everything mode is asked for and gives back; the worker's side of choosing among it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from numpy.typing import NDArray

    from napari_lightsam.engine.assemble import Segmentation
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.stack import StackSegmentation

_COUNTED = 1_000_000  # pixels at a time


class Job(NamedTuple):
    """What is to be done in one run.

    Attributes
    ----------
    config
        Settings of the engine.
    region
        (y0, x0, y1, x1) of the plane.
    proposals
        Where objects are, in pixels of the region: labels, points or boxes; None: the model looks.
    stop
        Asked between steps: end now, with what was found.
    axis
        Data axis of a stack whose planes are all segmented, or None.
    link
        Objects go on from plane to plane.
    inside
        bool (h, w) of the region: only objects that lie there are kept; None: all.
    """

    config: EverythingConfig
    region: tuple[int, int, int, int]
    proposals: Any
    stop: Callable[[], bool]
    axis: int | None = None
    link: bool = False
    inside: NDArray[np.bool_] | None = None


class Objects(NamedTuple):
    """What a run found, or what was chosen of it.

    Attributes
    ----------
    labels
        int32 (h, w), or of a stack.
    ids
        Labels that occur.
    scores
        Predicted IoU of each object, by rising label; time points are numbered by themselves, so that there
        are more scores than labels.
    areas
        Pixels of each label.
    """

    labels: NDArray[np.int32]
    ids: NDArray[np.intp]
    scores: NDArray[Any]
    areas: NDArray[np.intp]


class Choice(NamedTuple):
    """What was chosen of a run.

    Attributes
    ----------
    objects
        Chosen.
    balances
        From which balance on each object of the run is there, rising; empty where that is not known.
    """

    objects: Objects
    balances: NDArray[np.float64]


class Result(NamedTuple):
    """A finished run and what made it; `table` has a row for each linked object."""

    found: Segmentation | StackSegmentation
    objects: Objects
    mode: str
    model: str
    weights_hash: str
    table: pd.DataFrame | None = None
    balances: NDArray[np.float64] = np.zeros(0)


def choose_again(segmentation: Segmentation, config: EverythingConfig) -> Objects:
    """Choose among the candidates of a run with other settings; milliseconds."""
    from napari_lightsam.engine.assemble import to_labels
    from napari_lightsam.engine.kept import keep_ids

    if segmentation.ids is None:
        return numbered(*to_labels(segmentation.candidates, config))
    ids = np.union1d(segmentation.ids, segmentation.missing).astype(np.intp)
    labels, scores, found, _ = keep_ids(segmentation.candidates, config, ids)
    return measured(labels, found, scores)


def known_balances(segmentation: Segmentation, config: EverythingConfig) -> NDArray[np.float64]:
    """Return from which balance on each object of a run is there; where objects have ids, all always are."""
    from napari_lightsam.engine.assemble import balances

    return balances(segmentation.candidates, config) if segmentation.ids is None else np.zeros(0)


def numbered(labels: NDArray[np.int32], scores: NDArray[Any], ids: NDArray[np.intp] | None = None) -> Objects:
    """Return what a run found; without ids, labels go from 1 to the number of scores."""
    return measured(labels, np.arange(1, len(scores) + 1) if ids is None else ids, scores)


def inside_only(objects: Objects, inside: NDArray[np.bool_] | None) -> Objects:
    """Drop the objects that lie outside of a drawn region."""
    if inside is None:
        return objects
    from napari_lightsam.engine.inside import keep_inside

    labels, ids, scores = keep_inside(objects.labels, objects.ids, objects.scores, inside)
    return measured(labels, ids, scores)


def measured(labels: NDArray[np.int32], ids: NDArray[np.intp], scores: NDArray[Any]) -> Objects:
    """Return what a run found, its pixels counted: on the main thread that would take too long."""
    counts = np.zeros(int(ids.max(initial=0)) + 1, np.intp)
    flat = labels.reshape(-1)
    for start in range(0, flat.size, _COUNTED):  # all at once would hold eight bytes a pixel
        counts += np.bincount(flat[start : start + _COUNTED], minlength=len(counts))[: len(counts)]
    return Objects(labels, ids, scores, counts[ids])
