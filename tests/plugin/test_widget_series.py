"""The buttons that save work and go through a folder, offscreen."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog

from napari_lightsam.plugin.widget.dock import LightSamWidget


@pytest.fixture
def widget(tiny, qtbot):
    made = LightSamWidget(ViewerModel())
    qtbot.addWidget(made)
    made.resize(300, 400)
    made.show()
    yield made
    made.shut_down()
    assert made.controller.worker.join(10)


def click_object(qtbot, widget, *at):
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)
    widget.controller.start("points")
    widget.controller.annotator.points.add(list(at))
    qtbot.waitUntil(lambda: bool(widget.controller.single.answer.masks()), timeout=10_000)
    widget.controller.single.commit()


def test_a_folder_is_annotated_by_the_buttons(widget, qtbot, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        tifffile.imwrite(folder / f"{name}.tif", np.full((60, 60), ord(name), "uint8"))
    section = widget.series
    assert not section.inner.isVisible()
    assert "Open a folder" in section.next_button.toolTip()
    section.toggle.click()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    section.folder_button.click()
    assert widget.image_combo.currentText() == "a"
    click_object(qtbot, widget, 30, 30)
    section.next_button.click()
    qtbot.waitUntil(lambda: widget.image_combo.currentText() == "b", timeout=20_000)
    assert (section.bar.value(), section.bar.maximum()) == (1, 2)
    assert section.show_combo.itemText(0).startswith("✓")
    section.show_combo.setCurrentIndex(0)
    section.show_combo.activated.emit(0)
    qtbot.waitUntil(lambda: widget.image_combo.currentText() == "a", timeout=20_000)
    assert widget.controller.targets()[0].data[30, 30] == 1


def test_a_session_is_saved_by_its_button_and_brings_its_settings_back(widget, qtbot, tmp_path, monkeypatch):
    assert "Open an image first" in widget.session.save_button.toolTip()
    widget.viewer.add_image(np.arange(3600.0).reshape(60, 60), name="cells")
    widget.size_row.box.set_pixels(17)
    widget._apply_size()
    widget.everything.slider.setValue(-50)
    widget.everything.min_size.set_pixels(4)
    widget.pixel_box.setValue(0.325)
    click_object(qtbot, widget, 30, 30)
    path = tmp_path / "work.lightsam"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    widget.session.save_button.click()
    qtbot.waitUntil(lambda: not widget.controller.sessions.is_busy, timeout=20_000)
    clipboard = QGuiApplication.clipboard()
    widget.session.methods_button.click()
    assert "napari-lightsam" in clipboard.text()
    widget.session.python_button.click()
    compile(clipboard.text(), "script", "exec")
    assert str(path) in clipboard.text()  # the image has no file, and is read from the session
    other = LightSamWidget(ViewerModel())
    qtbot.addWidget(other)
    other.viewer.open(str(path), plugin="napari-lightsam")
    assert other.size_row.pixels == 17
    assert other.everything.slider.value() == -50
    assert other.everything.min_size.pixels == 4
    assert other.controller.everything.choices == widget.controller.everything.choices
    assert other.pixel_box.value() == 0.325
    assert other.controller.shown.settings.object_size == 17
    labels = other.controller.targets()[0]
    assert other.controller.results.target == labels.unique_id
    other.shut_down()
