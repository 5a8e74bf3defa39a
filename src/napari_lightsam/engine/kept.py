"""Label images that keep the ids of given proposals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.merge import Piece, Pile, write_pieces
from napari_lightsam.engine.select import plausible

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.merge import LabelArray


def keep_ids(
    candidates: Candidates,
    config: EverythingConfig,
    ids: NDArray[np.intp],
    out: LabelArray | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.intp], tuple[int, ...]]:
    """Draw the best mask of each proposal under its own id.

    Proposals are objects that somebody has told apart: none is dropped for overlapping another. Pixels that
    several masks want belong to the mask of highest quality.

    Parameters
    ----------
    candidates
        Of one run; their `prompts` count the proposals.
    config
        With thresholds filled in.
    ids
        (N,), label of each proposal.
    out
        Integer array (H, W) that the labels are written into.

    Returns
    -------
    labels, scores, found, missing
        int32 (H, W), or `out`; float32 (n,), predicted IoU of each id in `found`, (n,), rising; the ids of
        proposals without a mask.
    """
    passed = plausible(
        candidates,
        iou_threshold=config.iou_threshold or 0.0,
        stability_threshold=config.stability_threshold or 0.0,
        min_size=config.min_size or 0.0,
        max_size=np.inf if config.max_size is None else config.max_size,
        keep_border=config.keep_border,
    )
    good = candidates.take(passed)
    order = np.argsort(-(good.iou * good.stability), kind="stable")
    _, first = np.unique(good.prompts[order], return_index=True)
    pile = Pile()
    names: list[int] = []
    for i in order[np.sort(first)]:
        piece = Piece.of(good.mask(int(i)).cleaned(keep=_at(good.points[i])))
        free = pile.free(piece)
        left = piece if free is None else piece.cut(free)
        if left.area:
            pile.add(left)
            names.append(int(ids[good.prompts[i]]))
    labels = write_pieces(pile.pieces, candidates.level.shape, out, ids=names)
    scores = {name: piece.iou for name, piece in zip(names, pile.pieces, strict=True)}
    found = np.array(sorted(scores), np.intp)
    missing = tuple(int(i) for i in np.setdiff1d(ids, found))
    return labels, np.array([scores[int(i)] for i in found], np.float32), found, missing


def _at(point: NDArray[np.float32]) -> tuple[float, float] | None:
    return None if np.isnan(point).any() else (float(point[0]), float(point[1]))
