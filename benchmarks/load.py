"""`python -m benchmarks.load`: a thousand images in one process, whose memory must stay what it was.

Crops of the bundled images, of several sizes, are written to a folder and segmented as a batch. Memory is
read after every image. Prints a Markdown table, and writes it and its figures to benchmarks/results/load.md
and load.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_lightsam.batch import BatchSettings, Recipe, segment_many
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.samples import read_sample

from .fresh import resident_memory, run_fresh
from .report import machine, save_results, where, written

RESULTS = Path(__file__).resolve().parent / "results" / "load.json"
MOST_GROWTH = 0.05
"""Memory may grow by this part from the second tenth of the images to the last."""

_SAMPLES = ("nuclei_fluorescence", "nuclei_brightfield", "cells_phase_contrast")
_SIDES = (192, 256, 224, 320)
_SIZE = 26.0


def write_images(folder: Path, count: int) -> None:
    """Write crops of the bundled images as TIFF files."""
    random = np.random.default_rng(0)
    samples = [read_sample(name) for name in _SAMPLES]
    for i in range(count):
        sample, side = samples[i % len(samples)], _SIDES[i % len(_SIDES)]
        y, x = (int(random.integers(0, n - side + 1)) for n in sample.shape[:2])
        tifffile.imwrite(folder / f"image_{i:05d}.tif", sample[y : y + side, x : x + side])


def segment_folder(source: Path, target: Path) -> dict[str, Any]:
    """Segment the images, and read this process' memory whenever another one begins."""
    memory: list[float] = []
    done = -1
    start = time.perf_counter()

    def listen(step: Any) -> None:
        nonlocal done
        if ": " in step.stage and step.done != done:
            done = step.done
            memory.append(resident_memory() or 0.0)

    recipe = Recipe(BatchSettings(config=EverythingConfig(object_size=_SIZE)))
    report = drain(segment_many([source], target, recipe), listen)
    return {
        "images": len(report.outcomes),
        "failed": sum(outcome.status == "failed" for outcome in report.outcomes),
        "seconds": time.perf_counter() - start,
        "memory": memory,
    }


def judge(got: dict[str, Any]) -> dict[str, Any]:
    """Compare memory at the beginning, once everything was used a few times, with that at the end."""
    memory = got.pop("memory")
    tenth = max(1, len(memory) // 10)
    early, late = statistics.median(memory[tenth : 2 * tenth] or memory), statistics.median(memory[-tenth:])
    return got | {
        "early_mib": early,
        "late_mib": late,
        "most_mib": max(memory),
        "growth": late / early - 1 if early else 0.0,
        "growth_percent": 100 * (late / early - 1) if early else 0.0,
    }


def as_markdown(got: dict[str, Any], about: dict[str, Any]) -> str:
    """Write the table."""
    each = got["seconds"] / max(1, got["images"])
    met = "met" if got["growth"] <= MOST_GROWTH else "not met"
    rows = {
        "images in one process": f"{got['images']:,}, of which {got['failed']} failed",
        "time": f"{written(got['seconds'], 's')}, {written(each, 's')} an image",
        "memory, second tenth of the images": written(got["early_mib"], "MiB"),
        "memory, last tenth": written(got["late_mib"], "MiB"),
        "most": written(got["most_mib"], "MiB"),
        f"growth (<= {MOST_GROWTH:.0%})": f"{got['growth']:.1%}: {met}",
    }
    lines = [f"{where(about)}.", "", "| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows.items())]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--images", type=int, default=1000, help="how many")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    parser.add_argument("--segment", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.segment:
        print(json.dumps(segment_folder(*options.segment)))
        return 0
    with tempfile.TemporaryDirectory(prefix="lightsam-load-") as place:
        source, target = Path(place) / "images", Path(place) / "labels"
        source.mkdir()
        write_images(source, options.images)
        printed = run_fresh(["-m", "benchmarks.load", "--segment", str(source), str(target)])
    about, got = machine(), judge(json.loads(printed.splitlines()[-1]))
    table = as_markdown(got, about)
    print(table, end="")
    save_results(options.json, about | got, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
