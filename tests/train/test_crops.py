"""Training crops show the objects at the size that was asked for, and the same step gives the same crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.errors import ConfigError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.crops import CropMaker, make_crop
from napari_lightsam.train.images import image_weights, read_unit, training_image

FRAME = ObjectFrame()


@pytest.fixture(scope="module")
def images(sample):
    image, labels = sample("nuclei_fluorescence")
    return [training_image("samples", "nuclei", read_unit(image, None), labels.astype(np.int32))]


def equal(a, b) -> bool:
    flat = [(x, y) for x, y in zip(a, b, strict=True) if isinstance(x, torch.Tensor)]
    return all(torch.equal(x, y) for x, y in flat) and all(
        torch.equal(x, y) for x, y in zip(a.objects, b.objects, strict=True)
    )


def test_a_step_always_gives_the_same_batch_and_others_differ(images):
    maker = CropMaker(images, FRAME, 3)
    assert equal(maker[5], CropMaker(images, FRAME, 3)[5])
    assert not equal(maker[5], CropMaker(images, FRAME, 4)[5])


@pytest.mark.parametrize("diameter", [16.0, 32.0, 64.0])
def test_objects_have_the_size_that_was_asked_for(images, diameter):
    random = np.random.default_rng(0)
    crop = make_crop(images[0], 448, FRAME, random, (diameter, diameter), augment=False)
    areas = np.bincount(crop.labels.ravel())[1:]
    whole = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
    assert whole == pytest.approx(diameter, rel=0.2)


@settings(max_examples=15, deadline=None)
@given(step=st.integers(0, 10_000))
def test_objects_lie_where_the_batch_says(images, step):
    batch = CropMaker(images, FRAME, 0, shapes=((2, 224),))[step]
    for crop, label, box, centre in zip(*batch.objects, strict=True):
        inside = batch.labels[crop] == label
        y, x = torch.nonzero(inside, as_tuple=True)
        assert [x.min(), y.min(), x.max() + 1, y.max() + 1] == box.int().tolist()
        assert inside[int(centre[1]), int(centre[0])]
    assert not batch.labels[~batch.inside].any()
    assert not batch.frames[~batch.inside[:, None].expand(-1, 3, -1, -1)].any()
    assert torch.isfinite(batch.frames).all()


def test_the_heat_map_peaks_at_each_centre_and_boxes_are_measured_from_there(images):
    batch = CropMaker(images, FRAME, 1, shapes=((2, 224),), sizes=(40, 60))[2]
    for crop, _, box, centre in zip(*batch.objects, strict=True):
        column, row = (centre // 8).long().tolist()
        assert batch.heat[crop, 0, row, column] == 1
        if batch.weights[crop, 0, row, column] == 1:
            top, left, bottom, right = batch.distances[crop, :, row, column]
            y, x = row * 8 + 4, column * 8 + 4
            found = torch.stack([x - left, y - top, x + right, y + bottom])
            # a smaller object nearby may own the cell
            owner = batch.objects.boxes[batch.objects.crop == crop]
            assert (owner - found).abs().amax(1).min() < 1e-3
            del box


def test_some_crops_hold_nothing_but_noise(images):
    maker = CropMaker(images, FRAME, 0, shapes=((8, 64),))
    empty = sum(int(not labels.any()) for step in range(40) for labels in maker[step].labels)
    assert empty > 3


def test_some_crops_show_a_part_of_the_image_without_objects(images):
    maker = CropMaker(images, FRAME, 0, shapes=((8, 64),), sizes=(48, 64))
    bare = 0
    for step in range(40):
        batch = maker[step]
        for frame, labels in zip(batch.frames, batch.labels, strict=True):
            grain = float((frame[0, 1:] - frame[0, :-1]).std())
            bare += int(not labels.any() and grain < 0.03)  # a dark ground, not noise
    assert bare > 3


def test_sets_are_drawn_by_their_weight_and_rare_kinds_are_not_drowned(images):
    from dataclasses import replace

    many = [replace(images[0], kind="a") for _ in range(16)] + [replace(images[0], kind="b")]
    other = [replace(images[0], dataset="other")]
    weights = image_weights(many + other, {"other": 3.0})
    assert weights.sum() == pytest.approx(1)
    assert weights[-1] == pytest.approx(0.75)
    assert weights[16] / weights[0] == pytest.approx(4)  # root of 16
    with pytest.raises(ConfigError, match=r"weight 0 \(other\)"):
        image_weights(other, {"other": 0.0})
