"""Stacks: slice by slice with one normalisation and one object size, linked along depth, lazily."""

import numpy as np
import pytest

from napari_lightsam import EverythingConfig, drain, segment_stack
from napari_lightsam.engine.stack import Planes, _Shared
from napari_lightsam.errors import ConfigError, ImageError

CONFIG = EverythingConfig(object_size=26)


@pytest.fixture(scope="module")
def small(nuclei):
    """Three planes: one field of nuclei, dimmed from plane to plane."""
    plane = nuclei[0][:128, :128].astype(np.float32)
    return np.stack([plane, plane * 0.9, plane * 0.8]).astype(np.uint16)


@pytest.fixture(scope="module")
def linked(small, segmenter):
    return drain(segment_stack(small, config=CONFIG, model=segmenter))


class Recorded:
    """A lazy array that notes what is read and raises at a plane."""

    def __init__(self, array, broken=None):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.broken, self.read = broken, []

    def __getitem__(self, key):
        assert isinstance(key[0], (int, np.integer)), "more than a plane was read"
        self.read.append(int(key[0]))
        if key[0] == self.broken:
            raise OSError("the disk is gone")
        return self.array[key]


def test_objects_keep_their_ids_through_the_stack(linked, small):
    assert linked.labels.shape == small.shape
    assert linked.labels.dtype == np.int32
    assert linked.complete
    assert linked.planes_done == 3
    assert len(linked.table) == linked.labels.max() > 5
    assert (linked.table["n_planes"] == 3).mean() > 0.7
    assert linked.table["score"].between(0, 1).all()


def test_a_stack_of_one_plane_is_segmented_like_the_plane(nuclei, segmenter):
    plane = nuclei[0][:128, :128]
    stack = drain(segment_stack(plane[None], model=segmenter))
    alone = drain(segmenter.everything(plane))
    assert stack.object_size == alone.object_size
    assert stack.object_size_estimated
    assert np.array_equal(stack.labels[0] > 0, alone.labels > 0)
    assert len(stack.table) == len(alone.scores)


def test_all_planes_share_one_normalisation(small):
    planes = Planes.of(small, 0, None)
    shared = _Shared.of(planes)
    each = [shared.normalise(planes, i) for i in range(3)]
    assert {(plane.limits, plane.mean, plane.std) for plane in each} == {
        (shared.limits, shared.mean, shared.std)
    }
    own = [planes.read(i) for i in range(3)]
    assert min(p.limits[0][1] for p in own) < shared.limits[0][1] < max(p.limits[0][1] for p in own)


def test_blank_planes_do_not_set_the_normalisation(small):
    with_blank = np.concatenate([np.zeros_like(small), small, np.zeros_like(small)])
    assert _Shared.of(Planes.of(with_blank, 0, None)).limits[0][1] > 20


def test_a_blank_stack_has_no_objects_and_says_why(segmenter):
    result = drain(segment_stack(np.full((2, 64, 64), 7, np.uint8), model=segmenter))
    assert result.labels.max() == 0
    assert len(result.table) == 0
    assert "constant" in result.advice


def test_planes_are_read_lazily_and_one_at_a_time(small, segmenter, linked):
    lazy = Recorded(small)
    result = drain(segment_stack(lazy, config=CONFIG, model=segmenter))
    assert np.array_equal(result.labels, linked.labels)
    assert set(lazy.read) == {0, 1, 2}


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_arrays_along_any_axis_give_the_same_labels(kind, small, segmenter, linked):
    moved = np.moveaxis(small, 0, 1)
    if kind == "dask":
        stack = pytest.importorskip("dask.array").from_array(moved, chunks=(50, 1, 60))
    else:
        stack = pytest.importorskip("zarr").array(moved, chunks=(50, 1, 60))
    out = np.zeros(moved.shape, np.uint16)
    result = drain(segment_stack(stack, axis=1, config=CONFIG, model=segmenter, out=out))
    assert result.labels is out
    assert np.array_equal(np.moveaxis(out, 1, 0), linked.labels)


def test_time_frames_stay_independent(small, segmenter):
    result = drain(segment_stack(small, config=CONFIG, model=segmenter, link=False))
    assert not result.linked
    for i, frame in enumerate(result.labels):
        rows = result.table[result.table["plane"] == i]
        assert rows["label"].tolist() == list(range(1, frame.max() + 1))
        assert rows["area_px"].tolist() == np.bincount(frame.ravel())[1:].tolist()


def test_a_stopped_stack_keeps_the_planes_until_then(small, segmenter, linked):
    done = 0

    def count(step):
        nonlocal done
        done = step.done

    work = segment_stack(small, config=CONFIG, model=segmenter, stop=lambda: done >= 1)
    result = drain(work, count)
    assert not result.complete
    assert result.planes_done == 1
    assert np.array_equal(result.labels[0], linked.labels[0])
    assert result.labels[2].max() == 0


def test_progress_counts_planes(small, segmenter):
    work = segment_stack(small, config=CONFIG, model=segmenter)
    steps = [step for step in work if step.stage.startswith("plane")]
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert {(s.stage, s.total) for s in steps} == {(f"plane {i} of 3", 3) for i in (1, 2, 3)}


def test_a_plane_that_cannot_be_read_is_named(small, segmenter):
    with pytest.raises(ImageError, match=r"Plane 2 along axis 0 could not be read .*the disk is gone"):
        drain(segment_stack(Recorded(small, broken=2), config=CONFIG, model=segmenter))


@pytest.mark.parametrize(
    ("stack", "options", "message"),
    [
        pytest.param(np.zeros((8, 8)), {}, "A stack has three axes", id="a plane"),
        pytest.param(np.zeros((2, 2, 2, 8, 8)), {}, "A stack has three axes", id="five axes"),
        pytest.param(np.zeros((2, 8, 8)), {"axis": 3}, "Axis 3", id="no such axis"),
        pytest.param(np.zeros((0, 8, 8)), {}, "empty", id="empty"),
        pytest.param([[1]], {}, "An array is needed; got list", id="a list"),
    ],
)
def test_what_is_no_stack_is_refused(stack, options, message, segmenter):
    with pytest.raises(ImageError, match=message):
        drain(segment_stack(stack, model=segmenter, **options))


@pytest.mark.parametrize("out", [np.zeros((2, 8, 9), int), np.zeros((2, 8, 8)), [0]])
def test_an_output_that_does_not_fit_is_refused(out, segmenter):
    with pytest.raises(ConfigError, match=r"whole numbers of shape \(2, 8, 8\)"):
        drain(segment_stack(np.zeros((2, 8, 8)), model=segmenter, out=out))
