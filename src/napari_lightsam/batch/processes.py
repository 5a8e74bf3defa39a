"""Worker processes that can be ended whatever they are at, and that end with the process that began them."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_LAST = 5.0  # seconds for the system to end a process


class Processes:
    """An executor of processes.

    Parameters
    ----------
    workers
        How many at most.

    Attributes
    ----------
    executor
        Takes the tasks.
    """

    def __init__(self, workers: int) -> None:
        self._context = _Remembering()
        self.executor = ProcessPoolExecutor(workers, self._context, _prepare)

    def close(self) -> None:
        """Let the processes go once they have done what they are at."""
        self.executor.shutdown(wait=False, cancel_futures=True)

    def end(self, patience: float) -> None:
        """End the processes; when this returns, none of them writes any more.

        Parameters
        ----------
        patience
            Seconds in which they may end by themselves.
        """
        cancel = {"wait": True, "cancel_futures": True}
        closing = threading.Thread(target=self.executor.shutdown, kwargs=cancel, daemon=True)
        closing.start()
        if _left(self._context.started, patience):
            for process in self._context.started:
                process.terminate()
        if _left(self._context.started, _LAST):
            for process in self._context.started:
                process.kill()
        closing.join(_LAST)


class _Remembering(SpawnContext):
    """Knows the processes that were started by it."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[BaseProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> BaseProcess:  # type: ignore[override]
        process = SpawnContext.Process(*args, **kwargs)
        self.started.append(process)
        return process


def _left(processes: list[BaseProcess], patience: float) -> bool:
    """Wait until all have ended; says whether some have not. The executor itself collects them."""
    until = time.monotonic() + patience
    alive = [process.sentinel for process in processes if process.pid is not None]
    while alive:
        ended = connection.wait(alive, max(0.0, until - time.monotonic()))
        if not ended:
            return True
        alive = [one for one in alive if one not in ended]
    return False


def _prepare() -> None:
    """Leave Ctrl-C to the process that began the run, which tells its workers when to end; end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="lightsam-parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)  # nobody waits for results, and nobody holds the lock on them
