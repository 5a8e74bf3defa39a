"""Where blocks of a slide meet: which objects of neighbours are the same, decided for each cluster once.

Blocks have chosen among their own objects; only those that reach past their part of the slide, and what
these meet there, are compared here, by the rules that everything mode has for all candidates of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_lightsam.batch.slide_blocks import Boxes, Changes, Finished, read_kept
from napari_lightsam.engine.assemble import least_area
from napari_lightsam.engine.footprints import near_pairs, pack_crops
from napari_lightsam.engine.merge import Pile
from napari_lightsam.engine.select import choose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_lightsam.batch.slide_blocks import SlidePlan

Nodes = tuple[tuple[int, int], ...]
"""Objects as (block, index), rising."""


def find_visitors(blocks: Mapping[int, Finished]) -> dict[int, tuple[Boxes, Boxes]]:
    """Find, for each block, the objects of others that reach where it has some.

    Returns
    -------
    dict
        By block: boxes int (K, 4), and (K, 2), the block and index of each.
    """
    filled = [index for index, block in sorted(blocks.items()) if block.count]
    if not filled:
        return {}
    boxes = np.concatenate([blocks[index].boxes for index in filled])
    owner = np.repeat(filled, [len(blocks[index].which) for index in filled])
    who = np.stack([owner, np.concatenate([blocks[index].which for index in filled])], axis=1)
    reaches = np.array([blocks[index].reach for index in filled])
    visitor, host = near_pairs(np.concatenate([boxes, reaches]))
    across = (visitor < len(boxes)) & (host >= len(boxes))
    visitor, host = visitor[across], np.array(filled)[host[across] - len(boxes)]
    foreign = owner[visitor] != host
    visitor, host = visitor[foreign], host[foreign]
    if len(host) == 0:
        return {}
    order = np.lexsort((visitor, host))
    visitor, host = visitor[order], host[order]
    hosts, starts = np.unique(host, return_index=True)
    groups = np.split(visitor, starts[1:])
    return {int(h): (boxes[group], who[group]) for h, group in zip(hosts, groups, strict=True)}


def meet(plan: SlidePlan, index: int, boxes: Boxes) -> NDArray[np.int64]:
    """Return pairs (M, 2) of a block's objects and visitors whose boxes overlap."""
    kept = read_kept(plan, index)
    first, second = near_pairs(np.concatenate([kept.boxes, boxes]))
    across = (first < len(kept.boxes)) & (second >= len(kept.boxes))
    return np.stack([first[across], second[across] - len(kept.boxes)], axis=1).astype(np.int64)


def find_clusters(
    meetings: Mapping[int, NDArray[np.int64]], visitors: Mapping[int, tuple[Boxes, Boxes]]
) -> dict[int, Nodes]:
    """Join objects that meet, directly or through others, and give each cluster to its first block.

    Returns
    -------
    dict
        By block, the objects of all its clusters.
    """
    edges = [
        np.concatenate([np.full((len(pairs), 1), host), pairs[:, :1], visitors[host][1][pairs[:, 1]]], axis=1)
        for host, pairs in sorted(meetings.items())
        if len(pairs)
    ]
    if not edges:
        return {}
    joined = np.concatenate(edges)
    nodes, inverse = np.unique(np.concatenate([joined[:, :2], joined[:, 2:]]), axis=0, return_inverse=True)
    one, other = inverse.reshape(2, -1)
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(len(nodes), len(nodes)))
    count, member = connected_components(graph, directed=False)
    home = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(home, member, nodes[:, 0])
    clusters: dict[int, list[tuple[int, int]]] = {}
    for (block, index), cluster in zip(nodes.tolist(), member.tolist(), strict=True):
        clusters.setdefault(int(home[cluster]), []).append((block, index))
    return {home: tuple(members) for home, members in sorted(clusters.items())}


def decide(plan: SlidePlan, nodes: Nodes) -> dict[int, Changes]:
    """Choose among objects that meet, best first, and cut what overlaps; returns what changed, by block."""
    shelf = {block: read_kept(plan, block) for block in sorted({block for block, _ in nodes})}
    pieces = [shelf[block].piece(i) for block, i in nodes]
    quality = np.array([shelf[block].quality[i] for block, i in nodes], np.float32)
    boxes = np.array([piece.box for piece in pieces], np.intp)
    prints = pack_crops([piece.crop() for piece in pieces], boxes[:, :2], boxes)
    pile, changes = Pile(), {block: dict[int, bytes | None]() for block in shelf}
    left: dict[int, Any] = {}
    for k in choose(prints, quality, plan.config.overlap).tolist():
        if pile.settle(pieces[k], least_area(plan.config)):
            left[k] = pile.pieces[-1]
    for k, (block, i) in enumerate(nodes):
        if k not in left:
            changes[block][i] = None
        elif left[k] is not pieces[k]:
            changes[block][i] = left[k].bits.tobytes()
    return {block: changed for block, changed in changes.items() if changed}


def count_left(blocks: Mapping[int, Finished], changes: Mapping[int, Changes]) -> dict[int, int]:
    """Return how many objects each block has once neighbours were compared."""
    return {
        index: block.count - sum(bits is None for bits in changes.get(index, {}).values())
        for index, block in sorted(blocks.items())
    }


def join_changes(parts: Sequence[Mapping[int, Changes]]) -> dict[int, Changes]:
    """Join what `decide` said of different clusters."""
    joined: dict[int, Changes] = {}
    for part in parts:
        for block, changed in part.items():
            joined.setdefault(block, {}).update(changed)
    return joined
