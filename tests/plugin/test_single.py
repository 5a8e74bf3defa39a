"""Single objects: prompted, previewed, corrected and saved, without a window."""

from __future__ import annotations

import threading
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
from scipy import ndimage

from napari_lightsam.engine.masks import Mask, Masks
from napari_lightsam.plugin.objects import results
from napari_lightsam.plugin.prompting import single
from napari_lightsam.plugin.viewer.axes import METADATA_KEY
from napari_lightsam.plugin.viewer.layers import ours


def test_a_click_is_previewed_and_committed_as_one_undoable_step(desk):
    desk.open(np.zeros((60, 60)), scale=(2, 2), units=("um", "um"))
    desk.click(30, 20)
    preview = desk.control.annotator.preview
    assert preview.visible
    assert preview.data.any()
    names = [layer.name for layer in desk.viewer.layers]
    assert names.index(preview.name) < names.index(desk.control.annotator.points.name)
    centre = ndimage.center_of_mass(preview.data > 0)
    np.testing.assert_allclose(preview.data_to_world(centre), (60, 40))
    done = desk.commit()
    labels = desk.target()
    assert (done.ids, labels.data.dtype, labels.units) == ((1,), np.int32, desk.viewer.layers[0].units)
    assert labels.data[30, 20] == 1
    saved = labels.data.copy()
    assert done.written == np.count_nonzero(saved)
    labels.undo()
    assert not labels.data.any()
    labels.redo()
    np.testing.assert_array_equal(labels.data, saved)


def test_a_quick_answer_is_on_display_before_the_window_can_paint_the_marker(desk, monkeypatch):
    monkeypatch.setattr(single, "_MOMENT", 30.0)
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.run_until(lambda: not desk.control.sessions.is_busy and desk.calls.empty())
    said = []
    desk.control.mentioned.connect(said.append)
    desk.control.annotator.points.add([33, 22])
    desk.calls.get(timeout=30)()  # the next thing that the window does
    assert desk.control.single.answer.prompts[0].points == ((30, 20, True), (33, 22, True))
    desk.finish()
    assert "px across" in desk.control.status
    assert said == []


def test_after_a_commit_the_prompts_are_gone_and_clicking_goes_on(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    annotator = desk.control.annotator
    assert len(annotator.points.data) == 0
    assert not annotator.preview.data.any()
    assert desk.viewer.layers.selection.active.unique_id == annotator.points.unique_id
    desk.click(10, 10)
    assert desk.commit().ids == (2,)


def test_ids_go_on_from_the_largest_ever_used_also_after_undo_and_painting(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    labels.undo()
    desk.click(30, 20)
    assert desk.commit().ids == (2,)
    labels.selected_label = 40
    labels.paint((5, 5), 40)
    desk.click(50, 50)
    assert desk.commit().ids == (41,)
    assert labels.metadata[METADATA_KEY]["largest"] == 41
    labels.data = np.where(labels.data == 40, 70, labels.data)
    labels.data = np.zeros((60, 60), np.int32)
    desk.click(50, 50)
    assert desk.commit().ids == (71,)


def test_only_background_is_written_unless_replacing_is_chosen(desk, notes):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    before = desk.target().data.copy()
    desk.click(30, 24)
    desk.commit()
    after = desk.target().data
    np.testing.assert_array_equal(after[before == 1], 1)
    desk.control.single.replace_same = False
    desk.click(30, 20)
    assert desk.commit().ids == ()
    assert "belong to other objects" in notes[-1][1]
    desk.control.single.replace_others = True
    desk.click(30, 20)
    assert desk.commit().ids == (3,)
    assert after[30, 20] == 3


def test_what_others_own_never_leaves_an_object_in_pieces(desk):
    desk.open(np.zeros((60, 60)))
    mine = desk.viewer.add_labels(np.zeros((60, 60), np.int32))
    mine.data[20] = 5
    desk.control.results.target = mine.unique_id
    desk.click(22, 30)
    desk.commit()
    _, pieces = ndimage.label(mine.data == 6, np.ones((3, 3)))
    assert pieces == 1
    assert mine.data[22, 30] == 6
    assert not (mine.data[:20] == 6).any()


def test_another_version_of_an_object_takes_its_place_after_it_was_asked_for(desk):
    desk.open(np.zeros((60, 60)))
    for at in ((30, 20), (30, 50), (31, 20)):
        desk.click(*at)
        answer, status = desk.control.single.answer, desk.control.status
        assert answer.same == (1 if at == (31, 20) else None)
        desk.commit()
    assert "Replace object 1?" in status
    labels = desk.target()
    assert sorted(np.unique(labels.data)) == [0, 1, 2]
    assert (labels.data[35, 20], labels.data[26, 20]) == (1, 0)
    labels.undo()
    assert (labels.data[35, 20], labels.data[26, 20]) == (0, 1)


def test_every_box_becomes_an_object_and_all_are_one_step(desk):
    desk.open(np.zeros((60, 60)))
    desk.control.start("boxes")
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]]) - 0.5
    desk.control.annotator.boxes.add_rectangles([square + 10, square + 30])
    desk.finish()
    assert desk.commit().ids == (1, 2)
    labels = desk.target()
    assert (np.count_nonzero(labels.data == 1), np.count_nonzero(labels.data == 2)) == (81, 81)
    labels.undo()
    assert not labels.data.any()


