"""`python -m benchmarks.profile`: where the time and the memory go, and how far from the machine's limits.

The encoder beside the largest rate of one matrix product, by kind of layer; a click, and three images in
everything mode, by step; what was tried for speed; memory by stage. Prints Markdown, and writes it and its
figures to benchmarks/results/profile.md and profile.json.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import torch

from napari_lightsam.engine import openvino as openvino_runtime
from napari_lightsam.engine.openvino import OpenVinoRuntime, compile_hints, load_core, load_openvino
from napari_lightsam.engine.openvino_decoder import decoder_graph
from napari_lightsam.engine.openvino_encoder import encoder_graph
from napari_lightsam.engine.runtime import TorchRuntime, choose_device
from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.engine.weights import load_model
from napari_lightsam.model.sam import PromptTensors

from . import fresh, scenes
from .bench import segment
from .profile_tables import AREAS, as_markdown
from .report import machine, save_results
from .rows import pick_prompts
from .stopwatch import CLICK, EVERYTHING, Stopwatch, WatchedRuntime
from .timing import interleave

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_lightsam.engine.runtime import Runtime
    from napari_lightsam.engine.weights import LoadedModel

    from .scenes import Scene

RESULTS = Path(__file__).resolve().parent / "results" / "profile.json"

_PRODUCT = 2048  # rows, columns and depth of the matrix product that stands for the machine's limit
_KINDS = {
    "Convolution": "convolutions",
    "GroupConvolution": "depth-wise convolutions",
    "FullyConnected": "linear layers",
    # OpenVINO fuses the two products of an attention and the softmax between them.
    "Subgraph": "attention in windows",
    "MatMul": "attention in windows",
    "Softmax": "attention in windows",
    **dict.fromkeys(("Transpose", "Reorder", "Pad", "Slice", "Reshape", "Concat"), "moving data"),
    **dict.fromkeys(
        ("Add", "Subtract", "Multiply", "Divide", "Eltwise", "RMS", "MVN", "ReduceMean", "Gelu"),
        "norms and sums",
    ),
}
_SMALL = 256  # frame pixels, for the trials
_FIELD = "field_2048"
_LIBRARIES = ("numpy", "scipy.ndimage", "skimage.measure", "torch", "timm")


def precisions() -> dict[str, str]:
    """Return the columns: the best precision of this CPU, and float32."""
    capabilities = load_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return {"best": "bfloat16" if "BF16" in capabilities else "float32", "float32": "float32"}


def compiled(graph: Any, precision: str, *, profiled: bool = False) -> Any:
    """Compile a graph as the runtime does; returns a request to run it by."""
    options = compile_hints(precision) | ({"PERF_COUNT": "YES"} if profiled else {})
    return load_core().compile_model(graph, "CPU", options).create_infer_request()


def product_graph(side: int) -> Any:
    """Return one product of two square matrices, the second of which is constant, as in a linear layer."""
    openvino = load_openvino()
    from openvino import opset13 as op

    left = op.parameter([side, side], openvino.Type.f32)
    right = np.random.default_rng(0).standard_normal((side, side), np.float32)
    return openvino.Model([op.result(op.matmul(left, op.constant(right), False, True))], [left], "product")


def graph_flops(graph: Any) -> dict[str, float]:
    """Count the floating-point operations of a graph without open sides, by kind of layer.

    A multiplication and an addition are two. Norms, sums and activations are not counted.
    """
    flops: defaultdict[str, float] = defaultdict(float)
    for node in graph.get_ordered_ops():
        name = node.get_type_name()
        if name not in ("MatMul", "Convolution", "GroupConvolution"):
            continue
        first, second = (list(node.input(i).get_partial_shape().to_shape()) for i in (0, 1))
        size = math.prod(node.output(0).get_partial_shape().to_shape())
        if name == "MatMul":
            constant = node.input_value(1).get_node().get_type_name() == "Constant"
            kind, depth = _KINDS["FullyConnected" if constant else "MatMul"], first[-1]
        else:
            kind, depth = _KINDS[name], math.prod(second[1 if name == "Convolution" else 2 :])
        flops[kind] += 2.0 * size * depth
    return dict(flops)


def plain_flops(encoder: torch.nn.Module, side: int) -> float:
    """Count the floating-point operations of a torch encoder on one square frame."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops())


