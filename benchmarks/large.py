"""`python -m benchmarks.large`: a plane on disk, larger than memory, segmented into an array on disk.

The plane is the scene of 1024 pixels, mirrored from tile to tile and written to a zarr array chunk by chunk.
A process of its own segments it, beside the single tile, and tells its peak memory. Then windows of the
result where the model's blocks meet are compared with the ground truth, and with windows that show the mirror
images of the same nuclei elsewhere. Prints a Markdown table, and writes it and its figures to
benchmarks/results/large.md and large.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from skimage.measure import label

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import level_of
from napari_lightsam.train.metrics import find_overlaps, match, match_overlaps, pool

from .fresh import peak_memory, run_fresh
from .report import machine, save_results, where, written
from .scenes import cells_1024

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.train.metrics import Overlaps

RESULTS = Path(__file__).resolve().parent / "results" / "large.json"
MOST_MIB = 2048.0
"""What the whole process may take at its peak."""

TILE = 1024
"""Side of the tiles of the plane in pixels: it is mirrored at its multiples."""

_MPX = 2.0**20
_WINDOWS = 24  # and as many mirrored
_PIECE = 0.2  # of a nucleus: what an object must hold of it to be a piece
_REPEAT = 3  # samples of the single tile, before and after the plane


def write_plane(path: Path, side: int) -> None:
    """Write the mirrored tiles as uint8 (side, side), one chunk a tile."""
    tile = cells_1024().image
    plane = zarr.create_array(path, shape=(side, side), chunks=(TILE, TILE), dtype=tile.dtype)
    for y in range(0, side, TILE):
        for x in range(0, side, TILE):
            plane[y : y + TILE, x : x + TILE] = _mirrored(tile, y, x)[: side - y, : side - x]


def _mirrored(tile: NDArray[Any], y: int, x: int) -> NDArray[Any]:
    """Return the tile as it stands at a corner of the plane."""
    return tile[:: -1 if y // TILE % 2 else 1, :: -1 if x // TILE % 2 else 1]


def true_labels(y: int, x: int, height: int, width: int) -> NDArray[np.int32]:
    """Return the ground truth of a part of the plane; a nucleus and its mirror image that meet are one."""
    tile = cells_1024().labels
    rows, columns = (
        np.minimum(at % (2 * TILE), 2 * TILE - 1 - at % (2 * TILE))
        for at in (np.arange(y, y + height), np.arange(x, x + width))
    )
    return np.asarray(label(tile[rows[:, None], columns], connectivity=2), np.int32)


def segment_plane(source: Path, target: Path) -> dict[str, Any]:
    """Segment the plane, beside single tiles; meant for a process of its own."""
    from .bench import load

    segmenter, scene = load("auto"), cells_1024()
    config = EverythingConfig(object_size=scene.object_size)
    result = drain(segmenter.everything(scene.image, config))  # warms up, and is judged
    loaded = peak_memory()
    tiles = [_seconds(segmenter, scene.image, config) for _ in range(_REPEAT)]
    image = zarr.open_array(source, mode="r")
    out = zarr.create_array(target, shape=image.shape, chunks=(TILE, TILE), dtype="int32")
    start = time.perf_counter()
    found = drain(segmenter.everything(image, config, out=out))
    seconds = time.perf_counter() - start
    peak = peak_memory()
    tiles += [_seconds(segmenter, scene.image, config) for _ in range(_REPEAT)]
    return {
        "seconds": seconds,
        "objects": len(found.scores),
        "candidates": len(found.candidates),
        "peak_mib": peak,
        "peak_tile_mib": loaded,
        "seconds_tile": statistics.median(tiles),
        "ap50_tile": match(scene.labels, result.labels)[0].average_precision,
        "borders": _borders(segmenter, image, scene.object_size),
        "runtime": f"{segmenter.runtime_name}, {segmenter.precision}",
        "weights": segmenter.weights_hash,
    }


def _seconds(segmenter: Segmenter, image: NDArray[Any], config: EverythingConfig) -> float:
    start = time.perf_counter()
    drain(segmenter.everything(image, config))
    return time.perf_counter() - start


def _borders(segmenter: Segmenter, image: Any, object_size: float) -> list[list[int]]:
    """Return the image rows, and the columns, at which one block's part of the plane ends."""
    level = segmenter.level(segmenter.lazy_embedding(image, object_size=object_size))
    level = level_of("object-aware", level, segmenter.spec)
    own = [level.own(block) for block in level.block_list()]
    return [sorted({round(part[axis] / level.scale[axis]) for part in own} - {0}) for axis in (0, 1)]