def test_candidates_are_cycled_and_the_chosen_one_is_saved(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    sizes = []
    for step in (0, 1, 1, 1, -1):
        if step:
            desk.control.single.cycle(step)
        sizes.append(desk.control.single.answer.masks()[0].area)
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3:] == [sizes[0], sizes[2]]
    assert desk.commit().written == sizes[2]


def test_the_latest_edit_wins(desk, tiny):
    desk.open(np.zeros((60, 60)))
    tiny.gate = threading.Event()
    desk.control.start("points")
    points = desk.control.annotator.points
    points.add([10, 10])
    points.add([20, 20])
    points.data = [[40, 40]]
    tiny.gate.set()
    desk.finish()
    assert len(desk.control.single.answer.prompts) == 1
    assert desk.control.single.answer.prompts[0].points == ((40.0, 40.0, True),)
    assert desk.control.single.answer.masks()[0].offset == (36, 36)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("a defect")])
def test_an_error_while_predicting_is_reported_and_the_next_click_works(desk, tiny, notes, error):
    desk.open(np.zeros((60, 60)))
    tiny.error = error
    desk.click(30, 30)
    assert ("error", str(error)) in [(s, m.splitlines()[0].removeprefix("RuntimeError: ")) for s, m in notes]
    assert desk.control.annotator.preview is None
    tiny.error = None
    desk.click(20, 20)
    assert desk.control.annotator.preview.data.any()


def test_the_user_may_save_into_a_labels_layer_of_his_own(desk):
    desk.open(np.zeros((60, 60)))
    mine = desk.viewer.add_labels(np.zeros((60, 60), np.int32), name="mine")
    mine.data[0, 0] = 17
    other = desk.viewer.add_labels(np.zeros((10, 10), int), name="another size")
    found = [layer.name for layer in desk.control.targets()]
    assert found == ["mine"]
    assert other.name not in found
    desk.control.results.target = mine.unique_id
    desk.click(30, 30)
    assert desk.commit().ids == (18,)
    assert mine.data[30, 30] == 18


def test_a_layer_of_few_labels_is_copied_with_its_place_and_its_notes(desk, notes):
    desk.open(np.zeros((60, 60)), scale=(2, 2), translate=(3, 4))
    small = desk.viewer.add_labels(np.zeros((60, 60), np.uint8), name="small", scale=(2, 2), translate=(3, 4))
    small.data[0, 0] = 255
    desk.control.results.target = small.unique_id
    desk.click(30, 30)
    assert desk.commit().ids == (256,)
    copy = desk.target()
    assert (copy.name, copy.data.dtype, copy.data[0, 0]) == ("Int32 copy of small", np.int32, 255)
    np.testing.assert_array_equal(copy.translate, small.translate)
    assert not small.visible
    assert small.data.sum() == 255
    assert "copied" in notes[-1][1]


def test_layers_that_cannot_be_written_are_refused_in_words(desk, notes):
    desk.open(np.zeros((60, 60)))
    full = desk.viewer.add_labels(np.zeros((60, 60), np.int32), name="full")
    full.data[0, 0] = np.iinfo(np.int32).max
    lazy = desk.viewer.add_labels(da.zeros((60, 60), dtype=np.int32), name="lazy")
    desk.click(30, 30)
    for layer, words in ((full, "no free label"), (lazy, "loaded lazily")):
        desk.control.results.target = layer.unique_id
        assert desk.commit() is None
        assert words in notes[-1][1]
        assert "new layer" in notes[-1][1]
    levels = desk.viewer.add_labels([np.zeros((60, 60), int), np.zeros((30, 30), int)], multiscale=True)
    assert not desk.control.suggested.correct(levels, 1)
    assert "multiscale" in notes[-1][1]


