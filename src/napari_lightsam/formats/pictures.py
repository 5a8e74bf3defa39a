"""The PNG, JPEG and BMP side of `read_image`; these carry no microscope calibration."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import ImageFile, ImageInfo
from napari_lightsam.formats.memory import check_memory

if TYPE_CHECKING:
    from pathlib import Path

_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


def read(path: Path, head: bytes, *, pixels: bool) -> ImageInfo:
    """Read a picture file whose first bytes are `head`; see `formats.images.read_image`."""
    try:
        if head.startswith(b"\x89PNG"):
            return _read_png(path, head, pixels)
        return _read_other(path, pixels)
    except FileError:
        raise
    except MemoryError:
        raise FileError(f"{path} does not fit into memory.") from None
    except Exception as error:  # codecs raise many kinds for damaged content
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise FileError(f"{path} is truncated or damaged: {reason}. Copy or export it again.") from error


def _read_png(path: Path, head: bytes, pixels: bool) -> ImageInfo:
    """PNG through libpng: Pillow reduces 16-bit colour to 8 bits."""
    if len(head) < 29 or head[12:16] != b"IHDR":
        raise FileError(f"{path} is truncated or damaged: no PNG header. Copy or export it again.")
    width, height, depth, kind = struct.unpack(">IIBB", head[16:26])
    samples = _PNG_SAMPLES.get(kind, 4)
    dtype = np.dtype("uint16" if depth == 16 else "uint8")
    check_memory(path, width * height * samples * dtype.itemsize)
    colour = samples > 2
    shape = (height, width, samples) if colour else (height, width)
    if not pixels:
        return ImageInfo(path=path, shape=shape, dtype=dtype, axes="YXS" if colour else "YX")
    import imagecodecs

    data = imagecodecs.png_decode(path.read_bytes())
    if data.ndim == 3 and data.shape[-1] < 3:
        data = data[..., 0]
    axes = "YXS" if data.ndim == 3 else "YX"
    return ImageFile(path=path, shape=data.shape, dtype=data.dtype, axes=axes, data=data)


def _read_other(path: Path, pixels: bool) -> ImageInfo:
    from PIL import Image

    with warnings.catch_warnings():
        # Size is judged below, by this machine's memory.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(path.read_bytes()))
        except Image.DecompressionBombError as error:
            raise FileError(f"{path} is too large for its type ({error}). Save it as TIFF or PNG.") from None
    check_memory(path, image.width * image.height * 3)
    colour = image.mode not in ("1", "L", "I", "I;16", "F")
    info: dict[str, Any] = {"path": path, "axes": "YXS" if colour else "YX"}
    if not pixels:
        shape = (image.height, image.width, 3)
        return ImageInfo(**info, shape=shape if colour else shape[:2], dtype=np.dtype("uint8"))
    data = np.asarray(image.convert("RGB") if colour else image)
    return ImageFile(**info, shape=data.shape, dtype=data.dtype, data=data)