def time_by_kind(request: Any, frame: np.ndarray[Any, Any], repeat: int) -> dict[str, float]:
    """Return median milliseconds by kind of layer, from OpenVINO's own counters."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    request.infer([frame])
    for _ in range(repeat):
        request.infer([frame])
        took: defaultdict[str, float] = defaultdict(float)
        for node in request.profiling_info:
            took[_KINDS.get(node.node_type, "other")] += 1e3 * node.real_time.total_seconds()
        for kind in {*took, *samples}:
            samples[kind].append(took[kind])
    return {kind: statistics.median(values) for kind, values in samples.items()}


def profile_encoder(loaded: LoadedModel, side: int, repeat: int) -> dict[str, Any]:
    """Compare the encoder with the rate of one large product, and with the plain baseline's encoder."""
    from .baseline import PlainGenerator, published_network

    openvino, encoder = load_openvino(), loaded.model.image_encoder
    counted = encoder_graph(openvino, encoder)
    counted.reshape([1, 3, side, side])
    flops = graph_flops(counted)
    generator = PlainGenerator(published_network())
    frame = np.random.default_rng(0).standard_normal((1, 3, side, side), np.float32)
    left = np.random.default_rng(1).standard_normal((_PRODUCT, _PRODUCT), np.float32)
    jobs: dict[str, Callable[[], Any]] = {"plain": lambda: generator.encode(torch.from_numpy(frame))}
    kinds: dict[str, dict[str, float]] = {}
    for column, precision in precisions().items():
        product = compiled(product_graph(_PRODUCT), precision)
        jobs[f"{column}_product"] = lambda request=product: request.infer([left])
        runtime = OpenVinoRuntime(loaded, precision)  # type: ignore[arg-type]
        jobs[f"{column}_encoder"] = lambda runtime=runtime: runtime.encode(frame[0])
        out = {"bfloat16": "bf16", "float32": "f32"}[precision]
        request = compiled(encoder_graph(openvino, encoder, out), precision, profiled=True)
        kinds[column] = time_by_kind(request, frame, repeat)
    seconds = {name: measured.timing.wall for name, measured in interleave(jobs, repeat).items()}
    total = sum(flops.values())
    result: dict[str, Any] = {
        "side": side,
        "gflop": total / 1e9,
        "plain": {
            "gflop": plain_flops(generator.network.image_encoder, side) / 1e9,
            "ms": 1e3 * seconds["plain"],
        },
    }
    for column, precision in precisions().items():
        rate = 2.0 * _PRODUCT**3 / seconds[f"{column}_product"]
        own = seconds[f"{column}_encoder"]
        result[column] = {
            "precision": precision,
            "product_gflops": rate / 1e9,
            "ms": 1e3 * own,
            "gflops": total / own / 1e9,
            "of_limit": total / own / rate,
            "limit_ms": 1e3 * total / rate,
            "ratio": seconds["plain"] / own,
            "limit_ratio": seconds["plain"] * rate / total,
            "kinds": _kinds(kinds[column], flops, rate),
        }
    return result


def _kinds(took: Mapping[str, float], flops: Mapping[str, float], rate: float) -> dict[str, Any]:
    """Set the time of each kind of layer beside what it computes, slowest first."""
    whole = sum(took.values())
    return {
        kind: {
            "ms": ms,
            "share": ms / whole,
            "gflop": flops.get(kind, 0.0) / 1e9,
            "of_limit": flops.get(kind, 0.0) / (rate * ms / 1e3) if ms else 0.0,
        }
        for kind, ms in sorted(took.items(), key=lambda item: -item[1])
    }


