import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_lightsam.engine.masks import HOLE_FRACTION, Mask, Masks, clean_object, crop_mask

quick = settings(max_examples=60, deadline=None)
planes = arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))
EIGHT = np.ones((3, 3))


def holes(mask):
    """Sizes of the holes of a mask."""
    parts, _ = ndimage.label(~np.pad(mask, 1))
    sizes = np.bincount(parts.ravel())
    return np.delete(sizes, [0, parts[0, 0]])


@quick
@given(planes, st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_cropping_and_drawing_again_gives_the_same_plane(plane, offset):
    mask = crop_mask(plane, offset)
    whole = np.pad(plane, ((offset[0], 2), (offset[1], 3)))
    np.testing.assert_array_equal(mask.to_array(whole.shape), whole)
    assert mask.area == plane.sum()
    if mask.area:  # tight on all four sides
        assert all(edge.any() for edge in (mask.crop[0], mask.crop[-1], mask.crop[:, 0], mask.crop[:, -1]))
        assert mask.box[2:] == tuple(np.add(mask.offset, mask.crop.shape))


@quick
@given(planes, st.tuples(st.integers(-3, 26), st.integers(-3, 26)) | st.none())
def test_a_cleaned_object_is_one_part_of_the_mask_with_only_small_holes_filled(plane, keep):
    clean = clean_object(plane, keep)
    assert clean.shape == plane.shape
    if not plane.any():
        assert not clean.any()
        return
    assert ndimage.label(clean, EIGHT)[1] == 1
    parts, _ = ndimage.label(plane, EIGHT)
    chosen = parts == np.bincount(parts[clean & plane])[1:].argmax() + 1
    area = chosen.sum()
    if keep is not None and all(0 <= k < n for k, n in zip(keep, plane.shape, strict=True)) and plane[keep]:
        assert chosen[keep]
    else:
        assert area == np.bincount(parts.ravel())[1:].max()
    assert clean[chosen].all()
    before, after = holes(chosen), holes(clean)
    small = before[before < HOLE_FRACTION * area]
    assert clean.sum() == area + small.sum()
    assert sorted(after) == sorted(before[before >= HOLE_FRACTION * area])


def test_a_small_hole_is_filled_and_a_large_one_is_kept():
    mask = np.ones((20, 20), bool)
    mask[2:4, 2:4] = False  # 4 px, 1%
    mask[8:16, 8:16] = False  # 64 px, 19%
    clean = clean_object(mask)
    assert clean[2:4, 2:4].all()
    assert not clean[8:16, 8:16].any()


def test_a_mask_knows_its_measures():
    mask = crop_mask(np.pad(np.ones((3, 4), bool), ((2, 1), (5, 0))))
    assert (mask.offset, mask.box, mask.area) == ((2, 5), (2, 5, 5, 9), 12)
    assert mask.diameter == pytest.approx(2 * np.sqrt(12 / np.pi))
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.offset = (0, 0)


def test_cleaning_keeps_the_part_that_was_clicked_and_the_scores():
    plane = np.zeros((10, 30), bool)
    plane[1:9, 1:12] = True
    plane[4:7, 20:24] = True
    mask = dataclasses.replace(crop_mask(plane), iou=0.7, stability=0.6)
    clicked = mask.cleaned(keep=(5.2, 21.4))
    assert clicked.box == (4, 20, 7, 24)
    assert (clicked.iou, clicked.stability) == (0.7, 0.6)
    assert mask.cleaned().box == (1, 1, 9, 12)
    assert mask.cleaned(keep=(0, 0)).box == (1, 1, 9, 12)


def test_an_empty_mask_stays_empty():
    mask = crop_mask(np.zeros((4, 5), bool))
    assert (mask.crop.shape, mask.area, mask.diameter) == ((0, 0), 0, 0)
    assert mask.cleaned().area == 0
    assert not mask.to_array((4, 5)).any()


def test_masks_offer_the_best_candidate_of_every_object():
    small, large = (crop_mask(np.ones((n, n), bool)) for n in (2, 3))
    masks = Masks((5, 6), ((large, small), (small,)))
    assert len(masks) == 2
    assert masks.best(0) is large
    assert masks.candidates(0) == (large, small)
    planes = masks.to_array()
    assert (planes.shape, planes.dtype) == ((2, 5, 6), bool)
    assert planes.sum(axis=(1, 2)).tolist() == [9, 4]


def test_no_objects_give_no_planes():
    assert Masks((5, 6), ()).to_array().shape == (0, 5, 6)
    assert Mask((0, 0), np.zeros((0, 0), bool)).box == (0, 0, 0, 0)
