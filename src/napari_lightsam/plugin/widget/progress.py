"""How far work has come: a row of the dock, and the same in napari's activity dock."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING, Any

from napari.utils import cancelable_progress
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMainWindow, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.lesson_time import Timed
from napari_lightsam.plugin.widget.parts import show_if

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtGui import QMovie

_SHOWN = 0.25
"""Seconds between two repaints of a row: Qt composes the whole window, canvas and all, for each."""

_LASTING = 1000
"""Milliseconds after which work is shown in napari's activity dock too: to open it there takes a tenth."""

_CALM = 12
"""Percent of its speed that napari's sign of activity turns at: four instead of thirty pictures a second.

Where no graphics card draws the window, thirty of them keep a processor busy, which runs then lack.
"""


class ProgressRow(QWidget):
    """A bar, the time left, a Cancel button, and the same in napari's activity dock where work takes long.

    Parameters
    ----------
    title
        Name of the work in the activity dock.
    on_cancel
        Called by either Cancel button.
    tip
        What the button does.
    """

    def __init__(self, title: str, on_cancel: Callable[[], object], tip: str) -> None:
        super().__init__()
        self._title, self._on_cancel = title, on_cancel
        self._activity: Any = None
        self._calmed: list[tuple[QMovie, int]] = []
        self._latest: Progress | None = None
        self._lasting = QTimer(self)
        self._lasting.setSingleShot(True)
        self._lasting.timeout.connect(self._open)
        self._shown = 0.0
        self._pace = Pace()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(12)
        self.bar.setAccessibleName(title)
        self.text = QLabel("Starting ...")
        self.text.setWordWrap(True)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(tip)
        self.cancel_button.clicked.connect(lambda: on_cancel())
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.text)
        self.setVisible(False)

    def show_progress(self, progress: Progress | None) -> None:
        """Show how far the work has come; None ends it."""
        if progress is None:
            self.finish()
            return
        now, latest = time.monotonic(), self._latest
        left = self._pace.note(now, progress)
        if isinstance(progress, Timed):  # who does the work knows better than its counts tell
            left = "" if progress.left is None else f"about {in_words(progress.left)} left"
        same = latest is not None and progress.stage == latest.stage
        if same and now - self._shown < _SHOWN and progress.done < progress.total:
            return
        self._shown = now
        if progress.total == 0 and progress.done:  # a step in between, in which nothing is counted
            progress = Progress(progress.stage, progress.done, latest.total if latest is not None else 0)
        self.setVisible(True)
        # not from 0 to 0: Qt moves such a bar sixty times a second, and composes the window each time
        self.bar.setRange(0, max(progress.total, 1))
        self.bar.setValue(min(progress.done, progress.total))
        named = ":" in progress.stage  # what stands before it is the name of a file
        stage = progress.stage if named else progress.stage.capitalize()
        self.text.setText(stage + (f", {left}" if left else " ..."))
        if latest is None:
            self._lasting.start(_LASTING)
        self._latest = progress
        if self._activity is not None:
            self._mirror(self._activity, progress)

    def _open(self) -> None:
        """Show in the activity dock what goes on."""
        if self._activity is not None:
            return
        self._calm()
        # its text form is of no use beside the two bars
        activity = cancelable_progress(total=0, desc=self._title, file=io.StringIO())
        if self._latest is None:  # events are handled while that opens: the work was cancelled, or ended
            activity.close()
            self._let_go()
            return
        self._activity = activity
        self._mirror(activity, self._latest)

    def _mirror(self, activity: Any, progress: Progress) -> None:
        if activity.is_canceled:
            self._on_cancel()
            return
        if activity.total != progress.total:
            activity.reset(total=progress.total)
        # Each of these repaints and handles events, among them perhaps a click on Cancel.
        description = f"{self._title}: {progress.stage}"
        if activity.desc.removesuffix(": ") != description:
            activity.set_description(description)
        if self._activity is activity and progress.done > activity.n:
            activity.update(progress.done - activity.n)

    def finish(self) -> None:
        """Hide the row and leave the activity dock."""
        show_if(self, False)
        self._lasting.stop()
        self._latest, self._pace = None, Pace()
        if self._activity is not None:
            activity, self._activity = self._activity, None
            activity.close()
            self._let_go()

    def _calm(self) -> None:
        """Slow the sign of activity in the status bar of napari's window down."""
        at: QWidget | None = self
        while at is not None and not isinstance(at, QMainWindow):
            at = at.parentWidget()
        bar = None if at is None else at.statusBar()
        movies = [] if bar is None else [label.movie() for label in bar.findChildren(QLabel)]
        self._calmed = [(movie, movie.speed()) for movie in movies if movie and movie.speed() > _CALM]
        for movie, _ in self._calmed:
            movie.setSpeed(_CALM)

    def _let_go(self) -> None:
        for movie, speed in self._calmed:
            movie.setSpeed(speed)
        self._calmed = []


class Pace:
    """Tells from the steps of some work how long it will still take.

    Stages may take turns ("encoding", "segmenting") while one count goes on; a count that starts again is
    other work. Nothing is said within the first second, when any guess would be wild.

    Examples
    --------
    >>> pace = Pace()
    >>> [pace.note(now, Progress("segmenting", done, 40)) for now, done in ((0, 0), (0.5, 1), (10, 10))]
    ['', '', 'about 30 s left']
    """

    _LEAST = 1.0  # seconds

    def __init__(self) -> None:
        self._stage, self._since, self._from, self._done = "", 0.0, 0, 0

    def note(self, now: float, step: Progress) -> str:
        """Take a step at a time in seconds; returns the time left in words, or nothing."""
        begins = step.done == 0 and step.stage != self._stage
        if begins or step.done < self._done:
            self._since, self._from = now, step.done
        self._stage, self._done = step.stage, step.done
        gone, made = now - self._since, step.done - self._from
        if gone < self._LEAST or made <= 0 or step.total < step.done:
            return ""
        left = gone / made * (step.total - step.done)
        return f"about {in_words(left)} left"


def in_words(seconds: float) -> str:
    """Say how long something takes.

    Examples
    --------
    >>> in_words(99), in_words(150)
    ('99 s', '2 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
