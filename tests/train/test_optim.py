"""Matrices learn by Muon, everything else by AdamW, at one rate."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from napari_lightsam.train.optim import Optimizer


@pytest.fixture
def model():
    torch.manual_seed(0)
    parts = {
        "kernel": nn.Conv2d(16, 32, 3),
        "linear": nn.Linear(64, 24),
        "depthwise": nn.Conv2d(32, 32, 3, groups=32),
        "embed": nn.Embedding(32, 32),
    }
    return nn.ModuleDict(parts).to(memory_format=torch.channels_last)


def fill_gradients(model):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.01


def steps_of(model, optimizer):
    """What one step changes, by name."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fill_gradients(model)
    optimizer.step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def spread(change):
    """Largest over smallest singular value of a kernel, its outputs as rows."""
    values = torch.linalg.svdvals(change.flatten(1))
    return float(values[0] / values[-1])


@pytest.mark.parametrize("name", ["kernel.weight", "linear.weight"])
def test_the_directions_of_a_matrix_are_evened_out(model, name):
    skewed = torch.linspace(1, 100, len(dict(model.named_parameters())[name]))
    optimizer = Optimizer(model, 1e-3, 0.0)
    before = dict(model.named_parameters())[name].detach().clone()
    fill_gradients(model)
    parameter = dict(model.named_parameters())[name]
    parameter.grad *= skewed.view(-1, *[1] * (parameter.ndim - 1))
    gradient = parameter.grad.clone()
    optimizer.step()
    assert spread(gradient) > 50
    assert spread(parameter.detach() - before) < 5


@pytest.mark.parametrize("name", ["linear.bias", "depthwise.weight", "embed.weight"])
def test_everything_else_moves_by_its_sign_in_the_first_step(model, name):
    change = steps_of(model, Optimizer(model, 1e-3, 0.0))[name]
    torch.testing.assert_close(change.abs(), torch.full_like(change, 1e-3), rtol=1e-3, atol=1e-6)


def test_both_go_by_one_rate_of_which_slower_parameters_get_a_part(model):
    optimizer = Optimizer(model, 1e-3, 0.0, {"linear.": 0.1})
    optimizer.set_rate(1e-2)
    changes = steps_of(model, optimizer)
    sizes = {name: float(change.square().mean().sqrt()) for name, change in changes.items()}
    assert sizes["linear.bias"] == pytest.approx(1e-3, rel=0.01)
    assert sizes["kernel.bias"] == pytest.approx(1e-2, rel=0.01)
    assert sizes["kernel.weight"] / sizes["linear.weight"] == pytest.approx(10, rel=0.2)


def test_what_is_frozen_stays(model):
    model["kernel"].requires_grad_(False)
    changes = steps_of(model, Optimizer(model, 1e-3, 0.05))
    assert {name for name, change in changes.items() if not change.any()} == {"kernel.weight", "kernel.bias"}


def test_an_optimizer_continues_from_its_state(model):
    first = Optimizer(model, 1e-3, 0.05)
    steps_of(model, first)
    state, weights = (
        deepcopy(first.state_dict()),
        {n: p.detach().clone() for n, p in model.named_parameters()},
    )
    expected = steps_of(model, first)
    model.load_state_dict(weights)
    second = Optimizer(model, 1e-3, 0.05)
    second.load_state_dict(state)
    for name, change in steps_of(model, second).items():
        assert torch.equal(change, expected[name])
