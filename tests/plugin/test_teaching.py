"""Teaching from the widget: what is sent, what is refused, what comes back; offscreen."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from skimage.segmentation import expand_labels

from napari_lightsam.engine.local import local_models
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import TrainError
from napari_lightsam.plugin.widget.dock import LightSamWidget
from napari_lightsam.plugin.widget.models import describe
from napari_lightsam.plugin.worker import Lane
from napari_lightsam.train import config, held_out
from napari_lightsam.train import finetune as training
from napari_lightsam.train.config import SAVING
from napari_lightsam.train.finetune import FineTuned
from napari_lightsam.train.held_out import Picture, Score


class Teacher:
    """Stands in for `finetune`: remembers what it was asked, and can be held up."""

    def __init__(self) -> None:
        self.asked: list = []
        self.gate: threading.Event | None = None
        self.saved: threading.Event | None = None
        self.closed = threading.Event()
        self.error: Exception | None = None

    def __call__(self, corrected, name, *, start, config, replace_model):
        self.asked.append((corrected, name, start, config, replace_model))
        try:
            while self.gate is not None and not self.gate.wait(0.01):
                yield Progress("training", 1, 4)
            if self.error is not None:
                raise self.error
            yield Progress(SAVING, 0, 0)
            if self.saved is not None:
                self.saved.wait(60)
        finally:
            self.closed.set()
        found = np.zeros((20, 30), np.int32)
        picture = Picture(
            np.zeros((20, 30)), found, found, np.pad(np.ones((10, 10), np.int32), ((5, 5), (10, 10)))
        )
        scores = Score(0.4, 0.6, 0.3), Score(0.5, 0.7, 0.45)
        path = Path(name).with_suffix(".safetensors")
        return FineTuned(
            name, path, path.with_suffix(".md"), *scores, (5, 10, 25, 40), 0, picture, 9, (30, 12), 14.0
        )


@pytest.fixture
def teacher(monkeypatch):
    made = Teacher()
    monkeypatch.setattr(training, "finetune", made)
    return made


@pytest.fixture
def models(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTSAM_LOCAL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def widget(tiny, qtbot, models):
    made = LightSamWidget(ViewerModel())
    qtbot.addWidget(made)
    made.resize(320, 700)
    made.show()
    yield made
    made.shut_down()
    assert made.controller.worker.join(10)


def lay_out(widget, qtbot, shape=(60, 80)):
    """Open an image with a labelled half."""
    image = np.random.default_rng(0).random(shape)
    labels = np.zeros(shape, int)
    labels[10:20, 10:20] = 7
    widget.viewer.add_image(image, name="cells")
    layer = widget.viewer.add_labels(labels, name="corrected")
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)
    widget.teach.expand()
    return image, layer


def wait(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.controller.worker.is_busy(Lane.TEACH), timeout=200_000)
    qtbot.wait(50)


def choose(combo, text):
    combo.setCurrentIndex(combo.findText(text))
    combo.activated.emit(combo.currentIndex())


def test_the_section_is_collapsed_and_a_button_that_cannot_be_used_says_why(widget, qtbot):
    assert not widget.teach.inner.isVisible()
    widget.teach.toggle.click()
    assert widget.teach.inner.isVisible()
    assert "Open an image first" in widget.teach.button.toolTip()
    widget.viewer.add_image(np.zeros((60, 80)), name="cells")
    assert not widget.teach.button.isEnabled()
    assert "needs a Labels layer" in widget.teach.button.toolTip()
    widget.viewer.add_labels(np.zeros((9, 9), int), name="of another image")
    assert not widget.teach.button.isEnabled()
    widget.viewer.add_labels(np.zeros((60, 80), int), name="corrected")
    qtbot.waitUntil(lambda: widget.teach.labels.currentText() == "corrected", timeout=10_000)
    assert widget.teach.button.isEnabled()


def test_every_control_explains_itself_and_fits_a_narrow_dock(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    widget.teach.button.click()
    wait(qtbot, widget)
    section = widget.teach
    controls = [section.toggle, section.labels, section.regions, section.name, section.replace]
    controls += [section.minutes, section.button, section.picture, section.use_button, section.show_button]
    assert [control for control in controls if len(control.toolTip()) < 20] == []
    widget.resize(300, 400)
    assert widget.minimumSizeHint().width() <= 300
    assert section.minimumSizeHint().width() <= 300


@pytest.mark.parametrize(
    ("name", "why"), [("lightsam", "published model"), ("a/b", "letters, digits"), ("", "letters, digits")]
)
def test_a_name_that_cannot_be_is_refused_where_it_is_typed(widget, qtbot, name, why):
    lay_out(widget, qtbot)
    widget.teach.name.setText(name)
    assert not widget.teach.button.isEnabled()
    assert why in widget.teach.button.toolTip()


def test_models_of_a_fixed_frame_cannot_be_taught(widget, qtbot):
    lay_out(widget, qtbot)
    assert "cannot be taught" in widget.controller.teaching.why_not("mobile_sam")


def test_a_lesson_sends_the_plane_its_labels_and_where_they_count(widget, qtbot, teacher):
    image, layer = lay_out(widget, qtbot)
    widget.teach.name.setText("my-cells")
    widget.teach.minutes.setValue(2)
    widget.teach.button.click()
    wait(qtbot, widget)
    ((item,), name, start, settings, replaced) = teacher.asked[0]
    assert (name, start, settings.minutes, replaced) == ("my-cells", "lightsam", 2, False)
    np.testing.assert_array_equal(item.image, image)
    np.testing.assert_array_equal(item.labels, layer.data)
    assert item.regions == ((4, 4, 26, 26),)  # around the labels, with a margin
    shapes = widget.viewer.add_shapes([[[2, 3], [2, 39], [30, 39], [30, 3]]], name="where")
    qtbot.waitUntil(lambda: widget.teach.regions.findText(shapes.name) >= 0, timeout=10_000)
    choose(widget.teach.regions, shapes.name)
    widget.teach.button.click()
    wait(qtbot, widget)
    ((item,), *_) = teacher.asked[1]
    assert item.regions == ((2, 4, 30, 40),)


def test_what_was_gained_is_shown_and_the_model_is_chosen_only_on_request(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    widget.teach.button.click()
    wait(qtbot, widget)
    assert "0.40 -> 0.50" in widget.teach.gained.text()
    assert "30 objects" in widget.teach.gained.text()
    assert widget.teach.picture.height() > 50
    assert widget.controller.shown.settings.model == "lightsam"
    widget.teach.show_button.click()
    before, after = (widget.viewer.layers[f"{word} my-model in cells"] for word in ("Before", "After"))
    assert tuple(after.data_to_world((0, 0))) == (5, 10)
    assert after.data.sum() == 100
    assert before.data.sum() == 0
    widget.teach.use_button.click()
    assert widget.controller.shown.settings.model == "my-model"
    assert not widget.teach.use_button.isEnabled()


def test_cancel_ends_the_lesson_and_keeps_nothing(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    teacher.gate = threading.Event()
    widget.teach.button.click()
    qtbot.waitUntil(lambda: "Training" in widget.teach.row.text.text(), timeout=10_000)
    assert not widget.teach.button.isVisible()
    widget.teach.row.cancel_button.click()
    qtbot.waitUntil(teacher.closed.is_set, timeout=10_000)
    assert widget.teach.button.isVisible()
    qtbot.waitUntil(lambda: "nothing was kept" in widget.status.text())
    assert widget.controller.teaching.last is None


def test_a_cancel_while_the_model_is_being_saved_says_so_and_loses_nothing(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    teacher.saved = threading.Event()
    widget.teach.button.click()
    qtbot.waitUntil(lambda: "Saving" in widget.teach.row.text.text(), timeout=10_000)
    widget.teach.row.cancel_button.click()
    qtbot.waitUntil(lambda: "too late to cancel" in widget.status.text(), timeout=10_000)
    teacher.saved.set()
    wait(qtbot, widget)
    assert widget.controller.teaching.last is not None
    qtbot.waitUntil(lambda: "is taught and saved" in widget.status.text())


def test_a_cancel_that_comes_too_late_loses_nothing(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    widget.teach.button.click()
    end = time.monotonic() + 60
    while widget.controller.teaching.is_running and time.monotonic() < end:
        time.sleep(0.01)  # the window gets no time: the result stays on its way
    widget.teach.row.cancel_button.click()
    wait(qtbot, widget)
    assert widget.controller.teaching.last is not None
    assert widget.teach.button.isVisible()


def save_header(models, name, **metadata):
    """Save what choosers read of an own model."""
    metadata = {"format": "napari-lightsam", "spec": "lightsam", **metadata}
    header = json.dumps({"__metadata__": metadata}).encode()
    models.mkdir()
    (models / f"{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def test_the_words_of_a_model_file_are_shown_as_they_are(models):
    save_header(models, "mine", title="<img src='x'>", trained_on="cells < 5 um")
    shown = describe("mine")
    assert "<img" not in shown
    assert "cells &lt; 5 um" in shown


def test_replacing_a_model_is_ticked_anew_for_every_lesson(widget, qtbot, teacher, models):
    save_header(models, "mine")
    lay_out(widget, qtbot)
    widget.teach.name.setText("mine")
    widget.teach.replace.setChecked(True)
    widget.teach.button.click()
    wait(qtbot, widget)
    assert teacher.asked[0][-1]
    assert not widget.teach.replace.isChecked()
    assert not widget.teach.button.isEnabled()


def test_a_refusal_is_told_and_leaves_everything_as_it_was(widget, qtbot, teacher, notes):
    lay_out(widget, qtbot)
    teacher.error = TrainError("9 objects are too few. Outline more.")
    widget.teach.button.click()
    wait(qtbot, widget)
    assert ("error", "9 objects are too few. Outline more.") in notes
    qtbot.waitUntil(lambda: "without a new model" in widget.status.text())
    assert (
        widget.teach.question.text() == "⚠ 9 objects are too few. Outline more."
    )  # it may be read much later
    assert widget.teach.question.isVisible()
    assert widget.teach.button.isVisible()
    assert not widget.teach.result.isVisible()


def test_clicks_are_answered_while_a_lesson_is_under_way(widget, qtbot, teacher):
    lay_out(widget, qtbot)
    teacher.gate = threading.Event()
    widget.teach.button.click()
    widget.click.object_button.click()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.click.commit_button.isEnabled, timeout=10_000)
    assert widget.controller.teaching.is_running
    teacher.gate.set()
    wait(qtbot, widget)


def test_a_real_lesson_gives_a_model_that_the_chooser_offers_and_that_can_be_replaced(
    widget, qtbot, nuclei, models, monkeypatch
):
    monkeypatch.setattr(
        config, "TEACHING", replace(config.TEACHING, steps=1, prompts=6, rounds=0, learning_rate=1e-6)
    )
    monkeypatch.setattr(held_out, "_LEAST_GAIN", -1.0)  # one step: what is tested is the way, not the gain
    monkeypatch.setattr(training, "_SHAPES", ((1, 224),))
    image, labels = nuclei
    widget.viewer.add_image(image, name="cells")
    widget.viewer.add_labels(expand_labels(labels.astype(np.int32), 3), name="corrected")
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)
    widget.teach.expand()
    widget.teach.name.setText("my-cells")
    assert not widget.teach.replace.isVisible()
    widget.teach.button.click()
    wait(qtbot, widget)
    assert [model.name for model in local_models()] == ["my-cells"]
    combo = widget.models.combo
    assert combo.itemText(combo.findData("my-cells")) == "my-cells"
    widget.teach.use_button.click()
    assert combo.currentData() == "my-cells"
    assert "corrected objects of cells" in combo.toolTip()
    assert widget.teach.replace.isVisible()
    assert "Replace it" in widget.teach.button.toolTip()
    widget.teach.replace.setChecked(True)
    assert widget.teach.button.isEnabled()


def test_a_layer_that_nobody_corrected_is_asked_about_before_it_is_learned_from(widget, qtbot, teacher):
    from napari_lightsam.plugin.objects.made import Made, note_made
    from napari_lightsam.plugin.viewer.axes import METADATA_KEY

    _, layer = lay_out(widget, qtbot)
    layer.metadata[METADATA_KEY] = {"role": "everything"}
    note_made(layer, 7, Made("auto", 0.9, area=100, plane=(None, None)))
    widget.resize(320, 420)
    widget.area.verticalScrollBar().setValue(0)
    widget.teach.button.click()
    assert "'Segment everything' found them" in widget.teach.question.text()
    assert widget.teach.question.isVisible()
    for part in (widget.teach.question, widget.teach.button):
        qtbot.waitUntil(lambda part=part: part.visibleRegion().boundingRect().height() == part.height())
    assert not widget.controller.teaching.is_running
    widget.teach.button.click()  # all the same
    wait(qtbot, widget)
    assert len(teacher.asked) == 1
    assert not widget.teach.question.isVisible()
    assert "The last lesson took" in widget.teach.in_all.text()


def test_a_layer_that_was_corrected_is_learned_from_at_once(widget, qtbot, teacher):
    from napari_lightsam.plugin.objects.made import Made, note_made
    from napari_lightsam.plugin.viewer.axes import METADATA_KEY

    _, layer = lay_out(widget, qtbot)
    layer.metadata[METADATA_KEY] = {"role": "everything"}
    note_made(layer, 7, Made("auto", 0.9, area=99, plane=(None, None)))  # a pixel was added since
    widget.teach.button.click()
    wait(qtbot, widget)
    assert len(teacher.asked) == 1


def test_the_time_left_is_that_of_the_whole_lesson(widget):
    from napari_lightsam.plugin.lesson_time import LessonTime

    clock = LessonTime(30, config.STAGES)
    test, look, learn, again = config.STAGES
    for step, now in (((test, 0, 3), 0), ((test, 1, 3), 1), ((look, 0, 40), 9), ((learn, 0, 0), 20)):
        widget.teach.row.show_progress(clock.note(Progress(*step), now))
        assert ("left" in widget.teach.row.text.text()) == (step[0] == learn)
    assert widget.teach.row.text.text() == "Training, about 39 s left"
    widget.teach.row.show_progress(clock.note(Progress(again, 1, 3), 52))
    assert widget.teach.row.text.text() == "Testing what was learned, about 9 s left"
    widget.teach.row.finish()
