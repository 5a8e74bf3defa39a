from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest

from napari_lightsam.model import without_triton


@pytest.mark.parametrize("beside_a_window", [True, False])
def test_triton_cannot_be_imported_beside_a_window_while_a_model_is_loaded(monkeypatch, beside_a_window):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    if beside_a_window:
        monkeypatch.setitem(sys.modules, "vispy", ModuleType("vispy"))
    else:
        monkeypatch.delitem(sys.modules, "vispy", raising=False)
    with without_triton._no_triton():
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
    with without_triton._no_triton():
        assert sys.modules["triton"] is there
    assert sys.modules["triton"] is there


SCRIPT = """
import os
import napari
viewer = napari.Viewer()
from napari_lightsam.samples import read_sample
viewer.add_image(read_sample("nuclei_fluorescence"))
viewer.screenshot(canvas_only=False)
from napari_lightsam import load_segmenter
load_segmenter(device="cpu")
print("loaded", flush=True)
os._exit(0)  # how a window is torn down is not asked here
"""


@pytest.mark.gl
def test_a_script_may_load_a_model_after_it_opened_a_window():
    if os.environ.get("QT_QPA_PLATFORM") != "xcb" or not os.environ.get("DISPLAY"):
        pytest.skip("needs a display")
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr[-2000:]
