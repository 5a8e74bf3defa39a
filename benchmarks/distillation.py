"""`python -m benchmarks.distillation DATA`: one narrow student, taught in three ways.

Plain supervised training from random weights, decoupled distillation and full-stage distillation get the
same student, the same steps, the same crops, and answer the same validation crops, beside the teacher. Prints
a Markdown table, and writes it and its figures to benchmarks/results/distillation.md and distillation.json.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lightsam import load_segmenter
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.weights import LoadedModel, load_model
from napari_lightsam.model.spec import TINY_VIT_WIDTHS
from napari_lightsam.train.config import DistilConfig, TrainConfig
from napari_lightsam.train.distil import distil, export_student, make_student
from napari_lightsam.train.distil_teacher import EmbeddingCache, Teacher
from napari_lightsam.train.recipe import load_crops
from napari_lightsam.train.step import Check, check

from .report import machine, save_results, where, written
from .timing import interleave

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.train.crops import Batch, CropMaker

RESULTS = Path(__file__).resolve().parent / "results" / "distillation.json"
TITLES = {
    "teacher": "teacher",
    "supervised": "supervised, from random weights",
    "decoupled": "decoupled (MobileSAM)",
    "full-stage": "full-stage (TinySAM)",
}
_SIDE = 512  # pixels of the frame whose encoding is timed
_CACHE = 4 * 10**9
_COLUMNS = ("click", "box", "corrected", "calibration", "recall", "proposals")


def settings(options: argparse.Namespace) -> TrainConfig:
    """Return what all runs are trained with; they are checked once, at the end."""
    return TrainConfig(
        steps=options.steps,
        prompts=options.prompts,
        learning_rate=options.learning_rate,
        seed=options.seed,
        warmup=max(1, options.steps // 10),
        check_every=options.steps + 1,
        save_every=options.save_every,
        freeze_norm=False,
    )


def teach(
    method: str, loaded: LoadedModel, data: tuple[CropMaker, Sequence[Batch]], options: argparse.Namespace
) -> tuple[dict[str, float], Path]:
    """Train the student in one way; returns its figures and its file."""
    config = settings(options)
    distillation = DistilConfig(
        method=method,  # type: ignore[arg-type]
        student=options.width,
        tune=options.tune if method == "decoupled" else 0,
    )
    # All find the same embeddings: the crops are the same, and what was asked about once is known.
    cache = EmbeddingCache(options.out / "embeddings", loaded.weights_hash, _CACHE)
    student = make_student(loaded, distillation, options.seed)
    folder = options.out / method
    trained = drain(
        distil(student, Teacher(loaded, cache), *data, config, folder, distillation), partial(_tell, method)
    )
    row = _figures(trained.checks[-1][1]) | {"minutes": round(_computed(folder) / 60, 2)}
    return row, export_student(trained.checkpoint, folder / "model.safetensors", loaded, distillation)


def _computed(folder: Path) -> float:
    """Return the seconds that all steps took, those before an interruption too."""
    seconds = 0.0
    for path in folder.rglob("log.csv"):
        with path.open(newline="") as stream:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(stream))
    return seconds


def _tell(method: str, progress: Progress) -> None:
    if progress.done % 20 == 0:
        print(f"{method}: {progress.stage} {progress.done} of {progress.total}", flush=True)


def _figures(found: Check) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(found).items()}


def measure(loaded: LoadedModel, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return figures by row: the teacher and the three students."""
    shapes = [(options.crops, options.side)]
    crops, checks = drain(
        load_crops(options.data, settings(options), shapes=shapes, limit=options.limit, checks=options.checks)
    )
    with torch.autocast("cpu", torch.bfloat16):
        rows = {"teacher": _figures(check(loaded.model, checks))}
    path = loaded.source
    for method in list(TITLES)[1:]:
        rows[method], path = teach(method, loaded, (crops, checks), options)
    sizes = {"teacher": loaded.source.stat().st_size, "student": path.stat().st_size}
    seconds = _encoding({"teacher": options.teacher, "student": path}, options.repeat)
    for name, row in rows.items():
        kind = "teacher" if name == "teacher" else "student"
        row |= {
            "mb": round(sizes[kind] / 1e6, 1),
            "encoder_ms": round(seconds[kind] * 1e3, 2),
            "ratio": round(seconds["teacher"] / seconds[kind], 2),
        }
    return rows


