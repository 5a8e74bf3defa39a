"""The OpenVINO runtime against PyTorch, and what happens where it is missing or damaged."""

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform", exc_type=ImportError)

from napari_lightsam import load_segmenter
from napari_lightsam.cli import app
from napari_lightsam.engine import openvino as openvino_module
from napari_lightsam.engine.converted import folder_of, is_prepared, mark_prepared
from napari_lightsam.engine.image import LightSamWarning
from napari_lightsam.engine.openvino import OpenVinoRuntime, make_runtime
from napari_lightsam.engine.runtime import TorchRuntime, choose_device
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError, DeviceError


@pytest.fixture(scope="module")
def loaded():
    return load_model("lightsam")


@pytest.fixture(scope="module")
def cache(tmp_path_factory, loaded):
    """A cache folder with the converted model; converting warns of nothing."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error")
        patch.setenv("LIGHTSAM_CACHE", str(folder))
        OpenVinoRuntime(loaded, "float32")
    return folder


@pytest.fixture
def no_conversion(cache, monkeypatch):
    """Use the converted model; converting again is an error."""
    monkeypatch.setenv("LIGHTSAM_CACHE", str(cache))
    monkeypatch.setattr(openvino_module, "export_encoder", None)
    return cache


@pytest.fixture
def empty_cache(cache, tmp_path, monkeypatch):
    """An empty cache folder, and conversions that copy the real one; returns the list of their targets."""
    targets = []

    def convert(*_):
        def write(folder):
            targets.append(folder)
            for file in next((cache / "openvino").iterdir()).glob("encoder.*"):
                shutil.copy(file, folder)

        return write

    monkeypatch.setattr(openvino_module, "_convert", convert)
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "cache"))
    return targets


@pytest.fixture(scope="module")
def plain(loaded):
    return TorchRuntime(loaded.model, choose_device("cpu", "float32"))


@pytest.fixture(scope="module")
def converted(cache, loaded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTSAM_CACHE", str(cache))
        return OpenVinoRuntime(loaded, "float32")


def frame_of(height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)


@pytest.mark.parametrize("shape", [(256, 256), (256, 768), (1024, 512), (64, 96)], ids=str)
def test_one_conversion_embeds_frames_of_any_size_like_torch(converted, plain, shape):
    frame = frame_of(*shape)
    tokens, expected = converted.encode(frame), plain.encode(frame)
    assert tokens.shape == expected.shape
    assert (tokens - expected).norm() < 1e-5 * expected.norm()


def test_masks_of_a_real_image_are_those_of_torch(no_conversion, segmenter, nuclei):
    image, labels = nuclei
    ids = [i for i in np.unique(labels) if (labels == i).sum() > 100][:20]
    points = np.array([np.argwhere(labels == i).mean(axis=0) for i in ids])[:, None]
    arrays = []
    for one in (segmenter, load_segmenter(device="cpu", runtime="openvino")):
        arrays.append(one.predict(one.embed(image, object_size=26), points=points).to_array())
    shared, either = (op(*arrays).sum(axis=(1, 2)) for op in (np.logical_and, np.logical_or))
    assert np.median(shared / either) > 0.98
    assert (shared / either).mean() > 0.95


def test_equal_settings_give_equal_bits_from_any_thread(converted):
    frames = [frame_of(256, 256, seed) for seed in range(3)]
    expected = [converted.encode(frame) for frame in frames]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            for tokens, one in zip(pool.map(converted.encode, frames), expected, strict=True):
                assert torch.equal(tokens, one)


def test_a_result_is_not_overwritten_by_the_next(converted):
    first = converted.encode(frame_of(256, 256, 1))
    kept = first.clone()
    converted.encode(frame_of(256, 256, 2))
    assert torch.equal(first, kept)


def test_auto_is_torch_whatever_is_in_the_cache_until_the_model_is_prepared(no_conversion, loaded):
    assert load_segmenter(device="cpu").runtime_name == "torch"
    mark_prepared(loaded.weights_hash, "lightsam", on=True)
    try:
        chosen = load_segmenter(device="cpu")
        assert chosen.runtime_name == "openvino"
        assert "prepared" in chosen.device_reason
        assert load_segmenter(device="cpu", runtime="torch").runtime_name == "torch"
    finally:
        mark_prepared(loaded.weights_hash, "lightsam", on=False)
    assert load_segmenter(device="cpu").runtime_name == "torch"


def test_the_command_line_prepares_a_model_and_takes_it_back(no_conversion, loaded):
    run = CliRunner()
    done = run.invoke(app, ["models", "prepare"])
    assert done.exit_code == 0, done.output
    assert "auto is now openvino" in done.output
    assert is_prepared(loaded.weights_hash)
    assert "OpenVINO on the CPU for lightsam" in run.invoke(app, ["info"]).output
    done = run.invoke(app, ["models", "prepare", "--undo"])
    assert "auto is now torch" in done.output
    assert not is_prepared(loaded.weights_hash)
    assert "no model was prepared" in run.invoke(app, ["info"]).output


REFUSED = {
    "an unknown runtime": ({"runtime": "onnx"}, "auto, torch, openvino"),
    "a graphics card": ({"runtime": "openvino", "device": "cuda"}, "runs on the CPU"),
    "half precision": ({"runtime": "openvino", "precision": "float16"}, "does not run float16"),
}


@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_openvino_cannot_run_is_refused(no_conversion, given, words):
    with pytest.raises(ConfigError, match=words):
        load_segmenter(**given)


def test_another_encoder_than_tinyvit_is_refused(no_conversion, loaded):
    other = replace(loaded, spec=replace(loaded.spec, architecture="vit_b"))
    with pytest.raises(DeviceError, match=r"TinyViT.*runtime='torch'"):
        OpenVinoRuntime(other)


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "no list"])
def test_a_damaged_conversion_is_made_again(empty_cache, tmp_path, loaded, damage):
    OpenVinoRuntime(loaded, "float32")
    OpenVinoRuntime(loaded, "float32")
    assert len(empty_cache) == 1
    [folder] = (tmp_path / "cache" / "openvino").iterdir()
    weights = folder / "encoder.bin"
    if damage == "cut":
        os.truncate(weights, 1000)
    elif damage == "changed":
        content = bytearray(weights.read_bytes())
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    else:
        (weights if damage == "missing" else folder / "hashes.json").unlink()
    OpenVinoRuntime(loaded, "float32")
    assert len(empty_cache) == 2
    OpenVinoRuntime(loaded, "float32")
    assert len(empty_cache) == 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_weights_and_versions_have_conversions_of_their_own():
    assert len({folder_of((weights, version)) for weights in ("ab", "cd") for version in ("1", "2")}) == 4


@pytest.mark.parametrize("fault", ["a file is in the way", "the disk is full"])
def test_without_a_usable_cache_folder_it_works_with_a_warning(
    empty_cache, tmp_path, loaded, plain, monkeypatch, fault
):
    if fault == "the disk is full":

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(openvino_module, "store", full)
    else:
        (tmp_path / "cache").write_text("")
    with pytest.warns(LightSamWarning, match="cannot be kept"):
        runtime = OpenVinoRuntime(loaded, "float32")
    assert not empty_cache[-1].exists()
    frame = frame_of(256, 256)
    assert (runtime.encode(frame) - plain.encode(frame)).norm() < 1e-4 * plain.encode(frame).norm()


def test_a_write_that_fails_leaves_nothing_behind(empty_cache, tmp_path, loaded, monkeypatch):
    def fsync(_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("napari_lightsam.engine.converted.os.fsync", fsync)
    with pytest.warns(LightSamWarning, match="cannot be kept"):
        OpenVinoRuntime(loaded, "float32")
    assert list((tmp_path / "cache" / "openvino").iterdir()) == []


@pytest.fixture
def prepared(no_conversion, loaded):
    mark_prepared(loaded.weights_hash, "lightsam", on=True)
    yield
    mark_prepared(loaded.weights_hash, "lightsam", on=False)


def test_where_openvino_is_missing_it_is_an_error_if_asked_for_and_else_a_warning(
    prepared, loaded, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    device = choose_device("cpu", "float32")
    with pytest.raises(DeviceError, match=r"cannot be used here.*runtime='torch'"):
        make_runtime(loaded, device, "float32", "openvino")
    with pytest.warns(LightSamWarning, match="cannot be used here.*PyTorch is used instead"):
        runtime = make_runtime(loaded, device, "float32")
    assert runtime.device.runtime == "torch"
    assert "OpenVINO failed" in runtime.device.reason


@pytest.mark.parametrize("wrong", [np.nan, 0.01], ids=["nonsense", "one percent off"])
def test_what_differs_from_torch_on_a_small_image_is_given_up_with_a_warning(
    no_conversion, loaded, monkeypatch, wrong
):
    embed = OpenVinoRuntime._embed
    monkeypatch.setattr(OpenVinoRuntime, "_embed", lambda self, frame: embed(self, frame) * (1 + wrong))
    with pytest.warns(LightSamWarning, match="differs from PyTorch.*PyTorch is used instead"):
        runtime = make_runtime(loaded, choose_device("cpu", "float32"), "float32", "openvino")
    assert isinstance(runtime, TorchRuntime)


def test_an_error_while_it_runs_says_what_to_use_instead(converted):
    with pytest.raises(DeviceError, match=r"OpenVINO failed.*runtime='torch'"):
        converted.encode(np.zeros((4, 64, 64), np.float32))


TELEMETRY = """
import os, socket, sys, tempfile

def refuse(*_, **__):
    os.write(2, b"NETWORK")
    os._exit(3)

socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
import torch
from napari_lightsam.engine.openvino import load_openvino

openvino = load_openvino()
layer = torch.nn.Linear(2, 2).eval()
model = openvino.convert_model(torch.export.export(layer, (torch.zeros(1, 2),)))
with tempfile.TemporaryDirectory() as folder:
    openvino.save_model(model, folder + "/model.xml")
    openvino.Core().compile_model(folder + "/model.xml", "CPU")
assert not any(name.startswith("openvino_telemetry") for name in sys.modules), "telemetry was loaded"
"""


def test_openvino_sends_nothing_and_writes_nothing_into_the_home_folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    private = {"HOME": str(home), "USERPROFILE": str(home), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TELEMETRY)], env=kept | private, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []
