"""Where objects probably are: classical proposals for object-aware everything mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_lightsam.engine.resample import apply_weights, axis_weights
from napari_lightsam.model.spec import LOGIT_STRIDE, ObjectFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.resample import FloatArray

_SIGMAS = (0.25, 0.35)  # of the object diameter; a disc answers most at 0.35
_LEAST = 0.01  # response, on a plane normalised to [0, 1]
_APART = 2  # logits between two maxima of one response
_ANY_OBJECT = 48.0  # frame pixels, for models that do not follow object size


def propose_points(embedding: Embedding, level: Level, frame: object) -> NDArray[np.float64]:
    """Return a point in each blob of the plane, bright or dark, strongest first.

    Parameters
    ----------
    embedding, level
        The plane and the scale at which objects have the model's target size.
    frame
        The model's preprocessing; an `ObjectFrame` tells that size.

    Returns
    -------
    float (N, 2)
        (row, column) in image pixels. Border objects are proposed like others, and nothing caps N.

    Notes
    -----
    Local maxima of the scale-normalised Laplacian of Gaussian, of both signs, at two sizes (Lindeberg,
    *Feature detection with automatic scale selection*, 1998).
    """
    target = frame.target if isinstance(frame, ObjectFrame) else _ANY_OBJECT
    plane = _at_logits(embedding, level)
    points: list[NDArray[np.intp]] = []
    strengths: list[NDArray[np.float32]] = []
    for part in _SIGMAS:
        sigma = part * target / LOGIT_STRIDE
        blobs = -ndimage.gaussian_laplace(plane, sigma) * sigma**2
        for response in (blobs, -blobs):
            peaks = response == ndimage.maximum_filter(response, size=2 * _APART + 1)
            found = np.argwhere(peaks & (response > _LEAST))
            points.append(found)
            strengths.append(response[found[:, 0], found[:, 1]])
    order = np.argsort(-np.concatenate(strengths), kind="stable")
    chosen = _spread(np.concatenate(points)[order], plane.shape)
    centres = (chosen + 0.5) * LOGIT_STRIDE / np.array(level.scale) - 0.5
    return np.asarray(centres.clip(0, np.array(level.shape) - 1))  # the last logit may reach past the plane


def _at_logits(embedding: Embedding, level: Level) -> FloatArray:
    """Return the plane as grey float32, resized to one pixel a mask logit."""
    rows, columns = (
        axis_weights((0, n), scale / LOGIT_STRIDE, length, antialias=True)
        for n, scale, length in zip(level.logit_shape, level.scale, level.shape, strict=True)
    )
    part = embedding.plane.read((rows.start, rows.stop), (columns.start, columns.stop))
    return np.asarray(apply_weights(part, rows, columns).mean(axis=0), np.float32)


def _spread(points: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.intp]:
    """Keep points that do not touch an earlier one."""
    taken = np.zeros(shape, bool)
    kept = []
    for i, (y, x) in enumerate(points):
        if not taken[y, x]:
            taken[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
            kept.append(i)
    return points[kept]
