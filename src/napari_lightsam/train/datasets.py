"""Folders of images with instance ground truth: what is in them, how they are split, how they are read.

Three layouts are recognised, in the folder itself and in its direct subfolders; the folder's name names
the set:

- ``images/NAME.png`` and ``labels/NAME.png`` (PNG or TIFF on either side, equal stems),
- ``NAME.tif`` and ``NAME_labels.tif``,
- ``image.tif`` and ``labels.tif``.

Three-dimensional label files are taken slice by slice.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_lightsam.engine.image import LightSamWarning
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.images import read_image, read_info

if TYPE_CHECKING:
    from collections.abc import Iterable

SUFFIXES = (".png", ".tif", ".tiff")

Split = Literal["all", "training", "validation", "tuning", "reporting"]
"""Part of a data set; tuning and reporting are the two halves of validation."""

Group = Literal["all", "fluorescence"]
"""Kind of image within a set."""

VALIDATION_PERCENT = 15
"""Share of a set without a rule of its own that is kept for validation."""

_VALIDATION_STEMS: dict[str, tuple[str, ...]] = {
    # Whole fields of view, one tissue, two animals: neighbours of a validation image are never trained on.
    "usiigaci": tuple(f"train-set{n}_" for n in (41, 42, 43, 44, 45)),
    "bitdepth_nuclei": ("bone_",),
    "axon_sem": ("sub-rat7_", "sub-rat8_"),
}
_SLICE_SETS = ("neuroproof",)


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One plane with ground truth, still on disk.

    Attributes
    ----------
    dataset
        Name of the set: the folder's name.
    image, labels
        Paths of the two files.
    plane, planes
        Index of the slice and their number; `None` and 1 for a two-dimensional file.
    """

    dataset: str
    image: Path
    labels: Path
    plane: int | None = None
    planes: int = 1

    @property
    def name(self) -> str:
        """The image's stem, with the slice where there is one."""
        return self.image.stem if self.plane is None else f"{self.image.stem}[{self.plane}]"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One plane with ground truth.

    Attributes
    ----------
    image
        (H, W) or (H, W, C), as in the file.
    rgb
        True for colour samples, False for channels, None for a plain grey plane.
    labels
        int32 (H, W), 0 = background.
    """

    image: npt.NDArray[np.generic]
    rgb: bool | None
    labels: npt.NDArray[np.int32]


def is_validation(dataset: str, stem: str, plane: int | None = None, planes: int = 1) -> bool:
    """Tell whether an image is kept from training, by its set's rule.

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
        return plane >= planes - planes // 5
    return _stem_number(stem) % 100 < VALIDATION_PERCENT


def in_split(file: LabelledFile, split: Split) -> bool:
    """Tell whether a file belongs to a split.

    Validation is halved by the next digits of the stem's md5, or, in a volume set, into its earlier and
    later slices: thresholds are chosen on ``tuning``, figures quoted from ``reporting``.
    """
    if split not in get_args(Split):
        raise ConfigError(f"The split is {split!r}; accepted are {', '.join(get_args(Split))}.")
    if split == "all":
        return True
    validation = is_validation(file.dataset, file.image.stem, file.plane, file.planes)
    if split in ("training", "validation"):
        return validation == (split == "validation")
    if file.dataset in _SLICE_SETS and file.plane is not None:
        second_half = file.plane >= file.planes - file.planes // 10
    else:
        second_half = _stem_number(file.image.stem) // 100 % 2 == 1
    return validation and second_half == (split == "reporting")


def is_fluorescence(image: npt.ArrayLike, rgb: bool | None = None) -> bool:
    """Tell fluorescence from bright field in a mixed set such as DSB2018: grey, and mean below 100 of 255.

    Parameters
    ----------
    image
        (H, W) or (H, W, C); integers are scaled by their dtype's range to 0..255, others taken as they
        are. Colour samples that are all equal count as grey.
    rgb
        True when the last axis is colour.
    """
    array = np.asarray(image)
    if rgb:
        array = array[..., :3]
        if (array != array[..., :1]).any():
            return False
    scale = 255 / np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    return float(array.mean()) * scale < 100


