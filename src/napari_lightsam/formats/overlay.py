"""A picture that shows at a glance what was segmented: the image with every object outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SMALL = 1024  # images are enlarged towards this side, so that outlines do not hide small objects
_GOLDEN = 0.61803398875  # neighbouring ids get far hues


def draw_overlay(image: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw the outline of every object in a colour of its own over the image.

    Parameters
    ----------
    image
        (H, W), (H, W, 3) or any other number of channels, which are shown as their mean; any real dtype.
    labels
        (H, W) integers, 0 is background.

    Returns
    -------
    overlay
        (f * H, f * W, 3) uint8; the factor f is 1, or more for images under 1,024 pixels.

    Raises
    ------
    ImageError
        Image and labels differ in size.
    """
    _check_shapes(image, labels)
    factor = _factor(image.shape)
    canvas = _enlarge(to_rgb(image), factor)
    large = _enlarge(labels, factor)
    outline = _outline(large)
    canvas[outline] = _colours(large[outline])
    return canvas


def draw_outlines(
    image: NDArray[Any], outlines: Sequence[tuple[NDArray[Any], tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    """Draw the outlines of several label images over one image, all objects of each in one colour.

    Where outlines fall on each other their colours are joined: magenta and green give white.

    Parameters
    ----------
    image
        As for `draw_overlay`.
    outlines
        Label images (H, W), each with its colour as (red, green, blue), 0 to 255.

    Returns
    -------
    overlay
        As for `draw_overlay`.

    Raises
    ------
    ImageError
        Image and labels differ in size.

    Examples
    --------
    >>> import numpy as np
    >>> square = np.pad(np.ones((4, 4), int), 2)
    >>> drawn = draw_outlines(np.zeros((8, 8)), [(square, (255, 0, 255)), (square, (0, 255, 0))])
    >>> drawn.shape, drawn.max(axis=(0, 1)).tolist()
    ((32, 32, 3), [255, 255, 255])
    """
    for labels, _ in outlines:
        _check_shapes(image, labels)
    factor = _factor(image.shape)
    canvas = _enlarge(to_rgb(image), factor)
    colours = np.zeros(canvas.shape, np.uint8)
    drawn = np.zeros(canvas.shape[:2], bool)
    for labels, colour in outlines:
        outline = _outline(_enlarge(labels, factor))
        colours[outline] |= np.array(colour, np.uint8)
        drawn |= outline
    canvas[drawn] = colours[drawn]
    return canvas


def save_overlay(path: Path, image: NDArray[Any], labels: NDArray[Any]) -> None:
    """Write `draw_overlay` as PNG to a file that has no name yet."""
    from PIL import Image

    Image.fromarray(draw_overlay(image, labels)).save(path, format="PNG")


def _check_shapes(image: NDArray[Any], labels: NDArray[Any]) -> None:
    if image.shape[:2] != labels.shape or image.ndim not in (2, 3):
        raise ImageError(f"The image has shape {image.shape}, the labels {labels.shape}: they do not fit.")


def _factor(shape: tuple[int, ...]) -> int:
    return int(np.clip(_SMALL // max(shape[:2]), 1, 4))


def to_rgb(image: NDArray[Any], highest: float = 99.0) -> NDArray[np.uint8]:
    """Make a plane a picture.

    Parameters
    ----------
    image
        As for `draw_overlay`.
    highest
        Percentile of the values that is white, black being the lowest 0.5 percent; 8-bit colour is shown as
        it is.

    Returns
    -------
    picture
        (H, W, 3) uint8, a new array.

    Examples
    --------
    >>> to_rgb(np.array([[0, 1000]], "uint16"))[..., 0].tolist()
    [[0, 255]]
    """
    values = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    if values.ndim == 3 and values.shape[-1] != 3:
        values = values.mean(axis=-1)
    if image.dtype != np.uint8 or values.ndim == 2:
        low, high = np.percentile(values, (0.5, highest))
        values = (values - low) * (255 / max(float(high - low), 1e-6))
    grey = np.clip(values, 0, 255).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1) if grey.ndim == 2 else grey


def _enlarge(array: NDArray[Any], factor: int) -> NDArray[Any]:
    return array.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else array


def _outline(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of an object within two pixels of its edge; the plane's edge counts as one."""
    padded = np.pad(labels, 2)
    height, width = labels.shape
    outline = np.zeros(labels.shape, bool)
    for dy, dx in ((0, 1), (0, 2), (1, 0), (2, 0), (1, 1), (1, -1)):
        for sign in (1, -1):
            y, x = 2 + sign * dy, 2 + sign * dx
            outline |= padded[y : y + height, x : x + width] != labels
    return outline & (labels > 0)


def _colours(ids: NDArray[Any]) -> NDArray[np.uint8]:
    """Bright saturated colours: hue by golden-ratio steps, three values rising and falling in turn."""
    hue = (ids.astype(np.float64) * _GOLDEN) % 1.0
    wave = (np.stack([hue, hue + 1 / 3, hue + 2 / 3], axis=-1) * 6) % 6
    colours: NDArray[np.uint8] = (np.clip(np.abs(wave - 3) - 1, 0, 1) * 200 + 55).astype(np.uint8)
    return colours
