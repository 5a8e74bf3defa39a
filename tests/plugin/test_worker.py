from __future__ import annotations

import queue
import threading
import time

import pytest

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.worker import Lane, Worker


@pytest.fixture
def calls():
    return queue.Queue()


@pytest.fixture
def worker(calls):
    one = Worker(calls.put)
    yield one
    one.close()
    assert one.join(5)


def count(n, log=None, hold=None):
    """Yield n steps and return n."""
    try:
        for i in range(n):
            if hold is not None:
                assert hold.wait(5)
            yield Progress("counting", i + 1, n)
    finally:
        if log is not None:
            log.append(threading.get_ident())
    return n


def deliver(calls, seconds=5.0):
    calls.get(timeout=seconds)()


def test_result_and_progress_arrive_on_the_main_thread(worker, calls):
    got = []
    worker.submit(Lane.RUN, count(2), got.append, got.append, lambda p: got.append(p.done))
    for _ in range(3):
        deliver(calls)
    assert got == [1, 2, 2]
    assert not worker.is_busy(Lane.RUN)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, MemoryError, KeyboardInterrupt])
def test_no_error_is_lost_and_the_thread_goes_on(worker, calls, kind):
    def fail():
        yield Progress("starting", 0, 1)
        raise kind("from the depths")

    got = []
    worker.submit(Lane.PROMPT, fail(), got.append, got.append)
    deliver(calls)
    assert isinstance(got[0], kind)
    worker.submit(Lane.PROMPT, count(1), got.append, got.append)
    deliver(calls)
    assert got[1] == 1


def test_the_latest_request_wins(worker, calls):
    hold, got = threading.Event(), []
    worker.submit(Lane.PROMPT, count(1, hold=hold), lambda _: got.append("first"), got.append)
    worker.submit(Lane.PROMPT, count(1), lambda _: got.append("second"), got.append)
    worker.submit(Lane.PROMPT, count(1), lambda _: got.append("third"), got.append)
    hold.set()
    deliver(calls)
    assert got == ["third"]
    with pytest.raises(queue.Empty):
        deliver(calls, 0.2)


def test_a_result_that_was_on_its_way_when_it_was_replaced_is_dropped(worker, calls):
    got = []
    worker.submit(Lane.PROMPT, count(0), lambda _: got.append("old"), got.append)
    late = calls.get(timeout=5)
    worker.submit(Lane.PROMPT, count(0), lambda _: got.append("new"), got.append)
    late()
    deliver(calls)
    assert got[-1] == "new"


def test_cancelled_work_is_closed_and_never_heard_of_again(worker, calls):
    log, got, hold = [], [], threading.Event()
    worker.submit(Lane.RUN, count(100, log, hold), got.append, got.append, got.append)
    assert worker.cancel(Lane.RUN)
    assert not worker.is_busy(Lane.RUN)
    hold.set()
    worker.submit(Lane.PROMPT, count(1), got.append, got.append)
    while 1 not in got:
        deliver(calls)
    assert got == [1]
    assert not worker.cancel(Lane.RUN)


def test_a_prompt_is_answered_in_the_middle_of_a_run(worker, calls):
    got, hold = [], threading.Event()
    worker.submit(Lane.RUN, count(50, hold=hold), lambda _: got.append("run"), got.append)
    worker.submit(Lane.PROMPT, count(1), lambda _: got.append("prompt"), got.append)
    hold.set()
    while len(got) < 2:
        deliver(calls)
    assert got == ["prompt", "run"]


def test_everything_runs_and_ends_on_one_thread(worker, calls):
    log = []
    for _ in range(3):
        worker.submit(Lane.PROMPT, count(1, log), lambda _: None, lambda _: None)
        deliver(calls)
    assert len(set(log)) == 1
    assert threading.get_ident() not in log


def test_a_closed_worker_ends_its_thread_and_takes_no_more_work(calls):
    worker, log = Worker(calls.put), []
    worker.submit(Lane.RUN, count(10_000_000, log), lambda _: None, lambda _: None)
    worker.close()
    assert worker.join(5)
    worker.submit(Lane.RUN, count(1), lambda _: pytest.fail("ran"), lambda _: None)
    assert not worker.is_busy(Lane.RUN)


def test_a_window_destroyed_under_the_worker_does_no_harm():
    def gone(_call):
        raise RuntimeError("wrapped C/C++ object has been deleted")

    worker = Worker(gone)
    worker.submit(Lane.RUN, count(3), lambda _: None, lambda _: None, lambda _: None)
    assert worker.join(5)


def test_a_result_that_is_on_its_way_when_its_work_is_cancelled_never_arrives(worker, calls):
    arrived = []
    worker.submit(Lane.PROMPT, count(1), arrived.append, arrived.append)
    waiting = calls.get(timeout=5)
    while worker.is_busy(Lane.PROMPT):
        time.sleep(0.001)
    worker.cancel(Lane.PROMPT)
    waiting()
    assert arrived == []


def test_a_free_lane_has_its_last_callback_on_the_way():
    calls = queue.Queue()

    def deliver_slowly(call):
        time.sleep(0.1)
        calls.put(call)

    worker = Worker(deliver_slowly)
    worker.submit(Lane.RUN, count(0), lambda result: None, lambda error: None)
    while worker.is_busy(Lane.RUN):
        time.sleep(0.001)
    assert not calls.empty()
    worker.close()
    assert worker.join(5)


def test_an_answer_that_takes_a_moment_can_be_had_before_anything_is_painted_and_arrives_once(worker, calls):
    done = []

    def work():
        yield Progress("thinking", 0, 0)
        return 5

    worker.submit(Lane.PROMPT, work(), done.append, done.append)
    assert worker.answer_now(Lane.PROMPT, 10)
    assert done == [5]
    while not calls.empty():
        calls.get()()
    assert done == [5]
    assert not worker.answer_now(Lane.PROMPT, 10)


def test_an_answer_that_was_delivered_is_not_called_back_again(worker, calls):
    done = []
    worker.submit(Lane.PROMPT, count(1), done.append, done.append)
    while worker.is_busy(Lane.PROMPT):
        time.sleep(0.001)
    worker.later(lambda: worker.answer_now(Lane.PROMPT, 10))  # after the answer, which is on its way
    while not calls.empty():
        calls.get()()
    assert done == [1]


def test_the_window_does_not_wait_for_an_answer_while_the_worker_does_something_else(worker, calls):
    begun, gate = threading.Event(), threading.Event()

    def long():
        begun.set()
        gate.wait(10)
        yield Progress("running", 0, 0)

    def short():
        yield Progress("thinking", 0, 0)

    worker.submit(Lane.RUN, long(), print, print)
    assert begun.wait(5)  # else the prompt, which goes first, could be answered before the run begins
    worker.submit(Lane.PROMPT, short(), print, print)
    asked = time.monotonic()
    try:
        assert not worker.answer_now(Lane.PROMPT, 60)
    finally:
        gate.set()
    assert time.monotonic() - asked < 30
