"""Whatever is done in whatever order: undo restores exactly, ids stay unique, and nothing changes unasked."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lightsam.plugin.worker import Lane

SIDE = 60


class Walk:
    """Random steps of a user, and what the Labels layer must hold after each."""

    def __init__(self, desk, seed):
        self.desk, self.random = desk, np.random.default_rng(seed)
        desk.open(np.zeros((SIDE, SIDE)))
        self.labels = desk.viewer.add_labels(np.zeros((SIDE, SIDE), np.int32))
        desk.control.results.target = self.labels.unique_id
        self.expected = self.labels.data.copy()
        self.before: list[np.ndarray] = []
        self.used: set[int] = set()

    def spot(self):
        return tuple(self.random.integers(5, SIDE - 5, 2).tolist())

    def click(self):
        self.desk.control.annotator.always_negative = bool(self.random.random() < 0.25)
        self.desk.click(*self.spot())

    def box(self):
        y, x = self.spot()
        self.desk.control.start("boxes")
        corners = np.array([[y - 5, x - 5], [y - 5, x + 5], [y + 5, x + 5], [y + 5, x - 5]]) - 0.5
        self.desk.control.annotator.boxes.add_rectangles(corners)

    def move(self):
        points = self.desk.control.annotator.points
        if points is not None and len(points.data):
            points.data = np.vstack([points.data[:-1], self.spot()])

    def cycle(self):
        self.desk.control.single.cycle(1)

    def each(self):
        self.desk.control.annotator.use_each(not self.desk.control.annotator.each)

    def undo_prompts(self):
        self.desk.control.annotator.undo()

    def redo_prompts(self):
        self.desk.control.annotator.redo()

    def clear(self):
        self.desk.control.annotator.clear()

    def correct(self):
        present = np.unique(self.labels.data)[1:]
        if len(present):
            assert self.desk.control.single.correct(self.labels, int(self.random.choice(present)))

    def commit(self):
        control = self.desk.control
        masks, correction = control.single.answer.masks(), control.annotator.correction
        allowed = np.zeros((SIDE, SIDE), bool)
        for mask in masks:
            allowed |= mask.to_array(allowed.shape)
        done = control.single.commit()
        if done is None or not done.ids:
            return
        now, was = self.labels.data, self.expected
        replaced = set(done.ids) & set(np.unique(was).tolist())
        assert len(replaced) <= 1
        assert correction is None or not replaced or replaced == {correction.value}
        for value in replaced:
            allowed |= was == value
        assert not (now != was)[~allowed].any()
        assert np.isin(
            was[now != was], [0, *replaced]
        ).all()  # only background and what is replaced is written
        assert not (set(done.ids) - replaced) & self.used
        self.step(done.ids)

    def paint(self):
        value = int(self.random.integers(0, 8))
        self.labels.selected_label = value
        self.labels.brush_size = 7
        self.labels.paint(self.spot(), value)
        self.step([value])

    def step(self, ids):
        self.used |= set(ids)
        if not np.array_equal(self.expected, self.labels.data):  # napari keeps no steps that change nothing
            self.before.append(self.expected)
            self.expected = self.labels.data.copy()

    def undo(self):
        if self.before:
            self.labels.undo()
            self.expected = self.before.pop()

    def run(self, count):
        often = (self.click, self.commit, self.correct)
        seldom = (self.box, self.move, self.cycle, self.each, self.clear, self.paint, self.undo)
        steps = (*often, *often, *seldom, self.undo_prompts, self.redo_prompts)
        for _ in range(count):
            chosen = steps[self.random.integers(len(steps))]
            chosen()
            self.desk.finish(Lane.PROMPT)
            np.testing.assert_array_equal(self.labels.data, self.expected, err_msg=chosen.__name__)
        while self.before:
            self.undo()
            np.testing.assert_array_equal(self.labels.data, self.expected)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_walk_through_the_tool_keeps_all_promises(desk, seed):
    walk = Walk(desk, seed)
    walk.run(60)
    assert not walk.labels.data.any()
    assert len(walk.used) > 2
