"""From any microscopy plane to the numbers a model is fed: checks, normalisation, lazy reading."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_lightsam.engine.given import as_array
from napari_lightsam.engine.resample import AxisWeights, apply_weights
from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FloatArray = NDArray[np.float32]
Limits: TypeAlias = tuple[tuple[float, float], ...]

SAMPLE_TILE = 128
"""Side in pixels of the tiles by which signal is told from background."""

SAMPLE_PIXELS = 4_000_000
"""At most about this many pixels are read to normalise a plane."""

READ_PIXELS = 4_000_000
"""At most about this many pixels are converted to float at once while a plane is resized."""

_CONTRAST_SIDE = 128  # samples along each axis
_CONTRAST_TILES = 4  # along each axis, where samples of a whole part would touch all of a large array
_CONTRAST_SPAN = 1024  # pixels, above which tiles are looked at
_LOW, _HIGH = 1.0, 99.5  # percentiles mapped to 0 and 1
_SIGNAL_SIGMAS = 8.0  # a tile spanning more noise deviations holds signal; blank noise spans 4.9
_AVERAGED = 4  # pixels a side
_FLOOR_SIGMAS = 12.0  # blank noise is never stretched beyond this


class ArrayLike(Protocol):
    """What a plane needs: NumPy, dask and zarr arrays have it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> Any:
        """Kind of numbers."""

    def __getitem__(self, key: Any, /) -> Any: ...


class _Part:
    """A part of an array that is read only where it is asked for: slices of zarr arrays would be copies."""

    def __init__(self, data: ArrayLike, corner: tuple[int, int], size: tuple[int, int]) -> None:
        self._data, self._corner = data, corner
        self.shape, self.dtype = (*size, *data.shape[2:]), data.dtype

    def __getitem__(self, key: Any) -> Any:
        limits = (part.indices(length)[:2] for part, length in zip(key, self.shape[:2], strict=True))
        rows, columns = (
            slice(start + at, stop + at) for (start, stop), at in zip(limits, self._corner, strict=True)
        )
        return self._data[rows, columns]


@dataclass(frozen=True, slots=True)
class Plane:
    """A checked image plane that is normalised while it is read.

    Attributes
    ----------
    data
        (H, W) or (H, W, C); only the parts asked for are read.
    channels
        How many of the last axis' samples are used; 0 for a plane without such an axis.
    colour
        The channels are one colour image (normalised jointly) rather than separate stains.
    limits
        (low, high) mapped to 0 and 1: one pair a channel, or one pair for all.
    mean, std
        Of the normalised plane, over all channels.
    blank
        Nothing in the plane stands out from its noise.
    chosen
        The limits were given, not measured.
    """

    data: ArrayLike
    channels: int
    colour: bool
    limits: Limits
    mean: float
    std: float
    blank: bool
    chosen: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.data.shape[0]), int(self.data.shape[1])

    def read(self, y: tuple[int, int], x: tuple[int, int]) -> FloatArray:
        """Read a part as float32 (1 or 3, h, w) in [0, 1]."""
        part = _channels_first(self.data, y, x, self.channels)
        part = _finite(part, fill=min(low for low, _ in self.limits))
        limits = np.asarray(self.limits, np.float32).reshape(-1, 2, 1, 1)
        unit = _to_unit(part, limits[:, 0], limits[:, 1])
        if len(unit) == 2:  # two stains: the third input sees where either one is
            unit = np.concatenate([unit, unit.max(axis=0, keepdims=True)])
        return unit

    def resized(self, rows: AxisWeights, columns: AxisWeights) -> FloatArray:
        """Return a part of the resized plane as float32 (1 or 3, h, w), reading a bounded piece at a time."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if height * width <= READ_PIXELS:
            return apply_weights(
                self.read((rows.start, rows.stop), (columns.start, columns.stop)), rows, columns
            )
        down = max(1, min(height, READ_PIXELS // min(width, READ_PIXELS)))
        across = max(1, min(width, READ_PIXELS // down))
        out = np.zeros((1 if self.channels <= 1 else 3, len(rows.matrix), len(columns.matrix)), np.float32)
        for y in range(rows.start, rows.stop, down):
            for x in range(columns.start, columns.stop, across):
                some = rows.between(y, y + down), columns.between(x, x + across)
                part = self.read(*((weights.start, weights.stop) for weights in some))
                out += apply_weights(part, *some)
        return out

    def part(self, y: tuple[int, int], x: tuple[int, int]) -> Plane:
        """Return a part as a plane of its own, with the normalisation of the whole."""
        if isinstance(self.data, np.ndarray):
            return replace(self, data=self.data[slice(*y), slice(*x)])
        return replace(self, data=_Part(self.data, (y[0], x[0]), (y[1] - y[0], x[1] - x[0])))

    def contrast(self) -> float:
        """Return the deviation of a coarse subsample: high where there are objects."""
        if max(self.shape) > _CONTRAST_SPAN:
            return self._contrast_of_tiles()
        steps = [max(1, length // _CONTRAST_SIDE) for length in self.shape]
        data = self.data if isinstance(self.data, np.ndarray) else self.data[: self.shape[0], : self.shape[1]]
        thin = replace(self, data=np.asarray(data)[:: steps[0], :: steps[1]])
        return float(thin.read((0, thin.shape[0]), (0, thin.shape[1])).std())

    def _contrast_of_tiles(self) -> float:
        """Return the deviation within and between a few small tiles."""
        side = _CONTRAST_SIDE // _CONTRAST_TILES
        starts = [
            np.linspace(0, max(0, n - side), _CONTRAST_TILES).round().astype(int).tolist() for n in self.shape
        ]
        tiles = [self.read((y, y + side), (x, x + side)).ravel() for y in starts[0] for x in starts[1]]
        return float(np.concatenate(tiles).std())

    def to_uint8(self, y: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return rows `y`, or all, as (h, W, 3) uint8; without given limits uint8 stays as it is."""
        y, x = y or (0, self.shape[0]), (0, self.shape[1])
        if self.data.dtype == np.uint8 and self.channels != 2 and not self.chosen:
            part = _channels_first(self.data, y, x, self.channels)
        else:
            part = np.rint(self.read(y, x) * 255)
        stacked = np.broadcast_to(part.astype(np.uint8), (3, *part.shape[1:]))
        return np.ascontiguousarray(stacked.transpose(1, 2, 0))


