"""What changes while an outline is on display or on its way must neither be lost nor damage anything."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels
from scipy import ndimage

from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin import inference, region, whole
from napari_lightsam.plugin.objects import results
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.worker import Lane, Worker


def stack_of_planes(desk, plane=0):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, plane)
    desk.finish()


def splitting(desk, shape, place):
    """Begin to split a bar with the label 5, and return its layer."""
    labels = desk.viewer.add_labels(np.zeros(shape, np.int32))
    labels.data[..., 10:20, 10:40] = 5
    desk.viewer.dims.set_current_step(0, place)
    desk.control.curating.use_layer(labels)
    desk.control.curating.measure()
    desk.finish()
    desk.control.curating.select([5])
    desk.control.splitting.start()
    return labels


def test_ids_stay_unique_when_others_write_into_the_layer(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    labels.paint((50, 50), 99)  # with another label than the selected one
    desk.click(10, 50)
    assert desk.commit().ids == (100,)
    labels.data[55, 55] = 200  # as a script does
    desk.click(50, 20)
    assert desk.commit().ids == (201,)


def test_ids_that_were_painted_or_erased_before_anything_was_saved_are_used_up(desk):
    desk.open(np.zeros((60, 60)))
    theirs = np.zeros((60, 60), np.int32)
    theirs[5:10, 5:10] = 9
    labels = desk.viewer.add_labels(theirs)
    desk.control.results.target = labels.unique_id
    desk.control.curating.use_layer(labels)
    desk.control.curating.select([9])
    desk.control.curating.repairs.delete()
    labels.paint((50, 50), 12)
    labels.undo()
    desk.click(30, 20)
    assert desk.commit().ids == (13,)


def test_a_commit_replaces_only_what_it_said_it_would(desk):
    desk.open(np.zeros((60, 60)))
    other = desk.viewer.add_labels(np.zeros((60, 60), np.int32))
    other.data[45:55, 45:55] = 1
    desk.click(30, 20)
    desk.commit()
    first = desk.target()
    desk.click(30, 20)
    assert desk.control.single.answer.same == 1
    desk.control.results.target = other.unique_id
    assert desk.commit().ids == (2,)
    assert (other.data[45:55, 45:55] == 1).all()
    desk.control.results.target = first.unique_id
    desk.click(30, 20)
    assert desk.control.single.answer.same == 1
    first.undo()
    assert desk.commit().ids == (2,)


def test_an_outline_that_does_not_answer_all_clicks_is_not_saved(desk, tiny, notes):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    tiny.gate = threading.Event()
    desk.control.annotator.points.add([40, 40])
    assert desk.commit() is None
    assert "still being found" in notes[-1][1]
    tiny.gate.set()
    desk.finish()
    assert desk.commit() is not None


def test_a_correction_without_a_change_leaves_nothing_to_undo(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    desk.control.suggested.correct(labels, 1)
    desk.finish(Lane.PROMPT)
    assert desk.commit().written == 0
    assert "stays as it was" in desk.control.status


@pytest.mark.parametrize("leave", ["3-D view", "beyond the image"])
def test_an_answer_of_a_plane_that_is_not_on_display_any_more_is_dropped(desk, tiny, leave):
    stack_of_planes(desk)
    desk.viewer.add_points([[7, 1, 1]])
    desk.control.start("points")
    tiny.gate = threading.Event()
    desk.control.annotator.points.add([0, 30, 20])
    assert desk.control.worker.is_busy(Lane.PROMPT)
    if leave == "3-D view":
        desk.viewer.dims.ndisplay = 3
    else:
        desk.viewer.dims.set_point(0, 6)
    tiny.gate.set()
    desk.finish()
    assert not desk.control.single.answer.masks()


def test_new_pixels_of_another_image_leave_the_outline_as_it_is(desk):
    other = desk.open(np.zeros((60, 60)))
    desk.open(np.zeros((60, 60)), name="second")
    desk.click(30, 20)
    desk.control.single.cycle(1)
    other.data = np.ones((60, 60))
    desk.finish()
    assert desk.control.single.answer.chosen == [1]


def test_undo_after_a_large_object_does_not_take_back_the_one_before_it(desk, monkeypatch, notes):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    before = labels.data.copy()
    monkeypatch.setattr(results, "LARGEST_STEP", 10)
    desk.click(30, 50)
    desk.commit()
    desk.control.single.undo()
    np.testing.assert_array_equal(labels.data, before)
    assert "delete the layer" in notes[-1][1]
    desk.control.single.undo()
    assert not labels.data.any()


def test_a_closed_tool_leaves_neither_mouse_nor_preview_nor_work_behind(new_desk, tiny):
    desk = new_desk()
    stack_of_planes(desk)
    image = desk.control.annotator.image
    desk.click(0, 30, 20)
    desk.commit()
    callbacks = len(desk.viewer.mouse_drag_callbacks)
    desk.control.start("correct")
    tiny.gate = threading.Event()
    everything = desk.control.everything
    everything.choose(replace(everything.choices, scope=Scope.STACK))
    assert desk.control.segment_everything()
    desk.control.close()
    tiny.gate.set()
    assert len(desk.viewer.mouse_drag_callbacks) == callbacks
    assert not any("running" in layer.name for layer in desk.viewer.layers)
    status = desk.control.status
    image.data = np.ones((3, 60, 60))
    assert desk.control.status == status


def callbacks(viewer, *of_layers):
    """Count who listens to a viewer and to some of its layers."""
    groups = [viewer.events, viewer.dims.events, viewer.layers.events, viewer.layers.selection.events]
    groups += [viewer.scene.camera.events, *(layer.events for layer in of_layers)]
    return [[len(emitter.callbacks) for emitter in group.emitters.values()] for group in groups]


def test_a_closed_tool_listens_to_nothing_and_is_let_go_of(tiny, make_desk, tmp_path):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((60, 60)))
    theirs = viewer.add_labels(np.zeros((60, 60), np.int32))
    before = callbacks(viewer, image, theirs)
    desk = make_desk(viewer)
    control = desk.control
    control.shown.use_image(image)
    desk.click(30, 20)
    desk.commit()
    control.hover.on = True
    assert control.segment_everything()
    desk.finish()
    control.curating.use_layer(theirs)
    theirs.paint((30, 30), 5)
    control.curating.measure()
    desk.finish()
    control.curating.select([5])
    control.splitting.start()
    tifffile.imwrite(tmp_path / "cells.tif", np.arange(3600, dtype="uint16").reshape(60, 60))
    assert control.series.open(tmp_path, tmp_path / "out")
    desk.click(30, 30)
    desk.commit()
    control.close()
    control.annotator.remove_prompts()
    assert control.worker.join(10)
    assert callbacks(viewer, image, theirs) == before
    tool = weakref.ref(control)
    del control, desk
    gc.collect()
    assert tool() is None  # with its models


def test_the_preview_of_a_stack_goes_when_another_run_takes_its_place(desk, tiny):
    stack_of_planes(desk)
    tiny.gate = threading.Event()
    everything = desk.control.everything
    everything.choose(replace(everything.choices, scope=Scope.STACK))
    desk.control.segment_everything()
    everything.stop()
    desk.control.segment_everything()
    tiny.gate.set()
    desk.finish()
    made = [layer.name for layer in desk.viewer.layers if isinstance(layer, Labels)]
    assert made == ["Everything in image"]


def test_clicks_to_split_count_on_their_own_plane_only(desk, notes):
    stack_of_planes(desk)
    labels = splitting(desk, (3, 60, 60), 0)
    clicks = desk.control.splitting.clicks.layer
    clicks.add([[0, 15, 15], [0, 15, 25]])
    desk.viewer.dims.set_current_step(0, 1)
    clicks.add([1, 15, 35])
    desk.control.splitting.apply()
    desk.finish()
    assert np.unique(labels.data).tolist() == [0, 5]
    assert "at least two places" in notes[-1][1]


def test_a_split_begun_on_one_layer_cuts_no_other(desk):
    desk.open(np.zeros((60, 60)))
    labels = splitting(desk, (60, 60), 0)
    desk.control.splitting.clicks.layer.add([[15, 15], [15, 35]])
    other = desk.viewer.add_labels(labels.data.copy())
    desk.control.curating.use_layer(other)
    desk.control.splitting.apply()
    desk.finish()
    assert np.unique(other.data).tolist() == np.unique(labels.data).tolist() == [0, 5]
    assert not desk.control.splitting.is_active


def test_an_object_is_picked_where_it_was_clicked_in_a_work_region_too(desk, monkeypatch):
    monkeypatch.setattr(region, "LARGEST_PLANE", 100)
    monkeypatch.setattr(region, "SIDE", 40)
    desk.open(np.zeros((100, 100)))
    plane = desk.control.annotator.plane()
    assert plane.origin == (30, 30)
    done = desk.control.results.commit(
        desk.control.annotator.image, plane, [Mask((5, 5), np.ones((10, 10), bool))]
    )
    assert done.ids == (1,)
    assert desk.control.picking.start()
    event = SimpleNamespace(
        pos=(5, 5), position=(40, 41), type="mouse_press", view_direction=None, dims_displayed=(0, 1)
    )
    click = desk.control.picking._on_click(desk.viewer, event)
    next(click)
    event.type = "mouse_release"
    assert next(click, None) is None
    np.testing.assert_allclose(desk.control.annotator.points.data, [[40, 41]])


def test_answers_are_forgotten_by_what_they_weigh(desk, tiny, monkeypatch):
    monkeypatch.setattr(inference, "_ANSWER_BYTES", 2_000)
    desk.open(np.zeros((60, 60)))
    for column in range(10, 50, 5):
        desk.click(30, column)
        desk.control.annotator.clear()
    held = desk.control.inference._answers.values()
    assert 0 < sum(mask.crop.nbytes for answer in held for mask in answer) <= 2_000


def test_cleaning_up_that_fails_does_not_end_the_thread():
    started, done = threading.Event(), threading.Event()

    def failing():
        try:
            while True:
                started.set()
                yield None
        finally:
            raise OSError("disk full")

    def quick():
        yield None

    worker = Worker(lambda call: done.set())
    worker.submit(Lane.RUN, failing(), print, print)
    assert started.wait(10)
    worker.cancel(Lane.RUN)
    worker.submit(Lane.PROMPT, quick(), print, print)
    assert done.wait(10)
    worker.close()
    assert worker.join(10)


def test_no_two_kinds_of_work_share_a_lane():
    assert len({lane.value for lane in Lane.__members__.values()}) == len(Lane.__members__)


def test_saving_one_plane_keeps_the_prompts_of_another(desk):
    stack_of_planes(desk)
    desk.click(0, 30, 20)
    boxes = desk.control.annotator.start_boxes()
    boxes.add_rectangles(np.array([[0, 5, 35], [0, 5, 45], [0, 15, 45], [0, 15, 35]]))
    desk.viewer.dims.set_current_step(0, 1)
    desk.click(1, 30, 20)
    assert len(desk.commit().ids) == 1
    assert desk.control.annotator.points.data.tolist() == [[0, 30, 20]]
    desk.click(1, 10, 20)
    desk.control.single.undo()
    assert desk.control.annotator.points.data.tolist() == [[0, 30, 20]]
    desk.viewer.dims.set_current_step(0, 0)
    desk.finish()
    assert len(desk.commit().ids) == 2


def test_the_preview_lies_on_an_image_that_got_its_pixel_size_later(desk):
    image = desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.control.annotator.clear()
    image.scale = (0.5, 0.25)
    points = desk.control.annotator.points
    points.add(points.world_to_data(image.data_to_world((30, 20))))
    desk.finish()
    preview = desk.control.annotator.preview
    np.testing.assert_allclose(preview.scale, image.scale)
    centre = ndimage.center_of_mass(preview.data > 0)
    np.testing.assert_allclose(preview.data_to_world(centre), image.data_to_world((30, 20)))


def test_thousands_of_objects_are_saved_in_one_step_each_pixel_once(desk):
    image = desk.open(np.zeros((200, 200)))
    masks = [Mask((y, x), np.ones((4, 4), bool)) for y in range(0, 196, 3) for x in range(0, 196, 3)]
    done = desk.control.results.commit(image, desk.control.annotator.plane(), masks)
    labels = desk.target()
    assert len(done.ids) == len(masks) == len(np.unique(labels.data)) - 1
    assert np.count_nonzero(labels.data == 1) == 16
    assert np.count_nonzero(labels.data == 2) == 12  # the first of two keeps what both cover
    labels.undo()
    assert not labels.data.any()


def test_the_outline_of_the_work_region_goes_with_its_image(desk, monkeypatch):
    monkeypatch.setattr(region, "LARGEST_PLANE", 100)
    monkeypatch.setattr(region, "SIDE", 40)
    image = desk.open(np.zeros((100, 100)))
    assert "work region" in desk.viewer.layers
    desk.open(np.zeros((8, 8)), name="small")
    assert "work region" in desk.viewer.layers
    desk.viewer.layers.remove(image)
    assert [layer.name for layer in desk.viewer.layers] == ["small"]


def test_a_run_on_the_whole_image_that_is_stopping_is_not_dropped(desk, tmp_path, monkeypatch, notes):
    begun, gate = threading.Event(), threading.Event()

    def segment_slide(plane, out, settings, *, model, workers):
        begun.set()
        yield Progress("segmenting", 0, 2)
        assert gate.wait(10)
        yield Progress("segmenting", 1, 2)

    monkeypatch.setattr(whole, "segment_slide", segment_slide)
    desk.open(np.zeros((60, 60), np.uint8))
    assert desk.control.segment_whole(tmp_path / "first.zarr")
    desk.run_until(begun.is_set)
    desk.control.region.stop()
    assert not desk.control.segment_whole(tmp_path / "second.zarr")
    assert "press again" in notes[-1][1]
    gate.set()
    desk.finish()
    assert "Stopped." in desk.control.status
