"""What a user should know though nothing failed: brought to whoever asked for it, in the thread it arose in.

Python's own warnings are one list of filters for all threads, so that they cannot tell of which image they
speak where several are at work. They are what is left where nobody listens.
"""

from __future__ import annotations

import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Listener = Callable[[str], object]


class LightSamWarning(UserWarning):
    """Something about the input, or the run, that the user should know but that is no error."""


_everywhere: list[Warned] = []
_here = threading.local()


def tell(message: str, stacklevel: int = 1) -> None:
    """Tell whoever listens in this thread, else who listens everywhere, else warn as Python does.

    Parameters
    ----------
    message
        What a user should know.
    stacklevel
        As of `warnings.warn`.

    Examples
    --------
    >>> said = []
    >>> with hearing(said.append):
    ...     tell("half of it is NaN")
    >>> said
    ['half of it is NaN']
    """
    listeners: list[Listener] = getattr(_here, "listeners", [])
    if listeners:
        listeners[-1](message)
    elif _everywhere:
        _everywhere[-1].hear(message)
    else:
        warnings.warn(message, LightSamWarning, stacklevel=stacklevel + 1)


@contextmanager
def hearing(hear: Listener) -> Iterator[None]:
    """Listen to what is told in this thread; whoever listened before does so again afterwards.

    Parameters
    ----------
    hear
        Called with each message.
    """
    listeners: list[Listener] = _here.__dict__.setdefault("listeners", [])
    listeners.append(hear)
    try:
        yield
    finally:
        listeners.pop()


class Warned:
    """Listens to what is told in any thread in which nobody else does, until it is closed.

    Parameters
    ----------
    hear
        Called with each message, on the thread it arose in.
    """

    def __init__(self, hear: Listener) -> None:
        self.hear = hear
        _everywhere.append(self)

    def close(self) -> None:
        """Stop listening."""
        if self in _everywhere:
            _everywhere.remove(self)
