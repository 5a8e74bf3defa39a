import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine import footprints
from napari_lightsam.engine.candidates import collect
from napari_lightsam.engine.footprints import count_bits, count_shared, near_pairs
from napari_lightsam.engine.level import make_level
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

LEVEL = make_level((512, 600), ModelSpec("own", "Own", frame=ObjectFrame(), window=16), 1.0)
quick = settings(max_examples=40, deadline=None)

sides = st.sampled_from([1, 2, 7, 8, 9, 30, 64, 300])
box = st.tuples(st.integers(0, 400), st.integers(0, 400), sides, sides).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@quick
@given(st.lists(box, max_size=40))
def test_neighbours_are_all_boxes_that_overlap_each_pair_once(boxes):
    found = list(
        zip(*(part.tolist() for part in near_pairs(np.array(boxes, np.intp).reshape(-1, 4))), strict=True)
    )
    expected = {
        (i, j)
        for j, b in enumerate(boxes)
        for i, a in enumerate(boxes[:j])
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    }
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("chunk", [1 << 20, 50], ids=["at once", "bit by bit"])
@quick
@given(seed=st.integers(0, 9999), count=st.integers(1, 12))
def test_bits_count_areas_and_shared_logits_as_dense_masks_do(chunk, seed, count):
    source = np.random.default_rng(seed)
    logits = np.full((count, 1, 64, 90), -3, np.float32)
    for plane in logits[:, 0]:
        y, x, h, w = source.integers(1, (60, 80, 60, 80))
        part = plane[y : y + h, x : x + w]
        part[source.random(part.shape) < 0.6] = 3
        plane[y, x] = 3
    origins = source.integers(0, (60, 55), (count, 2))
    found = collect(
        LEVEL, logits, np.ones((count, 1), np.float32), origins, np.arange(count), np.zeros((count, 2)),
        stability_offset=1,
    )  # fmt: skip
    dense = np.zeros((count, *LEVEL.logit_shape), bool)
    for plane, values, (y, x) in zip(dense, logits[:, 0], origins, strict=True):
        part = plane[y : y + 64, x : x + 90]
        part[:] = values[: part.shape[0], : part.shape[1]] > 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprints, "_CHUNK", chunk)
        prints = footprints.pack(found)
        first, second = near_pairs(prints.boxes)
        shared = count_shared(prints, first, second)
    assert prints.areas.tolist() == dense.sum(axis=(1, 2)).tolist()
    assert shared.tolist() == [
        np.count_nonzero(dense[i] & dense[j]) for i, j in zip(first, second, strict=True)
    ]


def test_bits_are_counted_alike_with_and_without_numpys_own_function(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**64, 50, dtype=np.uint64)
    expected = [int(word).bit_count() for word in words]
    assert count_bits(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert count_bits(words).tolist() == expected
