"""What napari compiles when it first shows labels and shapes, compiled in the background instead."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_once = threading.Lock()


def warm_up() -> None:
    """Let napari compile, in a thread of its own, what would freeze the window for seconds at the first use.

    numba keeps what it compiled on disk, so that this takes long only once per machine. Layers that belong
    to no viewer may be made in any thread.
    """
    import pint

    if _once.acquire(blocking=False):  # held for the life of the process
        # napari reads units at its first layer; two threads that do so at once do not find them
        registry: Callable[[], Any] = pint.get_application_registry
        registry().Unit("pixel")
        threading.Thread(target=_make_layers, name="lightsam-warming", daemon=True).start()


def _make_layers() -> None:
    from napari.layers import Labels, Shapes

    with suppress(Exception):  # nothing depends on it
        Labels(np.zeros((2, 2), np.int32))
        Shapes(None, ndim=2)