def choose_windows(
    side: int, borders: Sequence[Sequence[int]], count: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return corners of windows around points where four blocks meet, each with that of its mirror image.

    Mirrored at an edge of the tiles, a window shows the same nuclei, but where other blocks meet or none:
    what differs between the two is the blocks' doing.
    """
    random, size = np.random.default_rng(0), _window_side(side)
    pairs: list[tuple[tuple[int, int], tuple[int, int]]] = []
    crossings = [(y, x) for y in borders[0] for x in borders[1]]
    for i in random.permutation(len(crossings)):
        y, x = (int(np.clip(at - size // 2, 0, side - size)) for at in crossings[i])
        v, u = (_reflected(at, size, side) for at in (y, x))
        if v is not None and u is not None and len(pairs) < count:
            pairs.append(((y, x), (v, u)))
    return pairs


def _window_side(side: int) -> int:
    return min(TILE, side)


def _reflected(at: int, size: int, side: int) -> int | None:
    """Return where a window along one axis starts once it is mirrored at an edge of tiles; None: outside."""
    edges = range(0, side + TILE, TILE)
    fits = [2 * edge - at - size for edge in edges if 0 <= 2 * edge - at - size <= side - size]
    return min(fits, key=lambda start: abs(start - at), default=None)


def check(
    labels: Any,
    borders: Sequence[Sequence[int]],
    windows: Iterable[tuple[tuple[int, int], tuple[int, int]]],
) -> dict[str, float]:
    """Compare windows of a result with the ground truth.

    Parameters
    ----------
    labels
        Integers (H, W), 0 for background.
    borders
        Rows, and columns, at which one block's part ends.
    windows
        From `choose_windows`.

    Returns
    -------
    dict
        `ap50` over all windows; of the nuclei that lie across a block's border, their number `across`, and
        the parts `found` with an IoU of .5 and `split` between two objects or more; `edge`, the longest
        straight edge of an object at a border, in pixels. `found_mirrored` and so on are the same for the
        mirror images of these nuclei and borders.
    """
    side, matchings = _window_side(min(labels.shape)), []
    seen: dict[str, list[tuple[int, int, int, int]]] = {"": [], "_mirrored": []}
    for corner, other in windows:
        lines = [
            [line - at for line in own if at < line < at + side]
            for own, at in zip(borders, corner, strict=True)
        ]
        turned = [[side - line for line in own] for own in lines]
        for name, (y, x), own in (("", corner, lines), ("_mirrored", other, turned)):
            truth, found = true_labels(y, x, side, side), np.asarray(labels[y : y + side, x : x + side])
            overlaps = find_overlaps(truth, found)
            matchings.append((match_overlaps(overlaps, 0.5),))
            seen[name].append((*_judge_across(overlaps, _across(truth, own)), _edge_at(found, own)))
    out = {"ap50": pool(matchings)[0].average_precision if matchings else 0.0}
    for name, rows in seen.items():
        across, good, split, edge = np.array(rows or [(0, 0, 0, 0)]).T
        out |= {f"across{name}": int(across.sum()), f"edge{name}": int(edge.max())}
        out |= {f"found{name}": float(good.sum() / max(1, across.sum()))}
        out |= {f"split{name}": float(split.sum() / max(1, across.sum()))}
    return out


def _across(truth: NDArray[np.int32], lines: Sequence[Sequence[int]]) -> set[int]:
    """Return the ids that lie on both sides of a row or column."""
    ids: set[int] = set()
    for plane, at in zip((truth, truth.T), lines, strict=True):
        for line in at:
            both = plane[line - 1][plane[line - 1] == plane[line]]
            ids |= set(both.tolist()) - {0}
    return ids


def _judge_across(overlaps: Overlaps, ids: set[int]) -> tuple[int, int, int]:
    """Return how many true objects there are, how many are found, and how many are in several objects."""
    asked = np.isin(overlaps.truth_ids, list(ids))[overlaps.truth_index]
    good = np.unique(overlaps.truth_index[asked & (overlaps.iou > 0.5)])
    pieces = overlaps.shared > _PIECE * overlaps.truth_areas[overlaps.truth_index]
    split = np.bincount(overlaps.truth_index[asked & pieces], minlength=1) > 1
    return len(ids), len(good), int(split.sum())


def _edge_at(labels: NDArray[Any], lines: Sequence[Sequence[int]]) -> int:
    """Return the longest straight edge of an object within two pixels of a border."""
    longest = 0
    for plane, at in zip((labels, labels.T), lines, strict=True):
        for line in at:
            longest = max(longest, longest_edge(plane[max(0, line - 2) : line + 3]))
    return longest


def longest_edge(labels: NDArray[Any]) -> int:
    """Return the longest run of pixels along a row at which one label ends and one other begins."""
    above, below = labels[:-1].astype(np.int64), labels[1:].astype(np.int64)
    # One number for each pair of labels, 0 where there is no edge; a border column keeps rows apart.
    pairs = np.where(above == below, 0, above * (int(labels.max(initial=0)) + 1) + below)
    pairs = np.pad(pairs, ((0, 0), (0, 1))).ravel()
    if not pairs.any():
        return 0
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    lengths = np.diff(starts, append=len(pairs))
    return int(lengths[pairs[starts] > 0].max())


def measure(side: int, folder: Path | None = None) -> dict[str, Any]:
    """Write the plane, segment it in a process of its own, and check the result."""
    with tempfile.TemporaryDirectory(prefix="lightsam-large-", dir=folder) as place:
        source, target = Path(place) / "plane.zarr", Path(place) / "labels.zarr"
        write_plane(source, side)
        printed = run_fresh(["-m", "benchmarks.large", "--segment", str(source), str(target)])
        got: dict[str, Any] = json.loads(printed.splitlines()[-1])
        borders = got.pop("borders")
        checked = check(zarr.open_array(target, mode="r"), borders, choose_windows(side, borders, _WINDOWS))
    mpx = side**2 / _MPX
    per_mpx = got["seconds"] / mpx
    return {
        "side": side,
        "mpx": mpx,
        **got,
        "seconds_per_mpx": per_mpx,
        "ratio_to_tile": per_mpx / (got["seconds_tile"] / (TILE**2 / _MPX)),
        **checked,
    }


def as_markdown(got: dict[str, Any], about: dict[str, Any]) -> str:
    """Write the table."""
    met = "met" if got["peak_mib"] <= MOST_MIB else "not met"
    rows = {
        "plane": f"{got['side']} x {got['side']} uint8, {got['mpx']:.0f} Mpx, zarr in, zarr out",
        "objects": f"{got['objects']:,}",
        "time": f"{written(got['seconds'], 's')}, {written(got['seconds_per_mpx'], 's')} per Mpx",
        "a single tile of 1024 x 1024": f"{written(got['seconds_tile'], 's')}",
        "time per Mpx, plane / single tile": f"{got['ratio_to_tile']:.2f}",
        "peak memory, whole process": f"{written(got['peak_mib'], 'MiB')} (<= {MOST_MIB:.0f} MiB: {met})",
        "the same for a single tile": written(got["peak_tile_mib"], "MiB"),
        "AP .5 in windows": f"{got['ap50']:.3f}; of the single tile {got['ap50_tile']:.3f}",
        f"{got['across']} nuclei across borders of blocks": _beside(got, "found", "{:.1%} found"),
        "of these between two objects or more": _beside(got, "split", "{:.1%}"),
        "longest straight edge of an object at a border": _beside(got, "edge", "{:.0f} px"),
    }
    lines = [
        f"{where(about)}; runtime {got['runtime']}.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _beside(got: dict[str, Any], name: str, how: str) -> str:
    """Write a value at the borders beside that of the mirror images."""
    return f"{how.format(got[name])}; of their mirror images elsewhere {how.format(got[f'{name}_mirrored'])}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="of the plane, in pixels")
    parser.add_argument("--folder", type=Path, default=None, help="for the arrays; a temporary one")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    parser.add_argument("--segment", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.segment:
        print(json.dumps(segment_plane(*options.segment)))
        return 0
    about, got = machine(), measure(options.side, options.folder)
    table = as_markdown(got, about)
    print(table, end="")
    save_results(options.json, about | got, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
