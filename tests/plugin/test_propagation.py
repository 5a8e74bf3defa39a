"""An object followed through a stack in a viewer: what is written, what is left alone, and what survives."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.propagate import Ending, Found, Propagation
from napari_lightsam.plugin import inference, propagation
from napari_lightsam.plugin.objects.made import made_objects
from napari_lightsam.plugin.viewer.axes import AxisRole, answer_role
from napari_lightsam.plugin.worker import Lane

SQUARE = Mask((5, 4), np.ones((6, 5), bool))


class Shifting:
    """Follows by moving the mask one pixel to the right a plane, as far as it is told."""

    def __init__(self):
        self.reach, self.hold, self.seen = 99, None, []

    def __call__(self, stack, start, mask, *, axis, direction, within, model, object_size, rgb, stop):
        self.seen.append((stack.shape, axis, start, direction, within))
        yield Progress("looking", 0, 0)
        masks, endings, count = {}, {}, stack.shape[axis]
        for way in {"forward": (1,), "backward": (-1,), "both": (1, -1)}[direction]:
            number = start + way
            while True:
                if not within[0] <= number < within[1]:
                    endings[way] = number, Ending.LIMIT if 0 <= number < count else Ending.EDGE
                    break
                if stop() or abs(number - start) > self.reach:
                    endings[way] = number, Ending.STOPPED if stop() else Ending.SCORE
                    break
                if number == self.hold:
                    time.sleep(0.01)
                    yield Progress("waiting", 0, 0)
                    continue
                moved = Mask((mask.offset[0], mask.offset[1] + abs(number - start)), mask.crop)
                masks[number] = moved
                yield Found(f"plane {number}", 1, 9, plane=number, mask=moved, score=0.7)
                number += way
        return Propagation(start, masks, dict.fromkeys(masks, 0.7), endings, 1.0)


@pytest.fixture
def follow(monkeypatch):
    shifting = Shifting()
    monkeypatch.setattr(inference, "follow", shifting)
    return shifting


def go(desk, direction="forward"):
    assert desk.control.propagate(direction), desk.control.status
    desk.finish()


def saved(desk, mask=SQUARE, **how):
    """Save an object on the displayed plane and return its layer."""
    control = desk.control
    done = control.results.commit(control.annotator.image, control.annotator.plane(), [mask], **how)
    assert done.ids
    return desk.target()


def planes_of(labels, value=1, axis=0):
    other = tuple(k for k in range(labels.data.ndim) if k != axis)
    return np.flatnonzero((labels.data == value).any(axis=other)).tolist()


@pytest.fixture
def stack(desk, follow):
    desk.open(np.zeros((8, 24, 30), np.uint8), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 2)
    desk.finish()
    return desk


def test_an_object_is_written_on_the_wanted_side_as_one_step_and_on_background_only(stack):
    labels = saved(stack)
    labels.data[4, 5:11, 8:10] = 7  # somebody else's
    before = labels.data.copy()
    go(stack)
    assert planes_of(labels) == [2, 3, 4, 5, 6, 7]
    assert (labels.data[4, 5:11, 8:10] == 7).all()
    assert np.count_nonzero(labels.data[3] == 1) == SQUARE.area
    made = made_objects(labels)[1]
    assert (made.source, made.score, made.plane) == ("propagated", 0.7, ())
    assert made.area == np.count_nonzero(labels.data == 1)
    labels.undo()
    np.testing.assert_array_equal(labels.data, before)
    assert "to the end" in stack.control.status


def test_propagating_again_from_a_corrected_plane_replaces_what_comes_after_and_nothing_else(stack, follow):
    labels = saved(stack)
    go(stack, "both")
    assert planes_of(labels) == list(range(8))
    stack.viewer.dims.set_point(0, 4)
    stack.finish()
    saved(stack, Mask((12, 3), np.ones((4, 4), bool)), replaces=1)
    before = labels.data.copy()
    follow.reach = 2
    go(stack)
    np.testing.assert_array_equal(labels.data[:5], before[:5])
    assert planes_of(labels) == [0, 1, 2, 3, 4, 5, 6]  # the former end of the object was given up
    assert np.argwhere(labels.data[6] == 1).min(axis=0).tolist() == [12, 5]
    assert "until plane 7 (low score)" in stack.control.status


def test_a_plane_that_was_edited_by_hand_is_where_the_next_run_ends(stack):
    labels = saved(stack)
    go(stack)
    with labels.block_history():
        labels.data_setitem((np.array([6]), np.array([20]), np.array([2])), 1)
    edited = labels.data.copy()
    go(stack)
    np.testing.assert_array_equal(labels.data[6:], edited[6:])
    assert "up to plane 6, which you edited" in stack.control.status


def test_a_plane_that_is_drawn_on_during_a_run_is_where_it_ends(stack, follow):
    labels = saved(stack)
    go(stack)
    labels.undo()
    follow.hold = 6
    steps = []
    stack.control.propagation.progress.connect(steps.append)
    assert stack.control.propagate("forward")
    stack.run_until(lambda: any(isinstance(step, Found) and step.plane == 5 for step in steps))
    labels.data_setitem((np.full(3, 4), np.arange(15, 18), np.full(3, 2)), 1)
    drawn = labels.data[4].copy()
    follow.hold = None
    stack.finish()
    np.testing.assert_array_equal(labels.data[4], drawn)
    assert planes_of(labels) == [2, 3, 4]
    assert made_objects(labels)[1].area == np.count_nonzero(labels.data == 1)
    assert "up to plane 4, which you edited" in stack.control.status


def test_what_is_drawn_while_the_result_is_on_its_way_stays(stack, follow):
    labels = saved(stack)
    assert stack.control.propagate("forward")
    while stack.control.worker.is_busy(Lane.FOLLOW):
        time.sleep(0.01)  # the main thread does other things
    labels.data_setitem((np.full(6, 4), np.arange(5, 11), np.full(6, 8)), 1)
    drawn = labels.data[4].copy()
    stack.finish()
    np.testing.assert_array_equal(labels.data[4], drawn)
    assert planes_of(labels) == [2, 3, 4]


def test_a_run_is_previewed_on_the_plane_on_display_and_stopped_it_keeps_what_it_found(stack, follow):
    labels = saved(stack)
    follow.hold = 5
    steps = []
    stack.control.propagation.progress.connect(steps.append)
    assert stack.control.propagate("forward")
    stack.run_until(lambda: any(isinstance(step, Found) and step.plane == 4 for step in steps))
    assert planes_of(labels) == [2]  # nothing is written before the end
    stack.viewer.dims.set_point(0, 3)
    assert stack.control.annotator.preview.data.any()
    stack.control.propagation.stop()
    stack.finish()
    assert planes_of(labels) == [2, 3, 4]
    assert not stack.control.annotator.preview.data.any()


def test_a_step_that_undo_could_not_bear_becomes_a_layer_of_its_own(stack, monkeypatch):
    monkeypatch.setattr(propagation, "LARGEST_STEP", 60)
    labels = saved(stack)
    before = labels.data.copy()
    go(stack)
    np.testing.assert_array_equal(labels.data, before)
    assert stack.target().unique_id != labels.unique_id
    assert planes_of(stack.target()) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("shape", "axis_labels", "order", "depth", "lazy"),
    [
        ((6, 24, 30), ("z", "y", "x"), None, 0, False),
        ((2, 6, 24, 30), ("t", "z", "y", "x"), None, 1, False),
        ((24, 30, 6), ("y", "x", "z"), (2, 0, 1), 2, False),
        ((6, 24, 30), ("z", "y", "x"), (0, 2, 1), 0, True),
        ((6, 2, 24, 30), ("", "c", "y", "x"), None, 0, True),
    ],
    ids=["ZYX", "TZYX", "YXZ", "transposed dask", "declared depth, channels, dask"],
)
def test_stacks_of_any_order_are_followed_along_their_depth(
    desk, follow, shape, axis_labels, order, depth, lazy
):
    data = np.zeros(shape, np.uint8)
    image = desk.viewer.add_image(da.from_array(data) if lazy else data, axis_labels=axis_labels)
    if not axis_labels[0]:
        answer_role(image, 0, AxisRole.DEPTH)
    desk.control.shown.use_image(image)
    if order is not None:
        desk.viewer.dims.order = order
    desk.viewer.dims.set_point(depth, 2)
    if "t" in axis_labels:
        desk.viewer.dims.set_point(0, 1)
    desk.finish()
    labels = saved(desk)
    go(desk, "both")
    assert planes_of(labels, axis=depth) == [0, 1, 2, 3, 4, 5]
    if "t" in axis_labels:
        assert not labels.data[0].any()
    (seen,) = follow.seen
    assert seen[0][seen[1]] == 6


def test_what_cannot_be_followed_says_why(desk, follow, notes):
    desk.open(np.zeros((4, 24, 30), np.uint8), axis_labels=("t", "y", "x"))
    assert not desk.control.propagation.has_depth()
    assert not desk.control.propagate("both")
    desk.open(np.zeros((4, 24, 30), np.uint8), axis_labels=("z", "y", "x"))
    assert desk.control.propagation.has_depth()
    assert not desk.control.propagate("both")
    saved(desk)
    desk.viewer.dims.set_point(0, 3)
    assert not desk.control.propagate("both")
    told = " ".join(message for _, message in notes)
    assert "no slider of this view is depth" in told
    assert "Save an object on this plane first" in told
    assert "Object 1 is not on this plane" in told


STORY = """
    import os, signal, sys
    import numpy as np, tifffile
    sys.path.insert(0, {tests!r})
    import npe2
    npe2.PluginManager.instance().discover()
    from conftest import Desk
    from napari_lightsam.engine.masks import crop_mask

    desk, truth, out = Desk(), np.load({truth!r}), {out!r}
    (image,) = desk.viewer.open({image!r}, plugin="napari")
    image.axis_labels = ("z", "y", "x")
    desk.control.shown.use_image(image)
    control = desk.control

    def settle(name):
        desk.finish(timeout=500)
        desk.run_until(lambda: not control.sessions.is_busy)
        np.save(os.path.join(out, name), desk.target().data)

    def outline(number, **how):
        desk.viewer.dims.set_point(0, number)
        control.results.commit(image, control.annotator.plane(), [crop_mask(truth[number])], **how)

    desk.viewer.dims.set_point(0, 0)
    desk.finish(timeout=500)
    outline(0)
    assert control.propagate("forward"), control.status
    settle("first")
    outline(9, replaces=1)
    settle("corrected")
    assert control.propagate("forward"), control.status
    settle("again")
    outline(19, replaces=1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no kill -9")
def test_a_neurite_followed_corrected_and_followed_again_survives_the_death_of_the_window(
    desk, sample, tmp_path, unsaved_here
):
    volume, labels = sample("neurites_fibsem_3d")
    rows, columns = (slice(max(0, s.start - 16), s.stop + 16) for s in ndimage.find_objects(labels)[2][1:])
    truth = labels[:20, rows, columns] == 3
    image = tmp_path / "neurite.tif"
    tifffile.imwrite(image, volume[:20, rows, columns], imagej=True, metadata={"axes": "ZYX"})
    np.save(tmp_path / "truth.npy", truth)
    story = STORY.format(
        tests=str(Path(__file__).parent),
        truth=str(tmp_path / "truth.npy"),
        out=str(tmp_path),
        image=str(image),
    )
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(story)],
        capture_output=True, text=True, timeout=580, check=False, env=unsaved_here,
    )  # fmt: skip
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-3000:]
    first, corrected, again = (np.load(tmp_path / f"{n}.npy") for n in ("first", "corrected", "again"))
    overlap = [(a & b).sum() / (a | b).sum() for a, b in zip(again == 1, truth, strict=True)]
    assert len(planes_of(desk_like(first))) >= 15
    np.testing.assert_array_equal(again[:10], corrected[:10])  # earlier planes untouched
    np.testing.assert_array_equal(again[:9], first[:9])
    assert overlap[9] == 1
    assert min(overlap[9:15]) > 0.7
    (opened,) = desk.viewer.open(str(image), plugin="napari")
    desk.control.shown.use_image(opened)
    desk.run_until(lambda: desk.control.sessions.unsaved is not None)
    assert desk.control.sessions.restore()
    desk.finish()
    kept = desk.target().data
    last = again.copy()
    last[19][truth[19]], last[19][~truth[19] & (last[19] == 1)] = 1, 0
    assert np.array_equal(kept, again) or np.array_equal(kept, last)  # at most the last commit is lost


