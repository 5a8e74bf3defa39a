import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine.candidates import collect
from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.select import box_nms, parts_of, plausible, suppress
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


def one_by_one(boxes, quality, overlap):
    """The rules of `suppress`, candidate after candidate on dense masks."""
    planes = np.zeros((len(boxes), 64, 64), bool)
    for plane, (y0, x0, y1, x1) in zip(planes, boxes, strict=True):
        plane[y0:y1, x0:x1] = True
    chosen, taken = [], np.zeros((64, 64), bool)
    for i in sorted(range(len(boxes)), key=lambda i: -quality[i]):
        if (planes[i] & taken).sum() > overlap * planes[i].sum():
            continue
        inner = [k for k in chosen if (planes[i] & planes[k]).sum() >= 0.8 * planes[k].sum()]
        if len(inner) > 1 or (inner and quality[i] < np.float32(0.95) * quality[inner[0]]):
            continue
        chosen = [k for k in chosen if k not in inner] + [i]
        taken |= planes[i]
    return chosen


@quick
@given(st.lists(box, min_size=1, max_size=14), st.floats(0.05, 0.95), st.integers(0, 999), st.booleans())
def test_choosing_in_rounds_equals_choosing_one_by_one(boxes, overlap, seed, alike):
    quality = np.random.default_rng(seed).permutation(len(boxes)).astype(np.float32) + 1
    if alike:
        quality = 0.8 + 0.01 * quality
    chosen = suppress(rectangles(boxes), quality, overlap)
    assert chosen.tolist() == one_by_one(boxes, quality, overlap)
    # what overlaps nothing is always chosen
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        others = [b for k, b in enumerate(boxes) if k != i]
        if all(b[2] <= y0 or b[0] >= y1 or b[3] <= x0 or b[1] >= x1 for b in others):
            assert i in chosen


@quick
@given(st.lists(box, min_size=1, max_size=12), st.permutations(range(12)), st.integers(0, 999))
def test_the_order_of_candidates_of_distinct_quality_does_not_matter(boxes, order, seed):
    quality = 0.5 + np.random.default_rng(seed).permutation(len(boxes)).astype(np.float32) / 30
    order = np.array([i for i in order if i < len(boxes)])
    chosen = suppress(rectangles(boxes), quality, 0.5)
    shuffled = suppress(rectangles([boxes[i] for i in order]), quality[order], 0.5)
    assert order[shuffled].tolist() == chosen.tolist()


def test_choosing_among_some_ignores_the_others():
    found = rectangles([(0, 0, 8, 8), (0, 1, 8, 9), (20, 20, 28, 28)])
    quality = np.float32([0.9, 0.8, 0.7])
    assert suppress(found, quality, 0.5, np.array([1, 2])).tolist() == [1, 2]
    assert suppress(found, quality, 0.5, np.array([], np.intp)).tolist() == []


def test_a_whole_takes_the_place_of_its_part_unless_it_is_much_worse():
    nucleus, cell, crowd = (10, 10, 18, 18), (4, 4, 24, 24), (4, 4, 24, 50)
    found = rectangles([nucleus, cell])
    assert suppress(found, np.float32([0.9, 0.87]), 0.5).tolist() == [1]
    assert suppress(found, np.float32([0.9, 0.6]), 0.5).tolist() == [0]
    beside = rectangles([nucleus, cell, (10, 30, 18, 38), crowd])
    assert suppress(beside, np.float32([0.9, 0.87, 0.88, 0.84]), 0.9).tolist() == [2, 1]


def test_a_crowd_is_dropped_however_loosely_its_objects_fill_it():
    loose = rectangles([(0, 0, 8, 8), (0, 40, 8, 48), (0, 0, 20, 48)])
    assert suppress(loose, np.float32([0.9, 0.9, 0.89]), 0.5).tolist() == [0, 1]


def test_parts_lie_inside_the_smallest_object_that_holds_them_and_are_clearly_smaller():
    cell, other, nucleus, almost = (0, 0, 20, 20), (0, 30, 20, 50), (5, 5, 12, 12), (1, 1, 19, 19)
    outside, across = (40, 40, 44, 44), (5, 16, 9, 34)
    found = rectangles([cell, other, nucleus, almost, outside, across, (0, 0, 60, 60)])
    parts, owners = parts_of(found, np.array([6, 1, 0]), np.array([2, 3, 4, 5]), 0.5)
    assert parts.tolist() == [2, 3, 4, 5]
    assert owners.tolist() == [2, 0, 0, 0]
    parts, owners = parts_of(found, np.array([1, 0]), np.array([2, 3, 4, 5]), 0.5)
    assert (parts.tolist(), owners.tolist()) == ([2], [1])


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
