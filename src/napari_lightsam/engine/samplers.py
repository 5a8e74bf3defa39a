"""Where prompts are placed: each sampler asks one tile in rounds, and may look at what came back.

A sampler is a generator function: it yields `Ask`, is sent the `Candidates` that passed the thresholds, and
returns when a tile has nothing more to ask.

References
----------
Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix B (grid). Shu et al., *TinySAM*, arXiv
2312.13789, section 3.3 (hierarchical). Zhang et al., *MobileSAMv2*, arXiv 2312.09579 (object-aware).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from napari_lightsam.engine.candidates import Candidates
from napari_lightsam.engine.points import lattice_axes
from napari_lightsam.engine.prompts import Prompts
from napari_lightsam.engine.proposals import from_head
from napari_lightsam.engine.seeds import find_blobs
from napari_lightsam.engine.select import plausible
from napari_lightsam.model.spec import LOGIT_STRIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.proposals import Proposals
    from napari_lightsam.engine.tile import Tile
    from napari_lightsam.model.spec import ModelSpec

_COARSE = 4  # TinySAM: a quarter of the points per side
_ENOUGH = 16  # blobs of each contrast asked before one contrast is given up
_RARELY = 4  # a contrast that is an object so many times less often than the other is given up
_HEAD_PROMPT: Literal["box", "point", "box+point"] = "box"  # what a proposal of the head is asked by


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """Prompts of one round in one tile.

    Attributes
    ----------
    prompts
        Of N objects.
    multimask
        Ask for three readings of each.
    waiting
        Prompts of this tile that may follow in later rounds.
    index
        (N,), which of the given proposals; None where the sampler made them.
    tight
        The boxes are those of whole objects: small ones may be decoded in small windows.
    """

    prompts: Prompts
    multimask: bool
    waiting: int = 0
    index: NDArray[np.intp] | None = None
    tight: bool = False


Rounds: TypeAlias = Generator[Ask, Candidates, None]
Sampler: TypeAlias = Callable[["Tile", "EverythingConfig"], Rounds]


def clicks(points: NDArray[np.float64], waiting: int = 0) -> Ask:
    """Ask for the three readings of a click at each point (N, 2)."""
    return Ask(Prompts(points[:, None], np.ones((len(points), 1), np.intp)), multimask=True, waiting=waiting)


def grid(tile: Tile, config: EverythingConfig) -> Rounds:
    """Ask at every point of a lattice (SAM)."""
    points, _ = _own_lattice(tile, config)
    yield clicks(tile.worth_asking(points))


def hierarchical(tile: Tile, config: EverythingConfig) -> Rounds:
    """Ask at a coarse lattice, then at a fine one where nothing was found (TinySAM)."""
    points, coarse = _own_lattice(tile, config)
    first, rest = tile.worth_asking(points[coarse]), tile.worth_asking(points[~coarse])
    settled = np.zeros(tile.grey.shape, bool)
    _settle(settled, tile, (yield clicks(first, waiting=len(rest))), config)
    yield clicks(rest[_open(rest, settled, tile)])


def object_aware(tile: Tile, config: EverythingConfig) -> Rounds:
    """Ask where objects probably are: as the model's proposal head says, else in blobs (MobileSAMv2)."""
    if tile.blank:
        return
    heat = tile.runtime.propose(tile.tokens())
    if heat is None:
        yield from _blobs(tile, config)
        return
    found = from_head(heat, tile.level, tile.block, tile.spec.everything.proposal_threshold)
    yield Ask(_head_prompts(found), multimask=False, tight=True)


SAMPLERS: dict[str, Sampler] = {"grid": grid, "hierarchical": hierarchical, "object-aware": object_aware}
"""By the name of their mode."""


def level_of(mode: str, level: Level, spec: ModelSpec) -> Level:
    """Return the level whose blocks a mode goes through: small windows need less in common."""
    small = mode == "object-aware" and spec.small_windows and not level.fixed
    return level.narrow() if small else level


def _head_prompts(found: Proposals) -> Prompts:
    none = np.zeros((len(found), 0, 2)), np.zeros((len(found), 0), np.intp)
    points = none if _HEAD_PROMPT == "box" else (found.points, found.labels)
    return Prompts(*points, None if _HEAD_PROMPT == "point" else found.boxes)


