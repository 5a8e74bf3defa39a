"""From files of objects to files of objects: label images, ROIs and GeoJSON in, every format out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.export import FORMATS, check_formats, export_objects
from napari_lightsam.formats.filling import MOST_PIXELS
from napari_lightsam.formats.guard import protect_inputs, refuse_clashes, refuse_existing
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.sidecar import read_record

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.formats.images import ImageFile

_MEASURED = ("csv", "geojson")
_WITH_NUCLEI = ("geojson",)


def read_objects(path: str | os.PathLike[str]) -> Objects:
    """Read objects from a file of any kind.

    Parameters
    ----------
    path
        A label image (TIFF, PNG, BMP, OME-Zarr), ImageJ ROIs (`.zip`, `.roi`) or GeoJSON (`.geojson`).

    Raises
    ------
    FileError
        The file cannot be read, or its image is in colour.
    ImageError
        The image is no label image.
    """
    path = Path(path)
    suffix = path.suffix.casefold()
    if suffix in (".zip", ".roi"):
        from napari_lightsam.formats.roi import read_rois

        return replace(read_rois(path), name=_image_name(path))
    if suffix == ".geojson":
        from napari_lightsam.formats.geojson import read_geojson

        return replace(read_geojson(path), name=_image_name(path))
    from napari_lightsam.formats.images import read_image

    return _from_image(read_image(path))


def _from_image(image: ImageFile) -> Objects:
    if "S" in image.axes:
        raise FileError(f"{image.path} is a colour picture, no label image: labels are one number per pixel.")
    keep = [i for i, (a, n) in enumerate(zip(image.axes, image.shape, strict=True)) if a in "YX" or n > 1]
    axes = "".join(image.axes[i] for i in keep)
    axes = axes.replace("Q", "Z") if axes.count("Q") == 1 and "Z" not in axes else axes
    if math.prod(image.shape) > MOST_PIXELS:
        raise FileError(
            f"{image.path} has {math.prod(image.shape):,} pixels; at most {MOST_PIXELS:,} are read."
        )
    data = image.read().reshape([image.shape[i] for i in keep])
    return Objects(data, axes, image.pixel_size, image.z_step, name=_image_name(Path(image.path)))


def _image_name(path: Path) -> str:
    """Name the image of some objects, where the record of a batch tells it; else their own file."""
    try:
        record = read_record(path.with_name(f"{find_stem(path)}_labels.json"))
    except FileError:
        return path.name
    return record.input if path.name in record.outputs else path.name


def find_stem(path: Path) -> str:
    """Name of the image that a file of objects belongs to: without the ending that its format gave it.

    Examples
    --------
    >>> find_stem(Path("a_labels.ome.tif")), find_stem(Path("mask.tif"))
    ('a', 'mask')
    """
    for format_ in FORMATS.values():
        if path.name.endswith(format_.ending) and path.name != format_.ending:
            return path.name.removesuffix(format_.ending)
    stem = path.stem
    return stem[:-4] if stem.casefold().endswith(".ome") else stem


def convert_files(
    inputs: Iterable[str | os.PathLike[str]],
    formats: Iterable[str],
    out: str | os.PathLike[str] | None = None,
    *,
    nuclei: str | os.PathLike[str] | None = None,
    pixel_size: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Work[tuple[Path, ...]]:
    """Write files of objects in other formats; a generator of `Progress` that returns the outputs.

    Parameters
    ----------
    inputs
        As for `read_objects`.
    formats
        Names in `formats.export.FORMATS`.
    out
        Folder; None: beside each input.
    nuclei
        Label image of the nuclei, where the input holds their cells.
    pixel_size
        (row, column) in micrometres instead of what the file says.
    overwrite
        Replace outputs that are there. Inputs are never written.

    Raises
    ------
    ConfigError
        Before any work: two outputs of one name, an output that is an input, or that is there already.
    FileError, ImageError
        An input cannot be read, or an output not be written.

    Warns
    -----
    LightSamWarning
        An input holds nuclei that a format cannot hold.
    """
    formats = check_formats(formats)
    sources = [Path(path) for path in inputs]
    if nuclei is not None and len(sources) != 1:
        raise ConfigError(f"Nuclei belong to one file of cells; {len(sources)} were given.")
    bases = [(source.parent if out is None else Path(out)) / find_stem(source) for source in sources]
    guarded = [*sources, *([Path(nuclei)] if nuclei is not None else [])]
    outputs = [(source, FORMATS[name].output(base)) for source, base in zip(sources, bases, strict=True)
               for name in formats]  # fmt: skip
    refuse_clashes(outputs, "Rename one.")
    protect_inputs(guarded, [output for _, output in outputs])
    if not overwrite:
        refuse_existing(output for _, output in outputs)
    written: list[Path] = []
    for i, (source, base) in enumerate(zip(sources, bases, strict=True)):
        yield Progress(f"{source.name}: reading", i, len(sources))
        changes: dict[str, Any] = {}
        if nuclei is not None:
            changes["nuclei"] = read_objects(nuclei).labels
        if pixel_size is not None:
            changes["pixel_size"] = pixel_size
        objects = replace(read_objects(source), **changes)
        _say_what_is_lost(source, objects, formats)
        if any(name in _MEASURED for name in formats):
            yield Progress(f"{source.name}: measuring the objects", i, len(sources))
            objects = replace(objects, table=objects.measured())
        yield Progress(f"{source.name}: writing", i, len(sources))
        written += export_objects(base, objects, formats)
    return tuple(written)


def _say_what_is_lost(source: Path, objects: Objects, formats: tuple[str, ...]) -> None:
    without = [name for name in formats if name not in _WITH_NUCLEI]
    if objects.nuclei is not None and without:
        tell(
            f"{source} holds cells with nuclei; {', '.join(without)} holds the cells alone, only "
            f"{', '.join(_WITH_NUCLEI)} both.",
            stacklevel=3,
        )