def test_a_very_large_object_becomes_a_layer_of_its_own(desk, monkeypatch):
    monkeypatch.setattr(results, "LARGEST_STEP", 100)
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.commit()
    first = desk.target()
    desk.click(30, 50)
    desk.control.single.cycle(1)
    done = desk.commit()
    assert done.layer != first.unique_id
    assert [ours(layer).get("role") for layer in desk.viewer.layers].count("objects") == 2
    assert first.data.max() == 1


def test_of_many_outlines_those_that_lie_on_saved_objects_leave_no_slivers(desk):
    desk.open(np.zeros((60, 80)))
    desk.click(30, 30)
    desk.commit()
    before = desk.target().data.copy()
    desk.control.annotator.use_each(True)
    points = desk.control.annotator.start_points()
    points.add([(30, 31), (30, 60)])
    desk.finish()
    assert len(desk.control.single.answer.masks()) == 2
    done = desk.commit()
    assert (done.ids, done.refused) == ((2,), 1)
    assert "1 lie on objects that were saved before" in desk.control.status
    np.testing.assert_array_equal(desk.target().data == 1, before == 1)
    assert desk.target().data[30, 60] == 2
    assert set(np.unique(desk.target().data)) == {0, 1, 2}


def test_a_read_only_array_is_refused_and_nothing_is_noted_of_it(desk):
    desk.open(np.zeros((60, 80)))
    array = np.zeros((60, 80), np.int32)
    array.flags.writeable = False
    labels = desk.viewer.add_labels(array, name="mapped")
    desk.control.results.target = labels.unique_id
    desk.click(30, 30)
    assert desk.commit() is None
    assert "objects" not in ours(labels)
    assert not labels.data.any()


def test_undo_takes_back_what_was_saved_last_also_when_another_layer_was_chosen_since(desk):
    desk.open(np.zeros((60, 80)))
    layers = [desk.viewer.add_labels(np.zeros((60, 80), np.int32), name=name) for name in "xy"]
    for layer, at in zip(layers, ((30, 30), (30, 60)), strict=True):
        desk.control.results.target = layer.unique_id
        desk.click(*at)
        desk.commit()
    desk.control.results.target = layers[0].unique_id
    desk.control.single.undo()
    assert [int(layer.data.max()) for layer in layers] == [1, 0]
    desk.control.single.redo()
    assert [int(layer.data.max()) for layer in layers] == [1, 1]


def test_points_of_a_file_are_objects_of_their_own_and_later_clicks_are_not(desk, tmp_path):
    desk.open(np.zeros((60, 80)))
    table = tmp_path / "points.csv"
    table.write_text("axis-0,axis-1\n20,20\n20,60\n")
    assert desk.control.suggested.take_from(table)
    desk.finish()
    annotator = desk.control.annotator
    assert len(desk.control.single.answer.masks()) == 2
    annotator.clear()
    assert not annotator.each
    annotator.undo()  # they come back as what they were
    assert annotator.each
    desk.finish()
    desk.commit()
    assert not annotator.each
    desk.click(45, 30)
    desk.click(45, 34)
    assert len(desk.control.single.answer.masks()) == 1


def test_ctrl_z_takes_steps_back_in_the_order_in_which_they_were_done(desk):
    desk.open(np.zeros((60, 80)))
    single, points = desk.control.single, desk.control.annotator.start_points()
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    one = labels.data.copy()
    desk.click(30, 60)  # not saved yet, when something is saved elsewhere
    other = desk.viewer.add_labels(np.zeros((60, 80), np.int32), name="other")
    desk.control.results.target = other.unique_id
    desk.control.results.commit(
        desk.control.annotator.image, desk.control.annotator.plane(), [Mask((5, 5), np.ones((4, 4), bool))]
    )
    single.undo()
    assert not other.data.any()
    assert len(points.data) == 1
    assert "'other' was taken back" in desk.control.status
    single.undo()
    assert not len(points.data)
    np.testing.assert_array_equal(labels.data, one)
    single.undo()
    assert not labels.data.any()
    for _ in range(3):
        single.redo()
    assert other.data.any()
    assert len(points.data) == 1
    np.testing.assert_array_equal(labels.data, one)


