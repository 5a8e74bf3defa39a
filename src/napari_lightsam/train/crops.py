"""Training crops: images in memory, cut at random object scales, augmented, with what must be found in them.

Everything random comes from (seed, step), so that a resumed run sees exactly the crops that an unbroken one
would have seen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from skimage.measure import label as connected
from torch import Tensor

from napari_lightsam.engine.image import prepare_plane
from napari_lightsam.errors import FileError
from napari_lightsam.model.spec import PROPOSAL_STRIDE, ObjectFrame
from napari_lightsam.train.datasets import LabelledFile, is_fluorescence, read_labelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_LEAST_PIXELS = 12  # in the image: smaller pieces are specks of annotation
_LEAST_VISIBLE = 40  # frame pixels: less of an object is no object to be found
_THUMB = 96  # pixels a side from which the deviation of an augmented image is taken
_CENTRED = 0.8  # of the crops are laid around an object
_SHAPES = ((8, 224), (3, 384), (2, 448))  # (crops, side): about equal work; 224 and 448 fill whole windows
_ROTATED = 0.3
_SPREAD = (0.6, 2.0)  # cells: least and largest deviation of a centre's blob in the heat-map
_EMPTY = 0.04  # of the crops hold noise alone


@dataclass(frozen=True, slots=True, eq=False)
class TrainingImage:
    """One plane in memory.

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
    """

    dataset: str
    name: str
    unit: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    object_size: float
    centres: npt.NDArray[np.float32]
    kind: str


class Objects(NamedTuple):
    """The K objects of a batch.

    Attributes
    ----------
    crop, label
        int (K,), which crop, and which label in it.
    boxes
        float (K, 4), (x0, y0, x1, y1) in frame pixels, the model's own order.
    centres
        float (K, 2), (x, y) of each object's innermost pixel.
    """

    crop: Tensor
    label: Tensor
    boxes: Tensor
    centres: Tensor


class Batch(NamedTuple):
    """One step's crops.

    Attributes
    ----------
    frames
        float32 (B, 3, S, S), standardised, zero where there is no image.
    labels
        int32 (B, S, S), 0 = background.
    inside
        bool (B, S, S), False on the padding.
    objects
        What can be prompted.
    heat
        float32 (B, 1, S/8, S/8), 1 at centres and falling off around them.
    distances, weights
        float32 (B, 4, S/8, S/8), to top, left, bottom and right, and (B, 1, S/8, S/8), where they count.
    """

    frames: Tensor
    labels: Tensor
    inside: Tensor
    objects: Objects
    heat: Tensor
    distances: Tensor
    weights: Tensor


def load_training_images(files: Iterable[LabelledFile]) -> list[TrainingImage]:
    """Read images with ground truth into memory; the planes of a volume also across, along its other axes.

    Raises
    ------
    FileError
        None of the files holds an object.
    """
    images: list[TrainingImage] = []
    volumes: dict[tuple[str, str], list[LabelledFile]] = defaultdict(list)
    for file in files:
        if file.plane is None:
            labelled = read_labelled(file)
            images += _prepare(file.dataset, file.name, labelled.image, labelled.rgb, labelled.labels)
        else:
            volumes[file.dataset, str(file.image)].append(file)
    for (dataset, _), planes in volumes.items():
        read = [read_labelled(plane) for plane in sorted(planes, key=lambda plane: plane.plane or 0)]
        image, labels = np.stack([part.image for part in read]), np.stack([part.labels for part in read])
        for axis in range(3 if len(read) >= 2 * _THUMB // 3 and image.ndim == 3 else 1):
            for index in range(0, image.shape[axis], 1 if axis == 0 else 2):
                name = f"{planes[0].image.stem}[{'zyx'[axis]}{index}]"
                cut = np.asarray(labels.take(index, axis))
                images += _prepare(dataset, name, image.take(index, axis), read[0].rgb, cut)
    if not images:
        raise FileError("None of the training images holds an object; give images with instance labels.")
    return images


def _prepare(
    dataset: str,
    name: str,
    image: npt.NDArray[np.generic],
    rgb: bool | None,
    labels: npt.NDArray[np.int32],
) -> list[TrainingImage]:
    pieces = connected(labels, connectivity=2).astype(np.int32)  # type: ignore[no-untyped-call]
    areas = np.bincount(pieces.ravel())
    areas[0] = 0
    small = areas < _LEAST_PIXELS
    pieces[small[pieces]] = 0
    if not (areas >= _LEAST_PIXELS).any():
        return []
    plane = prepare_plane(image, rgb=rgb)
    unit = plane.read((0, plane.shape[0]), (0, plane.shape[1])).astype(np.float16)
    if len(unit) == 3 and (unit[0] == unit[1]).all() and (unit[0] == unit[2]).all():
        unit = unit[:1]
    elif len(unit) == 2:
        unit = np.concatenate([unit, np.zeros_like(unit[:1])])
    boxes = [box for box in ndimage.find_objects(pieces) if box is not None]
    centres = np.array([[(side.start + side.stop) / 2 for side in box] for box in boxes], np.float32)
    size = float(np.median(2 * np.sqrt(areas[areas >= _LEAST_PIXELS] / math.pi)))
    kind = "fluorescence" if is_fluorescence(image, rgb) else "other"
    return [TrainingImage(dataset, name, unit, pieces, size, centres, kind)]


def image_weights(
    images: Sequence[TrainingImage], sets: Mapping[str, float] | None = None
) -> npt.NDArray[np.float64]:
    """Return the probability of drawing each image.

    Each set has its weight (1 unless given); inside a set a kind's share is the root of its count.
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
    return np.asarray(weights / weights.sum())