def find_labelled(
    folder: str | Path, *, split: Split = "all", group: Group = "all", limit: int | None = None
) -> tuple[LabelledFile, ...]:
    """Find the images with ground truth in a folder and its direct subfolders.

    Parameters
    ----------
    folder
        A set, or a folder of sets.
    split
        Part to keep.
    group
        Kind of image to keep; anything but ``"all"`` reads every image of the split.
    limit
        At most this many of each set, evenly spaced over its sorted names; `None` for all.

    Returns
    -------
    tuple of LabelledFile
        Sorted by set and name.

    Raises
    ------
    FileError
        The folder is missing, or nothing in it has ground truth.
    ConfigError
        `split`, `group` or `limit` is not accepted.

    Warns
    -----
    LightSamWarning
        Images in ``images/`` without a label file: they are left out.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileError(f"{root} is not a folder; give a folder of images and label images.")
    if limit is not None and limit < 1:
        raise ConfigError(f"The limit is {limit}; it is a number of images per set, at least 1.")
    if group not in get_args(Group):
        raise ConfigError(f"The group is {group!r}; accepted are {', '.join(get_args(Group))}.")
    sets = [place for place in root.iterdir() if place.is_dir() and place.name not in ("images", "labels")]
    found = [tuple(_slices(_pairs(place), place.resolve().name)) for place in (root, *sorted(sets))]
    if not any(found):
        raise FileError(
            f"No image with ground truth in {root}. Accepted: images/NAME.png with labels/NAME.png (PNG or "
            "TIFF), NAME.tif with NAME_labels.tif, or image.tif with labels.tif."
        )
    kept: list[LabelledFile] = []
    for files in found:
        chosen = [file for file in files if in_split(file, split) and _in_group(file, group)]
        kept += _evenly(chosen, limit)
    if not kept:
        raise FileError(
            f"No image in {root} belongs to the split {split!r} and the group {group!r}; "
            "'all' takes every image."
        )
    return tuple(kept)


def read_labelled(file: LabelledFile) -> LabelledImage:
    """Read one plane and its ground truth.

    Raises
    ------
    FileError
        A file cannot be read, holds no integer labels, or the two do not show the same pixels.
    """
    labels, _ = read_image(file.labels).plane(z=file.plane)
    if labels.dtype.kind not in "iu" or labels.ndim != 2:
        raise FileError(
            f"{file.labels} has a plane of shape {labels.shape} and dtype {labels.dtype}; a label image is "
            "(H, W) or (Z, H, W) integers, one id per object and 0 for background."
        )
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
        raise FileError(
            f"{file.labels} holds ids from {labels.min()} to {labels.max()}; ids are 0 or more and fit int32."
        )
    stored = read_image(file.image)
    channels = tuple(range(stored.n_channels)) if stored.n_channels > 1 else None
    image, rgb = stored.plane(channel=channels, z=file.plane)
    if image.shape[:2] != labels.shape:
        raise FileError(
            f"{file.image} shows {image.shape[:2]} pixels, {file.labels} {labels.shape}; "
            "image and labels must have the same height and width."
        )
    return LabelledImage(image, rgb if image.ndim == 3 else None, labels.astype(np.int32))


def _stem_number(stem: str) -> int:
    return int(hashlib.md5(stem.encode(), usedforsecurity=False).hexdigest(), 16)


def _in_group(file: LabelledFile, group: Group) -> bool:
    if group == "all":
        return True
    labelled = read_labelled(file)
    return is_fluorescence(labelled.image, labelled.rgb)


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """All (image, labels) paths of one set, in the first layout that it has."""
    if (folder / "images").is_dir() and (folder / "labels").is_dir():
        labels = {path.stem: path for path in _image_files(folder / "labels")}
        images = _image_files(folder / "images")
        missing = [path.name for path in images if path.stem not in labels]
        if missing:
            warnings.warn(
                f"{len(missing)} of {len(images)} images in {folder / 'images'} have no label file and are "
                f"left out: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
                LightSamWarning,
                stacklevel=3,
            )
        return [(path, labels[path.stem]) for path in images if path.stem in labels]
    files = {path.stem: path for path in _image_files(folder)}
    if "image" in files and "labels" in files:
        return [(files["image"], files["labels"])]
    return [
        (path, files[f"{stem}_labels"]) for stem, path in sorted(files.items()) if f"{stem}_labels" in files
    ]


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _slices(pairs: Iterable[tuple[Path, Path]], dataset: str) -> Iterable[LabelledFile]:
    for image, labels in pairs:
        planes = _plane_count(labels)
        if planes is None:
            yield LabelledFile(dataset, image, labels)
        else:
            for plane in range(planes):
                yield LabelledFile(dataset, image, labels, plane, planes)


def _plane_count(labels: Path) -> int | None:
    """Slices of a label volume, from the file's header only; `None` for a plane."""
    info = read_info(labels)
    depths = [size for axis, size in zip(info.axes, info.shape, strict=True) if axis in "ZQ" and size > 1]
    return depths[0] if len(depths) == 1 else None


def _evenly(files: list[LabelledFile], limit: int | None) -> list[LabelledFile]:
    if limit is None or len(files) <= limit:
        return files
    return [files[index * len(files) // limit] for index in range(limit)]
