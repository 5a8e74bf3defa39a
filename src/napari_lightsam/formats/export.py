"""The formats that objects are written in: their names, file name endings and writers, in one table."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.atomic import folder_written_whole, written_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from napari_lightsam.formats.objects import Objects


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write objects.

    Attributes
    ----------
    name
        As on the command line.
    ending
        What a file of it is called, behind the stem of the image.
    suffixes
        File name endings by which a path given in full is recognised.
    title
        For people; also what napari's save dialog calls it.
    save
        Writes `Objects` to a path that has no name yet.
    folder
        The output is a folder.
    """

    name: str
    ending: str
    suffixes: tuple[str, ...]
    title: str
    save: Callable[[Path, Objects], None]
    folder: bool = False

    def output(self, base: Path) -> Path:
        """Name the output that belongs to a folder and stem."""
        return base.with_name(base.name + self.ending)

    @contextmanager
    def written(self, path: Path, objects: Objects) -> Iterator[Path]:
        """Write to a temporary path beside `path`, which takes that name when the block ends well.

        Raises
        ------
        FileError
            The file system refuses, or a folder is in the way that is none of ours.
        """
        if self.folder:
            from napari_lightsam.formats.ome_zarr import check_replaceable

            check_replaceable(path)
        with (folder_written_whole if self.folder else written_whole)(path) as part:
            self.save(part, objects)
            yield part


def _tiff(path: Path, objects: Objects) -> None:
    _save_tiff(path, objects, ome=False)


def _ome_tiff(path: Path, objects: Objects) -> None:
    _save_tiff(path, objects, ome=True)


def _save_tiff(path: Path, objects: Objects, *, ome: bool) -> None:
    from napari_lightsam.formats.labels import save_labels

    save_labels(
        path, objects.labels, pixel_size=objects.pixel_size, z_step=objects.z_step, axes=objects.axes, ome=ome
    )


def _ome_zarr(path: Path, objects: Objects) -> None:
    from napari_lightsam.formats.ome_zarr import save_ome_zarr

    save_ome_zarr(path, objects)


def _rois(path: Path, objects: Objects) -> None:
    from napari_lightsam.formats.roi import save_rois

    save_rois(path, objects)


def _geojson(path: Path, objects: Objects) -> None:
    from napari_lightsam.formats.geojson import save_geojson

    save_geojson(path, objects)


def _coco(path: Path, objects: Objects) -> None:
    from napari_lightsam.formats.coco import save_coco

    save_coco(path, objects)


def _csv(path: Path, objects: Objects) -> None:
    objects.measured().to_csv(path, index=False, lineterminator="\n")


FORMATS = {
    f.name: f
    for f in (
        Format("tiff", "_labels.tif", (".tif", ".tiff"), "ImageJ TIFF, calibrated", _tiff),
        Format("ome-tiff", "_labels.ome.tif", (".ome.tif", ".ome.tiff"), "OME-TIFF", _ome_tiff),
        Format(
            "ome-zarr",
            "_labels.ome.zarr",
            (".ome.zarr", ".zarr"),
            "OME-Zarr",
            _ome_zarr,
            folder=True,
        ),
        Format("roi", "_rois.zip", (".zip",), "ImageJ ROIs", _rois),
        Format("geojson", "_objects.geojson", (".geojson",), "QuPath GeoJSON", _geojson),
        Format("coco", "_coco.json", (".json",), "COCO JSON", _coco),
        Format("csv", "_objects.csv", (".csv",), "Table of measurements", _csv),
    )
}
"""All formats by name."""


def parse_formats(text: str) -> tuple[str, ...]:
    """Read names of formats from a list with commas; each once, in the order given.

    Raises
    ------
    ConfigError
        A name is not known, or there is none.

    Examples
    --------
    >>> parse_formats("roi, geojson,roi")
    ('roi', 'geojson')
    """
    names = tuple(dict.fromkeys(part.strip().casefold() for part in text.split(",") if part.strip()))
    return check_formats(names)


def check_formats(names: Iterable[str]) -> tuple[str, ...]:
    """Refuse names of formats that are not known.

    Raises
    ------
    ConfigError
        A name is not known, or there is none.
    """
    names = tuple(names)
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        given = f"no format is called {', '.join(map(repr, unknown))}" if unknown else "no format was given"
        raise ConfigError(f"{given[0].upper()}{given[1:]}. Formats are {', '.join(FORMATS)}.")
    return names


def find_format(path: str | os.PathLike[str]) -> Format:
    """Find the format that a file name stands for.

    Raises
    ------
    ConfigError
        Its ending is that of no format.

    Examples
    --------
    >>> find_format("cells.ome.tif").name, find_format("cells.zip").name
    ('ome-tiff', 'roi')
    """
    name = Path(path).name.casefold()
    fitting = [(len(s), f) for f in FORMATS.values() for s in f.suffixes if name.endswith(s)]
    if not fitting:
        endings = ", ".join(s for f in FORMATS.values() for s in f.suffixes)
        raise ConfigError(f"{path} does not say its format. Endings are {endings}.")
    return max(fitting, key=lambda pair: pair[0])[1]


def write_objects(path: str | os.PathLike[str], objects: Objects, format: str | None = None) -> None:  # noqa: A002
    """Write objects to one file, never half.

    Parameters
    ----------
    path
        File (of OME-Zarr: folder) to write; an existing one is replaced.
    objects
        What to write.
    format
        Name in `FORMATS`; None: as the ending of the path says.

    Raises
    ------
    ConfigError
        An unknown format or ending.
    FileError
        The path cannot be written.
    ImageError
        The format cannot hold the labels.

    Examples
    --------
    >>> import numpy as np, tempfile, zipfile
    >>> from napari_lightsam.formats.objects import Objects
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_objects(f"{folder}/a_rois.zip", Objects(np.eye(3, dtype=int)))
    ...     zipfile.ZipFile(f"{folder}/a_rois.zip").namelist()
    ['1.roi']
    """
    chosen = FORMATS[check_formats([format])[0]] if format else find_format(path)
    with chosen.written(Path(path), objects):
        pass


def export_objects(base: Path, objects: Objects, formats: Iterable[str]) -> tuple[Path, ...]:
    """Write objects in several formats, `base` with each one's ending; no name is taken before all are whole.

    Returns
    -------
    outputs
        One for each format.

    Raises
    ------
    ConfigError, FileError, ImageError
        As `write_objects`.
    """
    chosen = [FORMATS[name] for name in check_formats(formats)]
    outputs = tuple(format_.output(base) for format_ in chosen)
    with ExitStack() as stack:
        for format_, output in zip(chosen, outputs, strict=True):
            stack.enter_context(format_.written(output, objects))
    return outputs
