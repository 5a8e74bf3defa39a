"""A real window: a folder of five images is annotated by mouse and keyboard, closed half-way, and resumed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QFileDialog
from real_window import ONLY_WITH_A_DISPLAY, innermost, iou, keep_picture, key, mouse, press, pump

from napari_lightsam.session import read_document

pytestmark = ONLY_WITH_A_DISPLAY

_SIZES = {
    "nuclei_fluorescence": 26,
    "nuclei_histology": 18,
    "nuclei_tissue_16bit": 24,
    "axons_tem": 40,
    "nuclei_brightfield": 40,
}
"""Five kinds of images, and about how large their objects are."""


@pytest.fixture
def folder(tmp_path, sample, monkeypatch):
    """A folder of five images, numbered as they will be annotated; the dialog chooses it."""
    path = tmp_path / "plate 1"
    path.mkdir()
    for number, name in enumerate(_SIZES, 1):
        image, _ = sample(name)
        colour = {"photometric": "rgb"} if image.shape[-1] == 3 else {}
        tifffile.imwrite(path / f"{number} {name}.tif", image[:400, :400], **colour)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(path))
    return path


class Annotator:
    """What one person does at one window."""

    def __init__(self, viewer, qapp, sample):
        self.viewer, self._qapp, self._sample = viewer, qapp, sample
        _, self.widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
        self.control, self.section = self.widget.controller, self.widget.series

    def press(self, button):
        """Press a button of the dock."""
        press(self.widget.area, button)

    def keep(self, name, folder):
        """Keep a picture that shows how far the series has come."""
        self.widget.area.ensureWidgetVisible(self.section.reset_button)
        keep_picture(self.viewer, name, folder)

    def open_folder(self):
        self.press(self.section.toggle)
        self.press(self.section.folder_button)
        self.wait_for_image()
        self.press(self.widget.click.object_button)  # once: the tool stays in use from image to image

    def wait_for_image(self, text=None):
        control = self.control
        pump(self._qapp, lambda: text is None or self.widget.image_combo.currentText() == text)
        pump(self._qapp, lambda: control.shown.ready is not None and not control.sessions.is_busy)

    def outline(self, count):
        """Say how large objects are, click the largest in the image, and save each."""
        name = self.control.series.current.source.stem[2:]
        self.widget.size_row.box.setValue(_SIZES[name])
        pump(self._qapp, lambda: self.control.shown.settings.object_size == _SIZES[name])
        pump(self._qapp, lambda: self.control.shown.ready is not None)
        truth = self._sample(name)[1][:400, :400]
        inner = np.setdiff1d(truth, np.concatenate([truth[0], truth[-1], truth[:, 0], truth[:, -1]]))
        largest = sorted(inner[inner > 0], key=lambda label: -np.count_nonzero(truth == label))[:count]
        scores = []
        for label in largest:
            mouse(self.viewer, *innermost(truth == label))
            pump(self._qapp, lambda: len(self.control.single.answer.masks()) == 1)
            scores.append(iou(self.control.single.answer.masks()[0].to_array(truth.shape), truth == label))
            key(self.viewer, "C")
        return scores

    def labels(self):
        """Return the layer that objects are saved into."""
        target = self.control.results.target
        return next(layer for layer in self.viewer.layers if layer.unique_id == target)

    def next(self, following):
        """Press N on the image."""
        key(self.viewer, "N")
        self.wait_for_image(following)

    @property
    def shown(self):
        """Return what the bar says, in words."""
        return self.section.bar.text()


def test_a_series_of_five_images_is_annotated_closed_half_way_and_resumed(
    open_window, qapp, sample, folder, tmp_path
):
    names = sorted(path.stem for path in folder.iterdir())
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    first = Annotator(open_window(), qapp, sample)
    first.open_folder()
    assert first.widget.image_combo.currentText() == names[0]
    assert first.shown == "0 of 5 done"
    scores, done = [], {}
    for name, following in pairwise(names[:3]):
        scores += first.outline(2)
        done[name] = first.labels().data.copy()
        if name == names[0]:
            first.keep("series_1_first_image", tmp_path)
        first.next(following)
    assert first.shown == "2 of 5 done"
    first.outline(1)  # the third image is begun, and the window closed
    begun = first.labels().data.copy()
    first.viewer.close()

    second = Annotator(open_window(), qapp, sample)
    second.open_folder()
    assert second.widget.image_combo.currentText() == names[2]
    assert second.shown == "2 of 5 done"
    np.testing.assert_array_equal(second.labels().data, begun)
    second.keep("series_2_resumed", tmp_path)
    for name, following in zip(names[2:], [*names[3:], None], strict=True):
        scores += second.outline(2)
        done[name] = second.labels().data.copy()
        second.next(following)
    pump(qapp, lambda: second.shown == "5 of 5 done")
    pump(qapp, lambda: "All 5 images are annotated" in second.widget.status.text())
    second.keep("series_3_finished", tmp_path)

    out = tmp_path / "plate 1_annotated"
    ends = (".lightsam", "_labels.tif", "_objects.csv")
    assert {path.name for path in out.iterdir() if path.is_file()} == {n + end for n in names for end in ends}
    for name in names:
        np.testing.assert_array_equal(tifffile.imread(out / f"{name}_labels.tif"), done[name])
        assert len((out / f"{name}_objects.csv").read_text().splitlines()) == len(np.unique(done[name]))
        assert read_document(out / f"{name}.lightsam").image.path == folder / f"{name}.tif"
    assert np.mean(scores) > 0.6, scores  # they are the objects that were clicked
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
