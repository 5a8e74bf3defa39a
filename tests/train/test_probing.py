"""Where corrective clicks and careless boxes go, and what the proposal head is asked for."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.masks import Mask, crop_mask
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import SAMPLERS
from napari_lightsam.train.metrics import count_boxed
from napari_lightsam.train.probing import (
    careless_boxes,
    choose_objects,
    place_correction,
    proposed_boxes,
    true_boxes,
)

EMPTY = Mask((0, 0), np.zeros((0, 0), bool))


@pytest.fixture
def field():
    """Object 1 fills rows 10 to 18 and columns 10 to 18; object 2 lies to its right."""
    labels = np.zeros((40, 40), np.int32)
    labels[10:19, 10:19] = 1
    labels[10:19, 19:28] = 2
    return labels


def answer(*places):
    mask = np.zeros((40, 40), bool)
    for rows, columns in places:
        mask[rows, columns] = True
    return crop_mask(mask)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        pytest.param(EMPTY, ((14, 14), True), id="nothing found: the object's innermost point"),
        pytest.param(answer(np.s_[10:19, 10:19]), None, id="a perfect mask needs no click"),
        pytest.param(answer(np.s_[10:19, 10:14]), ((14, 16), True), id="what is missing is clicked"),
        pytest.param(answer(np.s_[10:19, 10:28]), ((14, 23), False), id="what is too much is clicked off"),
        pytest.param(
            answer(np.s_[10:19, 10:16], np.s_[10:19, 30:35]),
            ((14, 32), False),
            id="the larger error comes first",
        ),
        pytest.param(
            answer(np.s_[10:19, 10:16], np.s_[30:32, 30:32]), ((14, 17), True), id="and not the farther one"
        ),
    ],
)
def test_a_correction_goes_to_the_middle_of_the_largest_error(field, mask, expected):
    thing = choose_objects(field)[0]
    assert place_correction(field, thing, mask) == expected


def test_errors_are_told_apart_by_region_not_added_up(field):
    thing = choose_objects(field)[0]
    # Two separate missed strips of 18 pixels each lose to one wrong square of 25.
    mask = answer(np.s_[12:17, 10:19], np.s_[25:30, 25:30])
    assert place_correction(field, thing, mask) == ((27, 27), False)


def test_a_pixel_is_not_clicked_twice(field):
    thing = choose_objects(field)[0]
    clicked: list[tuple[int, int]] = []
    for _ in range(6):
        correction = place_correction(field, thing, EMPTY, clicked)
        assert correction is not None
        clicked.append(correction[0])
    assert len(set(clicked)) == 6
    assert all(field[place] == 1 for place in clicked)


@settings(deadline=None)
@given(hnp.arrays(np.int32, (9, 11), elements=st.integers(0, 2)), hnp.arrays(bool, (9, 11)))
def test_a_correction_always_lies_in_an_error_and_says_which(labels, mask):
    for thing in choose_objects(labels):
        truth = labels == thing.label
        correction = place_correction(labels, thing, crop_mask(mask))
        if correction is None:
            assert (truth == mask).all()
        else:
            place, inside = correction
            assert truth[place] != mask[place]
            assert inside == truth[place]


def test_objects_are_described_and_chosen_evenly():
    labels = np.repeat(np.arange(1, 11), 3).reshape(1, -1).astype(np.int32)
    assert [thing.label for thing in choose_objects(labels, 5)] == [1, 3, 5, 7, 9]
    first = choose_objects(labels)[0]
    assert (first.area, first.click, first.box) == (3, (0, 1), (0, 0, 1, 3))
    assert true_boxes(labels)[1].tolist() == [0, 3, 1, 6]
    assert true_boxes(np.zeros((4, 4), np.int32)).shape == (0, 4)


def test_large_ids_take_no_memory():
    labels = np.zeros((64, 64), np.int32)
    labels[10:20, 10:20] = 50_000_000
    tracemalloc.start()
    (thing,), boxes = choose_objects(labels), true_boxes(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    assert (thing.label, thing.area, thing.box) == (50_000_000, 100, (10, 10, 20, 20))
    assert boxes.tolist() == [[10, 10, 20, 20]]


@settings(deadline=None)
@given(hnp.arrays(float, (5, 4), elements=st.floats(-0.49, 0.49)))
def test_careless_boxes_stay_boxes_inside_the_image(shift):
    boxes = np.array([[0, 0, 1, 1], [5, 5, 20, 8], [0, 10, 30, 40], [29, 39, 30, 40], [3, 3, 9, 9]], float)
    drawn = careless_boxes(boxes, shift, (30, 40))
    assert (drawn[:, :2] < drawn[:, 2:]).all()
    assert (drawn >= 0).all()
    assert (drawn <= [30, 40, 30, 40]).all()


def test_the_proposals_are_those_that_everything_mode_asks_for(segmenter, nuclei, monkeypatch):
    image, labels = nuclei
    asked = []

    def watched(tile, config):
        for ask in object_aware(tile, config):
            asked.append(ask.prompts.boxes)
            yield ask

    object_aware = SAMPLERS["object-aware"]
    monkeypatch.setitem(SAMPLERS, "object-aware", watched)
    embedding = segmenter.lazy_embedding(image, object_size=26)
    drain(segmenter.everything(embedding, EverythingConfig(object_size=26, mode="object-aware")))
    boxes = proposed_boxes(segmenter, embedding, 26)
    assert boxes is not None
    np.testing.assert_allclose(boxes, np.concatenate(asked))
    truth = true_boxes(labels)
    assert count_boxed(truth, boxes) > len(truth) / 3


def test_the_proposals_of_a_large_plane_need_nothing_encoded_again(segmenter, nuclei):
    embedding = segmenter.lazy_embedding(np.tile(nuclei[0], (1, 3)), object_size=26)
    drain(segmenter.everything(embedding, EverythingConfig(object_size=26, mode="object-aware")))
    encoded = []
    encode = segmenter.runtime.encode
    segmenter.runtime.encode = lambda frame: encoded.append(frame.shape) or encode(frame)
    try:
        proposed_boxes(segmenter, embedding, 26)
    finally:
        del segmenter.runtime.encode
    assert not encoded


@pytest.mark.parametrize(
    ("value", "size"), [(0.0, 26), (1.0, None)], ids=["a blank plane", "a plane of unknown object size"]
)
def test_where_everything_mode_asks_nothing_nothing_is_proposed(segmenter, value, size):
    image = np.zeros((64, 64), np.float32)
    image[20:40, 20:40] = value
    boxes = proposed_boxes(segmenter, segmenter.lazy_embedding(image), size)
    assert boxes is not None
    assert boxes.shape == (0, 4)