def desk_like(data):
    """Give an array the one attribute of a layer that is looked at."""
    from types import SimpleNamespace

    return SimpleNamespace(data=data)


def test_what_a_run_wrote_is_known_again_in_a_layer_of_somebody_else(stack, follow):
    labels = stack.viewer.add_labels(np.zeros((8, 24, 30), np.int32))
    labels.data[2, 5:11, 4:9] = labels.selected_label = 1
    stack.control.results.target = labels.unique_id
    go(stack)
    follow.reach = 1
    go(stack)
    assert planes_of(labels) == [2, 3]


def test_clicks_made_during_a_run_are_previewed_again_after_it_and_no_second_run_ends_it(
    stack, follow, notes
):
    saved(stack)
    follow.hold = 5
    assert stack.control.propagate("forward")
    stack.control.start("points")
    stack.control.annotator.points.add([2, 18, 20])
    stack.finish(Lane.PROMPT)
    stack.control.propagation.stop()
    assert not stack.control.propagate("backward")
    assert "press again" in notes[-1][1]
    stack.finish()
    assert planes_of(stack.target()) == [2, 3, 4]
    preview = stack.control.annotator.preview
    np.testing.assert_allclose(ndimage.center_of_mass(preview.data[0] > 0), (18, 20))


def test_an_object_that_is_taken_back_while_it_is_followed_is_written_nowhere(stack, follow):
    labels = saved(stack)
    follow.hold = 5
    steps = []
    stack.control.propagation.progress.connect(steps.append)
    assert stack.control.propagate("forward")
    stack.run_until(lambda: any(isinstance(step, Found) and step.plane == 4 for step in steps))
    labels.undo()
    follow.hold = None
    stack.finish()
    assert not labels.data.any()
    assert "nothing was saved" in stack.control.status
    labels.redo()
    assert planes_of(labels) == [2]