class CropMaker(torch.utils.data.Dataset[Batch]):
    """Makes the batch of any step.

    Parameters
    ----------
    images
        In memory.
    frame
        Standardisation of the model that is trained.
    seed
        Of everything random.
    weights
        Probability of each image; equal by default.
    sizes
        Range of object diameters in frame pixels, drawn log-uniformly.
    augment
        Vary intensities and orientation. Without, crops only differ in place and scale (for validation).
    shapes
        (crops, side) of a batch, one of which is drawn for each step.
    """

    def __init__(
        self,
        images: Sequence[TrainingImage],
        frame: ObjectFrame,
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
        sizes: tuple[float, float] = (12.0, 96.0),
        augment: bool = True,
        shapes: Sequence[tuple[int, int]] = _SHAPES,
    ) -> None:
        self._shapes = tuple(shapes)
        self._images = images
        self._frame = frame
        self._seed = seed
        self._weights = weights
        self._sizes = sizes
        self._augment = augment

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step."""
        random = np.random.default_rng((self._seed, step))
        count, side = self._shapes[int(random.integers(len(self._shapes)))]
        chosen = random.choice(len(self._images), count, p=self._weights)
        return make_batch(
            [
                make_crop(self._images[i], side, self._frame, random, self._sizes, self._augment)
                for i in chosen
            ]
        )


class Crop(NamedTuple):
    """A standardised frame (3, S, S), its labels (S, S) and where it shows image (S, S)."""

    frame: Tensor
    labels: npt.NDArray[np.int32]
    inside: npt.NDArray[np.bool_]


def make_crop(
    image: TrainingImage,
    side: int,
    frame: ObjectFrame,
    random: np.random.Generator,
    sizes: tuple[float, float],
    augment: bool,
) -> Crop:
    """Cut a square crop in which the image's objects have a random diameter from `sizes`."""
    if augment and random.random() < _EMPTY:
        return _noise_crop(side, frame, random)
    diameter = math.exp(random.uniform(*np.log(sizes)))
    stretch = math.exp(random.uniform(-0.12, 0.12)) if augment else 1.0
    scale = np.array([stretch, 1 / stretch]) * diameter / image.object_size
    rotated = augment and random.random() < _ROTATED
    angle = random.uniform(0, 2 * math.pi) if rotated else 0.0
    reach = side * (abs(math.cos(angle)) + abs(math.sin(angle)))  # the square that holds the turned crop
    height, width = image.labels.shape
    if random.random() < _CENTRED:
        centre = (
            image.centres[int(random.integers(len(image.centres)))]
            + random.uniform(-side / 4, side / 4, 2) / scale
        )
    else:
        centre = random.uniform(0, 1, 2) * (height, width)
    spans = np.minimum(np.ceil(reach / scale), (height, width)).astype(int)
    start = np.clip(np.rint(centre - spans / 2), 0, np.array([height, width]) - spans).astype(int)
    rows, columns = slice(start[0], start[0] + spans[0]), slice(start[1], start[1] + spans[1])
    size = np.maximum(np.rint(spans * scale), 1).astype(int)
    part = torch.from_numpy(image.unit[:, rows, columns].astype(np.float32))[None]
    part = F.interpolate(part, tuple(size.tolist()), mode="bilinear", antialias=True)[0]
    labels = torch.from_numpy(image.labels[rows, columns].astype(np.float32))[None, None]
    labels = F.interpolate(labels, tuple(size.tolist()), mode="nearest-exact")[0]
    thumb = _thumbnail(image)
    if augment:
        part, thumb = _vary_intensity(part, thumb, random)
    mean, std = float(thumb.mean()), max(float(thumb.std()), frame.min_std)
    stacked = torch.cat([(part - mean) / std, torch.ones_like(labels), labels])
    out = _turn(stacked, angle, side) if rotated else _place(stacked, side, random)
    if augment:
        out = out.rot90(int(random.integers(4)), (1, 2))
        out = out.flip(2) if random.random() < 0.5 else out
    inside, pieces = out[-2] > 0.5, out[-1]
    seen = out[:-2].expand(3, -1, -1) * inside
    kept = (pieces * inside).round().numpy().astype(np.int32)
    return Crop(seen.contiguous(), kept, inside.numpy())


