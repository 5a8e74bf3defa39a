"""Forked processes: they have the memory of another one, and none of the threads that its networks run in.

Whatever waits for such threads waits for ever, in libraries that say nothing about it.
"""

from __future__ import annotations

import os

from napari_lightsam.errors import DeviceError

__all__ = ["begin_computing", "check_not_forked"]


class _Process:
    computes = False  # a network was loaded here, or in the process that this one was forked from
    forked = False  # it was there


def begin_computing() -> None:
    """Note that networks run in this process.

    Raises
    ------
    DeviceError
        As `check_not_forked`.
    """
    check_not_forked()
    _Process.computes = True


def check_not_forked() -> None:
    """Refuse to compute where it would never end.

    Raises
    ------
    DeviceError
        This process was forked from one in which a network had been loaded.
    """
    if _Process.forked:
        raise DeviceError(
            "This process was forked from one that had loaded a model, whose threads did not come along: it "
            "would wait for ever. Start processes by multiprocessing.get_context('spawn') and load the model "
            "in each, or use segment_many(..., scheduler='processes')."
        )


def _note_fork() -> None:
    _Process.forked = _Process.computes


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)
