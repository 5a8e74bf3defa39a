"""A real window of a small laptop's size: ten cells in phase contrast, by mouse and keyboard."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QWidget
from real_window import ONLY_WITH_A_DISPLAY, innermost, iou, key, mouse, pump
from scipy import ndimage
from superqt import QCollapsible

pytestmark = ONLY_WITH_A_DISPLAY

CONTROLS = (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit)


def whole_cells(truth):
    """Cells that touch no other cell and lie inside the image: those one would begin with; largest first."""
    rim = np.unique(np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]]))
    around = ndimage.maximum_filter(truth, 7)
    lowest = ndimage.minimum_filter(np.where(truth == 0, truth.max() + 1, truth), 7)
    alone = [
        label
        for label in np.unique(truth[truth > 0])
        if label not in rim and around[truth == label].max() == label == lowest[truth == label].min()
    ]
    return sorted(alone, key=lambda label: -np.count_nonzero(truth == label))


def test_ten_cells_by_ten_clicks_and_two_shift_clicks(window, qapp, sample, tmp_path):
    viewer = window
    image, truth = sample("cells_phase_contrast")
    before = image.copy()
    viewer.add_image(image, name="cells")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    widget.size_row.box.setValue(42)
    pump(qapp, lambda: control.settings.object_size == 42 and control.ready is not None)
    widget.click.object_button.click()

    corrections, states = 2, []
    cells = whole_cells(truth)[:10]
    for label in cells:
        cell = truth == label

        def shown(cell=cell):
            masks = control.answer.masks()
            return iou(masks[0].to_array(cell.shape), cell) if len(masks) == 1 else 0.0

        mouse(viewer, *innermost(cell))
        pump(qapp, lambda: len(control.answer.masks()) == 1)
        looks = []
        for _ in control.answer.mine:  # whoever looks takes the best of the outlines
            looks.append(shown())
            key(viewer, "Q")
        for _ in range(int(np.argmax(looks))):
            key(viewer, "Q")
        spilled = control.answer.masks()[0].to_array(cell.shape) & ~cell
        if corrections and np.count_nonzero(spilled) > 0.3 * np.count_nonzero(cell):
            corrections -= 1
            mouse(viewer, *innermost(spilled), shift=True)
            pump(
                qapp, lambda: len(control.answer.prompts) == 1 and len(control.answer.prompts[0].points) == 2
            )
        key(viewer, "C")
        labels = next(layer for layer in viewer.layers if layer.unique_id == control.results.target)
        states.append(labels.data.tobytes())

    viewer.window.screenshot(str(tmp_path / "ten_cells.png"), canvas_only=False, flash=False)
    assert np.unique(labels.data).tolist() == list(range(11))
    scores = [iou(labels.data == i, truth == label) for i, label in enumerate(cells, 1)]
    assert np.mean(scores) >= 0.6, scores

    viewer.layers.selection.active = labels
    qapp.processEvents()
    for expected in states[-2:-5:-1]:
        key(viewer, "Z", Qt.KeyboardModifier.ControlModifier)
        assert labels.data.tobytes() == expected
    np.testing.assert_array_equal(viewer.layers["cells"].data, before)


def test_every_control_can_be_reached_in_a_small_window(window, qapp):
    viewer = window
    viewer.open_sample("napari-lightsam", "nuclei_fluorescence")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.controller.ready is not None)
    for section in widget.findChildren(QCollapsible):
        section.expand(animate=False)
    qapp.processEvents()
    reached = 0
    for control in widget.area.widget().findChildren(QWidget):
        if isinstance(control, CONTROLS) and control.isVisibleTo(widget):
            widget.area.ensureWidgetVisible(control)
            qapp.processEvents()
            seen = control.visibleRegion().boundingRect()
            assert seen.width() >= min(control.width(), 20), control
            assert seen.height() >= min(control.height(), 10), control
            reached += 1
    assert reached > 10
    assert widget.area.horizontalScrollBar().maximum() == 0
