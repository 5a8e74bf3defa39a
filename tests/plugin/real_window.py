"""What tests in a real napari window share: real Qt events on the canvas, and waiting."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from scipy import ndimage

ONLY_WITH_A_DISPLAY = [
    pytest.mark.gl,
    pytest.mark.skipif(
        sys.platform == "linux"
        and not (os.environ.get("DISPLAY") and os.environ.get("QT_QPA_PLATFORM", "xcb") == "xcb"),
        reason="needs a display (on Linux run under xvfb-run with QT_QPA_PLATFORM=xcb)",
    ),
]


def pump(qapp, until, seconds=120.0):
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "timed out"
        qapp.processEvents()
        time.sleep(0.005)


def mouse(viewer, row, column, *, shift=False, to=None):
    """Press at a pixel of the first layer, perhaps drag, and release."""
    canvas = viewer.window._qt_viewer.canvas  # no public access to the canvas' coordinates exists
    image = viewer.layers[0]

    def on_canvas(at):
        world = image.data_to_world(at)
        x, y = canvas.view.scene.transform.map([world[-1], world[-2]])[:2]
        return QPoint(round(x), round(y))

    modifier = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
    button = Qt.MouseButton.LeftButton
    start, end = on_canvas((row, column)), on_canvas(to or (row, column))
    QTest.mouseMove(canvas.native, start)
    QTest.mousePress(canvas.native, button, modifier, start)
    for part in np.linspace(0, 1, 6 if to else 1):
        QTest.mouseMove(canvas.native, start + (end - start) * float(part))
        QTest.qWait(20)
    QTest.mouseRelease(canvas.native, button, modifier, end)
    QTest.qWait(20)


def key(viewer, name, modifier=None):
    """Press a key on the canvas."""
    canvas = viewer.window._qt_viewer.canvas
    QTest.keyClick(canvas.native, getattr(Qt.Key, f"Key_{name}"), modifier or Qt.KeyboardModifier.NoModifier)
    QTest.qWait(20)


def iou(a, b):
    """Intersection over union of two boolean planes."""
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def innermost(mask):
    """The pixel of an object farthest from its edge."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return tuple(int(step) for step in np.unravel_index(distance.argmax(), mask.shape))
