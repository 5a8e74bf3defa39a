"""`python -m benchmarks.stack`: linked slices against the ground truth of volumes.

Two volumes: synthetic nuclei, ellipsoids blurred and with noise, which are made here; and neurites in FIB-SEM
(the last fifth of the slices, which no model was trained on), where their folder is given. Prints a Markdown
table; where both volumes were measured it is also written, with its figures, to benchmarks/results/stack.md
and stack.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from scipy import ndimage

from napari_lightsam import EverythingConfig, Segmenter, drain, load_segmenter, segment_stack
from napari_lightsam.train.metrics import find_overlaps, match, mean_segmentation_accuracy

from .report import machine, save_results, where, written

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.train.metrics import Overlaps

RESULTS = Path(__file__).resolve().parent / "results" / "stack.json"

_PIECE = 0.2  # of a true object: what a found one must hold of it to be a piece of it
_MOST = 0.5  # of a true object: what a found one must hold of it to have swallowed it


@dataclass(frozen=True, slots=True)
class VolumeScore:
    """How well the objects of a volume were found.

    Attributes
    ----------
    true, found
        Number of objects.
    ap50, msa
        Average precision at a volume IoU of .5, and mean over .5, .55 ... .95.
    iou
        Mean, over the true objects, of the IoU with the found object that overlaps it best.
    slices_ap50
        Mean AP .5 of the slices by themselves: what linking could reach at best.
    split
        True objects of which two found ones or more hold a fifth of the voxels each.
    merged
        Found objects that hold over half of two true ones or more.
    flagged
        Share of the found objects that carry a flag.
    seconds
        Time that segmenting and linking took.
    """

    true: int
    found: int
    ap50: float
    msa: float
    iou: float
    slices_ap50: float
    split: int
    merged: int
    flagged: float
    seconds: float


def nuclei_volume(
    shape: tuple[int, int, int] = (24, 192, 192), diameter: float = 26, wanted: int = 40, seed: int = 0
) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Make a volume of bright ellipsoids on a dim ground, and its labels.

    Parameters
    ----------
    shape
        (Z, H, W) in voxels; planes lie twice as far apart as pixels.
    diameter
        Typical diameter in a plane, in pixels.
    wanted
        Number of nuclei tried; those that would touch another are left out.
    seed
        Of the random numbers.
    """
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    image = np.full(shape, 0.08, np.float32)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    taken = np.zeros(shape, bool)
    for _ in range(wanted):
        centre = random.uniform(0, shape)
        radii = diameter / 2 * random.uniform(0.8, 1.2, 3) * (0.5, 1, 1)
        away = sum(((axis - c) / r) ** 2 for axis, c, r in zip((z, y, x), centre, radii, strict=True))
        inside = away <= 1
        if not inside.any() or (taken & (away <= 1.2)).any():
            continue
        labels[inside] = labels.max() + 1
        taken |= inside
        image[inside] = random.uniform(0.5, 1.0)
    texture = ndimage.gaussian_filter(random.normal(size=shape), (1, 2, 2)).astype(np.float32)
    blurred = ndimage.gaussian_filter(image * (1 + 0.8 * texture), (0.5, 1, 1))
    counts = random.poisson(np.maximum(blurred, 0) * 400)
    return counts.astype(np.uint16), labels


def neurites(folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read the last fifth of the slices of `image.tif` and `labels.tif`."""
    image, labels = (tifffile.imread(folder / f"{name}.tif") for name in ("image", "labels"))
    start = len(image) - len(image) // 5
    return image[start:], labels[start:]


def score_volume(
    image: NDArray[Any], labels: NDArray[Any], segmenter: Segmenter, object_size: float | None = None
) -> VolumeScore:
    """Segment a volume slice by slice, link it, and compare it with its ground truth."""
    config = EverythingConfig(object_size=object_size)
    start = time.perf_counter()
    result = drain(segment_stack(image, config=config, model=segmenter))
    seconds = time.perf_counter() - start
    overlaps = find_overlaps(labels, result.labels)
    best = np.zeros(len(overlaps.truth_ids))
    np.maximum.at(best, overlaps.truth_index, overlaps.iou)
    matched = match(labels, result.labels)
    planes = [
        match(t, p, (0.5,))[0].average_precision
        for t, p in zip(labels, result.labels, strict=True)
        if t.any()
    ]
    split, merged = count_confused(overlaps)
    flags = result.table[["single_plane", "area_jump", "gap_bridged"]].any(axis=1)
    return VolumeScore(
        true=len(overlaps.truth_ids),
        found=len(result.table),
        ap50=matched[0].average_precision,
        msa=mean_segmentation_accuracy(matched),
        iou=float(best.mean()) if len(best) else 1.0,
        slices_ap50=float(np.mean(planes)) if planes else 1.0,
        split=split,
        merged=merged,
        flagged=float(flags.mean()) if len(flags) else 0.0,
        seconds=seconds,
    )


def count_confused(overlaps: Overlaps) -> tuple[int, int]:
    """Count true objects split between found ones, and found ones that merge true ones.

    Examples
    --------
    >>> count_confused(find_overlaps([1, 1, 1, 1, 2, 2, 3, 3], [4, 4, 5, 5, 6, 6, 6, 6]))
    (1, 1)
    """
    part = overlaps.shared / overlaps.truth_areas[overlaps.truth_index]
    pieces = np.bincount(overlaps.truth_index[part >= _PIECE])
    swallowed = np.bincount(overlaps.predicted_index[part > _MOST])
    return int(np.count_nonzero(pieces > 1)), int(np.count_nonzero(swallowed > 1))


def to_markdown(scores: dict[str, VolumeScore]) -> str:
    """Write scores as a table."""
    lines = [
        "| volume | true | found | 3-D AP .5 | 3-D mSA | best IoU | split | merged | AP .5 of slices "
        "| flagged | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {s.true} | {s.found} | {s.ap50:.2f} | {s.msa:.2f} | {s.iou:.2f} | {s.split} "
        f"| {s.merged} | {s.slices_ap50:.2f} | {s.flagged:.0%} | {written(s.seconds, 's')} |"
        for name, s in scores.items()
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Score the volumes and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description=__doc__)
    parser.add_argument("--neurites", type=Path, help="folder with image.tif and labels.tif of a volume")
    parser.add_argument("--neurite-size", type=float, help="object size in pixels; estimated when not given")
    parser.add_argument("--json", type=Path, default=None, help=f"write the figures here ({RESULTS.name})")
    given = parser.parse_args(arguments)
    segmenter, about = load_segmenter(), machine()
    scores = {"nuclei, synthetic": score_volume(*nuclei_volume(), segmenter)}
    if given.neurites:
        scores["neurites, FIB-SEM"] = score_volume(*neurites(given.neurites), segmenter, given.neurite_size)
    table = f"{where(about)}.\n\n{to_markdown(scores)}\n"
    print(table, end="")
    target = given.json or (RESULTS if given.neurites else None)
    if target is not None:
        volumes = {name.partition(",")[0]: asdict(score) for name, score in scores.items()}
        figures = about | {"weights": segmenter.weights_hash, "volumes": volumes}
        save_results(target, figures, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
