"""What callers give: arrays of several libraries, sizes and models, in one form or refused in words."""

from __future__ import annotations

import numbers
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import ConfigError, ImageError, PromptError

if TYPE_CHECKING:
    from napari_lightsam.engine.image import ArrayLike
    from napari_lightsam.engine.segmenter import Segmenter


def as_array(given: Any) -> ArrayLike:
    """Return an array as it is where NumPy knows its kind of numbers, else as a NumPy array.

    Parameters
    ----------
    given
        An array that is read by slices, or a tensor in memory.

    Raises
    ------
    ImageError
        It is no array, cannot be one of NumPy's, or does not know its shape.

    Examples
    --------
    >>> import torch
    >>> type(as_array(torch.zeros(2, 2))).__name__
    'ndarray'
    """
    if isinstance(given, str | os.PathLike):
        raise ImageError(
            f"An array is needed; got the path {os.fspath(given)!r}. Read it first, for instance by "
            "read_image of napari_lightsam.formats.images."
        )
    if not hasattr(given, "shape") or not hasattr(given, "dtype"):
        advice = "Choose one of its arrays" if hasattr(given, "keys") else "Use numpy.asarray(...) on it"
        raise ImageError(f"An array is needed; got {type(given).__name__}. {advice}.")
    array: ArrayLike = given
    try:
        np.dtype(given.dtype)
    except TypeError:  # a tensor: its kinds of numbers are no NumPy ones
        try:
            array = np.asarray(given)
        except (TypeError, RuntimeError, ValueError) as error:
            raise ImageError(
                f"An array of NumPy is needed; {type(given).__name__} of {given.dtype} cannot be made one "
                f"({error}). Of a tensor of PyTorch give tensor.detach().cpu().float().numpy()."
            ) from None
    if any(length != length for length in array.shape):
        raise ImageError(
            f"The array does not know its own shape, {tuple(array.shape)}. Call its compute_chunk_sizes() "
            "first."
        )
    return array


def as_segmenter(given: str | os.PathLike[str] | Segmenter) -> Segmenter:
    """Return a loaded model, loading it where its name or path is given.

    Raises
    ------
    ConfigError
        It is none of these.
    WeightsError, DeviceError
        As of `load_segmenter`.
    """
    from napari_lightsam.engine.segmenter import load_segmenter

    if isinstance(given, str | os.PathLike):
        return load_segmenter(given)
    if not hasattr(given, "spec"):
        raise ConfigError(
            "model is the name of a model, the path of a checkpoint, or what load_segmenter returns; got "
            f"{type(given).__name__}."
        )
    return given


def check_size(object_size: Any) -> None:
    """Make sure that an object size is a length, or None.

    Raises
    ------
    PromptError
        It is not.
    """
    if object_size is None:
        return
    if not isinstance(object_size, numbers.Real) or not 0 < float(object_size) < np.inf:
        raise PromptError(
            f"object_size must be a positive number of pixels; got {object_size!r}. Other units are turned "
            "into pixels by in_pixels of napari_lightsam.engine.config."
        )
