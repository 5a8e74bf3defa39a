import pytest

from napari_lightsam.engine.progress import Progress, drain


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
