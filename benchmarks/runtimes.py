"""`python -m benchmarks.runtimes`: PyTorch beside OpenVINO, step by step, in turns.

Prints a Markdown table, and writes it and its figures to benchmarks/results/runtimes.md and runtimes.json.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lightsam import load_segmenter
from napari_lightsam.model.sam import PromptTensors

from .report import machine, save_results, where, written
from .timing import interleave

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lightsam import Segmenter

RESULTS = Path(__file__).resolve().parent / "results" / "runtimes.json"
_PRECISIONS = {"best": "auto", "float32": "float32"}
_SIDES = (256, 512, 1024)  # frame pixels
_WINDOWS = (1, 64)


def steps(segmenter: Segmenter) -> dict[str, Callable[[], Any]]:
    """Return the steps of a segmenter: encoding frames, decoding clicks in windows of 16 x 16 tokens."""
    random = np.random.default_rng(0)
    runtime = segmenter.runtime
    jobs: dict[str, Callable[[], Any]] = {}
    for side in _SIDES:
        frame = random.standard_normal((3, side, side), np.float32)
        jobs[f"encoder_{side}"] = partial(runtime.encode, frame)
    tokens = runtime.encode(frame)
    for count in _WINDOWS:
        windows = torch.cat([tokens[..., i % 48 :, i // 2 :][..., :16, :16] for i in range(count)])
        clicks = PromptTensors(torch.full((count, 1, 2), 128.0), torch.ones((count, 1), dtype=torch.long))
        jobs[f"windows_{count}"] = partial(runtime.decode, windows, clicks, True)
    return jobs


def measure(repeat: int) -> dict[str, dict[str, float]]:
    """Return milliseconds and ratios by step."""
    segmenters = {
        (runtime, column): load_segmenter("lightsam", device="cpu", precision=precision, runtime=runtime)  # type: ignore[arg-type]
        for runtime in ("torch", "openvino")
        for column, precision in _PRECISIONS.items()
    }
    jobs = {key: steps(segmenter) for key, segmenter in segmenters.items()}
    rows: dict[str, dict[str, float]] = {}
    for step in next(iter(jobs.values())):
        got = interleave({f"{r}_{c}": own[step] for (r, c), own in jobs.items()}, repeat)
        rows[step] = {f"{name}_ms": 1e3 * measured.timing.wall for name, measured in got.items()}
        for column in _PRECISIONS:
            rows[step][f"ratio_{column}"] = (
                rows[step][f"torch_{column}_ms"] / rows[step][f"openvino_{column}_ms"]
            )
    return rows


def as_markdown(rows: dict[str, dict[str, float]], about: dict[str, Any]) -> str:
    """Write the table."""
    lines = [
        f"{where(about)}; medians, taken in turns.",
        "",
        "| step | PyTorch, best | OpenVINO, best | ratio | PyTorch, float32 | OpenVINO, float32 | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for step, row in rows.items():
        cells = []
        for column in _PRECISIONS:
            cells += [written(row[f"{r}_{column}_ms"] / 1e3, "s") for r in ("torch", "openvino")]
            cells.append(f"{row[f'ratio_{column}']:.2g}x")
        lines.append(f"| {step.replace('_', ', ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtimes", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="samples of each step")
    options = parser.parse_args()
    about, rows = machine(), measure(options.repeat)
    table = as_markdown(rows, about)
    print(table, end="")
    save_results(RESULTS, {"machine": about, "steps": rows}, table)


if __name__ == "__main__":
    main()
