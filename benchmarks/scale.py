"""`python -m benchmarks.scale`: a slide on a dask cluster of worker processes, beside one process.

The slide is the plane of `benchmarks.large`: a real image, mirrored from tile to tile. A small one is
segmented by one process and by the cluster, once while a worker is killed and once cancelled; then the large
one by the cluster. Prints a Markdown table and what the figures mean for 10 Gpx and 100,000 images, and
writes both to benchmarks/results/scale.md and scale.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import zarr

from napari_lightsam.batch import BatchSettings
from napari_lightsam.batch.slide import segment_slide
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import level_of

from .fresh import peak_memory
from .large import TILE, check, choose_windows, write_plane
from .report import machine, save_results, where, written
from .scenes import cells_1024

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client
    from numpy.typing import NDArray

    from napari_lightsam.batch.slide import SlideReport

RESULTS = Path(__file__).resolve().parent / "results" / "scale.json"
MOST_MIB = 3072.0
"""What all processes together may take."""

LONGEST = 20
"""Pixels that an outline may run straight along a seam."""

_MPX = 2.0**20
_WINDOWS = 24
_AWAY = 64  # pixels at least from where a block's part ends to where none does
_BLOCK = 1280
_MANY_MPX, _MANY_IMAGES, _FLEET = 10_000e6 / _MPX, 100_000, 100  # the plans


def settings() -> BatchSettings:
    """Return the settings of all runs: the object size is given, so that times are those of the work."""
    return BatchSettings(config=EverythingConfig(object_size=cells_1024().object_size))


def timed(source: Path, out: Path, **options: Any) -> tuple[SlideReport, float]:
    """Segment a slide; returns the report and the seconds."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    report = drain(segment_slide(source, out, settings(), block=_BLOCK, **options))
    return report, time.perf_counter() - start


class Watch:
    """Watches the memory of some processes together, from a thread of its own.

    Parameters
    ----------
    processes
        Their ids; those that end are left out from then on.

    Attributes
    ----------
    most
        MiB at the highest, pages that several share counted once; where the system does not tell which these
        are, counted for each.
    """

    def __init__(self, processes: Sequence[int]) -> None:
        self.most = 0.0
        self._processes = [psutil.Process(one) for one in processes]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            total = 0
            for process in self._processes:
                with suppress(psutil.Error):
                    used = process.memory_full_info()
                    total += getattr(used, "pss", used.rss)
            self.most = max(self.most, total / 2**20)


def same(one: Path, other: Path) -> bool:
    """Tell whether two label images are identical, chunk by chunk."""
    first, second = (zarr.open_array(path / "0", mode="r") for path in (one, other))
    rows = range(0, first.shape[0], first.chunks[0])
    return all(np.array_equal(first[y : y + first.chunks[0]], second[y : y + first.chunks[0]]) for y in rows)


def kill_one(source: Path, out: Path, client: Client, threads: int) -> tuple[SlideReport, bool]:
    """Segment a slide while a worker is killed after the first block; tells whether one was."""
    work = segment_slide(source, out, settings(), block=_BLOCK, scheduler=client, threads=threads)
    killed = False
    while True:
        try:
            step = next(work)
        except StopIteration as stop:
            return stop.value, killed
        if step.stage == "segmenting" and step.done and not killed:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
            killed = True


def cancel_one(source: Path, out: Path, client: Client, threads: int) -> tuple[float, int]:
    """Cancel a run after the first block; returns the seconds it took and the blocks that are kept."""
    work = segment_slide(source, out, settings(), block=_BLOCK, scheduler=client, threads=threads)
    for step in work:
        if step.stage == "segmenting" and step.done:
            break
    start = time.perf_counter()
    work.close()
    seconds = time.perf_counter() - start
    time.sleep(2)  # what a worker was at when it was told
    kept = len(list(out.with_name(f"{out.name}.parts").glob("block_*.npz")))
    return seconds, kept


