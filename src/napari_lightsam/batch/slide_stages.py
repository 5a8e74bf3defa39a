"""The stages of a slide, each a graph of tasks: segment, compare neighbours, draw, make smaller copies."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.scale import WorkerLostError, constant, delay
from napari_lightsam.batch.slide_blocks import (
    Failed,
    Finished,
    Ids,
    draw_chunk,
    own_part,
    segment_block,
    shrink_chunk,
)
from napari_lightsam.batch.slide_seams import decide, find_clusters, find_visitors, join_changes, meet
from napari_lightsam.engine.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from napari_lightsam.batch.scale import Pool
    from napari_lightsam.batch.slide_blocks import SlidePlan
    from napari_lightsam.engine.level import Block, Level
    from napari_lightsam.engine.merge import Box
    from napari_lightsam.engine.progress import Work


def segment_blocks(
    plan: SlidePlan, level: Level, blocks: Sequence[Block], pool: Pool, chunk: int
) -> Work[dict[int, Finished | Failed]]:
    """Segment all blocks, and draw each chunk once its blocks are there."""
    mark = plan.hold.token
    shared = constant(plan, f"plan-{mark}")
    tasks = {
        f"block-{i}": delay(segment_block, f"block-{mark}-{i}", shared, i, block)
        for i, block in enumerate(blocks)
    }
    room = (2**32 - 1) // max(1, len(blocks))
    areas = [own_part(level, block) for block in blocks]
    for n, box in enumerate(_chunks(plan.plane.shape, chunk)):
        over = [i for i, area in enumerate(areas) if _overlap(area, box)]
        ids = [Ids(i, i * room) for i in over]
        needed = [tasks[f"block-{i}"] for i in over]
        tasks[f"chunk-{n}"] = delay(draw_chunk, f"chunk-{mark}-{n}", shared, box, ids, *needed)
    found: dict[int, Finished | Failed] = {}
    yield Progress("segmenting", 0, len(blocks))
    with closing(pool.run(tasks, plan.hold)) as events:
        for event in events:
            if event is not None and event[0].startswith("block-"):
                i, outcome = int(event[0].rpartition("-")[2]), event[1]
                if isinstance(outcome, WorkerLostError):
                    outcome = Failed(areas[i], str(outcome))
                found[i] = outcome
            yield Progress("segmenting", len(found), len(blocks))
    _check_done(plan, found.values())
    return found


def draw_labels(
    plan: SlidePlan,
    finished: Mapping[int, Finished],
    counts: Mapping[int, int],
    changes: Mapping[int, Any],
    pool: Pool,
    chunk: int,
) -> Work[None]:
    """Draw all chunks with their final labels, 1..n in the order of the blocks."""
    first, total = {}, 0
    for i in sorted(finished):
        first[i] = total
        total += counts[i]
    tasks = {}
    mark = plan.hold.token
    shared = constant(plan, f"plan-{mark}-labels")
    for n, box in enumerate(_chunks(plan.plane.shape, chunk)):
        over = [i for i, part in sorted(finished.items()) if part.count and _overlap(part.reach, box)]
        ids = [Ids(i, first[i], changes.get(i, {})) for i in over]
        tasks[f"chunk-{n}"] = delay(draw_chunk, f"labels-{mark}-{n}", shared, box, ids)
    yield from _all(pool, tasks, plan, "drawing the labels")


def make_copies(plan: SlidePlan, pool: Pool, chunk: int) -> Work[None]:
    """Fill the smaller copies, each from the next larger one."""
    import zarr

    group = zarr.open_group(plan.out, mode="r")
    mark = plan.hold.token
    for level in range(1, len(list(group.array_keys()))):
        height, width = group[str(level)].shape  # type: ignore[union-attr]
        shared = constant(plan, f"plan-{mark}-copy{level}")
        tasks = {
            f"copy-{n}": delay(shrink_chunk, f"copy{level}-{mark}-{n}", shared, level, box)
            for n, box in enumerate(_chunks((height, width), chunk))
        }
        yield from _all(pool, tasks, plan, "making smaller copies")


def compare_blocks(
    plan: SlidePlan, finished: Mapping[int, Finished], pool: Pool
) -> Work[dict[int, dict[int, bytes | None]]]:
    """Compare objects of neighbouring blocks; returns what changed, by block."""
    mark = plan.hold.token
    shared = constant(plan, f"plan-{mark}-seams")
    visitors = find_visitors(finished)
    tasks = {
        f"meet-{i}": delay(meet, f"meet-{mark}-{i}", shared, i, boxes) for i, (boxes, _) in visitors.items()
    }
    met = yield from _all(pool, tasks, plan, "comparing neighbours")
    clusters = find_clusters({int(name.rpartition("-")[2]): pairs for name, pairs in met.items()}, visitors)
    tasks = {f"seam-{i}": delay(decide, f"seam-{mark}-{i}", shared, nodes) for i, nodes in clusters.items()}
    decided = yield from _all(pool, tasks, plan, "comparing neighbours")
    return join_changes([decided[f"seam-{i}"] for i in clusters])


def _all(pool: Pool, tasks: Mapping[str, Any], plan: SlidePlan, stage: str) -> Work[dict[str, Any]]:
    """Do tasks of which none may be missing."""
    done: dict[str, Any] = {}
    with closing(pool.run(tasks, plan.hold)) as events:
        for event in events:
            if event is not None:
                if isinstance(event[1], WorkerLostError):
                    raise event[1]
                done[event[0]] = event[1]
            yield Progress(stage, len(done), len(tasks))
    _check_done(plan, done.values())
    return done


def _check_done(plan: SlidePlan, outcomes: Iterable[Any]) -> None:
    """Make sure that no worker gave a task up."""
    plan.hold.check(plan.out)
    if any(outcome is None for outcome in outcomes):
        raise plan.hold.unseen()


def _chunks(shape: tuple[int, int], side: int) -> Iterator[Box]:
    """Give the parts of an image that are written at once: whole chunks, row by row."""
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            yield y, x, min(y + side, shape[0]), min(x + side, shape[1])


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
