"""Layers are told apart by the beginning of their names, as lists and choices cut long ones."""

from __future__ import annotations

import numpy as np

IMAGE = "A long name of an image, as microscopes give them"


def test_names_differ_at_their_beginning_and_each_is_used_once(desk, tiny):
    desk.open(np.zeros((60, 60)), name=IMAGE)
    for _ in range(3):
        assert desk.control.segment_everything()
        desk.finish()
        desk.target().metadata["napari-lightsam"]["relied_on"] = True
    desk.control.results.target = None
    desk.click(50, 50)
    desk.commit()
    made = [layer.name for layer in desk.viewer.layers if type(layer).__name__ == "Labels"]
    made = [name for name in made if IMAGE in name]
    whats = ("Everything", "Everything 2", "Everything 3", "Objects")
    assert made == [f"{what} in {IMAGE}" for what in whats]


def test_a_name_can_be_that_of_a_file(desk):
    desk.open(np.zeros((60, 60)))
    desk.click(30, 20)
    desk.commit()
    assert not set(desk.target().name) & set('<>:"/\\|?*')
