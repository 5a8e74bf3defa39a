"""A model is not used where its threads are missing: that would wait for ever."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lightsam import load_segmenter
from napari_lightsam.engine.forked import check_not_forked
from napari_lightsam.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

PLANE = np.indices((64, 64)).sum(axis=0).astype(np.uint8)


def said_in_a_fork(work: Callable[[], object]) -> str:
    """What a forked process raises; "" where it has not ended after a while."""
    here, there = multiprocessing.Pipe()

    def run() -> None:
        try:
            work()
            there.send("nothing")
        except DeviceError as error:
            there.send(str(error))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python itself warns of what is tested here
        process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
        process.start()
    said = here.recv() if here.poll(20) else ""
    process.kill()
    process.join()
    return said


@pytest.mark.parametrize("runtime", ["torch", "auto"])
def test_a_forked_process_says_what_to_do_instead_of_waiting_for_ever(runtime: str) -> None:
    segmenter = load_segmenter(runtime=runtime)  # type: ignore[arg-type]  # which may be starting still

    for work in (lambda: segmenter.embed(PLANE, object_size=26), load_segmenter):
        assert "multiprocessing.get_context('spawn')" in said_in_a_fork(work)
    check_not_forked()  # it is not this process
    assert segmenter.embed(PLANE, object_size=26).shape == (64, 64)


def test_what_was_encoded_is_not_decoded_in_a_forked_process(segmenter) -> None:
    embedding = segmenter.embed(PLANE, object_size=26)

    assert "forked" in said_in_a_fork(lambda: segmenter.predict(embedding, points=[(9, 9)]))
