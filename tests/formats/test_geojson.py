"""GeoJSON, read back by shapely and by us, as QuPath needs it; and files that are none."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import shapely

from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import FileError, ImageError, LightSamError
from napari_lightsam.formats import filling
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.geojson import read_geojson
from napari_lightsam.formats.objects import Objects, Position
from napari_lightsam.formats.tables import measure_objects

if TYPE_CHECKING:
    from pathlib import Path


def features(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    return content["features"]


def geometry(feature: dict[str, Any], key: str = "geometry") -> shapely.Geometry:
    """Geometry as another library reads it."""
    return shapely.from_geojson(json.dumps(feature[key]))


# What QuPath 0.5 writes and reads (its QuPathTypeAdapters and ROITypeAdapters), as far as used here. What
# else stands in a file is passed over in silence, so that a name that is spelt wrongly would be lost.
_PLANE = {
    "type": "object",
    "properties": {
        "c": {"type": "integer", "minimum": -1},
        "z": {"type": "integer", "minimum": 0},
        "t": {"type": "integer", "minimum": 0},
    },
    "required": ["c", "z", "t"],
    "additionalProperties": False,
}
_POINT = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_POLYGON = {"type": "array", "items": {"type": "array", "items": _POINT, "minItems": 4}, "minItems": 1}


def _area(kind: str, coordinates: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, "coordinates": coordinates, "plane": _PLANE},
        "required": ["type", "coordinates"],
        "additionalProperties": False,
    }


_AREA = {"oneOf": [_area("Polygon", _POLYGON), _area("MultiPolygon", {"type": "array", "items": _POLYGON})]}
_PROPERTIES = {
    "type": "object",
    "properties": {
        "objectType": {"enum": ["annotation", "detection", "cell", "tile", "tmaCore"]},
        "name": {"type": "string"},
        "measurements": {"type": "object", "additionalProperties": {"type": "number"}},
    },
    "required": ["objectType"],
    "additionalProperties": False,
}
QUPATH = {
    "type": "object",
    "properties": {
        "type": {"const": "FeatureCollection"},
        "features": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {"const": "Feature"},
                    "geometry": _AREA,
                    "nucleusGeometry": _AREA,
                    "properties": _PROPERTIES,
                },
                "required": ["type", "geometry", "properties"],
                "additionalProperties": False,
                "if": {"required": ["nucleusGeometry"]},
                "then": {"properties": {"properties": {"properties": {"objectType": {"const": "cell"}}}}},
            },
        },
    },
    "required": ["type", "features"],
}


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TZYX"])
@pytest.mark.parametrize("cells", [False, True], ids=["detections", "cells"])
def test_all_members_are_called_and_built_as_qupath_has_them(
    tmp_path: Path, awkward: np.ndarray, axes: str, cells: bool
) -> None:
    labels = np.broadcast_to(awkward, (2,) * (len(axes) - 2) + awkward.shape)
    objects = Objects(labels, axes, (0.5, 0.5), nuclei=labels if cells else None)
    write_objects(tmp_path / "a.geojson", replace(objects, table=objects.measured()))

    content = json.loads((tmp_path / "a.geojson").read_text())
    jsonschema.validate(content, QUPATH)
    assert len(content["features"]) >= 5
    assert all(("nucleusGeometry" in one) == cells for one in content["features"])
    assert all(("plane" in one["geometry"]) == (axes != "YX") for one in content["features"])
    assert all("area_um2" in one["properties"]["measurements"] for one in content["features"])


def test_every_object_is_a_valid_detection_of_its_area(tmp_path: Path, awkward: np.ndarray) -> None:
    write_objects(tmp_path / "a.geojson", Objects(awkward))

    found = features(tmp_path / "a.geojson")
    ids, count = np.unique(awkward[awkward > 0], return_counts=True)
    assert [int(f["properties"]["name"]) for f in found] == ids.tolist()
    assert [geometry(f).area for f in found] == count.tolist()
    assert all(geometry(f).is_valid for f in found)
    assert {f["type"] for f in found} == {"Feature"}
    assert {f["properties"]["objectType"] for f in found} == {"detection"}
    assert {geometry(f).geom_type for f in found} == {"Polygon", "MultiPolygon"}


def test_rings_are_closed_and_turn_as_rfc_7946_says(tmp_path: Path, awkward: np.ndarray) -> None:
    write_objects(tmp_path / "a.geojson", Objects(awkward))

    for feature in features(tmp_path / "a.geojson"):
        coordinates = feature["geometry"]["coordinates"]
        for polygon in [coordinates] if feature["geometry"]["type"] == "Polygon" else coordinates:
            assert all(ring[0] == ring[-1] and len(ring) >= 5 for ring in polygon)
            turns = [shapely.LinearRing(ring).is_ccw for ring in polygon]
            assert turns == [True] + [False] * (len(polygon) - 1)


def test_measurements_of_the_table_are_included_as_numbers(tmp_path: Path, awkward: np.ndarray) -> None:
    table = measure_objects(awkward, pixel_size=(0.5, 0.25))
    write_objects(tmp_path / "a.geojson", Objects(awkward, table=table))

    for feature, row in zip(features(tmp_path / "a.geojson"), table.to_dict("records"), strict=True):
        numbers = feature["properties"]["measurements"]
        expected = {k: float(v) for k, v in row.items() if k != "label" and np.isfinite(v)}
        assert numbers == pytest.approx(expected)


def test_without_a_table_area_and_centre_are_measured(tmp_path: Path, awkward: np.ndarray) -> None:
    features_table = pd.DataFrame({"label": [3, 9], "score": [0.5, np.nan], "centroid_y": [-1.0, -1.0]})
    write_objects(tmp_path / "a.geojson", Objects(awkward, pixel_size=(0.5, 0.5), table=features_table))

    found = {
        f["properties"]["name"]: f["properties"]["measurements"] for f in features(tmp_path / "a.geojson")
    }
    assert found["3"]["score"] == 0.5
    assert set(found["9"]) == {"area_px", "area_um2", "centroid_y", "centroid_x"}
    assert found["9"] == {"area_px": 12, "area_um2": 3, "centroid_y": 12.5, "centroid_x": 6.5}


def test_cells_hold_the_nuclei_that_lie_mostly_in_them(tmp_path: Path) -> None:
    cells, nuclei = np.zeros((2, 10, 20), int)
    cells[1:9, 1:9], cells[1:9, 9:17] = 4, 5
    nuclei[2:4, 2:4] = 1
    nuclei[4:6, 7:10] = 2  # reaches into the neighbour
    nuclei[3:6, 15:18] = 3  # reaches into the background
    nuclei[0:2, 18:20] = 6  # lies in no cell
    with pytest.warns(LightSamWarning, match="1 nucleus lies in no cell"):
        write_objects(tmp_path / "a.geojson", Objects(cells, nuclei=nuclei))

    found = {f["properties"]["name"]: f for f in features(tmp_path / "a.geojson")}
    assert {f["properties"]["objectType"] for f in found.values()} == {"cell"}
    assert geometry(found["4"], "nucleusGeometry").area == 4 + 6
    assert geometry(found["5"], "nucleusGeometry").area == 9
    back = read_geojson(tmp_path / "a.geojson")
    np.testing.assert_array_equal(back.labels, cells)
    np.testing.assert_array_equal(back.nuclei, np.array([0, 4, 4, 5, 0, 0, 0])[nuclei])


def test_nuclei_of_another_shape_are_refused(awkward: np.ndarray) -> None:
    with pytest.raises(ImageError, match="one shape"):
        Objects(awkward, nuclei=awkward[1:])


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
def test_geojson_comes_back_as_the_labels_it_was(tmp_path: Path, awkward: np.ndarray, axes: str) -> None:
    labels = np.stack([awkward, awkward[::-1], awkward * 0, awkward // 9]).reshape(2, 2, *awkward.shape)
    labels = {"YX": awkward, "TZYX": labels}.get(axes, labels[1])
    write_objects(tmp_path / "a.geojson", Objects(labels, axes))

    back = read_geojson(tmp_path / "a.geojson")
    assert back.axes == axes
    np.testing.assert_array_equal(back.labels, labels)


def test_the_plane_of_the_image_is_named_as_qupath_does(tmp_path: Path) -> None:
    write_objects(tmp_path / "a.geojson", Objects(np.eye(2, dtype=int), position=Position(c=1, z=3)))
    write_objects(tmp_path / "b.geojson", Objects(np.eye(2, dtype=int)))

    assert features(tmp_path / "a.geojson")[0]["geometry"]["plane"] == {"c": -1, "z": 3, "t": 0}
    assert "plane" not in features(tmp_path / "b.geojson")[0]["geometry"]


def test_70_000_objects_come_back(tmp_path: Path, many: np.ndarray) -> None:
    write_objects(tmp_path / "a.geojson", Objects(many))

    np.testing.assert_array_equal(read_geojson(tmp_path / "a.geojson").labels, many)


def test_no_objects_are_an_empty_collection(tmp_path: Path) -> None:
    write_objects(tmp_path / "a.geojson", Objects(np.zeros((4, 5), int)))

    assert features(tmp_path / "a.geojson") == []


# --- what others write


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
    }


def save(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


SQUARE = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]


def test_outlines_between_pixels_take_the_pixels_whose_centres_they_hold(tmp_path: Path) -> None:
    oblique = [[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 0.0]]
    path = save(tmp_path / "a.geojson", [feature([oblique], name="Tumour"), feature([SQUARE], name="8")])

    labels = read_geojson(path, shape=(5, 5)).labels
    assert labels.tolist()[:3] == [[8, 8, 9, 0, 0], [8, 8, 0, 0, 0], [9, 0, 0, 0, 0]]


def test_points_and_lines_are_left_out_with_a_warning(tmp_path: Path) -> None:
    content = {"type": "FeatureCollection", "features": [feature([SQUARE]), feature([1, 1], "Point")]}

    with pytest.warns(LightSamWarning, match="1 features are no areas"):
        assert read_geojson(save(tmp_path / "a.geojson", content)).labels.tolist() == [[1, 1], [1, 1]]


def test_an_object_outside_the_image_is_cut_off(tmp_path: Path) -> None:
    outside = [[[x - 5, y + 100] for x, y in SQUARE]]
    path = save(tmp_path / "a.geojson", [feature(outside), feature([[[x - 1, y - 1] for x, y in SQUARE]])])

    assert read_geojson(path, shape=(2, 2)).labels.tolist() == [[2, 0], [0, 0]]


# --- bad input

LONG = [[0, 0], *([i % 2, 1e6 * (i % 2)] for i in range(60)), [0, 0]]
BAD = {
    "not JSON": "{",
    "not text": "\ud800",
    "a number": "1" * 10_000,
    "NaN": json.dumps([feature([[[0, 0], [1, float("nan")], [1, 1]]])]),
    "too large a number": json.dumps([feature([[[0, 0], [1, 0], [1, 1]]])]).replace("[1, 1]", "[1e999, 1]"),
    "too large an integer": json.dumps([feature([[[0, 0], [10**400, 0], [1, 1]]])]),
    "far away": json.dumps([feature([[[0, 0], [1e8, 0], [1e8, 1e8]]])]),
    "nested without end": "[" * 100_000,
    "another object": '{"type": "Topology"}',
    "no list": '{"type": "FeatureCollection", "features": 3}',
    "no feature": "[3]",
    "no areas": "[]",
    "a line": json.dumps([feature(SQUARE, "LineString")]),
    "text for numbers": json.dumps([feature([[["a", "b"]] * 4])]),
    "rings of rings": json.dumps([feature([[SQUARE]])]),
    "flat": json.dumps([feature(SQUARE)]),
    "nothing": json.dumps([feature(None)]),
    "an object": json.dumps([feature({"a": 1}, "MultiPolygon")]),
    "two corners": json.dumps([feature([SQUARE[:2]])]),
    "a billion planes": json.dumps([{"geometry": {**feature([SQUARE])["geometry"], "plane": {"z": 10**12}}}]),
    "half a plane": json.dumps([{"geometry": {**feature([SQUARE])["geometry"], "plane": {"z": 0.5}}}]),
    "a size that lies": json.dumps(
        {
            "type": "FeatureCollection",
            "imageSize": {"height": 10**9, "width": 9},
            "features": [feature([SQUARE])],
        }
    ),
    "an endless outline": json.dumps([feature([LONG])]),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_file_is_an_error_of_ours(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.geojson"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))

    with pytest.raises(FileError, match=r"a\.geojson"):
        read_geojson(path)


def test_odd_sizes_and_properties_are_passed_over(tmp_path: Path) -> None:
    content = {"type": "FeatureCollection", "imageSize": {"height": "a"}, "features": [feature([SQUARE])]}
    content["features"][0]["properties"] = None
    assert read_geojson(save(tmp_path / "a.geojson", content)).labels.shape == (2, 2)

    names = ["0", "-1", "99999999999", "4294967297", "\u0663", "2", "2", True, 7, None]
    path = save(tmp_path / "b.geojson", [feature([SQUARE], name=name) for name in names])
    assert read_geojson(path).labels.max() == 15  # the last of eight that have no id of their own


def test_ids_at_their_limit_leave_room_below() -> None:
    drawn = [filling.Drawn(name, []) for name in ("2147483647", "a", "1", "b")]

    assert filling.number_objects(drawn).tolist() == [2147483647, 2, 1, 3]


@pytest.mark.filterwarnings("ignore:.*are no areas")
def test_truncations_and_mutations_give_labels_or_an_error_of_ours(
    tmp_path: Path, awkward: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "MOST_PIXELS", 10_000)
    write_objects(tmp_path / "good.geojson", Objects(awkward[:8, :13], nuclei=awkward[:8, :13]))
    good = (tmp_path / "good.geojson").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(good)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.choice(list(b'0123456789.-e[]{},":nt '))
        for bad in (bytes(data), good[: rng.integers(len(good))]):
            (tmp_path / "a.geojson").write_bytes(bad)
            with suppress(LightSamError):
                assert read_geojson(tmp_path / "a.geojson").labels.size <= 10_000


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        read_geojson(tmp_path / "a.geojson")
