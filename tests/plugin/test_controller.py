from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_lightsam.plugin import results
from napari_lightsam.plugin.axes import METADATA_KEY, AxisRole, answer_role
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.layers import ours


def target(desk):
    return next(x for x in desk.viewer.layers if x.unique_id == desk.control.results.target)


def names(desk):
    return [layer.name for layer in desk.viewer.layers]


def role(desk, wanted):
    return [layer for layer in desk.viewer.layers if ours(layer).get("role") == wanted]


def test_an_image_is_embedded_in_the_background_when_it_is_chosen(desk, tiny):
    desk.open(np.zeros((60, 60)))
    assert len(tiny.embedded) == 1
    assert threading.get_ident() not in tiny.threads
    assert desk.control.ready.model == "Tiny model"


def test_a_click_is_previewed_and_committed_as_one_undoable_step(desk):
    desk.open(np.zeros((60, 60)), scale=(2, 2), units=("um", "um"))
    desk.click(30, 20)
    preview = desk.control.annotator.preview
    assert preview.visible
    assert names(desk).index(preview.name) < names(desk).index(desk.control.annotator.points.name)
    np.testing.assert_allclose(preview.data_to_world((4, 4)), (60, 40))  # the disc's centre
    done = desk.commit()
    labels = target(desk)
    assert (done.ids, labels.data.dtype, labels.units) == ((1,), np.int32, desk.viewer.layers[0].units)
    assert labels.data[30, 20] == 1
    saved = labels.data.copy()
    assert done.written == np.count_nonzero(saved)
    labels.undo()
    assert not labels.data.any()
    labels.redo()
    np.testing.assert_array_equal(labels.data, saved)


