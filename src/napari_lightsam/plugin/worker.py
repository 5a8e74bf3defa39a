"""One long-lived thread that does all heavy work: latest wins, errors always arrive, cancel is immediate."""

from __future__ import annotations

import atexit
import itertools
import threading
import weakref
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_lightsam.engine.progress import Progress, Work


class Lane(IntEnum):
    """Kinds of work; one job each, a lower number goes first."""

    PROMPT = 0
    EDIT = 1
    FILTER = 2
    PREPARE = 3
    MEASURE = 4
    HOVER = 5
    RUN = 6
    DOWNLOAD = 7
    TEACH = 8
    SAVE = 9
    AUTOSAVE = 10
    BATCH = 11
    AHEAD = 12
    FOLLOW = 13
    WHOLE = 14


@dataclass(slots=True, eq=False)
class _Job:
    lane: Lane
    work: Work[Any]
    on_done: Callable[[Any], object]
    on_error: Callable[[BaseException], object]
    on_progress: Callable[[Progress], object] | None
    turn: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    answer: Callable[[], object] | None = None


class Worker:
    """Runs generators of `Progress` step by step on one thread of its own.

    torch keeps a team of threads for every thread that calls it, so one long-lived thread is faster than
    a pool. Between two steps of long work a waiting prompt is served, so clicking stays live during a run.

    Parameters
    ----------
    deliver
        Calls a function on the main thread, later; given by the user interface.

    Notes
    -----
    `submit` and `cancel` belong to the main thread, and all callbacks are called there.
    """

    def __init__(self, deliver: Callable[[Callable[[], None]], object]) -> None:
        self._deliver = deliver
        self._wake = threading.Condition()
        self._jobs: dict[Lane, _Job] = {}
        self._sent: dict[Lane, _Job] = {}
        self._dropped: list[_Job] = []
        self._turns = itertools.count()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(
        self,
        lane: Lane,
        work: Work[Any],
        on_done: Callable[[Any], object],
        on_error: Callable[[BaseException], object],
        on_progress: Callable[[Progress], object] | None = None,
    ) -> None:
        """Run work in a lane; whatever waits or runs there is dropped, and its result never arrives."""
        with self._wake:
            if self._closed:
                work.close()
                return
            self._drop(lane)
            self._jobs[lane] = _Job(lane, work, on_done, on_error, on_progress)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="lightsam", daemon=True)
                self._thread.start()
                _LIVE.add(self)
            self._wake.notify()

    def cancel(self, lane: Lane) -> bool:
        """Drop the job of a lane; no callback of it is called any more. Returns whether there was one."""
        with self._wake:
            found = self._drop(lane)
            self._wake.notify()
            return found

    def is_busy(self, lane: Lane) -> bool:
        """Tell whether a job waits or runs in a lane; when not, its last callback is on its way."""
        with self._wake:
            return lane in self._jobs

    def later(self, call: Callable[[], None]) -> None:
        """Call a function on the main thread, after what goes on there now."""
        self._deliver(call)

    def answer_now(self, lane: Lane, seconds: float) -> bool:
        """Wait a moment for the job of a lane, and call it back at once rather than later.

        Returns
        -------
        bool
            Whether it ended in time; else, and when the worker does something else too, it calls back later.
        """
        with self._wake:
            if set(self._jobs) <= {lane}:
                self._wake.wait_for(lambda: lane not in self._jobs or self._closed, seconds)
            job = None if self._closed or lane in self._jobs else self._sent.pop(lane, None)
            if job is None or job.answer is None or job.cancelled.is_set():
                return False
            job.cancelled.set()  # the callback on its way is dropped
        job.answer()
        return True

    def close(self) -> None:
        """Drop all jobs and end the thread after the step under way; does not wait for it."""
        with self._wake:
            self._closed = True
            for lane in list(self._jobs):
                self._drop(lane)
            self._wake.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the thread to end after `close`; tells whether it did."""
        if self._thread is not None:
            self._thread.join(timeout)
            return not self._thread.is_alive()
        return True

    def _drop(self, lane: Lane) -> bool:
        sent = self._sent.pop(lane, None)
        if sent is not None:
            sent.cancelled.set()  # its result is on the way to the main thread, and out of date
        job = self._jobs.pop(lane, None)
        if job is None:
            return False
        job.cancelled.set()
        self._dropped.append(job)
        return True

    def _next(self) -> tuple[_Job | None, list[_Job]]:
        """Wait for something to do: a job's next step, or dropped jobs to be closed."""
        with self._wake:
            while not (self._jobs or self._dropped or self._closed):
                self._wake.wait()
            dropped, self._dropped = self._dropped, []
            # long work takes turns, short work goes first
            waiting = sorted(self._jobs.values(), key=lambda j: (min(j.lane, Lane.RUN), j.turn))
            job = waiting[0] if waiting else None
            if job is not None:
                job.turn = next(self._turns)
            return job, dropped

    def _loop(self) -> None:
        while self._turn():  # a function of its own, whose variables keep no job while nothing is to be done
            pass

    def _turn(self) -> bool:
        """Do one step of one job; tells whether to go on."""
        job, dropped = self._next()
        for old in dropped:
            # generators free their memory in their `finally`, on the thread that ran them
            self._close_work(old)
        if job is not None:
            self._step(job)
        return job is not None or not self._closed

    def _step(self, job: _Job) -> None:
        try:
            progress = next(job.work)
        except StopIteration as stop:
            self._send(job, partial(job.on_done, stop.value), final=True)
        except BaseException as error:
            self._send(job, partial(job.on_error, error), final=True)
        else:
            if job.on_progress is not None:
                self._send(job, partial(job.on_progress, progress), final=False)

    @staticmethod
    def _close_work(job: _Job) -> None:
        try:
            job.work.close()
        except Exception:
            # nobody waits for dropped work any more, and its cleaning up must not end the thread for all
            return

    def _send(self, job: _Job, call: Callable[[], object], *, final: bool) -> None:
        """Hand a callback to the main thread, which drops it when the job was replaced meanwhile."""

        def run() -> None:
            with self._wake:
                if job.cancelled.is_set():
                    return
                if final and self._sent.get(job.lane) is job:
                    del self._sent[job.lane]  # with its result, which is called back once
            call()

        with self._wake:  # nobody sees the lane free before the callback is on its way
            if final:
                if self._jobs.get(job.lane) is not job:
                    return
                del self._jobs[job.lane]
                self._sent[job.lane], job.answer = job, call
                self._wake.notify_all()
            if self._closed:
                return
            try:
                self._deliver(run)
            except RuntimeError:
                # the window was destroyed between the check above and the call
                self._closed = True


_LIVE: weakref.WeakSet[Worker] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """End all threads before the interpreter goes: torch crashes when it is torn down under a thread."""
    for worker in list(_LIVE):
        worker.close()
    for worker in list(_LIVE):
        worker.join(10)