def _blobs(tile: Tile, config: EverythingConfig) -> Rounds:
    """Ask in the strongest blobs first; leave out what lies in found objects and contrast that finds none."""
    blobs = find_blobs(tile)
    settled = np.zeros(tile.grey.shape, bool)
    asked, met = np.zeros(2, int), np.zeros(2, int)  # dark, bright
    while len(blobs.points):
        now = _first_of_each(blobs.bright, config.batch) if not asked.any() else np.arange(config.batch)
        chosen = np.isin(np.arange(len(blobs.points)), now)
        bright, blobs, points = blobs.bright[chosen], blobs.take(~chosen), blobs.points[chosen]
        found = yield clicks(points, waiting=len(blobs.points))
        good = found.take(_good(found, config) & ~found.cut)
        _settle(settled, tile, found, config)
        asked += np.bincount(bright, minlength=2)
        met += np.bincount(bright[np.unique(good.prompts)], minlength=2)
        blobs = blobs.take(
            _open(blobs.points, settled, tile) & _worthwhile(asked, met)[blobs.bright.astype(int)]
        )


def _first_of_each(bright: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Return the strongest blobs, as many bright as dark ones where there are enough."""
    half = max(1, count // 2)
    chosen = [np.flatnonzero(bright)[:half], np.flatnonzero(~bright)[:half]]
    return np.concatenate(chosen)


def _worthwhile(asked: NDArray[np.intp], met: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell whether dark and bright blobs are objects: not where the other kind is four times as often one."""
    if asked.min() < _ENOUGH:
        return np.ones(2, bool)
    rates = met / asked
    return np.asarray(rates * _RARELY >= rates[::-1])


def _own_lattice(tile: Tile, config: EverythingConfig) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the tile's points (N, 2) of the plane's lattice and which of them are on the coarse one."""
    level = tile.level
    spacing = max(level.frame) / float(config.points_per_side or 1) if level.fixed else config.point_spacing
    axes, coarse = [], []
    for axis, places in enumerate(lattice_axes(level, float(spacing or 1))):
        on = np.arange(len(places)) % _COARSE == min(_COARSE // 2, (len(places) - 1) // 2)
        at = (places + 0.5) * level.scale[axis]
        own = (at >= tile.own[axis]) & (at < tile.own[axis + 2])
        axes.append(places[own])
        coarse.append(on[own])
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return points, np.asarray(coarse[0][:, None] & coarse[1]).ravel()


def _open(points: NDArray[np.float64], settled: NDArray[np.bool_], tile: Tile) -> NDArray[np.bool_]:
    """Tell which points do not lie in what was found."""
    at = tile.logits_at(points)
    return ~settled[at[:, 0], at[:, 1]]


def _settle(settled: NDArray[np.bool_], tile: Tile, found: Candidates, config: EverythingConfig) -> None:
    """Mark, on the tile's own logit grid, where no further prompt is needed."""
    corner = tile.block.y // LOGIT_STRIDE, tile.block.x // LOGIT_STRIDE
    mark_settled(settled, found.take(_good(found, config)), float(config.confident_logit or 0.0), corner)


def _good(found: Candidates, config: EverythingConfig) -> NDArray[np.bool_]:
    """Tell which candidates pass the run's thresholds."""
    return plausible(
        found,
        iou_threshold=config.iou_threshold or 0.0,
        stability_threshold=config.stability_threshold or 0.0,
        max_size=np.inf if config.max_size is None else config.max_size,
    )


def mark_settled(
    settled: NDArray[np.bool_], candidates: Candidates, confident: float, corner: tuple[int, int] = (0, 0)
) -> None:
    """Mark logits that need no further prompt, in place.

    TinySAM takes logits above one threshold; dim objects never reach it, so each mask's threshold is
    at most the median of its own positive logits.

    Parameters
    ----------
    settled
        bool (h, w), a part of the level's logit grid.
    candidates
        What was found.
    confident
        TinySAM's threshold.
    corner
        Where on the level's logit grid `settled` starts.
    """
    for origin, crop in zip(candidates.origins, candidates.logits, strict=True):
        positive = crop[crop > 0]
        if len(positive):
            y, x = origin - corner
            target = settled[y : y + crop.shape[0], x : x + crop.shape[1]]
            sure = crop >= min(confident, float(np.median(positive)))
            target |= sure[: target.shape[0], : target.shape[1]]