def test_after_a_commit_the_prompts_are_gone_and_clicking_goes_on(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    annotator = desk.control.annotator
    assert len(annotator.points.data) == 0
    assert not annotator.preview.visible
    assert desk.viewer.layers.selection.active.unique_id == annotator.points.unique_id
    desk.click(10, 10)
    assert desk.commit().ids == (2,)


def test_ids_go_on_from_the_largest_ever_used_also_after_undo_and_painting(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = target(desk)
    labels.undo()
    desk.click(30, 20)
    assert desk.commit().ids == (2,)
    labels.selected_label = 40
    labels.paint((5, 5), 40)
    desk.click(50, 50)
    assert desk.commit().ids == (41,)
    assert labels.metadata[METADATA_KEY]["largest"] == 41


def test_only_background_is_written_unless_replacing_is_chosen(desk, notes):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    before = target(desk).data.copy()
    desk.click(30, 24)
    desk.commit()
    after = target(desk).data
    np.testing.assert_array_equal(after[before == 1], 1)
    desk.click(30, 20)
    assert desk.commit().ids == ()
    assert "belong to other objects" in notes[-1][1]
    desk.control.replace_others = True
    desk.click(30, 20)
    assert desk.commit().ids == (3,)
    assert after[30, 20] == 3


def test_every_box_becomes_an_object_and_all_are_one_step(desk):
    desk.open(np.zeros((60, 60)))
    desk.control.start("boxes")
    square = np.array([[0, 0], [0, 9], [9, 9], [9, 0]]) - 0.5
    desk.control.annotator.boxes.add_rectangles([square + 10, square + 30])
    desk.finish()
    assert desk.commit().ids == (1, 2)
    labels = target(desk)
    assert (np.count_nonzero(labels.data == 1), np.count_nonzero(labels.data == 2)) == (81, 81)
    labels.undo()
    assert not labels.data.any()


def test_candidates_are_cycled_and_the_chosen_one_is_saved(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    sizes = []
    for step in (0, 1, 1, 1, -1):
        if step:
            desk.control.cycle(step)
        sizes.append(desk.control.answer.masks()[0].area)
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3:] == [sizes[0], sizes[2]]
    assert desk.commit().written == sizes[2]


def test_the_keys_work_on_our_prompt_layers_and_only_there(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    points = desk.control.annotator.points
    keys = {str(key): call for key, call in points.keymap.items()}
    keys["Q"](points)
    keys["Shift+Q"](points)
    keys["C"](points)
    labels = target(desk)
    assert labels.data.any()
    keys["Ctrl+Z"](points)
    assert not labels.data.any()
    keys["Ctrl+Shift+Z"](points)
    assert labels.data.any()
    desk.click(10, 10)
    keys["Shift+C"](points)
    assert len(points.data) == 0
    assert not labels.keymap
    assert not desk.viewer.layers[0].keymap


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
    assert len(desk.control.answer.prompts) == 1
    assert desk.control.answer.prompts[0].points == ((40.0, 40.0, True),)
    assert desk.control.answer.masks()[0].offset == (36, 36)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("a defect")])
def test_an_error_while_predicting_is_reported_and_the_next_click_works(desk, tiny, notes, error):
    desk.open(np.zeros((60, 60)))
    tiny.error = error
    desk.click(30, 30)
    assert ("error", str(error)) in [(s, m.splitlines()[0].removeprefix("RuntimeError: ")) for s, m in notes]
    assert desk.control.annotator.preview is None
    tiny.error = None
    desk.click(20, 20)
    assert desk.control.annotator.preview.visible


def test_an_error_in_a_run_is_reported_and_ends_the_progress(desk, tiny, notes):
    desk.open(np.zeros((60, 60)))
    tiny.error = RuntimeError("the device is gone")
    desk.control.segment_everything()
    desk.finish()
    assert "the device is gone" in notes[-1][1]
    assert desk.progress[-1] is None
    assert names(desk) == ["image"]


@pytest.mark.parametrize("victim", ["points", "preview", "objects", "image"])
def test_any_layer_may_be_deleted_at_any_moment(desk, victim):
    image = desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.commit()
    desk.click(10, 10)
    gone = image if victim == "image" else role(desk, victim)[0]
    desk.viewer.layers.remove(gone)
    desk.finish()
    if victim == "image":
        assert desk.control.annotator.image is None
        assert not role(desk, "points")
        assert desk.commit() is None
        return
    desk.click(10, 10)
    done = desk.commit()
    assert done.ids == ((1,) if victim == "objects" else (2,))


def test_layers_may_be_renamed_hidden_and_reordered(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.commit()
    for i, layer in enumerate(desk.viewer.layers):
        layer.name = f"renamed {i}"
        layer.visible = False
    desk.viewer.layers.reverse()
    desk.click(10, 10)
    assert desk.commit().ids == (2,)
    assert target(desk).visible
    assert len(role(desk, "objects")) == 1


def test_the_user_may_save_into_a_labels_layer_of_his_own(desk):
    desk.open(np.zeros((60, 60)))
    mine = desk.viewer.add_labels(np.full((60, 60), 0, np.uint16), name="mine")
    mine.data[0, 0] = 17
    other = desk.viewer.add_labels(np.zeros((10, 10), int), name="another size")
    found = [layer.name for layer in desk.control.targets()]
    assert found == ["mine"]
    assert other.name not in found
    desk.control.results.target = mine.unique_id
    desk.click(30, 30)
    assert desk.commit().ids == (18,)
    assert mine.data[30, 30] == 18


def test_a_layer_without_free_labels_is_refused_in_words(desk, notes):
    desk.open(np.zeros((60, 60)))
    full = desk.viewer.add_labels(np.zeros((60, 60), np.uint8))
    full.data[0, 0] = 255
    desk.control.results.target = full.unique_id
    desk.click(30, 30)
    assert desk.commit() is None
    assert "no free label" in notes[-1][1]
    assert full.data[30, 30] == 0


def test_a_very_large_object_becomes_a_layer_of_its_own(desk, monkeypatch):
    monkeypatch.setattr(results, "LARGEST_STEP", 100)
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.commit()
    first = target(desk)
    desk.click(30, 30)
    desk.control.cycle(1)
    done = desk.commit()
    assert done.layer != first.unique_id
    assert len(role(desk, "objects")) == 2
    assert first.data.max() == 1


def test_a_stack_is_saved_plane_by_plane_into_one_layer(desk):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    for z in (1, 3):
        desk.viewer.dims.set_current_step(0, z)
        desk.finish()
        desk.click(z, 30, 30)
        assert desk.commit() is not None
    labels = target(desk)
    assert labels.data.shape == (5, 60, 60)
    assert [z for z in range(5) if labels.data[z].any()] == [1, 3]
    assert [int(labels.data[z].max()) for z in (1, 3)] == [1, 2]


def test_moving_the_slider_takes_the_preview_away(desk, tiny):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    desk.click(2, 30, 30)
    assert desk.control.annotator.preview.visible
    desk.viewer.dims.set_current_step(0, 4)
    desk.finish()
    assert not desk.control.annotator.preview.visible
    assert desk.commit() is None
    assert len(tiny.embedded) == 2


def test_an_unknown_slider_holds_everything_until_it_is_answered(desk, tiny, notes):
    image = desk.open(np.zeros((5, 60, 60)))
    assert not tiny.embedded
    assert not desk.control.segment_everything()
    assert "what the slider is" in notes[-1][1]
    answer_role(image, 0, AxisRole.TIME)
    desk.control.prepare()
    desk.finish()
    assert len(tiny.embedded) == 1


def test_changing_the_object_size_answers_the_prompt_again(desk, tiny):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.control.use_settings(Settings(object_size=12))
    desk.finish()
    assert [size for _, size, _ in tiny.embedded] == [None, 12]
    assert desk.control.answer.masks()


def test_changed_pixels_are_embedded_again(desk, tiny):
    image = desk.open(np.zeros((60, 60)))
    image.data = np.ones((60, 60))
    desk.finish()
    assert len(tiny.embedded) == 2
    assert (tiny.embedded[1][0] == 1).all()


def test_two_viewers_do_not_disturb_each_other(desk, new_desk):
    other = new_desk()
    desk.open(np.zeros((60, 60)))
    other.open(np.zeros((40, 40)))
    desk.click(30, 30)
    assert other.control.annotator.points is None
    other.click(10, 10)
    assert (desk.commit().ids, other.commit().ids) == ((1,), (1,))
    assert target(desk).data.shape != target(other).data.shape


def test_a_viewer_closed_during_a_run_ends_the_thread(new_desk, tiny):
    table = new_desk()
    table.open(np.zeros((60, 60)))
    tiny.gate = threading.Event()
    table.control.segment_everything()
    table.run_until(lambda: len(table.progress) > 2)
    table.control.close()
    assert table.control.worker.join(2)
    assert tiny.closed.is_set()


def test_without_an_image_every_action_says_what_to_do(desk, notes):
    desk.control.start("points")
    desk.control.commit()
    desk.control.cycle(1)
    assert not desk.control.segment_everything()
    assert len(notes) == 4
    assert "Open an image" in notes[0][1]


def test_models_that_are_not_here_are_never_fetched_by_themselves(desk, tiny, notes, monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    desk.open(np.zeros((60, 60)))
    desk.control.use_settings(Settings(model="mobile_sam"))
    desk.finish()
    assert desk.control.status == "Download the model first."
    assert not desk.control.segment_everything()
    assert not any(tmp_path.iterdir())


def test_no_warning_of_napari_is_caused(new_desk, recwarn):
    table = new_desk()
    table.open(np.zeros((60, 60)))
    table.click(30, 30)
    table.commit()
    table.control.segment_everything()
    table.finish()
    table.control.close()
    caused = [w for w in recwarn if issubclass(w.category, (FutureWarning, DeprecationWarning))]
    assert [w for w in caused if "napari" in str(w.message).lower() or "napari_lightsam" in w.filename] == []
