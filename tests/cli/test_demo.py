"""`lightsam demo`: the bundled image, the whole way, and the window at its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import napari_lightsam
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD
from napari_lightsam.cli import app
from napari_lightsam.cli import demo as demo_command

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"
TRUTH = Path(__file__).parents[1] / "data" / "samples"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory):
    """One real run without options, as README says it."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-c", "from napari_lightsam.cli import main; main()", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=580)
    assert done.returncode == 0, done.stderr
    return folder / "lightsam-demo", done


def test_the_demo_writes_labels_table_record_and_overlay(demo) -> None:
    out, _ = demo

    endings = ("_labels.json", "_labels.tif", "_objects.csv", "_overlay.png")
    own = {f"nuclei_fluorescence{end}" for end in endings}
    assert {path.name for path in out.iterdir()} == {*own, *BATCH_OUTPUTS, BATCH_RECORD}
    labels = tifffile.imread(out / "nuclei_fluorescence_labels.tif")
    assert labels.shape == (520, 696)
    assert labels.max() == len(pd.read_csv(out / "nuclei_fluorescence_objects.csv"))


def test_the_demo_finds_the_nuclei(demo) -> None:
    out, _ = demo
    labels = tifffile.imread(out / "nuclei_fluorescence_labels.tif")
    truth = tifffile.imread(TRUTH / "nuclei_fluorescence_labels.tif")
    found = 0
    for i in np.unique(truth)[1:]:
        inside = truth == i
        values, counts = np.unique(labels[inside], return_counts=True)
        best = values[counts.argmax()]
        union = (inside | (labels == best)).sum()
        found += bool(best) and (inside & (labels == best)).sum() / union >= 0.5

    assert found >= 0.5 * (len(np.unique(truth)) - 1)


def test_the_overlay_outlines_them_in_colour(demo) -> None:
    out, _ = demo
    overlay = np.asarray(Image.open(out / "nuclei_fluorescence_overlay.png")).astype(int)

    assert overlay.shape[0] % 520 == overlay.shape[1] % 696 == 0
    assert (np.ptp(overlay, axis=-1) > 150).mean() > 0.02


def test_the_demo_says_what_it_did_and_how_long_each_step_took(demo) -> None:
    out, done = demo

    for stage in ("loading the model", "estimating the object size", "segmenting", "writing", "in all"):
        assert re.search(rf"{stage} +\d+\.\d\d s", done.stdout)
    for path in out.iterdir():
        assert path.name == BATCH_RECORD or f"Wrote {Path('lightsam-demo') / path.name}" in done.stdout
    assert "Object size: " in done.stdout
    assert "because" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_demo_image_stays_as_it_is_and_is_none_the_model_saw(demo) -> None:
    sample = SAMPLES / "nuclei_fluorescence.tif"

    assert sample == demo_command.SAMPLE
    assert tifffile.imread(sample).shape == (520, 696)


def test_view_without_a_qt_binding_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qtpy", None)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--view"])

    assert done.exit_code == 1
    assert "needs a Qt binding" in done.stderr
    assert "napari[all]" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="displays are named on Linux only")
def test_view_without_a_display_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qtpy.QtWidgets", exc_type=ImportError)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), "--view"])

    assert done.exit_code == 1
    assert "no display" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.gl
@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="no display")
def test_view_shows_image_and_labels_in_napari(demo, monkeypatch: pytest.MonkeyPatch) -> None:
    import napari

    out, _ = demo
    shown = []

    def look() -> None:
        viewer = napari.current_viewer()
        shown.extend((type(layer).__name__, layer.data.shape) for layer in viewer.layers)
        viewer.close()

    monkeypatch.setattr(napari, "run", look)
    demo_command.open_result(demo_command.SAMPLE, out / "nuclei_fluorescence_labels.tif")
    assert shown == [("Image", (520, 696)), ("Labels", (520, 696))]