def prepare_plane(image: ArrayLike, *, rgb: bool | None = None, limits: Limits | None = None) -> Plane:
    """Check an image plane and find how it is normalised.

    Parameters
    ----------
    image
        (H, W), or (H, W, C) with one to four samples; any real dtype. What a masked array hides is treated
        as background, as NaN is.
    rgb
        The last axis is colour (a fourth sample is alpha and ignored). None means: only when it is
        uint8 with 3 or 4 samples; other samples are stains, each normalised by itself.
    limits
        Use these (low, high) pairs, one a channel or one for all, instead of the data's own.

    Returns
    -------
    Plane

    Raises
    ------
    ImageError
        If the image is empty, complex, of objects, or has another number of axes.

    Notes
    -----
    0 is the median first percentile and 1 the median 99.5th percentile of the tiles that hold signal, so
    that a few bright cells in a large dark field are normalised like many; a plane without signal is not
    stretched. One normalisation serves the whole plane, never a tile.
    """
    image = as_array(image)
    channels, colour = _check(image, rgb)
    if isinstance(image, np.ma.MaskedArray):
        values = np.asarray(image.data).astype(np.float32)
        image = np.where(np.ma.getmaskarray(image), np.float32(np.nan), values)
    if limits is not None:
        _check_limits(limits, max(channels, 1))
    tiles = list(_sample_tiles(image, channels))
    _warn_not_finite(tiles)
    tiles = [_finite(tile) for tile in tiles]
    groups = [tiles]
    if channels > 1 and not colour:
        groups = [[tile[c : c + 1] for tile in tiles] for c in range(channels)]
    grounds = [_measure(group) for group in groups]
    chosen = limits is not None
    if limits is None:
        limits = tuple((ground.low, ground.high) for ground in grounds)
    low, high = np.asarray(limits, np.float32).reshape(-1, 2, 1, 1).transpose(1, 0, 2, 3)
    unit = np.concatenate([_to_unit(tile, low, high).ravel() for tile in tiles])
    blank = all(ground.blank for ground in grounds)
    return Plane(image, channels, colour, limits, float(unit.mean()), float(unit.std()), blank, chosen)


def _check_limits(limits: Limits, channels: int) -> None:
    if len(limits) not in (1, channels) or any(not -np.inf < low < high < np.inf for low, high in limits):
        raise ImageError(
            f"Normalisation limits {limits} do not fit {channels} channel(s): give one (low, high) pair, or "
            "one a channel, each with low < high."
        )


def _check(image: ArrayLike, rgb: bool | None) -> tuple[int, bool]:
    """Return the number of used samples (0 without such an axis) and whether they are colour."""
    shape, dtype = tuple(image.shape), np.dtype(image.dtype)
    if dtype.kind not in "buif":
        raise ImageError(f"An image of {dtype} cannot be segmented; give integers, floats or bool.")
    if len(shape) not in (2, 3):
        advice = " Choose a plane of it first, such as image[0]." if len(shape) > 3 else ""
        raise ImageError(
            f"One plane is needed, (height, width) or (height, width, channels); this array has "
            f"{len(shape)} axes, {shape}.{advice}"
        )
    if min(shape) == 0:
        raise ImageError(f"The image is empty: its shape is {shape}.")
    if len(shape) == 2:
        if rgb:
            raise ImageError(f"A colour image needs a last axis of 3 or 4 samples; this one is {shape}.")
        return 0, False
    samples = shape[2]
    if samples > 4:
        raise ImageError(
            f"The last axis has {samples} samples, at most 4 are understood. If {shape} is a stack, choose "
            "one plane of it; if it holds channels, choose one to three of them."
        )
    if rgb and samples < 3:
        raise ImageError(f"A colour image needs 3 or 4 samples in its last axis; this one is {shape}.")
    if rgb or (rgb is None and dtype == np.uint8 and samples >= 3):
        return 3, True
    if samples == 4:
        tell(
            "Of four channels the first three are used; choose one to three, or say rgb=True if the "
            "fourth is transparency.",
            stacklevel=4,
        )
    return min(samples, 3), False


