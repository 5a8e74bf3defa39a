import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.merge import Piece, paint, write_pieces
from napari_lightsam.errors import ConfigError

EIGHT = np.ones((3, 3))
SHAPE = (40, 50)


def disc(y, x, r, shape=SHAPE):
    rows, columns = np.indices(shape)
    return (rows - y) ** 2 + (columns - x) ** 2 <= r**2


def mask(plane, iou=0.9):
    return dataclasses.replace(crop_mask(plane), iou=iou)


def check(labels, scores):
    """Ids are 1..n without gaps, and each is one 8-connected object."""
    assert labels.dtype == np.int32
    assert scores.dtype == np.float32
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, len(scores) + 1))
    for i in range(1, len(scores) + 1):
        assert ndimage.label(labels == i, EIGHT)[1] == 1, i


circles = st.tuples(st.integers(0, 39), st.integers(0, 49), st.integers(1, 15), st.integers(0, 12))


@settings(max_examples=50, deadline=None)
@given(st.lists(circles, max_size=12), st.integers(0, 999))
def test_every_label_is_one_connected_object_and_nothing_depends_on_chance(items, seed):
    noise = np.random.default_rng(seed)
    planes = [
        disc(y, x, r) & ~disc(y, x, min(h, r - 1)) & (noise.random(SHAPE) > 0.03) for y, x, r, h in items
    ]
    masks = [mask(plane, 1 - i / 20) for i, plane in enumerate(planes)]
    labels, scores = paint(masks, SHAPE, min_area=4)
    check(labels, scores)
    again, _ = paint(masks, SHAPE, min_area=4)
    assert labels.tobytes() == again.tobytes()
    if len(scores):
        assert np.bincount(labels.ravel())[1:].min() >= 4


def test_earlier_masks_lie_on_top_and_a_covered_one_is_dropped():
    labels, scores = paint([mask(disc(20, 20, 10), 0.9), mask(disc(20, 22, 10), 0.8)], SHAPE)
    np.testing.assert_array_equal(labels == 1, disc(20, 20, 10))
    assert scores.tolist() == pytest.approx([0.9])


def test_a_touching_object_keeps_what_is_free_of_it():
    labels, scores = paint([mask(disc(20, 15, 10)), mask(disc(20, 31, 10))], SHAPE)
    check(labels, scores)
    assert len(scores) == 2
    assert np.count_nonzero(labels == 2) > 0.75 * disc(20, 31, 10).sum()


def test_no_ring_is_left_of_an_object_around_a_slightly_smaller_one():
    labels, scores = paint([mask(disc(20, 20, 10)), mask(disc(20, 20, 12)), mask(disc(20, 20, 11))], SHAPE)
    assert len(scores) == 1
    assert labels.max() == 1


def test_a_cell_around_a_small_nucleus_keeps_its_wide_ring():
    labels, scores = paint([mask(disc(20, 20, 5)), mask(disc(20, 20, 16))], SHAPE)
    check(labels, scores)
    assert len(scores) == 2
    assert labels[20, 20] == 1
    assert labels[20, 33] == 2


def test_free_pixels_inside_an_object_in_a_filled_hole_do_not_split_a_label():
    inner = disc(20, 25, 3) & ~disc(20, 25, 1)  # a ring whose hole is too large to be filled
    outer = disc(20, 25, 18)
    labels, scores = paint([mask(inner), mask(outer)], SHAPE)
    check(labels, scores)
    assert len(scores) == 2


def test_the_largest_object_is_not_dropped_for_being_large():
    plane = np.zeros(SHAPE, bool)
    plane[1:39, 1:49] = True
    labels, _ = paint([mask(plane)], SHAPE)
    np.testing.assert_array_equal(labels == 1, plane)


def test_objects_below_the_least_area_and_empty_masks_are_left_out():
    labels, scores = paint(
        [mask(disc(5, 5, 1)), mask(np.zeros(SHAPE, bool)), mask(disc(20, 20, 5))], SHAPE, min_area=20
    )
    assert len(scores) == 1
    assert labels[5, 5] == 0


def test_no_masks_give_an_empty_label_image():
    labels, scores = paint([], (3, 4))
    assert labels.shape == (3, 4)
    assert labels.sum() == len(scores) == 0


