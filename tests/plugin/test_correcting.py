"""Saved objects taken up again, prompts of many objects, and undo of what was not saved yet."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.objects.made import Made, made_objects, made_with_area
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.viewer.layers import input_key
from napari_lightsam.plugin.worker import Lane


def prompts_shown(desk):
    """Positions and signs of our points."""
    points = desk.control.annotator.points
    return [(*at, sign) for at, sign in zip(points.data.tolist(), points.features["sign"], strict=True)]


def test_a_saved_object_remembers_how_it_was_made(desk):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 2)
    desk.click(2, 30, 20)
    desk.control.single.cycle(1)
    desk.commit()
    labels = desk.target()
    (made,) = made_objects(labels).values()
    assert made == Made(
        "prompt", 0.9, ObjectPrompt(((30.0, 20.0, True),)), 1, 121, (2, None, None), "lightsam",
        weights_hash="0" * 64, inputs=((input_key(desk.viewer.layers["image"]), None),),
    )  # fmt: skip
    assert Made.from_plain(json.loads(json.dumps(made.to_plain()))) == made


def test_a_mask_among_the_prompts_survives_being_written(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    mask = desk.control.single.answer.masks()[0]
    plain = Made("prompt", prompt=ObjectPrompt(mask=mask)).to_plain()
    again = Made.from_plain(json.loads(json.dumps(plain))).prompt.mask
    np.testing.assert_array_equal(again.to_array((60, 60)), mask.to_array((60, 60)))
    with pytest.raises(FileError, match="damaged"):
        Made.from_plain({"source": "prompt", "prompt": {"points": [[1, 2]]}})


def test_the_prompts_of_our_own_object_come_back_and_its_pixels_are_replaced(desk):
    desk.open(np.zeros((60, 60)), scale=(0.3, 0.3))
    desk.click(30, 20)
    desk.control.single.cycle(1)
    desk.commit()
    desk.click(30, 50)
    desk.commit()
    labels = desk.target()
    before = labels.data.copy()
    assert desk.control.suggested.correct(labels, 1)
    desk.finish(Lane.PROMPT)
    assert prompts_shown(desk) == [(30.0, 20.0, "positive")]
    assert desk.control.single.answer.masks()[0].area == np.count_nonzero(before == 1)
    np.testing.assert_array_equal(labels.data, before)
    desk.control.single.cycle(1)
    done = desk.commit()
    assert done.ids == (1,)
    assert np.count_nonzero(labels.data == 1) > np.count_nonzero(before == 1)
    np.testing.assert_array_equal(labels.data == 2, before == 2)
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)
    assert made_with_area(labels, 1, np.count_nonzero(before == 1)).candidate == 1


def test_the_mask_of_somebody_elses_object_becomes_the_prompt(desk, tiny):
    desk.open(np.zeros((60, 60)))
    given = desk.viewer.add_labels(np.zeros((60, 60), np.int32))
    given.data[10:30, 10:30], given.data[40:50, 40:50] = 7, 9
    assert desk.control.suggested.correct(given, 7, (15, 15))
    desk.finish(Lane.PROMPT)
    np.testing.assert_array_equal(tiny.predicted[-1][3].to_array()[0], given.data == 7)
    assert prompts_shown(desk) == [(15.0, 15.0, "positive")]
    desk.control.single.cycle(-1)
    assert desk.control.single.answer.masks()[0].area == 400  # as it was
    desk.control.single.cycle(1)
    assert desk.commit().ids == (7,)
    assert np.count_nonzero(given.data == 7) == 61  # the disc around the point
    assert np.count_nonzero(given.data == 9) == 100
    given.undo()
    assert np.count_nonzero(given.data == 7) == 400


def test_an_object_that_was_painted_on_is_corrected_from_its_pixels(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    labels.brush_size = 5
    labels.paint((30, 25), 1)
    assert desk.control.suggested.correct(labels, 1)
    desk.finish(Lane.PROMPT)
    assert desk.control.annotator.correction.mask.area == np.count_nonzero(labels.data == 1)


def test_a_correction_ends_when_its_object_is_gone_or_another_plane_is_shown(desk, notes):
    desk.open(np.zeros((2, 60, 60)), axis_labels=("z", "y", "x"))
    desk.click(0, 30, 20)
    desk.commit()
    labels = desk.target()
    desk.control.suggested.correct(labels, 1)
    desk.finish(Lane.PROMPT)
    labels.undo()
    assert desk.commit().ids == (2,)
    assert "deleted meanwhile" in notes[-1][1]
    desk.control.suggested.correct(labels, 2)
    desk.viewer.dims.set_current_step(0, 1)
    desk.finish()
    assert desk.control.annotator.correction is None
    assert not desk.control.suggested.correct(labels, 2)
    assert "no object 2 on this plane" in notes[-1][1]


def test_edits_of_prompts_are_undone_before_saved_objects_are(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    single, labels = desk.control.single, desk.target()
    desk.click(10, 10)
    desk.control.annotator.always_negative = True
    desk.control.annotator.points.add([12, 12])
    desk.control.annotator.clear()
    for left in (2, 1, 0):
        single.undo()
        assert len(prompts_shown(desk)) == left
        assert labels.data.any()
    single.redo()
    single.redo()
    assert prompts_shown(desk) == [(10.0, 10.0, "positive"), (12.0, 12.0, "negative")]
    desk.finish(Lane.PROMPT)
    assert len(desk.control.single.answer.prompts[0].points) == 2
    single.undo()
    single.undo()
    single.undo()
    assert not labels.data.any()
    single.redo()
    assert labels.data.any()
    assert not prompts_shown(desk)


def test_a_box_that_was_undone_comes_back_in_its_place(desk):
    desk.open(np.zeros((60, 60)))
    desk.control.start("boxes")
    corners = np.array([[10, 10], [10, 30], [30, 30], [30, 10]]) - 0.5
    desk.control.annotator.boxes.add_rectangles(corners)
    desk.control.single.undo()
    assert not desk.control.annotator.read_prompts()
    desk.control.single.redo()
    assert desk.control.annotator.read_prompts()[0].box == (10, 10, 30, 30)


def test_each_point_can_be_an_object_of_its_own_with_ids_in_order(desk, tiny):
    desk.open(np.zeros((60, 60)))
    desk.control.annotator.use_each(True)
    desk.control.annotator.take([(10, 10, True), (40, 40, True), (14, 12, False), (10, 40, True)], [])
    desk.finish(Lane.PROMPT)
    assert [len(prompt.points) for prompt in desk.control.single.answer.prompts] == [2, 1, 1]
    batch = max(np.shape(points)[0] for points, *_ in tiny.predicted if np.ndim(points) == 3)
    assert batch == 2  # those with one point were asked about together
    assert desk.commit().ids == (1, 2, 3)
    labels = desk.target().data
    assert (labels[10, 10], labels[40, 40], labels[10, 40]) == (1, 2, 3)


def press(viewer, *at, moved=0.0):
    """Press and release the mouse on the viewer itself, as napari does before it asks the active layer."""
    event = SimpleNamespace(
        type="mouse_press",
        pos=(50.0, 50.0),
        position=at,
        view_direction=None,
        dims_displayed=[0, 1],
        modifiers=(),
    )
    mouse_press_callbacks(viewer, event)
    event.type, event.pos = "mouse_release", (50.0 + moved, 50.0)
    mouse_release_callbacks(viewer, event)


def test_a_click_with_the_correction_tool_picks_the_object_under_it(desk, notes):
    desk.open(np.zeros((60, 60)), scale=(2, 2))
    desk.control.start("correct")
    assert "no objects to correct" in notes[-1][1]
    given = desk.viewer.add_labels(np.zeros((60, 60), np.int32), scale=(2, 2))
    given.data[10:30, 10:30] = 7
    desk.control.start("correct")
    assert desk.viewer.layers.selection.active.unique_id == given.unique_id
    press(desk.viewer, 100, 100)
    assert "no object here" in notes[-1][1]
    press(desk.viewer, 30, 40, moved=40)
    assert desk.control.annotator.correction is None  # that was a drag
    press(desk.viewer, 30, 40)
    assert desk.control.annotator.correction.value == 7
    assert prompts_shown(desk) == [(15.0, 20.0, "positive")]
    assert not desk.control.picking.is_active
    assert desk.viewer.layers.selection.active.unique_id == desk.control.annotator.points.unique_id


def test_prompts_come_from_another_layer_or_a_table_that_napari_saved(desk, notes, tmp_path):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 1)
    seeds = desk.viewer.add_points([[1, 10, 10], [1, 40, 40], [2, 5, 5]])
    suggested = desk.control.suggested
    assert suggested.take_from(seeds)
    desk.finish(Lane.PROMPT)
    assert [prompt.points[0][:2] for prompt in desk.control.single.answer.prompts] == [(10, 10), (40, 40)]
    seeds.save(str(tmp_path / "seeds.csv"))
    desk.control.annotator.clear()
    assert suggested.take_from(tmp_path / "seeds.csv")
    assert prompts_shown(desk) == [(1, 10.0, 10.0, "positive"), (1, 40.0, 40.0, "positive")]
    box = np.array([[1, 10, 10], [1, 10, 30], [1, 30, 30], [1, 30, 10]]) - [0, 0.5, 0.5]
    shapes = desk.viewer.add_shapes([box], shape_type="rectangle")
    shapes.save(str(tmp_path / "boxes.csv"))
    for source in (shapes, tmp_path / "boxes.csv"):
        assert suggested.take_from(source)
        assert [prompt.box for prompt in desk.control.annotator.read_prompts()] == [(10, 10, 30, 30)]
    desk.viewer.dims.set_current_step(0, 0)
    assert not suggested.take_from(seeds)
    assert "no points or boxes on this plane" in notes[-1][1]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert not suggested.take_from(tmp_path / "other.csv")
    assert "columns axis-0, axis-1" in notes[-1][1]


def test_objects_of_a_run_are_noted_with_their_scores(desk):
    desk.open(np.zeros((60, 60)))
    desk.control.segment_everything()
    desk.finish()
    labels = desk.target()
    found = made_objects(labels)
    assert {made.source for made in found.values()} == {"auto"}
    assert found[2] == Made(
        "auto", pytest.approx(0.8), area=49, plane=(None, None), model="tiny", object_size=7,
        weights_hash="0" * 64, inputs=((input_key(desk.viewer.layers["image"]), None),),
    )  # fmt: skip
    assert desk.control.suggested.correct(labels, 2)
    desk.finish()
    desk.commit()
    assert made_objects(labels)[2].source == "prompt"
    labels.undo()
    assert made_with_area(labels, 2, 49).source == "auto"
