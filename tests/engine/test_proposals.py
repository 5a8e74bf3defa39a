"""Where objects are, from the head, points, boxes and functions; each becomes prompts that fit the plane."""

import numpy as np
import pytest
import torch

from napari_lightsam.engine.level import Block, make_level
from napari_lightsam.engine.proposals import as_proposals, from_boxes, from_head, from_points, propose, within
from napari_lightsam.errors import PromptError
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)
PLANE = np.zeros((80, 100), np.uint8)


def heat(cells, shape=(32, 32), far=20.0):
    """A centre map with one probability at each cell (row, column, probability) and equal distances."""
    plane = np.zeros((5, *shape), np.float32)
    plane[1:] = far
    for y, x, value in cells:
        plane[0, y, x] = value
    return plane


def test_the_heads_maxima_above_the_threshold_become_boxes_surest_first():
    level = make_level((128, 128), OWN, 2.0)
    found = from_head(
        heat([(4, 4, 0.5), (4, 5, 0.4), (20, 9, 0.9), (28, 28, 0.2)]), level, Block(0, 0, 256, 256), 0.3
    )
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    np.testing.assert_allclose(found.points[:, 0], [(81.5, 37.5), (17.5, 17.5)])  # (i + 0.5) * 8 / 2 - 0.5
    np.testing.assert_allclose(found.boxes[0], (72, 28, 92, 48))


def test_boxes_of_border_objects_are_cut_at_the_plane_and_padding_has_no_objects():
    level = make_level((100, 128), OWN, 2.0)  # frame 200 x 256 in a block of 256 x 256
    found = from_head(heat([(0, 0, 0.9), (26, 3, 0.9)]), level, Block(0, 0, 256, 256), 0.3)
    np.testing.assert_allclose(found.boxes, [(0, 0, 12, 12)])


def test_two_maxima_with_the_same_box_are_one_object():
    plane = heat([(10, 10, 0.8), (10, 13, 0.7)], far=40)
    plane[2, 10, 10], plane[4, 10, 10] = 28, 52  # left and right
    plane[2, 10, 13], plane[4, 10, 13] = 52, 28
    found = from_head(plane, make_level((256, 256), OWN, 1.0), Block(0, 0, 256, 256), 0.3)
    np.testing.assert_allclose(found.scores, [0.8])


def test_every_object_of_a_plane_of_many_blocks_is_proposed_once():
    level = make_level((1500, 2900), OWN, 1.0)
    source = np.random.default_rng(0)
    cells = {(int(y) * 3 + 1, int(x) * 3 + 1) for y, x in source.integers(0, (62, 120), (900, 2))}
    whole = heat([(*cell, 0.9) for cell in cells], tuple(n // 8 for n in level.padded), far=10)
    blocks = level.block_list()
    assert len(blocks) > 4
    found = []
    for block in blocks:
        part = whole[:, block.y // 8 :, block.x // 8 :][:, : block.height // 8, : block.width // 8]
        found.append(from_head(part, level, block, 0.3).points[:, 0])
    points = np.concatenate(found)
    wanted = {cell for cell in cells if (cell[0] + 0.5) * 8 < 1500 and (cell[1] + 0.5) * 8 < 2900}
    assert sorted(map(tuple, (points + 0.5) / 8 - 0.5)) == sorted(wanted)


def test_each_point_is_an_object_or_all_that_share_an_id():
    assert len(from_points([(1, 2), (3, 4)])) == 2
    grouped = from_points([(1, 2), (3, 4), (5, 6)], objects=[9, 4, 9], labels=[1, 1, 0])
    assert grouped.ids.tolist() == [4, 9]
    assert grouped.labels.tolist() == [[1, -1], [1, 0]]
    assert grouped.points[1].tolist() == [[1, 2], [5, 6]]


def test_far_negative_points_are_left_out():
    near = from_points([(10, 10), (15, 10), (10, 300)], objects=[1, 1, 1], labels=[1, 0, 0])
    assert within(near.prompts(), 50).labels.tolist() == [[1, 0, -1]]


def labelled():
    labels = np.zeros(PLANE.shape, np.uint16)
    labels[5:20, 5:20], labels[40:60, 70:95] = 7, 300
    return labels


GIVEN = {
    "points": (np.array([(5, 5), (9, 90)]), 2, None),
    "a list of points": ([(5, 5), (9, 90)], 2, None),
    "boxes": (np.array([(0, 0, 9.5, 9)]), 1, None),
    "labels": (labelled(), 2, [7, 300]),
    "proposals": (from_boxes([(0, 0, 9, 9)], ids=[5]), 1, [5]),
    "a function of points": (lambda plane: np.argwhere(plane == 0)[:3], 3, None),
    "a function of labels": (lambda plane: labelled() + plane, 2, [7, 300]),
    "a function of proposals": (lambda plane: propose(boxes=np.array([(1.0, 2, 30, 40)])), 1, None),
    "a tensor of points": (torch.tensor([(5.0, 5.0), (9.0, 90.0)]), 2, None),
    "a tensor of labels": (torch.from_numpy(labelled().astype(np.int64)), 2, [7, 300]),
    "nothing": ([], 0, None),
    "no points": (np.zeros((0, 2)), 0, None),
    "no labels": (np.zeros(PLANE.shape, np.int32), 0, []),
}


@pytest.mark.parametrize(("given", "count", "ids"), GIVEN.values(), ids=GIVEN.keys())
def test_whatever_tells_where_objects_are_becomes_proposals(given, count, ids):
    found = as_proposals(given, PLANE)
    assert len(found) == count
    assert (None if found.ids is None else found.ids.tolist()) == ids


def test_boxes_that_reach_past_the_plane_are_cut_there():
    assert as_proposals(np.array([(-5, 50, 20, 300)]), PLANE).boxes.tolist() == [[0, 50, 20, 100]]


def test_no_objects_have_no_ids():
    assert from_boxes([], ids=[]).ids.tolist() == []
    assert len(from_points(np.zeros((0, 2)), objects=[])) == 0


REFUSED = {
    "a point outside": (np.array([(5, 500)]), "outside the image"),
    "a box outside": (np.array([(90, 0, 99, 9)]), "outside the image"),
    "labels of another shape": (np.ones((80, 99), int), "of shape .80, 100."),
    "a mask": (np.ones(PLANE.shape, bool), "integer labels"),
    "float labels": (np.ones(PLANE.shape), "integer labels"),
    "text": ("cells", "integer labels"),
    "negative ids": (-labelled().astype(int), "between 1 and"),
    "a function of a function": (lambda plane: lambda again: again, "integer labels"),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused_in_words(given, words):
    with pytest.raises(PromptError, match=words):
        as_proposals(given, PLANE)


@pytest.mark.parametrize(
    ("ids", "words"), [([1, 1], "same id"), ([0, 2], "between 1"), ([1.5, 2], "whole"), ([3], "whole")]
)
def test_ids_are_whole_positive_and_different(ids, words):
    with pytest.raises(PromptError, match=words):
        from_boxes([(0, 0, 5, 5), (5, 5, 9, 9)], ids=ids)
    with pytest.raises(PromptError, match="no point inside"):
        from_points([(1, 1)], labels=[0])