def _channels_first(data: ArrayLike, y: tuple[int, int], x: tuple[int, int], channels: int) -> FloatArray:
    try:
        part = np.asarray(data[slice(*y), slice(*x)])
    except Exception as error:
        raise ImageError(
            f"The image could not be read at rows {y[0]}:{y[1]}, columns {x[0]}:{x[1]} "
            f"({type(error).__name__}: {error}). Check the file or array that it comes from."
        ) from error
    part = part[None] if channels == 0 else part[..., :channels].transpose(2, 0, 1)
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, which is tolerated like inf
        return part.astype(np.float32)


def _sample_tiles(image: ArrayLike, channels: int) -> Iterator[FloatArray]:
    """Yield tiles (C, h, w) of a regular grid: all of a small image, a bounded sample of a large one."""
    height, width = image.shape[:2]
    rows, columns = max(1, round(height / SAMPLE_TILE)), max(1, round(width / SAMPLE_TILE))
    tiles = rows * columns
    wanted = max(1, SAMPLE_PIXELS // SAMPLE_TILE**2)
    chosen = np.unique(np.linspace(0, tiles - 1, min(tiles, wanted)).round().astype(int))
    y = np.linspace(0, height, rows + 1).round().astype(int)
    x = np.linspace(0, width, columns + 1).round().astype(int)
    for index in chosen:
        r, c = divmod(int(index), columns)
        yield _channels_first(image, (y[r], y[r + 1]), (x[c], x[c + 1]), channels)


def _warn_not_finite(tiles: Sequence[FloatArray]) -> None:
    bad = sum(int(np.count_nonzero(~np.isfinite(tile))) for tile in tiles)
    if bad:
        total = sum(tile.size for tile in tiles)
        tell(
            f"{bad} of {total} sampled values are NaN or infinite; they are treated as background.",
            stacklevel=3,
        )


def _finite(part: FloatArray, fill: float | None = None) -> FloatArray:
    """Replace NaN and infinities by `fill`, or by the lowest finite value (0 when there is none)."""
    good = np.isfinite(part)
    if good.all():
        return part
    if fill is None:
        fill = float(part[good].min()) if good.any() else 0.0
    return np.where(good, part, np.float32(fill))


def _to_unit(part: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    span = np.where(high > low, high - low, np.float32(np.inf))
    return np.asarray(((part - low) / span).clip(0, 1), np.float32)


class _Ground(NamedTuple):
    """Values that become 0 and 1, and whether nothing stands out from the noise."""

    low: float
    high: float
    blank: bool


def _measure(tiles: Sequence[FloatArray]) -> _Ground:
    percentiles = np.array([np.percentile(tile, [_LOW, _HIGH]) for tile in tiles])
    noise = float(np.median([_noise_sigma(tile) for tile in tiles]))
    # Averaging weakens noise but not objects: dim ones stand out from it even where single pixels do not.
    averaged = np.array([np.ptp(np.percentile(_average(tile), [_LOW, _HIGH])) for tile in tiles])
    spans = np.maximum(percentiles[:, 1] - percentiles[:, 0], averaged * _AVERAGED)
    signal = spans > _SIGNAL_SIGMAS * noise
    if signal.any():
        percentiles = percentiles[signal]
    low, high = np.median(percentiles, axis=0)
    if high <= low and noise == 0:  # one small object on an even ground is less than half a percent of it
        low, high = min(tile.min() for tile in tiles), max(tile.max() for tile in tiles)
    blank = not (signal.any() or (noise == 0 and high > low))
    return _Ground(float(low), float(max(high, low + _FLOOR_SIGMAS * noise)), blank)


def _average(tile: FloatArray) -> FloatArray:
    """Return means of squares of `_AVERAGED` pixels a side."""
    n = _AVERAGED
    height, width = tile.shape[-2] // n * n, tile.shape[-1] // n * n
    if not height or not width:
        return np.asarray(tile / n, np.float32)
    squares = tile[:, :height, :width].reshape(len(tile), height // n, n, width // n, n)
    return np.asarray(squares.mean(axis=(2, 4)), np.float32)


def _noise_sigma(tile: FloatArray) -> float:
    """Estimate the noise deviation of a tile.

    References
    ----------
    Immerkaer, *Fast noise variance estimation*, 1996; the median makes it blind to edges.
    """
    if min(tile.shape[-2:]) < 3:
        return 0.0
    kernel = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float32)[None]
    response = ndimage.convolve(tile, kernel, mode="nearest")[..., 1:-1, 1:-1]
    level = np.abs(response)
    # Few counts or coarse steps of grey: half of the responses are 0 and the median tells nothing.
    return float(np.median(level) / 0.6745 / 6) or float(np.sqrt(np.mean(level**2)) / 6)
