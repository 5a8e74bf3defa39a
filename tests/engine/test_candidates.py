import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_lightsam.engine.candidates import collect, concatenate, draw
from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.masks import MaskLogits
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)


def blob(y, x, r, shape=(64, 64)):
    rows, columns = np.indices(shape)
    return (r - np.hypot(rows - y, columns - x)).astype(np.float32)


def gathered(level, logits, iou=None, origins=None, **settings):
    logits = np.asarray(logits, np.float32)[:, None]
    n = len(logits)
    return collect(
        level,
        logits,
        np.full((n, 1), 0.9, np.float32) if iou is None else np.asarray(iou, np.float32)[:, None],
        np.zeros((n, 2), np.intp) if origins is None else np.asarray(origins),
        np.arange(n),
        np.zeros((n, 2), np.float32),
        stability_offset=1.0,
        **settings,
    )


LEVELS = {
    "same scale": make_level((200, 250), OWN, 1.0),
    "enlarged": make_level((90, 110), OWN, 2.0),
    "reduced": make_level((900, 1000), OWN, 0.25),
}


@pytest.mark.parametrize("level", LEVELS.values(), ids=LEVELS.keys())
def test_a_drawn_candidate_equals_the_interpolated_whole_plane(level):
    logits = blob(20.3, 31.7, 9.2)
    found = gathered(level, [logits])
    whole = F.interpolate(
        torch.from_numpy(logits[None, None]), scale_factor=[4 / s for s in level.scale], mode="bilinear"
    )[0, 0].numpy()
    height, width = level.shape
    expected = np.zeros(level.shape, bool)
    part = whole[:height, :width] > 0
    expected[: part.shape[0], : part.shape[1]] = part
    mask = found.mask(0)
    assert np.count_nonzero(mask.to_array(level.shape) != expected) <= 0.004 * expected.sum()
    assert mask.area == pytest.approx(found.areas[0], rel=0.03)
    assert mask.diameter == pytest.approx(found.diameters[0], rel=0.02)


def test_poor_and_empty_candidates_are_dropped_before_they_are_stored():
    level = LEVELS["same scale"]
    logits = [blob(20, 20, 5), blob(20, 20, -3), blob(30, 30, 6), 0.01 * blob(20, 20, 8)]
    found = gathered(level, logits, iou=[0.9, 0.9, 0.2, 0.9], min_iou=0.5, min_stability=0.4)
    assert found.prompts.tolist() == [0]
    assert found.boxes.tolist() == [[16, 16, 25, 25]]


def test_padding_around_the_image_is_never_object():
    level = make_level((100, 120), OWN, 1.0)  # 25 x 30 logits show image
    found = gathered(level, [np.full((64, 64), 3.0)])
    assert found.boxes.tolist() == [[0, 0, 25, 30]]
    assert found.mask(0).to_array(level.shape).all()
    assert len(gathered(level, [blob(50, 50, 8)])) == 0


def test_a_mask_that_reaches_its_window_but_not_the_images_border_is_cut():
    level = make_level((512, 512), OWN, 1.0)
    full = np.full((64, 64), 3.0)
    found = gathered(level, [full, full, blob(32, 32, 5)], origins=[(0, 0), (64, 64), (32, 32)])
    assert found.cut.tolist() == [True, True, False]
    whole = make_level((256, 256), OWN, 1.0)
    assert gathered(whole, [full]).cut.tolist() == [False]


def test_stability_compares_the_areas_at_two_logits():
    level = LEVELS["same scale"]
    logits = blob(32, 32, 10)
    expected = np.count_nonzero(logits > 1) / np.count_nonzero(logits > -1)
    assert gathered(level, [logits]).stability[0] == pytest.approx(expected)


def test_taking_and_joining_keep_everything_together():
    level = LEVELS["same scale"]
    found = gathered(level, [blob(10, 10, 3), blob(20, 20, 5), blob(30, 30, 7)], iou=[0.1, 0.2, 0.3])
    some = found.take(np.array([2, 0]))
    np.testing.assert_allclose(some.iou, [0.3, 0.1])
    joined = concatenate([some, found.take(np.array([False, True, False]))], level)
    np.testing.assert_allclose(joined.iou, [0.3, 0.1, 0.2])
    for i, k in enumerate([2, 0, 1]):
        np.testing.assert_array_equal(joined.logits[i], found.logits[k])
        assert joined.origins[i].tolist() == found.origins[k].tolist()
    empty = concatenate([], level)
    assert len(empty) == len(empty.diameters) == 0


def test_a_mask_keeps_the_logits_it_was_drawn_from():
    level = LEVELS["same scale"]
    values = blob(5, 6, 3, (12, 13))
    mask = draw(MaskLogits(level, (4, 5), values), (0.8, 0.7))
    assert (mask.iou, mask.stability) == (0.8, 0.7)
    assert mask.logits.values is values
    centre = np.argwhere(mask.crop).mean(axis=0) + mask.offset
    np.testing.assert_allclose(centre, [(9 + 0.5) * 4 - 0.5, (11 + 0.5) * 4 - 0.5], atol=0.6)
