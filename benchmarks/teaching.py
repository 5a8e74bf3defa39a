"""`python -m benchmarks.teaching DATA`: what one corrected image teaches the embedded model.

Each image of a folder is a lesson of its own: the model learns from a part of its labels, as from a user's
corrections, and is compared with itself before on the part that was held out. A lesson after which the model
did not get better is refused, as for a user. Prints a Markdown table, and writes it and its figures to
benchmarks/results/teaching.md and teaching.json. The models are thrown away.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam import drain, load_segmenter
from napari_lightsam.errors import TrainError
from napari_lightsam.train.config import TEACHING
from napari_lightsam.train.corrections import Corrected
from napari_lightsam.train.datasets import find_labelled, read_labelled
from napari_lightsam.train.finetune import finetune

from .report import load, machine, save_results, where

if TYPE_CHECKING:
    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.train.config import TrainConfig
    from napari_lightsam.train.datasets import LabelledFile
    from napari_lightsam.train.held_out import Score

RESULTS = Path(__file__).resolve().parent / "results" / "teaching.json"


@dataclass(frozen=True, slots=True)
class Lesson:
    """One lesson.

    Attributes
    ----------
    name
        Of the image.
    seconds
        It took.
    refused
        Why nothing was saved, or "".
    before, after
        On the held-out part; None where nothing was saved.
    objects
        Learned from, and tested on.
    steps
        Optimiser steps.
    """

    name: str
    seconds: float
    refused: str = ""
    before: Score | None = None
    after: Score | None = None
    objects: tuple[int, int] = (0, 0)
    steps: int = 0


def choose_planes(files: tuple[LabelledFile, ...]) -> list[LabelledFile]:
    """Take every image, and the middle plane of a volume."""
    planes: dict[Path, list[LabelledFile]] = defaultdict(list)
    for file in files:
        planes[file.image].append(file)
    return [group[len(group) // 2] for group in planes.values()]


def teach(file: LabelledFile, config: TrainConfig) -> Lesson:
    """Teach the embedded model with one image."""
    read = read_labelled(file)
    lesson = Corrected(read.image, read.labels, read.rgb, name=file.name)
    began = time.perf_counter()
    try:
        result = drain(finetune([lesson], "lesson", config=config, replace_model=True), _tell)
    except TrainError as error:
        return Lesson(file.name, time.perf_counter() - began, refused=str(error))
    seconds = time.perf_counter() - began
    return Lesson(file.name, seconds, "", result.before, result.after, result.objects, result.steps)


def _tell(progress: Progress) -> None:
    if progress.done % 20 == 0:
        print(f"  {progress.stage} {progress.done} of {progress.total}", file=sys.stderr, flush=True)


def to_markdown(lessons: list[Lesson]) -> str:
    """Write lessons as a table."""
    lines = [
        "| image | learned from | tested on | click | box | AP .5 | steps | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for lesson in lessons:
        learned, tested = lesson.objects
        if lesson.before is None or lesson.after is None:
            lines.append(f"| {lesson.name} | | | refused: {lesson.refused} | | | | {lesson.seconds:.0f} |")
            continue
        pairs = zip(asdict(lesson.before).values(), asdict(lesson.after).values(), strict=True)
        gains = " | ".join(f"{before:.2f} -> {after:.2f}" for before, after in pairs)
        spent = f"{lesson.steps} | {lesson.seconds:.0f}"
        lines.append(f"| {lesson.name} | {learned} | {tested} | {gains} | {spent} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Give the lessons, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.teaching", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of labelled images")
    parser.add_argument("--minutes", type=float, default=TEACHING.minutes, help="of learning in each lesson")
    parser.add_argument("--steps", type=int, help="of each lesson, instead of minutes")
    parser.add_argument("--only", nargs="*", default=None, help="names of images")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    given = parser.parse_args(arguments)
    chosen = [
        f for f in choose_planes(find_labelled(given.data)) if given.only is None or f.name in given.only
    ]
    with tempfile.TemporaryDirectory() as models:
        os.environ["LIGHTSAM_LOCAL_MODELS"] = models
        lessons = []
        for number, file in enumerate(chosen, start=1):
            print(f"{number}/{len(chosen)} {file.name}", file=sys.stderr, flush=True)
            lessons.append(teach(file, replace(TEACHING, minutes=given.minutes, steps=given.steps)))
    about, busy = machine(), load()
    length = f"{given.minutes:g} minutes of learning" if given.steps is None else f"{given.steps} steps"
    beside = "" if busy is None else f"; load {busy:.0f}"
    table = f"{where(about)}; {length} a lesson{beside}.\n\n{to_markdown(lessons)}"
    print(table, end="")
    figures = about | {
        "minutes": given.minutes if given.steps is None else None,
        "load": busy,
        "weights": load_segmenter().weights_hash,
        "lessons": {lesson.name: asdict(lesson) for lesson in lessons},
    }
    save_results(given.json, figures, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
