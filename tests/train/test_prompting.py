"""Simulated prompts ask for the object they stand on, in a window laid as for inference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.images import read_unit, training_image
from napari_lightsam.train.prompting import PLAIN, PromptMix, ask, ask_centres, happens


@pytest.fixture(scope="module")
def batch(sample):
    image, labels = sample("nuclei_fluorescence")
    images = [training_image("samples", "nuclei", read_unit(image, None), labels.astype(np.int32))]
    return CropMaker(images, ObjectFrame(), 1, shapes=((2, 448),), sizes=(30, 40), augment=False)[0]


def draw(batch, seed=0, count=64, mix=PLAIN):
    return ask(batch, count, torch.Generator().manual_seed(seed), mix)


def on_truth(asked, column):
    """Whether each click of a column lies on the logits of its object; None of those that are padding."""
    x, y = asked.points[:, column].long().T
    inside = torch.nn.functional.avg_pool2d(asked.truth, 4)[torch.arange(len(x)), 0, y // 4, x // 4]
    return inside[asked.point_labels[:, column] >= 0]


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


def test_further_clicks_lie_in_the_object_or_close_to_it(batch):
    labels = []
    for seed in range(6):
        clicks, boxes = draw(batch, seed, mix=PromptMix(several=1, pointed=1))
        assert not clicks.ambiguous
        assert boxes.points.shape[1] == 1
        for asked, columns in ((clicks, range(1, clicks.points.shape[1])), (boxes, range(1))):
            for column in columns:
                kinds = asked.point_labels[:, column]
                labels += kinds.tolist()
                inside, given = on_truth(asked, column), kinds[kinds >= 0]
                assert (inside[given == 1] > 0.5).all()
                assert (inside[given == 0] == 0).all()
                background = ~asked.truth.flatten(1).any(1)
                assert (kinds[background] == -1).all()
    assert set(labels) == {-1, 0, 1}


def test_the_plain_mix_asks_with_one_click_or_one_box(batch):
    clicks, boxes = draw(batch)
    assert clicks.ambiguous
    assert not boxes.ambiguous
    assert boxes.points.shape[1] == 0


def test_hard_prompts_stand_on_what_was_missed_of_badly_answered_objects(batch):
    clicks, _ = draw(batch)
    truth = torch.nn.functional.avg_pool2d(clicks.truth, 4)
    logits = truth * 20 - 10
    real = torch.nonzero(clicks.truth.flatten(1).any(1)).flatten()
    bad = real[:2]
    logits[bad] = -5
    generator = torch.Generator().manual_seed(0)
    asked_for_bad = 0
    for _ in range(20):
        harder = clicks.harder(logits, generator)
        assert harder.ambiguous
        assert harder.truth.flatten(1).any(1).all()
        assert (on_truth(harder, 0) > 0.5).all()
        asked_for_bad += sum(
            torch.equal(corner, clicks.corners[b]) for corner in harder.corners[:2] for b in bad
        )
    assert asked_for_bad > 20  # of 40 first draws; chance alone gives about 4 in windows of their own


def test_nothing_hard_is_asked_where_all_prompts_stand_on_background(batch):
    clicks, _ = draw(batch)
    background = clicks.truth * 0
    harder = replace(clicks, truth=background).harder(background[..., ::4, ::4], torch.Generator())
    assert len(harder.crop) == 0


def test_centres_are_asked_for_in_windows_that_fit_small_crops(sample):
    image, labels = sample("nuclei_fluorescence")
    images = [training_image("samples", "nuclei", read_unit(image, None), labels.astype(np.int32))]
    small = CropMaker(images, ObjectFrame(), 1, shapes=((1, 96),), sizes=(30, 40), augment=False)[0]
    asked = ask_centres(small, torch.arange(len(small.objects.crop)))
    assert asked.window == 96
    assert (on_truth(asked, 0) > 0).all()


def test_what_never_happens_draws_nothing():
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert not happens(0, generator)
    assert torch.equal(before, generator.get_state())
    assert happens(1, generator)
