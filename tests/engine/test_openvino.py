"""The OpenVINO runtime against PyTorch, and what happens where it is missing or computes nonsense."""

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform", exc_type=ImportError)

from napari_lightsam import load_segmenter
from napari_lightsam.engine import openvino as openvino_module
from napari_lightsam.engine.openvino import OpenVinoRuntime
from napari_lightsam.engine.quantized import (
    encoder_identity,
    find_quantized,
    quantized_folder,
    store_quantized,
)
from napari_lightsam.engine.runtime import TorchRuntime, choose_device
from napari_lightsam.engine.starting import StartingRuntime, make_runtime
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError, DeviceError
from napari_lightsam.model.proposals import ProposalHead
from napari_lightsam.model.sam import PromptTensors

CPU = choose_device("cpu", "float32")


@pytest.fixture(scope="module")
def loaded():
    """The embedded model; with a proposal head of random weights where it has none."""
    loaded = load_model("lightsam")
    if loaded.model.proposal_head is None:
        torch.manual_seed(0)
        loaded.model.proposal_head = ProposalHead().eval().requires_grad_(False)
    return loaded


@pytest.fixture(scope="module")
def plain(loaded):
    return TorchRuntime(loaded.model, CPU)


@pytest.fixture(scope="module")
def fast(loaded):
    return OpenVinoRuntime(loaded, "float32")


def test_the_weights_of_the_torch_encoder_are_let_go_once_openvino_computes_alike():
    loaded = load_model("lightsam")
    encoder = weakref.ref(loaded.model.image_encoder)
    runtime = OpenVinoRuntime(loaded, "float32")
    assert encoder() is not None  # who made the model may still need it
    del loaded
    gc.collect()
    assert encoder() is None
    assert runtime.encode(frame_of(64, 64)).shape == (1, 256, 4, 4)


def frame_of(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)


def tokens_of(number, height=16, width=16):
    return 0.2 * torch.randn(number, 256, height, width, generator=torch.Generator().manual_seed(1))


def clicks(number, labels=(1,), side=256):
    points = torch.rand(number, len(labels), 2, generator=torch.Generator().manual_seed(2)) * side
    return PromptTensors(points, torch.tensor([labels]).expand(number, -1))


def close(found, expected):
    return np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", [(256, 256), (256, 512), (64, 96), (448, 224)], ids=str)
def test_one_graph_embeds_frames_of_any_size_like_torch(fast, plain, shape):
    frame = frame_of(*shape)
    tokens, expected = fast.encode(frame), plain.encode(frame)
    assert tokens.shape == expected.shape
    assert close(tokens, expected)


PROMPTS = {
    "one click": clicks(1),
    "more clicks than are decoded at once": clicks(37),
    "clicks of both kinds and padding": clicks(3, (1, 0, -1)),
    "boxes": PromptTensors(
        torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.long), torch.tensor([[20.0, 30, 90, 80]] * 2)
    ),
    "masks": clicks(2)._replace(
        masks=4 * tokens_of(2)[:, :1].repeat_interleave(4, 2).repeat_interleave(4, 3)
    ),
}


@pytest.mark.parametrize("multimask", [True, False], ids=["three masks", "one mask"])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS.keys())
def test_prompts_in_windows_of_their_own_are_decoded_like_torch(fast, plain, prompts, multimask):
    tokens = tokens_of(len(prompts.points))
    for found, expected in zip(
        fast.decode(tokens, prompts, multimask), plain.decode(tokens, prompts, multimask), strict=True
    ):
        assert found.shape == expected.shape
        assert close(found, expected)


def test_prompts_are_decoded_in_few_different_numbers_at_once(fast, monkeypatch):
    sizes = set()
    run = openvino_module._Graph.run

    def spy(self, inputs, outputs):
        sizes.add(len(outputs[0]))
        run(self, inputs, outputs)

    monkeypatch.setattr(openvino_module._Graph, "run", spy)
    whole = fast.decode(tokens_of(16, 8, 8), clicks(16), True)[0]
    for number in range(1, 17):
        some = clicks(16)
        some = some._replace(points=some.points[:number], labels=some.labels[:number])
        assert close(fast.decode(tokens_of(16, 8, 8)[:number], some, True)[0], whole[:number])
    assert sizes == {1, 2, 4, 8, 12, 16}


@pytest.mark.parametrize("size", [(16, 16), (24, 20), (64, 64)], ids=str)
def test_prompts_in_one_area_of_any_size_are_decoded_like_torch(fast, plain, size):
    tokens, prompts = tokens_of(1, *size), clicks(3, side=16 * min(size))
    for found, expected in zip(
        fast.decode(tokens, prompts, True), plain.decode(tokens, prompts, True), strict=True
    ):
        assert close(found, expected)