def _encoding(models: dict[str, str | Path], repeat: int) -> dict[str, float]:
    """Return the seconds that encoders need for one frame, in turns."""
    frame = np.random.default_rng(0).standard_normal((3, _SIDE, _SIDE), np.float32)
    jobs = {
        name: partial(load_segmenter(model, device="cpu").runtime.encode, frame)
        for name, model in models.items()
    }
    return {name: got.timing.wall for name, got in interleave(jobs, repeat).items()}


def as_markdown(rows: dict[str, dict[str, float]], about: dict[str, Any], used: dict[str, Any]) -> str:
    """Write the table."""
    lines = [
        f"{where(about)}. Teacher {used['teacher']} (sha256 of its weights {used['weights'][:12]}...), "
        f"student {used['width']}: {used['steps']} steps of "
        f"{used['crops']} crops of {used['side']} pixels, at most {used['prompts']} prompts, "
        f"learning rate {used['learning_rate']:g}, seed {used['seed']}"
        + (f"; decoder tuned for {used['tune']} steps after decoupled" if used["tune"] else "")
        + ".",
        "",
        f"| | click | box | corrected | error of predicted IoU | recall | proposals | file | encoder, "
        f"{_SIDE} px | ratio | training |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        cells = [f"{row[column]:.3f}" for column in _COLUMNS]
        cells += [f"{row['mb']:.1f} MB", written(row["encoder_ms"] / 1e3, "s"), f"{row['ratio']:.2g}x"]
        cells.append(f"{row['minutes']:.1f} min" if "minutes" in row else "")
        lines.append("| " + " | ".join([TITLES[name], *cells]) + " |")
    lines += [
        "",
        "Mean IoU of one click, a box, and three corrective clicks on fixed validation crops; part of the "
        "objects that have a proposed box of IoU .5, and proposals per object. Full-stage distillation read "
        "the teacher's embeddings that the decoupled run had kept.",
    ]
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distillation", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of labelled images, or of sets")
    parser.add_argument("--teacher", default="lightsam", help="model that follows object size")
    parser.add_argument("--width", default="vit_t_2m", choices=TINY_VIT_WIDTHS, help="encoder of the student")
    parser.add_argument("--steps", type=int, default=400, help="of each method")
    parser.add_argument("--tune", type=int, default=0, help="more steps for the decoder after decoupled")
    parser.add_argument("--crops", type=int, default=4, help="crops a step")
    parser.add_argument("--side", type=int, default=224, help="pixels of a crop, a multiple of 32")
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step")
    parser.add_argument("--checks", type=int, default=8, help="batches of validation crops")
    parser.add_argument("--limit", type=int, help="images of each set and split; all by default")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=5, help="samples of the encoder's time")
    parser.add_argument("--save-every", type=int, default=200, help="steps between states to go on from")
    parser.add_argument(
        "--out", type=Path, help="folder of the runs, gone on with when used; else thrown away"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the command."""
    options = parse()
    with ExitStack() as stack:
        if options.out is None:
            options.out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        about, loaded = machine(), load_model(options.teacher)
        rows = measure(loaded, options)
    used = {name: value for name, value in vars(options).items() if name not in ("data", "out")}
    used["weights"] = loaded.weights_hash
    table = as_markdown(rows, about, used)
    print(table, end="")
    results = {"machine": about, "settings": used, "rows": rows}
    save_results(RESULTS, results, table)


if __name__ == "__main__":
    main()
