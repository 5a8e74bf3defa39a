import numpy as np
import pytest

from napari_lightsam.engine.progress import Progress, drain, relay
from napari_lightsam.errors import ConfigError


def counting(log):
    try:
        for i in range(3):
            yield Progress("counting", i, 3)
        return "result"
    finally:
        log.append("closed")


def test_draining_returns_the_result_and_reports_every_step():
    seen, log = [], []
    assert drain(counting(log), seen.append) == "result"
    assert seen == [Progress("counting", i, 3) for i in range(3)]
    assert log == ["closed"]


@pytest.mark.parametrize("given", [np.zeros((3, 3)), None, [1]], ids=["labels", "nothing", "a list"])
def test_a_result_is_no_work_to_drain(given):
    with pytest.raises(ConfigError, match=f"long work, .* got {type(given).__name__}. Functions such as"):
        drain(given)


def test_work_is_closed_when_the_listener_raises():
    log = []

    def stop(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(counting(log), stop)
    assert log == ["closed"]


def test_an_error_in_the_work_reaches_the_caller():
    def failing():
        yield Progress("trying", 0, 1)
        raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        drain(failing())


def test_relayed_work_keeps_its_result_while_its_steps_are_told_otherwise():
    seen, log = [], []
    work = relay(counting(log), lambda step: Progress("all of it", step.done + 10, 20))
    assert drain(work, seen.append) == "result"
    assert seen == [Progress("all of it", i, 20) for i in (10, 11, 12)]


def test_closing_relayed_work_closes_what_it_relays():
    log = []
    work = relay(counting(log), lambda step: step)
    next(work)
    work.close()
    assert log == ["closed"]


def test_an_error_of_relayed_work_reaches_whoever_relays_it():
    def failing():
        yield Progress("trying", 0, 1)
        raise ValueError("no luck")

    def naming():
        try:
            return (yield from relay(failing(), lambda step: step))
        except ValueError as error:
            raise ValueError("plane 3") from error

    with pytest.raises(ValueError, match="plane 3"):
        drain(naming())
