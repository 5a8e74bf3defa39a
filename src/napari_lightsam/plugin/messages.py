"""Messages through napari's notifications; never print, never a box that must be clicked away."""

from __future__ import annotations

from napari_lightsam.errors import LightSamError


def report_error(error: BaseException) -> None:
    """Show an error: our own as their sentence, an unexpected one with its traceback behind a button."""
    from napari.utils.notifications import notification_manager, show_error

    if isinstance(error, LightSamError):
        show_error(str(error))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)


def report_warning(sentence: str) -> None:
    """Show something the user should know about a result."""
    from napari.utils.notifications import show_warning

    show_warning(sentence)


def report_info(sentence: str) -> None:
    """Show an answer to something the user just did."""
    from napari.utils.notifications import show_info

    show_info(sentence)
