"""Fetching models: the one thing that uses the network, and only when the user asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.messages import report_error
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable


def is_here(model: str) -> bool:
    """Tell whether a model is on this computer, by name or path; never uses the network."""
    from napari_lightsam.engine.download import list_models

    known = {status.name: status.available for status in list_models()}
    return known.get(model, True)


class Downloads:
    """Downloads one model at a time, in the worker.

    Parameters
    ----------
    worker
        Where the work is done.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    progress
        Signal(object): `Progress`, or None when the download ended.
    finished
        Signal(str): the model of this name is on the computer now.
    """

    progress = Signal(object)
    finished = Signal(str)

    def __init__(self, worker: Worker, say: Callable[[str], object]) -> None:
        self._worker, self._say = worker, say

    def start(self, name: str, *, consent: bool = False) -> None:
        """Download a model; `consent` accepts a file for which no hash is published."""
        from napari_lightsam.engine.download import download

        self._worker.submit(
            Lane.DOWNLOAD,
            download(name, consent=consent),
            lambda _paths: self._on_done(name),
            self._on_error,
            self.progress.emit,
        )
        self.progress.emit(Progress("connecting", 0, 0))

    def cancel(self) -> None:
        """Stop a download; nothing is kept. One that has ended is not lost: its result is on the way."""
        if not self._worker.is_busy(Lane.DOWNLOAD):
            return
        self._worker.cancel(Lane.DOWNLOAD)
        self.progress.emit(None)
        self._say("Download cancelled; nothing was kept.")

    def _on_done(self, name: str) -> None:
        self.progress.emit(None)
        self._say(f"{name} is on your computer now.")
        self.finished.emit(name)

    def _on_error(self, error: BaseException) -> None:
        self.progress.emit(None)
        self._say("The download failed; nothing was kept.")
        report_error(error)
