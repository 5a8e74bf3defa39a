"""How long a lesson will still take: what is looked at, learned and tested, each by its own measure."""

from __future__ import annotations

from dataclasses import dataclass

from napari_lightsam.engine.progress import Progress


@dataclass(frozen=True, slots=True)
class Timed(Progress):
    """A step of which is known how long all that follows will take.

    Attributes
    ----------
    left
        Seconds until the end of all the work; None while nothing can be said.
    """

    left: float | None = None


class LessonTime:
    """Tells from the steps of a lesson how long all of it will still take.

    The model is tested twice on the same part, before and after it learns. Parts of a test are of very
    different length, so that only the first one as a whole tells how long the second will take.

    Parameters
    ----------
    learning
        Seconds that it was told to learn.
    stages
        What the first test, the look at the images, the learning and the second test are called.

    Examples
    --------
    >>> time = LessonTime(30, ("test", "look", "learn", "test again"))
    >>> steps = (("test", 0, 3, 0), ("look", 0, 40, 20), ("look", 20, 40, 30), ("learn", 0, 0, 40),
    ...          ("learn", 50, 100, 60), ("test again", 0, 3, 75), ("test again", 1, 3, 80))
    >>> [time.note(Progress(*step[:3]), step[3]).left for step in steps]
    [None, None, 60.0, 50, 40.0, 20, 15]
    """

    def __init__(self, learning: float, stages: tuple[str, str, str, str]) -> None:
        self._learning, self._stages = learning, stages
        self._stage, self._since = "", 0.0
        self._test = 0.0

    def note(self, step: Progress, now: float) -> Timed:
        """Take a step at a time in seconds; returns it with the time left."""
        if step.stage != self._stage:
            if self._stage == self._stages[0]:
                self._test = now - self._since
            self._stage, self._since = step.stage, now
        return Timed(step.stage, step.done, step.total, step.found, self._left(step, now - self._since))

    def _left(self, step: Progress, gone: float) -> float | None:
        _, look, learn, last = self._stages
        of_stage = gone / step.done * (step.total - step.done) if step.done and step.total else None
        if step.stage == look:
            return None if of_stage is None else of_stage + self._learning + self._test
        if step.stage == learn:
            return (max(0.0, self._learning - gone) if of_stage is None else of_stage) + self._test
        return max(0.0, self._test - gone) if step.stage == last else None
