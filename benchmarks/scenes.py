"""The images that are timed, with their ground truth: real nuclei, enlarged, tiled or set side by side.

All come from one bundled image that no model was trained on, so that quality stands beside speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from scipy import ndimage
from skimage.transform import resize

from napari_lightsam.samples import read_sample
from napari_lightsam.train.metrics import equivalent_diameter

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = "nuclei_fluorescence"
_TRUTH = Path(__file__).resolve().parents[1] / "tests" / "data" / "samples" / f"{SAMPLE}_labels.tif"
_AWAY = 6  # px from every nucleus: background
_SMOOTH = 15.0  # px


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image and what is to be found in it.

    Attributes
    ----------
    name
        For people.
    image
        uint8 or uint16 (H, W).
    labels
        int32 (H, W), 0 for background.
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(np.unique(self.labels[self.labels > 0]))

    @property
    def object_size(self) -> float:
        """Median equivalent diameter in pixels."""
        areas = np.unique(self.labels[self.labels > 0], return_counts=True)[1]
        return float(np.median(equivalent_diameter(areas)))

    def describe(self) -> str:
        """Say what the image is, for the table's notes."""
        height, width = self.labels.shape
        return f"{height} x {width} {self.image.dtype}, {self.count} nuclei of {self.object_size:.0f} px"


@cache
def _sample() -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    return read_sample(SAMPLE), tifffile.imread(_TRUTH).astype(np.int32)


def _enlarged(part: tuple[slice, slice], factor: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    image, labels = _sample()
    image, labels = image[part], labels[part]
    shape = tuple(side * factor for side in image.shape)
    grown = np.rint(resize(image.astype(np.float32), shape, order=1)).astype(np.uint8)
    return grown, labels.repeat(factor, axis=0).repeat(factor, axis=1)


@cache
def cells_1024() -> Scene:
    """Return 1024 x 1024 pixels with about a hundred nuclei of 40-60 px: the sample, enlarged twofold."""
    return Scene("cells_1024", *_enlarged(np.s_[8:520, 184:696], 2))


def large(side: int) -> Scene:
    """Return a plane of `side` x `side` pixels: the scene of 1024, mirrored from tile to tile."""
    scene = cells_1024()
    shape = (side, side)
    return Scene(f"large_{side}", _tiled(scene.image, shape), _distinct(scene.labels, shape))


def _tiled(tile: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Fill a plane with a tile, mirrored so that neighbours meet without a seam."""
    rows, columns = (np.arange(n) % (2 * m) for n, m in zip(shape, tile.shape, strict=True))
    rows = np.minimum(rows, 2 * tile.shape[0] - 1 - rows)
    columns = np.minimum(columns, 2 * tile.shape[1] - 1 - columns)
    return np.asarray(tile[rows[:, None], columns])


@cache
def crowd_256() -> Scene:
    """Return 256 x 256 pixels with thirty nuclei of 40-44 px, cut out of the sample and set side by side.

    Thirty discs of 50 px would cover nine tenths of such an image; no sample is that dense.
    """
    side, rows, columns = 256, 5, 6
    image, truth = _sample()
    values = image[ndimage.distance_transform_edt(truth == 0) > _AWAY]
    random = np.random.default_rng(0)
    noise = random.choice(values[values <= np.percentile(values, 90)], (side // 2, side // 2))
    plane = resize(noise.astype(np.float32), (side, side), order=1)
    labels = np.zeros((side, side), np.int32)
    pitch = side / rows, side / columns
    nuclei = _cut_out(random, pitch)
    for i in range(rows * columns):
        crop, inside = nuclei[i]
        y = int((i // columns + 0.5) * pitch[0] - inside.shape[0] / 2)
        x = int((i % columns + 0.5) * pitch[1] - inside.shape[1] / 2)
        place = np.s_[y : y + inside.shape[0], x : x + inside.shape[1]]
        plane[place][inside] = crop[inside]
        labels[place][inside] = i + 1
    return Scene("crowd_256", np.rint(plane).clip(0, 255).astype(np.uint8), labels)


def _cut_out(
    random: np.random.Generator, cell: tuple[float, float]
) -> list[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Return nuclei, enlarged to 40-44 px, that fit into a cell."""
    image, truth = _sample()
    found = []
    for label, place in enumerate(ndimage.find_objects(truth), start=1):
        if place is None:
            continue
        inside, crop = truth[place] == label, image[place].astype(np.float32)
        if any(s.start == 0 or s.stop == n for s, n in zip(place, truth.shape, strict=True)):
            continue  # cut by the border
        factor = random.uniform(40, 44) / float(equivalent_diameter(np.count_nonzero(inside)))
        if inside.shape[0] < inside.shape[1]:
            inside, crop = inside.T, crop.T
        shape = tuple(round(side * factor) for side in inside.shape)
        if factor < 2.2 and shape[0] <= cell[0] and shape[1] <= cell[1]:
            mask = resize(inside.astype(np.float32), shape, order=1) > 0.5
            found.append((resize(crop, shape, order=1), mask))
    return found


@cache
def field_2048() -> Scene:
    """Return 2048 x 2048 pixels, 16 bit, with two thousand nuclei of 15 px: the sample, tiled and reduced.

    The sample is two and a half times as dense: clumps drawn at random are painted over with the background
    around them before it is reduced.
    """
    side, wanted, diameter = 2048, 2000, 15.0
    image, truth = _sample()
    scale = diameter / Scene("", image, truth).object_size
    native = (round(side / scale),) * 2
    plane, labels = _tiled(image, native).astype(np.float32), _distinct(truth, native)
    nuclei = labels > 0
    clumps, count = ndimage.label(nuclei)
    first = np.unique(labels[nuclei], return_index=True)[1]
    sizes = np.bincount(clumps[nuclei][first], minlength=count + 1)  # nuclei of each clump
    order = np.random.default_rng(0).permutation(count) + 1
    left = sizes.sum() - np.cumsum(sizes[order])
    gone = np.isin(clumps, order[left >= wanted])
    labels[gone] = 0
    gone = ndimage.binary_dilation(gone, iterations=2 * _AWAY)
    gone &= ~ndimage.binary_dilation(labels > 0, iterations=2)
    near = ndimage.binary_dilation(nuclei, iterations=_AWAY)
    plane[gone] = _background(plane, near)[gone]
    reduced = resize(plane, (side, side), order=1, anti_aliasing=True)
    rows = ((np.arange(side) + 0.5) / scale).astype(int).clip(0, native[0] - 1)
    return Scene(
        "field_2048", np.rint(reduced * 257).clip(0, 65535).astype(np.uint16), labels[rows[:, None], rows]
    )


def _background(plane: NDArray[np.float32], nuclei: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Interpolate the background smoothly across nuclei."""
    weight = (~nuclei).astype(np.float32)
    total = ndimage.gaussian_filter(plane * weight, _SMOOTH)
    return np.asarray(total / np.maximum(ndimage.gaussian_filter(weight, _SMOOTH), 1e-6))


def _distinct(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Tile a label image, with ids of their own in every tile."""
    tiled = _tiled(labels, shape)
    tile = np.add.outer(np.arange(shape[0]) // labels.shape[0] * 64, np.arange(shape[1]) // labels.shape[1])
    return np.where(tiled > 0, tiled + tile * (int(labels.max()) + 1), 0).astype(np.int32)