def _noise_crop(side: int, frame: ObjectFrame, random: np.random.Generator) -> Crop:
    """Make a crop in which there is nothing to find: white or smooth noise."""
    sigma = random.uniform(0.5, 2.5) if random.random() < 0.5 else 0.0
    grain = ndimage.gaussian_filter(random.standard_normal((side, side), np.float32), sigma)
    grain *= random.uniform(0.02, 0.3) / grain.std()
    unit = (random.uniform(0.1, 0.9) + grain).clip(0, 1)
    standard = torch.from_numpy((unit - unit.mean()) / max(float(unit.std()), frame.min_std))
    nothing = np.zeros((side, side), np.int32)
    return Crop(standard.expand(3, -1, -1).float(), nothing, np.ones((side, side), bool))


def _thumbnail(image: TrainingImage) -> Tensor:
    """Return a sparse sample (C, h, w) with the deviation of the whole image."""
    steps = [max(1, length // _THUMB) for length in image.labels.shape]
    return torch.from_numpy(image.unit[:, :: steps[0], :: steps[1]].astype(np.float32))


def _vary_intensity(part: Tensor, thumb: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Change contrast, polarity, noise and sharpness; the sample is changed alike, but for the place."""
    gamma = math.exp(random.normal(0, 0.35))
    part, thumb = part.clamp(0, 1) ** gamma, thumb.clamp(0, 1) ** gamma
    gain, offset = random.uniform(0.6, 1.15), random.uniform(-0.1, 0.1)
    part, thumb = part * gain + offset, thumb * gain + offset
    if random.random() < 0.25:
        part, thumb = 1 - part, 1 - thumb
    if len(part) == 3:
        order = torch.from_numpy(random.permutation(3))
        part, thumb = part[order], thumb[order]
        if random.random() < 0.15:
            part, thumb = part.mean(0, keepdim=True), thumb.mean(0, keepdim=True)
    if random.random() < 0.25:
        sigma = random.uniform(0.3, 1.5)
        part = torch.from_numpy(ndimage.gaussian_filter(part.numpy(), (0, sigma, sigma)))
    if random.random() < 0.3:
        noise = random.uniform(0.01, 0.1)
        part = part + noise * torch.from_numpy(random.standard_normal(tuple(part.shape), np.float32))
        thumb = thumb + noise * torch.from_numpy(random.standard_normal(tuple(thumb.shape), np.float32))
    return part.clamp(0, 1), thumb.clamp(0, 1)


def _place(stacked: Tensor, side: int, random: np.random.Generator) -> Tensor:
    """Cut or pad (zeros right and below) to a square."""
    height, width = stacked.shape[1:]
    y = int(random.integers(max(height - side, 0) + 1))
    x = int(random.integers(max(width - side, 0) + 1))
    part = stacked[:, y : y + side, x : x + side]
    return F.pad(part, (0, side - part.shape[2], 0, side - part.shape[1]))


def _turn(stacked: Tensor, angle: float, side: int) -> Tensor:
    """Turn about the middle and cut a square; labels by the nearest pixel."""
    height, width = stacked.shape[1:]
    middle = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    grid = torch.stack([(cos * x - sin * y) * 2 / width, (sin * x + cos * y) * 2 / height], dim=-1)[None]
    smooth = F.grid_sample(stacked[None, :-2], grid, align_corners=False, padding_mode="zeros")[0]
    exact = F.grid_sample(stacked[None, -2:], grid, mode="nearest", align_corners=False)[0]
    return torch.cat([smooth, exact])


def make_batch(crops: Sequence[Crop]) -> Batch:
    """Stack crops and work out what can be found in them."""
    found = [_objects_of(crop) for crop in crops]
    side = crops[0].labels.shape[0] // PROPOSAL_STRIDE
    maps = [_maps(boxes, centres, side) for _, boxes, centres in found]
    crop_of = np.repeat(np.arange(len(crops)), [len(labels) for labels, _, _ in found])
    objects = Objects(
        torch.from_numpy(crop_of),
        torch.from_numpy(np.concatenate([labels for labels, _, _ in found])),
        torch.from_numpy(np.concatenate([boxes for _, boxes, _ in found])),
        torch.from_numpy(np.concatenate([centres for _, _, centres in found])),
    )
    heat, distances, weights = (torch.from_numpy(np.stack(part)) for part in zip(*maps, strict=True))
    return Batch(
        torch.stack([crop.frame for crop in crops]),
        torch.from_numpy(np.stack([crop.labels for crop in crops])),
        torch.from_numpy(np.stack([crop.inside for crop in crops])),
        objects,
        heat,
        distances,
        weights,
    )


Floats = npt.NDArray[np.float32]


def _objects_of(crop: Crop) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Return labels (N,), boxes (N, 4) as (x0, y0, x1, y1) and innermost pixels (N, 2) as (x, y)."""
    labels = crop.labels
    areas = np.bincount(labels.ravel())
    kept = [i for i in range(1, len(areas)) if areas[i] >= _LEAST_VISIBLE]
    places = ndimage.find_objects(labels)
    boxes, centres = np.zeros((len(kept), 4), np.float32), np.zeros((len(kept), 2), np.float32)
    for k, i in enumerate(kept):
        rows, columns = places[i - 1]
        depth = ndimage.distance_transform_edt(np.pad(labels[rows, columns] == i, 1))[1:-1, 1:-1]
        # of equally deep pixels the one nearest to the middle, as an annotator would click
        grid = np.indices(depth.shape) - (np.array(depth.shape)[:, None, None] - 1) / 2
        y, x = np.unravel_index(int(np.argmax(depth - 0.02 * np.hypot(*grid))), depth.shape)
        boxes[k] = columns.start, rows.start, columns.stop, rows.stop
        centres[k] = columns.start + x, rows.start + y
    return np.asarray(kept, np.int64), boxes, centres


def _maps(boxes: Floats, centres: Floats, side: int) -> tuple[Floats, Floats, Floats]:
    """Return the heat-map (1, s, s), distances (4, s, s) and their weights (1, s, s) of one crop."""
    heat = np.zeros((1, side, side), np.float32)
    distances = np.zeros((4, side, side), np.float32)
    middle = (np.arange(side, dtype=np.float32) + 0.5) * PROPOSAL_STRIDE
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for k in np.argsort(-areas):  # where two meet, the smaller one is found
        x0, y0, x1, y1 = boxes[k]
        column, row = (int(min(c // PROPOSAL_STRIDE, side - 1)) for c in centres[k])
        spread = np.clip(np.array([y1 - y0, x1 - x0]) / PROPOSAL_STRIDE / 6, *_SPREAD)
        dy, dx = np.arange(side) - row, np.arange(side) - column
        blob = np.exp(-0.5 * ((dy / spread[0])[:, None] ** 2 + (dx / spread[1])[None] ** 2))
        near = blob > np.maximum(heat[0], 0.3)
        sides = np.broadcast_arrays(
            middle[:, None] - y0, middle[None] - x0, y1 - middle[:, None], x1 - middle[None]
        )
        for out, values in zip(distances, sides, strict=True):
            out[near] = values[near]
        np.maximum(heat[0], blob, out=heat[0])
    inside = (distances.min(axis=0, keepdims=True) > 0) & (heat > 0.3)
    return heat, distances, np.where(inside, heat, 0).astype(np.float32)
