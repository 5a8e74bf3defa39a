"""Which images are kept from training: whole fields, animals, movies and volumes, never parts of them.

Sets of the development data have fixed rules. In any other set images are grouped, and a group lies on one
side:

1. a subfolder of ``images/`` is a group,
2. a volume or movie file is one,
3. other files form one with those whose names differ only in the counters that end them, as in
   ``mouse3_field2_t001`` and ``mouse3_field2_t002``.

15 in 100 groups are kept for validation, by the md5 of their names, at least one. A set that is a single
group (one volume, one numbered series) is cut: its last fifth is kept.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.train.datasets import LabelledFile

Part = Literal["training", "tuning", "reporting"]
"""Where an image belongs; tuning and reporting are the two halves of validation."""

VALIDATION_PERCENT = 15
"""Share of a set that is kept for validation where images or groups are chosen by their names."""

_VALIDATION_STEMS: dict[str, tuple[str, ...]] = {
    # Whole fields of view, one tissue, two animals: neighbours of a validation image are never trained on.
    "usiigaci": tuple(f"train-set{n}_" for n in (41, 42, 43, 44, 45)),
    "bitdepth_nuclei": ("bone_",),
    "axon_sem": ("sub-rat7_", "sub-rat8_"),
}
_SLICE_SETS = ("neuroproof",)
_STEM_SETS = ("dsb2018",)  # unrelated images: each is a group of its own
_KEPT = 5  # a set that is one group keeps its last fifth
_COUNTERS = re.compile(r"([ _.-]+(t|z|c|s|f|p|tp|ch|frame|time|slice|plane|tile|crop|part)?\d+)+$", re.I)


def is_validation(dataset: str, stem: str, plane: int | None = None, planes: int = 1) -> bool:
    """Tell whether an image of a set of the development data is kept from training, by its set's rule.

    Sets of several images per field, tissue or animal are split by field, tissue or animal; the slices of
    a volume set by their last fifth; everything else by the md5 of the file stem, 15 in 100.

    Parameters
    ----------
    dataset
        Name of the set, for instance ``"dsb2018"``.
    stem
        File name of the image without its suffix.
    plane, planes
        Slice and number of slices, for a volume.

    Examples
    --------
    >>> is_validation("axon_sem", "sub-rat8_sample"), is_validation("axon_sem", "sub-rat1_sample")
    (True, False)
    """
    if dataset in _VALIDATION_STEMS:
        return stem.startswith(_VALIDATION_STEMS[dataset])
    if dataset in _SLICE_SETS and plane is not None:
        return plane >= planes - planes // _KEPT
    return _number(stem) % 100 < VALIDATION_PERCENT


def split_set(files: Sequence[LabelledFile]) -> list[Part]:
    """Say for each file of one set where it belongs.

    Thresholds are chosen on ``tuning``, figures quoted from ``reporting``; a set of few groups may have no
    ``reporting``.
    """
    if not files:
        return []
    if files[0].dataset in {*_VALIDATION_STEMS, *_SLICE_SETS, *_STEM_SETS}:
        return [_known_part(file) for file in files]
    groups = [group_of(file) for file in files]
    if len(set(groups)) == 1:
        return _cut(files)
    parts = _split_groups(sorted(set(groups)))
    return [parts[group] for group in groups]


def group_of(file: LabelledFile) -> str:
    """Return the name of the group that a file of an unknown set belongs to.

    Examples
    --------
    >>> from pathlib import Path
    >>> from napari_lightsam.train.datasets import LabelledFile
    >>> paths = [Path("mouse3_field2_t001.tif"), Path("mouse3_field2_z04_t2.tif"), Path("colony.tif")]
    >>> [group_of(LabelledFile("mine", path, path)) for path in paths]
    ['mouse3_field2', 'mouse3_field2', 'colony']
    """
    if file.group or file.plane is not None:
        return file.group or file.image.stem
    return _COUNTERS.sub("", file.image.stem) or file.image.stem


def _known_part(file: LabelledFile) -> Part:
    if not is_validation(file.dataset, file.image.stem, file.plane, file.planes):
        return "training"
    if file.dataset in _SLICE_SETS and file.plane is not None:
        second_half = file.plane >= file.planes - file.planes // (2 * _KEPT)
    else:
        second_half = _number(file.image.stem) // 100 % 2 == 1
    return "reporting" if second_half else "tuning"


def _split_groups(groups: Sequence[str]) -> dict[str, Part]:
    """Split two or more groups by their names; training and tuning get at least one each."""
    ranked = sorted(groups, key=lambda group: (_number(group) % 100, group))
    count = sum(_number(group) % 100 < VALIDATION_PERCENT for group in ranked)
    kept = ranked[: min(max(count, 1), len(ranked) - 1)]
    parts: dict[str, Part] = dict.fromkeys(groups, "training")
    for group in kept:
        parts[group] = "reporting" if _number(group) // 100 % 2 == 1 else "tuning"
    if "tuning" not in parts.values():
        parts[kept[0]] = "tuning"
    return parts


def _cut(files: Sequence[LabelledFile]) -> list[Part]:
    """Keep the last fifth in the order of names and planes, and halve it; a single plane is for training."""
    order = sorted(range(len(files)), key=lambda i: (_natural(files[i].image.stem), files[i].plane or 0))
    kept = max(len(files) // _KEPT, 1) if len(files) > 1 else 0
    parts: list[Part] = ["training"] * len(files)
    for place, index in enumerate(order[len(files) - kept :]):
        parts[index] = "tuning" if place < kept - kept // 2 else "reporting"
    return parts


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _number(name: str) -> int:
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16)
