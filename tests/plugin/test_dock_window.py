"""The dock in real windows as small as they come: all of it can be reached, read and used by keyboard."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from qtpy.QtCore import QRect
from qtpy.QtGui import QImage
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollBar,
    QTableView,
    QWidget,
)
from real_window import ONLY_WITH_A_DISPLAY, keep_picture, pump

from napari_lightsam.plugin.widget.folded import FoldedSection

pytestmark = ONLY_WITH_A_DISPLAY

TEXTS = (QLabel, QCheckBox, QPushButton)
CONTROLS = (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QTableView)


@pytest.fixture
def dock(qapp, tiny):
    """A window with everything in the dock unfolded, for a calibrated stack, which needs most of it."""
    import napari

    viewer = napari.Viewer(show=True)
    viewer.open_sample("napari-lightsam", "neurites_fibsem_3d")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.controller.shown.ready is not None)
    for section in widget.findChildren(FoldedSection):
        section.expand()
    yield viewer, widget
    viewer.close()


def parts(widget, kinds):
    """Return what is shown in the scroll area, but not what is a part of another control."""
    return [
        part
        for part in widget.area.widget().findChildren(QWidget)
        if isinstance(part, kinds)
        and part.isVisibleTo(widget)
        and not isinstance(part.parent(), (*CONTROLS, QTableView))
        and not part.objectName().startswith("qt_")
        and not any(isinstance(above, QTableView) for above in (part.parent(), part.parent().parent()))
    ]


def pixels(part, inner):
    """Return what a part shows, on what is behind it: (H, W) luminances from 0 to 1, and RGB."""
    where = QRect(part.mapTo(inner, part.rect().topLeft()), part.size())
    shown = inner.grab(where).toImage().convertToFormat(QImage.Format.Format_RGB888)
    data = shown.bits().asarray(shown.sizeInBytes())
    rgb = np.array(data, np.uint8).reshape(shown.height(), shown.bytesPerLine())[:, : 3 * shown.width()]
    rgb = rgb.reshape(shown.height(), shown.width(), 3)
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722], rgb


def name_of(control):
    """Return what a screen reader says: the own name or text, or that of the label in front."""
    labels = control.window().findChildren(QLabel)
    label = next((x.text() for x in labels if x.buddy() is not None and x.buddy() is control), "")
    text = control.text() if isinstance(control, QAbstractButton) else ""
    return control.accessibleName() or text or label


def is_cut(part):
    """Whether a text does not fit."""
    if isinstance(part, QLabel) and part.wordWrap():
        return part.height() < part.heightForWidth(part.width())
    return part.width() < part.fontMetrics().horizontalAdvance(part.text())


def is_faint(part, inner):
    """Whether a text hardly differs from what is behind it."""
    luminance, _ = pixels(part, inner)
    return part.isEnabled() and bool(part.text()) and luminance.max() + 0.05 < 4 * (luminance.min() + 0.05)


def problems(control, area):
    """Tell what keeps a control from being used."""
    left = control.mapTo(area.widget(), control.rect().topLeft()).x()
    if left < 0 or left + control.width() > area.widget().width():
        yield "sticks out"
    if isinstance(control, TEXTS) and is_cut(control):
        yield "is cut off"
    if not name_of(control):
        yield "has no name"
    if not control.toolTip():
        yield "has no tooltip"
    area.verticalScrollBar().setValue(control.mapTo(area.widget(), control.rect().topLeft()).y() - 20)
    seen = control.visibleRegion().boundingRect()
    if seen.width() < control.width() or seen.height() < min(control.height(), 100):
        yield "cannot be reached by scrolling"


def shows_focus(control, inner, qapp):
    """Whether a control looks different when it has the keyboard's focus."""
    qapp.setActiveWindow(control.window())
    control.setFocus()
    qapp.processEvents()
    _, focused = pixels(control, inner)
    control.clearFocus()
    qapp.processEvents()
    _, plain = pixels(control, inner)
    return bool((focused != plain).any())


@pytest.mark.parametrize(("size", "theme"), [((1366, 768), "dark"), ((1280, 720), "light")])
def test_all_of_the_dock_can_be_reached_and_read(dock, qapp, tmp_path, size, theme):
    viewer, widget = dock
    viewer.theme = theme
    viewer.window.resize(*size)
    area, inner = widget.area, widget.area.widget()
    pump(qapp, lambda: viewer.window.geometry()[2:] == size)
    for _ in range(5):
        qapp.processEvents()
    scale = os.environ.get("QT_SCALE_FACTOR", "1")
    area.verticalScrollBar().setValue(0)
    keep_picture(viewer, f"dock_{size[0]}_{theme}_{scale}", tmp_path)

    assert area.horizontalScrollBar().maximum() == 0
    assert inner.width() <= area.viewport().width()
    controls = parts(widget, CONTROLS)
    assert len(controls) > 40
    wrong = [
        *(f"{part.text()!r} is cut off" for part in parts(widget, QLabel) if is_cut(part)),
        *(f"{name_of(c) or c} {problem}" for c in controls for problem in problems(c, area)),
        *(f"{part.text()!r} is hard to read" for part in parts(widget, TEXTS) if is_faint(part, inner)),
    ]
    for control in controls:
        if control.isEnabled() and not shows_focus(control, inner, qapp):
            wrong.append(f"{name_of(control)} does not show that it has the focus")
    assert wrong == []

    for part in inner.findChildren(QWidget):  # what comes up only sometimes must fit too
        if part.isHidden() and not part.isWindow() and not isinstance(part.parent(), (*CONTROLS, QScrollBar)):
            part.setVisible(True)
    assert inner.layout().minimumSize().width() <= area.viewport().width()


def test_the_same_holds_on_a_screen_at_150_percent():
    tests = f"{__file__}::test_all_of_the_dock_can_be_reached_and_read"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gl", tests],
        env=os.environ | {"QT_SCALE_FACTOR": "1.5"},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert "2 passed" in ran.stdout
