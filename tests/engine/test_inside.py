"""Objects of a drawn region, whatever their ids."""

import tracemalloc

import numpy as np

from napari_lightsam.engine.inside import keep_inside


def test_large_ids_take_no_memory():
    labels = np.zeros((64, 64), np.int32)
    labels[:32], labels[40:] = 7, 50_000_000
    inside = np.zeros(labels.shape, bool)
    inside[36:] = True
    tracemalloc.start()
    left, ids, scores = keep_inside(labels, np.array([7, 50_000_000]), np.array([0.5, 0.9]), inside)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
    np.testing.assert_array_equal(left, np.where(labels == 7, 0, labels))
    assert left.dtype == np.int32
    assert (ids.tolist(), scores.tolist()) == ([50_000_000], [0.9])


def test_where_all_objects_lie_outside_nothing_is_left():
    labels = np.ones((4, 4), np.int32)
    left, ids, scores = keep_inside(labels, np.array([1]), np.array([0.5]), np.zeros((4, 4), bool))
    assert not left.any()
    assert len(ids) == len(scores) == 0
    left, ids, _ = keep_inside(np.zeros((4, 4), np.int32), ids, scores, np.ones((4, 4), bool))
    assert not left.any()
    assert len(ids) == 0