def profile_click(runtime: Runtime, loaded: LoadedModel, repeat: int) -> dict[str, Any]:
    """Split a click on a cached embedding into its steps."""
    scene, watch = scenes.cells_1024(), Stopwatch()
    segmenter = Segmenter(loaded.spec, WatchedRuntime(runtime, watch), loaded.weights_hash)
    embedding = segmenter.embed(scene.image, object_size=scene.object_size)
    points = pick_prompts(scene, 1)[0][:, None]
    return watch.split(lambda: segmenter.predict(embedding, points=points), CLICK, 20 * repeat)


def profile_everything(runtime: Runtime, loaded: LoadedModel, scene: Scene, repeat: int) -> dict[str, Any]:
    """Split a run of everything mode into its steps."""
    watch = Stopwatch()
    segmenter = Segmenter(loaded.spec, WatchedRuntime(runtime, watch), loaded.weights_hash)
    found = watch.split(lambda: segment(segmenter, scene), EVERYTHING, repeat)
    return {"title": scene.describe(), **found}


def trials(loaded: LoadedModel, repeat: int) -> dict[str, float]:
    """Measure what was tried for speed, in the best precision: see docs/performance.md."""
    precision = precisions()["best"]
    openvino, model = load_openvino(), loaded.model
    kind = {"bfloat16": "bf16", "float32": "f32"}[precision]
    graphs = {
        "encoder": lambda: encoder_graph(openvino, model.image_encoder, kind),
        "decoder": lambda: decoder_graph(openvino, model, 16, 16, kind),
    }
    found: dict[str, float] = {}
    for name, build in graphs.items():
        start = time.perf_counter()
        graph = build()
        built = time.perf_counter()
        compiled(graph, precision)
        found |= {f"build_{name}": built - start, f"compile_{name}": time.perf_counter() - built}
    frame = np.random.default_rng(0).standard_normal((1, 3, 2 * _SMALL, 2 * _SMALL), np.float32)
    fixed = graphs["encoder"]()
    fixed.reshape(list(frame.shape))
    requests = {"open": compiled(graphs["encoder"](), precision), "fixed": compiled(fixed, precision)}
    took = interleave({n: lambda r=r: r.infer([frame]) for n, r in requests.items()}, repeat)
    found["open_to_fixed"] = took["open"].timing.wall / took["fixed"].timing.wall
    fast = OpenVinoRuntime(loaded, precision)  # type: ignore[arg-type]
    slow = TorchRuntime(loaded.model, choose_device("cpu", precision))  # type: ignore[arg-type]
    return found | _windows_at_once(fast, repeat) | _two_libraries(fast, slow, repeat)


def _clicks(runtime: Runtime, count: int) -> tuple[torch.Tensor, PromptTensors]:
    """Return windows of 16 x 16 tokens, and a click in each."""
    tokens = runtime.encode(np.random.default_rng(0).standard_normal((3, _SMALL, _SMALL), np.float32))
    clicks = PromptTensors(torch.full((count, 1, 2), 128.0), torch.ones((count, 1), dtype=torch.long))
    return tokens.expand(count, -1, -1, -1).contiguous(memory_format=torch.channels_last), clicks


def _windows_at_once(runtime: OpenVinoRuntime, repeat: int) -> dict[str, float]:
    """Time 64 windows, so many at once."""
    windows, clicks = _clicks(runtime, 64)

    def decode(area: int) -> None:
        with mock.patch.object(openvino_runtime, "_AREA", area):
            runtime.decode(windows, clicks, True)

    took = interleave({str(n): lambda area=area: decode(area) for n, area in AREAS.items()}, repeat)
    return {f"windows_64_by_{n}_ms": 1e3 * took[str(n)].timing.wall for n in AREAS}


def _two_libraries(fast: Runtime, slow: Runtime, repeat: int) -> dict[str, float]:
    """Return what processor time it takes to encode in one library and decode in another, in turns."""
    frame = np.random.default_rng(0).standard_normal((3, _SMALL, _SMALL), np.float32)
    own = {name: _clicks(runtime, 8) for name, runtime in (("fast", fast), ("slow", slow))}

    def turns(encoder: Runtime, decoder: Runtime, name: str) -> None:
        encoder.encode(frame)
        decoder.decode(*own[name], True)

    jobs: dict[str, Callable[[], Any]] = {
        "encode": lambda: fast.encode(frame),
        "decode": lambda: slow.decode(*own["slow"], True),
        "mixed": lambda: turns(fast, slow, "slow"),
        "one": lambda: turns(fast, fast, "fast"),
    }
    took = {name: measured.timing.cpu or 0.0 for name, measured in interleave(jobs, repeat).items()}
    return {
        "two_libraries_cpu": took["mixed"] / max(1e-9, took["encode"] + took["decode"]),
        "one_library_cpu_ms": 1e3 * took["one"],
        "two_libraries_cpu_ms": 1e3 * took["mixed"],
    }


