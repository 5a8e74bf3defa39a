"""The Labels layer that was chosen for an image comes back with the image."""

from __future__ import annotations

import gc
import weakref

import numpy as np


def test_each_image_brings_its_labels_layer_back_as_long_as_both_exist(desk):
    first = desk.open(np.zeros((60, 60)), name="A")
    viewer = desk.viewer
    others = [viewer.add_labels(np.zeros((60, 60), np.int32), name=name) for name in ("one", "two")]
    desk.control.results.target = others[0].unique_id
    second = desk.open(np.ones((60, 60)), name="B")
    assert desk.control.results.target is None
    desk.click(30, 20)
    desk.commit()
    made = desk.target()
    desk.control.shown.use_image(first)
    assert desk.target().name == "one"
    desk.click(10, 10)
    assert desk.commit().layer == others[0].unique_id
    desk.control.results.target = None  # "new layer" is a choice as well
    desk.control.shown.use_image(second)
    assert desk.target().unique_id == made.unique_id
    desk.control.shown.use_image(first)
    assert desk.control.results.target is None

    desk.control.results.target = others[1].unique_id
    desk.control.shown.use_image(second)
    viewer.layers.remove(others[1])
    desk.control.shown.use_image(first)
    assert desk.control.results.target is None
    viewer.layers.remove(second)
    kept = [weakref.ref(layer) for layer in (others[1], second)]
    del others, second
    desk.finish()
    gc.collect()
    assert [one() for one in kept] == [None, None]


def test_a_dock_that_is_closed_and_opened_again_saves_on_into_the_same_layer(desk, new_desk):
    image = desk.open(np.zeros((60, 60)))
    desk.viewer.add_labels(np.zeros((60, 60), np.int32), name="theirs")
    desk.click(30, 20)
    layer = desk.commit().layer
    desk.control.close()
    again = new_desk(desk.viewer)
    again.control.shown.use_image(image)
    assert again.control.results.target == layer
    again.control.results.target = None
    again.open(np.ones((60, 60)), name="B")
    again.control.shown.use_image(image)
    assert again.control.results.target is None  # as it was chosen since
