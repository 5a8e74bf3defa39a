"""Label images as TIFF files that ImageJ, napari and Python tools open with their calibration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tifffile

from napari_lightsam.errors import ImageError
from napari_lightsam.formats.atomic import written_whole

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

_LARGEST_UINT16 = 65_535


def write_labels(
    path: str | os.PathLike[str],
    labels: NDArray[Any],
    *,
    pixel_size: tuple[float, float] | None = None,
    z_step: float | None = None,
) -> None:
    """Write a label image, compressed without loss and never half.

    Up to id 65,535 the file is an ImageJ TIFF of 16-bit integers, beyond that an OME-TIFF of 32-bit ones.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    labels
        (H, W) or (Z, H, W) integers from 0 (background).
    pixel_size
        (row, column) size in micrometres, or `None`.
    z_step
        Distance of planes in micrometres, or `None`.

    Raises
    ------
    ImageError
        Not a label image.
    FileError
        The file cannot be written.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(f"{folder}/a_labels.tif", np.eye(4, dtype="int32"), pixel_size=(0.5, 0.5))
    ...     tifffile.imread(f"{folder}/a_labels.tif").dtype
    dtype('uint16')
    """
    with written_whole(Path(path)) as part:
        save_labels(part, labels, pixel_size=pixel_size, z_step=z_step)


def save_labels(
    path: Path,
    labels: NDArray[Any],
    *,
    pixel_size: tuple[float, float] | None = None,
    z_step: float | None = None,
) -> None:
    """Write a label image as `write_labels` does, but directly to a file that has no name yet."""
    if labels.ndim not in (2, 3) or labels.dtype.kind not in "iu" or labels.size == 0:
        raise ImageError(
            f"Labels are a 2-D or 3-D array of integers; given: shape {labels.shape}, {labels.dtype}."
        )
    if labels.min() < 0:
        raise ImageError(f"Labels start at 0 (background); given: {labels.min()}.")
    axes = "ZYX"[-labels.ndim :]
    options = _options(axes, int(labels.max()), pixel_size, z_step)
    values = labels.astype(options.pop("dtype"))
    with tifffile.TiffWriter(path, **options.pop("writer")) as tif:
        tif.write(values, photometric="minisblack", compression="zlib", **options)


def _options(
    axes: str, largest: int, pixel_size: tuple[float, float] | None, z_step: float | None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes}
    if largest <= _LARGEST_UINT16:
        options: dict[str, Any] = {"writer": {"imagej": True}, "dtype": "uint16", "metadata": metadata}
        # Without a range ImageJ shows 0..65535 and a few hundred objects look black.
        metadata |= {"min": 0.0, "max": float(max(largest, 1))}
        if pixel_size is not None:
            options["resolution"] = (1 / pixel_size[1], 1 / pixel_size[0])
            metadata["unit"] = "um"
            if z_step is not None:
                metadata["spacing"] = z_step
        return options
    for axis, size in zip("YXZ", (*(pixel_size or (None, None)), z_step), strict=True):
        if size is not None:
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    return {"writer": {"ome": True}, "dtype": "uint32", "metadata": metadata}
