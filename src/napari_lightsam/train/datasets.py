"""Folders of images with instance ground truth: what is in them, and how they are read.

Four layouts are recognised, in the folder itself and in its direct subfolders; the folder's name names
the set:

- ``images/NAME.png`` and ``labels/NAME.png`` (any type on either side, equal stems), also in equal
  subfolders of both, which keep related images together when the set is split (see `splits`),
- ``NAME.tif`` and ``NAME_labels.tif``,
- ``image.tif`` and ``labels.tif``,
- ``NAME.zarr`` with labels inside, as OME-Zarr keeps them.

Types are PNG, TIFF and zarr (plain arrays and OME-Zarr). Three-dimensional label files are taken slice by
slice, movies frame by frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.images import read_image, read_info
from napari_lightsam.formats.zarrs import SUFFIX as ZARR
from napari_lightsam.formats.zarrs import find_zarr_labels
from napari_lightsam.train.splits import Part, split_set

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_lightsam.formats.images import ImageFile

SUFFIXES = (".png", ".tif", ".tiff")

Split = Literal["all", "training", "validation", "tuning", "reporting"]
"""Part of a data set; tuning and reporting are the two halves of validation."""

Group = Literal["all", "fluorescence"]
"""Kind of image within a set."""


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
    movie
        The planes are time points rather than slices.
    group
        Subfolder of ``images/`` that it lies in, or "".
    """

    dataset: str
    image: Path
    labels: Path
    plane: int | None = None
    planes: int = 1
    movie: bool = False
    group: str = ""

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
    if not os.path.isdir(root):
        raise FileError(f"{root} is not a folder; give a folder of images and label images.")
    if limit is not None and limit < 1:
        raise ConfigError(f"The limit is {limit}; it is a number of images per set, at least 1.")
    if group not in get_args(Group):
        raise ConfigError(f"The group is {group!r}; accepted are {', '.join(get_args(Group))}.")
    if split not in get_args(Split):
        raise ConfigError(f"The split is {split!r}; accepted are {', '.join(get_args(Split))}.")
    sets = [place for place in _folders(root) if place.name not in ("images", "labels")]
    found = [tuple(_slices(_pairs(place), place.resolve().name)) for place in (root, *sets)]
    if not any(found):
        raise FileError(
            f"No image with ground truth in {root}. Accepted: images/NAME.png with labels/NAME.png (PNG, "
            "TIFF or zarr), NAME.tif with NAME_labels.tif, image.tif with labels.tif, or NAME.zarr with "
            "labels inside."
        )
    kept: list[LabelledFile] = []
    for files in found:
        parts = zip(files, split_set(files), strict=True)
        chosen = [file for file, part in parts if _in_split(part, split) and _in_group(file, group)]
        kept += _evenly(chosen, limit)
    if not kept:
        raise FileError(
            f"No image in {root} belongs to the split {split!r} and the group {group!r}; "
            "'all' takes every image. A set needs two images or planes to be split."
        )
    return tuple(kept)


def read_labelled(file: LabelledFile) -> LabelledImage:
    """Read one plane and its ground truth.

    Raises
    ------
    FileError
        A file cannot be read, holds no integer labels, or the two do not show the same pixels.
    """
    return next(iter(read_planes([file])))


def read_planes(files: Iterable[LabelledFile]) -> Iterator[LabelledImage]:
    """Read planes one after the other; a file is opened once for all of its planes that follow each other.

    Raises
    ------
    FileError
        As `read_labelled`.
    """
    paths: tuple[Path, Path] | None = None
    for file in files:
        if paths != (file.image, file.labels):
            image, labels = read_image(file.image), read_image(file.labels)
            paths = file.image, file.labels
        yield _read_plane(file, image, labels)


