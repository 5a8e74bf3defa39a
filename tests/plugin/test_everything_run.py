"""Everything mode in a viewer: runs, stopping, and a result that follows the sliders."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_lightsam.plugin import scope
from napari_lightsam.plugin.everything.choices import Choices
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.scope import Scope, add_region, visible_region
from napari_lightsam.plugin.viewer.axes import full_plane
from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.plugin.worker import Lane


def names(desk):
    return [layer.name for layer in desk.viewer.layers]


def run(desk, **choices):
    """Run with these choices and return the layer."""
    everything = desk.control.everything
    everything.choose(replace(everything.choices, **choices))
    assert desk.control.segment_everything()
    desk.finish()
    return desk.target()


def slide(desk, balance):
    """Move the slider and let the result follow."""
    everything = desk.control.everything
    config = replace(everything.choices.config, balance=balance)
    everything.choose(replace(everything.choices, config=config))
    desk.finish(Lane.FILTER)


class Steps:
    """Lets the tiny model make a few steps, then holds it."""

    def __init__(self, count):
        self.count = count

    def wait(self, timeout):
        if self.count:
            self.count -= 1
            return True
        time.sleep(timeout)
        return False


def test_everything_becomes_a_new_layer_with_scores_and_its_history(desk):
    image = desk.open(np.zeros((60, 60)), scale=(2, 2))
    desk.control.pixel_size_um = 0.5
    labels = run(desk)
    assert sorted(np.unique(labels.data)) == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(labels.scale, image.scale)
    assert labels.features["score"].tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    note = ours(labels)
    assert (note["model"], note["object_size"], note["pixel_size_um"]) == ("tiny", 7.0, 0.5)
    assert note["complete"]
    assert desk.progress[-1] is None
    assert "4 objects" in desk.control.status
    desk.click(50, 50)
    assert desk.commit().ids == (5,)


def test_a_cancelled_run_frees_the_window_at_once_and_keeps_what_was_found(desk, tiny):
    desk.open(np.zeros((60, 60)))
    tiny.gate = Steps(2)
    desk.control.segment_everything()
    desk.run_until(lambda: any(p is not None and p.done == 2 for p in desk.progress))
    desk.control.everything.stop()
    assert desk.progress[-1] is None
    assert not desk.control.everything.is_running
    desk.finish()
    assert names(desk) == ["image", "Everything (stopped) in image"]
    assert desk.control.everything.last.count == 2
    assert not ours(desk.target())["complete"]
    assert "Stopped. 2 objects" in desk.control.status
    assert desk.progress[-1] is None


def test_a_run_cancelled_before_anything_was_found_changes_nothing(desk, tiny):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 30)
    desk.commit()
    before, saved = names(desk), desk.target().data.copy()
    tiny.gate = threading.Event()
    desk.control.segment_everything()
    desk.run_until(lambda: len(desk.progress) > 2)
    desk.control.everything.stop()
    assert tiny.closed.wait(10)
    desk.finish()
    assert names(desk) == before
    np.testing.assert_array_equal(desk.target().data, saved)
    assert "nothing was found" in desk.control.status


def test_a_new_run_may_be_started_while_the_old_one_is_still_stopping(desk, tiny):
    desk.open(np.zeros((60, 60)))
    tiny.gate = threading.Event()
    desk.control.segment_everything()
    desk.run_until(lambda: len(desk.progress) > 2)
    assert not desk.control.segment_everything()
    desk.control.everything.stop()
    assert desk.control.segment_everything()
    assert desk.control.everything.is_running
    tiny.gate.set()
    desk.finish()
    assert names(desk) == ["image", "Everything in image"]


def test_only_objects_in_a_drawn_region_are_kept_also_when_the_slider_moves(desk, tiny):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 1)
    shapes = add_region(desk.viewer, desk.control.annotator.image, desk.control.annotator.plane())
    everything = desk.control.everything
    everything.choose(replace(everything.choices, scope=Scope.REGION, region_from=shapes.unique_id))
    assert not desk.control.segment_everything()  # nothing is drawn yet
    shapes.add_polygons(np.array([[1, 10, 0], [1, 10, 20], [1, 25, 20], [1, 25, 0]]))
    shapes.add_ellipses(np.array([[1, 44, -10], [1, 44, 20], [1, 70, 20], [1, 70, -10]]))
    labels = run(desk)
    assert tiny.runs[0][0].shape == (50, 21)
    assert not labels.data[[0, 2]].any()
    # the squares start at rows 11, 21, 31 and 41: one lies in the polygon, most of the next one, and no other
    assert everything.last.count == 2
    assert labels.data.max() == 2
    assert len(ours(labels)["polygons"]) == 2
    slide(desk, -0.6)
    assert everything.last.count == 1


def test_advice_is_shown(desk, tiny, notes, monkeypatch):
    desk.open(np.zeros((60, 60)))
    original = tiny.everything

    def nothing(*args, **keywords):
        result = yield from original(*args, **keywords)
        result.labels[:] = 0
        result.scores = result.scores[:0]
        result.advice = "Nothing was found: is the contrast inverted?"
        return result

    monkeypatch.setattr(tiny, "everything", nothing)
    desk.control.segment_everything()
    desk.finish()
    assert ("warning", "Nothing was found: is the contrast inverted?") in notes
    assert names(desk) == ["image"]


def test_an_image_deleted_during_a_run_is_told_and_leaves_no_layer(desk, tiny, notes):
    image = desk.open(np.zeros((60, 60)))
    tiny.gate = threading.Event()
    desk.control.segment_everything()
    desk.viewer.layers.remove(image)
    tiny.gate.set()
    desk.finish()
    assert "deleted" in notes[-1][1]
    assert names(desk) == []


def test_a_moved_slider_changes_the_same_layer_without_a_run_and_leaves_nothing_to_undo(desk, tiny):
    desk.open(np.zeros((60, 60)))
    labels = run(desk)
    array = labels.data
    slide(desk, -0.5)
    assert labels.data is array
    assert sorted(np.unique(array)) == [0, 1, 2]
    assert labels.features["score"].tolist() == pytest.approx([0.9, 0.8])
    assert desk.control.everything.last.count == 2
    labels.undo()
    assert sorted(np.unique(array)) == [0, 1, 2]
    slide(desk, 0.0)
    assert sorted(np.unique(array)) == [0, 1, 2, 3, 4]
    assert len(tiny.runs) == 1
    assert names(desk) == ["image", "Everything in image"]


def test_of_a_dragged_slider_the_last_position_wins(desk):
    desk.open(np.zeros((60, 60)))
    run(desk)
    everything = desk.control.everything
    for balance in np.linspace(-0.05, -0.9, 30):
        config = replace(everything.choices.config, balance=float(balance))
        everything.choose(replace(everything.choices, config=config))
    desk.finish()
    assert everything.last.count == 0


@pytest.mark.parametrize("edit", ["brush", "array", "commit", "undone brush"])
def test_an_edited_layer_is_never_overwritten(desk, edit):
    desk.open(np.zeros((60, 60)))
    labels = run(desk)
    if edit == "array":
        labels.data[50:55, 50:55] = 9
    elif edit == "commit":
        desk.click(50, 50)
        desk.commit()
    else:
        labels.paint((50, 50), 7)
        if edit == "undone brush":
            labels.undo()
    saved = labels.data.copy()
    slide(desk, -0.5)
    np.testing.assert_array_equal(labels.data, saved)
    other = desk.target()
    assert other.unique_id != labels.unique_id
    assert other.data.max() == 2
    assert "stays as it is" in desk.control.status
    slide(desk, 0.0)
    assert other.data.max() == 4
    assert sum(ours(layer).get("role") == "everything" for layer in desk.viewer.layers) == 2


def test_a_deleted_result_is_not_brought_back_by_the_slider(desk):
    desk.open(np.zeros((60, 60)))
    desk.viewer.layers.remove(run(desk).name)
    slide(desk, -0.5)
    assert names(desk) == ["image"]
    assert desk.control.everything.last.count is None


def test_a_second_run_hides_the_first_result_unless_it_was_worked_on(desk):
    desk.open(np.zeros((60, 60)))
    first = run(desk)
    second = run(desk)
    assert (first.visible, second.visible) == (False, True)
    second.paint((50, 50), 7)
    run(desk)
    assert second.visible


def test_every_earlier_result_is_hidden_that_a_new_one_covers_by_half(desk, monkeypatch):
    desk.open(np.zeros((60, 60)))

    def run_in(*part):
        monkeypatch.setattr(scope, "visible_region", lambda viewer, image, plane: part)
        return run(desk, scope=Scope.VIEW)

    whole = run_in(0, 0, 60, 60)
    corner = run_in(0, 0, 40, 20)
    beside = run_in(0, 15, 40, 40)
    assert (whole.visible, corner.visible, beside.visible) == (True, True, True)
    again = run_in(5, 0, 40, 20)
    assert (whole.visible, corner.visible, beside.visible) == (True, False, True)
    last = run(desk, scope=Scope.PLANE)
    assert [layer.visible for layer in (whole, corner, beside, again, last)] == [False] * 4 + [True]


def test_results_of_two_planes_hide_each_other_only_as_parts_of_a_stack(desk):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 0)
    first = run(desk)
    desk.viewer.dims.set_current_step(0, 2)
    second = run(desk)
    assert (first.visible, second.visible) == (True, True)
    stack = run(desk, scope=Scope.STACK)
    assert (first.visible, second.visible, stack.visible) == (False, False, True)
    run(desk, scope=Scope.PLANE)
    assert stack.visible  # of which this is one plane of three


def test_an_estimated_size_is_told_in_micrometres_where_these_are_known(desk):
    desk.open(np.zeros((60, 60)))
    for micrometres, told in ((None, "7 px"), (0.25, "1.75 µm")):
        desk.control.pixel_size_um = micrometres
        run(desk)
        assert desk.control.status.endswith(f"(size estimated: {told}).")


def test_what_needs_a_new_run_is_said(desk):
    desk.open(np.zeros((60, 60)))
    run(desk)
    everything = desk.control.everything
    assert not everything.needs_a_run(Settings())
    slide(desk, -0.5)
    assert not everything.needs_a_run(Settings())
    assert everything.needs_a_run(Settings(object_size=12))
    config = everything.choices.config
    everything.choose(Choices(config=replace(config, iou_threshold=0.6)))
    assert not everything.needs_a_run(Settings())
    everything.choose(Choices(config=replace(config, iou_threshold=0.1)))  # the run dropped such candidates
    assert everything.needs_a_run(Settings())
    everything.choose(Choices(config=config))
    everything.choose(replace(everything.choices, scope=Scope.VIEW))
    assert everything.needs_a_run(Settings())


def test_a_result_of_another_plane_does_not_change_unseen(desk):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    labels = run(desk)
    here = desk.viewer.dims.current_step[0]
    saved = labels.data.copy()
    assert [z for z in range(3) if saved[z].any()] == [here]
    desk.viewer.dims.set_current_step(0, 2 - 2 * (here == 2))
    desk.finish()
    slide(desk, -0.5)
    np.testing.assert_array_equal(labels.data, saved)
    assert desk.control.everything.last.count is None
    desk.viewer.dims.set_current_step(0, here)
    desk.finish()
    slide(desk, -0.6)
    assert labels.data[here].max() == 1


def test_only_what_the_window_shows_is_segmented_and_lies_in_its_place(desk, tiny):
    picture = np.arange(100 * 80, dtype=float).reshape(100, 80)
    image = desk.open(picture, scale=(2, 2))
    image.corner_pixels = np.array([[30, 20], [79, 69]])
    labels = run(desk, scope=Scope.VIEW)
    np.testing.assert_array_equal(tiny.runs[0][0], picture[30:80, 20:70])
    assert labels.data.shape == (100, 80)
    assert labels.data[31, 22] == 1
    assert not labels.data[:30].any()
    slide(desk, -0.5)
    assert labels.data[41, 22] == 2
    assert labels.data[51, 22] == 0


def test_of_a_pyramid_the_window_shows_pixels_of_full_resolution(desk):
    image = desk.open([np.zeros((100, 80)), np.zeros((50, 40))], multiscale=True)
    image.corner_pixels = np.array([[5, 6], [20, 30]]) // (1 + image.data_level)
    y0, x0, y1, x1 = visible_region(desk.viewer, image, desk.control.annotator.plane())
    assert y0 <= 5
    assert x0 <= 6
    assert 20 < y1 <= 22 + 2
    assert 30 < x1 <= 32 + 2


def test_the_last_pixels_of_a_pyramid_are_visible_at_its_coarse_levels(desk):
    data = np.zeros((64, 64), np.uint8)
    image = desk.viewer.add_image([data, data[::8, ::8]], multiscale=True)
    image.data_level, image.corner_pixels = 1, np.array([[0, 2], [7, 7]])
    assert visible_region(desk.viewer, image, full_plane(image, desk.viewer)) == (0, 16, 64, 64)


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_pyramid_only_what_the_window_shows_counts_not_the_chunks_around_it(desk, turned):
    data = np.zeros((2000, 3000), np.uint8)
    image = desk.viewer.add_image(
        [data, data[::2, ::2]], multiscale=True, scale=(0.5, 0.5), translate=(7, 9), rotate=90 * turned
    )
    image.data_level, image.corner_pixels = 0, np.array([[0, 0], [1999, 2999]])
    camera = desk.viewer.scene.camera
    desk.viewer.canvas.size = (100, 200)
    camera.center, camera.zoom = image.data_to_world((799.5, 1999.5)), 4
    plane = full_plane(image, desk.viewer)
    side, other = (50, 25) if turned else (25, 50)  # two pixels of the screen show one of the image
    assert visible_region(desk.viewer, image, plane) == (800 - side, 2000 - other, 800 + side, 2000 + other)
    camera.center = image.data_to_world((799.5, -500))
    assert visible_region(desk.viewer, image, plane) == (0, 0, 2000, 3000)  # nothing of it is in the window


def test_a_layer_that_was_never_drawn_is_segmented_whole(desk):
    image = desk.open(np.zeros((100, 80)))
    assert visible_region(desk.viewer, image, desk.control.annotator.plane()) == (0, 0, 100, 80)


@pytest.mark.parametrize(
    ("axes", "order", "axis", "link"),
    [
        pytest.param(("z", "y", "x"), (0, 1, 2), 0, True, id="depth is linked"),
        pytest.param(("t", "y", "x"), (0, 1, 2), 0, False, id="time is not"),
        pytest.param(("y", "x", "z"), (2, 0, 1), 2, True, id="depth comes last"),
        pytest.param(("t", "z", "y", "x"), (0, 1, 2, 3), 0, True, id="one time point of a series"),
    ],
)
def test_all_planes_become_one_layer(desk, tiny, axes, order, axis, link):
    shape = (2, 30, 25, 20)[-len(axes) :]
    desk.open(np.zeros(shape), axis_labels=axes)
    desk.viewer.dims.order = order
    desk.finish()
    labels = run(desk, scope=Scope.STACK)
    array, at, linked = tiny.stacks[0]
    assert (array.shape, at, linked) == (shape[-3:], axis, link)
    assert labels.data.shape == shape
    here = labels.data if len(shape) == 3 else labels.data[desk.viewer.dims.current_step[0]]
    planes = np.moveaxis(here, axis, 0)
    assert (planes[:, 1, 2] > 0).all()
    assert desk.control.everything.last.count == (2 if link else 2 * len(planes))
    assert np.count_nonzero(labels.data) == np.count_nonzero(here)
    assert ("Look at 1 " in desk.control.status) == link
    assert ("area_jump" in labels.features) == link
    slide(desk, -0.5)
    assert desk.control.everything.needs_a_run(Settings())


def test_of_a_stopped_stack_the_finished_planes_are_kept(desk, tiny):
    desk.open(np.zeros((40, 30, 20)), axis_labels=("z", "y", "x"))
    everything = desk.control.everything
    everything.choose(Choices(scope=Scope.STACK))
    tiny.gate = Steps(2)
    desk.control.segment_everything()
    desk.run_until(lambda: any(p is not None and p.done == 2 for p in desk.progress))
    everything.stop()
    desk.finish()
    labels = desk.target()
    assert labels.name == "Everything (stopped) in image"
    assert labels.data[1].any()
    assert not labels.data[-1].any()


@pytest.mark.parametrize("kind", ["points", "shapes", "labels"])
def test_prompts_come_from_a_layer_in_pixels_of_the_part_that_is_segmented(desk, tiny, kind):
    image = desk.open(np.zeros((100, 80)), scale=(2, 2))
    if kind == "points":  # of another scale, as layers of other tools may be
        layer = desk.viewer.add_points([[80, 60], [0, 0]])
        expected = [[10, 10]]
    elif kind == "shapes":
        layer = desk.viewer.add_shapes([[[79, 59], [79, 99], [119, 99], [119, 59]]])
        expected = [[10, 10, 30, 30]]
    else:
        given = np.zeros((100, 80), np.uint16)
        given[40:50, 30:40] = 7
        layer = desk.viewer.add_labels(given, scale=(2, 2))
        expected = given[30:80, 20:70]
    image.corner_pixels = np.array([[30, 20], [79, 69]])
    run(desk, scope=Scope.VIEW, prompts_from=layer.unique_id)
    np.testing.assert_allclose(tiny.runs[0][2], expected, atol=0.01)


def test_a_prompt_layer_that_says_nothing_here_is_told(desk, tiny, notes):
    desk.open(np.zeros((100, 80)))
    layer = desk.viewer.add_labels(np.zeros((100, 80), int), name="empty")
    everything = desk.control.everything
    everything.choose(Choices(prompts_from=layer.unique_id))
    assert not desk.control.segment_everything()
    assert "'empty' says nothing" in notes[-1][1]
    assert not tiny.runs


def test_a_typical_object_is_drawn_and_measured(desk):
    desk.open(np.zeros((100, 80)), scale=(2, 2))
    sizes = []
    desk.control.typical.measured.connect(sizes.append)
    desk.click(30, 30)
    points = desk.control.annotator.points
    desk.control.draw_typical()
    layer = desk.control.typical.layer
    assert layer.mode == "add_rectangle"
    layer.add_ellipses([[[10, 10], [10, 30], [50, 30], [50, 10]]])
    desk.run_until(lambda: sizes)
    assert sizes[0] == pytest.approx(np.sqrt(40 * 20))
    assert desk.control.typical.layer is None
    assert desk.viewer.layers.selection.active.unique_id == points.unique_id


def test_channels_are_called_as_in_their_file(desk, tmp_path):
    from napari_lightsam.plugin.request import sources

    path = tmp_path / "two.ome.tif"
    tifffile.imwrite(
        path,
        np.zeros((2, 40, 40), np.uint16),
        metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "membrane"]}},
    )
    (image,) = desk.viewer.open(path, plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    assert [source.title for source in sources(desk.viewer, image)] == ["DAPI", "membrane"]