def test_at_either_end_of_what_was_done_the_status_says_so(desk):
    desk.open(np.zeros((60, 80)))
    desk.click(30, 20)
    desk.commit()
    single = desk.control.single
    for go, end in ((single.redo, "nothing more to repeat"), (single.undo, "nothing more to take back")):
        go()
        go()
        assert end in desk.control.status


def test_ctrl_z_takes_strokes_of_the_brush_back_in_their_order(desk):
    desk.open(np.zeros((60, 80)))
    theirs = desk.viewer.add_labels(np.zeros((60, 80), np.int32), name="theirs")
    single, points = desk.control.single, desk.control.annotator.start_points()
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    assert labels is not theirs
    one = labels.data.copy()
    desk.click(30, 60)
    theirs.paint((5, 5), 3)
    labels.paint((50, 50), 1)
    for _ in range(2):
        single.undo()
        np.testing.assert_array_equal(labels.data, one)
        assert len(points.data) == 1
    assert not theirs.data.any()
    single.undo()
    assert not len(points.data)
    single.undo()
    assert not labels.data.any()
    for _ in range(4):
        single.redo()
    assert theirs.data.any()
    assert labels.data[50, 50] == 1


def test_ctrl_z_passes_over_what_napari_took_back_with_the_layer_selected(desk):
    desk.open(np.zeros((60, 80)))
    theirs = desk.viewer.add_labels(np.zeros((60, 80), np.int32), name="theirs")
    theirs.paint((5, 5), 3)
    desk.click(30, 20)
    desk.commit()
    labels, single = desk.target(), desk.control.single
    labels.paint((50, 50), 1)
    for _ in range(2):
        labels.undo()  # by napari's own key
    theirs.visible = False
    single.undo()
    assert not theirs.data.any()
    assert theirs.visible  # where something changes
    assert "'theirs' was taken back" in desk.control.status
    single.undo()
    assert desk.control.status == "There is nothing more to take back."
    single.redo()
    assert theirs.data.any() or labels.data.any()


def test_ctrl_z_on_a_prompt_layer_takes_back_a_repair_that_came_after_a_click(desk):
    desk.open(np.zeros((60, 80)))
    curating, single = desk.control.curating, desk.control.single
    data = np.zeros((60, 80), np.int32)
    data[5:15, 5:15], data[30:40, 5:15] = 1, 2
    theirs = desk.viewer.add_labels(data.copy(), name="theirs")
    desk.click(30, 60)
    curating.use_layer(theirs)
    curating.select([1, 2])
    curating.repairs.merge()
    assert set(np.unique(theirs.data)) == {0, 1}
    single.undo()
    np.testing.assert_array_equal(theirs.data, data)
    assert len(desk.control.annotator.points.data) == 1
    single.redo()
    curating.undo()  # with the keys of the table: the same step, in the same order
    np.testing.assert_array_equal(theirs.data, data)
    single.undo()
    assert not len(desk.control.annotator.points.data)


@pytest.mark.parametrize(
    ("score", "points", "advice"),
    [
        (0.9, [(30, 30)], "Score 0.90, 15.2 µm², 4.41 µm across. Outline 1 of 3 (Q). Press C to save."),
        (-0.02, [(30, 30)], "Score 0.00, 15.2 µm², 4.41 µm across. Outline 1 of 3 (Q). That is hardly"),
        (0.2, [(30, 30), (30, 50)], "Are these several objects? Press C between them"),
    ],
    ids=["sure", "nothing there", "two nuclei clicked as one"],
)
def test_the_status_says_how_good_an_outline_is_and_what_to_do(
    desk, tiny, monkeypatch, score, points, advice
):
    def predict(embedding, *_, original=tiny.predict, **prompts):
        found = original(embedding, *_, **prompts)
        again = [[replace(mask, iou=score) for mask in masks] for masks in found.objects]
        return Masks(embedding.shape, tuple(map(tuple, again)))

    monkeypatch.setattr(tiny, "predict", predict)
    desk.open(np.zeros((60, 80)), scale=(0.5, 0.5), units=("um", "um"))
    desk.control.pixel_size_um = 0.5
    for at in points:
        desk.click(*at)
    assert advice in desk.control.status
