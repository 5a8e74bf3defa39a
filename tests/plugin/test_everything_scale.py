"""Every part of the slider changes the objects of the run at hand; the usual balance is one of its places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_lightsam import EverythingConfig, drain
from napari_lightsam.engine.assemble import balances, to_labels
from napari_lightsam.plugin.everything.scale import BalanceScale


@pytest.fixture(scope="module")
def run(nuclei, segmenter):
    """A run of the embedded model in which thresholds of usual strictness leave hardly anything out."""
    return drain(segmenter.everything(nuclei[0][:200, :200], EverythingConfig(object_size=26)))


def count(run, balance, **more):
    return len(to_labels(run.candidates, replace(run.config, balance=balance, **more))[1])


def test_it_is_known_at_which_balance_each_object_comes(run):
    known = balances(run.candidates, run.config)
    for balance in np.linspace(-1, 1, 11):
        assert abs(np.count_nonzero(known <= balance) - count(run, balance)) <= 1


def test_a_threshold_that_is_given_is_not_moved(run):
    config = replace(run.config, iou_threshold=0.85, stability_threshold=0.3)
    assert set(balances(run.candidates, config)) == {-1.0}


def test_each_quarter_of_the_slider_changes_the_number_of_objects(run):
    scale = BalanceScale(balances(run.candidates, run.config))
    counts = [count(run, scale.balance(position)) for position in (0, 0.25, 0.5, 0.75, 1)]
    assert counts == sorted(set(counts))
    assert counts[-1] == count(run, 1.0)
    assert abs(counts[0] - count(run, -1.0)) == 0
    assert scale.counts == (counts[0], counts[-1])


def test_positions_and_balances_lead_to_each_other(run):
    scale = BalanceScale(balances(run.candidates, run.config))
    assert scale.balance(scale.position(0.0)) == 0.0
    for position in np.linspace(0, 1, 41):
        balance = scale.balance(position)
        assert count(run, scale.balance(scale.position(balance))) == count(run, balance)


@pytest.mark.parametrize("known", [[], [-1.0, -1.0]], ids=["before a run", "nothing to choose"])
def test_without_a_choice_the_slider_is_the_balance(known):
    scale = BalanceScale(np.array(known))
    assert scale.counts is None
    assert [scale.balance(position) for position in (0, 0.25, 0.5, 1)] == [-1, -0.5, 0, 1]
    assert [scale.position(balance) for balance in (-1, -0.5, 0, 1)] == [0, 0.25, 0.5, 1]
