import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.masks import Masks, crop_mask
from napari_lightsam.engine.prompts import check_prompts, to_frame
from napari_lightsam.errors import PromptError
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

SHAPE = (40, 60)
OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)
MASK = np.zeros(SHAPE, bool)
MASK[5:9, 10:20] = True

BAD = {
    "nothing": ({}, "No prompt"),
    "one bare point": ({"points": [3, 4]}, r"\(P, 2\)"),
    "three coordinates": ({"points": [(1, 2, 3)]}, r"\(row, column\)"),
    "no points": ({"points": np.zeros((0, 2))}, "points"),
    "point below": ({"points": [(40, 3)]}, r"\(40.0, 3.0\) lies outside"),
    "point left": ({"points": [(3, -1)]}, "outside"),
    "point of nan": ({"points": [(np.nan, 1)]}, "finite"),
    "point of text": ({"points": [("a", "b")]}, "numbers"),
    "ragged points": ({"points": [[(1, 1)], [(1, 1), (2, 2)]]}, "numbers"),
    "points with a gradient": ({"points": torch.ones(1, 2, requires_grad=True)}, "numbers; got tensor.*grad"),
    "labels alone": ({"point_labels": [1], "boxes": (0, 0, 5, 5)}, "without points"),
    "too few labels": ({"points": [(1, 1), (2, 2)], "point_labels": [1]}, r"\(1, 2\)"),
    "unknown label": ({"points": [(1, 1)], "point_labels": [2]}, "1, 0 or -1"),
    "ragged labels": ({"points": [(1, 1)], "point_labels": [[1], [1, 0]]}, "point_labels"),
    "negative clicks alone": ({"points": [(1, 1)], "point_labels": [0]}, "positive"),
    "second object without": ({"points": [[(1, 1)], [(2, 2)]], "point_labels": [[1], [0]]}, "positive"),
    "box of three": ({"boxes": (1, 2, 3)}, r"\(y0, x0, y1, x1\)"),
    "box upside down": ({"boxes": (9, 0, 3, 5)}, "y0 < y1"),
    "box outside": ({"boxes": (50, 0, 70, 5)}, "outside"),
    "box of nan": ({"boxes": (0, 0, np.nan, 5)}, "finite"),
    "mask of numbers": ({"mask": MASK.astype(int)}, "bool"),
    "mask of another shape": ({"mask": MASK[:5]}, r"\(40, 60\)"),
    "empty mask": ({"mask": np.zeros(SHAPE, bool)}, "empty"),
    "mask of a larger image": ({"mask": crop_mask(np.pad(MASK, 50))}, "larger image"),
    "different numbers": ({"points": [[(1, 1)], [(2, 2)]], "boxes": [(0, 0, 5, 5)]}, "2 points, 1 boxes"),
}


@pytest.mark.parametrize(("given", "words"), BAD.values(), ids=BAD.keys())
def test_prompts_that_do_not_fit_are_refused_in_words(given, words):
    with pytest.raises(PromptError, match=words):
        check_prompts(SHAPE, **given)


def test_points_boxes_and_masks_take_one_form():
    prompts = check_prompts(SHAPE, points=[(3, 4), (5, 6)], point_labels=[1, 0], boxes=(0, 0, 10, 90))
    assert prompts.points.shape == (1, 2, 2)
    assert prompts.labels.tolist() == [[1, 0]]
    assert prompts.boxes.tolist() == [[0, 0, 10, 60]]  # clipped to the image
    assert len(check_prompts(SHAPE, boxes=[(0, 0, 5, 5)] * 3)) == 3
    masks = check_prompts(SHAPE, mask=np.stack([MASK, ~MASK]))
    assert [mask.area for mask in masks.masks] == [40, 2360]
    earlier = Masks(SHAPE, ((crop_mask(MASK),),))
    assert check_prompts(SHAPE, mask=earlier).masks[0].box == (5, 10, 9, 20)
    assert check_prompts(SHAPE, mask=earlier.best(0)).masks[0].box == (5, 10, 9, 20)


def test_extents_cover_all_prompts_of_an_object_but_no_padding():
    prompts = check_prompts(
        SHAPE, points=[[(3, 4), (30, 50)], [(3, 4), (0, 0)]], point_labels=[[1, 0], [1, -1]]
    )
    assert prompts.extents().tolist() == [[3, 4, 30, 50], [3, 4, 3, 4]]
    boxed = check_prompts(SHAPE, points=[(30, 5)], boxes=(1, 2, 8, 9), mask=MASK)
    assert boxed.extents().tolist() == [[1, 2, 30, 20]]


def test_sizes_come_from_masks_then_boxes():
    assert np.isnan(check_prompts(SHAPE, points=[(1, 1)]).sizes()).all()
    assert check_prompts(SHAPE, boxes=(0, 0, 4, 9)).sizes().tolist() == [6]
    assert check_prompts(SHAPE, boxes=(0, 0, 4, 9), mask=MASK).sizes() == pytest.approx(
        2 * np.sqrt(40 / np.pi)
    )


def test_only_a_lone_click_is_ambiguous():
    clicks = check_prompts(SHAPE, points=[[(1, 1), (2, 2)], [(1, 1), (2, 2)]], point_labels=[[1, -1], [1, 0]])
    assert clicks.single_clicks().tolist() == [True, False]
    assert clicks.first_points().tolist() == [[1, 1], [1, 1]]
    boxed = check_prompts(SHAPE, points=[(1, 1)], boxes=(0, 0, 9, 9))
    assert boxed.single_clicks().tolist() == [False]
    assert np.isnan(check_prompts(SHAPE, boxes=(0, 0, 9, 9)).first_points()).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 900), st.integers(1, 900), st.floats(0.05, 4), st.floats(-0.5, 800), st.floats(-0.5, 800)
)
def test_pixel_centres_stay_pixel_centres_and_rows_become_y(height, width, scale, row, column):
    level = make_level((height, width), OWN, scale)
    origins = np.array([[32.0, 16.0]])
    x, y = to_frame(np.array([[[row, column]]]), level, origins)[0, 0]
    assert y == pytest.approx((row + 0.5) * level.scale[0] - 0.5 - 32)
    assert x == pytest.approx((column + 0.5) * level.scale[1] - 0.5 - 16)
    corner_x, corner_y = to_frame(np.array([[[row, column]]]), level, origins, corners=True)[0, 0]
    assert corner_y == pytest.approx(row * level.scale[0] - 32)
    assert corner_x == pytest.approx(column * level.scale[1] - 16)


def test_sams_own_checkpoints_scale_pixel_indices_like_lengths():
    level = make_level((200, 256), ModelSpec("sam", "SAM"))
    assert to_frame(np.array([[[80.0, 120.0]]]), level, np.zeros((1, 2))).tolist() == [[[480, 320]]]
