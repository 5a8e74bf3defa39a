"""Small pictures of images with their objects outlined."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 200
"""Length in pixels of the longer side."""

_COLOURS = 63  # of the picture; one more for the outlines
_OUTLINE = (0, 255, 140)


def draw_preview(plane: NDArray[Any], labels: NDArray[Any], side: int = SIDE) -> str:
    """Draw an image with its objects outlined, at most so many pixels wide and high.

    Parameters
    ----------
    plane
        (H, W), or (H, W, C): colour, or channels of which the mean is shown.
    labels
        (H, W) integers, 0 is background.
    side
        Length of the longer side.

    Returns
    -------
    preview
        PNG as base64 text, about 20 kB.

    Examples
    --------
    >>> base64.b64decode(draw_preview(np.eye(9), np.eye(9, dtype=int)))[1:4]
    b'PNG'
    """
    from PIL import Image

    height, width = labels.shape
    step = max(1, max(height, width) // (4 * side))
    small = Image.fromarray(_to_rgb(plane[::step, ::step]))
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    resampling = Image.Resampling.BOX if factor < 1 else Image.Resampling.NEAREST
    picture = small.resize(size, resampling).quantize(_COLOURS)
    rows, columns = (
        np.minimum(np.arange(n) * total // n, total - 1)
        for n, total in zip(size[::-1], labels.shape, strict=True)
    )
    pixels = np.asarray(picture).copy()
    pixels[_outline(np.asarray(labels[rows][:, columns]))] = _COLOURS
    palette = (picture.getpalette() or [])[: 3 * _COLOURS]
    palette += [0] * (3 * _COLOURS - len(palette))
    drawn = Image.fromarray(pixels)
    drawn.putpalette([*palette, *_OUTLINE])
    stream = io.BytesIO()
    drawn.save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _to_rgb(plane: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.nan_to_num(np.asarray(plane, np.float32), posinf=0.0, neginf=0.0)
    if values.ndim == 3 and values.shape[-1] != 3:
        values = values.mean(axis=-1)
    if plane.dtype != np.uint8 or values.ndim == 2:  # 8-bit colour is shown as it is
        low, high = np.percentile(values, (0.5, 99.5))
        values = (values - low) * (255 / max(float(high - low), 1e-6))
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1) if grey.ndim == 2 else grey


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of an object beside another one or the background."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return edge & (labels > 0)
