"""Choosing and drawing again from stored candidates: labels, hierarchy, balance, arrays on disk."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_lightsam.engine.assemble import to_hierarchy, to_labels
from napari_lightsam.engine.candidates import collect, concatenate
from napari_lightsam.engine.config import EverythingConfig, Thresholds
from napari_lightsam.engine.everything import segment_everything
from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import ConfigError
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)
EIGHT = np.ones((3, 3))
SHAPE = (200, 220)
quick = settings(max_examples=25, deadline=None)


def discs(circles, iou=None, shape=SHAPE):
    """Candidates that are discs (y, x, radius in logits of 4 px), each in a window of 64 logits."""
    rows, columns = np.indices((64, 64))
    level, n = make_level(shape, OWN, 1.0), len(circles)
    corners = np.array([(max(0, y - 32), max(0, x - 32)) for y, x, _ in circles]).reshape(-1, 2)
    logits = np.array(
        [
            10 * (r + 0.3 - np.hypot(rows + a - y, columns + b - x))
            for (y, x, r), (a, b) in zip(circles, corners, strict=True)
        ],
        np.float32,
    ).reshape(-1, 1, 64, 64)
    scores = np.linspace(0.9, 0.8, n) if iou is None else np.array(iou)
    found = collect(
        level, logits, scores.astype(np.float32)[:, None], corners, np.arange(n), np.zeros((n, 2)),
        stability_offset=1,
    )  # fmt: skip
    assert len(found) == n
    return replace(found, stability=np.ones(n, np.float32))


def check(labels, count):
    """Ids are 1..n, each one connected object wider than a ring of a pixel or two."""
    assert labels.dtype == np.int32
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, count + 1))
    for i in range(1, count + 1):
        assert ndimage.label(labels == i, EIGHT)[1] == 1, i
        assert ndimage.binary_opening(labels == i, EIGHT).any(), i


circle = st.tuples(st.integers(4, 45), st.integers(4, 50), st.integers(1, 20))


@quick
@given(st.lists(circle, min_size=1, max_size=12), st.integers(0, 999), st.sampled_from([0.0, 20.0]))
def test_labels_are_connected_compact_and_the_same_again_in_any_order(circles, seed, min_size):
    source = np.random.default_rng(seed)
    iou = 0.6 + 0.02 * source.permutation(len(circles))
    found = discs(circles, iou)
    config = EverythingConfig(min_size=min_size)
    labels, scores = to_labels(found, config)
    check(labels, len(scores))
    assert (np.diff(scores) < 0).all()
    again, _ = to_labels(found, config)  # now from what was kept
    assert again.tobytes() == labels.tobytes()
    shuffled, _ = to_labels(found.take(source.permutation(len(circles))), config)
    assert shuffled.tobytes() == labels.tobytes()


@quick
@given(st.lists(circle, min_size=1, max_size=12), st.integers(0, 999))
def test_parts_lie_inside_one_object_each_and_are_smaller(circles, seed):
    iou = 0.8 + 0.01 * np.random.default_rng(seed).permutation(len(circles))
    found, config = discs(circles, iou), EverythingConfig()
    objects, parts = to_hierarchy(found, config)
    np.testing.assert_array_equal(objects, to_labels(found, config)[0])
    check(parts, parts.max())
    for i in range(1, parts.max() + 1):
        owner = np.unique(objects[parts == i])
        assert len(owner) == 1
        assert owner[0] > 0
        assert np.count_nonzero(parts == i) < 0.7 * np.count_nonzero(objects == owner[0])


def test_a_cell_is_one_object_and_its_nuclei_are_its_parts():
    cell, nuclei, neighbour = (25, 16, 13), [(21, 12, 3), (29, 18, 3)], (25, 42, 7)
    found = discs([cell, *nuclei, neighbour], [0.95, 0.9, 0.9, 0.8])
    objects, parts = to_hierarchy(found, EverythingConfig())
    assert (objects.max(), parts.max()) == (2, 2)
    for y, x, _ in nuclei:
        assert objects[4 * y, 4 * x] == 1
        assert parts[4 * y, 4 * x] > 0
    better_nucleus = discs([nuclei[0], cell, neighbour], [0.95, 0.92, 0.8])
    objects, parts = to_hierarchy(better_nucleus, EverythingConfig())
    assert (objects.max(), parts.max()) == (2, 1)
    assert objects[4 * 21, 4 * 12] == objects[4 * 33, 4 * 20] == 1


def test_a_crowd_gives_way_to_its_objects_and_objects_to_a_better_crowd():
    some = [(12, 12, 5), (12, 25, 5), (25, 12, 5), (25, 25, 5)]
    crowd = (18, 18, 16)
    config = EverythingConfig()
    assert to_labels(discs([*some, crowd]), config)[0].max() == 4
    assert to_labels(discs([crowd, *some]), config)[0].max() == 1


def test_the_balance_lets_pass_fewer_or_more_objects():
    circles = [(y, x, 4) for y in (8, 20, 32) for x in (8, 20, 32)]
    found = replace(discs(circles, np.linspace(0.3, 0.95, 9)), usual=Thresholds(0.6, 0.6))
    counts = [len(to_labels(found, EverythingConfig(balance=b))[1]) for b in (-1, -0.5, 0, 0.5, 1)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[4] == 9
    given = EverythingConfig(balance=1, iou_threshold=0.6)
    assert len(to_labels(found, given)[1]) == counts[2]


def test_only_the_border_of_the_plane_counts_as_border():
    shape = (512, 512)
    inner, edge = (64, 64, 6), (127, 60, 6)  # the window of the first ends far from the plane's border
    found = concatenate(
        [discs([inner], shape=shape), discs([edge], shape=shape)], make_level(shape, OWN, 1.0)
    )
    cut = replace(found, cut=np.array([True, True]))
    labels, _ = to_labels(cut, EverythingConfig(keep_border=False))
    assert labels.max() == 1
    assert labels[256, 256] == 1


@pytest.mark.parametrize("chunks", [None, (64, 64)], ids=["memory map", "zarr"])
def test_labels_written_to_disk_equal_those_in_memory(tmp_path, chunks):
    found = discs([(10, 10, 6), (30, 20, 8), (20, 40, 7)])
    expected, scores = to_labels(found, EverythingConfig())
    if chunks is None:
        out = np.memmap(tmp_path / "labels", np.uint16, "w+", shape=SHAPE)
    else:
        zarr = pytest.importorskip("zarr")
        out = zarr.create_array(store=tmp_path / "labels.zarr", shape=SHAPE, chunks=chunks, dtype="int32")
        out[:] = 9
    labels, again = to_labels(found, EverythingConfig(), out=out)
    assert labels is out
    np.testing.assert_array_equal(np.asarray(out[:]), expected)
    np.testing.assert_array_equal(again, scores)


def test_memory_of_choosing_and_drawing_does_not_grow_with_the_plane(tmp_path):
    shape = (8192, 8192)
    source = np.random.default_rng(0)
    places = [(int(y), int(x), 5) for y, x in source.integers(20, 2020, (50, 2))]
    found = discs(places, shape=shape)
    out = np.memmap(tmp_path / "labels", np.int32, "w+", shape=shape)  # 256 MiB
    tracemalloc.start()
    _, scores = to_labels(found, EverythingConfig(), out=out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(scores) > 40
    assert peak < 2 * 2**20


def test_a_run_keeps_what_the_balance_can_bring_back(segmenter, nuclei):
    image = nuclei[0]
    plain = drain(segmenter.everything(image, EverythingConfig(object_size=26)))
    more = drain(segmenter.everything(image, EverythingConfig(object_size=26, balance=1)))
    own = segmenter.spec.everything
    assert plain.candidates.usual == (own.iou_threshold, own.stability_threshold)
    counts = [len(to_labels(plain.candidates, replace(plain.config, balance=b))[1]) for b in (-1, 0, 1)]
    assert counts[0] < counts[1] == len(plain.scores)
    assert counts[1] <= counts[2]
    assert len(more.scores) >= len(plain.scores)


def test_a_run_writes_into_the_given_array_and_refuses_one_that_does_not_fit(segmenter, nuclei):
    image = nuclei[0][60:160, 60:170]
    expected = segment_everything(image, model=segmenter, object_size=26)
    out = np.full(image.shape, 77, np.uint16)
    assert segment_everything(image, model=segmenter, object_size=26, out=out) is out
    np.testing.assert_array_equal(out, expected)
    ids = expected.astype(np.int64) * 1000
    result = drain(segmenter.everything(image, EverythingConfig(object_size=26), proposals=ids, out=ids))
    assert result.labels is ids
    assert set(np.unique(ids[ids > 0])) == set(result.ids)
    with pytest.raises(ConfigError, match="shape"):
        segment_everything(image, model=segmenter, object_size=26, out=out[1:])
