"""Where the keyboard's focus goes when the control that has it is disabled or hidden."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lightsam.engine.progress import Progress


@pytest.fixture
def widget(tiny, qtbot):
    """A shown widget on a layer of three objects, with the review open."""
    from napari.components import ViewerModel

    from napari_lightsam.plugin.widget.dock import LightSamWidget

    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 40)), name="cells")
    data = np.zeros((40, 40), np.int32)
    data[2:8, 2:8], data[2:8, 20:30], data[20:26, 2:20] = 1, 2, 3
    viewer.add_labels(data, name="theirs")
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    widget.show()
    widget.objects.toggle.click()
    qtbot.waitUntil(lambda: widget.objects.model.rowCount() == 3, timeout=10_000)
    yield widget
    widget.shut_down()
    assert widget.controller.worker.join(10)


def test_a_repair_by_keyboard_leaves_the_focus_on_the_table(widget, qtbot):
    from qtpy.QtCore import Qt

    section = widget.objects
    section._curating.select([1, 2])
    section.merge_button.setFocus()
    qtbot.keyClick(section.merge_button, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: section.model.rowCount() == 2, timeout=10_000)
    assert not section.merge_button.isEnabled()
    assert widget.focusWidget() is section.view
    section._curating.select([3])
    section.delete_button.setFocus()
    qtbot.keyClick(section.delete_button, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: section.model.rowCount() == 1, timeout=10_000)
    assert widget.focusWidget() is section.view


def test_a_repair_takes_no_focus_from_elsewhere(widget, qtbot):
    section = widget.objects
    widget.image_combo.setFocus()
    section._curating.select([1, 2])
    section.merge_button.clicked.emit()
    qtbot.waitUntil(lambda: section.model.rowCount() == 2, timeout=10_000)
    assert widget.focusWidget() is widget.image_combo


def test_a_selection_that_disables_the_focused_button_leaves_the_focus_on_the_table(widget):
    section = widget.objects
    section._curating.select([1, 2])
    section.merge_button.setFocus()
    section._curating.select([1])
    assert widget.focusWidget() is section.view


def test_the_button_that_gives_way_to_a_progress_bar_passes_its_focus_to_no_other_button(widget):
    from qtpy.QtWidgets import QPushButton

    for section in (widget.batch, widget.teach):
        section.toggle.click()
        section.button.setEnabled(True)
        section.button.setFocus()
        section._show_progress(Progress("starting", 0, 0))
        assert section.button.isHidden()
        assert not isinstance(widget.focusWidget(), QPushButton)
        section.row.cancel_button.setFocus()
        section._show_progress(None)
        assert not isinstance(widget.focusWidget(), QPushButton)


def test_a_section_that_is_opened_comes_into_view_and_folds_those_in_which_nothing_goes_on(widget, qtbot):
    from qtpy.QtCore import QPoint

    widget.resize(310, 420)

    def top(section):
        return section.toggle.mapTo(widget.area.viewport(), QPoint(0, 0)).y()

    for section in (widget.teach, widget.batch, widget.objects):
        section.expand(False)
        section.toggle.click()
        bottom = widget.area.viewport().height() - section.toggle.height()
        qtbot.waitUntil(lambda section=section, bottom=bottom: 0 <= top(section) <= bottom, timeout=5000)
        shown = [s for s in (widget.teach, widget.batch, widget.objects) if s.is_expanded]
        assert shown == [section]
        qtbot.wait(50)
        assert 0 <= top(section) <= max(0, bottom + section.toggle.height() - section.height())
    widget.resize(310, 560)
    widget.area.verticalScrollBar().setValue(0)
    widget.objects.check.start_button.click()
    answers = widget.objects.check.back_button
    qtbot.waitUntil(lambda: answers.visibleRegion().boundingRect().height() == answers.height(), timeout=5000)
    widget.batch.toggle.click()
    assert widget.objects.is_expanded  # the check goes on there
