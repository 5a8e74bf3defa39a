from __future__ import annotations

import importlib
import os
import subprocess
import sys
from types import ModuleType

import pytest

from napari_lightsam.model import importing


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Stands in for timm: it says whether it could import triton."""
    (tmp_path / "timm.py").write_text(
        "try:\n    import triton\nexcept ImportError:\n    triton = None\n", encoding="utf-8"
    )
    (tmp_path / "triton.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("timm", "triton", "vispy"):
        monkeypatch.setitem(sys.modules, name, None)  # so that what is imported now goes again
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "platform", "linux")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("beside_a_window", [True, False])
def test_triton_is_not_imported_beside_a_window(monkeypatch, beside_a_window):
    if beside_a_window:
        monkeypatch.setitem(sys.modules, "vispy", ModuleType("vispy"))
    assert (importing.import_timm().triton is None) == beside_a_window
    importlib.import_module("triton")  # by others, it can be imported again


@pytest.mark.usefixtures("package")
def test_a_triton_that_is_loaded_already_stays(monkeypatch):
    monkeypatch.setitem(sys.modules, "vispy", ModuleType("vispy"))
    there = ModuleType("triton")
    monkeypatch.setitem(sys.modules, "triton", there)
    assert importing.import_timm().triton is there
    assert sys.modules["triton"] is there


def test_what_is_hidden_while_another_package_is_imported_is_there_again_after_it_failed(monkeypatch):
    there = ModuleType("hidden_one")
    monkeypatch.setitem(sys.modules, "hidden_one", there)
    with pytest.raises(ImportError):
        importing.import_without("hidden_one", "no_such_package")
    assert sys.modules["hidden_one"] is there


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
