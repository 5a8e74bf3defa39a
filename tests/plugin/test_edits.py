"""Repairing objects: one undo step each, and no other pixel changes."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels
from scipy import ndimage

from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.objects import edits
from napari_lightsam.plugin.objects.edits import Edits, split_mask
from napari_lightsam.plugin.objects.made import made_objects
from napari_lightsam.plugin.worker import Lane

WHOLE = (None, None)


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.fixture
def truth(nuclei):
    """Labels of 183 nuclei's corner: about 20 objects."""
    return nuclei[1][:128, :128].astype(np.int32)


def largest(data, count):
    """The largest objects that do not touch the border of the array."""
    inner = np.setdiff1d(data, np.concatenate([data[0], data[-1], data[:, 0], data[:, -1]]))
    areas = np.bincount(data.ravel())
    return sorted(inner[inner > 0], key=lambda label: -areas[label])[:count]


def act_and_undo(data, act):
    """Edit a layer, check that one undo restores every byte, and return what the edit made of it."""
    layer = Labels(data.copy())
    done = act(Edits(layer, WHOLE, (0, 1)))
    after = layer.data.copy()
    assert done.changed == np.count_nonzero(after != data) > 0
    layer.undo()
    assert layer.data.tobytes() == data.tobytes()
    layer.redo()
    assert layer.data.tobytes() == after.tobytes()
    return after, done


def test_merged_objects_keep_the_smallest_or_the_chosen_label(truth):
    a, b, c = (int(label) for label in largest(truth, 3))
    after, done = act_and_undo(truth, lambda e: e.merge([a, b, c]))
    assert done.ids == (min(a, b, c),)
    np.testing.assert_array_equal(after, np.where(np.isin(truth, [a, b, c]), min(a, b, c), truth))
    after, done = act_and_undo(truth, lambda e: e.merge([a, b], keep=max(a, b)))
    assert done.ids == (max(a, b),)


def test_deleted_objects_become_background_and_nothing_else_changes(truth):
    gone = [int(label) for label in largest(truth, 2)]
    after, done = act_and_undo(truth, lambda e: e.delete(gone))
    np.testing.assert_array_equal(after, np.where(np.isin(truth, gone), 0, truth))
    assert done.ids == ()


def test_holes_are_filled_but_objects_inside_stay():
    data = np.zeros((24, 24), np.int32)
    data[2:20, 2:20] = 3
    data[5:12, 5:12] = 0
    data[7:9, 7:9] = 8
    after, _ = act_and_undo(data, lambda e: e.fill_holes([3]))
    assert (after[2:20, 2:20] > 0).all()
    np.testing.assert_array_equal(after == 8, data == 8)


def test_a_ragged_outline_is_smoothed_without_touching_neighbours(truth):
    label = int(largest(truth, 1)[0])
    whole = truth == label
    rim = ndimage.binary_dilation(whole, iterations=4) & ~ndimage.binary_erosion(whole, iterations=4)
    noise = np.random.default_rng(0).random(truth.shape) < 0.35
    ragged = np.where(rim & noise & ((truth == 0) | whole), np.where(whole, 0, label), truth).astype(np.int32)
    assert iou(ragged == label, whole) < 0.8
    after, _ = act_and_undo(ragged, lambda e: e.smooth([label]))
    assert iou(after == label, whole) > 0.85
    others = ~np.isin(ragged, [0, label])
    np.testing.assert_array_equal(after[others], ragged[others])
    assert ndimage.label(after == label, np.ones((3, 3)))[1] == 1


def test_an_object_is_split_into_one_part_for_each_point():
    data = np.zeros((40, 80), np.int32)
    data[np.hypot(*np.ogrid[-20:20, -25:55]) < 15] = 4
    data[np.hypot(*np.ogrid[-20:20, -52:28]) < 15] = 4
    after, done = act_and_undo(data, lambda e: e.split(4, [(20, 25), (20, 52), (0, 0)], 9))
    assert done.ids == (9, 10)  # the click beside the object does not count
    assert (after[20, 25], after[20, 52]) == (9, 10)
    np.testing.assert_array_equal(after > 0, data > 0)
    assert 0.9 < np.count_nonzero(after == 9) / np.count_nonzero(after == 10) < 1.1
    with pytest.raises(LightSamError, match="at least two places"):
        Edits(Labels(data), WHOLE, (0, 1)).split(4, [(20, 25), (0, 0)], 9)
    with pytest.raises(LightSamError, match="no free label"):
        Edits(Labels(data.astype(np.uint8)), WHOLE, (0, 1)).split(4, [(20, 25), (20, 52)], 255)


