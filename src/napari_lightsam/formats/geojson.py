"""GeoJSON as QuPath imports and exports it: an object is a feature with its outline and its measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from napari_lightsam.engine.warned import tell
from napari_lightsam.errors import FileError
from napari_lightsam.formats.filling import Drawn, fill_outlines, find_shape, number_objects, used_axes
from napari_lightsam.formats.layout import Layout
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.outlines import trace_outlines

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_lightsam.formats.objects import Plane, Position

_LARGEST = 1 << 28  # bytes; as Python objects JSON takes some fifteen times as much


def save_geojson(path: Path, objects: Objects) -> None:
    """Write a FeatureCollection to a file that has no name yet.

    Every object is a detection, or with `nuclei` a cell with its nucleus: geometry in pixels, the origin at
    the upper left corner of the image, its id as name, its measurements; of a stack one per plane.
    """
    # Foreign members are allowed, and QuPath passes over them.
    layout = json.dumps(Layout.of(objects).to_plain())
    head = f'{{"type": "FeatureCollection", "imageSize": {layout}, "features": ['
    alone = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        separator = head + "\n"
        for plane in objects.planes():
            nuclei, n = _pair(plane)
            alone += n
            for feature in _features(plane, nuclei, objects.pixel_size):
                file.write(separator + json.dumps(feature, allow_nan=False, separators=(",", ":")))
                separator = ",\n"
        file.write(separator.removesuffix(",\n") + "\n]}\n")
    if alone:
        said = "1 nucleus lies" if alone == 1 else f"{alone} nuclei lie"
        tell(f"{said} in no cell and were left out of the GeoJSON.", stacklevel=2)


def _features(
    plane: Plane, nuclei: Mapping[int, list[list[NDArray[Any]]]], pixel_size: tuple[float, float] | None
) -> Iterator[dict[str, Any]]:
    measured = plane.measurements(pixel_size)
    for label, parts in trace_outlines(plane.labels, plane.origin).objects():
        feature: dict[str, Any] = {"type": "Feature", "geometry": _geometry(parts, plane.position)}
        if label in nuclei:
            feature["nucleusGeometry"] = _geometry(nuclei[label], plane.position)
        feature["properties"] = {
            "objectType": "detection" if plane.nuclei is None else "cell",
            "name": str(label),
            "measurements": measured.get(label, {}),
        }
        yield feature


def _geometry(parts: list[list[NDArray[Any]]], at: Position) -> dict[str, Any]:
    polygons = [[_close(ring[:, ::-1].tolist()) for ring in part] for part in parts]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": polygons[0]}
        if len(polygons) == 1
        else {"type": "MultiPolygon", "coordinates": polygons}
    )
    if at.z is not None or at.t is not None:
        geometry["plane"] = {"c": -1, "z": at.z or 0, "t": at.t or 0}  # -1: all channels
    return geometry


def _close(ring: list[list[int]]) -> list[list[int]]:
    return [*ring, ring[0]]


def _pair(plane: Plane) -> tuple[dict[int, list[list[NDArray[Any]]]], int]:
    """Outlines of the nuclei of each cell, and the number of nuclei that lie in none.

    A nucleus belongs to the cell that covers most of it, where that is more than what no cell covers.
    """
    if plane.nuclei is None:
        return {}, 0
    inside = plane.nuclei > 0
    nuclei, cells = plane.nuclei[inside].astype(np.int64), plane.labels[inside].astype(np.int64)
    pairs, count = np.unique(np.stack([nuclei, cells]), axis=1, return_counts=True)
    best = np.lexsort(
        (-pairs[1], -count, pairs[0])
    )  # per nucleus the most covering first, a cell before none
    _, first = np.unique(pairs[0][best], return_index=True)
    home = dict(zip(*pairs[:, best[first]].tolist(), strict=True))
    found: dict[int, list[list[NDArray[Any]]]] = {}
    for label, parts in trace_outlines(plane.nuclei, plane.origin).objects():
        if home[label]:
            found.setdefault(home[label], []).extend(parts)
    return found, sum(cell == 0 for cell in home.values())


def read_geojson(path: str | os.PathLike[str], shape: tuple[int, int] | None = None) -> Objects:
    """Read areas from GeoJSON into a label image.

    Parameters
    ----------
    path
        A FeatureCollection, a Feature or a list of them, in pixels as QuPath writes it.
    shape
        (H, W) of the image. When not given, that of the labels where the file was written by this package,
        as are their planes and calibration; else as far as the outlines reach.

    Returns
    -------
    Objects
        int32 labels, or uint32 where an id needs it, with the axes Z and T where features name planes, and
        `nuclei` where cells have them, with the ids of their cells. A feature whose name is a number has it
        as id, every other the next free one. Polygons and MultiPolygons are read; where they overlap, later
        ones lie over earlier ones.

    Raises
    ------
    FileError
        No such file, no GeoJSON, no areas in it, damaged, or too large.

    Warns
    -----
    LightSamWarning
        Some features are no areas and were left out.

    Examples
    --------
    >>> import tempfile
    >>> from napari_lightsam.formats.export import write_objects
    >>> labels = np.pad(np.full((2, 3), 7), 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_objects(f"{folder}/a.geojson", Objects(labels))
    ...     back = read_geojson(f"{folder}/a.geojson")
    >>> bool((back.labels == labels).all())
    True
    """
    path = Path(path)
    content = _load(path)
    features, layout = _list_features(path, content)
    drawn: list[Drawn] = []
    nuclei: list[Drawn | None] = []
    others = 0
    for number, feature in enumerate(features, start=1):
        read = _Feature(path, number, feature)
        if read.is_area("geometry"):
            drawn.append(read.draw("geometry"))
            nuclei.append(read.draw("nucleusGeometry") if read.is_area("nucleusGeometry") else None)
        else:
            others += 1
    if not drawn and (others or layout.plane is None):
        raise FileError(f"{path} holds no areas. Accepted are features that are Polygons or MultiPolygons.")
    if others:
        tell(f"{path}: {others} features are no areas and were left out.", stacklevel=2)
    ids = number_objects(drawn)
    full = find_shape(path, [*drawn, *(n for n in nuclei if n is not None)], layout, shape)
    axes, own = used_axes(full, layout)
    inner = None
    if any(n is not None for n in nuclei):
        have = np.array([n is not None for n in nuclei])
        inner = fill_outlines(path, [n for n in nuclei if n is not None], ids[have], full).reshape(own)
    labels = fill_outlines(path, drawn, ids, full).reshape(own)
    return Objects(labels, axes, layout.pixel_size, layout.z_step, nuclei=inner)


def _load(path: Path) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}, which is no JSON")

    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(f"{path} is larger than 256 MiB. Export it in parts.")
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=refuse)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be opened: {error.strerror or error}.") from error
    except MemoryError:
        raise FileError(f"{path} does not fit into memory. Export it in parts.") from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is no GeoJSON: it is not text.") from None
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is truncated or damaged: {error}. Export it again.") from None


def _list_features(path: Path, content: Any) -> tuple[list[Any], Layout]:
    """Features of a file, and what it says about the image where this package wrote it."""
    if isinstance(content, list):
        return content, Layout()
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "Feature":
        return [content], Layout()
    if kind != "FeatureCollection" or not isinstance(content.get("features"), list):
        raise FileError(
            f"{path} is no GeoJSON of objects: it must be a FeatureCollection, as QuPath exports."
        )
    return content["features"], Layout.from_plain(content.get("imageSize"))


class _Feature:
    """Reads one feature and says what is wrong with it."""

    def __init__(self, path: Path, number: int, feature: Any) -> None:
        self._where = f"{path}: feature {number}"
        if not isinstance(feature, dict):
            raise FileError(f"{self._where} is no feature.")
        properties = feature.get("properties")
        self._feature = feature
        self._properties = properties if isinstance(properties, dict) else {}

    def is_area(self, key: str) -> bool:
        geometry = self._feature.get(key)
        return isinstance(geometry, dict) and geometry.get("type") in ("Polygon", "MultiPolygon")

    def draw(self, key: str) -> Drawn:
        geometry = self._feature[key]
        polygons = geometry.get("coordinates")
        if geometry["type"] == "Polygon":
            polygons = [polygons]
        try:
            rings = [self._ring(ring) for polygon in polygons for ring in polygon]
        except (TypeError, ValueError, OverflowError) as error:
            raise FileError(f"{self._where} has coordinates that are none ({error}).") from None
        plane = geometry.get("plane")
        plane = plane if isinstance(plane, dict) else {}
        name = self._properties.get("name")
        name = str(name) if isinstance(name, (str, int)) and not isinstance(name, bool) else ""
        return Drawn(name, rings, self._step(plane, "t"), self._step(plane, "z"))

    def _ring(self, ring: Any) -> NDArray[np.float64]:
        corners = np.asarray(ring, np.float64)
        if corners.ndim != 2 or corners.shape[1] not in (2, 3) or len(corners) < 3:
            raise ValueError(f"a ring of shape {corners.shape}")
        corners = corners[:, 1::-1]
        return corners[:-1] if (corners[0] == corners[-1]).all() else corners

    def _step(self, plane: Mapping[str, Any], axis: str) -> int:
        step = plane.get(axis, 0)
        if not isinstance(step, int) or isinstance(step, bool):
            raise FileError(f"{self._where} has the {axis} position {step!r}; it is a whole number.")
        return max(step, 0)
