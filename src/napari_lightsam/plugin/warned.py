"""The engine's warnings, which arise in a worker, brought to whoever shows them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.image import LightSamWarning

if TYPE_CHECKING:
    from collections.abc import Callable


class Warned:
    """Hears the warnings of this package while it is open; all others go where they always went.

    Parameters
    ----------
    hear
        Called with the text of a warning, on the thread it arose in.

    Notes
    -----
    `warnings.catch_warnings` would change the filters of all threads behind napari's back.
    """

    def __init__(self, hear: Callable[[str], object]) -> None:
        self._hear = hear
        self._open = True
        self._former: Any = warnings.showwarning
        warnings.showwarning = self._show
        # otherwise Python tells each only once in a process, though it may concern another image
        warnings.simplefilter("always", LightSamWarning)

    def _show(self, message: Warning | str, category: type[Warning], *args: Any, **keywords: Any) -> None:
        if self._open and issubclass(category, LightSamWarning):
            self._hear(str(message))
        else:
            self._former(message, category, *args, **keywords)

    def close(self) -> None:
        """Stop hearing."""
        self._open = False
        if warnings.showwarning == self._show:  # else somebody put his own in front of ours
            warnings.showwarning = self._former
