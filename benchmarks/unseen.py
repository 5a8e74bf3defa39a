"""`python -m benchmarks.unseen`: the embedded model on images of kinds it saw little or nothing of.

The sample images of the package were never trained on. Each of them is a set of its own here, its ground
truth is that of the tests, and it is measured as by `lightsam evaluate`, once with the object size that the
model estimates and once with the true one. Prints a Markdown table, and writes it and its figures to
benchmarks/results/unseen.md and unseen.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam import drain, load_segmenter, samples
from napari_lightsam.train.evaluate import evaluate
from napari_lightsam.train.report import write_report

from .report import machine, save_results, where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_lightsam.engine.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "unseen.json"
TRUTH = ROOT / "tests" / "data" / "samples"
SIZES = ("estimated", "true")
_COLUMNS = {
    "ap50": "AP .5",
    "msa": "mSA",
    "click_miou": "click",
    "corrected_miou": "+3 clicks",
    "box_miou": "box",
}


def lay_out(folder: Path, names: Sequence[str]) -> None:
    """Copy samples and their ground truth, each as a set with one image (of a volume, its planes)."""
    for name in names:
        place = folder / name
        place.mkdir()
        with resources.as_file(resources.files(samples) / f"{name}.tif") as image:
            shutil.copyfile(image, place / "image.tif")
        shutil.copyfile(TRUTH / f"{name}_labels.tif", place / "labels.tif")


def measure(folder: Path, size: Any, planes: int, pictures: Path | None) -> dict[str, Any]:
    """Evaluate the embedded model with one way to know the object size."""
    segmenter = load_segmenter("lightsam")
    kept = 0 if pictures is None else 2 * len(samples.SAMPLES)
    work = evaluate(folder, segmenter, limit=planes, object_size=size, box_jitter=(0.0, 0.1), worst=kept)
    result = drain(work, _tell)
    if pictures is not None:
        write_report(result, pictures / size)
    found: dict[str, Any] = json.loads(result.to_json())
    return found


def _tell(progress: Progress) -> None:
    if progress.stage.startswith("evaluating"):
        print(progress.stage, file=sys.stderr, flush=True)


def to_markdown(found: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Write one row per sample, with the figures of both sizes."""
    heads = [f"{size}: {title}" for size in found for title in _COLUMNS.values()]
    lines = [
        f"| kind | objects | {' | '.join(heads)} | error of predicted IoU |",
        "|---|---|" + "---|" * (len(heads) + 1),
    ]
    for name, title in names.items():
        sets = [found[size]["sets"][name] for size in found]
        cells = [f"{one[column]:.2f}" for one in sets for column in _COLUMNS]
        error = sets[0]["prompted_calibration"]["mean_absolute_error"]
        lines.append(f"| {title} | {sets[0]['objects']} | {' | '.join(cells)} | {error:.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unseen", description=__doc__)
    parser.add_argument("--planes", type=int, default=5, help="of the volume, at most")
    parser.add_argument("--only", nargs="*", default=None, help="names of samples; writes no file")
    parser.add_argument("--pictures", type=Path, help="folder for reports with the worst images")
    given = parser.parse_args(arguments)
    names = {name: title for name, title in samples.SAMPLES.items() if not given.only or name in given.only}
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder), list(names))
        found = {size: measure(Path(folder), size, given.planes, given.pictures) for size in SIZES}
    about = machine()
    table = f"{where(about)}; at most {given.planes} planes of the volume.\n\n{to_markdown(found, names)}"
    print(table, end="")
    if not given.only:
        save_results(RESULTS, about | {"planes": given.planes} | found, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
