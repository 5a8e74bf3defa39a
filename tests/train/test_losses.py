"""The losses have the values that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from napari_lightsam.train.losses import answer_loss, generalised_iou, mask_losses, proposal_loss, true_iou

SIDE = 16  # logits


def square(first: int, last: int) -> torch.Tensor:
    """Truth (1, 1, 64, 64) of a square."""
    truth = torch.zeros(1, 1, 4 * SIDE, 4 * SIDE)
    truth[..., first:last, first:last] = 1
    return truth


def logits_of(truth: torch.Tensor, strength: float = 20.0) -> torch.Tensor:
    coarse = torch.nn.functional.avg_pool2d(truth, 4)
    return (2 * coarse - 1) * strength


def test_a_perfect_mask_costs_nothing():
    truth = square(16, 48)
    assert float(mask_losses(logits_of(truth), truth).detach()) == pytest.approx(0, abs=1e-3)


def test_an_empty_answer_costs_the_whole_dice():
    truth = square(16, 48)
    empty = torch.full((1, 1, SIDE, SIDE), -20.0)
    pixels = 64  # logits inside
    focal = 20 * pixels * 20.0 / (8 * pixels)  # (1 - 0)^2 * cross entropy 20 each, by the extent
    assert float(mask_losses(empty, truth)) == pytest.approx(focal + 1 - 1 / (pixels + 1), rel=1e-3)


def test_a_border_through_a_logit_is_learned_as_a_part():
    truth = square(18, 46)  # covers half of the outer logits
    half = torch.nn.functional.avg_pool2d(truth, 4).clamp(1e-6, 1 - 1e-6).logit()
    hard = logits_of(
        (torch.nn.functional.avg_pool2d(truth, 4) > 0.4)
        .float()
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )
    assert float(mask_losses(half, truth)) < float(mask_losses(hard, truth))


def test_true_iou_is_measured_at_full_size():
    truth = square(16, 48)
    other = square(16, 32)
    assert float(true_iou(logits_of(truth), truth)) == pytest.approx(1, abs=0.03)
    assert float(true_iou(logits_of(other), truth)) == pytest.approx(0.25, abs=0.02)


def test_the_best_of_three_masks_is_taught_and_all_judge_themselves():
    truth = square(16, 48)
    good, bad = logits_of(truth), torch.full((1, 1, SIDE, SIDE), -20.0)
    logits = torch.cat([bad, good, bad], dim=1)
    judged_well = torch.tensor([[0.0, 1.0, 0.0]])
    judged_badly = torch.tensor([[1.0, 0.0, 1.0]])
    assert float(answer_loss(logits, judged_well, truth)) == pytest.approx(0, abs=1e-2)
    assert float(answer_loss(logits, judged_badly, truth)) == pytest.approx(1, abs=5e-2)


def test_a_prompt_on_background_only_teaches_the_judgement():
    nothing = torch.zeros(1, 1, 4 * SIDE, 4 * SIDE)
    logits = torch.randn(1, 3, SIDE, SIDE, requires_grad=True)
    judged = torch.full((1, 3), 0.5, requires_grad=True)
    loss = answer_loss(logits, judged, nothing)
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(0.25)
    assert not logits.grad.abs().any()
    assert (judged.grad > 0).all()


def test_generalised_iou_of_boxes_by_hand():
    a = torch.tensor([1.0, 1, 1, 1])[None, :, None]  # 2 x 2
    assert float(generalised_iou(a, a)) == pytest.approx(1)
    wide = torch.tensor([1.0, 3, 1, 3])[None, :, None]  # 2 x 6 around it
    assert float(generalised_iou(a, wide)) == pytest.approx(4 / 12)
    cross = torch.tensor([3.0, 1, 3, 1])[None, :, None]  # 6 x 2: shared 4, union 20, hull 36
    assert float(generalised_iou(wide, cross)) == pytest.approx(4 / 20 - 16 / 36)


@pytest.fixture
def one_object():
    """A batch-like value: one object in the middle of 8 x 8 cells."""
    from types import SimpleNamespace

    heat = torch.zeros(1, 1, 8, 8)
    heat[0, 0, 4, 4] = 1
    distances = torch.full((1, 4, 8, 8), 12.0)
    return SimpleNamespace(heat=heat, distances=distances, weights=heat.clone(), inside=torch.ones(1, 64, 64))


def test_right_proposals_cost_nothing_and_missed_ones_cost(one_object):
    right = torch.full((1, 1, 8, 8), -15.0)
    right[0, 0, 4, 4] = 15
    exact = proposal_loss(right, one_object.distances, one_object)
    assert float(exact) == pytest.approx(0, abs=1e-2)
    missed = proposal_loss(torch.full((1, 1, 8, 8), -15.0), one_object.distances, one_object)
    assert float(missed) == pytest.approx(-math.log(1e-4), rel=0.01)
    small = proposal_loss(right, one_object.distances / 2, one_object)
    assert float(small) == pytest.approx(2 * (1 - 0.25), abs=1e-2)


def test_padding_is_no_place_for_proposals(one_object):
    everywhere = torch.zeros(1, 1, 8, 8)
    everywhere[0, 0, 4, 4] = 15
    full = float(proposal_loss(everywhere, one_object.distances, one_object))
    one_object.inside[:, :, :32] = 0
    assert float(proposal_loss(everywhere, one_object.distances, one_object)) < 0.7 * full
