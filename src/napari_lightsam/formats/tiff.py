"""The TIFF side of `read_image`: series, axes, channels and calibration from OME and ImageJ metadata."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import ImageFile, ImageInfo, check_series
from napari_lightsam.formats.memory import check_declared, check_memory
from napari_lightsam.formats.units import to_micrometres

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_TRUNCATED = "is truncated or damaged"
_AGAIN = "Copy or export it again."


def read(path: Path, *, pixels: bool, series: int | None = None, lazily: bool = False) -> ImageInfo:
    """Read one series of a TIFF file; see `formats.images.read_image`."""
    with _opened(path) as (tif, complaints):
        return _read_series(path, tif, complaints, pixels, series, lazily)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, list[str]]]:
    """Open a TIFF file, with what tifffile logs about it; whatever goes wrong is an error of ours."""
    with _log() as complaints:
        try:
            # A set of files is not followed: its file names come from inside a file.
            with tifffile.TiffFile(path, _multifile=False) as tif:
                yield tif, complaints
        except FileError:
            raise
        except MemoryError:
            raise FileError(f"{path} does not fit into memory. Save the planes you need alone.") from None
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error}.") from error
        except Exception as error:  # tifffile and its codecs raise many kinds for damaged content
            raise FileError(f"{path} {_TRUNCATED}: {_brief(error)}. {_AGAIN}") from error


def _read_series(
    path: Path, tif: Any, complaints: list[str], pixels: bool, chosen: int | None, lazily: bool
) -> ImageInfo:
    if not tif.pages or not tif.series:
        raise FileError(f"{path} holds no image ({_TRUNCATED}). {_AGAIN}")
    number = check_series(path, chosen, len(tif.series))
    series = tif.series[number]
    _check_complete(path, tif, series, complaints)
    axes, shape, order = _axes(series)
    lazily = lazily and any(n > 1 for axis, n in zip(axes, shape, strict=True) if axis not in "YXS")
    (check_declared if lazily else check_memory)(path, int(series.nbytes))
    data: Any = None  # planes that are read later, too
    if pixels:
        data = Planes(path, number, shape, order) if lazily else series.asarray().transpose(order)
    pixel_size, z_step, source, names = _metadata(tif, number)
    n_channels = shape[axes.index("C")] if "C" in axes else 1
    info: dict[str, Any] = {
        "path": path, "shape": shape, "dtype": series.dtype, "axes": axes, "pixel_size": pixel_size,
        "z_step": z_step, "pixel_size_source": source, "notes": _notes(tif, chosen),
        "channel_names": names if len(names) == n_channels and any(names) else (),
        "n_images": len(tif.series),
    }  # fmt: skip
    return ImageInfo(**info) if data is None else ImageFile(**info, data=data)


class Planes:
    """The array of a series of planes, of which those that are asked for are read, when they are.

    Parameters
    ----------
    path, number
        File and series.
    shape, order
        Of the array, and the axes of the file that its axes are.
    """

    def __init__(self, path: Path, number: int, shape: tuple[int, ...], order: list[int]) -> None:
        self._path, self._number, self._order = path, number, order
        self.shape = shape

    def __getitem__(self, index: tuple[int | slice, ...]) -> NDArray[Any]:
        import zarr

        asked = dict(zip(self._order, index, strict=True))
        given = tuple(asked[axis] for axis in range(len(self.shape)))
        with _opened(self._path) as (tif, _):
            series = tif.series[self._number]
            if series.dataoffset is not None:  # one block of the file
                found = np.array(series.asarray(out="memmap")[given])
            else:
                store: Any = zarr.open(series.aszarr(level=0), mode="r")
                found = np.asarray(store[given])
        kept = [axis for axis in range(len(self.shape)) if isinstance(asked[axis], slice)]
        return found.transpose([kept.index(axis) for axis in self._order if axis in kept])


@contextmanager
def _log() -> Iterator[list[str]]:
    """Collect what tifffile logs in this thread: it reports lost pages and tags only there."""
    complaints: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread == thread:
            complaints.append(record.getMessage())
            return False
        return True

    logger = tifffile.logger()
    logger.addFilter(keep)
    try:
        yield complaints
    finally:
        logger.removeFilter(keep)


def _check_complete(path: Path, tif: Any, series: Any, complaints: list[str]) -> None:
    size = tif.filehandle.size
    end = 0
    for page in series.pages:
        if page is None:
            raise FileError(f"{path} {_TRUNCATED}: planes are missing. {_AGAIN}")
        ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False) if n)
        end = max(end, max(ends, default=0))
    if series.dataoffset is not None:
        end = max(end, series.dataoffset + series.nbytes)
    if end > size:
        raise FileError(f"{path} {_TRUNCATED}: it has {size:,} of {end:,} bytes. {_AGAIN}")
    for complaint in complaints:
        if "invalid" in complaint and "offset" in complaint:
            raise FileError(f"{path} {_TRUNCATED}: it refers to places past its end. {_AGAIN}")


def _axes(series: Any) -> tuple[str, tuple[int, ...], list[int]]:
    """Axes in our letters with colour samples last, the shape, and the order that brings them there."""
    raw, shape = series.axes, series.shape
    axes = ["YX"[i] if len(shape) == 2 and not {"Y", "X"} <= set(raw) else a for i, a in enumerate(raw)]
    for i, letter in enumerate(axes):
        if letter == "S" and not _is_colour(series, shape[i]):
            # Samples stored as whole planes are what writers make of any stack of three or four planes.
            planar = series.keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            axes[i] = "Q" if "C" in axes or planar else "C"
        elif letter not in "TCZYXS":
            axes[i] = "Q"
    order = list(range(len(axes)))
    if "S" in axes:
        order.append(order.pop(axes.index("S")))
    return "".join(axes[i] for i in order), tuple(shape[i] for i in order), order


def _is_colour(series: Any, samples: int) -> bool:
    """Whether samples are red, green, blue (and alpha) rather than fluorescence channels.

    Writers mark any array of three or four planes as RGB by default, so for more than 8 bits the mark
    counts only where it is meant: three samples, interleaved.
    """
    page = series.keyframe
    if series.dtype == "uint8":
        return samples in (3, 4)
    marked = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    return bool(marked and samples == 3 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG)


def _notes(tif: Any, chosen: int | None) -> tuple[str, ...]:
    notes = []
    if len(tif.series) > 1 and chosen is None:
        notes.append(f"the file holds {len(tif.series)} images; the first is used (--series chooses others)")
    if tif.is_ome and len(_ome_files(tif)) > 1:
        notes.append("the file belongs to a set of several files; only this one is read")
    return tuple(notes)


def _ome_files(tif: Any) -> set[str]:
    root = _ome_root(tif)
    return set() if root is None else {e.get("FileName", "") for e in root.iter() if e.tag.endswith("}UUID")}


def _ome_root(tif: Any) -> ElementTree.Element | None:
    try:
        return ElementTree.fromstring(tif.ome_metadata)
    except (ElementTree.ParseError, TypeError):
        return None


def _metadata(tif: Any, number: int) -> tuple[tuple[float, float] | None, float | None, str, tuple[str, ...]]:
    """Pixel size, plane distance, source and channel names."""
    if tif.is_ome and (root := _ome_root(tif)) is not None:
        images = _images_within(tif, root)
        pixels = images[number].find("{*}Pixels") if number < len(images) else None
        if pixels is not None:
            return _from_ome(pixels)
    if tif.is_imagej:
        return _from_imagej(tif)
    return None, None, "", ()


def _images_within(tif: Any, root: ElementTree.Element) -> list[ElementTree.Element]:
    """Images of which a file holds planes: each file of a set describes those of all."""
    images = root.findall("./{*}Image")
    places = [image.findall("{*}Pixels/{*}TiffData/{*}UUID") for image in images]
    if len({one.text for some in places for one in some}) < 2:  # this file, whatever it was called once
        return images

    def is_here(place: ElementTree.Element) -> bool:
        name = place.get("FileName", "")
        return place.text == root.get("UUID") or name.casefold() == tif.filename.casefold()

    return [image for image, some in zip(images, places, strict=True) if not some or any(map(is_here, some))]


def _from_ome(
    pixels: ElementTree.Element,
) -> tuple[tuple[float, float] | None, float | None, str, tuple[str, ...]]:
    names = tuple(c.get("Name", "") for c in pixels.findall("{*}Channel"))
    x, y, z = (
        to_micrometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "um"))
        for axis in "XYZ"
    )
    size = None if x is None and y is None else (y or x or 0.0, x or y or 0.0)
    return size, z, "OME" if size or z else "", names


def _from_imagej(tif: Any) -> tuple[tuple[float, float] | None, float | None, str, tuple[str, ...]]:
    meta: dict[str, Any] = tif.imagej_metadata or {}
    tags = tif.pages[0].tags
    unit = str(meta.get("unit", ""))
    unit = unit.encode("latin-1", "replace").decode("unicode_escape") if "\\u" in unit else unit
    x, y = (to_micrometres(_per_unit(tags, name), unit) for name in ("XResolution", "YResolution"))
    size = None if x is None and y is None else (y or x or 0.0, x or y or 0.0)
    z = to_micrometres(meta.get("spacing"), unit)
    labels = meta.get("Labels") or ()
    n_channels = int(meta.get("channels", 1))
    names = tuple(map(str, labels)) if isinstance(labels, (list, tuple)) and len(labels) == n_channels else ()
    return size, z, "ImageJ" if size or z else "", names


def _per_unit(tags: Any, name: str) -> float | None:
    tag = tags.get(name)
    try:
        numerator, denominator = tag.value
        return float(denominator / numerator)
    except (AttributeError, TypeError, ValueError, ZeroDivisionError):
        return None


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
