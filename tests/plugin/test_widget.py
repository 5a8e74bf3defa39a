"""The dock widget offscreen, on a `ViewerModel`: no window and no OpenGL are needed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_lightsam.plugin.layers import ours
from napari_lightsam.plugin.widget import LightSamWidget
from napari_lightsam.plugin.widget_models import describe
from napari_lightsam.plugin.widget_parts import time_left


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(viewer, tiny, qtbot):
    made = LightSamWidget(viewer)
    qtbot.addWidget(made)
    made.resize(300, 400)
    made.show()
    yield made
    made.shut_down()
    assert made.controller.worker.join(10)


def ready(qtbot, widget):
    qtbot.waitUntil(lambda: widget.controller.ready is not None, timeout=10_000)


def test_an_empty_viewer_says_what_to_do_and_why_buttons_are_off(widget):
    assert widget.image_combo.currentText() == "open an image first"
    for button in (widget.object_button, widget.box_button, widget.everything_button, widget.commit_button):
        assert not button.isEnabled()
        assert button.toolTip()
    assert "Open an image first" in widget.everything_button.toolTip()


def test_click_save_and_everything_through_the_buttons(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    assert widget.image_combo.currentText() == "cells"
    assert not widget.commit_button.isEnabled()
    widget.object_button.click()
    assert widget.object_button.isChecked()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.commit_button.isEnabled, timeout=10_000)
    widget.next_button.click()
    widget.commit_button.click()
    assert viewer.layers["cells objects"].data[30, 30] == 1
    assert widget.target_combo.currentText() == "cells objects"
    widget.everything_button.click()
    qtbot.waitUntil(lambda: "cells everything" in viewer.layers, timeout=10_000)
    assert widget.target_combo.currentText() == "cells everything"
    assert not widget.run_row.isVisible()


def test_progress_and_cancel(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    tiny.gate = threading.Event()
    widget.everything_button.click()
    qtbot.waitUntil(lambda: widget.run_row.isVisible() and "Decoding" in widget.run_row.text.text())
    assert not widget.everything_button.isVisible()
    widget.run_row.cancel_button.click()
    assert not widget.run_row.isVisible()
    assert widget.everything_button.isVisible()
    assert [layer.name for layer in viewer.layers] == ["cells"]
    qtbot.waitUntil(tiny.closed.is_set, timeout=1000)


def test_measuring_one_typical_object_fills_the_object_size(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells", scale=(0.5, 0.5), units=("um", "um"))
    ready(qtbot, widget)
    widget.object_button.click()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.measure_button.isEnabled, timeout=10_000)
    widget.measure_button.click()
    size = widget.size_box.value()
    assert size == round(widget.controller.answer.masks()[0].diameter)
    qtbot.waitUntil(lambda: tiny.embedded[-1][1] == size, timeout=10_000)
    assert widget.pixel_box.value() == 0.5
    assert f"{size * 0.5:.3g} µm" in widget.micrometres.text()


def test_an_unknown_slider_is_asked_about_and_the_answer_counts(widget, viewer, qtbot):
    viewer.add_image(np.zeros((5, 60, 60)), name="stack")
    (combo,) = widget.questions.combos.values()
    qtbot.waitUntil(combo.isVisible)
    assert not widget.everything_button.isEnabled()
    assert "slider" in widget.everything_button.toolTip()
    combo.setCurrentIndex(1)
    combo.activated.emit(1)
    ready(qtbot, widget)
    assert widget.everything_button.isEnabled()
    assert not widget.questions.isVisible()


def test_channels_are_offered_only_where_there_are_some(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="plain")
    ready(qtbot, widget)
    assert not widget.inputs.isVisible()
    stack = viewer.add_image(np.zeros((3, 60, 60)), name="stack", axis_labels=("c", "y", "x"))
    widget.choose_image(stack)
    ready(qtbot, widget)
    assert widget.inputs.isVisible()
    first, second, _ = widget.inputs.combos
    first.setCurrentIndex(2)
    first.activated.emit(2)
    second.setCurrentIndex(1)
    second.activated.emit(1)
    qtbot.waitUntil(lambda: tiny.embedded[-1][0].shape == (60, 60, 2), timeout=10_000)
    assert [s.channel for s in widget.controller.sources] == [1, 0]


def test_models_say_what_they_were_trained_on_and_are_downloaded_only_by_a_click(
    widget, monkeypatch, tmp_path
):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    combo = widget.models.combo
    assert "nuclei" in describe("lightsam")
    assert not widget.models.download_button.isVisible()
    index = [combo.itemData(i) for i in range(combo.count())].index("mobile_sam")
    combo.setCurrentIndex(index)
    combo.activated.emit(index)
    assert widget.models.download_button.isVisible()
    assert "41 MB" in widget.models.download_button.text()
    assert "Apache" in widget.models.download_button.toolTip()
    assert not widget.everything_button.isEnabled()
    assert not any(tmp_path.iterdir())


def test_it_fits_a_small_dock_by_scrolling(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="a very long name of an image layer as microscopes write them")
    ready(qtbot, widget)
    assert (widget.width(), widget.height()) == (300, 400)
    assert widget.minimumSizeHint().width() <= 300
    assert widget.minimumSizeHint().height() <= 400
    area = widget.area
    widget.resize(300, 250)
    qtbot.waitUntil(lambda: area.verticalScrollBar().maximum() > 0)
    assert widget.status.isVisible()
    assert area.horizontalScrollBar().maximum() == 0


def test_every_control_explains_itself(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    controls = [
        widget.image_combo,
        widget.models.combo,
        widget.size_box,
        widget.measure_button,
        widget.pixel_box,
        widget.object_button,
        widget.not_button,
        widget.box_button,
        widget.commit_button,
        widget.clear_button,
        widget.next_button,
        widget.target_combo,
        widget.replace_box,
        widget.everything_button,
    ]
    assert [c for c in controls if len(c.toolTip()) < 20] == []


def test_closing_the_dock_removes_prompts_keeps_results_and_ends_the_thread(widget, viewer, qtbot):
    from qtpy.QtWidgets import QWidget

    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    widget.object_button.click()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.commit_button.isEnabled, timeout=10_000)
    widget.commit_button.click()
    dock = QWidget()
    qtbot.addWidget(dock)
    widget.setParent(dock)
    widget.setParent(None)
    assert [ours(layer).get("role") for layer in viewer.layers] == [None, "objects"]
    assert widget.controller.worker.join(5)
    viewer.add_image(np.zeros((5, 5)), name="the viewer goes on")


def test_the_widget_is_found_again_for_its_viewer(widget, viewer):
    assert LightSamWidget.of(viewer) is widget
    assert LightSamWidget.of(ViewerModel()) is None


@pytest.mark.parametrize(
    ("seconds", "done", "total", "text"),
    [(10, 1, 4, "about 30 s left"), (5, 0, 4, ""), (5, 3, 0, ""), (600, 1, 3, "about 20 min left")],
)
def test_time_left_is_said_in_words(seconds, done, total, text):
    assert time_left(seconds, done, total) == text
