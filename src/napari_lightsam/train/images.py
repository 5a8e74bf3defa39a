"""Images with ground truth as training draws from them: normalised, in memory or in files."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import label as connected

from napari_lightsam.engine.image import prepare_plane
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.train.datasets import LabelledImage, is_fluorescence, read_labelled, read_planes
from napari_lightsam.train.storage import ArrayStore, StoredArray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_lightsam.train.datasets import LabelledFile

_LEAST_PIXELS = 12  # in the image: smaller pieces are specks of annotation
_SAMPLE = 96  # pixels a side from which the deviation of an augmented image is taken
_LEAST_ACROSS = 64  # planes that a volume needs to be looked at from the side
_EVERY = 2  # planes across a volume hardly differ from their neighbours


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImage:
    """One plane with what can be found in it.

    Attributes
    ----------
    dataset, name
        Where it comes from.
    unit
        float16 (C, H, W), C = 1 or 3, normalised to [0, 1] as for inference.
    labels
        int32 (H, W), each object one 8-connected piece.
    object_size
        Median equivalent circular diameter in pixels.
    centres
        float32 (N, 2), (row, column) of the middle of each object's box.
    kind
        Images of a set are drawn so that rare kinds are not drowned by frequent ones.
    whole
        float16 (C, h, w), a sparse sample of the image, or of the one that this was cut from: crops are
        standardised by its mean and deviation.
    """

    dataset: str
    name: str
    unit: npt.NDArray[np.float16] | StoredArray
    labels: npt.NDArray[np.int32] | StoredArray
    object_size: float
    centres: npt.NDArray[np.float32]
    kind: str
    whole: npt.NDArray[np.float16]


def load_training_images(
    files: Iterable[LabelledFile], store: ArrayStore | None = None
) -> list[TrainingImage]:
    """Read images with ground truth; the planes of a volume also across, along its other axes.

    Parameters
    ----------
    files
        From `find_labelled`.
    store
        Where pixels are kept; None keeps all of them in memory (6 bytes a pixel and image, 10 in colour).
        Crops do not depend on it.

    Raises
    ------
    FileError
        None of the files holds an object.
    """
    store = store or ArrayStore(math.inf)
    images: list[TrainingImage] = []
    volumes: dict[tuple[str, Path], list[LabelledFile]] = defaultdict(list)
    for file in files:
        if file.plane is None:
            labelled = read_labelled(file)
            images += _prepare(store, file.dataset, file.name, labelled)
        else:
            volumes[file.dataset, file.image].append(file)
    for planes in volumes.values():
        images += _read_volume(store, sorted(planes, key=lambda file: file.plane or 0))
    if not images:
        raise FileError("None of the training images holds an object; give images with instance labels.")
    return images


def _read_volume(store: ArrayStore, files: Sequence[LabelledFile]) -> Iterator[TrainingImage]:
    """Read a volume once, plane by plane, and cut it along its three axes; a movie only along time."""
    across = len(files) >= _LEAST_ACROSS and not files[0].movie
    image = labels = None
    rgb: bool | None = None
    for index, (file, plane) in enumerate(zip(files, read_planes(files), strict=True)):
        yield from _prepare(store, file.dataset, file.name, plane)
        if across and image is None:
            image = store.scratch((len(files), *plane.image.shape), plane.image.dtype)
            labels = store.scratch((len(files), *plane.labels.shape), plane.labels.dtype)
        if image is not None and labels is not None:
            image[index], labels[index], rgb = plane.image, plane.labels, plane.rgb
    if image is None or labels is None:
        return
    for axis in (1, 2):
        for index in range(0, image.shape[axis], _EVERY):
            name = f"{files[0].image.stem}[{'zyx'[axis]}{index}]"
            cut = LabelledImage(image.take(index, axis), rgb, np.asarray(labels.take(index, axis)))
            yield from _prepare(store, files[0].dataset, name, cut)


def _prepare(store: ArrayStore, dataset: str, name: str, labelled: LabelledImage) -> list[TrainingImage]:
    if not labelled.labels.any():
        return []
    kind = "fluorescence" if is_fluorescence(labelled.image, labelled.rgb) else "other"
    unit = read_unit(labelled.image, labelled.rgb)
    made = training_image(dataset, name, unit, labelled.labels, kind)
    return [] if made is None else [replace(made, unit=store.keep(unit), labels=store.keep(made.labels))]


def read_unit(image: npt.NDArray[np.generic], rgb: bool | None) -> npt.NDArray[np.float16]:
    """Return an image plane normalised to [0, 1] as for inference: (1, H, W), or (3, H, W) with colours."""
    plane = prepare_plane(image, rgb=rgb)
    unit = plane.read((0, plane.shape[0]), (0, plane.shape[1])).astype(np.float16)
    if len(unit) == 3 and (unit[0] == unit[1]).all() and (unit[0] == unit[2]).all():
        unit = unit[:1]
    return unit


def training_image(
    dataset: str,
    name: str,
    unit: npt.NDArray[np.float16],
    labels: npt.NDArray[np.int32],
    kind: str = "other",
    whole: npt.NDArray[np.float16] | None = None,
) -> TrainingImage | None:
    """Work out what can be found in a normalised plane; None when nothing can."""
    pieces = connected(labels, connectivity=2).astype(np.int32)  # type: ignore[no-untyped-call]
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    small = areas < _LEAST_PIXELS
    pieces[small[pieces]] = 0
    if not (areas >= _LEAST_PIXELS).any():
        return None
    boxes = [box for box in ndimage.find_objects(pieces) if box is not None]
    centres = np.array([[(side.start + side.stop) / 2 for side in box] for box in boxes], np.float32)
    size = float(np.median(2 * np.sqrt(areas[areas >= _LEAST_PIXELS] / math.pi)))
    # The sample is taken once, not with each crop; a copy, or it would keep all of the image in memory.
    whole = sparse_sample(unit).copy() if whole is None else whole
    return TrainingImage(dataset, name, unit, pieces, size, centres, kind, whole)


def image_weights(
    images: Sequence[TrainingImage], sets: Mapping[str, float] | None = None
) -> npt.NDArray[np.float64]:
    """Return the probability of drawing each image.

    Each set has its weight (1 unless given); inside a set a kind's share is the root of its count.

    Raises
    ------
    ConfigError
        No image is left, because all of their sets have the weight 0.
    """
    kinds: dict[tuple[str, str], int] = defaultdict(int)
    for image in images:
        kinds[image.dataset, image.kind] += 1
    roots: dict[str, float] = defaultdict(float)
    for (dataset, _), count in kinds.items():
        roots[dataset] += math.sqrt(count)
    weights = np.array(
        [
            (sets or {}).get(image.dataset, 1.0)
            / math.sqrt(kinds[image.dataset, image.kind])
            / roots[image.dataset]
            for image in images
        ]
    )
    if not weights.any():
        names = ", ".join(sorted({image.dataset for image in images}))
        raise ConfigError(
            f"All images to train on, or all to check on, are of sets with the weight 0 ({names}); give one "
            "of them a weight above 0."
        )
    return np.asarray(weights / weights.sum())


def sparse_sample(unit: npt.NDArray[np.float16]) -> npt.NDArray[np.float16]:
    """Return some 100 x 100 pixels of a plane (C, H, W), evenly spaced."""
    steps = [max(1, length // _SAMPLE) for length in unit.shape[1:]]
    return unit[:, :: steps[0], :: steps[1]]
