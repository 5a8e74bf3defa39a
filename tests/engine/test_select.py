import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine.candidates import collect
from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.select import box_nms, plausible, suppress
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

LEVEL = make_level((256, 256), ModelSpec("own", "Own", frame=ObjectFrame(), window=16), 1.0)
quick = settings(max_examples=50, deadline=None)


def rectangles(boxes, iou=None):
    """Candidates that are rectangles on the 64 x 64 logit grid."""
    logits = np.full((len(boxes), 1, 64, 64), -5, np.float32)
    for plane, (y0, x0, y1, x1) in zip(logits[:, 0], boxes, strict=True):
        plane[y0:y1, x0:x1] = 5
    n = len(boxes)
    scores = np.full((n, 1), 0.9, np.float32) if iou is None else np.float32(iou)[:, None]
    found = collect(
        LEVEL, logits, scores, np.zeros((n, 2), np.intp), np.arange(n), np.zeros((n, 2)), stability_offset=1
    )
    assert len(found) == n
    return found


def brute_force_nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        for k in kept:
            y = min(boxes[i][2], boxes[k][2]) - max(boxes[i][0], boxes[k][0])
            x = min(boxes[i][3], boxes[k][3]) - max(boxes[i][1], boxes[k][1])
            shared = max(y, 0) * max(x, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (boxes[i], boxes[k])]
            if shared > threshold * (sum(areas) - shared):
                break
        else:
            kept.append(i)
    return kept


box = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 14), st.integers(1, 14)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@quick
@given(st.lists(box, max_size=15), st.floats(0.05, 0.95), st.integers(0, 999))
def test_box_suppression_equals_brute_force(boxes, threshold, seed):
    scores = np.random.default_rng(seed).permutation(len(boxes)).astype(np.float32)
    kept = box_nms(np.array(boxes, np.float64).reshape(-1, 4), scores, threshold)
    assert kept.tolist() == brute_force_nms(boxes, scores, threshold)


@quick
@given(st.lists(box, min_size=1, max_size=12), st.floats(0.05, 0.95), st.integers(0, 999))
def test_chosen_candidates_are_not_covered_by_better_ones(boxes, overlap, seed):
    quality = np.random.default_rng(seed).permutation(len(boxes)).astype(np.float32)
    chosen = suppress(rectangles(boxes), quality, overlap)
    assert chosen[0] == quality.argmax()
    assert (np.diff(quality[chosen]) < 0).all()
    taken = np.zeros((64, 64), bool)
    for i in chosen:
        y0, x0, y1, x1 = boxes[i]
        part = taken[y0:y1, x0:x1]
        assert part.sum() <= overlap * part.size
        part[:] = True
    # what overlaps nothing is always chosen
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        others = [b for k, b in enumerate(boxes) if k != i]
        if all(b[2] <= y0 or b[0] >= y1 or b[3] <= x0 or b[1] >= x1 for b in others):
            assert i in chosen


def test_a_crowd_of_two_better_objects_is_dropped_but_a_better_crowd_is_kept():
    found = rectangles([(0, 0, 8, 8), (0, 10, 8, 18), (0, 0, 8, 18)])
    assert suppress(found, np.float32([0.9, 0.8, 0.7]), 0.95).tolist() == [0, 1]
    assert suppress(found, np.float32([0.5, 0.6, 0.9]), 0.5).tolist() == [2]


def test_equal_candidates_are_chosen_in_their_order():
    found = rectangles([(0, 0, 8, 8), (20, 20, 28, 28), (0, 0, 8, 8)])
    assert suppress(found, np.float32([0.5, 0.5, 0.5]), 0.5).tolist() == [0, 1]


def test_background_is_dropped_but_no_object_for_being_large():
    large_inside, left_half_and_more, one_border = (1, 1, 63, 63), (0, 0, 64, 40), (0, 2, 62, 62)
    found = rectangles([large_inside, left_half_and_more, one_border, (0, 0, 30, 30)])
    assert plausible(found).tolist() == [True, False, True, True]


def test_thresholds_sizes_and_borders():
    found = rectangles([(4, 4, 8, 8), (10, 10, 30, 30), (0, 40, 10, 50)], iou=[0.5, 0.7, 0.9])
    diameters = found.diameters
    assert diameters[0] == pytest.approx(2 * np.sqrt(16 * 16 / np.pi))
    assert plausible(found, iou_threshold=0.6).tolist() == [False, True, True]
    assert plausible(found, stability_threshold=1.01).tolist() == [False, False, False]
    assert plausible(found, min_size=30).tolist() == [False, True, True]
    assert plausible(found, max_size=50).tolist() == [True, False, True]
    assert plausible(found, keep_border=False).tolist() == [True, True, False]
