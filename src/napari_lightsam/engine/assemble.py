"""From candidates to label images: chosen, merged and written; again whenever a setting is moved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.config import Thresholds, balance_of, thresholds
from napari_lightsam.engine.merge import Pile, check_out, scores_of, write_pieces
from napari_lightsam.engine.select import parts_of, plausible, suppress
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.footprints import Indices
    from napari_lightsam.engine.merge import LabelArray, Piece
    from napari_lightsam.model.spec import ModelSpec

_LEAST_PART = 0.5  # of the least object diameter: the least diameter of a part


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The result of everything mode.

    Attributes
    ----------
    labels
        int32 (H, W), ids 1..n, 0 for background; or the array that was given as `out`.
    scores
        float32 (n,), predicted IoU of label i + 1.
    object_size
        Diameter in pixels that decided the scale; None for models with a fixed frame.
    object_size_estimated
        The size was estimated from the image rather than given.
    config
        The settings with the model's defaults filled in. Thresholds that were not given stay None, so that
        the balance moves them; `candidates.usual` holds the model's own.
    candidates
        What a balance of 1 would let pass, and more where lower thresholds were given: for other choices by
        `to_labels` and `to_hierarchy` without a new run.
    advice
        Empty, or a likely cause of a strange result and what to change.
    complete
        False when the run was stopped: what was found until then is here.
    ids
        int (n,), the label of each score where proposals had ids of their own; None: labels are 1..n.
    missing
        Ids of proposals for which no mask was found.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    object_size: float | None
    object_size_estimated: bool
    config: EverythingConfig
    candidates: Candidates
    advice: str = ""
    complete: bool = True
    ids: NDArray[np.intp] | None = None
    missing: tuple[int, ...] = ()


def fill_defaults(config: EverythingConfig, spec: ModelSpec, size: float | None) -> EverythingConfig:
    """Fill in the model's own defaults, but for the thresholds: the balance moves these."""
    own = spec.everything
    names = ("point_spacing", "points_per_side", "confident_logit")
    missing: dict[str, Any] = {name: getattr(own, name) for name in names if getattr(config, name) is None}
    if config.mode == "auto":
        missing["mode"] = "object-aware" if isinstance(spec.frame, ObjectFrame) else "hierarchical"
    least = config.min_size
    if least is None:
        least = min((size or 0) / 3, config.max_size if config.max_size is not None else np.inf)
    return replace(config, object_size=size, min_size=least, **missing)


def usual_thresholds(spec: ModelSpec) -> Thresholds:
    """Return the thresholds that suit a model's scores."""
    return Thresholds(spec.everything.iou_threshold, spec.everything.stability_threshold)


def fix_thresholds(config: EverythingConfig, usual: Thresholds) -> EverythingConfig:
    """Write the thresholds that a config amounts to into it."""
    iou, stability = thresholds(config, usual)
    return replace(config, iou_threshold=iou, stability_threshold=stability)


