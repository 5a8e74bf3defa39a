"""Corrections are checked for sense, and parted so that what is tested was never learned from."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lightsam.errors import TrainError
from napari_lightsam.train.corrections import Corrected, divide, labelled_region, numbered


def squares(rows, columns, side=12, gap=8, start=1):
    """Labels of separate squares on a lattice."""
    step = side + gap
    labels = np.zeros((rows * step, columns * step), np.int32)
    for k in range(rows * columns):
        y, x = k // columns * step + gap // 2, k % columns * step + gap // 2
        labels[y : y + side, x : x + side] = start + k
    return labels


def corrected(labels, *, regions=None, name="image", seed=0):
    image = np.random.default_rng(seed).random(labels.shape)
    return Corrected(image, labels, None, regions, name)


def overlap(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_one_image_is_cut_between_its_objects():
    division = divide([corrected(squares(6, 6))])
    (learned,), held = division.learned, division.held_out
    assert overlap(learned.box, held.box) == 0
    assert sum(division.objects) == 36
    assert 4 <= division.objects[1] <= 18
    cut = [side for side in held.box if side not in (0, 120)]
    assert all(side % 20 >= 16 or side % 20 <= 4 for side in cut)  # in a gap, through no object
    assert division.object_size == pytest.approx(13.54, abs=0.01)


def test_of_several_images_a_whole_one_is_held_out():
    division = divide([corrected(squares(4, 4), seed=i, name=f"image {i}") for i in range(3)])
    assert division.held_out.box == (0, 0, 80, 80)
    assert {part.image for part in division.learned} == {0, 1, 2} - {division.held_out.image}
    assert division.objects == (32, 16)


def test_what_lies_outside_of_the_regions_does_not_count():
    labels = squares(8, 8)
    labels[100:] = 1  # a mess that nobody corrected
    division = divide([corrected(labels, regions=((0, 0, 100, 100),))])
    assert sum(division.objects) == 25
    assert all(part.box[2] <= 100 and part.box[3] <= 100 for part in (*division.learned, division.held_out))


def test_regions_that_overlap_share_no_pixel_afterwards():
    division = divide([corrected(squares(8, 8), regions=((0, 0, 100, 160), (60, 40, 160, 160)))])
    boxes = [part.box for part in (*division.learned, division.held_out)]
    assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[:i])


def test_the_same_pixels_annotated_twice_alike_are_not_both_learned_and_tested():
    labels = squares(6, 6)
    division = divide([corrected(labels), corrected(labels * 7)])
    assert sum(division.objects) == 36
    assert {part.image for part in (*division.learned, division.held_out)} == {0}


def test_without_a_region_the_rectangle_around_the_labels_counts():
    labels = np.zeros((200, 200), int)
    labels[100:120, 40:60] = 2**31 - 1
    y0, x0, y1, x1 = labelled_region(labels)
    assert (y0, x0, y1, x1) == (89, 29, 131, 71)
    assert labelled_region(np.zeros((9, 9), int)) == (0, 0, 0, 0)


def test_large_ids_are_numbered():
    ids, labels = numbered(np.array([[0, 5], [2**40, 5]]))
    assert ids.tolist() == [5, 2**40]
    assert labels.tolist() == [[0, 1], [2, 1]]


def scraps():
    labels = squares(6, 6)
    return np.where(labels > 0, labels % 6 + 1, 0)


def background_with_an_id():
    labels = squares(6, 6, side=6, gap=14)
    return np.where(labels == 0, 99, labels)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        pytest.param(squares(3, 3), "9 objects are too few.*at least 12", id="too little"),
        pytest.param(np.zeros((90, 90), int), "no labels", id="none"),
        pytest.param(squares(6, 6).astype(float), "dtype float64.*integers", id="no ids"),
        pytest.param(-squares(6, 6), "0 or more", id="negative"),
        pytest.param((squares(6, 6) > 0).astype(int), "36 pieces have the id 1.*id of its own", id="a mask"),
        pytest.param(scraps(), "6 of 6 ids consist of scraps", id="scraps"),
        pytest.param(background_with_an_id(), "object 99 covers 91%.*background", id="background"),
        pytest.param(squares(9, 9, side=3, gap=3), "9 pixels, too small", id="specks"),
        pytest.param(squares(2, 8, side=40, gap=0)[:, :200], "too few", id="cut"),
        pytest.param(np.pad(squares(4, 4, side=4, gap=2), 8), "all in one place.*elsewhere", id="one place"),
    ],
)
def test_what_makes_no_sense_is_refused_with_advice(labels, words):
    with pytest.raises(TrainError, match=f"(?s){words}"):
        divide([corrected(labels)])


def test_labels_of_another_image_are_refused():
    item = Corrected(np.zeros((50, 60)), squares(3, 3), name="cells")
    with pytest.raises(TrainError, match=r"cells: the image has shape \(50, 60\), its labels \(60, 60\)"):
        divide([item])


def test_two_annotations_that_contradict_each_other_are_refused():
    labels = squares(6, 6)
    with pytest.raises(TrainError, match="first and second show the same pixels"):
        divide([corrected(labels, name="first"), corrected(np.roll(labels, 10, 1), name="second")])


def test_regions_that_are_too_small_are_refused():
    with pytest.raises(TrainError, match="at least 32 pixels"):
        divide([corrected(squares(6, 6), regions=((0, 0, 10, 120),))])
    with pytest.raises(TrainError, match="nothing to learn from"):
        divide([])