class OnDisk:
    """An array that takes slices and can be neither read nor changed in place."""

    def __init__(self, shape, dtype="int32", chunks=None):
        self.shape, self.dtype, self.chunks = shape, np.dtype(dtype), chunks
        self.written, self.parts = np.full(shape, 99, dtype), []

    def __setitem__(self, index, values):
        self.parts.append(tuple((axis.start, axis.stop) for axis in index))
        self.written[index] = values


@settings(max_examples=25, deadline=None)
@given(st.lists(circles, max_size=8), *[st.tuples(st.integers(1, 60), st.integers(1, 60))] * 2)
def test_labels_do_not_depend_on_how_much_is_written_at_once(items, part, other):
    pieces = [Piece.of(mask(disc(y, x, r))) for y, x, r, _ in items]  # overlapping: the last one lies on top
    whole = write_pieces(pieces, SHAPE)
    old = np.full(SHAPE, 7, np.int16)
    assert write_pieces(pieces, SHAPE, old, part=part) is old
    stored = OnDisk(SHAPE)
    write_pieces(pieces, SHAPE, stored, part=other)
    np.testing.assert_array_equal(old, whole)
    np.testing.assert_array_equal(stored.written, whole)


def test_disjoint_objects_come_out_as_they_were():
    planes = [disc(8, 8, 6), disc(25, 12, 9), disc(20, 35, 12)]
    labels, scores = paint([mask(plane) for plane in planes], SHAPE)
    assert len(scores) == 3
    for i, plane in enumerate(planes):
        np.testing.assert_array_equal(labels == i + 1, plane)


@pytest.mark.parametrize(("pixels", "rows", "columns"), [(10, 10, 20), (450, 10, 40), (25 * 50, 20, 50)])
def test_arrays_on_disk_are_written_in_whole_chunks_each_once(monkeypatch, pixels, rows, columns):
    monkeypatch.setattr("napari_lightsam.engine.merge._PART_PIXELS", pixels)
    stored = OnDisk(SHAPE, chunks=(10, 20))
    paint([mask(disc(20, 20, 10))], SHAPE, out=stored)
    assert stored.parts == [
        ((top, min(top + rows, 40)), (left, min(left + columns, 50)))
        for top in range(0, 40, rows)
        for left in range(0, 50, columns)
    ]
    np.testing.assert_array_equal(stored.written == 1, disc(20, 20, 10))


BAD_OUT = {
    "other shape": (np.zeros((40, 51), np.int32), "shape"),
    "three axes": (np.zeros((40, 50, 1), np.int32), "shape"),
    "fractions": (np.zeros(SHAPE, np.float32), "integer"),
    "flags": (np.zeros(SHAPE, bool), "integer"),
    "a list": ([[0]], "integer"),
    "read-only": (np.broadcast_to(np.int32(0), SHAPE), "read-only"),
}


@pytest.mark.parametrize(("out", "message"), BAD_OUT.values(), ids=BAD_OUT.keys())
def test_an_array_that_does_not_fit_is_refused(out, message):
    with pytest.raises(ConfigError, match=message):
        paint([mask(disc(20, 20, 10))], SHAPE, out=out)


def test_an_array_without_room_for_the_ids_is_refused_before_it_is_touched():
    planes = np.zeros((130, *SHAPE), bool)
    for i, plane in enumerate(planes):
        plane[2 * (i // 25) : 2 * (i // 25) + 1, 2 * (i % 25)] = True
    out = np.full(SHAPE, 5, np.int8)
    with pytest.raises(ConfigError, match="room for the label 130"):
        paint([mask(plane) for plane in planes], SHAPE, out=out)
    assert (out == 5).all()
    labels, _ = paint([mask(plane) for plane in planes], SHAPE, out=out.astype(np.uint8))
    assert labels.max() == 130


def test_memory_grows_with_the_objects_not_with_the_plane(tmp_path):
    out = np.memmap(tmp_path / "labels", np.int32, "w+", shape=(8192, 8192))  # 256 MiB
    source = np.random.default_rng(0)
    one = crop_mask(disc(20, 20, 15))
    masks = [dataclasses.replace(one, offset=tuple(source.integers(0, 8100, 2).tolist())) for _ in range(50)]
    tracemalloc.start()
    labels, scores = paint(masks, out.shape, out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels is out
    assert peak < 2**20
    y, x = masks[0].offset
    assert labels[y + 15, x + 15] == 1
    assert len(scores) > 45
