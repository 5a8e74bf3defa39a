"""Augmentation varies what may vary and keeps what must be kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_lightsam.train.augment import draw_noise, orient, place, turn, vary_intensity


def test_intensities_vary_within_the_range_and_the_sample_varies_alike():
    part = torch.linspace(0, 1, 32 * 32).reshape(1, 32, 32)
    seen = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        varied, sample = vary_intensity(part, part.clone(), random)
        assert 0 <= float(varied.min()) <= float(varied.max()) <= 1
        assert float((varied.mean() - sample.mean()).abs()) < 0.02
        seen.append(float(varied[0, 0, 0] - varied[0, -1, -1]))
    assert min(seen) < 0 < max(seen)  # both polarities


def test_equal_numbers_vary_equally_and_leave_the_global_state_alone():
    part = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, other = (vary_intensity(part, part, np.random.default_rng(4))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_turning_takes_labels_from_the_nearest_pixel():
    stacked = torch.zeros(3, 60, 60)
    stacked[2, 20:40, 20:40] = 7
    turned = turn(stacked, 0.5, 40)
    assert set(turned[2].unique().tolist()) == {0.0, 7.0}
    assert float((turned[2] > 0).sum()) == pytest.approx(400, rel=0.05)


def test_orientation_is_one_of_eight():
    stacked = torch.arange(9.0).reshape(1, 3, 3)
    random = np.random.default_rng(0)
    seen = {tuple(orient(stacked, random).flatten().tolist()) for _ in range(200)}
    assert len(seen) == 8


def test_small_images_are_padded_right_and_below():
    placed = place(torch.ones(2, 3, 4), 6, np.random.default_rng(0))
    assert placed.shape == (2, 6, 6)
    assert float(placed.sum()) == 24
    assert bool((placed[:, :3, :4] == 1).all())


def test_noise_has_no_structure_but_grain():
    plane = draw_noise(64, np.random.default_rng(1))
    assert plane.dtype == np.float32
    assert 0 <= plane.min() < plane.max() <= 1
