"""Small pictures of images with their objects outlined."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.formats.overlay import to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 200
"""Length in pixels of the longer side."""

_WHITE = 99.5  # percentile; pictures that are small need no more contrast than that
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
    small = Image.fromarray(to_rgb(plane[::step, ::step], _WHITE))
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


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of an object beside another one or the background."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:-1] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    return edge & (labels > 0)
