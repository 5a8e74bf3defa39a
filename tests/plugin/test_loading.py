from __future__ import annotations

import importlib
import sys
from types import ModuleType

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
