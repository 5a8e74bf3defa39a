"""Where the tasks of a run are done: threads, processes of this machine, or a dask cluster.

A run is a dask graph of named tasks. Each is done once, its outcome is handed over as soon as it is there,
and a worker that dies costs no more than the tasks it was at.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.processes import Processes
from napari_lightsam.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from concurrent.futures import Executor

    from napari_lightsam.batch.lock import Hold

    Events = Generator[tuple[str, Any] | None, None, None]

LOCAL = ("threads", "processes")
"""Schedulers of this machine; others are addresses of a dask cluster."""

MOST_PROCESSES = 61
"""Worker processes on Windows, which waits for no more at once."""

_ADDRESSES = ("tcp://", "tls://", "ucx://", "inproc://")
_TRIES = 2  # times that workers die before anything is done, after which tasks are tried one by one
_BEAT = 0.2  # seconds, after which whoever waits is let go to see whether it was cancelled
_PATIENCE = 0.5  # seconds that a cancelled run waits for workers to notice; what later ones find is dropped

_GUARD = (
    'Put what the script does under `if __name__ == "__main__":`, since each worker process reads the '
    "script once more."
)


class WorkerLostError(DeviceError):
    """A task was given up because each worker that was at it died."""


class SchedulerLostError(DeviceError):
    """The scheduler of a cluster does not answer any more."""


def check_scheduler(scheduler: Any) -> None:
    """Refuse what is neither a scheduler of this machine, nor an address, nor a client.

    Raises
    ------
    ConfigError
        If it is none of these, or dask's distributed scheduler is not installed.

    Examples
    --------
    >>> check_scheduler("threads")
    """
    if isinstance(scheduler, str) and scheduler in LOCAL:
        if scheduler == "processes" and _is_beginning():
            raise ConfigError(f"A worker process was about to begin the run anew. {_GUARD}")
        return
    known = isinstance(scheduler, str) and scheduler.startswith(_ADDRESSES)
    if not known and not hasattr(scheduler, "scheduler_info"):
        raise ConfigError(
            f"A scheduler is {', '.join(LOCAL)}, the address of a dask cluster such as tcp://host:8786, or a "
            f"dask.distributed Client; got {scheduler!r}."
        )
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{scheduler!r} needs dask's distributed scheduler: pip install 'napari-lightsam[scale]'."
        ) from None


class Pool:
    """Does tasks on a scheduler.

    Parameters
    ----------
    scheduler
        `threads`, `processes`, an address of a dask cluster, or a `distributed.Client`.
    workers
        How many, on this machine; None: one a core.

    Raises
    ------
    ConfigError
        As `check_scheduler`, or if the cluster does not answer.
    """

    def __init__(self, scheduler: Any = "threads", workers: int | None = None) -> None:
        check_scheduler(scheduler)
        if workers is not None and workers < 1:
            raise ConfigError(f"At least one worker is needed; got {workers}.")
        self.local = isinstance(scheduler, str) and scheduler in LOCAL
        self.name = scheduler if isinstance(scheduler, str) else str(scheduler.scheduler.address)
        most = MOST_PROCESSES if self.name == "processes" and sys.platform == "win32" else sys.maxsize
        if workers is not None and workers > most:
            raise ConfigError(f"Windows runs at most {most} worker processes; got {workers}.")
        self.workers = workers or min(count_cores(), most)
        self._processes: Processes | None = None
        self._client: Any = None
        self._opened = self._gone = False
        if not self.local:
            self._opened = isinstance(scheduler, str)
            self._client = _connect(scheduler) if self._opened else scheduler
            self.workers = max(1, len(self._client.scheduler_info(n_workers=-1)["workers"]))

    def threads_each(self) -> int | None:
        """Return with how many threads each worker's model computes unless told; None: as this process."""
        if self.name == "threads":
            return None
        return max(1, count_cores() // self.workers) if self.local else 1

    def run(self, tasks: Mapping[str, Any], hold: Hold) -> Events:
        """Do tasks; closing the iterator cancels what is not done.

        When it is closed, no worker writes any more: processes that do not notice soon are ended, threads
        come to their next step, and a worker of a cluster drops what it comes to later.

        Parameters
        ----------
        tasks
            `dask.delayed` objects by their keys.
        hold
            Of the run on its output, given up when the iterator is closed early; tasks ask for it now and
            then, and before they write.

        Yields
        ------
        name, outcome
            Of each task when it is done: its result, or `WorkerLostError`. None every fraction of a second.

        Raises
        ------
        Exception
            What a task raises ends the run.
        """
        left = dict(tasks)
        if not left:
            return
        done = False
        work = self._run_local if self.local else self._run_distributed
        try:
            with closing(work(left, hold)) as outcomes:
                for outcome in outcomes:
                    if outcome is not None:
                        del left[outcome[0]]
                    yield outcome
            done = True
        finally:
            if not done:
                hold.give_up()

    def close(self) -> None:
        """End the processes of this pool, and leave a cluster that was entered by its address."""
        self._drop_processes()
        if self._opened and self._client is not None:
            log = logging.getLogger("distributed")
            level = log.level
            if self._gone:  # what was to be said about it was said; dask shows how its own attempts end
                log.setLevel(logging.CRITICAL)
            self._client.close()
            self._client = None
            log.setLevel(level)

    def _run_local(self, left: dict[str, Any], hold: Hold) -> Events:
        breaks, total = 0, len(left)
        while left and breaks < _TRIES:
            before = len(left)
            try:
                yield from self._once(dict(left), hold)
                return
            except BrokenProcessPool:  # all workers of a pool end with one
                breaks = breaks + 1 if len(left) == before else 0
        for name, task in list(left.items()):  # each alone, so that none is given up for another's sake
            try:
                yield from self._once({name: task}, hold)
            except BrokenProcessPool:
                why = "each worker that was at it died, perhaps for want of memory"
                hint = f". If all do: {_GUARD}" if len(left) == total and self.name == "processes" else ""
                yield name, WorkerLostError(why + hint)

    def _once(self, tasks: dict[str, Any], hold: Hold) -> Events:
        """Compute on this machine, in a thread of its own, so that whoever waits can cancel."""
        import dask

        news: queue.SimpleQueue[tuple[str, Any] | BaseException | None] = queue.SimpleQueue()
        names = {task.key: name for name, task in tasks.items()}

        def finished(key: Any, value: Any, *_: Any) -> None:
            if key in names:
                news.put((names[key], value))

        def compute() -> None:
            callback = (None, None, None, finished, None)
            how: dict[str, Any] = {"scheduler": self.name, "pool": executor, "chunksize": 1}
            if self.name == "processes":
                how["optimize_graph"] = False  # else dask joins tasks under other names
            try:
                dask.compute(*tasks.values(), **how, callbacks=[callback])
            except BaseException as error:
                news.put(error)
            else:
                news.put(None)

        threads = ThreadPoolExecutor(self.workers, "lightsam-task") if self.name == "threads" else None
        executor = threads or self._start_processes()
        thread = threading.Thread(target=compute, name="lightsam-tasks", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    event = news.get(timeout=_BEAT)
                except queue.Empty:
                    yield None
                    continue
                if event is None:
                    return
                if isinstance(event, BaseException):
                    raise event
                yield event
        except BrokenProcessPool:
            self._drop_processes()
            raise
        except BaseException:
            hold.give_up()
            self._end_processes()
            if threads is not None:
                threads.shutdown(wait=True, cancel_futures=True)
            thread.join(_PATIENCE)
            raise
        finally:
            if threads is not None:
                threads.shutdown(wait=False)

    def _start_processes(self) -> Executor:
        """Return the worker processes; they stay from one stage of a run to the next, with their models."""
        if self._processes is None:
            self._processes = Processes(self.workers)
        return self._processes.executor

    def _drop_processes(self) -> None:
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _end_processes(self) -> None:
        if self._processes is not None:
            self._processes.end(_PATIENCE)
            self._processes = None

    def _run_distributed(self, left: dict[str, Any], hold: Hold) -> Events:
        """Compute on a cluster: dask itself gives the tasks of dead workers to others."""
        from distributed.scheduler import KilledWorker

        lost = (OSError, CancelledError)  # what dask raises for a lost connection, and for its tasks
        news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            futures = self._client.compute(list(left.values()), optimize_graph=False)
        except OSError as error:
            raise self._lost() from error
        names = {future.key: name for future, name in zip(futures, left, strict=True)}
        for future in futures:
            future.add_done_callback(news.put)
        waiting = len(futures)
        try:
            while waiting:
                try:
                    future = news.get(timeout=_BEAT)
                except queue.Empty:
                    yield None
                    continue
                waiting -= 1
                try:
                    outcome = future.result()
                except KilledWorker as error:
                    outcome = WorkerLostError(f"its workers died, perhaps for want of memory ({error})")
                except lost as error:
                    if future.status not in ("cancelled", "lost"):
                        raise  # of the task itself
                    raise self._lost() from error
                yield names[future.key], outcome
        finally:
            if waiting:
                hold.give_up()
                until = time.monotonic() + _PATIENCE
                with suppress(queue.Empty):
                    for _ in range(waiting):
                        news.get(timeout=max(0.0, until - time.monotonic()))
                with suppress(*lost, TimeoutError):  # nobody is there to be told
                    self._client.cancel(futures, asynchronous=False, force=True)

    def _lost(self) -> SchedulerLostError:
        self._gone = True
        return SchedulerLostError(
            f"The connection to the dask scheduler at {self.name} was lost. Start it again; the same command "
            "goes on from what is finished."
        )


def _is_beginning() -> bool:
    """Whether this is a process that reads its script before it may start others."""
    return bool(getattr(current_process(), "_inheriting", False))  # which Python itself goes by


def count_cores() -> int:
    """Return how many cores this process may use; those of a container are what its quota allows."""
    from dask.system import cpu_count

    return int(cpu_count())


def _connect(address: str) -> Any:
    from distributed import Client

    try:
        return Client(address, timeout=10, set_as_default=False)
    except OSError as error:
        raise ConfigError(
            f"No dask scheduler answers at {address} ({error}). Check the address, or start one by "
            "`dask scheduler`."
        ) from error


def delay(function: Callable[..., Any], name: str, *arguments: Any) -> Any:
    """Make a task of a graph: a call with these arguments, some of which may be tasks themselves."""
    import dask

    return dask.delayed(function, pure=False, traverse=False)(*arguments, dask_key_name=name)


def constant(value: Any, name: str) -> Any:
    """Make a node of a graph out of a value that many tasks need: each worker receives it once."""
    import dask

    return dask.delayed(value, name=name, traverse=False)
