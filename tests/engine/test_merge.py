import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.merge import paint

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
