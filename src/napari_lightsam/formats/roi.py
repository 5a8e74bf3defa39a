"""ImageJ ROIs: outlines of objects as Fiji's ROI Manager opens and saves them."""

from __future__ import annotations

import json
import lzma
import struct
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.filling import Drawn, fill_outlines, find_shape, number_objects, used_axes
from napari_lightsam.formats.layout import Layout
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.outlines import trace_outlines

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_lightsam.formats.objects import Position

_VERSION = 227  # of the format; positions, names and composite outlines are read since long before
_FARTHEST_INTEGER = 32_767  # corners beyond are kept as float32, which is exact far beyond
_DATE = (1980, 1, 1, 0, 0, 0)  # of the entries, so that equal objects give equal files
_MOST_ENTRIES = 2_000_000
_LARGEST_ENTRY = 64 << 20  # bytes
_LARGEST_TOTAL = 1 << 30  # bytes of all entries, unpacked
_NO_AREA = {3, 4, 5, 6, 9, 10}  # lines, angles, points
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a rare compression
    RuntimeError,  # encrypted entries
    ValueError,  # among others names that are no UTF-8
)
"""What zipfile raises for files that it cannot read."""


def save_rois(path: Path, objects: Objects) -> None:
    """Write all outlines as a zip of ROIs to a file that has no name yet.

    One ROI per object and plane, named by the object's id, with channel, plane and time point set as far as
    they are known; of a plain stack, of planes or of time points, that is the slice, for ImageJ shows a ROI
    without it on all of them. An
    object in one piece without holes is a traced outline, every other a composite one.
    """
    planes = list(objects.planes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for plane in planes:
            at = plane.position
            where = "".join(
                f"-{axis.lower()}{((at.z if axis == 'Z' else at.t) or 0) + 1:04d}"
                for axis in objects.axes[:-2]
            )
            for label, parts in trace_outlines(plane.labels, plane.origin).objects():
                entry = zipfile.ZipInfo(f"{label}{where}.roi", _DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, _encode(label, parts, at))
        # ROIs do not know their image; ImageJ passes over the comment.
        told = Layout.of(objects).to_plain()
        shape = [told.pop("height"), told.pop("width")]
        archive.comment = json.dumps({"shape": shape, **told}).encode()


def _encode(label: int, parts: list[list[NDArray[Any]]], at: Position) -> bytes:
    from roifile import ROI_TYPE, ImagejRoi

    corners = np.concatenate([part[0] for part in parts])
    (top, left), (bottom, right) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    options: dict[str, Any] = {
        "version": _VERSION, "name": str(label), "top": top, "left": left, "bottom": bottom, "right": right,
    }  # fmt: skip
    known = {axis: step + 1 for axis, step in at._asdict().items() if step is not None}
    if len(known) == 1 and "c" not in known:  # a plain stack to ImageJ, of planes or of time points
        (options["position"],) = known.values()
    else:
        options |= {f"{axis}_position": step for axis, step in known.items()}
    if len(parts) == 1 and len(parts[0]) == 1 and max(bottom, right) <= _FARTHEST_INTEGER:
        relative = corners[:, ::-1].astype(np.int32) - [left, top]
        options |= {"roitype": ROI_TYPE.TRACED, "n_coordinates": len(relative)}
        options["integer_coordinates"] = relative.astype(np.int32)
    else:
        path = _path(parts)
        options |= {"roitype": ROI_TYPE.RECT, "shape_roi_size": len(path), "multi_coordinates": path}
    return bytes(ImagejRoi(**options).tobytes())


def _path(parts: list[list[NDArray[Any]]]) -> NDArray[np.float32]:
    """Encode rings as moves (0, x, y), lines (1, x, y) and ends (4)."""
    values: list[float] = []
    for part in parts:
        for ring in part:
            kind = 0
            for y, x in ring.tolist():
                values += (kind, x, y)
                kind = 1
            values.append(4)
    return np.array(values, np.float32)


def read_rois(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> Objects:
    """Read areas from ImageJ ROIs into a label image.

    Parameters
    ----------
    path
        A `.zip` as the ROI Manager saves it, or a single `.roi`.
    shape
        (H, W) of the image. When not given, that of the labels where the file was written by this package,
        as are their planes and calibration; else as far as the ROIs reach.

    Returns
    -------
    Objects
        int32 labels, or uint32 where an id needs it, with the axes Z and T where ROIs are set to planes or
        time points. A ROI whose name is a number has it as id, every other the next free one. Rectangles,
        ellipses, polygons, freehand, traced and composite areas are read; where they overlap, later ones lie
        over earlier ones.

    Raises
    ------
    FileError
        No such file, no ROIs of areas in it, damaged, or too large.

    Examples
    --------
    >>> import tempfile
    >>> from napari_lightsam.formats.export import write_objects
    >>> labels = np.pad(np.full((2, 3), 7), 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_objects(f"{folder}/a_rois.zip", Objects(labels))
    ...     back = read_rois(f"{folder}/a_rois.zip")
    >>> bool((back.labels == labels).all())
    True
    """
    path = Path(path)
    layout, ours = Layout(), False
    try:
        if path.suffix.casefold() == ".roi":
            if path.stat().st_size > _LARGEST_ENTRY:
                raise FileError(f"{path} is too large for a ROI.")
            drawn = list(_decode(path, path.name, path.read_bytes()))
        else:
            with zipfile.ZipFile(path) as archive:
                layout = _read_layout(archive.comment)
                ours = layout.plane is not None
                timed = layout.t is not None and layout.z is None
                entries = _entries(path, archive)
                drawn = [one for name, data in entries for one in _decode(path, name, data, timed)]
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except _DAMAGED as error:
        raise FileError(f"{path} is no readable zip file of ROIs ({error}). Save it again.") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not drawn and not ours:
        raise FileError(f"{path} holds no ROIs of areas. Accepted are areas saved by ImageJ's ROI Manager.")
    full = find_shape(path, drawn, layout, shape)
    labels = fill_outlines(path, drawn, number_objects(drawn), full)
    axes, own = used_axes(full, layout)
    return Objects(labels.reshape(own), axes, layout.pixel_size, layout.z_step)


def holds_rois(path: str | os.PathLike[str]) -> bool:
    """Tell whether a zip file has ROIs in it, by the names of its entries, or is one of ours without any."""
    try:
        with zipfile.ZipFile(path) as archive:
            ours = _read_layout(archive.comment).plane is not None
            return ours or any(name.casefold().endswith(".roi") for name in archive.namelist())
    except (OSError, *_DAMAGED):
        return False


def _entries(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Give the ROIs of a zip by name and content: nothing is unpacked to disk, whatever they are called."""
    listed = [entry for entry in archive.infolist() if entry.filename.casefold().endswith(".roi")]
    if len(listed) > _MOST_ENTRIES:
        raise FileError(f"{path} holds {len(listed):,} ROIs; at most {_MOST_ENTRIES:,} are read.")
    total = 0
    for entry in listed:
        with archive.open(entry) as file:
            data = file.read(_LARGEST_ENTRY + 1)  # the size in the directory may be a lie
        total += len(data)
        if len(data) > _LARGEST_ENTRY or total > _LARGEST_TOTAL:
            raise FileError(f"{path} is too large: its entry {entry.filename!r} unpacks beyond the limit.")
        yield entry.filename, data


def _read_layout(comment: bytes) -> Layout:
    """Read what `save_rois` left in the comment; nothing is known from any other comment."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(comment)
        height, width = found["shape"]
        return Layout.from_plain({**found, "height": height, "width": width})
    return Layout()


def _decode(path: Path, entry: str, data: bytes, timed: bool = False) -> Iterator[Drawn]:
    """Read one ROI; nothing where it is no area. The slices of a plain stack may be time points."""
    from roifile import ROI_SUBTYPE, ImagejRoi

    try:
        _check_counts(data)
        roi = ImagejRoi.frombytes(data)
        if int(roi.roitype) in _NO_AREA or roi.subtype in (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.IMAGE):
            return
        rings = [np.asarray(ring, np.float64) for ring in roi.coordinates(multi=True)]
        if int(roi.roitype) in (1, 2) and roi.subpixelrect and not roi.composite:
            rings = [_fit(rings[0], roi)]
    except Exception as error:  # damaged bytes surface as many kinds
        raise FileError(f"{path}: the ROI {entry!r} is damaged ({error}). Save it again.") from error
    rings = [_open(ring[:, ::-1]) for ring in rings if len(ring) >= 3]
    if not rings:
        return
    name = roi.name or Path(entry.replace("\\", "/")).stem
    t, z = roi.t_position, roi.z_position
    if not (t or z or roi.c_position):
        t, z = (roi.position, 0) if timed else (0, roi.position)
    yield Drawn(name, rings, max(t - 1, 0), max(z - 1, 0))


def _check_counts(data: bytes) -> None:
    """Refuse numbers of corners that the bytes cannot hold, before anything is made of that size."""
    if len(data) < 64 or data[:4] != b"Iout":
        raise ValueError("it is no ImageJ ROI")
    corners = int.from_bytes(data[16:18], "big") or int.from_bytes(data[18:22], "big")
    floats = int.from_bytes(data[36:40], "big")
    if floats * 4 > len(data) or (data[6] in (0, 7, 8) and not floats and corners * 4 > len(data)):
        raise ValueError("it is cut off")


def _fit(ring: NDArray[np.float64], roi: Any) -> NDArray[np.float64]:
    """Stretch a rectangle or ellipse to the sides it has in fractions of pixels."""
    low, high = ring.min(axis=0), ring.max(axis=0)
    unit = (ring - low) / np.maximum(high - low, 1e-9)
    return np.asarray(unit * [roi.widthd, roi.heightd] + [roi.xd, roi.yd])


def _open(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop a last corner that repeats the first."""
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring
