"""A real window: a neurite is followed through 20 planes and corrected; the window is killed and reopened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from real_window import ONLY_WITH_A_DISPLAY, innermost, iou, keep_picture, key, mouse, press, pump
from scipy import ndimage

pytestmark = [
    *ONLY_WITH_A_DISPLAY,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9"),
]

_NEURITE, _SIZE, _PLANES = 9, 38, 20


def annotate(folder):
    """Outline, follow, correct and follow again in a window that then dies; labels are kept on the way."""
    import napari
    from qtpy.QtWidgets import QApplication

    truth = np.load(folder / "truth.npy")
    viewer = napari.Viewer(show=True)
    qapp = QApplication.instance()
    viewer.window.resize(1366, 768)
    viewer.open(folder / "neurite.tif", plugin="napari")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    for combo in list(widget.questions.combos.values()):  # where the file does not tell what the slider is
        combo.setCurrentIndex(combo.findText("depth (z)"))
        combo.activated.emit(combo.currentIndex())
    viewer.dims.set_current_step(0, 0)
    widget.size_row.box.setValue(_SIZE)
    pump(qapp, lambda: control.shown.settings.object_size == _SIZE and control.shown.ready is not None)

    press(widget.area, widget.click.object_button)
    mouse(viewer, *innermost(truth[0]))
    pump(qapp, lambda: len(control.single.answer.masks()) == 1)
    looks = []
    for _ in control.single.answer.mine:  # whoever looks takes the best of the outlines
        looks.append(iou(control.single.answer.masks()[0].to_array(truth[0].shape), truth[0]))
        key(viewer, "Q")
    for _ in range(int(np.argmax(looks))):
        key(viewer, "Q")
    key(viewer, "C")
    labels = next(layer for layer in viewer.layers if layer.unique_id == control.results.target)

    def follow(name):
        press(widget.area, widget.stack.buttons["forward"])
        pump(qapp, lambda: not control.propagation.is_running and not control.sessions.is_busy, 500)
        np.save(folder / f"{name}.npy", labels.data)

    follow("first")
    for _ in range(9):
        key(viewer, "Right")
    assert viewer.dims.current_step[0] == 9
    keep_picture(viewer, "neurite_1_followed", folder)
    viewer.layers.selection.active = labels
    key(viewer, "2")  # napari's brush
    _paint(viewer, labels, truth[9])
    np.save(folder / "corrected.npy", labels.data)
    keep_picture(viewer, "neurite_2_corrected", folder)
    follow("again")
    press(widget.area, widget.click.object_button)
    mouse(viewer, 125, 200)
    pump(qapp, lambda: len(control.single.answer.masks()) == 1)
    key(viewer, "C")
    np.save(folder / "last.npy", labels.data)
    os.kill(os.getpid(), signal.SIGKILL)


def _paint(viewer, labels, wanted, radius=6):
    """Paint what is missing of an object by round dabs inside of it, where most is missing first."""
    labels.brush_size = 2 * radius
    inside = ndimage.distance_transform_edt(wanted) > radius
    dab = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius
    missing = wanted & (labels.data[9] != 1)
    for _ in range(10):
        gain = np.where(inside, ndimage.correlate(missing.astype(int), dab.astype(int), mode="constant"), 0)
        row, column = np.unravel_index(gain.argmax(), gain.shape)
        mouse(viewer, row, column)
        missing = wanted & (labels.data[9] != 1)


def test_a_neurite_is_followed_corrected_killed_and_resumed(window, qapp, sample, tmp_path, unsaved_here):
    volume, labels = sample("neurites_fibsem_3d")
    truth = labels[:_PLANES] == _NEURITE
    tifffile.imwrite(tmp_path / "neurite.tif", volume[:_PLANES], imagej=True, metadata={"axes": "ZYX"})
    np.save(tmp_path / "truth.npy", truth)
    ran = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True, text=True, timeout=900, check=False, env=unsaved_here,
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-3000:]
    first, corrected, again, last = (
        np.load(tmp_path / f"{name}.npy") for name in ("first", "corrected", "again", "last")
    )
    planes = np.flatnonzero((again == 1).any(axis=(1, 2)))
    assert planes.tolist() == list(range(len(planes)))
    assert len(planes) >= 15
    assert iou(corrected[9] == 1, truth[9]) > max(0.8, iou(first[9] == 1, truth[9]))
    np.testing.assert_array_equal(np.delete(corrected, 9, 0), np.delete(first, 9, 0))
    np.testing.assert_array_equal(again[:10], corrected[:10])  # earlier planes are untouched
    assert (again[10:] != corrected[10:]).any()
    assert np.mean([iou(a, b) for a, b in zip(again[9:15] == 1, truth[9:15], strict=True)]) > 0.7

    viewer = window
    viewer.open(tmp_path / "neurite.tif", plugin="napari")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.session.restore_button.isVisibleTo(widget.session))
    press(widget.area, widget.session.restore_button)
    viewer.dims.set_current_step(0, 12)
    kept = viewer.layers["Objects in neurite"].data
    pump(qapp, lambda: widget.controller.shown.ready is not None)
    keep_picture(viewer, "neurite_3_resumed", tmp_path)
    assert np.array_equal(kept, last) or np.array_equal(kept, again)  # at most the last commit is lost


if __name__ == "__main__":
    annotate(Path(sys.argv[1]))
