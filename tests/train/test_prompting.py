"""Simulated prompts ask for the object they stand on, in a window laid as for inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.crops import CropMaker, _prepare
from napari_lightsam.train.prompting import ask


@pytest.fixture(scope="module")
def batch(sample):
    image, labels = sample("nuclei_fluorescence")
    images = _prepare("samples", "nuclei", image, None, labels.astype(np.int32))
    return CropMaker(images, ObjectFrame(), 1, shapes=((2, 448),), sizes=(30, 40), augment=False)[0]


def draw(batch, seed=0, count=64):
    return ask(batch, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_clicks_lie_inside_their_object_and_background_clicks_on_nothing(batch, seed):
    clicks, _ = draw(batch, seed)
    x, y = clicks.points[:, 0].long().T
    on_object = clicks.truth[torch.arange(len(x)), 0, y, x] > 0
    asks_for_something = clicks.truth.flatten(1).any(1)
    assert (on_object == asks_for_something).all()
    assert asks_for_something.any()
    assert not asks_for_something.all()


def test_boxes_overlap_their_object_well(batch):
    _, boxes = draw(batch)
    for truth, box in zip(boxes.truth[:, 0], boxes.boxes, strict=True):
        y, x = torch.nonzero(truth, as_tuple=True)
        if not len(y):
            continue
        exact = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()
        assert (exact - box.clamp(0, boxes.window)).abs().max() < 0.35 * (exact[2:] - exact[:2]).max() + 6


def test_windows_lie_on_the_token_grid_inside_the_crop(batch):
    for seed in range(6):
        for asked in draw(batch, seed):
            assert (asked.corners % 16 == 0).all()
            assert (asked.corners >= 0).all()
            assert (asked.corners + asked.window <= 448).all()


def test_a_correction_is_positive_on_missed_and_negative_on_wrong_parts(batch):
    clicks, _ = draw(batch)
    side = clicks.window // 4
    generator = torch.Generator().manual_seed(1)
    nothing = torch.full((len(clicks.crop), 1, side, side), -5.0)
    real = clicks.truth.flatten(1).any(1)
    assert (clicks.corrected(nothing, generator).point_labels[real, 1] == 1).all()
    everything = -nothing
    assert (clicks.corrected(everything, generator).point_labels[:, 1] == 0).all()


def test_equal_seeds_ask_equally(batch):
    first, second = draw(batch, 7), draw(batch, 7)
    assert torch.equal(first[0].points, second[0].points)
    assert torch.equal(first[1].boxes, second[1].boxes)