def _read_plane(file: LabelledFile, stored: ImageFile, truth: ImageFile) -> LabelledImage:
    place = {"time" if file.movie else "z": file.plane}
    labels, _ = truth.plane(**place)
    if labels.dtype.kind not in "iu" or labels.ndim != 2:
        raise FileError(
            f"{file.labels} has a plane of shape {labels.shape} and dtype {labels.dtype}; a label image is "
            "(H, W) or (Z, H, W) integers, one id per object and 0 for background."
        )
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
        raise FileError(
            f"{file.labels} holds ids from {labels.min()} to {labels.max()}; ids are 0 or more and fit int32."
        )
    channels = tuple(range(stored.n_channels)) if stored.n_channels > 1 else None
    image, rgb = stored.plane(channel=channels, **place)
    if image.shape[:2] != labels.shape:
        raise FileError(
            f"{file.image} shows {image.shape[:2]} pixels, {file.labels} {labels.shape}; "
            "image and labels must have the same height and width."
        )
    return LabelledImage(image, rgb if image.ndim == 3 else None, labels.astype(np.int32))


def _in_split(part: Part, split: Split) -> bool:
    return split in ("all", part) or (split == "validation" and part != "training")


def _in_group(file: LabelledFile, group: Group) -> bool:
    if group == "all":
        return True
    labelled = read_labelled(file)
    return is_fluorescence(labelled.image, labelled.rgb)


class _Pair(NamedTuple):
    image: Path
    labels: Path
    group: str = ""


def _pairs(folder: Path) -> list[_Pair]:
    """All images with labels of one set, in the first layout that it has."""
    if os.path.isdir(folder / "images") and os.path.isdir(folder / "labels"):
        return _pairs_of_folders(folder)
    files = {_stem(path): path for path in _image_files(folder)}
    if "image" in files and "labels" in files:
        return [_Pair(files["image"], files["labels"])]
    pairs = []
    for stem, path in sorted(files.items()):
        labels = files.get(f"{stem}_labels") or find_zarr_labels(path)
        if labels is not None:
            pairs.append(_Pair(path, labels))
    return pairs


def _pairs_of_folders(folder: Path) -> list[_Pair]:
    places = [("", folder / "images"), *((place.name, place) for place in _folders(folder / "images"))]
    images = [(group, path) for group, place in places for path in _image_files(place)]
    pairs, missing = [], []
    for group, path in images:
        place = folder / "labels" / group
        labels = {_stem(label): label for label in _image_files(place)} if os.path.isdir(place) else {}
        if _stem(path) in labels:
            pairs.append(_Pair(path, labels[_stem(path)], group))
        else:
            missing.append(path.name)
    if missing:
        tell(
            f"{len(missing)} of {len(images)} images in {folder / 'images'} have no label file and are "
            f"left out: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}",
            stacklevel=4,
        )
    return pairs


def _stem(path: Path) -> str:
    """Name without suffix, also without the first part of `.ome.tif` and `.ome.zarr`."""
    return path.stem.removesuffix(".ome")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if os.path.isdir(path) and path.suffix.lower() != ZARR)


def _image_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".")
        and (path.suffix.lower() in SUFFIXES if os.path.isfile(path) else path.suffix.lower() == ZARR)
    )


def _slices(pairs: Iterable[_Pair], dataset: str) -> Iterable[LabelledFile]:
    for image, labels, group in pairs:
        planes, movie = _count_planes(labels)
        if planes is None:
            yield LabelledFile(dataset, image, labels, group=group)
        else:
            for plane in range(planes):
                yield LabelledFile(dataset, image, labels, plane, planes, movie, group)


def _count_planes(labels: Path) -> tuple[int | None, bool]:
    """Slices or frames of a label file, from its header only (`None` for a plane), and whether frames."""
    info = read_info(labels)
    depths = [
        (n, axis == "T") for axis, n in zip(info.axes, info.shape, strict=True) if axis in "ZQT" and n > 1
    ]
    return depths[0] if len(depths) == 1 else (None, False)


def _evenly(files: list[LabelledFile], limit: int | None) -> list[LabelledFile]:
    if limit is None or len(files) <= limit:
        return files
    return [files[index * len(files) // limit] for index in range(limit)]
