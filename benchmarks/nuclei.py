"""`python -m benchmarks.nuclei DATA`: cells grown from nuclei, on cells whose nuclei are made up.

No image here has labels of nuclei and of cells. So each labelled cell is eroded to its innermost part, which
stands for its nucleus; from these the cells are asked for, and compared with the labels id by id. Real nuclei
lie less in the middle, so that this is the best to be hoped for. Prints a Markdown table, and writes it and
its figures to benchmarks/results/nuclei.md and nuclei.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_lightsam import EverythingConfig, Segmenter, drain, load_segmenter
from napari_lightsam.engine.relabel import from_nuclei
from napari_lightsam.train.datasets import find_labelled, read_labelled
from napari_lightsam.train.metrics import equivalent_diameter, find_overlaps

from .report import machine, save_results, where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_lightsam.train.datasets import LabelledImage

RESULTS = Path(__file__).resolve().parent / "results" / "nuclei.json"

_DEPTH = 0.5  # of a cell's greatest depth; what lies deeper is its nucleus
_NEIGHBOURS = {"own nucleus alone": 0, "and 4 neighbours outside": 4}


@dataclass(frozen=True, slots=True)
class NucleiScore:
    """How well cells came back from their nuclei.

    Attributes
    ----------
    cells
        How many there are.
    answered
        Part of them whose id is in the result.
    iou
        Mean IoU of a cell with the object of the same id; 0 where there is none.
    found
        Part of the cells for which it is over .5.
    nucleus_iou
        Mean IoU of a cell with its nucleus: what doing nothing gives.
    """

    cells: int
    answered: float
    iou: float
    found: float
    nucleus_iou: float


def make_nuclei(cells: NDArray[Any]) -> NDArray[np.int32]:
    """Erode each cell of a label image to the largest part of what lies at least half as deep as it is."""
    nuclei = np.zeros(cells.shape, np.int32)
    for name, place in enumerate(ndimage.find_objects(cells), start=1):
        if place is None:
            continue
        depth = ndimage.distance_transform_edt(np.pad(cells[place] == name, 1))[1:-1, 1:-1]
        parts, _ = ndimage.label(depth >= max(1.0, _DEPTH * depth.max()))
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        nuclei[place][parts == sizes.argmax()] = name
    return nuclei


def score_cells(images: Iterable[LabelledImage], segmenter: Segmenter, neighbours: int) -> NucleiScore:
    """Grow cells from made-up nuclei and compare them with the labels, id by id."""
    ious: list[float] = []
    starts: list[float] = []
    answered = 0
    for image in images:
        cells = image.labels.astype(np.int32)
        nuclei = make_nuclei(cells)
        areas = np.unique(cells[cells > 0], return_counts=True)[1]
        config = EverythingConfig(object_size=float(np.median(equivalent_diameter(areas))))
        asked = from_nuclei(nuclei, neighbours)
        found = drain(segmenter.everything(image.image, config, rgb=image.rgb, proposals=asked)).labels
        same = _same_ids(cells, found)
        ious += same
        starts += _same_ids(cells, nuclei)
        answered += len(np.intersect1d(cells[cells > 0], found[found > 0]))
    n = max(1, len(ious))
    return NucleiScore(
        cells=len(ious),
        answered=answered / n,
        iou=sum(ious) / n,
        found=sum(value > 0.5 for value in ious) / n,
        nucleus_iou=sum(starts) / n,
    )


def _same_ids(truth: NDArray[Any], found: NDArray[Any]) -> list[float]:
    """Return the IoU of each true object with the object of the same id."""
    overlaps = find_overlaps(truth, found)
    same = overlaps.truth_ids[overlaps.truth_index] == overlaps.predicted_ids[overlaps.predicted_index]
    by_id = dict(zip(overlaps.truth_index[same].tolist(), overlaps.iou[same].tolist(), strict=True))
    return [by_id.get(i, 0.0) for i in range(len(overlaps.truth_ids))]


def to_markdown(scores: dict[str, NucleiScore]) -> str:
    """Write scores as a table."""
    lines = [
        "| asked by | cells | answered | mean IoU | IoU over .5 | IoU of the nuclei themselves |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s.cells} | {s.answered:.1%} | {s.iou:.3f} | {s.found:.1%} | {s.nucleus_iou:.3f} |"
        for name, s in scores.items()
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Score the ways to ask, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nuclei", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of images with labelled cells")
    parser.add_argument("--split", default="all", help="all, training or validation, as for evaluation")
    parser.add_argument("--limit", type=int, default=None, help="at most so many images, evenly spaced")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    given = parser.parse_args(arguments)
    files, segmenter = find_labelled(given.data, split=given.split, limit=given.limit), load_segmenter()
    scores = {
        name: score_cells((read_labelled(file) for file in files), segmenter, neighbours)
        for name, neighbours in _NEIGHBOURS.items()
    }
    about = machine()
    table = (
        f"{where(about)}; {len(files)} images of {given.data.name}, {given.split}.\n\n{to_markdown(scores)}"
    )
    print(table, end="")
    keys = dict(zip(("alone", "neighbours"), scores.values(), strict=True))
    figures = about | {
        "data": given.data.name,
        "split": given.split,
        "images": len(files),
        "weights": segmenter.weights_hash,
        **{key: asdict(score) for key, score in keys.items()},
    }
    save_results(given.json, figures, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
