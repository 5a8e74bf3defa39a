import dataclasses
import math

import numpy as np
import pytest

from napari_lightsam.engine.config import (
    EverythingConfig,
    Thresholds,
    config_from,
    in_pixels,
    keep_floors,
    thresholds,
)
from napari_lightsam.errors import ConfigError


@pytest.mark.parametrize("setting", dataclasses.fields(EverythingConfig), ids=lambda s: s.name)
def test_every_setting_carries_help_unit_and_range(setting):
    assert set(setting.metadata) >= {"help", "unit", "range"}
    assert len(setting.metadata["help"]) > 10
    low, high = setting.metadata["range"]
    assert low < high


BAD = {
    "unknown mode": {"mode": "fast"},
    "object size of nothing": {"object_size": 0},
    "negative size": {"min_size": -1},
    "size as text": {"object_size": "30"},
    "size as bool": {"object_size": True},
    "size not a number": {"object_size": math.nan},
    "infinite size": {"object_size": math.inf},
    "balance beyond its end": {"balance": -1.5},
    "threshold above one": {"iou_threshold": 1.5},
    "flag as text": {"keep_border": "no"},
    "flag as none": {"keep_border": None},
    "half a prompt": {"batch": 1.5},
    "no batch": {"batch": 0},
    "size as list": {"max_size": [3]},
    "least larger than largest": {"min_size": 20, "max_size": 10},
}


@pytest.mark.parametrize("settings", BAD.values(), ids=BAD.keys())
def test_a_value_that_is_not_accepted_is_refused_by_name(settings):
    with pytest.raises(ConfigError, match="mode" if "mode" in settings else next(iter(settings))):
        EverythingConfig(**settings)


def test_an_unknown_setting_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"diameter.*object_size"):
        config_from({"diameter": 3})


@pytest.mark.parametrize("value", [np.float32(30), np.int64(30), 30, 30.0], ids=lambda v: type(v).__name__)
def test_numbers_of_numpy_become_pythons_own(value):
    size = EverythingConfig(object_size=value).object_size
    assert size == 30
    assert type(size) in (int, float)


def test_a_config_is_a_value():
    config = EverythingConfig(mode="grid", object_size=12)
    assert config == config_from({"mode": "grid", "object_size": 12})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.mode = "hierarchical"


USUAL = Thresholds(0.88, 0.95)


def test_the_balance_moves_thresholds_from_strict_to_half():
    steps = [thresholds(EverythingConfig(balance=b), USUAL) for b in np.linspace(-1, 1, 9)]
    assert steps[4] == USUAL
    assert steps[-1] == pytest.approx((0.44, 0.475))
    for scores in zip(*steps, strict=True):
        assert (np.diff(scores) < 0).all()
        assert max(scores) < 1


def test_thresholds_that_are_given_win_over_the_balance():
    config = EverythingConfig(balance=1, iou_threshold=0.0, stability_threshold=0.99)
    assert thresholds(config, USUAL) == (0.0, 0.99)


def test_a_run_keeps_what_any_balance_or_lower_given_thresholds_let_pass():
    lowest = thresholds(EverythingConfig(balance=1), USUAL)
    for config in (EverythingConfig(), EverythingConfig(balance=-1), EverythingConfig(iou_threshold=0.9)):
        assert keep_floors(config, USUAL) == lowest
    assert keep_floors(EverythingConfig(iou_threshold=0.1), USUAL) == (0.1, lowest.stability)


@pytest.mark.parametrize(
    ("size", "pixel_size", "expected"),
    [
        ("24 px", None, 24),
        ("24px", 0.3, 24),
        ("8 um", 0.5, 16),
        ("8 \u00b5m", (0.25, 1.0), 16),
        ("1e1 \u03bcm", 1, 10),
        ("100 px2", None, 2 * math.sqrt(100 / math.pi)),
        ("50 um\u00b2", (0.5, 0.25), 2 * math.sqrt(400 / math.pi)),
        ("50 UM2", 0.5, 2 * math.sqrt(200 / math.pi)),
    ],
)
def test_sizes_with_units_become_diameters_in_pixels(size, pixel_size, expected):
    assert in_pixels(size, pixel_size) == pytest.approx(expected)


@pytest.mark.parametrize("size", ["8", 8, "8 nm", "-8 um", "1.2.3 px", "", "um"])
def test_a_size_without_number_or_known_unit_is_refused(size):
    with pytest.raises(ConfigError, match="size"):
        in_pixels(size, 1.0)


@pytest.mark.parametrize("pixel_size", [None, 0, (1, 0), math.nan, (1, 1, 1)], ids=str)
def test_micrometres_need_a_pixel_size(pixel_size):
    with pytest.raises(ConfigError, match="pixel size"):
        in_pixels("8 um", pixel_size)
