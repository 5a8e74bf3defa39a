"""The parts of the dock widget that only stacks and large images need."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog

from napari_lightsam.engine.masks import Mask
from napari_lightsam.plugin import region
from napari_lightsam.plugin.widget.dock import LightSamWidget
from napari_lightsam.plugin.worker import Lane


@pytest.fixture
def widget(tiny, qtbot):
    made = LightSamWidget(ViewerModel())
    qtbot.addWidget(made)
    made.show()
    yield made
    made.shut_down()
    assert made.controller.worker.join(10)


def open_image(qtbot, widget, data, **keywords):
    image = widget.viewer.add_image(data, name="image", contrast_limits=(0, 1), **keywords)
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=20_000)
    return image


def test_following_is_offered_where_there_is_depth_and_its_buttons_follow(widget, qtbot, monkeypatch):
    open_image(qtbot, widget, np.zeros((60, 60), np.uint8))
    assert not widget.stack.isVisible()
    widget.viewer.layers.clear()
    image = open_image(qtbot, widget, np.zeros((4, 60, 60), np.uint8), axis_labels=("z", "y", "x"))
    assert widget.stack.isVisible()
    asked = []
    control = widget.controller
    monkeypatch.setattr(
        control.propagation, "start", lambda request, settings, direction: asked.append(direction)
    )
    control.results.commit(image, control.annotator.plane(), [Mask((5, 5), np.ones((4, 4), bool))])
    for direction in ("backward", "both", "forward"):
        button = widget.stack.buttons[direction]
        assert button.isEnabled()
        assert button.accessibleName()
        button.click()
    assert asked == ["backward", "both", "forward"]


def test_a_large_image_says_where_it_is_worked_on_and_lets_that_be_changed(
    widget, qtbot, monkeypatch, tmp_path
):
    monkeypatch.setattr(region, "LARGEST_LAZY_PLANE", 100)
    monkeypatch.setattr(region, "SIDE", 40)
    open_image(qtbot, widget, da.zeros((100, 120), chunks=50, dtype=np.uint8))
    section, control = widget.region, widget.controller
    assert section.isVisible()
    assert "rows 30 to 70, columns 40 to 80" in section.where.text()
    shapes = widget.viewer.add_shapes([[(2, 3), (2, 22), (11, 22), (11, 3)]], shape_type="polygon")
    qtbot.waitUntil(lambda: section.drawn.findData(shapes.unique_id) >= 0)
    section.drawn.setCurrentIndex(section.drawn.findData(shapes.unique_id))
    section.drawn.activated.emit(section.drawn.currentIndex())
    assert control.region.box == (2, 3, 12, 23)
    qtbot.waitUntil(lambda: "rows 2 to 12" in section.where.text())
    section.visible.click()
    assert control.region.box == (30, 40, 70, 80)
    asked = []
    offered = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a: offered.append(a[2]) or (str(tmp_path / "all"), "")
    )
    monkeypatch.setattr(control.region, "segment_whole", lambda *given: asked.append(given[-1]))
    section.whole.click()
    assert asked == [tmp_path / "all.zarr"]
    assert offered[0].endswith("image_labels.ome.zarr")
    control.region._unfinished[control.annotator.image.unique_id] = tmp_path / "begun.zarr"
    section.refresh("")
    assert section.whole.text() == "Go on with begun.zarr"
    section.whole.click()
    assert asked[1:] == [tmp_path / "begun.zarr"]
    qtbot.waitUntil(lambda: not control.worker.is_busy(Lane.PREPARE), timeout=20_000)
