"""Label images as TIFF files that ImageJ, napari and Python tools open with their calibration."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tifffile

from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.objects import Objects

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

LARGEST_UINT16 = 65_535
"""Labels up to this id are kept in 16 bits, as ImageJ needs them."""


def write_labels(
    path: str | os.PathLike[str],
    labels: NDArray[Any],
    *,
    pixel_size: tuple[float, float] | None = None,
    z_step: float | None = None,
    axes: str = "",
    ome: bool = False,
) -> None:
    """Write a label image, compressed without loss and never half.

    Up to id 65,535 the file is an ImageJ TIFF of 16-bit integers, beyond that an OME-TIFF of 32-bit ones.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    labels
        (H, W), (Z, H, W) or (T, Z, H, W) integers from 0 (background).
    pixel_size
        (row, column) size in micrometres, or `None`.
    z_step
        Distance of planes in micrometres, or `None`.
    axes
        Where it differs from the above: "TYX".
    ome
        Write an OME-TIFF whatever the ids.

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
        save_labels(part, labels, pixel_size=pixel_size, z_step=z_step, axes=axes, ome=ome)


def save_labels(
    path: Path,
    labels: NDArray[Any],
    *,
    pixel_size: tuple[float, float] | None = None,
    z_step: float | None = None,
    axes: str = "",
    ome: bool = False,
) -> None:
    """Write a label image as `write_labels` does, but directly to a file that has no name yet."""
    axes = Objects(labels, axes).axes
    options = _options(axes, int(labels.max()), pixel_size, z_step, ome)
    values = labels.astype(options.pop("dtype"), order="C")
    if options["writer"].get("ome"):  # else the writer makes an identity of time and machine
        options["metadata"]["UUID"] = _identify(values, options["metadata"])
    with tifffile.TiffWriter(path, **options.pop("writer")) as tif:
        tif.write(values, photometric="minisblack", compression="zlib", **options)


def _identify(values: NDArray[Any], metadata: Mapping[str, Any]) -> str:
    """Make an identity that equal label images share."""
    digest = hashlib.sha256(repr((values.shape, str(values.dtype), sorted(metadata.items()))).encode())
    digest.update(values.data)
    return str(uuid.UUID(bytes=digest.digest()[:16], version=5))


def _options(
    axes: str, largest: int, pixel_size: tuple[float, float] | None, z_step: float | None, ome: bool
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": axes}
    dtype = "uint16" if largest <= LARGEST_UINT16 else "uint32"
    if dtype == "uint16" and not ome:
        options: dict[str, Any] = {"writer": {"imagej": True}, "dtype": dtype, "metadata": metadata}
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
    return {"writer": {"ome": True}, "dtype": dtype, "metadata": metadata}
