"""The table of the objects of a Labels layer, and going through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import Qt

from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.objects.table import describe, measure, nearest_pixel, pixel_area_um2
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.viewer.axes import METADATA_KEY
from napari_lightsam.plugin.worker import Lane

WHOLE = (None, None)


def drain(work):
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def test_objects_are_measured_as_scikit_image_does(nuclei):
    from skimage.measure import regionprops

    _, truth = nuclei
    table = drain(measure(truth, WHOLE))
    props = regionprops(truth)
    assert table.labels.tolist() == [p.label for p in props]
    assert table.areas.tolist() == [p.area for p in props]
    np.testing.assert_allclose(table.centroids, [p.centroid for p in props])
    assert [(*low, *high) for low, high in table.boxes.tolist()] == [p.bbox for p in props]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint64"])
def test_bands_types_and_large_labels_make_no_difference(monkeypatch, dtype):
    data = np.zeros((40, 30), dtype)
    data[2:38, 3:6] = 5  # through all bands
    data[20:24, 10:20] = 200
    expected = drain(measure(data.astype(np.int64), WHOLE))
    monkeypatch.setattr("napari_lightsam.plugin.objects.table._BAND", 90)
    banded = drain(measure(data, WHOLE))
    assert (banded.labels.tolist(), banded.areas.tolist()) == ([5, 200], [108, 40])
    assert banded.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(banded.boxes, expected.boxes)
    far = drain(measure(np.where(data > 0, data.astype(np.int64) + 10**12, 0), WHOLE))
    assert far.labels.tolist() == [5 + 10**12, 200 + 10**12]
    assert far.region(5 + 10**12) == (slice(2, 38), slice(3, 6))
    assert far.region(7) is None


def test_a_plane_and_the_whole_of_a_stack_are_two_tables():
    data = np.zeros((3, 10, 12), np.int32)
    data[1, 2:5, 3:7] = 4
    data[2, 2:5, 3:7] = 4
    plane = drain(measure(data, (1, None, None)))
    assert (plane.areas.tolist(), plane.boxes[0].tolist()) == ([12], [[1, 2, 3], [2, 5, 7]])
    assert plane.centroids[0].tolist() == [1, 3, 4.5]
    whole = drain(measure(data, (None, None, None)))
    assert (whole.areas.tolist(), whole.boxes[0].tolist()) == ([24], [[1, 2, 3], [3, 5, 7]])
    assert len(drain(measure(data, (0, None, None)))) == 0


def test_scores_and_sources_follow_what_is_noted_and_the_pixels():
    from napari.layers import Labels

    layer = Labels(np.zeros((20, 20), np.int32))
    layer.data[2:6, 2:6], layer.data[10:14, 2:6], layer.data[10:14, 10:14] = 1, 2, 3
    note_made(layer, 1, Made("prompt", 0.9, area=16, plane=WHOLE))
    note_made(layer, 2, Made("auto", 0.5, area=16, plane=WHOLE))
    layer.data[2, 2] = 0
    table = describe(drain(measure(layer.data, WHOLE)), layer)
    assert table.sources == ("edited", "auto", "manual")
    np.testing.assert_array_equal(table.scores, [0.9, 0.5, np.nan])
    ours = Labels(layer.data, features=pd.DataFrame({"index": [1, 2, 3], "score": [0.3, 0.2, 0.1]}))
    ours.metadata[METADATA_KEY] = {"role": "everything"}
    assert describe(table, ours).sources == ("auto",) * 3
    assert describe(table, ours).scores.tolist() == [0.3, 0.2, 0.1]


def test_the_way_to_a_ring_leads_to_a_pixel_of_it():
    data = np.ones((9, 9), np.int32)
    data[1:8, 1:8] = 0
    at = nearest_pixel(data, drain(measure(data, WHOLE)), 1)
    assert at is not None
    assert data[at] == 1


def test_areas_are_calibrated_only_where_units_are_lengths():
    from napari.layers import Labels

    data = np.zeros((2, 4, 4), int)
    stack = Labels(data, scale=(2, 0.5, 0.5), units=("um", "um", "um"))
    assert pixel_area_um2(stack, (0, None, None)) == 0.25
    assert pixel_area_um2(stack, (None, None, None)) == 0.5
    assert pixel_area_um2(Labels(data, scale=(2, 0.5, 0.5)), (0, None, None)) is None


@pytest.fixture
def stack_desk(new_desk):
    table = new_desk()
    data = np.zeros((3, 40, 40), np.int32)
    data[0, 2:8, 2:8], data[2, 20:30, 20:30], data[2, 2:4, 2:4] = 1, 2, 3
    layer = table.viewer.add_labels(data, scale=(3, 0.5, 0.5), name="stack")
    table.curating = table.control.curating
    table.curating.outdated.connect(table.curating.measure)
    table.curating.use_layer(layer)
    table.finish(Lane.MEASURE)
    return table


def test_going_to_an_object_leaves_the_channel_on_display(desk):
    desk.open(np.zeros((2, 60, 60)), axis_labels=("c", "y", "x"))
    desk.viewer.dims.set_current_step(0, 1)
    desk.finish()
    desk.click(1, 30, 30)
    desk.commit()
    curating = desk.control.curating
    curating.use_layer(desk.target())
    curating.measure()
    desk.finish(Lane.MEASURE)
    curating.go_to(1)
    assert desk.viewer.dims.current_step[0] == 1
    assert tuple(desk.viewer.scene.camera.center)[-2:] == (30, 30)


@pytest.mark.parametrize(("axis", "together"), [("z", True), ("t", False)])
def test_objects_go_through_depth_but_not_through_time_points_of_their_own_numbers(desk, axis, together):
    desk.open(np.zeros((3, 40, 40)), axis_labels=(axis, "y", "x"))
    everything, curating = desk.control.everything, desk.control.curating
    everything.choose(replace(everything.choices, scope=Scope.STACK))
    desk.control.segment_everything()
    desk.finish()
    curating.use_layer(desk.target())
    curating.use_all_planes(True)
    curating.measure()
    desk.finish()
    assert (curating.has_stack, curating.all_planes) == (together, together)
    assert curating.table.place.count(None) == (3 if together else 2)


def test_going_to_an_object_shows_its_plane_and_centres_it(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == [2, 3]  # of the plane on display
    curating.use_all_planes(True)
    desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == [1, 2, 3]
    curating.go_to(1)
    assert desk.viewer.dims.point[0] == 0
    assert tuple(desk.viewer.scene.camera.center)[-2:] == (2.25, 2.25)
    assert desk.viewer.layers["stack"].selected_label == 1
    frames = desk.viewer.layers["selected objects"]
    np.testing.assert_allclose(np.ptp(frames.data[0], axis=0), [0, 6, 6])
    assert frames.data[0][0, 0] == 0
    desk.viewer.dims.set_point(0, 3)  # it does not go on there
    assert "selected objects" not in desk.viewer.layers


def test_edits_undo_and_the_brush_bring_the_table_up_to_date(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    layer = desk.viewer.layers["stack"]
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    curating.accept([2, 3])
    curating.select([2, 3])
    curating.repairs.merge()
    assert curating.accepted == frozenset()  # no longer what was accepted
    desk.finish(Lane.MEASURE)
    assert (curating.table.labels.tolist(), curating.selected) == ([2], (2,))
    layer.undo()
    desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == [2, 3]
    with layer.block_history():
        layer.data_setitem((np.array([2]), np.array([39]), np.array([39])), 7)
    desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == [2, 3, 7]
    curating.repairs.remove_small(5)
    desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == [2]
    desk.viewer.layers.remove(layer)
    assert (curating.layer, len(curating.table), curating.selected) == (None, 0, ())


def test_an_undo_on_another_plane_brings_the_table_of_all_planes_up_to_date(stack_desk):
    curating, viewer = stack_desk.curating, stack_desk.viewer
    labels = viewer.layers["stack"]
    curating.use_all_planes(True)
    stack_desk.finish(Lane.MEASURE)
    before = curating.table.labels.tolist()
    curating.select(before[:1])
    curating.repairs.delete()
    stack_desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == before[1:]
    viewer.dims.set_point(0, 6)
    assert curating.is_current  # another plane of the same stack
    labels.undo()
    stack_desk.finish(Lane.MEASURE)
    assert curating.table.labels.tolist() == before


def test_lazy_layers_are_listed_with_the_reason_why_nothing_can_be_edited(new_desk):
    import dask.array

    desk = new_desk()
    lazy = desk.viewer.add_labels(dask.array.zeros((8, 8), dtype=np.int32), name="lazy")
    desk.control.curating.use_layer(lazy)
    desk.control.curating.measure()
    assert "lazily" in desk.control.curating.why_not()
    assert len(desk.control.curating.table) == 0


@pytest.fixture
def section(tiny, qtbot):
    """The section of a widget of 300 x 400, expanded, on a layer of three objects."""
    from napari.components import ViewerModel

    from napari_lightsam.plugin.widget.dock import LightSamWidget

    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 40)), name="cells")
    data = np.zeros((40, 40), np.int32)
    data[2:8, 2:8], data[2:8, 20:30], data[20:26, 2:20] = 1, 2, 3
    features = pd.DataFrame({"index": [1, 2, 3], "score": [0.9, 0.4, 0.7]})
    viewer.add_labels(data, name="theirs", features=features, metadata={METADATA_KEY: {"role": "everything"}})
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    widget.resize(300, 400)
    widget.show()
    widget.objects.toggle.click()
    qtbot.waitUntil(lambda: widget.objects.model.rowCount() == 3, timeout=10_000)
    yield widget.objects
    widget.shut_down()
    assert widget.controller.worker.join(10)


def test_objects_of_somebody_else_are_not_called_drawn_by_hand(section, qtbot):
    viewer = section._control.viewer
    section._curating.use_layer(viewer.add_labels(np.eye(40, dtype=np.int32), name="of Cellpose"))
    section._curating.measure()
    qtbot.waitUntil(lambda: section.model.rowCount() == 1, timeout=10_000)
    assert section.model.data(section.model.index(0, 3)) == "other"


def test_planes_are_offered_only_where_there_are_several(section, qtbot):
    viewer = section._control.viewer
    assert not section.scope.isVisible()
    for shape, several in (((1, 40, 40), False), ((3, 40, 40), True)):  # one plane, as of two channels
        section._curating.use_layer(viewer.add_labels(np.zeros(shape, np.int32)))
        assert section.scope.isVisible() == several


def test_every_heading_of_the_table_is_read_in_a_narrow_dock(section, qtbot):
    section._control.pixel_size_um = 0.5
    section.refresh()
    view, header = section.view, section.view.horizontalHeader()
    for column in range(section.model.columnCount()):
        text = section.model.headerData(column, Qt.Orientation.Horizontal)
        assert header.sectionSize(column) >= view.fontMetrics().horizontalAdvance(text) + 8, text


def test_the_layer_that_is_saved_into_is_reviewed_until_another_one_is_chosen(section):
    control = section._control
    viewer = control.viewer
    (theirs,) = (layer for layer in viewer.layers if layer.name == "theirs")
    mine = viewer.add_labels(np.zeros((40, 40), np.int32), name="mine")
    viewer.layers.selection.clear()
    control.results.target = theirs.unique_id
    section.refresh()
    assert section.labels.currentText() == "theirs"
    control.results.target = mine.unique_id
    section.refresh()
    assert section.labels.currentText() == "mine"
    section.labels.setCurrentIndex(section.labels.findText("theirs"))
    section.labels.activated.emit(section.labels.currentIndex())
    section.refresh()
    assert section.labels.currentText() == "theirs"  # chosen, while objects still go into the other one
    control.results.target = theirs.unique_id
    section.refresh()
    control.results.target = mine.unique_id
    section.refresh()
    assert section.labels.currentText() == "mine"


def ids(section):
    return [section.model.label(row) for row in range(section.model.rowCount())]


def test_doubtful_objects_are_reviewed_first_by_keys(section, qtbot):
    viewer, view = section._control.viewer, section.view
    layer = viewer.layers["theirs"]
    before = layer.data.copy()
    view.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    assert ids(section) == [2, 3, 1]
    view.setCurrentIndex(section.model.index(0, 0))
    assert layer.selected_label == 2
    assert tuple(viewer.scene.camera.center)[-2:] == (4.5, 24.5)
    qtbot.keyClick(view, Qt.Key.Key_A)
    assert (section._curating.accepted, section._curating.selected) == ({2}, (3,))
    qtbot.keyClick(view, Qt.Key.Key_D)
    qtbot.waitUntil(lambda: ids(section) == [2, 1], timeout=10_000)
    assert section._curating.selected == (1,)
    assert not (layer.data == 3).any()
    qtbot.keyClick(view, Qt.Key.Key_V)  # napari's key for visibility does not get through
    assert layer.visible
    qtbot.keyClick(view, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert layer.data.tobytes() == before.tobytes()
    qtbot.waitUntil(lambda: ids(section) == [2, 3, 1], timeout=10_000)
    qtbot.keyClick(view, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: bool(section._control.single.answer.masks()), timeout=10_000)  # taken up again


def test_an_object_is_outlined_anew_or_split_without_leaving_the_table(section, qtbot):
    view, control, layer = section.view, section._control, section._control.viewer.layers["theirs"]
    view.setCurrentIndex(section.model.index(0, 0))
    qtbot.keyClick(view, Qt.Key.Key_C)  # there is nothing to save: no message, and no layer gets the key
    before = layer.data.copy()
    for key, modifier, chosen in (
        (Qt.Key.Key_R, Qt.KeyboardModifier.NoModifier, 0),
        (Qt.Key.Key_Q, Qt.KeyboardModifier.NoModifier, 1),
        (Qt.Key.Key_Q, Qt.KeyboardModifier.ShiftModifier, 0),
        (Qt.Key.Key_Q, Qt.KeyboardModifier.NoModifier, 1),
    ):
        qtbot.keyClick(view, key, modifier)
        qtbot.waitUntil(lambda: bool(control.single.answer.masks()), timeout=10_000)
        assert control.single.answer.chosen == [chosen]
    qtbot.keyClick(view, Qt.Key.Key_C)
    assert "Object 1 replaced" in control.status
    assert (layer.data != before).any()
    qtbot.keyClick(view, Qt.Key.Key_R)
    qtbot.waitUntil(lambda: bool(control.single.answer.masks()), timeout=10_000)
    qtbot.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert not control.annotator.has_prompts
    section.split_button.click()
    qtbot.keyClick(view, Qt.Key.Key_Q)
    qtbot.keyClick(view, Qt.Key.Key_C, Qt.KeyboardModifier.ShiftModifier)
    assert "was not split" in control.status


def test_buttons_say_what_to_select_and_fit_a_narrow_dock(section):
    from qtpy.QtWidgets import QComboBox, QPushButton, QSpinBox

    assert not section.merge_button.isEnabled()
    assert "at least two" in section.merge_button.toolTip()
    section._curating.select([1, 2])
    assert section.merge_button.isEnabled()
    assert not section.split_button.isEnabled()
    assert "one object only" in section.split_button.toolTip()
    assert section.small_button.toolTip() == "No object has less than 10 px."
    area = section.window().area
    assert area.widget().width() <= area.viewport().width()
    for control in section.inner.findChildren((QPushButton, QSpinBox, QComboBox)):
        assert control.toolTip(), control.text()
        assert control.accessibleName() or control.text()
    section.toggle.click()
    assert "selected objects" not in section._control.viewer.layers


def test_the_first_row_of_buttons_does_what_their_keys_do(section, qtbot):
    buttons = section.accept_button, section.redo_button, section.delete_button
    assert [button.text() for button in buttons] == ["Accept (A)", "Re-outline (R)", "Delete (D)"]
    assert all(button.width() >= button.fontMetrics().horizontalAdvance(button.text()) for button in buttons)
    assert "Select an object first" in section.accept_button.toolTip()
    section._curating.select([1])
    section.accept_button.click()
    assert (section._curating.accepted, section._curating.selected) == ({1}, (2,))
    section.delete_button.click()
    qtbot.waitUntil(lambda: ids(section) == [1, 3], timeout=10_000)
    assert section._curating.selected == (3,)
    section.redo_button.click()
    assert section._control.annotator.correction.value == 3


def test_the_check_is_led_by_buttons(section, qtbot):
    check = section.check
    check.start_button.click()
    assert check.question.text().startswith("1 of 3: object")
    for name in ("correct", "wrong"):
        check.verdicts[name].click()
    check.start_button.click()  # a pause
    assert check.start_button.text() == "Go on with the check"
    check.start_button.click()
    check.verdicts["correct"].click()
    assert check.result.text() == "Precision 0.67 (0.21 to 0.94, 2 of 3)\n1 wrong"
    check.field_button.click()
    check.missed.setValue(3)
    check.field_button.click()
    assert "Recall 0.50 (0.19 to 0.81, 3 of 6)" in check.result.text()
    section._curating.select([1])
    section.delete_button.click()
    qtbot.waitUntil(lambda: "changed since" in check.result.text(), timeout=10_000)


def test_verdicts_are_given_by_the_keys_one_to_four(section, qtbot):
    check, checking = section.check, section._control.checking
    check.start_button.click()
    assert [button.text() for button in check.verdicts.values()] == [
        "1 Correct", "2 Wrong", "3 Merged", "4 Split",
    ]  # fmt: skip
    qtbot.keyClick(section.view, Qt.Key.Key_2)
    qtbot.keyClick(check.start_button, Qt.Key.Key_4)
    qtbot.keyClick(section.view, Qt.Key.Key_7)
    assert [str(verdict) for _, verdict in checking.check.verdicts] == ["wrong", "split"]
    qtbot.keyClick(section.view, Qt.Key.Key_1)
    assert checking.current is None
    qtbot.keyClick(section.view, Qt.Key.Key_1)
    assert len(checking.check.verdicts) == 3


def test_the_status_tells_of_an_edit_that_was_taken_back_by_whatever_key(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    layer = desk.viewer.layers["stack"]
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    curating.select([2])
    curating.repairs.delete()
    assert desk.control.status == "Object 2 deleted. Ctrl+Z takes it back."
    layer.undo()  # as napari's own key does
    assert desk.control.status == "Taken back: Object 2 deleted."
    layer.redo()
    assert desk.control.status == "Object 2 deleted. Ctrl+Z takes it back."


def test_the_status_names_each_of_several_edits_that_are_taken_back(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    curating.select([2, 3])
    curating.repairs.merge()
    curating.repairs.delete()
    merged = "Objects 2, 3 merged into 2. They do not touch."
    for go, said in (
        (curating.undo, "Taken back: Object 2 deleted."),
        (curating.undo, f"Taken back: {merged}"),
        (curating.undo, "There is nothing more to take back."),
        (curating.redo, f"{merged} Ctrl+Z takes it back."),
        (curating.redo, "Object 2 deleted. Ctrl+Z takes it back."),
        (curating.redo, "There is nothing more to repeat."),
    ):
        go()
        assert desk.control.status == said
    layer = desk.viewer.layers["stack"]
    layer.paint((0, 30, 30), 9)
    curating.undo()
    assert desk.control.status == "The last step in 'stack' was taken back."


def test_an_object_that_comes_back_is_accepted_as_before(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    curating.accept([2])
    curating.select([2])
    curating.repairs.delete()
    assert not curating.accepted
    curating.undo()
    assert curating.accepted == {2}
    curating.redo()
    assert not curating.accepted


def test_objects_that_do_not_touch_are_merged_with_a_word_about_it(stack_desk):
    desk, curating = stack_desk, stack_desk.curating
    desk.viewer.dims.set_point(0, 6)
    desk.finish(Lane.MEASURE)
    curating.select([2, 3])
    curating.repairs.merge()
    assert desk.control.status == "Objects 2, 3 merged into 2. They do not touch. Ctrl+Z takes it back."
