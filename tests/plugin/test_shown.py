"""What belongs to an image, a plane or an object is never changed while another one is worked on."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.everything import result as everything_result
from napari_lightsam.plugin.objects.quality import Verdict
from napari_lightsam.plugin.request import Source


@pytest.fixture
def first_dropped(monkeypatch):
    """Have fewer objects be all but the first, so that each of the others gets another label."""

    def choose(segmentation, config):
        kept = [1, 2, 3, 4] if config.balance >= 0 else [2, 3, 4]
        numbers = np.zeros(5, np.int32)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return inference.measured(
            numbers[segmentation.labels], np.unique(numbers)[1:], np.full(len(kept), 0.9)
        )

    monkeypatch.setattr(inference, "choose_again", choose)


@pytest.fixture
def similar(monkeypatch):
    """Have a similar object be found as soon as the gate is open."""
    gate = threading.Event()

    def look(segmenter, embedding, mask):
        while not gate.wait(0.01):
            yield Progress("looking", 0, 1)
        return np.array([[40.0, 40.0]])

    monkeypatch.setattr(inference, "look_alike", look)
    return gate


def fewer(desk):
    everything = desk.control.everything
    config = replace(everything.choices.config, balance=-0.5)
    everything.choose(replace(everything.choices, config=config))
    desk.finish()


def run(desk):
    desk.control.segment_everything()
    desk.finish()
    return desk.target()


def saved_square(desk, *shape):
    """Add labels with a square in the first plane, and make it what similar objects are looked for by."""
    data = np.zeros(shape, np.int32)
    data[(0,) * (len(shape) - 2)][10:20, 10:20] = 1
    labels = desk.viewer.add_labels(data)
    labels.selected_label = 1
    desk.control.results.target = labels.unique_id
    return labels


def test_a_run_that_ends_on_another_image_gives_its_own_image_the_target(desk, tiny):
    first = desk.open(np.zeros((60, 60)), name="first")
    tiny.gate = threading.Event()
    desk.control.segment_everything()
    desk.control.shown.use_image(desk.viewer.add_image(np.zeros((60, 60)), name="second"))
    tiny.gate.set()
    desk.finish()
    assert desk.control.results.target is None
    desk.click(50, 50)
    desk.commit()
    assert desk.target().name.endswith("second")
    desk.control.shown.use_image(first)
    assert desk.target().name == "Everything in first"


def test_the_result_of_another_image_stays_as_it_is_until_that_image_comes_back(desk):
    first = desk.open(np.zeros((60, 60)), name="first")
    labels = run(desk)
    desk.open(np.zeros((60, 60)), name="second")
    assert desk.control.everything.last.count is None
    fewer(desk)
    assert labels.data.max() == 4
    desk.control.shown.use_image(first)
    desk.finish()
    assert labels.data.max() == desk.control.everything.last.count == 2


def test_what_was_chosen_while_another_plane_was_shown_is_followed_when_the_first_comes_back(desk):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 0)
    desk.finish()
    labels = run(desk)
    desk.viewer.dims.set_point(0, 1)
    desk.finish()
    fewer(desk)
    assert labels.data.max() == 4
    desk.viewer.dims.set_point(0, 0)
    desk.finish()
    assert labels.data.max() == desk.control.everything.last.count == 2


def test_a_corrected_object_is_replaced_itself_after_another_choice_of_objects(desk, first_dropped):
    desk.open(np.zeros((60, 60)))
    labels = run(desk)
    before = labels.data.copy()
    assert desk.control.suggested.correct(labels, 2)
    desk.finish()
    fewer(desk)
    assert np.array_equal(labels.data, before)
    assert desk.target().unique_id != labels.unique_id
    assert desk.target().data.max() == 3
    assert desk.commit().layer == labels.unique_id
    others = np.isin(before, [1, 3, 4])
    assert np.array_equal(labels.data[others], before[others])


@pytest.mark.parametrize("relied_on_by", ["accepting", "judging", "splitting"])
def test_objects_that_are_known_by_their_labels_keep_them(desk, first_dropped, relied_on_by):
    desk.open(np.zeros((60, 60)))
    labels, curating = run(desk), desk.control.curating
    before = labels.data.copy()
    curating.use_layer(labels)
    curating.measure()
    desk.finish()
    curating.select([2])
    if relied_on_by == "accepting":
        curating.accept([2])
    elif relied_on_by == "judging":
        desk.control.checking.start(0)
        desk.control.checking.judge(Verdict.CORRECT)
    else:
        desk.control.splitting.start()
    fewer(desk)
    assert np.array_equal(labels.data, before)
    assert desk.target().data.max() == 3


def test_a_selection_is_dropped_when_its_labels_become_those_of_other_objects(desk, first_dropped):
    desk.open(np.zeros((60, 60)))
    labels, curating = run(desk), desk.control.curating
    curating.use_layer(labels)
    curating.measure()
    desk.finish()
    curating.select([2])
    fewer(desk)
    assert labels.data.max() == 3
    assert curating.selected == ()


def test_similar_objects_are_prompted_on_the_plane_that_they_were_looked_for_on_or_nowhere(desk, similar):
    desk.open(np.zeros((4, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 0)
    desk.finish()
    saved_square(desk, 4, 60, 60)
    assert desk.control.find_similar()
    desk.viewer.dims.set_point(0, 2)
    similar.set()
    desk.finish()
    assert not desk.control.annotator.has_prompts


def test_similar_objects_are_prompted_on_the_image_that_they_were_looked_for_on_or_nowhere(desk, similar):
    desk.open(np.zeros((60, 60)))
    saved_square(desk, 60, 60)
    assert desk.control.find_similar()
    desk.control.shown.use_image(desk.viewer.add_image(np.zeros((60, 60)), name="second"))
    similar.set()
    desk.finish()
    assert not desk.control.annotator.has_prompts


def test_an_outline_is_found_anew_when_an_input_layer_is_removed(desk):
    desk.open(np.zeros((60, 60)))
    other = desk.viewer.add_image(np.ones((60, 60)), name="other")
    desk.control.shown.use_sources([Source(other.unique_id, None, "other")])
    desk.finish()
    desk.click(20, 20)
    answer = desk.control.single.answer
    desk.viewer.layers.remove(other)
    desk.finish()
    assert desk.control.shown.sources == ()
    assert desk.control.single.answer is not answer
    assert desk.control.single.answer.masks()


def let_go(desk, tiny):
    """Have napari and the tiny model keep nothing either."""
    desk.viewer.add_points()
    desk.finish()
    for remembered in (tiny.embedded, tiny.runs, tiny.predicted, desk.control.inference._embeddings):
        remembered.clear()
    gc.collect()


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_nothing_of_an_image_is_kept_once_its_layer_is_gone(desk, tiny):
    image = desk.open(np.zeros((60, 60)))
    desk.control.draw_typical()
    corners = [[0, 0], [0, 10], [10, 10], [10, 0]]
    desk.control.typical.layer.add(np.array(corners), shape_type="ellipse")
    run(desk)
    kept = [weakref.ref(image), weakref.ref(image.data)]
    del image
    desk.viewer.layers.clear()
    let_go(desk, tiny)
    assert kept[0]() is None
    wait_until(lambda: kept[1]() is None)  # the thread that writes work has come out of its last step


def test_candidates_are_let_go_with_the_layer_of_their_result(desk, tiny):
    desk.open(np.zeros((60, 60)))
    labels = run(desk)
    objects = weakref.ref(desk.control.everything.last._kept.written)
    desk.viewer.layers.remove(labels)
    del labels
    let_go(desk, tiny)
    assert objects() is None


def test_a_result_is_let_go_when_it_was_delivered(desk, tiny):
    desk.open(np.zeros((60, 60)))
    run(desk)
    let_go(desk, tiny)
    assert not [one for one in gc.get_objects() if isinstance(one, everything_result.Result)]
