import dataclasses
import math

import numpy as np
import pytest

from napari_lightsam.engine.config import EverythingConfig, config_from
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
