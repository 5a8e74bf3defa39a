"""How commands talk: results on stdout, progress and problems on stderr, errors in one line."""

from __future__ import annotations

import errno
import functools
import sys
import time
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.errors import ConfigError, DownloadError, FileError, LightSamError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_lightsam.engine.progress import Work

P = ParamSpec("P")
R = TypeVar("R")


def warn(message: str) -> None:
    """Print a line on stderr."""
    typer.echo(message, err=True)


def exit_code(error: LightSamError) -> int:
    """2 when the command was asked for something impossible, 1 when it failed on its way."""
    from napari_lightsam.formats.atomic import WriteError

    if isinstance(error, (WriteError, DownloadError)):
        return 1
    return 2 if isinstance(error, (ConfigError, FileError, WeightsError)) else 1


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one message and an exit code, and our warnings into one line each."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return command(*args, **kwargs)
            except LightSamError as error:
                warn(f"error: {error}")
                raise typer.Exit(exit_code(error)) from None
            except OSError as error:
                if error.errno in (errno.EPIPE, None):  # whoever read the output has gone; or none of a file
                    raise
                at = "" if error.filename is None else f"{error.filename}: "
                warn(f"error: {at}{error.strerror}.")
                raise typer.Exit(1) from None
            except KeyboardInterrupt:
                warn("Stopped.")
                raise typer.Exit(130) from None

    return run


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    from napari_lightsam.engine.warned import LightSamWarning

    if issubclass(category, LightSamWarning):
        warn(f"warning: {message}")


class StageClock:
    """Adds up the time between steps by stage."""

    def __init__(self) -> None:
        self._times: defaultdict[str, float] = defaultdict(float)
        self._stage, self._since = "starting", time.perf_counter()

    def __call__(self, step: Progress) -> None:
        """Note that a step begins."""
        now = time.perf_counter()
        self._times[self._stage] += now - self._since
        self._stage, self._since = step.stage, now

    def stop(self) -> Mapping[str, float]:
        """Seconds by stage, in the order the stages began."""
        self(Progress("", 0, 0))
        return dict(self._times)


def follow(work: Work[R], listener: Callable[[Progress], object] | None = None) -> R:
    """Run long work to its end with a bar and the time left on a terminal, and a line per stage elsewhere.

    Parameters
    ----------
    work
        The generator.
    listener
        Also called with every step.
    """
    hear = listener or (lambda _: None)
    if not sys.stderr.isatty():
        return drain(work, _Plain(hear))
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def show(step: Progress) -> None:
            hear(step)
            if step.total or not step.done:  # else a step in between, in which nothing is counted
                bar.update(task, total=step.total or None)
            new = bar.tasks[0].description != step.stage  # shown at once, however short the stage is
            bar.update(task, description=step.stage, completed=step.done, refresh=new)

        return drain(work, show)


def follow_until_stopped(work: Work[R], advice: str) -> R:
    """Run long work as `follow` does; Ctrl-C ends it with a message and exit code 130.

    Parameters
    ----------
    work
        The generator.
    advice
        What is kept, and how to go on.
    """
    try:
        return follow(work)
    except KeyboardInterrupt:
        warn(f"Stopped. {advice}")
        raise typer.Exit(130) from None


class _Plain:
    """A line whenever a new stage, or in a batch a new file, begins."""

    def __init__(self, listener: Callable[[Progress], object]) -> None:
        self._listener = listener
        self._seen = ""

    def __call__(self, step: Progress) -> None:
        self._listener(step)
        name, colon, _ = step.stage.partition(": ")
        if name != self._seen:
            self._seen = name
            warn(f"{name} ({step.done + 1}/{step.total})" if colon else name)
