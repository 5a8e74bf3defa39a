"""The quality check: its figures, and going through it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.quality import (
    Check,
    Field,
    Share,
    Verdict,
    count_outlined,
    draw_field,
    draw_sample,
    read_check,
    wilson,
)
from napari_lightsam.plugin.worker import Lane


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3, as statsmodels' `proportion_confint`
        # with method="wilson"
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(hits, total, low, high):
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson(total - hits, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_looked_at_says_nothing():
    assert wilson(0, 0) == (0, 1)
    assert math.isnan(Share(0, 0).value)
    with pytest.raises(ValueError, match="between 0 and 3"):
        wilson(4, 3)


@pytest.fixture
def desk(new_desk):
    table = new_desk()
    data = np.zeros((70, 70), np.int32)
    for label in range(1, 50):
        y, x = divmod(label - 1, 7)
        data[10 * y + 1 : 10 * y + 7, 10 * x + 1 : 10 * x + 7] = label
    table.layer = table.viewer.add_labels(data, name="result")
    table.control.curating.outdated.connect(table.control.curating.measure)
    table.control.curating.use_layer(table.layer)
    table.finish(Lane.MEASURE)
    return table


def test_the_same_seed_draws_the_same_objects_and_fields(desk):
    table = desk.control.curating.table
    one, same, other = (draw_sample(table, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.sampled != other.sampled
    assert len(set(one.sampled)) == 30 == len(one.sampled)
    assert len(draw_sample(table, 1, count=100).sampled) == 49
    field = draw_field(table, (70, 70), one)
    assert field == draw_field(table, (70, 70), same)
    assert 12 <= field.outlined <= 30
    assert field.outlined == count_outlined(table, field.box)
    y0, x0, y1, x1 = field.box
    assert min(y0, x0) >= 0
    assert max(y1, x1) <= 70


def test_a_check_is_answered_kept_with_the_layer_and_gone_on_with(desk):
    checking, layer = desk.control.checking, desk.layer
    checking.start(seed=3)
    order = checking.check.sampled
    for number, label in enumerate(order[:29]):
        assert checking.current == label == layer.selected_label
        checking.judge(Verdict.MERGED if number < 2 else Verdict.CORRECT)
    checking.pause()
    kept = json.loads(json.dumps(layer.metadata["napari-lightsam"]["quality"]))
    assert Check.from_plain(kept) == checking.check == read_check(layer)
    checking.resume()
    assert checking.current == order[29]
    checking.step_back()
    checking.judge(Verdict.SPLIT)  # thought better of it
    checking.judge(Verdict.WRONG)
    assert checking.current is None
    plain = layer.metadata["napari-lightsam"]["quality"]
    assert (plain["precision"]["hits"], plain["precision"]["total"]) == (26, 30)
    assert (plain["precision"]["low"], plain["precision"]["high"]) == wilson(26, 30)
    assert not checking.is_outdated
    desk.control.curating.select([order[0]])
    desk.control.curating.delete()
    desk.finish(Lane.MEASURE)
    assert checking.is_outdated


def test_missed_objects_are_clicked_in_a_random_field(desk):
    checking = desk.control.checking
    checking.start(seed=3)
    checking.pause()
    checking.add_field()
    outlined = checking.field.outlined
    clicks = desk.viewer.layers["missed objects"]
    clicks.add([[9, 9], [19, 9]])
    assert checking.field.missed == 2
    checking.set_missed(5)
    clicks.add([9, 19])
    assert checking.field.missed == 6
    checking.set_false(1)
    checking.end_field()
    assert [layer.name for layer in desk.viewer.layers] == ["result"]
    assert checking.check.recall == Share(outlined - 1, outlined + 5)
    checking.add_field()
    checking.end_field()
    assert len(checking.check.fields) == 2


@pytest.mark.parametrize(
    ("plain", "said"),
    [({"version": 2}, "version 2"), ({"version": 1}, "damaged"), ({}, "version None")],
)
def test_a_check_that_cannot_be_read_says_what_to_do(plain, said):
    with pytest.raises(FileError, match=said):
        Check.from_plain(plain)


def test_only_objects_of_the_sample_are_judged():
    check = Check(0, (4, 5)).with_field(Field((0, 0, 9, 9), (None, None), 3))
    with pytest.raises(ValueError, match="not in the sample"):
        check.judge(6, Verdict.CORRECT)
    assert check.with_field(Field((0, 0, 9, 9), (None, None), 3, missed=1)).recall == Share(3, 4)
