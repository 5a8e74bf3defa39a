"""Long work as a generator: it yields `Progress`, returns its result, and is cancelled by closing it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from napari_lightsam.engine.found import Found

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of long work has come.

    Attributes
    ----------
    stage
        What is being done, as a user would say it ("encoding the image").
    done, total
        Steps finished and steps in all; `total` is 0 while it is not known.
    found
        What this step of everything mode found, to be shown early; None where it found nothing new.
    """

    stage: str
    done: int
    total: int
    found: Found | None = field(default=None, repr=False, compare=False)


Work = Generator[Progress, None, T]
"""Long work that returns a `T`: widget, scripts and command line all drive the same generator."""


def relay(work: Work[T], change: Callable[[Progress], Progress]) -> Work[T]:
    """Pass long work on as a part of other work: its steps are changed on their way, its result is not.

    Parameters
    ----------
    work
        The generator; it is closed with this one.
    change
        Returns what is said instead of a step.

    Examples
    --------
    >>> def count():
    ...     yield Progress("counting", 1, 2)
    ...     return 42
    >>> drain(relay(count(), lambda step: Progress("all of it", step.done, 10)), print)
    Progress(stage='all of it', done=1, total=10)
    42
    """
    try:
        while True:
            try:
                step = next(work)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            yield change(step)
    finally:
        work.close()


def drain(work: Work[T], on_progress: Callable[[Progress], object] | None = None) -> T:
    """Run long work to its end and return its result.

    Parameters
    ----------
    work
        The generator; it is closed if `on_progress` raises.
    on_progress
        Called with every `Progress`, for instance to move a bar.

    Raises
    ------
    ConfigError
        It is no generator, but a result for instance.

    Examples
    --------
    >>> def count():
    ...     yield Progress("counting", 1, 2)
    ...     return 42
    >>> drain(count())
    42
    """
    if not hasattr(work, "__next__") or not hasattr(work, "close"):
        raise ConfigError(
            "drain takes long work, as segment_many or segment_stack returns it; got "
            f"{type(work).__name__}. Functions such as segment_everything return their result at once."
        )
    try:
        while True:
            try:
                step = next(work)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            if on_progress is not None:
                on_progress(step)
    finally:
        work.close()