def test_objects_are_proposed_like_torch(fast, plain):
    tokens = tokens_of(1, 16, 32)
    assert close(fast.propose(tokens), plain.propose(tokens))


def test_a_model_without_a_proposal_head_proposes_nothing(fast, monkeypatch):
    monkeypatch.setattr(fast._model, "proposal_head", None)
    assert fast.propose(tokens_of(1)) is None


def test_masks_of_a_real_image_are_those_of_torch_by_default(segmenter, nuclei):
    image, labels = nuclei
    ids = [i for i in np.unique(labels) if (labels == i).sum() > 100][:20]
    points = np.array([np.argwhere(labels == i).mean(axis=0) for i in ids])[:, None]
    default = load_segmenter(device="cpu")
    assert default.runtime_name == "openvino"
    assert "OpenVINO" in default.device_reason
    arrays = [
        s.predict(s.embed(image, object_size=26), points=points).to_array() for s in (segmenter, default)
    ]
    shared, either = (op(*arrays).sum(axis=(1, 2)) for op in (np.logical_and, np.logical_or))
    assert np.median(shared / either) > 0.98
    assert (shared / either).mean() > 0.95


def test_equal_settings_give_equal_bits_from_any_thread(fast):
    frames = [frame_of(128, 128, seed) for seed in range(3)]
    prompts = clicks(2, side=128)

    def answer(frame):
        tokens = fast.encode(frame)
        return tokens, fast.decode(tokens, prompts, False)[0]

    expected = [answer(frame) for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for (tokens, logits), one in zip(pool.map(answer, frames), expected, strict=True):
                assert torch.equal(tokens, one[0])
                np.testing.assert_array_equal(logits, one[1])


def test_a_result_is_not_overwritten_by_the_next(fast):
    first = fast.encode(frame_of(128, 128, 1))
    kept = first.clone()
    fast.encode(frame_of(128, 128, 2))
    assert torch.equal(first, kept)


def test_the_number_of_threads_that_was_asked_for_is_kept(loaded, monkeypatch):
    hints = []
    compile_model = openvino_module.load_openvino().Core.compile_model

    def spy(self, graph, device, given):
        hints.append(given)
        return compile_model(self, graph, device, given)

    monkeypatch.setattr(openvino_module.load_openvino().Core, "compile_model", spy)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    OpenVinoRuntime(loaded, "float32")
    assert {given["INFERENCE_NUM_THREADS"] for given in hints} == {1}


def test_torch_can_be_asked_for_and_a_cache_folder_is_not_needed(tmp_path, monkeypatch, loaded):
    (tmp_path / "cache").write_text("a file is in the way")
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "cache"))
    assert make_runtime(loaded, CPU, "float32").device.runtime == "openvino"
    assert make_runtime(loaded, CPU, "float32", "torch").device.runtime == "torch"