def straight_parts(labels: Any, lines: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Return the lengths of the straight parts of outlines within two pixels of rows and columns."""
    found = [np.zeros(1, np.int64)]
    for axis, own in enumerate(lines):
        for line in own:
            low, high = max(0, line - 3), min(labels.shape[axis], line + 3)
            band = np.asarray(labels[low:high] if axis == 0 else labels[:, low:high].T)
            found.extend(_runs(above, below) for above, below in pairwise(band))
    return np.concatenate(found)


def _runs(above: NDArray[Any], below: NDArray[Any]) -> NDArray[np.int64]:
    edge = np.r_[False, (above != below) & ((above > 0) | (below > 0)), False]
    ends = np.flatnonzero(np.diff(edge.astype(np.int8)))
    return ends[1::2] - ends[::2]


def like_lines(lines: Sequence[int], side: int) -> list[int]:
    """Return rows, or columns, that show the very nuclei that these do, where no block's part ends.

    The plane is one tile and its mirror images by turns, so that it is the same again two tiles away. A small
    plane may have no such place for some.
    """
    found = []
    for line in lines:
        places = [at for at in range(line % (2 * TILE), side, 2 * TILE) if _AWAY < at < side - _AWAY]
        free = [at for at in places if min(abs(at - one) for one in lines) > _AWAY]
        found += sorted(free, key=lambda at: abs(at - line))[:1]
    return found


def compare_straight(labels: Any, borders: Sequence[Sequence[int]]) -> dict[str, int]:
    """Find how straight outlines are where blocks' parts end, and those of the same nuclei elsewhere."""
    elsewhere = [like_lines(own, labels.shape[axis]) for axis, own in enumerate(borders)]
    got: dict[str, int] = {}
    for name, lines in (("straight", borders), ("straight_elsewhere", elsewhere)):
        lengths = straight_parts(labels, lines)
        got |= {name: int(lengths.max()), f"{name}_long": int(np.count_nonzero(lengths > LONGEST))}
    return got


def find_borders(source: Path) -> list[list[int]]:
    """Return the image rows, and the columns, at which one block's part of the slide ends."""
    from .bench import load

    image, segmenter = zarr.open_array(source, mode="r"), load("auto")
    embedding = segmenter.lazy_embedding(image, object_size=cells_1024().object_size)
    level = level_of("object-aware", replace(segmenter.level(embedding), side=_BLOCK), segmenter.spec)
    own = [level.own(block) for block in level.block_list()]
    return [sorted({round(part[axis] / level.scale[axis]) for part in own} - {0}) for axis in (0, 1)]


def bytes_of(folder: Path) -> int:
    """Return the size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(side: int, small: int, workers: int, threads: int, folder: Path | None) -> dict[str, Any]:
    """Run everything; returns the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="lightsam-scale-", dir=folder) as place,
        _cluster(workers) as client,
    ):
        root = Path(place)
        write_plane(root / "small.zarr", small)
        one_out, out = root / "one_labels.zarr", root / "labels.zarr"
        _, one = timed(root / "small.zarr", one_out, scheduler="processes", workers=1, threads=threads)
        timed(root / "small.zarr", out, scheduler=client, threads=threads)  # loads the workers' models
        _, many = timed(root / "small.zarr", out, scheduler=client, threads=threads)
        identical = same(one_out, out)
        report, killed = kill_one(root / "small.zarr", root / "killed.zarr", client, threads)
        unharmed = killed and not report.failed and same(out, root / "killed.zarr")
        cancelled, kept = cancel_one(root / "small.zarr", root / "cancelled.zarr", client, threads)
        shutil.rmtree(root / "cancelled.zarr.parts", ignore_errors=True)
        client.restart()  # so that peaks are those of the large slide
        write_plane(root / "large.zarr", side)
        processes = [os.getpid(), *client.run(os.getpid).values()]
        with Watch(processes) as watch:
            report, seconds = timed(
                root / "large.zarr", root / "large_labels.zarr", scheduler=client, threads=threads
            )
        main_peak = peak_memory() or 0.0  # before what follows loads a model here
        peaks = [peak or 0.0 for peak in client.run(peak_memory).values()]
        labels = zarr.open_array(root / "large_labels.zarr" / "0", mode="r")
        borders = find_borders(root / "large.zarr")
        checked = check(labels, borders, choose_windows(side, borders, _WINDOWS))
        mpx = side**2 / _MPX
        got = {
            "side": side,
            "mpx": mpx,
            "small_side": small,
            "workers": workers,
            "threads": threads,
            "one_seconds": one,
            "one_mpx_per_second": small**2 / _MPX / one,
            "cluster_seconds": many,
            "cluster_mpx_per_second": small**2 / _MPX / many,
            "speedup": one / many,
            "identical": identical,
            "unharmed_by_kill": unharmed,
            "cancel_seconds": cancelled,
            "cancel_kept": kept,
            "seconds": seconds,
            "seconds_per_mpx": seconds / mpx,
            "objects": report.n_objects,
            "blocks": report.blocks,
            "failed": len(report.failed),
            "peak_worker_mib": max(peaks),
            "peak_main_mib": main_peak,
            "peak_all_mib": watch.most,
            "label_mib_per_mpx": bytes_of(root / "large_labels.zarr") / 2**20 / mpx,
            **compare_straight(labels, borders),
            **checked,
        }
    return got | {"plan": plan(got)}


