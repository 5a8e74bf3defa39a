"""Messages through napari's notifications; never print, never a box that must be clicked away."""

from __future__ import annotations

import re
import sys

from napari_lightsam.errors import LightSamError

_OPTION = re.compile(r"Use --overwrite[^.]*\.")


def report_error(error: BaseException) -> None:
    """Show an error: our own as their sentence, an unexpected one with its traceback behind a button."""
    from napari.utils.notifications import notification_manager, show_error

    if isinstance(error, LightSamError):
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)


def shortcut(key: str) -> str:
    """Name a key that is pressed together with Ctrl, in whose place a Mac has Cmd.

    Examples
    --------
    >>> shortcut("Z").rpartition("+")[2]
    'Z'
    """
    return f"{'Cmd' if sys.platform == 'darwin' else 'Ctrl'}+{key}"


def reworded(error: BaseException, instead: str) -> BaseException:
    """Have an error of the batch say what to do in the widget, where it names an option of the command line.

    Parameters
    ----------
    error
        Of a run; its type stays.
    instead
        The sentence that takes the place of the one with the option.

    Examples
    --------
    >>> from napari_lightsam.errors import FileError
    >>> str(reworded(FileError("a.zarr is there. Use --overwrite, or another output."), "Take another name."))
    'a.zarr is there. Take another name.'
    """
    if isinstance(error, LightSamError):
        error.args = (_OPTION.sub(instead, str(error)),)
    return error


def report_warning(sentence: str) -> None:
    """Show something the user should know about a result."""
    from napari.utils.notifications import show_warning

    show_warning(sentence)


def report_info(sentence: str) -> None:
    """Show an answer to something the user just did."""
    from napari.utils.notifications import show_info

    show_info(sentence)
