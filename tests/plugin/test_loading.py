from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest

from napari_lightsam.plugin import loading


@pytest.mark.parametrize("beside_a_window", [True, False])
def test_triton_cannot_be_imported_beside_a_window_while_a_model_is_loaded(monkeypatch, beside_a_window):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if beside_a_window:
        monkeypatch.setitem(sys.modules, "vispy", ModuleType("vispy"))
    else:
        monkeypatch.delitem(sys.modules, "vispy", raising=False)
    with loading._no_triton():
        blocked = "triton" in sys.modules
        if blocked:
            with pytest.raises(ImportError):
                importlib.import_module("triton")
    assert blocked == beside_a_window
    assert "triton" not in sys.modules


def test_a_triton_that_is_loaded_already_stays(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "vispy", ModuleType("vispy"))
    there = ModuleType("triton")
    monkeypatch.setitem(sys.modules, "triton", there)
    with loading._no_triton():
        assert sys.modules["triton"] is there
    assert sys.modules["triton"] is there


def test_an_image_that_was_open_before_is_not_encoded_again(sample, monkeypatch):
    image = sample("nuclei_fluorescence")[0][:120, :120]
    first = loading.load("lightsam")
    masks = first.predict(first.embed(image, object_size=26), points=[(60, 60)])

    again = loading.load("lightsam")
    monkeypatch.setattr(again.runtime.runtime, "encode", None)  # would fail if it were asked
    same = again.predict(again.embed(image, object_size=26), points=[(60, 60)])
    assert masks.to_array().any()
    assert np.array_equal(same.to_array(), masks.to_array())
