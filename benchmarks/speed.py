"""`python -m benchmarks`: how fast, how good and how large, beside the plain published procedure.

One Markdown table goes to standard output and to benchmarks/results/speed.md, all figures to speed.json
beside it, from where the documents quote them. A part of the rows (`--only`), or a quick look (`--quick`), is
written only when `--json` names a file.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .bench import Bench
from .report import as_json, as_markdown, load, machine, save_results
from .rows import ROWS, SLOW

if TYPE_CHECKING:
    from napari_lightsam.engine.segmenter import Segmenter

    from .report import Row

RESULTS = Path(__file__).resolve().parent / "results" / "speed.json"


def run(names: list[str], bench: Bench) -> list[Row]:
    """Measure rows, telling on standard error which."""
    rows = []
    for number, name in enumerate(names, start=1):
        print(f"{number}/{len(names)} {name}", file=sys.stderr, flush=True)
        rows.append(ROWS[name](bench))
    return rows


def header(bench: Bench, load_before: float | None) -> dict[str, Any]:
    """Describe what was measured, and where."""
    best = bench.segmenters["best"]
    runtimes = dict.fromkeys(_runtime_of(segmenter) for segmenter in bench.segmenters.values())
    after = load()
    busy = "unknown" if load_before is None else f"{load_before:.1f} before, {after:.1f} after"
    return {
        "threads": torch.get_num_threads(),
        "runtime": " and ".join(runtimes),
        "precision": {"best": best.precision, "float32": bench.segmenters["float32"].precision},
        "weights": best.weights_hash,
        "repeat": bench.repeat,
        "load": busy,
    }


def _runtime_of(segmenter: Segmenter) -> str:
    return segmenter.runtime_name


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--quick", action="store_true", help="one sample of each, without the slow rows")
    parser.add_argument("--repeat", type=int, default=None, help="samples of each (5; quick: 1)")
    parser.add_argument("--runtime", default=None, help="runtime of the model: torch, openvino or auto")
    parser.add_argument("--json", type=Path, default=None, help=f"write the figures here ({RESULTS.name})")
    options = parser.parse_args(arguments)
    if options.repeat is not None and options.repeat < 1:
        parser.error("--repeat is at least 1")
    names = options.only or [name for name in ROWS if not (options.quick and name in SLOW)]
    bench = Bench(options.repeat or (1 if options.quick else 5), options.runtime)
    before, about = load(), machine()
    if torch.get_num_threads() < about["cores"]:
        print(
            f"PyTorch uses {torch.get_num_threads()} of {about['cores']} cores: set OMP_NUM_THREADS and "
            "MKL_NUM_THREADS, or unset them.",
            file=sys.stderr,
        )
    rows = run(names, bench)
    about |= header(bench, before)
    table = as_markdown(rows, about)
    print(table, end="")
    target = options.json or (None if options.quick or options.only else RESULTS)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_results(target, as_json(rows, about), table)
    return 0
