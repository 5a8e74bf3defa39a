"""Carrying a mask to the neighbouring plane: dense optical flow of the picture around it, no model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.masks import Mask, clean_object, crop_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_lightsam.engine.image import Plane
    from napari_lightsam.engine.resample import FloatArray

SIDE = 160
"""Pixels to which a larger neighbourhood is reduced: motion is smooth, so that large objects cost no more."""

_RADIUS = (
    5  # of the windows in which motion is taken to be one; 10 follows neurites less well, and so does TV-L1
)
_WARPS = 4  # more change nothing between planes that can be followed at all
_MARGIN = 12  # pixels around an object that are looked at, at least
_RIM = 2  # pixels around an object by which it is told whether it is still the same


def carry(mask: Mask, before: Plane, after: Plane) -> tuple[Mask, float]:
    """Move a mask from one plane to the next as the picture around it moves.

    Parameters
    ----------
    mask
        Of the plane `before`; not empty.
    before, after
        Planes of one shape.

    Returns
    -------
    moved : Mask
        One 8-connected object without small holes; empty where nothing is left.
    match : float
        0 to 1: correlation of the moved picture with the plane `after`, on the object and its rim. Low where
        something else has taken the object's place.

    Notes
    -----
    Iterative Lucas-Kanade flow (Le Besnerais and Champagnat 2005, in scikit-image). The edge moves as a
    signed distance, by fractions of a pixel, so that many small steps add up.
    """
    from skimage.registration import optical_flow_ilk

    y0, x0, y1, x1 = region = _around(mask, before.shape)
    step = math.ceil(max(y1 - y0, x1 - x0) / SIDE)
    earlier, later = (_picture(plane, region, step) for plane in (before, after))
    flow_of: Callable[..., Any] = optical_flow_ilk
    flow = np.asarray(flow_of(later, earlier, radius=_RADIUS, num_warp=_WARPS), np.float32)
    inside = np.zeros((y1 - y0, x1 - x0), bool)
    top, left = mask.offset[0] - y0, mask.offset[1] - x0
    inside[top : top + mask.crop.shape[0], left : left + mask.crop.shape[1]] = mask.crop
    rows, columns = np.indices(inside.shape, np.float32)
    shift = [ndimage.map_coordinates(part, [rows / step, columns / step], order=1, mode="nearest") * step
             for part in flow]  # fmt: skip
    distance = signed_distance(inside)
    moved = (
        ndimage.map_coordinates(distance, [rows + shift[0], columns + shift[1]], order=1, mode="nearest") > 0
    )
    if not moved.any():
        return crop_mask(moved), 0.0
    moved = clean_object(moved)
    return crop_mask(moved, (y0, x0)), _match(earlier, later, flow, moved, step)


def signed_distance(inside: NDArray[np.bool_]) -> FloatArray:
    """Return the distance to the edge in pixels: positive inside, negative outside; 0 on the edge itself."""
    framed = np.pad(inside, 1)
    depth = ndimage.distance_transform_edt(framed) - ndimage.distance_transform_edt(~framed)
    return np.asarray(depth[1:-1, 1:-1] - 0.5 * np.sign(depth[1:-1, 1:-1]), np.float32)


def _around(mask: Mask, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the region of a plane that is looked at."""
    y0, x0, y1, x1 = mask.box
    margin = max(_MARGIN, round(0.35 * mask.diameter))
    return max(0, y0 - margin), max(0, x0 - margin), min(shape[0], y1 + margin), min(shape[1], x1 + margin)


def _picture(plane: Plane, region: tuple[int, int, int, int], step: int) -> FloatArray:
    y0, x0, y1, x1 = region
    grey = plane.read((y0, y1), (x0, x1)).mean(axis=0)
    smooth: FloatArray = ndimage.gaussian_filter(grey, max(1.0, step / 2))
    return smooth[::step, ::step]


def _match(
    earlier: FloatArray, later: FloatArray, flow: FloatArray, moved: NDArray[np.bool_], step: int
) -> float:
    """Correlate the moved picture with what is there."""
    rows, columns = np.indices(later.shape, np.float32)
    brought = ndimage.map_coordinates(earlier, [rows + flow[0], columns + flow[1]], order=1, mode="nearest")
    part = ndimage.binary_dilation(moved, iterations=_RIM * step)[::step, ::step]
    a, b = brought[part], later[part]
    spread = float(a.std() * b.std())
    if len(a) < 2 or spread < 1e-9:
        return 0.0
    return float(np.clip(((a - a.mean()) * (b - b.mean())).mean() / spread, 0, 1))