def test_what_the_model_outlined_decides_where_a_split_runs():
    mask = np.ones((20, 40), bool)
    left = np.zeros(mask.shape, bool)
    left[:, :30] = True
    parts = split_mask(mask, [(10, 5), (10, 35)], [left, ~left])
    np.testing.assert_array_equal(parts == 1, left)
    shared = split_mask(mask, [(10, 5), (10, 35)], [mask, mask])  # it saw one object: by shape
    assert set(np.unique(shared)) == {1, 2}


def test_edits_of_a_plane_leave_other_planes_alone():
    data = np.zeros((2, 20, 20), np.int32)
    data[:, 4:16, 4:16] = 6
    data[:, 8, 8] = 0
    layer = Labels(data.copy())
    Edits(layer, (1, None, None), (1, 2)).fill_holes([6])
    assert (layer.data[0, 8, 8], layer.data[1, 8, 8]) == (0, 6)
    Edits(layer, (None, None, None), (1, 2)).fill_holes([6])
    assert layer.data[0, 8, 8] == 6
    Edits(layer, (0, None, None), (1, 2)).delete([6])
    assert (layer.data[0].any(), layer.data[1].all()) == (False, False)
    assert layer.data[1].any()


def test_what_cannot_be_one_quick_step_is_refused_and_says_so(monkeypatch, truth):
    monkeypatch.setattr(edits, "LARGEST_STEP", 50)
    layer = Labels(truth.copy())
    with pytest.raises(LightSamError, match="in one step"):
        Edits(layer, WHOLE, (0, 1)).delete([int(largest(truth, 1)[0])])
    assert layer.data.tobytes() == truth.tobytes()
    layer.editable = False
    with pytest.raises(LightSamError, match="locked"):
        Edits(layer, WHOLE, (0, 1))


def test_a_merged_pair_is_split_by_the_model_at_two_clicks(new_desk, tiny):
    desk = new_desk()
    desk.open(np.zeros((40, 60)))
    data = np.zeros((40, 60), np.int32)
    data[8:33, 8:52] = 3
    layer = desk.viewer.add_labels(data, name="theirs")
    control = desk.control
    control.curating.use_layer(layer)
    control.curating.select([3])
    control.splitting.start()
    clicks = control.splitting.clicks
    clicks.layer.data = [[20, 18], [20, 42], [9, 9]]
    clicks.take_back()
    assert clicks.places == [(20, 18), (20, 42)]
    control.splitting.apply()
    desk.finish(Lane.EDIT)
    asked = np.concatenate([np.reshape(points, (-1, 2, 2)) for points, *_ in tiny.predicted[1:]])
    assert asked.tolist() == [[[20, 18], [20, 42]], [[20, 42], [20, 18]]]  # its own click, then the other's
    assert (layer.data[20, 18], layer.data[20, 42]) == (4, 5)
    np.testing.assert_array_equal(layer.data > 0, data > 0)
    assert "one click in each part" not in desk.viewer.layers
    made = made_objects(layer)[4]
    assert (made.source, made.area) == ("prompt", np.count_nonzero(layer.data == 4))
    layer.undo()
    assert layer.data.tobytes() == data.tobytes()
    assert control.results.next_id(layer) == 6  # labels are never given twice


@pytest.mark.parametrize(("columns", "apart"), [((2, 5), False), ((2, 6), True)])
def test_a_merge_tells_whether_its_objects_hang_together(columns, apart):
    data = np.zeros((9, 12), np.int32)
    data[2:5, 2:5], data[5:8, columns[1] : columns[1] + 3], data[2:5, 8:11] = 1, 2, 3
    assert Edits(Labels(data), WHOLE, (0, 1)).merge([1, 3, 2]).apart is apart
