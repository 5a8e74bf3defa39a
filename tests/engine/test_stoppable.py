"""A network that is computing is ended when nobody wants what it computes."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.level import BlockCache, Embedding
from napari_lightsam.engine.openvino import _Graph
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import SAMPLERS
from napari_lightsam.engine.segmenter import load_segmenter
from napari_lightsam.engine.stopping import Stopped, check_stopped, stoppable
from napari_lightsam.engine.walk import Walk

FRAME = np.random.default_rng(0).normal(size=(3, 256, 256)).astype(np.float32)
LARGE = np.random.default_rng(0).normal(size=(3, 1536, 1536)).astype(np.float32)


@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_a_network_is_ended_while_it_computes_and_then_computes_as_before(runtime) -> None:
    try:
        network = load_segmenter("lightsam", device="cpu", precision="float32", runtime=runtime).runtime
    except Exception as error:
        pytest.skip(f"{runtime} does not run here: {error}")
    before = network.encode(FRAME)
    for _ in range(3):
        asked = []
        with pytest.raises(Stopped), stoppable(lambda asked=asked: asked.append(1) or len(asked) > 1):
            network.encode(LARGE)
        assert len(asked) == 2
        assert torch.equal(network.encode(FRAME), before)


def test_another_thread_is_not_asked_and_what_is_asked_inside_is_forgotten_outside() -> None:
    heard = []

    def elsewhere() -> None:
        check_stopped()
        heard.append("goes on")

    with stoppable(lambda: True):
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
        with stoppable(lambda: False), stoppable(None):
            check_stopped()
        with pytest.raises(Stopped):
            check_stopped()
    check_stopped()
    assert heard == ["goes on"]


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_a_walk_that_is_stopped_in_a_block_keeps_the_blocks_before_unless_nothing_is_wanted(
    whose, segmenter, sample
) -> None:
    image = sample("nuclei_fluorescence")[0][:256, :384]
    embedding = segmenter.lazy_embedding(image, object_size=26)
    level = replace(segmenter.level(embedding), side=512)
    blocks = level.block_list()
    assert len(blocks) > 1
    encoded = 0
    encode = segmenter.runtime.encode

    def count(frame):
        nonlocal encoded
        encoded += 1
        return encode(frame)

    def second() -> bool:
        return encoded > 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter.runtime, "encode", count)
        embedding = Embedding(embedding.plane, 26, segmenter.weights_hash, BlockCache(kept=1))
        walk = Walk(segmenter, embedding, EverythingConfig(), second if whose == "its own" else None)
        work = walk.through(level, blocks, SAMPLERS["object-aware"])
        if whose == "its own":
            parts = drain(work)
            assert walk.stopped
            assert sum(len(part) for part in parts) > 0
        else:
            with pytest.raises(Stopped), stoppable(second):
                drain(work)
    assert encoded == 2


def test_a_thread_that_waited_for_one_that_was_stopped_does_not_compile_the_graph_anew() -> None:
    compiled = []

    class Request:
        """Computes until it is cancelled."""

        def __init__(self) -> None:
            self.cancelled = threading.Event()
            self.cancel = self.cancelled.set
            self.start_async = started.set

        def wait_for(self, _: int) -> bool:
            return self.cancelled.wait(0.01)

        def wait(self) -> None:
            raise RuntimeError("cancelled")

    def compiling(_: bytes) -> SimpleNamespace:
        compiled.append(1)
        return first

    def compute() -> None:
        with stoppable(stop.is_set), suppress(Stopped):
            graph.run([], [])

    started, stop = threading.Event(), threading.Event()
    first = SimpleNamespace(create_infer_request=Request, export_model=bytes)
    graph = _Graph(None, first, compiling)
    both = [threading.Thread(target=compute) for _ in range(2)]
    for thread in both:
        thread.start()
    assert started.wait(10)
    stop.set()
    for thread in both:
        thread.join(10)
    assert not any(thread.is_alive() for thread in both)
    assert not compiled