REFUSED = {
    "an unknown runtime": ({"runtime": "onnx"}, "auto, torch, openvino"),
    "a graphics card": ({"runtime": "openvino", "device": "cuda"}, "runs on the CPU"),
    "half precision": ({"runtime": "openvino", "precision": "float16"}, "does not run float16"),
    "int8 by torch": ({"runtime": "torch", "precision": "int8"}, "PyTorch does not run int8"),
    "int8 on a graphics card": ({"device": "cuda", "precision": "int8"}, "runs on the CPU"),
    "int8 before it was made": ({"precision": "int8"}, "lightsam quantize lightsam"),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_openvino_cannot_run_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        load_segmenter(**given)


def test_other_encoders_and_precisions_are_left_to_torch_with_the_reason(loaded):
    other = replace(loaded, spec=replace(loaded.spec, architecture="vit_b"))
    with pytest.raises(DeviceError, match=r"TinyViT.*runtime='torch'"):
        OpenVinoRuntime(other)
    runtime = make_runtime(other, CPU, "float32")
    assert isinstance(runtime, TorchRuntime)
    assert "TinyViT encoders only" in runtime.device.reason


def test_where_openvino_is_missing_it_is_an_error_if_asked_for_and_else_a_reason(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DeviceError, match=r"cannot be used here.*runtime='torch'"):
        make_runtime(loaded, CPU, "float32", "openvino")
    runtime = make_runtime(loaded, CPU, "float32")
    assert runtime.device.runtime == "torch"
    assert "cannot be used here" in runtime.device.reason


@pytest.mark.parametrize("part", ["encode", "decode"])
@pytest.mark.parametrize("wrong", [np.nan, 0.01], ids=["nonsense", "one percent off"])
def test_what_differs_from_torch_on_a_small_image_is_given_up_with_a_warning(
    loaded, monkeypatch, part, wrong
):
    own = getattr(OpenVinoRuntime, part)

    def off(self, *given):
        result = own(self, *given)
        return (result[0] * (1 + wrong), result[1]) if part == "decode" else result * (1 + wrong)

    monkeypatch.setattr(OpenVinoRuntime, part, off)
    runtime = make_runtime(loaded, CPU, "float32")
    assert isinstance(runtime, StartingRuntime)
    with pytest.warns(LightSamWarning, match=r"differs from PyTorch.*PyTorch is used instead"):
        assert runtime.device.runtime == "torch"
    assert "differs" in runtime.device.reason  # and no second warning, which would be an error
    with pytest.raises(DeviceError, match="differs from PyTorch"):
        make_runtime(loaded, CPU, "float32", "openvino")


def test_whatever_fails_while_it_starts_leaves_the_work_to_torch_with_a_warning(loaded, monkeypatch):
    def changed(*_):
        raise TypeError("unexpected keyword")

    monkeypatch.setattr(openvino_module, "encoder_graph", changed)
    runtime = make_runtime(loaded, CPU, "float32")
    with pytest.warns(LightSamWarning, match=r"unexpected keyword.*PyTorch is used instead"):
        assert runtime.device.runtime == "torch"


def test_an_error_while_it_runs_says_what_to_use_instead(fast):
    with pytest.raises(DeviceError, match=r"OpenVINO failed.*runtime='torch'"):
        fast.encode(np.zeros((4, 64, 64), np.float32))


def write_encoder(folder):
    (folder / "encoder.xml").write_text("<net/>")
    (folder / "encoder.bin").write_bytes(bytes(1000))


@pytest.mark.parametrize("damage", ["cut", "missing", "no list"])
def test_a_damaged_int8_encoder_is_not_used(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    assert store_quantized("ab", write_encoder) == find_quantized("ab")
    assert find_quantized("cd") is None
    assert quantized_folder("ab").stat().st_mode == quantized_folder("ab").parent.stat().st_mode
    weights = quantized_folder("ab") / "encoder.bin"
    if damage == "cut":
        os.truncate(weights, 10)
    else:
        (weights if damage == "missing" else weights.with_name("hashes.json")).unlink()
    assert find_quantized("ab") is None


@pytest.mark.parametrize("part", ["encoder.xml", "encoder.bin"])
def test_an_int8_encoder_calibrated_anew_is_another_one(tmp_path, part):
    for folder in ("first", "same", "other"):
        (tmp_path / folder).mkdir()
        write_encoder(tmp_path / folder)
    changed = tmp_path / "other" / part
    changed.write_bytes(changed.read_bytes() + b" ")
    first, same, other = (encoder_identity(tmp_path / f / "encoder.xml") for f in ("first", "same", "other"))
    assert first == same != other


def test_an_int8_encoder_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    store_quantized("ab", write_encoder)

    def full(_):
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store_quantized("ab", full)
    assert find_quantized("ab") is not None
    assert [path.name for path in (tmp_path / "int8").iterdir()] == [quantized_folder("ab").name]


def test_an_int8_encoder_that_is_in_use_elsewhere_stays_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    store_quantized("ab", write_encoder)
    folder, unlink, rename = quantized_folder("ab"), os.unlink, Path.rename

    def unlinked(path, **options):  # as on Windows, where the weights of a model are mapped from their file
        if os.fspath(path).endswith("encoder.bin"):
            raise PermissionError(13, "Access is denied")
        unlink(path, **options)

    def renamed(path, target):
        if path == folder:
            raise PermissionError(13, "Access is denied")
        return rename(path, target)

    monkeypatch.setattr(os, "unlink", unlinked)
    monkeypatch.setattr(Path, "rename", renamed)
    with pytest.raises(PermissionError):
        store_quantized("ab", write_encoder)
    assert find_quantized("ab") is not None


TELEMETRY = """
import os, socket, sys

def refuse(*_, **__):
    os.write(2, b"NETWORK")
    os._exit(3)

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from napari_lightsam import load_segmenter

assert load_segmenter(device="cpu").runtime_name == "openvino"
try:
    from napari_lightsam.engine.openvino import load_silently
    load_silently("nncf")
except ImportError:
    pass
assert not any(name.startswith("openvino_telemetry") for name in sys.modules), "telemetry was loaded"
"""


def test_openvino_and_nncf_send_nothing_and_write_nothing_into_the_home_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    private = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TELEMETRY)], env=kept | private, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


SIGNALLED = """
import gc, os, signal
from napari_lightsam import load_segmenter

signal.signal(signal.SIGINT, lambda *_: print("heard", flush=True))
models = [load_segmenter(device="cpu", runtime="openvino") for _ in range(3)]
for place in (1, 1):  # in another order than they came
    del models[place]
    gc.collect()
os.kill(os.getpid(), signal.SIGINT)
print("alive")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself that signal")
def test_ctrl_c_is_heard_after_models_have_come_and_gone():
    command = [sys.executable, "-W", "ignore", "-c", SIGNALLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\nalive\n"), done.stderr
