"""Whatever is done in whatever order: undo restores exactly, ids stay unique, and nothing changes unasked."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from napari_lightsam.plugin.worker import Lane

SIDE = 60

spots = st.tuples(st.integers(5, SIDE - 6), st.integers(5, SIDE - 6))


class Use(RuleBasedStateMachine):
    """Steps of a user in any order, and what the Labels layer must hold after each.

    Parameters
    ----------
    desk
        A new one; it is closed in the end.
    """

    def __init__(self, desk):
        super().__init__()
        self.desk = desk
        desk.open(np.zeros((SIDE, SIDE)))
        self.labels = desk.viewer.add_labels(np.zeros((SIDE, SIDE), np.int32))
        desk.control.results.target = self.labels.unique_id
        self.expected = self.labels.data.copy()
        self.before: list[np.ndarray] = []
        self.undone: list[np.ndarray] = []
        self.used: set[int] = set()

    @rule(at=spots, negative=st.booleans())
    def click(self, at, negative):
        self.desk.control.annotator.always_negative = negative
        self.desk.click(*at)

    @rule(at=spots)
    def box(self, at):
        y, x = at
        self.desk.control.start("boxes")
        corners = np.array([[y - 5, x - 5], [y - 5, x + 5], [y + 5, x + 5], [y + 5, x - 5]]) - 0.5
        self.desk.control.annotator.boxes.add_rectangles(corners)

    @rule(at=spots)
    def move(self, at):
        points = self.desk.control.annotator.points
        if points is not None and len(points.data):
            points.data = np.vstack([points.data[:-1], at])

    @rule(step=st.sampled_from([1, -1]))
    def cycle(self, step):
        self.desk.control.single.cycle(step)

    @rule()
    def each(self):
        self.desk.control.annotator.use_each(not self.desk.control.annotator.each)

    @rule()
    def undo_prompts(self):
        self.desk.control.annotator.undo()

    @rule()
    def redo_prompts(self):
        self.desk.control.annotator.redo()

    @rule()
    def clear(self):
        self.desk.control.annotator.clear()

    @precondition(lambda self: self.expected.any())
    @rule(choice=st.integers(0, 100))
    def correct(self, choice):
        present = np.unique(self.labels.data)[1:]
        assert self.desk.control.suggested.correct(self.labels, int(present[choice % len(present)]))

    @rule()
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

    @rule(at=spots, value=st.integers(0, 7))
    def paint(self, at, value):
        self.labels.selected_label = value
        self.labels.brush_size = 7
        self.labels.paint(at, value)
        self.step([value])

    @precondition(lambda self: self.expected.any())
    @rule(choices=st.lists(st.integers(0, 100), min_size=1, max_size=3), measured=st.booleans())
    def select(self, choices, measured):
        curating, present = self.desk.control.curating, np.unique(self.expected)[1:]
        curating.use_layer(self.labels)
        if measured:
            curating.measure()
            self.desk.finish(Lane.MEASURE)
            assert curating.table.labels.tolist() == present.tolist()
            assert curating.table.areas.sum() == np.count_nonzero(self.expected)
        curating.select(int(present[choice % len(present)]) for choice in choices)

    @precondition(lambda self: self.desk.control.curating.selected)
    @rule(what=st.sampled_from(["merge", "delete", "fill_holes", "smooth"]))
    def repair(self, what):
        selected = self.desk.control.curating.selected
        getattr(self.desk.control.curating.repairs, what)()
        was, now = self.expected[self.expected != self.labels.data], self.labels.data
        assert np.isin(was, [0, *selected]).all()
        assert np.isin(now[now != self.expected], [0, *selected]).all()
        self.step([])

    def step(self, ids):
        self.used |= set(ids)
        if not np.array_equal(self.expected, self.labels.data):  # napari keeps no steps that change nothing
            self.before.append(self.expected)
            self.undone.clear()
            self.expected = self.labels.data.copy()

    @precondition(lambda self: self.before)
    @rule(review=st.booleans())
    def undo(self, review):
        (self.desk.control.curating if review and self.is_reviewed else self.labels).undo()
        self.undone.append(self.expected)
        self.expected = self.before.pop()

    @precondition(lambda self: self.undone)
    @rule(review=st.booleans())
    def redo(self, review):
        (self.desk.control.curating if review and self.is_reviewed else self.labels).redo()
        self.before.append(self.expected)
        self.expected = self.undone.pop()

    @property
    def is_reviewed(self):
        return self.desk.control.curating.layer is not None

    @invariant()
    def holds_what_was_saved_and_nothing_else(self):
        self.desk.finish(Lane.PROMPT)
        np.testing.assert_array_equal(self.labels.data, self.expected)

    def teardown(self):
        while self.before:
            self.labels.undo()
            self.expected = self.before.pop()
            np.testing.assert_array_equal(self.labels.data, self.expected)
        assert not self.labels.data.any()
        self.desk.control.close()


def test_steps_in_any_order_keep_all_promises(new_desk):
    checked = settings(
        max_examples=15, stateful_step_count=40, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(lambda: Use(new_desk()), settings=checked)
