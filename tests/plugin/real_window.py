"""What tests in a real napari window share: real Qt events on the canvas, waiting, and pictures to keep."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
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
        world = image.data_to_world((*viewer.dims.current_step[: image.ndim - 2], *at))
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


def press(area, button):
    """Press a button in a scroll area by the mouse, wherever it has to be scrolled to."""
    area.ensureWidgetVisible(button)
    QTest.qWait(50)
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    QTest.qWait(20)


def palette_of(picture, count):
    """Choose colours for a picture: greys for the image, as many as one can tell apart, and others."""
    pixels = np.asarray(picture).reshape(-1, 3)
    coloured = pixels[np.ptp(pixels, axis=1) > 8]
    rest = Image.fromarray(coloured[None] if len(coloured) else pixels[None])
    few = min(64, count // 2)
    greys = np.linspace(0, 255, few).round().astype(int).repeat(3).tolist()
    each = (count - few) // 2
    ways = (Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE)  # what is frequent, and what is rare
    colours = [(rest.quantize(each, method=way).getpalette() or [])[: 3 * each] for way in ways]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*greys, *colours[0], *colours[1]])
    return palette


def save_window(viewer, path, *, width=None, most=150_000):
    """Write a picture of the whole window, with as many colours as its size in bytes allows."""
    QTest.qWait(400)  # until all of it is painted
    shown = Image.fromarray(viewer.window.screenshot(canvas_only=False, flash=False)[..., :3])
    if width is not None:
        shown.thumbnail((width, shown.height), Image.Resampling.LANCZOS)
    for count in (256, 128, 64, 48, 32):
        palette = palette_of(shown, count)
        shown.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= most:
            break


def keep_picture(viewer, name, folder):
    """Keep a picture of a test: where LIGHTSAM_PICTURES says, else in a folder that is given."""
    kept = Path(os.environ.get("LIGHTSAM_PICTURES", folder))
    kept.mkdir(parents=True, exist_ok=True)
    save_window(viewer, kept / f"{name}.png", width=1024, most=95_000)


def iou(a, b):
    """Intersection over union of two boolean planes."""
    return np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b))


def innermost(mask):
    """The pixel of an object farthest from its edge."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return tuple(int(step) for step in np.unravel_index(distance.argmax(), mask.shape))
