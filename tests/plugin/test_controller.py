from __future__ import annotations

import threading

import numpy as np
import pytest

from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.viewer.axes import AxisRole, answer_role
from napari_lightsam.plugin.viewer.layers import ours


def names(desk):
    return [layer.name for layer in desk.viewer.layers]


def role(desk, wanted):
    return [layer for layer in desk.viewer.layers if ours(layer).get("role") == wanted]


def test_an_image_is_embedded_in_the_background_when_it_is_chosen(desk, tiny):
    desk.open(np.zeros((60, 60)))
    assert len(tiny.embedded) == 1
    assert threading.get_ident() not in tiny.threads
    assert desk.control.shown.ready.model == "Tiny model"


def test_when_the_image_is_ready_the_status_says_what_the_next_click_does(desk):
    desk.open(np.zeros((60, 60)))
    assert desk.control.status == "Ready. Press 'Object' and click one, or segment everything."
    desk.control.start("points")
    desk.control.shown.look(anew=True)
    desk.finish()
    assert desk.control.status == "Ready. Click an object, or segment everything."
    desk.click(30, 20)
    outlined = desk.control.status
    desk.control.shown.prepare()  # as where saved clicks were answered first
    assert desk.control.status == "Preparing the image ..."
    desk.finish()
    assert desk.control.status == outlined


def test_the_keys_work_on_our_prompt_layers_and_only_there(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    points = desk.control.annotator.points
    keys = {str(key): call for key, call in points.keymap.items()}
    keys["Q"](points)
    keys["Shift+Q"](points)
    keys["C"](points)
    labels = desk.target()
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
    assert desk.target().visible
    assert len(role(desk, "objects")) == 1


def test_a_stack_is_saved_plane_by_plane_into_one_layer(desk):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    for z in (1, 3):
        desk.viewer.dims.set_current_step(0, z)
        desk.finish()
        desk.click(z, 30, 30)
        assert desk.commit() is not None
    labels = desk.target()
    assert labels.data.shape == (5, 60, 60)
    assert [z for z in range(5) if labels.data[z].any()] == [1, 3]
    assert [int(labels.data[z].max()) for z in (1, 3)] == [1, 2]


def test_moving_the_slider_takes_the_preview_away(desk, tiny):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    desk.click(2, 30, 30)
    assert desk.control.annotator.preview.data.any()
    desk.viewer.dims.set_current_step(0, 4)
    desk.finish()
    assert not desk.control.annotator.preview.data.any()
    assert desk.commit() is None
    assert len(tiny.embedded) == 2


def test_an_unknown_slider_holds_everything_until_it_is_answered(desk, tiny, notes):
    image = desk.open(np.zeros((5, 60, 60)))
    assert not tiny.embedded
    assert not desk.control.segment_everything()
    assert "what the slider is" in notes[-1][1]
    answer_role(image, 0, AxisRole.TIME)
    desk.control.shown.look()
    desk.finish()
    assert len(tiny.embedded) == 1


def test_changing_the_object_size_answers_the_prompt_again(desk, tiny):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.control.shown.use_settings(Settings(object_size=12))
    desk.finish()
    assert [size for _, size, _ in tiny.embedded] == [None, 12]
    assert desk.control.single.answer.masks()


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
    assert desk.target().data.shape != other.target().data.shape


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
    desk.control.single.commit()
    desk.control.single.cycle(1)
    assert not desk.control.segment_everything()
    assert len(notes) == 4
    assert "Open an image" in notes[0][1]


def test_models_that_are_not_here_are_never_fetched_by_themselves(desk, tiny, notes, monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    desk.open(np.zeros((60, 60)))
    desk.control.shown.use_settings(Settings(model="mobile_sam"))
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
