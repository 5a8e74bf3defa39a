"""`python -m benchmarks.detail`: a field of small nuclei, enlarged less: how much faster and worse.

Objects are enlarged until they measure what the model was trained on. Whoever gives a larger object size than
the true one has them enlarged less. Prints a Markdown table, and writes it and its figures to
benchmarks/results/detail.md and detail.json.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.model.spec import ObjectFrame

from . import scenes
from .bench import judge, load
from .report import machine, save_results, where
from .timing import interleave

if TYPE_CHECKING:
    from napari_lightsam import Segmenter
    from napari_lightsam.engine.everything import Segmentation

    from .scenes import Scene

RESULTS = Path(__file__).resolve().parent / "results" / "detail.json"
_FACTORS = (1.0, 1.4, 1.75, 2.2, 3.5)  # of the true object size


def run(segmenter: Segmenter, scene: Scene, factor: float) -> Segmentation:
    """Segment everything as if objects were larger; the least size stays that of the true one."""
    size = scene.object_size
    config = EverythingConfig(object_size=factor * size, min_size=size / 3)
    return drain(segmenter.everything(scene.image, config))


def measure(segmenter: Segmenter, scene: Scene, repeat: int) -> dict[str, dict[str, float]]:
    """Return seconds, ratio, AP at IoU .5 and mSA by the object size that is given."""
    frame = segmenter.spec.frame
    assert isinstance(frame, ObjectFrame)
    jobs = {f"x{factor:g}".replace(".", "_"): partial(run, segmenter, scene, factor) for factor in _FACTORS}
    rows: dict[str, dict[str, float]] = {}
    for (name, got), factor in zip(interleave(jobs, repeat).items(), _FACTORS, strict=True):
        quality = judge(scene, got.result.labels)
        rows[name] = {
            "object_size": factor * scene.object_size,
            "shown_size": frame.target / factor,
            "seconds": got.timing.wall,
            "ap50": quality.ap50,
            "msa": quality.msa,
        }
    for row in rows.values():
        row["ratio"] = rows["x1"]["seconds"] / row["seconds"]
    return rows


def as_markdown(rows: dict[str, dict[str, float]], about: dict[str, Any]) -> str:
    """Write the table."""
    lines = [
        f"{where(about)}; 2048 x 2048, 16 bit, two thousand nuclei of 15 px.",
        "",
        "| object size given | nuclei as the model sees them | time | ratio | AP .5 | mSA |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['object_size']:.0f} px | {row['shown_size']:.0f} px | {row['seconds']:.1f} s | "
        f"{row['ratio']:.1f}x | {row['ap50']:.3f} | {row['msa']:.3f} |"
        for row in rows.values()
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detail", description=__doc__)
    parser.add_argument("--repeat", type=int, default=1, help="samples of each row")
    options = parser.parse_args()
    about, rows = machine(), measure(load("auto"), scenes.field_2048(), options.repeat)
    table = as_markdown(rows, about)
    print(table, end="")
    save_results(RESULTS, {"machine": about, "rows": rows}, table)


if __name__ == "__main__":
    main()
