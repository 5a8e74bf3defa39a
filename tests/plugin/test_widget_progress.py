"""The row that shows how far work has come."""

from __future__ import annotations

import pytest
from napari.utils.events import EventedSet
from napari.utils.progress import progress
from qtpy.QtGui import QMovie
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.widget import progress as widget_progress
from napari_lightsam.plugin.widget.progress import Pace, ProgressRow


def made(qtbot):
    row = ProgressRow("some work", lambda: None, tip="Stop.")
    qtbot.addWidget(row, before_close_func=lambda row: row.finish())
    return row


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        pytest.param([(0, "a", 0, 4), (10, "a", 1, 4)], "about 30 s left", id="seconds"),
        pytest.param([(0, "a", 0, 3), (600, "a", 1, 3)], "about 20 min left", id="minutes"),
        pytest.param([(0, "a", 0, 4), (5, "a", 0, 4)], "", id="nothing done yet"),
        pytest.param([(0, "a", 0, 4), (0.1, "a", 1, 4)], "", id="too early to say"),
        pytest.param([(0, "a", 0, 0), (5, "a", 3, 0)], "", id="not counted"),
        pytest.param(
            [(0, "size", 0, 1), (90, "a", 0, 4), (95, "b", 0, 4), (105, "a", 1, 4)],
            "about 30 s left",
            id="stages before the count do not matter",
        ),
        pytest.param(
            [(0, "a", 0, 40), (5, "b", 10, 40), (10, "a", 10, 40), (15, "b", 20, 40)],
            "about 15 s left",
            id="stages that take turns",
        ),
        pytest.param(
            [(0, "a", 0, 9), (50, "a", 9, 9), (60, "b", 2, 4), (70, "b", 3, 4)],
            "about 10 s left",
            id="a new count",
        ),
    ],
)
def test_time_left_is_said_in_words(steps, text):
    pace = Pace()
    assert [pace.note(at, Progress(stage, done, total)) for at, stage, done, total in steps][-1] == text


def test_a_row_does_not_move_by_itself_while_nothing_is_counted(qtbot):
    row = made(qtbot)
    row.show_progress(Progress("starting", 0, 0))
    assert row.bar.maximum() > 0  # Qt animates a bar from 0 to 0
    assert row.text.text() == "Starting ..."
    row.show_progress(Progress("segmenting", 3, 4))
    assert (row.bar.value(), row.bar.maximum()) == (3, 4)
    row.show_progress(Progress("getting ready", 7, 0))  # of a count without an end
    assert row.bar.value() <= row.bar.maximum()


@pytest.fixture
def quick(monkeypatch):
    """Make work last after a moment already."""
    monkeypatch.setattr(widget_progress, "_LASTING", 50)


@pytest.fixture
def told(monkeypatch):
    """Collect what napari's activity dock is told of."""
    found, everything = [], EventedSet()
    monkeypatch.setattr(progress, "_all_instances", everything)
    everything.events.changed.connect(lambda event: found.extend(event.added))
    return found


@pytest.mark.parametrize("floating", [False, True])
def test_napari_s_sign_of_activity_is_slow_while_work_goes_on_and_only_then(qtbot, floating, quick):
    row, window, dock, label = made(qtbot), QMainWindow(), QDockWidget(), QLabel()
    movie = QMovie()
    label.setMovie(movie)
    window.statusBar().addWidget(label)
    dock.setWidget(row)
    window.addDockWidget(dock.allowedAreas().RightDockWidgetArea, dock)
    dock.setFloating(floating)
    row.show_progress(Progress("starting", 0, 0))
    qtbot.waitUntil(lambda: movie.speed() < 100)
    slow = movie.speed()
    assert slow > 0
    row.show_progress(Progress("segmenting", 1, 4))
    assert movie.speed() == slow
    row.show_progress(None)
    assert movie.speed() == 100
    row.show_progress(Progress("starting", 0, 0))
    qtbot.waitUntil(lambda: movie.speed() == slow)
    row.finish()
    assert movie.speed() == 100


def test_napari_s_activity_dock_is_told_of_work_that_takes_longer_than_a_moment(qtbot, told, quick):
    stopped = []
    row = ProgressRow("some work", lambda: stopped.append(True), tip="Stop.")
    qtbot.addWidget(row, before_close_func=lambda row: row.finish())
    row.show_progress(Progress("starting", 0, 0))
    row.show_progress(Progress("segmenting", 1, 9))
    assert not told
    qtbot.waitUntil(lambda: len(told) == 1)  # although no further step is done
    assert (told[0].desc, told[0].n, told[0].total) == ("some work: segmenting: ", 1, 9)
    row.show_progress(Progress("decoding", 3, 9))
    assert (told[0].desc, told[0].n) == ("some work: decoding: ", 3)
    told[0].cancel()
    row.show_progress(Progress("segmenting", 4, 9))
    assert stopped
    row.finish()
    row.show_progress(Progress("starting", 0, 0))
    row.finish()
    qtbot.wait(100)
    assert len(told) == 1


def test_work_that_ends_while_the_activity_dock_opens_does_not_stay_there(qtbot, quick, monkeypatch):
    row, opened = made(qtbot), []

    def make(**options):  # napari handles events meanwhile, among them a click on Cancel
        row.show_progress(Progress("segmenting", 1, 4))
        row.finish()
        opened.append(progress(**options))
        return opened[-1]

    monkeypatch.setattr(widget_progress, "cancelable_progress", make)
    row.show_progress(Progress("starting", 0, 0))
    qtbot.waitUntil(lambda: bool(opened))
    assert opened[0] not in progress._all_instances
    qtbot.wait(100)
    assert len(opened) == 1