def plan(got: dict[str, Any]) -> dict[str, float]:
    """Work out what the figures mean for work a hundred times as large."""
    worker_seconds = got["seconds_per_mpx"] * got["workers"]  # of one worker for a megapixel
    hours = worker_seconds / 3600
    return {
        "worker_seconds_per_mpx": worker_seconds,
        "slide_worker_hours": hours * _MANY_MPX,
        "slide_fleet_hours": hours * _MANY_MPX / _FLEET,
        "slide_objects": got["objects"] / got["mpx"] * _MANY_MPX,
        "slide_label_gib": got["label_mib_per_mpx"] * _MANY_MPX / 1024,
        "images_worker_hours": hours * _MANY_IMAGES,
        "images_fleet_hours": hours * _MANY_IMAGES / _FLEET,
        "fleet": _FLEET,
        "fleet_gib": _FLEET * got["peak_worker_mib"] / 1024,
    }


def _cluster(workers: int) -> Any:
    from contextlib import contextmanager

    from distributed import Client, LocalCluster

    @contextmanager
    def running() -> Iterator[Client]:
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        with LocalCluster(**options, memory_limit=0) as cluster, Client(cluster) as client:
            yield client

    return running()


def as_markdown(got: dict[str, Any], about: dict[str, Any]) -> str:
    """Write the tables."""

    def met(good: bool) -> str:
        return "met" if good else "not met"

    small = f"{got['small_side']} x {got['small_side']}"
    rows = {
        f"slide of {small}, one worker process": (
            f"{written(got['one_seconds'], 's')}, {got['one_mpx_per_second']:.2f} Mpx/s"
        ),
        f"the same by a cluster of {got['workers']} worker processes": (
            f"{written(got['cluster_seconds'], 's')}, {got['cluster_mpx_per_second']:.2f} Mpx/s, "
            f"{got['speedup']:.2f} times as fast"
        ),
        "labels of both": "identical" if got["identical"] else "different",
        "labels after kill -9 of a worker": "identical" if got["unharmed_by_kill"] else "different",
        "cancelling (<= 1 s)": (
            f"{written(got['cancel_seconds'], 's')}: {met(got['cancel_seconds'] <= 1)}; "
            f"{got['cancel_kept']} finished blocks kept"
        ),
        f"slide of {got['side']} x {got['side']} by the cluster": (
            f"{written(got['seconds'], 's')}, {got['seconds_per_mpx']:.2f} s per Mpx, "
            f"{got['objects']:,} objects"
        ),
        "peak memory of a worker": written(got["peak_worker_mib"], "MiB"),
        "of the process that started it": written(got["peak_main_mib"], "MiB"),
        f"all processes together, shared pages counted once (<= {MOST_MIB:.0f} MiB)": (
            f"{written(got['peak_all_mib'], 'MiB')}: {met(got['peak_all_mib'] <= MOST_MIB)}"
        ),
        f"longest straight part of an outline on a seam (<= {LONGEST} px)": (
            f"{got['straight']} px: {met(got['straight'] <= LONGEST)} "
            f"({got['straight_elsewhere']} px in the same nuclei where no block ends)"
        ),
        f"straight parts longer than {LONGEST} px": (
            f"{got['straight_long']} on seams, {got['straight_elsewhere_long']} in the same nuclei elsewhere"
        ),
        f"{got['across']} nuclei across seams": (
            f"{got['found']:.1%} found; of their mirror images elsewhere {got['found_mirrored']:.1%}"
        ),
        "AP .5 in windows on seams": f"{got['ap50']:.3f}",
        "label image on disk": f"{got['label_mib_per_mpx']:.3f} MiB per Mpx",
    }
    plans, fleet = got["plan"], f"{got['plan']['fleet']} workers"
    planned = {
        "10 Gpx, one worker": f"{plans['slide_worker_hours']:.1f} h",
        f"10 Gpx, {fleet}": (
            f"{plans['slide_fleet_hours']:.2f} h, {plans['fleet_gib']:.0f} GiB of memory in all, "
            f"{plans['slide_objects'] / 1e6:.1f} million objects, {plans['slide_label_gib']:.1f} GiB on disk"
        ),
        "100,000 images of 1 Mpx, one worker": f"{plans['images_worker_hours']:.1f} h",
        f"100,000 images of 1 Mpx, {fleet}": f"{plans['images_fleet_hours']:.2f} h",
    }
    lines = [f"{where(about)}; {got['threads']} thread(s) a worker.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "| plan, at these figures | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in planned.items()]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--side", type=int, default=16_384, help="of the large slide, in pixels")
    parser.add_argument("--small", type=int, default=4096, help="of the small one")
    parser.add_argument("--workers", type=int, default=2, help="processes of the cluster")
    parser.add_argument("--threads", type=int, default=1, help="of the model in each")
    parser.add_argument("--folder", type=Path, default=None, help="for the arrays; a temporary one")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    options = parser.parse_args(arguments)
    about = machine()
    got = measure(options.side, options.small, options.workers, options.threads, options.folder)
    table = as_markdown(got, about)
    print(table, end="")
    save_results(options.json, about | got, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
