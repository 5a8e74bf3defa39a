"""Files of microscope makers (CZI, ND2, LIF), read by bioio where its readers are installed."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import ImageFile, ImageInfo, check_series
from napari_lightsam.formats.memory import check_fits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIXES = (".czi", ".nd2", ".lif")
"""File name endings; a package `bioio-czi`, `bioio-nd2` or `bioio-lif` reads each."""


def read(path: Path, *, pixels: bool, series: int | None = None, lazily: bool = False) -> ImageInfo:
    """Read one scene of a file; see `formats.images.read_image`.

    Raises
    ------
    FileError
        The reader is not installed, or the file cannot be read.
    """
    kind = path.suffix.casefold().removeprefix(".")
    advice = (
        f"{kind.upper()} files need a reader: pip install bioio bioio-{kind}, or "
        "pip install 'napari-lightsam[readers]' for all; or save the image as OME-TIFF."
    )
    try:
        from bioio import BioImage
        from bioio_base.exceptions import UnsupportedFileFormatError
    except ImportError:
        raise FileError(f"{path} cannot be read yet. {advice}") from None
    with _explained(path):
        try:
            image = BioImage(path)
        except UnsupportedFileFormatError:
            raise FileError(
                f"{path} cannot be read: its reader is missing, or the file is damaged. {advice}"
            ) from None
        return _read_scene(path, image, pixels, series, lazily)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what readers raise, each kinds of its own for damaged content, into errors of ours."""
    try:
        yield
    except FileError:
        raise
    except MemoryError:
        raise FileError(f"{path} does not fit into memory. Save the planes you need alone.") from None
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileError(f"{path} is truncated or damaged: {reason}. Copy or export it again.") from error


def _read_scene(path: Path, image: Any, pixels: bool, series: int | None, lazily: bool) -> ImageInfo:
    scenes = image.scenes
    image.set_scene(check_series(path, series, len(scenes)))
    axes, shape, dtype = str(image.dims.order), tuple(image.shape), image.dtype
    colour = axes.endswith("S") and shape[-1] in (3, 4)
    if axes.endswith("S") and not colour:
        raise FileError(f"{path} has {shape[-1]} samples a pixel. Save it as OME-TIFF with channels.")
    sizes = image.physical_pixel_sizes
    row, column, z_step = (_length(getattr(sizes, axis)) for axis in "YXZ")
    pixel_size = None if row is None and column is None else (row or column or 0.0, column or row or 0.0)
    names = tuple(str(name) for name in image.channel_names or ())
    note = f"the file holds {len(scenes)} images; the first is used (--series chooses others)"
    about: dict[str, Any] = {
        "path": path, "shape": shape, "dtype": dtype, "axes": axes, "pixel_size": pixel_size,
        "z_step": z_step, "pixel_size_source": "file" if pixel_size or z_step else "",
        "n_images": len(scenes), "channel_names": names if not colour and len(names) == image.dims.C else (),
        "notes": (note,) if len(scenes) > 1 and series is None else (),
    }  # fmt: skip
    if not pixels:
        return ImageInfo(**about)
    if lazily:
        planes: Any = _Planes(path, image.dask_data)
        return ImageFile(**about, data=planes)
    check_fits(path, math.prod(shape) * dtype.itemsize)
    return ImageFile(**about, data=image.data)


class _Planes:
    """An array of which the planes that are asked for are read, when they are."""

    def __init__(self, path: Path, data: Any) -> None:
        self._path, self._data = path, data

    def __getitem__(self, index: Any) -> NDArray[Any]:
        with _explained(self._path):
            return np.asarray(self._data[index])


def _length(value: Any) -> float | None:
    return float(value) if value and math.isfinite(value) and value > 0 else None
