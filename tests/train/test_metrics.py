"""Instance matching and mask IoU, against numbers worked out by hand and against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_lightsam.errors import ConfigError, ImageError
from napari_lightsam.train.metrics import (
    THRESHOLDS,
    Matching,
    count_boxed,
    crop_iou,
    equivalent_diameter,
    find_overlaps,
    innermost_point,
    match,
    mean_segmentation_accuracy,
    pool,
)

# Object 1 (4 px) is found with 3 of its pixels: IoU 3/4. Object 2 (4 px) shares 2 pixels with a prediction
# that has 2 more on background: IoU 2/6. Object 3 (2 px) is missed, prediction 9 is made up.
TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0, 0, 0, 3, 3, 0]])
PREDICTED = np.array([[5, 5, 5, 0, 0, 0, 0, 7, 7, 7, 7, 0, 0, 0, 9]])

label_images = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 6)
)
label_pairs = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12).flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.int32, shape, elements=st.integers(0, 6))] * 2)
)


def brute_force_pairs(truth: np.ndarray, predicted: np.ndarray, threshold: float) -> int:
    """Pairs above a threshold of at least .5, from full-size masks."""
    count = 0
    for true_id in set(np.unique(truth)) - {0}:
        for predicted_id in set(np.unique(predicted)) - {0}:
            a, b = truth == true_id, predicted == predicted_id
            count += (a & b).sum() / (a | b).sum() > threshold
    return count


@pytest.mark.parametrize(
    ("threshold", "tp", "fp", "fn", "ap"),
    [
        pytest.param(0.3, 2, 1, 1, 2 / 4, id="both overlapping pairs count at .3"),
        pytest.param(0.5, 1, 2, 2, 1 / 5, id="one pair counts at .5"),
        pytest.param(0.74, 1, 2, 2, 1 / 5, id="one pair counts at .74"),
        pytest.param(0.75, 0, 3, 3, 0.0, id="an IoU equal to the threshold is no match"),
    ],
)
def test_the_worked_example_gives_the_counts_found_by_hand(threshold, tp, fp, fn, ap):
    (result,) = match(TRUTH, PREDICTED, thresholds=(threshold,))
    assert (result.true_positives, result.false_positives, result.false_negatives) == (tp, fp, fn)
    assert result.average_precision == pytest.approx(ap)


def test_the_worked_example_gives_the_msa_and_panoptic_quality_found_by_hand():
    matchings = match(TRUTH, PREDICTED)
    # .2 at .50, .55, .60, .65 and .70, nothing from .75 on.
    assert mean_segmentation_accuracy(matchings) == pytest.approx(5 * 0.2 / 10)
    assert matchings[0].panoptic_quality == pytest.approx(0.75 / (1 + 2 / 2 + 2 / 2))
    assert (matchings[0].precision, matchings[0].recall) == (pytest.approx(1 / 3), pytest.approx(1 / 3))


def test_the_overlap_table_holds_only_pairs_that_touch():
    pairs = find_overlaps(TRUTH, PREDICTED)
    assert pairs.truth_ids[pairs.truth_index].tolist() == [1, 2]
    assert pairs.predicted_ids[pairs.predicted_index].tolist() == [5, 7]
    assert pairs.shared.tolist() == [3, 2]
    assert pairs.iou == pytest.approx([3 / 4, 2 / 6])


def test_below_one_half_the_largest_matching_is_found():
    # Prediction 1 overlaps both objects, prediction 2 only object 1: both objects can have a partner.
    truth = np.array([[1] * 8 + [2] * 4])
    predicted = np.array([[2] * 3 + [0] + [1] * 7 + [0]])
    (result,) = match(truth, predicted, thresholds=(0.2,))
    assert result.true_positives == 2
    assert result.iou_sum == pytest.approx(3 / 8 + 3 / 8)


@pytest.mark.parametrize(
    ("truth", "predicted", "score"),
    [
        pytest.param([[0, 0]], [[0, 0]], 1.0, id="nothing to find and nothing found is perfect"),
        pytest.param([[0, 1]], [[0, 0]], 0.0, id="everything missed is zero"),
        pytest.param([[0, 0]], [[0, 1]], 0.0, id="everything made up is zero"),
        pytest.param(np.zeros((0, 3), int), np.zeros((0, 3), int), 1.0, id="no pixel at all is perfect"),
    ],
)
def test_empty_images_are_scored_by_the_stated_convention(truth, predicted, score):
    matchings = match(truth, predicted)
    assert mean_segmentation_accuracy(matchings) == score
    assert matchings[0].panoptic_quality == score


def test_pooling_adds_counts_and_differs_from_the_mean_over_images():
    crowded = match(np.arange(1, 11)[None], np.arange(1, 11)[None], thresholds=(0.5,))
    missed = match([[1, 0]], [[0, 0]], thresholds=(0.5,))
    (pooled,) = pool([crowded, missed])
    assert pooled == Matching(0.5, 10, 0, 1, 10.0)
    assert pooled.average_precision == pytest.approx(10 / 11)
    assert np.mean([crowded[0].average_precision, missed[0].average_precision]) == 0.5


def test_no_image_pools_to_nothing():
    assert pool([]) == ()


def test_matchings_of_different_thresholds_do_not_pool():
    with pytest.raises(ConfigError, match=r"0\.5 and 0\.75"):
        Matching(0.5, 1, 0, 0, 1.0) + Matching(0.75, 1, 0, 0, 1.0)


@given(label_images)
def test_a_perfect_prediction_scores_one(labels):
    matchings = match(labels, labels)
    assert all(m.average_precision == 1 for m in matchings)
    assert matchings[0].panoptic_quality == 1


@given(label_pairs, st.permutations(range(1, 7)))
def test_renaming_the_ids_changes_no_score(pair, names):
    truth, predicted = pair
    # Far apart, and one of them beyond 32 bit: ids are names, not sizes.
    renamed = np.array([0, *(10**9 * name for name in names)], dtype=np.int64)[predicted]
    assert match(truth, renamed) == match(truth, predicted)


@given(label_pairs)
def test_swapping_truth_and_prediction_swaps_the_two_kinds_of_error(pair):
    for there, back in zip(match(*pair), match(*reversed(pair)), strict=True):
        assert there.true_positives == back.true_positives
        assert there.false_positives == back.false_negatives
        assert there.average_precision == back.average_precision


@given(label_pairs)
@settings(deadline=None)
def test_counts_equal_a_comparison_of_full_size_masks(pair):
    truth, predicted = pair
    for threshold, result in zip(THRESHOLDS, match(truth, predicted), strict=True):
        assert result.true_positives == brute_force_pairs(truth, predicted, threshold)
        assert result.true_positives + result.false_negatives == len(set(np.unique(truth)) - {0})
        assert result.true_positives + result.false_positives == len(set(np.unique(predicted)) - {0})


@given(label_pairs)
@settings(deadline=None, max_examples=40)
def test_counts_and_scores_are_those_of_stardist(pair):
    """The matching of StarDist's public `matching`, an implementation of the same definition by other people.

    It finds the best assignment on the full IoU matrix. It counts a pair whose IoU equals the threshold,
    we do not: the thresholds lie between the fractions that images of this size have.
    """
    theirs = pytest.importorskip("stardist.matching", reason="StarDist has no wheel for this platform")
    truth, predicted = pair
    thresholds = tuple(threshold + 0.001 for threshold in (0.1, 0.3, *THRESHOLDS))
    by_threshold = theirs.matching(truth, predicted, thresh=thresholds)
    for ours, expected in zip(match(truth, predicted, thresholds), by_threshold, strict=True):
        assert (ours.true_positives, ours.false_positives, ours.false_negatives) == (
            expected.tp,
            expected.fp,
            expected.fn,
        )
        if expected.n_true or expected.n_pred:  # for nothing at all StarDist says 0, we say 1
            assert ours.average_precision == pytest.approx(expected.accuracy)
            if ours.threshold > 0.5:  # below, assignments of equally many pairs may differ in their IoU
                assert ours.panoptic_quality == pytest.approx(expected.panoptic_quality, abs=1e-5)


def test_data_sets_are_averaged_and_pooled_as_stardist_does(sample):
    theirs = pytest.importorskip("stardist.matching", reason="StarDist has no wheel for this platform")
    truths = [sample(name)[1][:200, :200].astype(int) for name in ("nuclei_fluorescence", "nuclei_histology")]
    shifted = [np.roll(labels, 2, axis=(0, 1)) for labels in truths]  # right here, wrong there
    ours = [match(truth, moved, (0.7501,)) for truth, moved in zip(truths, shifted, strict=True)]
    for by_image, accuracy in (
        (True, np.mean([m.average_precision for (m,) in ours])),
        (False, pool(ours)[0].average_precision),
    ):
        expected = theirs.matching_dataset(truths, shifted, 0.7501, by_image=by_image, show_progress=False)
        assert 0 < accuracy < 1
        assert accuracy == pytest.approx(expected.accuracy)


@given(label_pairs)
def test_the_best_iou_of_each_predicted_object_is_that_of_full_size_masks(pair):
    truth, predicted = pair
    pairs = find_overlaps(truth, predicted)
    for label, best in zip(pairs.predicted_ids, pairs.predicted_iou, strict=True):
        mask = predicted == label
        ious = [
            ((truth == i) & mask).sum() / ((truth == i) | mask).sum() for i in set(np.unique(truth)) - {0}
        ]
        assert best == pytest.approx(max(ious, default=0))


@given(label_pairs)
def test_a_stricter_threshold_never_finds_more(pair):
    found = [m.true_positives for m in match(*pair, thresholds=(0.1, 0.3, *THRESHOLDS))]
    assert found == sorted(found, reverse=True)


def test_negative_ids_are_objects_like_any_other():
    labels = np.array([[-3, -3, 0, 4]])
    assert match(labels, labels)[0].true_positives == 2


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        pytest.param(
            np.zeros((2, 3), int), np.zeros((3, 2), int), r"\(2, 3\).*\(3, 2\)", id="different shapes"
        ),
        pytest.param(np.zeros((2, 2)), np.zeros((2, 2), int), "truth has dtype float64", id="float truth"),
        pytest.param(np.zeros((2, 2), int), np.zeros((2, 2), bool), "prediction has dtype bool", id="bool"),
    ],
)
def test_images_that_cannot_be_compared_are_refused_in_words(truth, predicted, message):
    with pytest.raises(ImageError, match=message):
        match(truth, predicted)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_outside_its_range_is_refused(threshold):
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        match(TRUTH, PREDICTED, thresholds=(threshold,))


def test_the_innermost_point_of_a_ring_segment_lies_on_the_object():
    mask = np.zeros((9, 9), bool)
    mask[1:8, 1:8] = True
    mask[2:7, 3:9] = False  # a letter C, two pixels thick at its back
    row, column = innermost_point(mask)
    assert mask[row, column]
    assert (row, column) == (4, 2)  # the middle of the back, on the side of the centre of mass


def test_the_image_border_counts_as_the_objects_border():
    mask = np.zeros((5, 9), bool)
    mask[0:3, 0:9] = True
    assert innermost_point(mask) == (1, 4)


@given(hnp.arrays(bool, (8, 8)).filter(np.any))
def test_the_innermost_point_is_inside_and_always_the_same(mask):
    point = innermost_point(mask)
    assert mask[point]
    assert point == innermost_point(mask.copy())


@pytest.mark.parametrize("mask", [np.zeros((3, 3), bool), np.ones(3, bool)], ids=["empty", "one-dimensional"])
def test_a_mask_without_an_innermost_point_is_refused(mask):
    with pytest.raises(ImageError, match="innermost point"):
        innermost_point(mask)


@given(label_images, hnp.arrays(bool, (12, 12)), st.integers(1, 6))
def test_cropped_iou_equals_full_size_iou(labels, mask, label):
    mask = mask[: labels.shape[0], : labels.shape[1]]
    area = int((labels == label).sum())
    rows, columns = np.nonzero(mask)
    if rows.size:
        offset = (int(rows.min()), int(columns.min()))
        crop = mask[offset[0] : rows.max() + 1, offset[1] : columns.max() + 1]
    else:
        offset, crop = (0, 0), np.zeros((0, 0), bool)
    union = ((labels == label) | mask).sum()
    expected = ((labels == label) & mask).sum() / union if union else 1.0
    assert crop_iou(labels, label, area, crop, offset) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("proposed", "found"),
    [
        pytest.param([(0, 0, 10, 10), (20, 20, 30, 30)], 2, id="exact boxes"),
        pytest.param([(0, 0, 10, 5), (20, 20, 30, 24)], 1, id="IoU of exactly .5 counts, .4 does not"),
        pytest.param([(0, 0, 10, 10), (0, 1, 10, 10)], 1, id="two boxes for one object count once"),
        pytest.param([(10, 10, 20, 20)], 0, id="boxes that only touch"),
        pytest.param(np.zeros((0, 4)), 0, id="no proposal"),
    ],
)
def test_objects_with_a_good_enough_box_are_counted(proposed, found):
    assert count_boxed([(0, 0, 10, 10), (20, 20, 30, 30)], proposed) == found


def test_the_diameter_is_that_of_the_circle_of_equal_area():
    assert equivalent_diameter([np.pi, 25 * np.pi]) == pytest.approx([2, 10])
