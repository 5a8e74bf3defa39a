"""Ending a single long call, such as encoding a block, which no generator can be closed in."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Stopped", "check_stopped", "stoppable"]


class Stopped(BaseException):
    """What was being computed is not wanted any more.

    No `Exception`, as `GeneratorExit` is none: whoever survives all faults of one image must not take it
    for one of them.
    """


class _Asked(threading.local):
    stop: Callable[[], bool] | None = None


_asked = _Asked()


@contextmanager
def stoppable(stop: Callable[[], bool] | None) -> Iterator[None]:
    """Let calls of this thread end early; no generator may yield inside.

    Parameters
    ----------
    stop
        Asked several times a second while a network computes; once it says True, `Stopped` is raised. None
        changes nothing.

    Examples
    --------
    >>> with stoppable(lambda: True):
    ...     try:
    ...         check_stopped()
    ...     except Stopped:
    ...         print("stopped")
    stopped
    """
    before = _asked.stop
    if stop is not None:
        _asked.stop = stop
    try:
        yield
    finally:
        _asked.stop = before


def check_stopped() -> None:
    """Raise `Stopped` where this thread is asked to end."""
    if _asked.stop is not None and _asked.stop():
        raise Stopped