def to_labels(
    candidates: Candidates, config: EverythingConfig, *, out: LabelArray | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Filter and merge candidates; milliseconds, so that settings can be moved without a new run.

    Parameters
    ----------
    candidates
        Of one run.
    config
        As in `Segmentation.config`. Balance, thresholds, sizes, border and overlap count; an object counts
        as at the border when it touches that of the plane, wherever the plane was cut for the model.
    out
        Integer array (H, W) on disk or in memory that the labels are written into, part by part.

    Returns
    -------
    labels, scores
        int32 (H, W), or `out`, with ids 1..n by falling quality; float32 (n,).

    Raises
    ------
    ConfigError
        If `out` has another shape, or has no room for the largest id.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from napari_lightsam import EverythingConfig, drain, load_segmenter
    >>> from napari_lightsam.samples import read_sample
    >>> image = read_sample("nuclei_fluorescence")[:128, :128]
    >>> result = drain(load_segmenter().everything(image, EverythingConfig(object_size=26)))
    >>> labels, scores = to_labels(result.candidates, replace(result.config, balance=-0.5))
    >>> bool(len(scores) == labels.max() <= len(result.scores))
    True
    """
    check_out(out, candidates.level.shape)
    pile, _ = pile_objects(candidates, config)
    labels: NDArray[np.int32] = write_pieces(pile.pieces, candidates.level.shape, out)
    return labels, scores_of(pile.pieces)


def to_hierarchy(
    candidates: Candidates, config: EverythingConfig
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw objects and their parts, such as cells and their nuclei, as two label images.

    Parameters
    ----------
    candidates
        Of one run.
    config
        As in `Segmentation.config`. A part may be half as wide as the least object, and covers no more than
        `overlap` of its object.

    Returns
    -------
    objects, parts
        int32 (H, W) each. `objects` is what `to_labels` gives. Parts have ids 1..m of their own and lie
        inside one object each: part i belongs to the object `objects[parts == i][0]`.
    """
    shape = candidates.level.shape
    pile, objects = pile_objects(candidates, config)
    inner = passing(candidates, config, _LEAST_PART)
    inner = np.setdiff1d(inner, objects, assume_unique=True)
    parts, owners = parts_of(candidates, objects, inner, config.overlap)
    owner_of: dict[int, Piece] = {
        int(part): pile.pieces[owner] for part, owner in zip(parts, owners, strict=True)
    }
    small = Pile()
    for i in suppress(candidates, candidates.quality, config.overlap, parts):
        small.settle(candidates.piece(int(i)), least_area(config, _LEAST_PART), within=owner_of[int(i)])
    return write_pieces(pile.pieces, shape), write_pieces(small.pieces, shape)


def pile_objects(candidates: Candidates, config: EverythingConfig) -> tuple[Pile, Indices]:
    """Choose and settle the objects; returns them, and int (K,), which candidates they were."""
    pile = Pile(candidates.remainders)
    return pile, settle(pile, candidates, config, passing(candidates, config))


def settle(pile: Pile, candidates: Candidates, config: EverythingConfig, passed: Indices) -> Indices:
    """Put the best of the candidates `passed` on a pile, as far as there is room; returns int (K,), which."""
    best = suppress(candidates, candidates.quality, config.overlap, passed)
    kept = [i for i in best if pile.settle(candidates.piece(int(i)), least_area(config))]
    return np.array(kept, np.intp)


def passing(candidates: Candidates, config: EverythingConfig, smaller: float = 1.0) -> Indices:
    """Return the candidates that pass thresholds and size limits; the least size may be lowered."""
    iou, stability = thresholds(config, candidates.usual)
    passed = plausible(
        candidates,
        iou_threshold=iou,
        stability_threshold=stability,
        min_size=smaller * (config.min_size or 0.0),
        max_size=np.inf if config.max_size is None else config.max_size,
        keep_border=config.keep_border,
    )
    return np.flatnonzero(passed)


def balances(candidates: Candidates, config: EverythingConfig) -> NDArray[np.float64]:
    """Return from which balance on each object is there: what a balance changes in the result of one run.

    Parameters
    ----------
    candidates
        Of one run.
    config
        As in `to_labels`; its own balance does not count.

    Returns
    -------
    NDArray
        float64 (n,) between -1 and 1, rising: of the objects at a balance of 1.
    """
    _, kept = pile_objects(candidates, replace(config, balance=1.0))
    needed = np.full(len(kept), -1.0)
    given = config.iou_threshold, config.stability_threshold
    scores = candidates.iou[kept], candidates.stability[kept]
    for threshold, usual, mine in zip(given, candidates.usual, scores, strict=True):
        if threshold is None:  # one that is given is not moved
            needed = np.maximum(needed, balance_of(usual, mine.astype(np.float64)))
    return np.sort(np.minimum(needed, 1.0))


def least_area(config: EverythingConfig, smaller: float = 1.0) -> float:
    """Return the area below which what is left of an overlapped object is dropped."""
    return float(np.pi / 4 * (smaller * (config.min_size or 0.0)) ** 2 / 2)
