"""A real window: the labels of somebody else are repaired and checked by mouse and keyboard."""

from __future__ import annotations

import numpy as np
from real_window import ONLY_WITH_A_DISPLAY, innermost, iou, keep_picture, key, mouse, pump
from scipy import ndimage

pytestmark = ONLY_WITH_A_DISPLAY

_EIGHT = np.ones((3, 3), bool)


class Spoiled:
    """Ground truth with one merged, one split, one missed, one ragged and one false object."""

    def __init__(self, truth):
        self.truth = truth.astype(np.int32)
        self.labels = self.truth.copy()
        rim = np.concatenate([truth[8], truth[-9], truth[:, 8], truth[:, -9]])
        inner = np.setdiff1d(truth[8:-8, 8:-8], rim)
        areas = np.bincount(truth.ravel())
        around = ndimage.maximum_filter(self.truth, footprint=_EIGHT)
        lonely = [
            int(label)
            for label in inner[inner > 0]
            if areas[label] > 250
            and around[self.truth == label].max() == label
            and not self._neighbours(int(label))
        ]
        touching = (self.truth > 0) & (around > self.truth)
        pairs = {(int(a), int(b)) for a, b in zip(self.truth[touching], around[touching], strict=True)}
        self.merged = next(
            pair for pair in sorted(pairs) if {*pair} <= {*inner.tolist()} and min(areas[list(pair)]) > 200
        )
        self.halved, self.missed, self.ragged = [label for label in lonely if label not in self.merged][:3]
        self.labels[self.truth == self.merged[1]] = self.merged[0]
        rows = np.argwhere(self.truth == self.halved)
        lower = rows[rows[:, 0] > rows[:, 0].mean()]
        self.other_half = int(truth.max()) + 1
        self.labels[tuple(lower.T)] = self.other_half
        self.labels[self.truth == self.missed] = 0
        whole = self.truth == self.ragged
        rim = ndimage.binary_dilation(whole, iterations=3) & ~ndimage.binary_erosion(whole, iterations=3)
        torn = rim & (np.random.default_rng(1).random(truth.shape) < 0.35) & ((truth == 0) | whole)
        self.labels[torn & whole] = 0
        self.labels[torn & ~whole] = self.ragged
        assert iou(self.labels == self.ragged, whole) < 0.8
        free = ndimage.distance_transform_edt(self.labels == 0)
        y, x = np.unravel_index(free[20:-20, 20:-20].argmax(), free[20:-20, 20:-20].shape)
        self.false = self.other_half + 1
        self.labels[y + 16 : y + 25, x + 16 : x + 25] = self.false

    def _neighbours(self, label):
        grown = ndimage.binary_dilation(self.truth == label, iterations=5)
        return bool(np.setdiff1d(self.truth[grown], [0, label]).size)

    @property
    def touched(self):
        """Pixels that repairing may change."""
        wrong = np.isin(self.truth, [*self.merged, self.halved, self.missed, self.ragged])
        wrong |= np.isin(self.labels, [self.ragged, self.false])
        return ndimage.binary_dilation(wrong, _EIGHT, iterations=4)


def widened(image, truth, by):
    """An image continued by its mirror image on the right; nuclei on the seam stay one."""
    more = truth[:, ::-1][:, :by]
    apart = ~np.isin(more, [0, *truth[:, -1]])
    more = np.where(apart, more + truth.max(), more)
    return np.hstack([image, image[:, ::-1][:, :by]]), np.hstack([truth, more])


def test_somebody_elses_labels_of_200_nuclei_are_repaired(window, qapp, sample, tmp_path):
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QTest

    viewer = window
    image, truth = widened(*sample("nuclei_fluorescence"), by=120)
    assert len(np.unique(truth)) - 1 >= 200
    case = Spoiled(truth)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control, section = widget.controller, widget.objects
    widget.size_row.box.setValue(24)
    pump(qapp, lambda: control.shown.settings.object_size == 24)
    viewer.add_image(image, name="nuclei")
    labels = viewer.add_labels(case.labels.copy(), name="theirs")
    viewer.layers.selection.active = labels
    section.toggle.click()
    model = section.model
    pump(qapp, lambda: model.rowCount() == len(np.unique(case.labels)) - 1)
    pump(qapp, lambda: control.shown.ready is not None, 300)

    def shown(condition):
        pump(qapp, lambda: condition() and control.curating.is_current)

    # one that was cut in two: click one half in the table, Shift+click the other in the image, merge
    section.view.setCurrentIndex(model.index(model.row_of(case.halved), 0))
    qapp.processEvents()
    mouse(viewer, *innermost(case.labels == case.other_half), shift=True)
    assert set(control.curating.selected) == {case.halved, case.other_half}
    widget.area.ensureWidgetVisible(section.small_button)
    keep_picture(viewer, "nuclei_1_merge", tmp_path)
    section.merge_button.click()
    shown(lambda: model.row_of(case.other_half) is None)

    # two that are one: select it, click once in each part, press C
    section.view.setCurrentIndex(model.index(model.row_of(case.merged[0]), 0))
    section.split_button.click()
    qapp.processEvents()
    for label in case.merged:
        mouse(viewer, *innermost(truth == label))
    keep_picture(viewer, "nuclei_2_split", tmp_path)
    key(viewer, "C")
    shown(lambda: model.row_of(case.merged[0]) is None)

    # a ragged one, and one that is none: from the table
    section.view.setCurrentIndex(model.index(model.row_of(case.ragged), 0))
    section.smooth_button.click()
    section.view.setCurrentIndex(model.index(model.row_of(case.false), 0))
    QTest.keyClick(section.view, Qt.Key.Key_D)
    shown(lambda: model.row_of(case.false) is None)

    # one that was missed: a click with the model, saved into the same layer
    combo = widget.click.target_combo
    combo.setCurrentIndex(combo.findText("theirs"))
    combo.activated.emit(combo.currentIndex())
    widget.click.object_button.click()
    at = innermost(truth == case.missed)
    viewer.scene.camera.center = at
    qapp.processEvents()
    mouse(viewer, *at)
    pump(qapp, lambda: bool(control.single.answer.masks()))
    key(viewer, "C")
    shown(lambda: model.rowCount() == len(np.unique(truth)) - 1)

    result = labels.data
    for label in (*case.merged, case.halved, case.missed, case.ragged):
        own = truth == label
        found = int(np.bincount(result[own])[1:].argmax()) + 1
        assert iou(result == found, own) >= 0.8, label
    assert not (result == case.false).any()
    untouched = ~case.touched
    np.testing.assert_array_equal(result[untouched], case.labels[untouched])
    keep_picture(viewer, "nuclei_3_repaired", tmp_path)

    # all of it is on napari's own timeline: five repairs, five steps back
    viewer.layers.selection.active = labels
    for _ in range(5):
        QTest.keyClick(section.view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert labels.data.tobytes() == case.labels.tobytes()
