"""Measurements of objects, against figures known by geometry and by plain NumPy."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.draw import disk, ellipse

import napari_lightsam
from napari_lightsam.errors import ImageError
from napari_lightsam.formats.tables import measure_objects

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"
TRUTH = Path(__file__).parents[1] / "data" / "samples"


def draw(*shapes: tuple, size: int = 200) -> np.ndarray:
    labels = np.zeros((size, size), np.int32)
    for i, shape in enumerate(shapes):
        labels[shape] = i + 1
    return labels


@pytest.fixture
def discs() -> np.ndarray:
    return draw(disk((60, 50), 20), disk((150, 140), 30))


def test_pixel_measures_of_discs_follow_geometry(discs: np.ndarray) -> None:
    table = measure_objects(discs)

    assert list(table["label"]) == [1, 2]
    np.testing.assert_allclose(table["area_px"], math.pi * np.array([20, 30]) ** 2, rtol=0.02)
    np.testing.assert_allclose(table["equivalent_diameter_px"], [40, 60], rtol=0.01)
    np.testing.assert_allclose(table["centroid_y"], [60, 150], atol=0.01)
    np.testing.assert_allclose(table["centroid_x"], [50, 140], atol=0.01)
    np.testing.assert_allclose(table["perimeter_px"], 2 * math.pi * np.array([20, 30]), rtol=0.06)
    assert (table["eccentricity"] < 0.1).all()
    assert (table["solidity"] > 0.95).all()
    assert list(table.loc[0, ["bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1"]]) == [41, 31, 80, 70]


def test_without_calibration_there_are_no_micrometres(discs: np.ndarray) -> None:
    assert not [c for c in measure_objects(discs).columns if "_um" in c]


def test_square_pixels_scale_every_length(discs: np.ndarray) -> None:
    table = measure_objects(discs, pixel_size=(0.5, 0.5))

    np.testing.assert_allclose(table["area_um2"], table["area_px"] * 0.25)
    for name in ("equivalent_diameter", "axis_major", "axis_minor", "perimeter"):
        np.testing.assert_allclose(table[f"{name}_um"], table[f"{name}_px"] * 0.5)


def test_oblong_pixels_are_measured_not_scaled() -> None:
    table = measure_objects(draw(ellipse(100, 100, 30, 60)), pixel_size=(0.4, 0.2)).iloc[0]

    assert table["area_um2"] == pytest.approx(table["area_px"] * 0.08)
    assert table["axis_major_px"] == pytest.approx(120, rel=0.02)
    assert table["axis_minor_px"] == pytest.approx(60, rel=0.02)
    assert table["axis_major_um"] == pytest.approx(24, rel=0.02)
    assert table["axis_minor_um"] == pytest.approx(24, rel=0.02)
    assert table["eccentricity"] < 0.25  # a circle in micrometres
    assert math.isnan(table["perimeter_um"])


def test_intensities_equal_plain_numpy_on_a_real_image() -> None:
    image = tifffile.imread(SAMPLES / "nuclei_tissue_16bit.tif")
    labels = tifffile.imread(TRUTH / "nuclei_tissue_16bit_labels.tif").astype(np.int32)

    table = measure_objects(labels, image)

    assert len(table) == len(np.unique(labels)) - 1 > 10
    for row in table.itertuples():
        values = image[labels == row.label].astype(float)
        assert row.area_px == len(values)
        assert (row.intensity_mean, row.intensity_sd) == pytest.approx((values.mean(), values.std()))
        assert (row.intensity_min, row.intensity_max) == (values.min(), values.max())
        assert row.intensity_sum == pytest.approx(values.sum())


def test_every_named_channel_has_its_own_columns(discs: np.ndarray) -> None:
    table = measure_objects(discs, {"DAPI": discs * 10, "GFP": discs * 0.5})

    assert list(table["intensity_mean_DAPI"]) == [10, 20]
    assert list(table["intensity_max_GFP"]) == [0.5, 1.0]
    assert "intensity_mean" not in table


def test_nan_pixels_do_not_spoil_an_object(discs: np.ndarray) -> None:
    plane = discs * 3.0
    plane[60, 50] = np.nan
    plane[discs == 2] = np.inf
    table = measure_objects(discs, plane)

    assert table["intensity_mean"][0] == 3
    assert math.isnan(table["intensity_mean"][1])
    assert math.isnan(table["intensity_min"][1])


def test_scores_follow_the_label_even_when_ids_are_missing() -> None:
    labels = draw(disk((60, 50), 9), disk((90, 90), 9), disk((150, 140), 9))
    labels[labels == 2] = 0

    table = measure_objects(labels, scores=np.array([0.9, 0.8, 0.7], np.float32))

    assert list(table["score"]) == pytest.approx([0.9, 0.7])


@pytest.mark.parametrize(
    ("where", "touches"),
    [((100, 100), False), ((5, 100), True), ((100, 5), True), ((195, 100), True), ((100, 195), True)],
    ids=["inside", "top", "left", "bottom", "right"],
)
def test_objects_at_the_border_are_marked(where: tuple[int, int], touches: bool) -> None:
    labels = draw(disk(where, 20, shape=(200, 200)))

    assert list(measure_objects(labels)["touches_border"]) == [touches]


def test_no_objects_make_an_empty_table_with_all_columns(discs: np.ndarray) -> None:
    full = measure_objects(discs, discs, (0.5, 0.4), np.ones(2))
    empty = measure_objects(discs * 0, discs, (0.5, 0.4), np.ones(0))

    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)


def test_single_pixels_and_lines_are_measured_quietly() -> None:
    labels = draw((5, 5), (slice(10, 11), slice(20, 40)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = measure_objects(labels, labels, (0.5, 0.4))
    assert list(table["area_px"]) == [1, 20]


@pytest.mark.parametrize(
    ("labels", "plane"),
    [
        (np.zeros((4, 4)), None),
        (np.zeros((4, 4, 4), int), None),
        (np.zeros((4, 4), int), np.zeros((4, 5))),
    ],
    ids=["float labels", "3-D labels", "another shape"],
)
def test_arrays_that_do_not_fit_are_refused(labels: np.ndarray, plane: np.ndarray | None) -> None:
    with pytest.raises(ImageError, match=r"shape"):
        measure_objects(labels, plane)


def test_ids_of_any_size_are_measured_like_small_ones(discs: np.ndarray) -> None:
    ids = np.array([0, 300_000_000, 2**32 - 1], np.uint32)
    values = np.arange(discs.size, dtype=np.float64).reshape(discs.shape)
    tracemalloc.start()
    large = measure_objects(ids[discs], values, pixel_size=(0.5, 0.25))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 50e6
    assert large["label"].tolist() == ids[1:].tolist()
    small = measure_objects(discs, values, pixel_size=(0.5, 0.25))
    pd.testing.assert_frame_equal(large.drop(columns="label"), small.drop(columns="label"))
