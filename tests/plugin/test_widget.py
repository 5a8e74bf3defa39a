"""The dock widget offscreen, on a `ViewerModel`: no window and no OpenGL are needed."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.compat import isalive
from qtpy.QtCore import Qt

from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.warned import tell
from napari_lightsam.plugin.viewer.axes import AxisRole, roles_of
from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.plugin.widget import dock as widget_module
from napari_lightsam.plugin.widget.dock import LightSamWidget
from napari_lightsam.plugin.widget.models import describe
from napari_lightsam.plugin.widget.parts import MainThread


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def widget(viewer, tiny, qtbot):
    made = LightSamWidget(viewer)
    qtbot.addWidget(made)
    made.resize(300, 400)
    made.show()
    yield made
    made.shut_down()
    assert made.controller.worker.join(10)


def ready(qtbot, widget):
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)


def test_an_empty_viewer_says_what_to_do_and_why_buttons_are_off(widget):
    assert widget.image_combo.currentText() == "open an image first"
    for button in (
        widget.click.object_button,
        widget.click.box_button,
        widget.everything.button,
        widget.click.commit_button,
    ):
        assert not button.isEnabled()
        assert button.toolTip()
    assert "Open an image first" in widget.everything.button.toolTip()


def test_click_save_and_everything_through_the_buttons(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    assert widget.image_combo.currentText() == "cells"
    assert not widget.click.commit_button.isEnabled()
    widget.click.object_button.click()
    assert widget.click.object_button.isChecked()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.click.commit_button.isEnabled, timeout=10_000)
    widget.click.next_button.click()
    widget.click.commit_button.click()
    assert viewer.layers["Objects in cells"].data[30, 30] == 1
    qtbot.waitUntil(lambda: widget.click.target_combo.currentText() == "Objects in cells")
    widget.everything.button.click()
    qtbot.waitUntil(lambda: "Everything in cells" in viewer.layers, timeout=10_000)
    qtbot.waitUntil(lambda: widget.click.target_combo.currentText() == "Everything in cells")
    assert not widget.everything.row.isVisible()


def test_the_widget_asks_before_an_object_is_replaced_and_names_what_is_corrected(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells", scale=(0.5, 0.5), units=("um", "um"))
    ready(qtbot, widget)
    click, control = widget.click, widget.controller
    click.object_button.click()
    control.annotator.points.add([30, 30])
    qtbot.waitUntil(click.commit_button.isEnabled, timeout=10_000)
    qtbot.waitUntil(lambda: "15.2 µm²" in widget.status.text(), timeout=10_000)
    assert "Score 0.90" in widget.status.text()
    assert not click.same_box.isVisible()
    place = click.commit_button.y()
    click.commit_button.click()
    click.object_button.click()
    control.annotator.points.add([30, 30])
    qtbot.waitUntil(click.same_box.isVisible, timeout=10_000)
    assert click.same_box.text() == "Replace object 1?"
    assert click.commit_button.y() == place
    assert click.commit_button.text() == "Replace object 1 (C)"
    click.same_box.click()
    assert click.commit_button.text() == "Save object (C)"
    assert not control.single.replace_same
    control.annotator.clear()
    qtbot.waitUntil(lambda: not click.commit_button.isEnabled(), timeout=10_000)
    assert control.suggested.correct(viewer.layers["Objects in cells"], 1)
    qtbot.waitUntil(click.commit_button.isEnabled, timeout=10_000)
    assert click.correct_button.isChecked()
    assert click.commit_button.text() == "Replace object 1 (C)"
    click.each_box.click()
    assert control.annotator.each


def test_prompts_are_offered_from_layers_that_are_not_ours(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    viewer.add_points([[10, 10], [40, 40]], name="seeds")
    widget.click.object_button.click()
    widget.click.from_menu.aboutToShow.emit()
    actions = widget.click.from_menu.actions()
    assert [action.text() for action in actions] == ["seeds", "a CSV file ..."]
    actions[0].trigger()
    qtbot.waitUntil(lambda: len(widget.controller.single.answer.masks()) == 2, timeout=10_000)
    assert widget.click.each_box.isChecked()


def test_unsaved_work_is_offered_where_it_is_seen_without_scrolling(widget, viewer, qtbot, tmp_path):
    image = viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    button, sessions = widget.session.restore_button, widget.controller.sessions
    assert not button.isVisible()
    sessions.autosave.of(image.unique_id).unsaved = tmp_path / "cells~1.lightsam"
    sessions.changed.emit()
    qtbot.waitUntil(button.isVisible)
    assert button.visibleRegion().boundingRect() == button.rect()


def test_progress_calls_a_file_as_it_is_called(widget):
    row = widget.batch.row
    for stage, shown in (("img_A01.TIF: encoding the image", "img_A01.TIF: encoding the image ..."),
                         ("loading the model", "Loading the model ...")):  # fmt: skip
        row.show_progress(Progress(stage, 0, 3))
        assert row.text.text() == shown
    row.finish()


def test_progress_and_cancel(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    tiny.gate = threading.Event()
    widget.everything.button.click()
    qtbot.waitUntil(
        lambda: widget.everything.row.isVisible() and "Decoding" in widget.everything.row.text.text()
    )
    assert not widget.everything.button.isVisible()
    widget.everything.row.cancel_button.click()
    assert not widget.everything.row.isVisible()
    assert widget.everything.button.isVisible()
    qtbot.waitUntil(tiny.closed.is_set, timeout=10_000)
    qtbot.waitUntil(lambda: "nothing was found" in widget.status.text(), timeout=10_000)
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_the_slider_is_followed_at_once_and_the_count_says_so(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    assert not widget.everything.count.text()
    assert widget.everything.button.text() == "Segment everything"
    widget.everything.button.click()
    qtbot.waitUntil(lambda: widget.everything.count.text() == "4 objects", timeout=10_000)
    labels = viewer.layers["Everything in cells"]
    widget.everything.slider.setValue(-50)
    qtbot.waitUntil(lambda: widget.everything.count.text() == "2 objects", timeout=10_000)
    assert labels.data.max() == 2
    widget.everything.slider.setValue(0)
    qtbot.waitUntil(lambda: widget.everything.count.text() == "4 objects", timeout=10_000)
    assert len(tiny.runs) == 1
    widget.everything.mode.setCurrentIndex(3)
    widget.everything.mode.activated.emit(3)
    assert widget.everything.button.text() == "Settings changed: segment again"
    widget.everything.mode.setCurrentIndex(0)
    widget.everything.mode.activated.emit(0)
    assert widget.everything.button.text() == "Segment everything"


def test_the_slider_spans_what_the_run_found_and_keeps_a_balance_that_others_chose(
    widget, viewer, qtbot, tiny, monkeypatch
):
    known = np.array([-0.75, -0.5, -0.25, -0.01])
    monkeypatch.setattr("napari_lightsam.plugin.inference.known_balances", lambda *_: known)
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    section, choices = widget.everything, lambda: widget.controller.everything.choices
    assert section.slider.value() == 0
    section.button.click()
    qtbot.waitUntil(lambda: section.count.text() == "4 objects", timeout=10_000)
    assert (section.slider.value(), choices().config.balance) == (100, 0.0)  # there are no more
    assert "from 0 to 4 objects" in section.slider.toolTip()
    section.slider.setValue(20)
    qtbot.waitUntil(lambda: section.count.text() == "2 objects", timeout=10_000)
    assert (section.slider.value(), choices().config.balance) == (20, -0.375)
    widget.controller.everything.choose(
        replace(choices(), config=replace(choices().config, balance=-0.3))  # as in a file
    )
    section.border.click()
    assert choices().config.balance == -0.3
    assert len(tiny.runs) == 1


def test_what_was_typed_a_moment_ago_counts_for_the_run(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells", scale=(0.5, 0.5), units=("um", "um"))
    ready(qtbot, widget)
    widget.size_row.box.setValue(10)
    widget.everything.max_size.setValue(20)
    widget.everything.min_size.setValue(30)
    widget.everything.border.setChecked(False)
    widget.everything.advanced.expand()
    widget.everything.scores["iou_threshold"].setValue(0.75)
    widget.everything.button.click()
    qtbot.waitUntil(lambda: len(tiny.runs) == 1, timeout=10_000)
    config = tiny.runs[0][1]
    assert (config.object_size, config.min_size, config.max_size) == (20, 60, 60)
    assert (config.keep_border, config.iou_threshold, config.stability_threshold) == (False, 0.75, None)


@pytest.mark.parametrize("left", [True, False], ids=["by a click that takes the focus", "or takes none"])
def test_what_was_typed_a_moment_ago_counts_for_whatever_is_started(widget, viewer, qtbot, left):
    image = viewer.add_image(np.zeros((3, 60, 60)), name="cells", axis_labels=("z", "y", "x"))
    ready(qtbot, widget)
    control, box = widget.controller, widget.size_row.box
    control.results.commit(image, control.annotator.plane(), [Mask((5, 5), np.ones((9, 9), bool))])
    widget._refresh()
    button, seen = widget.stack.buttons["forward"], []
    button.clicked.connect(lambda: seen.append(control.shown.settings.object_size))
    if not left:
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    box.setFocus()
    box.lineEdit().selectAll()
    qtbot.keyClicks(box.lineEdit(), "20")
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert seen == [20]


def test_a_result_that_is_out_of_date_says_so_within_a_narrow_dock(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    button = widget.everything.button
    button.click()
    qtbot.waitUntil(lambda: bool(widget.everything.count.text()), timeout=10_000)
    widget.size_row.box.set_pixels(40)
    qtbot.waitUntil(lambda: button.text() != "Segment everything", timeout=10_000)
    qtbot.wait(50)
    assert widget.area.horizontalScrollBar().maximum() == 0
    assert button.fontMetrics().horizontalAdvance(button.text()) <= button.width()


def test_scopes_and_prompt_layers_are_offered_where_they_exist(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="plain")
    ready(qtbot, widget)
    section = widget.everything
    assert [section.scope.itemText(i) for i in range(section.scope.count())] == [
        "the whole image", "what the window shows", "a region that I draw ...",
    ]  # fmt: skip
    assert section.prompts.count() == 1
    section.scope.setCurrentIndex(2)
    section.scope.activated.emit(2)
    assert section.scope.currentText() == "inside 'region'"
    assert str(viewer.layers.selection.active.mode) == "add_rectangle"
    viewer.layers.remove("region")
    qtbot.waitUntil(lambda: section.scope.currentText() == "the whole image")
    stack = viewer.add_image(np.zeros((7, 60, 60)), name="stack", axis_labels=("z", "y", "x"))
    widget.choose_image(stack)
    ready(qtbot, widget)
    assert section.scope.itemText(0) == "this plane"
    assert section.scope.itemText(2) == "all 7 planes, linked"
    viewer.add_labels(np.zeros((7, 60, 60), int), name="by another tool")
    viewer.add_labels(np.zeros((9, 9), int), name="of another image")
    viewer.add_points(np.zeros((1, 3)), name="marks")
    qtbot.waitUntil(lambda: section.prompts.count() == 3)
    offered = [section.prompts.itemText(i) for i in range(section.prompts.count())]
    assert offered[1:] == ["by another tool", "marks"]
    section.prompts.setCurrentIndex(2)
    section.prompts.activated.emit(2)
    assert widget.controller.everything.choices.prompts_from is not None
    viewer.layers.remove("marks")
    qtbot.waitUntil(lambda: widget.controller.everything.choices.prompts_from is None)


def test_a_look_at_the_stack_in_3d_changes_no_choice(widget, viewer, qtbot):
    viewer.add_image(np.zeros((7, 60, 60)), name="stack", axis_labels=("z", "y", "x"))
    viewer.add_labels(np.ones((7, 60, 60), int), name="theirs")
    ready(qtbot, widget)
    section, everything = widget.everything, widget.controller.everything
    for combo, row in ((section.scope, 2), (section.prompts, 1), (widget.click.target_combo, 1)):
        combo.setCurrentIndex(row)
        combo.activated.emit(row)
    before = everything.choices
    for ndisplay in (3, 2):
        viewer.dims.ndisplay = ndisplay
        qtbot.waitUntil(lambda shown=ndisplay: section.button.isEnabled() == (shown == 2))
        assert section.scope.currentText() == "all 7 planes, linked"
        assert section.prompts.currentText() == widget.click.target_combo.currentText() == "theirs"
        assert everything.choices == before


def test_the_tick_that_takes_pixels_of_others_over_does_so_and_shows_it(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    viewer.add_labels(np.ones((60, 60), np.int32), name="theirs")
    ready(qtbot, widget)
    click, control = widget.click, widget.controller
    click.target_combo.setCurrentIndex(1)
    click.target_combo.activated.emit(1)
    click.replace_box.click()
    click.object_button.click()
    control.annotator.points.add([30, 30])
    qtbot.waitUntil(click.commit_button.isEnabled, timeout=10_000)
    click.commit_button.click()
    assert viewer.layers["theirs"].data[30, 30] == 2
    control.single.replace_others = False
    widget._refresh()
    assert not click.replace_box.isChecked()


def test_an_image_may_be_deleted_with_clicks_on_it_and_those_of_the_next_one_come_back(widget, viewer, qtbot):
    images = [viewer.add_image(np.full((60, 60), i), name=name) for i, name in enumerate(("first", "second"))]
    click, annotator = widget.click, widget.controller.annotator
    for image, at in zip(images, ([10, 10], [30, 30]), strict=True):
        widget.choose_image(image)
        click.object_button.click()
        annotator.points.add(at)
        qtbot.waitUntil(click.commit_button.isEnabled, timeout=10_000)
    viewer.layers.remove(images[1])
    assert annotator.image_id == images[0].unique_id
    assert widget.image_combo.currentText() == "first"
    qtbot.waitUntil(lambda: annotator.points is not None, timeout=10_000)
    assert annotator.points.data.tolist() == [[10, 10]]
    viewer.layers.remove(images[0])
    assert annotator.image_id is None
    assert not [layer for layer in viewer.layers if ours(layer).get("role") != "selected"]


def test_another_outline_is_offered_only_where_there_is_one(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    click, control, annotator = widget.click, widget.controller, widget.controller.annotator
    click.object_button.click()
    annotator.points.add([30, 30])
    qtbot.waitUntil(click.next_button.isEnabled, timeout=10_000)
    annotator.clear()
    click.box_button.click()
    annotator.boxes.add_rectangles([[10, 10], [10, 20], [20, 20], [20, 10]])
    qtbot.waitUntil(lambda: len(control.single.answer.mine) == 1, timeout=10_000)
    widget._refresh()
    assert click.commit_button.isEnabled()
    assert not click.next_button.isEnabled()
    assert "one outline only" in click.next_button.toolTip()


def test_a_warning_of_the_engine_is_shown_once_and_readable(widget, viewer, qtbot, tiny, monkeypatch):
    original = tiny.embed

    def embed(image, **keywords):
        for _ in range(2):
            tell("3 pixels are not finite and count as background.")
        return original(image, **keywords)

    monkeypatch.setattr(tiny, "embed", embed)
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    qtbot.waitUntil(widget.notes.isVisible, timeout=10_000)
    assert widget.notes.text() == "⚠ 3 pixels are not finite and count as background."
    other = viewer.add_image(np.zeros((30, 30)), name="other")
    monkeypatch.setattr(tiny, "embed", original)
    widget.choose_image(other)
    assert not widget.notes.isVisible()


def test_measuring_one_typical_object_fills_the_object_size(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="cells", scale=(0.5, 0.5), units=("um", "um"))
    ready(qtbot, widget)
    widget.click.object_button.click()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.size_row.measure_button.isEnabled, timeout=10_000)
    widget.size_row.measure_button.click()
    size = widget.size_row.pixels
    assert size == round(widget.controller.single.answer.masks()[0].diameter)
    qtbot.waitUntil(lambda: tiny.embedded[-1][1] == size, timeout=10_000)
    assert widget.pixel_box.value() == 0.5
    assert widget.size_row.box.text() == f"{size / 2:.1f} µm"
    widget.size_row.unit.setCurrentText("px")
    widget.size_row.unit.activated.emit(1)
    assert widget.size_row.box.text() == f"{size} px"
    assert widget.size_row.pixels == size


def test_an_unknown_slider_is_asked_about_and_the_answer_counts(widget, viewer, qtbot):
    viewer.add_image(np.zeros((5, 60, 60)), name="stack")
    (combo,) = widget.questions.combos.values()
    qtbot.waitUntil(combo.isVisible)
    assert not widget.everything.button.isEnabled()
    assert "slider" in widget.everything.button.toolTip()
    combo.setCurrentIndex(1)
    combo.activated.emit(1)
    ready(qtbot, widget)
    assert widget.everything.button.isEnabled()
    assert not widget.questions.isVisible()


def test_an_answer_about_a_slider_can_be_given_by_the_keyboard_and_changed(widget, viewer, qtbot):
    image = viewer.add_image(np.zeros((5, 60, 60)), name="stack")
    (combo,) = widget.questions.combos.values()
    alive = []
    combo.activated.connect(lambda: alive.append(isalive(combo)))
    qtbot.keyClick(combo, Qt.Key.Key_Down)
    assert alive == [True]  # Qt still needs it then, and would end the process
    ready(qtbot, widget)
    assert widget.everything.scope.itemText(2) == "all 5 planes, linked"
    widget.everything.advanced.expand()
    (again,) = widget.answers.combos.values()
    assert again.isVisible()
    assert again.currentText() == "depth (z)"
    qtbot.keyClick(again, Qt.Key.Key_Down)
    assert roles_of(image)[0] is AxisRole.TIME
    qtbot.waitUntil(lambda: widget.everything.scope.itemText(2) == "all 5 time points")
    assert again.currentText() == "time"
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: not widget.answers.combos)


def test_channels_are_offered_only_where_there_are_some(widget, viewer, qtbot, tiny):
    viewer.add_image(np.zeros((60, 60)), name="plain")
    ready(qtbot, widget)
    assert not widget.inputs.isVisible()
    stack = viewer.add_image(np.zeros((3, 60, 60)), name="stack", axis_labels=("c", "y", "x"))
    widget.choose_image(stack)
    ready(qtbot, widget)
    assert widget.inputs.isVisible()
    first, second, _ = widget.inputs.combos
    first.setCurrentIndex(2)
    first.activated.emit(2)
    second.setCurrentIndex(1)
    second.activated.emit(1)
    qtbot.waitUntil(lambda: tiny.embedded[-1][0].shape == (60, 60, 2), timeout=10_000)
    assert [s.channel for s in widget.controller.shown.sources] == [1, 0]


def test_models_say_what_they_were_trained_on_and_are_downloaded_only_by_a_click(
    widget, monkeypatch, tmp_path
):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    combo = widget.models.combo
    assert "nuclei" in describe("lightsam")
    assert not widget.models.download_button.isVisible()
    index = [combo.itemData(i) for i in range(combo.count())].index("mobile_sam")
    combo.setCurrentIndex(index)
    combo.activated.emit(index)
    assert widget.models.download_button.isVisible()
    assert "41 MB" in widget.models.download_button.text()
    assert "Apache" in widget.models.download_button.toolTip()
    assert not widget.everything.button.isEnabled()
    assert not any(tmp_path.iterdir())


def test_it_fits_a_small_dock_by_scrolling(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="a very long name of an image layer as microscopes write them")
    ready(qtbot, widget)
    assert (widget.width(), widget.height()) == (300, 400)
    assert widget.minimumSizeHint().width() <= 300
    assert widget.minimumSizeHint().height() <= 400
    area = widget.area
    widget.resize(300, 250)
    qtbot.waitUntil(lambda: area.verticalScrollBar().maximum() > 0)
    assert widget.status.isVisible()
    assert area.horizontalScrollBar().maximum() == 0


def test_every_control_explains_itself(widget, viewer, qtbot):
    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    controls = [
        widget.image_combo,
        widget.models.combo,
        widget.size_row.box,
        widget.size_row.unit,
        widget.size_row.draw_button,
        widget.size_row.measure_button,
        widget.pixel_box,
        widget.click.object_button,
        widget.click.not_button,
        widget.click.box_button,
        widget.click.commit_button,
        widget.click.clear_button,
        widget.click.next_button,
        widget.click.target_combo,
        widget.click.replace_box,
        widget.everything.button,
        widget.everything.slider,
        widget.everything.scope,
        widget.everything.min_size,
        widget.everything.max_size,
        widget.everything.border,
        widget.everything.mode,
        widget.everything.prompts,
        *widget.everything.scores.values(),
    ]
    assert [c for c in controls if len(c.toolTip()) < 20] == []


def test_closing_the_dock_removes_prompts_keeps_results_and_ends_the_thread(widget, viewer, qtbot):
    from qtpy.QtWidgets import QWidget

    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    widget.click.object_button.click()
    widget.controller.annotator.points.add([30, 30])
    qtbot.waitUntil(widget.click.commit_button.isEnabled, timeout=10_000)
    widget.click.commit_button.click()
    dock = QWidget()
    qtbot.addWidget(dock)
    widget.setParent(dock)
    widget.setParent(None)
    assert [ours(layer).get("role") for layer in viewer.layers] == ["image", "objects"]  # what was worked on
    assert widget.controller.worker.join(5)
    viewer.add_image(np.zeros((5, 5)), name="the viewer goes on")


def test_the_widget_is_found_again_for_its_viewer(widget, viewer):
    assert LightSamWidget.of(viewer) is widget
    assert LightSamWidget.of(ViewerModel()) is None


def test_what_was_delivered_during_a_call_that_fails_is_done_all_the_same(qtbot, qapp):
    main, done = MainThread(), []

    def fail():
        main.deliver(lambda: done.append("first"))
        main.deliver(lambda: done.append("second"))
        qapp.processEvents()  # as a progress bar of napari does when it repaints
        raise KeyError("not the last call")

    with qtbot.captureExceptions() as raised:
        main.deliver(fail)
        qtbot.waitUntil(lambda: len(done) == 2)
    assert done == ["first", "second"]
    assert [kind for kind, *_ in raised] == [KeyError]


@pytest.mark.parametrize("there", [True, False])
def test_a_window_without_opengl_says_what_works_without_it(qtbot, tiny, monkeypatch, there):
    class Windowed(ViewerModel):
        """A viewer model with a window, as far as the widget asks."""

        window: ClassVar = "a window"

    monkeypatch.setattr(widget_module, "has_opengl", lambda: there)
    made = LightSamWidget(Windowed())
    qtbot.addWidget(made)
    made.show()
    assert made.notes.isVisible() != there
    assert ("lightsam segment" in made.notes.text()) != there
    made.shut_down()


def test_a_labels_layer_that_nothing_can_be_saved_into_is_named_below_the_list(widget, viewer, qtbot):
    import dask.array as da

    viewer.add_image(np.zeros((60, 60)), name="cells")
    ready(qtbot, widget)
    assert not widget.click.refused.isVisible()
    viewer.add_labels(da.zeros((60, 60), dtype=np.int32), name="theirs")
    qtbot.waitUntil(widget.click.refused.isVisible, timeout=10_000)
    assert widget.click.refused.text() == "Not in the list: theirs"
    for part in (widget.click.refused, widget.click.target_combo):
        assert "loaded lazily" in part.toolTip()
