"""A real window of a small laptop's size: ten cells in phase contrast, by mouse and keyboard."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import Qt
from real_window import ONLY_WITH_A_DISPLAY, innermost, iou, keep_picture, key, mouse, pump
from scipy import ndimage

pytestmark = ONLY_WITH_A_DISPLAY


def clearest_cells(image, truth):
    """Whole cells, those first that stand out most from what is around them: one would begin with them."""
    rim = np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]])
    clarity = {}
    for label in np.setdiff1d(truth, rim):
        cell = truth == label
        near, far = (ndimage.binary_dilation(cell, iterations=steps) for steps in (2, 8))
        clarity[int(label)] = image[cell].std() / image[far & ~near].std()
    return sorted(clarity, key=lambda label: -clarity[label])


def test_ten_cells_by_ten_clicks_and_two_shift_clicks(window, qapp, sample, tmp_path):
    viewer = window
    image, truth = sample("cells_phase_contrast")
    before = image.copy()
    viewer.add_image(image, name="cells")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    widget.size_row.box.setValue(42)
    pump(qapp, lambda: control.shown.settings.object_size == 42 and control.shown.ready is not None)
    widget.click.object_button.click()

    corrections, states = 2, []
    cells = clearest_cells(image, truth)[:10]
    for label in cells:
        cell = truth == label

        def overlap(cell=cell):
            masks = control.single.answer.masks()
            return iou(masks[0].to_array(cell.shape), cell) if len(masks) == 1 else 0.0

        def clicks():
            prompts = control.single.answer.prompts
            return len(prompts[0].points) if len(prompts) == 1 else 0

        def take_the_best(overlap=overlap):  # as whoever looks at the outlines does
            looks = [overlap()]
            for _ in control.single.answer.mine[1:]:
                key(viewer, "Q")
                looks.append(overlap())
            for _ in range((int(np.argmax(looks)) + 1) % len(looks)):
                key(viewer, "Q")
            return max(looks)

        mouse(viewer, *innermost(cell))
        pump(qapp, lambda: len(control.single.answer.masks()) == 1)
        best = take_the_best()
        spilled = control.single.answer.masks()[0].to_array(cell.shape) & ~cell
        if corrections and np.count_nonzero(spilled) > 0.1 * np.count_nonzero(cell):
            corrections -= 1
            mouse(viewer, *innermost(spilled), shift=True)
            pump(qapp, lambda: clicks() == 2)
            if take_the_best() < best:  # it did not help: one step back
                key(viewer, "Z", Qt.KeyboardModifier.ControlModifier)
                pump(qapp, lambda: clicks() == 1)
                take_the_best()
        if label == cells[-1]:
            keep_picture(viewer, "cells_1_tenth_click", tmp_path)
        key(viewer, "C")
        labels = next(layer for layer in viewer.layers if layer.unique_id == control.results.target)
        states.append(labels.data.tobytes())

    keep_picture(viewer, "cells_2_ten_saved", tmp_path)
    assert corrections == 0
    assert np.unique(labels.data).tolist() == list(range(11))
    scores = [iou(labels.data == i, truth == label) for i, label in enumerate(cells, 1)]
    assert np.mean(scores) >= 0.75, scores

    viewer.layers.selection.active = labels
    qapp.processEvents()
    for expected in states[-2:-5:-1]:
        key(viewer, "Z", Qt.KeyboardModifier.ControlModifier)
        assert labels.data.tobytes() == expected
    np.testing.assert_array_equal(viewer.layers["cells"].data, before)
