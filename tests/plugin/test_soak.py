"""A long session: a thousand edits of prompts and two hundred commits leave memory as it was."""

from __future__ import annotations

import gc
from itertools import cycle, islice

import numpy as np
import psutil

from napari_lightsam.plugin.objects.made import made_objects
from napari_lightsam.plugin.worker import Lane

PLACES = [(y, x) for y in (15, 45) for x in (15, 45)]


def annotate(desk, commits):
    """Outline and save objects again and again, five edits of the prompts for each."""
    annotator = desk.control.annotator
    for number, (y, x) in enumerate(islice(cycle(PLACES), commits)):
        points = desk.control.annotator.start_points()
        points.add([y, x])
        desk.finish(Lane.PROMPT)
        points.add([y + 1 + number % 7, x - 1])
        assert annotator.undo()
        assert annotator.redo()
        points.data = np.add(points.data, [0, number % 5])
        desk.finish(Lane.PROMPT)
        if number // len(PLACES) % 2:
            desk.control.single.cycle(1)
        assert desk.commit().ids


def held():
    """Return what is alive: objects of Python that hold others, and bytes of the process."""
    gc.collect()
    return len(gc.get_objects()), psutil.Process().memory_info().rss


def test_a_long_session_holds_no_more_than_a_short_one(desk):
    desk.open(np.zeros((60, 60)))
    desk.control.single.replace_others = True
    annotate(desk, 20)
    objects, size = held()
    annotate(desk, 180)
    more, larger = held()
    assert more < objects + 9_000  # of 900 edits: what each of them left behind would be ten or more
    assert larger < 1.03 * size
    labels = desk.target()
    assert len(made_objects(labels)) == labels.metadata["napari-lightsam"]["largest"]
    assert len(desk.control.inference._answers) <= 200
    assert len(desk.control.annotator.history._states) == 1
    assert not desk.control.annotator.undo()
    layers = [layer.name for layer in desk.viewer.layers]
    assert layers == ["image", "Objects in image", "LightSAM preview", "LightSAM points"]
