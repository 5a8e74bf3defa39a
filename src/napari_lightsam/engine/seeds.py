"""Where objects probably are, by classical means: blobs of about the object size."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.tile import Tile, target_of
from napari_lightsam.model.spec import LOGIT_STRIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.resample import FloatArray

_SIGMAS = (0.25, 0.35)  # of the object diameter; a disc answers most at 0.35
_LEAST = 0.01  # response, on a plane normalised to [0, 1]
_APART = 2  # logits between two maxima of one response


class Blobs(NamedTuple):
    """Blobs of one tile, strongest first.

    Attributes
    ----------
    points
        float (N, 2), (row, column) in image pixels.
    strengths
        float32 (N,), scale-normalised response.
    bright
        bool (N,), brighter than what is around.
    """

    points: NDArray[np.float64]
    strengths: FloatArray
    bright: NDArray[np.bool_]

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Blobs:
        """Return the chosen blobs."""
        return Blobs(self.points[index], self.strengths[index], self.bright[index])


def find_blobs(tile: Tile) -> Blobs:
    """Return a point in each blob of a tile's own part of the plane, bright or dark, strongest first.

    Border objects are found like others, and nothing caps their number. The tiles of a plane together give
    what the whole plane would: the overlap of tiles is wider than the filters.

    Notes
    -----
    Local maxima of the scale-normalised Laplacian of Gaussian, of both signs, at two sizes (Lindeberg,
    *Feature detection with automatic scale selection*, 1998).
    """
    points: list[NDArray[np.intp]] = []
    strengths: list[FloatArray] = []
    bright: list[NDArray[np.bool_]] = []
    for part in _SIGMAS:
        sigma = part * target_of(tile.spec) / LOGIT_STRIDE
        laplacian = -ndimage.gaussian_laplace(tile.grey, sigma) * sigma**2
        for sign in (1, -1):
            response = sign * laplacian
            peaks = response == ndimage.maximum_filter(response, size=2 * _APART + 1)
            found = np.argwhere(peaks & (response > _LEAST))
            points.append(found)
            strengths.append(response[found[:, 0], found[:, 1]])
            bright.append(np.full(len(found), sign > 0))
    strength = np.concatenate(strengths)
    order = np.argsort(-strength, kind="stable")
    at = np.concatenate(points)[order]
    kept = _spread(at, tile.grey.shape)
    blobs = Blobs(
        tile.to_image(at[kept].astype(float)), strength[order][kept], np.concatenate(bright)[order][kept]
    )
    return blobs.take(tile.owns(blobs.points))


def _spread(points: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Return which points do not touch an earlier one."""
    taken = np.zeros(shape, bool)
    kept = []
    for i, (y, x) in enumerate(points):
        if not taken[y, x]:
            taken[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
            kept.append(i)
    return np.asarray(kept, np.intp)
