"""Linking planes: objects keep their id from plane to plane, whatever the planes call them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_lightsam.engine.linking import PlaneLinker, assign, link_planes
from napari_lightsam.errors import ConfigError, ImageError

PLANES = arrays(np.int32, st.tuples(st.integers(1, 5), st.just(6), st.just(7)), elements=st.integers(0, 5))
QUICK = settings(max_examples=60, deadline=None)


def row(text: str) -> np.ndarray:
    """A plane of one row: a digit a pixel."""
    return np.array([[int(c) for c in text]])


def linked(*rows: str, **options: object) -> list[str]:
    labels, _ = link_planes([row(r) for r in rows], **options)
    return ["".join(map(str, plane[0])) for plane in labels]


def discs(*centres: tuple[int, int, int]) -> np.ndarray:
    """A plane of discs (row, column, radius) with ids in the order given."""
    y, x = np.mgrid[:64, :64]
    plane = np.zeros((64, 64), int)
    for i, (cy, cx, r) in enumerate(centres, start=1):
        plane[(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = i
    return plane


def test_an_object_keeps_its_id_whatever_the_planes_call_it():
    assert linked("1100220", "9900030", "0500080") == ["1100220", "1100020", "0100020"]


def test_what_overlaps_too_little_is_another_object():
    assert linked("1111000", "0002222") == ["1111000", "0002222"]  # IoU 1/7


def test_the_least_overlap_counts_as_enough():
    assert linked("1110", "0100", min_iou=1 / 3) == ["1110", "0100"]
    assert linked("1110", "0100", min_iou=0.34) == ["1110", "0200"]


def test_links_are_one_to_one_and_of_the_greatest_total_overlap():
    # The first object overlaps both halves of the second plane; the larger half goes on.
    assert linked("1111111", "3332222") == ["1111111", "2221111"]
    # Alone, 1 would go on as the second object; together they overlap more the other way round.
    assert linked("1111222222", "1111112222") == ["1111222222", "1111112222"]


def test_a_chain_of_rivals_is_solved_as_a_whole():
    first, second = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 2, 3, 3])
    assert assign(first, second, np.array([0.31, 0.5, 0.4, 0.45, 0.6])).tolist() == [0, 2, 4]
    assert assign(first, second, np.array([0.31, 0.9, 0.4, 0.9, 0.31])).tolist() == [1, 3]


def test_a_gap_of_one_plane_is_bridged_and_of_two_is_not():
    labels, table = link_planes([row(r) for r in ("110", "000", "220", "000", "000", "330")])
    assert labels[:, 0, 0].tolist() == [1, 0, 1, 0, 0, 2]
    assert table["gap_bridged"].tolist() == [True, False]
    assert table["n_planes"].tolist() == [2, 1]


def test_a_gap_is_left_open_when_it_is_not_to_be_bridged():
    assert linked("110", "000", "110", bridge_gap=False) == ["110", "000", "220"]


def test_an_object_that_is_there_in_between_is_not_bridged_to_a_second_one():
    # The upper object went on; what appears two planes later in its old place is new.
    assert linked("1111000", "0011110", "2200111") == ["1111000", "0011110", "2200111"]


def test_the_table_says_what_to_look_at():
    planes = [discs((20, 20, 4), (50, 50, 6)), discs((20, 20, 7), (50, 50, 6)), discs((20, 20, 7))]
    planes[0] = np.where(discs((10, 50, 3)) > 0, 3, planes[0])
    _, table = link_planes(planes)
    by_label = table.set_index("label")
    assert by_label["n_planes"].tolist() == [1, 3, 2]  # numbered by their first pixel
    assert by_label["single_plane"].tolist() == [True, False, False]
    assert by_label["area_jump"].tolist() == [False, True, False]
    assert by_label["first_plane"].tolist() == [0, 0, 0]
    assert by_label["last_plane"].tolist() == [0, 2, 1]
    assert by_label["volume_px"][3] == 2 * np.count_nonzero(planes[1] == 2)
    assert by_label["area_ratio"][2] == pytest.approx(149 / 49)


def test_scores_are_averaged_over_an_objects_planes():
    linker = PlaneLinker()
    linker.add(row("0220110"), np.array([0.5, 0.8]))
    linker.add(row("0110000"), np.array([0.4]))
    assert linker.table()["score"].tolist() == pytest.approx([0.6, 0.5])
    assert linker.n_objects == 2


def test_planes_are_written_one_by_one_and_only_two_are_held():
    alive: list[int] = []

    class Counted(np.ndarray):
        def __del__(self) -> None:
            alive.remove(1)

    def planes():
        for _ in range(20):
            alive.append(1)
            yield row("0110220").view(Counted)
            assert len(alive) <= 3

    out = np.zeros((20, 1, 7), np.uint16)
    labels, table = link_planes(planes(), out=out)
    assert labels is out
    assert (out == out[0]).all()
    assert len(table) == 2


def test_no_planes_and_empty_planes_give_no_objects():
    assert link_planes([])[0].shape == (0, 0, 0)
    labels, table = link_planes([np.zeros((3, 4), int)] * 3)
    assert labels.shape == (3, 3, 4)
    assert len(table) == 0
    assert {"single_plane", "area_jump", "gap_bridged"} <= set(table)


@pytest.mark.parametrize("plane", [np.ones((2, 2)), np.ones((2, 2, 2), int), -np.ones((2, 2), int)])
def test_what_is_no_plane_of_labels_is_refused(plane):
    with pytest.raises(ImageError, match="2-D array of integers from 0"):
        PlaneLinker().add(plane)


def test_planes_of_different_shapes_are_refused():
    with pytest.raises(ImageError, match=r"plane 1 has \(1, 2\), those before \(1, 3\)"):
        link_planes([row("110"), row("11")])


@pytest.mark.parametrize("min_iou", [0, -1, 1.1])
def test_an_overlap_out_of_range_is_refused(min_iou):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        PlaneLinker(min_iou=min_iou)


@QUICK
@given(PLANES, st.randoms(use_true_random=False))
def test_the_planes_own_numbers_do_not_matter(planes, random):
    renamed = planes.copy()
    for plane in renamed:
        names = random.sample(range(1, 100), 5)
        plane[...] = np.array([0, *names])[plane]
    assert (link_planes(planes)[0] == link_planes(renamed)[0]).all()


@QUICK
@given(PLANES)
def test_identical_planes_give_identical_ids(planes):
    labels, table = link_planes([planes[0]] * 3)
    assert (labels == labels[0]).all()
    assert (table["n_planes"] == 3).all()


@QUICK
@given(PLANES)
def test_linking_renames_objects_and_does_nothing_else(planes):
    labels, table = link_planes(planes)
    ids = np.unique(labels[labels > 0])
    assert ids.tolist() == list(range(1, len(ids) + 1)) == table["label"].tolist()
    assert table["volume_px"].tolist() == np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:].tolist()
    for plane, found in zip(planes, labels, strict=True):
        pairs = np.unique(np.stack([plane.ravel(), found.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@QUICK
@given(PLANES)
def test_neighbours_share_an_id_only_where_they_overlap_enough(planes):
    labels, _ = link_planes(planes)
    for a, b in pairwise(labels):
        for i in np.intersect1d(a, b)[1:] if 0 in a and 0 in b else np.intersect1d(a, b):
            assert np.count_nonzero((a == i) & (b == i)) >= 0.3 * np.count_nonzero((a == i) | (b == i))
