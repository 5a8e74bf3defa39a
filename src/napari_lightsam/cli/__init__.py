"""The `lightsam` command: it calls functions and decides nothing. Heavy imports wait for a command."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import typer

    app: typer.Typer

_STOPPED = 130  # exit code after Ctrl-C


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from napari_lightsam.cli.commands import app

    return app


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130 from the first moment on."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):  # what stands in for a console may be no text file
                # A file or pipe on Windows knows few letters; a name must not end the work.
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        from napari_lightsam.cli.commands import app

        app()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(_STOPPED)
    except SystemExit as ended:
        if ended.code == _STOPPED:
            _leave()
        raise


def _leave() -> NoReturn:
    """End a command that was stopped: at once, not when threads of libraries are done and memory is clear."""
    with suppress(OSError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(_STOPPED)
