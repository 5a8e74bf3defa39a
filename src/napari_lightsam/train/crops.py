"""Training crops: images cut at random object scales, augmented, with what must be found in them.

Everything random comes from (seed, step), so that a resumed run sees exactly the crops that an unbroken one
would have seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from napari_lightsam.model.spec import PROPOSAL_STRIDE, ObjectFrame
from napari_lightsam.train.augment import draw_noise, orient, place, turn, vary_intensity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_lightsam.train.images import TrainingImage

_LEAST_VISIBLE = 40  # frame pixels: less of an object is no object to be found
_CENTRED = 0.8  # of the crops are laid around an object
_BARE, _TRIES = 0.04, 8  # of the crops show a part without objects: the emptiest of some random places
_SHAPES = ((8, 224), (3, 384), (2, 448))  # (crops, side): about equal work; 224 and 448 fill whole windows
_ROTATED = 0.3
_STRETCHED = 0.12  # largest logarithm
_SPREAD = (0.6, 2.0)  # cells: least and largest deviation of a centre's blob in the heat-map
_EMPTY = 0.04  # of the crops hold noise alone

Floats = npt.NDArray[np.float32]
Pair = npt.NDArray[np.float64]


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
    features
        (B, C, S/16, S/16), what a frozen backbone made of the frames, so that no step does it again; or None.
    """

    frames: Tensor
    labels: Tensor
    inside: Tensor
    objects: Objects
    heat: Tensor
    distances: Tensor
    weights: Tensor
    features: Tensor | None = None


class CropMaker(torch.utils.data.Dataset[Batch]):
    """Makes the batch of any step.

    Parameters
    ----------
    images
        From `load_training_images`.
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
        shapes: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        self._shapes = tuple(shapes or _SHAPES)
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
    bare = augment and random.random() < _BARE
    diameter = math.exp(random.uniform(*np.log(sizes)))
    stretch = math.exp(random.uniform(-_STRETCHED, _STRETCHED)) if augment else 1.0
    scale = np.array([stretch, 1 / stretch]) * diameter / image.object_size
    rotated = augment and random.random() < _ROTATED
    angle = random.uniform(0, 2 * math.pi) if rotated else 0.0
    reach = side * (abs(math.cos(angle)) + abs(math.sin(angle)))  # the square that holds the turned crop
    rows, columns = _choose_area(image, reach / scale, side / scale, random, bare)
    part, labels = _resize(image, rows, columns, scale)
    sample = torch.from_numpy(image.whole.astype(np.float32))
    if augment:
        part, sample = vary_intensity(part, sample, random)
    mean, std = float(sample.mean()), max(float(sample.std()), frame.min_std)
    stacked = torch.cat([(part - mean) / std, torch.ones_like(labels), labels])
    out = turn(stacked, angle, side) if rotated else place(stacked, side, random)
    if augment:
        out = orient(out, random)
    inside, pieces = out[-2] > 0.5, out[-1]
    seen = out[:-2].expand(3, -1, -1) * inside
    kept = (pieces * inside).round().numpy().astype(np.int32)
    return Crop(seen.contiguous(), kept, inside.numpy())


def _choose_area(
    image: TrainingImage, reach: Pair, sides: Pair, random: np.random.Generator, bare: bool
) -> tuple[slice, slice]:
    """Choose rows and columns: around an object, anywhere, or where there are no objects."""
    whole = np.array(image.labels.shape)
    spans = np.minimum(np.ceil(reach), whole).astype(int)

    def around(centre: Pair) -> tuple[slice, slice]:
        start = np.clip(np.rint(centre - spans / 2), 0, whole - spans).astype(int)
        return slice(start[0], start[0] + spans[0]), slice(start[1], start[1] + spans[1])

    if bare:
        places = [around(random.uniform(0, 1, 2) * whole) for _ in range(_TRIES)]
        return min(places, key=lambda place: np.count_nonzero(image.labels[place]))
    if random.random() < _CENTRED:
        centre = image.centres[int(random.integers(len(image.centres)))]
        return around(centre + random.uniform(-0.25, 0.25, 2) * sides)
    return around(random.uniform(0, 1, 2) * whole)


def _resize(image: TrainingImage, rows: slice, columns: slice, scale: Pair) -> tuple[Tensor, Tensor]:
    """Read a part at another scale: its pixels (C, h, w) and its labels (1, h, w), both float32."""
    spans = np.array([rows.stop - rows.start, columns.stop - columns.start])
    size = tuple(np.maximum(np.rint(spans * scale), 1).astype(int).tolist())
    part = torch.from_numpy(image.unit[:, rows, columns].astype(np.float32))[None]
    labels = torch.from_numpy(image.labels[rows, columns].astype(np.float32))[None, None]
    return (
        F.interpolate(part, size, mode="bilinear", antialias=True)[0],
        F.interpolate(labels, size, mode="nearest-exact")[0],
    )


def _noise_crop(side: int, frame: ObjectFrame, random: np.random.Generator) -> Crop:
    unit = draw_noise(side, random)
    standard = torch.from_numpy((unit - unit.mean()) / max(float(unit.std()), frame.min_std))
    nothing = np.zeros((side, side), np.int32)
    return Crop(standard.expand(3, -1, -1).float(), nothing, np.ones((side, side), bool))


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
