"""The plane on disk is the one whose ground truth is known, and seams between blocks would show."""

import numpy as np
import pytest
import zarr
from benchmarks.large import check, choose_windows, longest_edge, true_labels, write_plane

from benchmarks import scenes

SIDE = 2100
BORDERS = [[900], [1300]]


@pytest.fixture(scope="module")
def truth():
    return true_labels(0, 0, SIDE, SIDE)


def test_the_plane_is_written_chunk_by_chunk_as_the_scene_that_fits_into_memory(tmp_path):
    write_plane(tmp_path / "plane.zarr", 1500)
    plane = zarr.open_array(tmp_path / "plane.zarr", mode="r")
    assert np.array_equal(plane[...], scenes.large(1500).image)


def test_every_part_of_the_ground_truth_agrees_with_the_whole(truth):
    part = true_labels(700, 1200, 300, 500)
    assert np.array_equal(part > 0, truth[700:1000, 1200:1700] > 0)
    whole = truth[700:1000, 1200:1700]
    pairs = {(int(a), int(b)) for a, b in zip(part[part > 0], whole[part > 0], strict=True)}
    assert len(pairs) == len(np.unique(part[part > 0]))  # one id for each of the whole's


def test_each_window_is_judged_beside_one_that_shows_it_mirrored(truth):
    (((y, x), (v, u)),) = choose_windows(SIDE, BORDERS, 3)
    window, other = truth[y : y + 1024, x : x + 1024] > 0, truth[v : v + 1024, u : u + 1024] > 0
    assert (y, x) == (900 - 512, 1300 - 512)
    assert (v, u) != (y, x)
    assert np.array_equal(window[::-1, ::-1], other)


def test_a_result_without_seams_is_alike_at_borders_and_elsewhere(truth):
    got = check(truth, BORDERS, choose_windows(SIDE, BORDERS, 1))
    assert got["ap50"] == got["found"] == got["found_mirrored"] == 1
    assert got["across"] == got["across_mirrored"] > 5
    assert got["split"] == got["split_mirrored"] == 0


def test_objects_cut_at_the_border_of_a_block_show(truth):
    cut = truth.copy()
    cut[900:][cut[900:] > 0] += truth.max()
    got = check(cut, BORDERS, choose_windows(SIDE, BORDERS, 1))
    assert got["split"] > 0.5
    assert got["edge"] > 20
    assert got["edge_mirrored"] < 20
    assert got["split_mirrored"] < 0.2


@pytest.mark.parametrize(
    ("labels", "length"),
    [
        pytest.param(np.zeros((5, 9), int), 0, id="nothing"),
        pytest.param(np.repeat([[1] * 9], 5, axis=0), 0, id="one object without an end"),
        pytest.param(np.repeat([[1] * 9, [2] * 9], 3, axis=0), 9, id="two objects"),
        pytest.param(np.array([[1] * 4 + [3] * 5, [2] * 9]), 5, id="the longer of two"),
        pytest.param(np.array([[0, 1, 0, 1], [1, 0, 1, 0]]), 1, id="never straight"),
    ],
)
def test_the_longest_straight_edge_is_measured(labels, length):
    assert longest_edge(labels) == length
