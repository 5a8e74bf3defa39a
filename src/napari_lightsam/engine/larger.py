"""Asking at another scale: given proposals at one that fits each, and again for what a window cut."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.candidates import Candidates, concatenate
from napari_lightsam.engine.decode import place, window_size
from napari_lightsam.engine.footprints import count_shared, near_pairs
from napari_lightsam.engine.prompts import Prompts
from napari_lightsam.engine.proposals import Proposals, within
from napari_lightsam.engine.resample import apply_weights, axis_weights, paste
from napari_lightsam.engine.samplers import Ask
from napari_lightsam.engine.scales import can_shrink, scales_for
from napari_lightsam.model.spec import STRIDE, ObjectFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.samplers import Rounds
    from napari_lightsam.engine.tile import Tile
    from napari_lightsam.engine.walk import CutPrompt, Steps, Walk

_ROUNDS = 5  # the usual window, then four halvings: an object sixteen windows wide
_MOST, _PART = 16, 8  # prompts asked again: at most so many, or this part of all that were asked
_SAME_PART = 0.5  # two cut masks that share more are the same object
_OUTSIDE = -10.0  # logit where nothing was kept
_ROOM = 0.4  # of a window: how far from the middle a negative point is still inside


def ask_proposals(walk: Walk, level: Level, proposals: Proposals) -> Steps:
    """Ask for given proposals, each at the run's scale or at one that fits the size its prompts tell.

    Parameters
    ----------
    walk, level
        The run and its scale.
    proposals
        Their positions become `Candidates.prompts`.

    Returns
    -------
    list of Candidates
        All on the logit grid of `level`.
    """
    segmenter, embedding = walk.segmenter, walk.embedding
    prompts, frame = proposals.prompts(), segmenter.spec.frame
    scales: list[float | None] = [None] * len(prompts)
    if isinstance(frame, ObjectFrame):
        tokens = segmenter.spec.window or 0
        if tokens:
            prompts = within(prompts, _ROOM * tokens * STRIDE / min(level.scale))
        scales = [chosen[0] for chosen in scales_for(embedding, prompts, frame, tokens)]
    groups: dict[float | None, list[int]] = defaultdict(list)
    for i, scale in enumerate(scales):
        groups[scale].append(i)
    several = prompts.single_clicks()
    parts: list[Candidates] = []
    for scale, members in groups.items():
        index = np.array(members)
        at = segmenter.level(embedding, scale)
        found = yield from _ask_at(walk, at, prompts.take(index), several[index], index)
        parts += [part if at == level else to_level(part, level) for part in found]
    return parts


def ask_larger(walk: Walk, level: Level, parts: list[Candidates]) -> Steps:
    """Ask again, in a larger window, then at half the scale and half of that, what reached past its window.

    The cost is bounded: of masks that share half of their area one is asked for, and in all no more than an
    eighth of the prompts of the run.

    Parameters
    ----------
    walk
        The run; it remembers the prompts.
    level
        The run's scale.
    parts
        What was found so far, on the logit grid of `level`.

    Returns
    -------
    list of Candidates
        On the logit grid of `level`; whole objects replace the pieces that windows cut out of them.
    """
    found = concatenate(parts, level)
    budget = max(_MOST, walk.asked // _PART)
    for _ in range(_ROUNDS):
        waiting = _one_each([cut for cut in walk.cut if _wider(walk, cut) is not None])[:budget]
        walk.cut = []
        if not waiting or walk.stopped:
            break
        budget -= len(waiting)
        groups: dict[Level, list[CutPrompt]] = defaultdict(list)
        for cut in waiting:
            wider = _wider(walk, cut)
            assert wider is not None
            groups[wider].append(cut)
        for wider, members in groups.items():
            prompts = _joined([cut.prompts for cut in members])
            several = np.array([cut.multimask for cut in members])
            numbers = np.array([cut.number for cut in members])
            more = concatenate((yield from _ask_at(walk, wider, prompts, several, numbers)), wider)
            whole = more.take(~more.cut & walk.passing(more))
            whole = whole if wider == level else to_level(whole, level)
            found = concatenate([found.take(~_pieces(found, whole)), whole], level)
    return [found]


def to_level(candidates: Candidates, level: Level) -> Candidates:
    """Resample candidates to the logit grid of another level of the same plane; what vanishes is dropped."""
    old = candidates.level
    crops, origins, boxes, areas, kept = [], [], [], [], []
    for i, (crop, origin) in enumerate(zip(candidates.logits, candidates.origins, strict=True)):
        weights = []
        for axis in (0, 1):
            ratio = level.scale[axis] / old.scale[axis]
            first = max(0, int(np.floor(origin[axis] * ratio)) - 1)
            last = min(level.logit_shape[axis], int(np.ceil((origin[axis] + crop.shape[axis]) * ratio)) + 1)
            first = min(first, last - 1)
            weights.append(
                (first, axis_weights((first, last), ratio, old.logit_shape[axis], antialias=ratio < 1))
            )
        (y, rows), (x, columns) = weights
        padded = np.full((rows.stop - rows.start, columns.stop - columns.start), _OUTSIDE, np.float32)
        paste(padded, crop, (int(origin[0]) - rows.start, int(origin[1]) - columns.start))
        values = apply_weights(padded, rows, columns)
        inside = values > 0
        if inside.any():
            down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            kept.append(i)
            crops.append(values.astype(np.float16))
            origins.append((y, x))
            boxes.append((y + down[0], x + across[0], y + down[-1] + 1, x + across[-1] + 1))
            areas.append(np.count_nonzero(inside) * level.logit_area)
    return replace(
        candidates.take(np.array(kept, np.intp)),
        level=level,
        logits=tuple(crops),
        origins=np.array(origins, np.intp).reshape(-1, 2),
        boxes=np.array(boxes, np.intp).reshape(-1, 4),
        areas=np.array(areas, np.float32),
    )


def _ask_at(
    walk: Walk,
    level: Level,
    prompts: Prompts,
    several: NDArray[np.bool_],
    numbers: NDArray[np.intp],
) -> Steps:
    """Ask given prompts at one level, block by block."""
    _, places = place(prompts, level, _side(walk, level))

    def ask(tile: Tile, config: EverythingConfig) -> Rounds:
        members = places[tile.block]
        for multimask in (False, True):
            index = members[several[members] == multimask]
            if len(index):
                yield Ask(
                    prompts.take(index),
                    multimask,
                    0 if multimask else int(several[members].sum()),
                    numbers[index],
                )

    return (yield from walk.through(level, sorted(places), ask))


def _wider(walk: Walk, cut: CutPrompt) -> Level | None:
    """Return the scale at which the usual window shows more than the one that cut an object, or None."""
    old, side = cut.level, _side(walk, cut.level)
    if cut.side < side:
        return old
    if not can_shrink(old, side):
        return None
    return walk.segmenter.level(walk.embedding, math.sqrt(old.scale[0] * old.scale[1]) / 2)


def _side(walk: Walk, level: Level) -> int:
    return window_size(level, walk.segmenter.spec)


def _joined(prompts: list[Prompts]) -> Prompts:
    """Join prompts of one kind."""
    first = prompts[0]
    return Prompts(
        np.concatenate([p.points for p in prompts]),
        np.concatenate([p.labels for p in prompts]),
        None if first.boxes is None else np.concatenate([p.boxes for p in prompts if p.boxes is not None]),
        None if first.masks is None else tuple(mask for p in prompts for mask in p.masks or ()),
    )


def _one_each(cut: list[CutPrompt]) -> list[CutPrompt]:
    """Choose one prompt of those whose cut masks show the same object, by falling quality."""
    groups: dict[Level, list[CutPrompt]] = defaultdict(list)
    for prompt in cut:
        groups[prompt.level].append(prompt)
    chosen: list[CutPrompt] = []
    for level, members in groups.items():
        shown = concatenate([prompt.shown for prompt in members], level)
        chosen += [members[i] for i in _disjoint(shown)]
    return chosen


def _disjoint(candidates: Candidates) -> list[int]:
    """Return candidates none of which covers more than half of another, best first."""
    prints = candidates.footprints()
    first, second = near_pairs(prints.boxes)
    shared = count_shared(prints, first, second)
    covered_by: dict[int, list[int]] = defaultdict(list)
    for one, other in ((first, second), (second, first)):
        most = shared > _SAME_PART * prints.areas[one]
        for i, k in zip(one[most].tolist(), other[most].tolist(), strict=True):
            covered_by[i].append(k)
    kept = np.zeros(len(candidates), bool)
    order = np.argsort(-(candidates.iou * candidates.stability), kind="stable").tolist()
    for i in order:
        kept[i] = not kept[covered_by[i]].any()
    return [i for i in order if kept[i]]


def _pieces(found: Candidates, whole: Candidates) -> NDArray[np.bool_]:
    """Tell which candidates that a window cut lie for the most part in a whole one."""
    prints = concatenate([found, whole], found.level).footprints()
    piece, owner = near_pairs(prints.boxes)
    across = (piece < len(found)) & (owner >= len(found))
    piece, owner = piece[across], owner[across]
    most = count_shared(prints, piece, owner) > _SAME_PART * prints.areas[piece]
    inside = np.zeros(len(found), bool)
    inside[piece[most]] = True
    return inside & found.cut