def memory_stages(precision: str) -> dict[str, float | None]:
    """Return resident MiB after each stage of this process; meant for a fresh one."""
    load_openvino()
    stages: dict[str, float | None] = {"libraries": fresh.resident_memory()}
    scene = scenes.cells_1024()
    stages["image"] = fresh.resident_memory()
    loaded = load_model("lightsam")
    stages["weights"] = fresh.resident_memory()
    segmenter = Segmenter(loaded.spec, OpenVinoRuntime(loaded, precision), loaded.weights_hash)  # type: ignore[arg-type]
    stages["runtime"], stages["runtime_peak"] = fresh.resident_memory(), fresh.peak_memory()
    segment(segmenter, scene)
    stages["everything"], stages["everything_peak"] = fresh.resident_memory(), fresh.peak_memory()
    return stages


def library_memory() -> dict[str, float | None]:
    """Return resident MiB of a fresh process after each import that the model needs, one after the other."""
    lines = ["import json", "from benchmarks.fresh import resident_memory", "seen = {}"]
    for name in _LIBRARIES:
        lines += [f"import {name}", f"seen[{name.partition('.')[0]!r}] = resident_memory()"]
    printed = fresh.run_fresh(["-c", "\n".join([*lines, "print(json.dumps(seen))"])])
    seen: dict[str, float | None] = json.loads(printed.splitlines()[-1])
    return seen


def profile_memory() -> dict[str, Any]:
    """Follow the memory of everything mode in processes of their own, beside the plain baseline's peak."""
    found: dict[str, Any] = {"libraries": library_memory()}
    found["plain_peak"] = fresh.memory_of("plain", "float32", None)
    for column, precision in precisions().items():
        printed = fresh.run_fresh(["-m", "benchmarks.profile", "--memory", precision])
        found[column] = json.loads(printed.splitlines()[-1])
    return found


def measure(side: int, repeat: int, *, quick: bool = False) -> dict[str, Any]:
    """Run all parts."""
    loaded = load_model("lightsam")
    _tell("encoder")
    found: dict[str, Any] = {"encoder": profile_encoder(loaded, side, repeat)}
    images = {"crowd_256": scenes.crowd_256()}
    if not quick:
        images |= {"cells_1024": scenes.cells_1024(), _FIELD: scenes.field_2048()}
    found |= {"click": {}, "everything": {name: {} for name in images}}
    for column, precision in precisions().items():
        runtime = OpenVinoRuntime(loaded, precision)  # type: ignore[arg-type]
        _tell(f"click, {precision}")
        found["click"][column] = profile_click(runtime, loaded, repeat)
        for name, scene in images.items():
            _tell(f"{name}, {precision}")
            times = 1 if name == _FIELD else repeat
            found["everything"][name][column] = profile_everything(runtime, loaded, scene, times)
    _tell("trials")
    found["trials"] = trials(loaded, repeat)
    _tell("memory")
    return found | {"memory": profile_memory()}


def _tell(part: str) -> None:
    print(part, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="of the encoder's frame, in pixels")
    parser.add_argument("--repeat", type=int, default=5, help="samples of each step")
    parser.add_argument("--quick", action="store_true", help="only the smallest image in everything mode")
    parser.add_argument("--json", type=Path, default=RESULTS, help="write the figures here")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.memory:
        print(json.dumps(memory_stages(options.memory)))
        return 0
    about, found = machine(), measure(options.side, options.repeat, quick=options.quick)
    text = as_markdown(found, about)
    print(text, end="")
    save_results(options.json, about | found, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
