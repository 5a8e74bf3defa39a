"""OME-Zarr label images (OME-NGFF 0.4), with smaller copies for viewers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError
from napari_lightsam.formats.labels import LARGEST_UINT16

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lightsam.formats.objects import Objects

VERSION = "0.4"
"""Of OME-NGFF: the one that Fiji, QuPath, Bio-Formats and napari all read."""

_CHUNK = 1024
_SMALLEST = 512  # copies are halved until both sides are at most this
_KINDS = {"T": "time", "Z": "space", "Y": "space", "X": "space"}


def save_ome_zarr(folder: Path, objects: Objects) -> None:
    """Write a label image into an empty folder that has no name yet.

    The group is both an image and, by its `image-label`, labels; moved to `labels/` of an OME-Zarr image it
    belongs to that. Smaller copies take every second pixel of the last, so that no id is invented.
    """
    import zarr

    labels, axes = objects.labels, objects.axes
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    dtype = "uint16" if int(labels.max()) <= LARGEST_UINT16 else "uint32"
    datasets: list[dict[str, Any]] = []
    factor = 1
    while True:
        level = labels[..., ::factor, ::factor]
        array = group.create_array(
            str(len(datasets)),
            shape=level.shape,
            dtype=dtype,
            chunks=tuple(
                min(n, _CHUNK) if axis in "YX" else 1 for n, axis in zip(level.shape, axes, strict=True)
            ),
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        array[...] = level.astype(dtype)
        scale = [
            size * (factor if axis in "YX" else 1) for size, axis in zip(_sizes(objects), axes, strict=True)
        ]
        datasets.append(
            {"path": array.basename, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
        if max(level.shape[-2:]) <= _SMALLEST:
            break
        factor *= 2
    group.attrs["multiscales"] = [
        {
            "version": VERSION,
            "name": "labels",
            "axes": _axes(objects),
            "datasets": datasets,
            "type": "nearest",
        }
    ]
    group.attrs["image-label"] = {"version": VERSION}


def _sizes(objects: Objects) -> list[float]:
    row, column = objects.pixel_size or (1.0, 1.0)
    sizes = {"Y": row, "X": column, "Z": objects.z_step or 1.0}
    return [sizes.get(axis, 1.0) for axis in objects.axes]


def _axes(objects: Objects) -> list[dict[str, str]]:
    calibrated = ("YX" if objects.pixel_size else "") + ("Z" if objects.z_step else "")
    return [
        {"name": axis.lower(), "type": _KINDS[axis]} | ({"unit": "micrometer"} if axis in calibrated else {})
        for axis in objects.axes
    ]


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a label image of this kind.

    Raises
    ------
    FileError
        There is a file of that name, or a folder that is no OME-Zarr label image.
    """
    if not folder.exists():
        return
    try:
        labels = "image-label" in json.loads((folder / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        labels = False
    if not labels:
        raise FileError(f"{folder} is no OME-Zarr label image and is not replaced. Choose another name.")