def test_an_object_that_is_followed_keeps_its_label_whatever_is_chosen_meanwhile(stack, follow):
    control = stack.control
    control.segment_everything()
    stack.finish()
    labels = stack.target()
    labels.selected_label = 2
    before = labels.data.copy()
    follow.hold = 4
    assert control.propagate("forward"), control.status
    everything = control.everything
    everything.choose(replace(everything.choices, config=replace(everything.choices.config, balance=-0.5)))
    stack.finish(Lane.FILTER)
    np.testing.assert_array_equal(labels.data, before)
    assert stack.target().unique_id != labels.unique_id
    follow.hold = None
    stack.finish()
    assert planes_of(labels, 2) == [2, 3, 4, 5, 6, 7]


def test_another_image_may_be_chosen_while_an_object_is_followed(desk, follow, monkeypatch):
    first = desk.open(np.zeros((2, 2, 6, 24, 30), np.uint8), name="first", axis_labels=tuple("tczyx"))
    desk.viewer.dims.set_point(2, 2)
    desk.finish()
    labels = saved(desk)
    follow.hold = 4
    monkeypatch.setattr(propagation, "LARGEST_STEP", 10)  # the object becomes a layer of its own
    assert desk.control.propagate("forward"), desk.control.status
    desk.run_until(lambda: desk.control.propagation._run.found)
    desk.control.shown.use_image(desk.viewer.add_image(np.zeros((24, 30), np.uint8), name="second"))
    follow.hold = None
    desk.finish()
    assert "is on 3 more planes" in desk.control.status
    assert desk.control.results.target is None  # of the image that is chosen now
    desk.control.shown.use_image(first)
    assert desk.target().unique_id != labels.unique_id
    assert planes_of(desk.target(), axis=2) == [2, 3, 4, 5]
