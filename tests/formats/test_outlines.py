"""Outlines on pixel edges: valid polygons whose area is the pixel count, whatever the objects look like."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from napari_lightsam.errors import ImageError
from napari_lightsam.formats import outlines as module
from napari_lightsam.formats.outlines import Outlines, trace_outlines


def polygons(outlines: Outlines) -> dict[int, shapely.MultiPolygon]:
    return {
        label: shapely.MultiPolygon(
            [shapely.Polygon(part[0][:, ::-1], [hole[:, ::-1] for hole in part[1:]]) for part in parts]
        )
        for label, parts in outlines.objects()
    }


def pixels(labels: np.ndarray, label: int) -> shapely.Geometry:
    y, x = np.nonzero(labels == label)
    return shapely.union_all(shapely.box(x, y, x + 1, y + 1))


def check(labels: np.ndarray) -> None:
    outlines = trace_outlines(labels)
    found = polygons(outlines)
    assert list(found) == sorted(set(np.unique(labels).tolist()) - {0})
    for label, shape in found.items():
        assert shapely.is_valid_reason(shape) == "Valid Geometry"
        assert shape.area == (labels == label).sum()
        assert shape.symmetric_difference(pixels(labels, label)).area == 0
        assert all(polygon.exterior.is_ccw for polygon in shape.geoms)
        assert not any(hole.is_ccw for polygon in shape.geoms for hole in polygon.interiors)


def test_every_outline_is_valid_and_covers_exactly_its_pixels(awkward: np.ndarray) -> None:
    check(awkward)


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_outlined_exactly(seed: int) -> None:
    """Noise has every way in which pixels can meet."""
    rng = np.random.default_rng(seed)
    for dtype in ("uint8", "uint16", "int32", "uint32", "int64"):
        check(rng.integers(0, 3, rng.integers(1, 11, 2)).astype(dtype))


def test_pixels_that_meet_at_a_corner_are_two_parts_and_holes_stay_holes(awkward: np.ndarray) -> None:
    found = polygons(trace_outlines(awkward))

    assert [len(shape.geoms) for shape in (found[3], found[7], found[11])] == [1, 3, 1]
    holes = [len(found[label].geoms[0].interiors) for label in (3, 70_000, 9, 11)]
    assert holes == [2, 1, 1, 2]


def test_outlines_have_corners_only_where_they_turn() -> None:
    outlines = trace_outlines(np.ones((50, 80), np.uint8))

    assert outlines.points.tolist() == [[0, 0], [0, 80], [50, 80], [50, 0]]


def test_70_000_objects_are_outlined_at_once(many: np.ndarray) -> None:
    outlines = trace_outlines(many)

    area = np.bincount(outlines.ids, outlines.areas())
    np.testing.assert_array_equal(area, np.bincount(many.ravel()) * (np.arange(len(area)) > 0))
    assert np.diff(outlines.parts).tolist() == [2] * 70_225


def test_a_long_outline_is_followed_to_its_end() -> None:
    comb = np.ones((400, 401), np.uint8)
    comb[1:, 1::2] = 0
    outlines = trace_outlines(comb)

    assert len(outlines.rings) == 2
    assert outlines.areas().tolist() == [int(comb.sum())]


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch, awkward: np.ndarray) -> None:
    whole = trace_outlines(awkward)
    monkeypatch.setattr(module, "_BAND", 1)
    banded = trace_outlines(awkward)

    np.testing.assert_array_equal(banded.points, whole.points)
    np.testing.assert_array_equal(banded.parts, whole.parts)


def test_an_empty_plane_has_no_outlines() -> None:
    outlines = trace_outlines(np.zeros((4, 5), int))

    assert list(outlines.objects()) == []
    assert outlines.areas().tolist() == []


@pytest.mark.parametrize("labels", [np.zeros((2, 3, 4), int), np.zeros((3, 4))], ids=["stack", "float"])
def test_what_is_no_plane_of_labels_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(ImageError, match="2-D array of integers"):
        trace_outlines(labels)
