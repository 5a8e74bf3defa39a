"""Saves Labels layers in the formats of other programs, from napari's own save dialog."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError, ImageError
from napari_lightsam.formats.export import FORMATS, write_objects
from napari_lightsam.formats.objects import Objects
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, AxisRole, micrometres, role_from_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Meta = Mapping[str, Any]

_LETTERS = {AxisRole.DEPTH: "Z", AxisRole.TIME: "T", AxisRole.CHANNEL: "C"}


def write_tiff(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as ImageJ TIFF with its calibration."""
    return _write("tiff", path, layer_objects(data, meta))


def write_ome_tiff(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as OME-TIFF."""
    return _write("ome-tiff", path, layer_objects(data, meta))


def write_ome_zarr(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as OME-Zarr labels."""
    return _write("ome-zarr", path, layer_objects(data, meta))


def write_rois(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as a zip of ImageJ ROIs."""
    return _write("roi", path, layer_objects(data, meta))


def write_geojson(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as QuPath detections."""
    return _write("geojson", path, layer_objects(data, meta))


def write_coco(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a Labels layer as COCO JSON."""
    return _write("coco", path, layer_objects(data, meta))


def write_csv(path: str, data: Any, meta: Meta) -> list[str]:
    """Write a table of a Labels layer's objects."""
    return _write("csv", path, layer_objects(data, {**meta, "features": None}))


WRITERS = {
    "tiff": write_tiff,
    "ome-tiff": write_ome_tiff,
    "ome-zarr": write_ome_zarr,
    "roi": write_rois,
    "geojson": write_geojson,
    "coco": write_coco,
    "csv": write_csv,
}
"""What writes one Labels layer, by name of the format."""


def write_cells(path: str, layer_data: Sequence[tuple[Any, Meta, str]]) -> list[str]:
    """Write two Labels layers as QuPath cells with nuclei; the layer that covers less is that of the nuclei.

    Raises
    ------
    ImageError
        The layers differ in shape.
    """
    layers = [layer_objects(data, meta) for data, meta, _ in layer_data]
    nuclei, cells = sorted(layers, key=lambda objects: int(np.count_nonzero(objects.labels)))
    pair = Objects(
        cells.labels, cells.axes, cells.pixel_size, cells.z_step,
        table=cells.table, nuclei=nuclei.labels, name=cells.name, origin=cells.origin,
    )  # fmt: skip
    return _write("geojson", path, pair)


def _write(name: str, path: str, objects: Objects) -> list[str]:
    """Write in one format; a path that does not end as that format does gets its ending.

    Raises
    ------
    FileError
        There is a file of the longer name already: napari asked about the shorter one only.
    """
    format_ = FORMATS[name]
    if not path.casefold().endswith(format_.suffixes):
        path += format_.suffixes[0]
        if Path(path).exists():
            raise FileError(f"{path} is there already. To replace it, choose it by its whole name.")
    write_objects(path, objects, name)
    return [path]


def layer_objects(data: Any, meta: Meta) -> Objects:
    """Take what files need to know from a Labels layer.

    Parameters
    ----------
    data, meta
        As in napari's layer data: an array, or a list of them where `meta["multiscale"]` says so.

    Returns
    -------
    Objects
        Axes by the layer's axis labels; without them, three are depth, row and column. Axes of length one are
        dropped. The pixel size in micrometres where the layer's units are lengths, and its features as table
        where they have a unique numeric `index`. Coordinates are pixels of the image: those of the layer, but
        for the labels of a work region.

    Raises
    ------
    ImageError
        Axes other than time, depth, row and column.
    """
    labels = np.asarray(data[0] if meta.get("multiscale") else data)
    letters = _letters(meta.get("axis_labels") or (), labels.shape)
    kept = [i for i in range(labels.ndim) if i >= labels.ndim - 2 or labels.shape[i] > 1]
    axes = "".join(axis for axis in "TZCYX" if axis in {letters[i] for i in kept})
    order = sorted(kept, key=lambda i: "TZCYX".index(letters[i]))
    squeezed: NDArray[Any] = labels.transpose([*(i for i in range(labels.ndim) if i not in kept), *order])
    squeezed = squeezed.reshape([labels.shape[i] for i in order])
    sizes = _sizes(meta, labels.ndim, letters)
    pixel_size = (sizes["Y"], sizes["X"]) if "Y" in sizes and "X" in sizes else None
    return Objects(
        squeezed, axes, pixel_size, sizes.get("Z"),
        table=_table(meta), name=str(meta.get("name") or ""), origin=_origin(meta, labels.shape),
    )  # fmt: skip


def _origin(meta: Meta, shape: Sequence[int]) -> tuple[int, int]:
    """Return where in its image a layer begins that holds a work region."""
    region = (meta.get("metadata") or {}).get(METADATA_KEY, {}).get("region")
    if region is None:
        return 0, 0
    y0, x0, y1, x1 = (int(side) for side in region)
    covered = y1 - y0 in shape and x1 - x0 in shape  # else what a run of an early version was about
    return (y0, x0) if covered else (0, 0)


def _letters(labels: Sequence[str], shape: Sequence[int]) -> str:
    """Letter of every axis, those that no label names in the usual order."""
    if len(shape) < 2:
        raise ImageError(f"Labels have rows and columns; this layer has the shape {tuple(shape)}.")
    names = [*labels, *[""] * len(shape)][: len(shape)]
    roles = [role_from_label(name) for name in names]
    letters = [_LETTERS.get(role, "") for role in roles]
    letters[-2:] = "Y", "X"
    free = [axis for axis in "TZ" if axis not in letters]
    for i in reversed(range(len(letters))):
        if not letters[i] and shape[i] > 1 and free:
            letters[i] = free.pop()
    wrong = [
        i
        for i, letter in enumerate(letters)
        if shape[i] > 1
        and (not letter or letters.index(letter) != i or (roles[i] is AxisRole.PLANE and i < len(shape) - 2))
    ]
    if wrong:
        raise ImageError(
            "Labels have the axes time, depth, row and column, the last two at the end; this layer has the "
            f"shape {tuple(shape)} and the axis labels {', '.join(map(repr, names))}. Save a plane or stack."
        )
    return "".join(letter or "C" for letter in letters)


def _sizes(meta: Meta, ndim: int, letters: str) -> dict[str, float]:
    """Micrometres per step of every axis whose unit is a length."""
    import pint

    registry: Callable[[], Any] = pint.get_application_registry
    sizes: dict[str, float] = {}
    units, scale = meta.get("units"), meta.get("scale")
    if units is None or scale is None:
        return sizes
    units = [units] * ndim if isinstance(units, (str, pint.Unit)) else list(units)
    for letter, unit, step in zip(letters, units, scale, strict=False):
        length = micrometres(registry().Unit(str(unit)), float(step))
        if length is not None and length > 0:
            sizes[letter] = length
    return sizes


def _table(meta: Meta) -> pd.DataFrame | None:
    features: pd.DataFrame | None = meta.get("features")
    if features is None or "index" not in features:
        return None
    index = features["index"]
    if not index.is_unique or index.dtype.kind not in "iuf":
        return None
    return features[features["index"] > 0].rename(columns={"index": "label"})
