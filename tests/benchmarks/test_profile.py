"""Profiles: steps are told apart and all there, operations are counted rightly. No test depends on speed."""

from itertools import count

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform", exc_type=ImportError)

from benchmarks.stopwatch import CLICK, EVERYTHING, Stopwatch, WatchedRuntime

from benchmarks import profile, stopwatch
from napari_lightsam import EverythingConfig, Segmenter, drain
from napari_lightsam.engine.openvino import load_openvino
from napari_lightsam.engine.openvino_encoder import encoder_graph
from napari_lightsam.engine.weights import load_model


def test_a_step_within_another_stops_its_clock(monkeypatch):
    clock = count()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(clock)))
    watch = Stopwatch()
    with watch.step("outer"):
        with watch.step("inner"):
            pass
        with watch.step("inner"):
            pass
    assert watch.seconds == {"outer": 3.0, "inner": 2.0}


@pytest.mark.parametrize("places", [CLICK, EVERYTHING], ids=["click", "everything"])
def test_all_functions_that_are_timed_exist_and_are_put_back(places):
    before = [getattr(owner, name) for _, owner, name in places]
    with Stopwatch().watching(places):
        assert all(getattr(o, n) is not f for (_, o, n), f in zip(places, before, strict=True))
    assert [getattr(owner, name) for _, owner, name in places] == before


def test_timers_change_no_result_and_every_step_is_seen(segmenter, nuclei):
    image, config = nuclei[0][:128, :128], EverythingConfig(object_size=26)
    watch = Stopwatch()
    watched = Segmenter(segmenter.spec, WatchedRuntime(segmenter.runtime, watch), segmenter.weights_hash)
    results = []
    found = watch.split(lambda: results.append(drain(watched.everything(image, config))), EVERYTHING, 1)
    plain = drain(segmenter.everything(image, config))
    assert all(np.array_equal(result.labels, plain.labels) for result in results)
    names = {name for name, _, _ in EVERYTHING}
    assert names | {"encoder", "proposal_head", "decoder"} <= set(found["steps"])
    embedding = watched.embed(image, object_size=26)
    found = watch.split(lambda: watched.predict(embedding, points=[(60, 60)]), CLICK, 1)
    assert {name for name, _, _ in CLICK} | {"decoder"} <= set(found["steps"])


def test_operations_counted_on_the_graph_are_those_that_torch_counts():
    encoder = load_model("lightsam").model.image_encoder
    graph = encoder_graph(load_openvino(), encoder)
    graph.reshape([1, 3, 256, 256])
    flops = profile.graph_flops(graph)
    assert set(flops) == {"convolutions", "depth-wise convolutions", "linear layers", "attention in windows"}
    assert sum(flops.values()) == pytest.approx(profile.plain_flops(encoder, 256), rel=0.02)


def test_layers_are_timed_by_kind():
    encoder = load_model("lightsam").model.image_encoder
    request = profile.compiled(encoder_graph(load_openvino(), encoder), "float32", profiled=True)
    took = profile.time_by_kind(request, np.zeros((1, 3, 64, 64), np.float32), 1)
    assert min(took[kind] for kind in ("convolutions", "linear layers", "attention in windows")) > 0
    assert took.get("other", 0.0) < 0.1 * sum(took.values())
