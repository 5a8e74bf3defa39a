"""What the benchmarks of scale and load say follows from what was measured."""

import numpy as np
import pytest
from benchmarks.load import judge
from benchmarks.scale import like_lines, plan, straight_parts
from benchmarks.scenes import large


def test_the_longest_straight_part_of_an_outline_at_a_border_is_found_and_none_elsewhere():
    labels = np.zeros((60, 60), np.uint32)
    labels[10:30, 5:45] = 1  # its lower edge is 40 px long, at row 30
    labels[30:50, 5:20] = 2
    assert straight_parts(labels, [[30], []]).max() == 40
    assert straight_parts(labels, [[40], []]).max() == 0
    assert straight_parts(labels, [[], [20]]).max() == 20


def test_lines_elsewhere_show_the_same_nuclei_away_from_all_seams():
    plane, seams = large(6144).labels > 0, (1107, 2200, 3300, 4400)
    for seam, other in zip(seams, like_lines(seams, 6144), strict=True):
        assert np.array_equal(plane[seam - 3 : seam + 3], plane[other - 3 : other + 3])
        assert min(abs(other - one) for one in seams) > 64


def test_memory_is_compared_between_the_second_and_the_last_tenth_of_the_images():
    memory = [*range(10, 20), *[100.0] * 80, *[104.0] * 10]
    got = judge({"images": 100, "failed": 0, "seconds": 1.0, "memory": memory})
    assert (got["early_mib"], got["late_mib"], got["most_mib"]) == (100, 104, 104)
    assert got["growth"] == pytest.approx(0.04)


def test_a_plan_needs_a_fleet_for_a_hundredth_of_the_time_of_one_worker():
    got = plan(
        {
            "seconds_per_mpx": 0.9, "workers": 2, "mpx": 256.0, "objects": 25_600, "label_mib_per_mpx": 0.1,
            "peak_worker_mib": 1024.0,
        }
    )  # fmt: skip
    assert got["worker_seconds_per_mpx"] == pytest.approx(1.8)
    assert got["images_worker_hours"] == pytest.approx(50)
    assert got["slide_worker_hours"] == pytest.approx(1.8 / 3600 * 10_000e6 / 2**20)
    assert got["slide_fleet_hours"] == pytest.approx(got["slide_worker_hours"] / got["fleet"])
    assert got["slide_objects"] == pytest.approx(100 * 10_000e6 / 2**20)
    assert got["fleet_gib"] == got["fleet"]
