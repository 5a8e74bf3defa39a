"""OME-Zarr label images (OME-NGFF 0.4), with smaller copies for viewers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError
from napari_lightsam.formats.labels import LARGEST_UINT16

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_lightsam.formats.objects import Objects

VERSION = "0.4"
"""Of OME-NGFF: the one that Fiji, QuPath, Bio-Formats and napari all read."""

_CHUNK = 1024
_SMALLEST = 512  # copies are halved until both sides are at most this
_KINDS = {"T": "time", "Z": "space", "Y": "space", "X": "space"}


def save_ome_zarr(folder: Path, objects: Objects) -> None:
    """Write a label image into an empty folder that has no name yet."""
    labels = objects.labels
    dtype = "uint16" if int(labels.max()) <= LARGEST_UINT16 else "uint32"
    arrays = create_levels(
        folder, labels.shape, objects.axes, dtype, pixel_size=objects.pixel_size, z_step=objects.z_step
    )
    for i, array in enumerate(arrays):
        array[...] = labels[..., :: 2**i, :: 2**i].astype(dtype)


def create_levels(
    folder: Path,
    shape: Sequence[int],
    axes: str,
    dtype: str,
    *,
    pixel_size: tuple[float, float] | None = None,
    z_step: float | None = None,
    chunk: int = _CHUNK,
) -> list[Any]:
    """Create an empty label image, in place of whatever zarr group is there.

    The group is both an image and, by its `image-label`, labels; moved to `labels/` of an OME-Zarr image it
    belongs to that.

    Parameters
    ----------
    folder
        Of the group.
    shape, axes, dtype
        Of the label image; see `Objects.axes`.
    pixel_size, z_step
        (row, column) and distance of planes in micrometres, or None.
    chunk
        Side of the chunks in pixels.

    Returns
    -------
    list of zarr arrays
        The label image, and smaller copies for viewers, each to be filled with every second pixel of the
        last, so that no id is invented.
    """
    import zarr

    group = zarr.open_group(folder, mode="w", zarr_format=2)
    arrays: list[Any] = []
    datasets: list[dict[str, Any]] = []
    factor = 1
    while True:
        sides = [-(-n // factor) if axis in "YX" else n for n, axis in zip(shape, axes, strict=True)]
        array = group.create_array(
            str(len(arrays)),
            shape=tuple(sides),
            dtype=dtype,
            chunks=tuple(min(n, chunk) if axis in "YX" else 1 for n, axis in zip(sides, axes, strict=True)),
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        sizes = _sizes(axes, pixel_size, z_step)
        scale = [size * (factor if axis in "YX" else 1) for size, axis in zip(sizes, axes, strict=True)]
        datasets.append(
            {"path": array.basename, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
        arrays.append(array)
        if max(sides[-2:]) <= _SMALLEST:
            break
        factor *= 2
    calibrated = ("YX" if pixel_size else "") + ("Z" if z_step else "")
    group.attrs["multiscales"] = [
        {
            "version": VERSION,
            "name": "labels",
            "axes": _axes(axes, calibrated),
            "datasets": datasets,
            "type": "nearest",
        }
    ]
    group.attrs["image-label"] = {"version": VERSION}
    return arrays


def _sizes(axes: str, pixel_size: tuple[float, float] | None, z_step: float | None) -> list[float]:
    row, column = pixel_size or (1.0, 1.0)
    sizes = {"Y": row, "X": column, "Z": z_step or 1.0}
    return [sizes.get(axis, 1.0) for axis in axes]


def _axes(axes: str, calibrated: str) -> list[dict[str, str]]:
    return [
        {"name": axis.lower(), "type": _KINDS[axis]} | ({"unit": "micrometer"} if axis in calibrated else {})
        for axis in axes
    ]


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a label image of this kind.

    Raises
    ------
    FileError
        There is a file of that name, or a folder that is no OME-Zarr label image.
    """
    if not os.path.exists(folder):
        return
    try:
        labels = "image-label" in json.loads((folder / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        labels = False
    if not labels:
        raise FileError(f"{folder} is no OME-Zarr label image and is not replaced. Choose another name.")
