import warnings

import numpy as np
import pytest
import torch

from napari_lightsam.engine import runtime as runtime_module
from napari_lightsam.engine.runtime import Device, TorchRuntime, choose_device
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ConfigError, DeviceError
from napari_lightsam.model.build import build_sam
from napari_lightsam.model.sam import PromptTensors

FRAME = np.zeros((3, 64, 64), np.float32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_sam("vit_t").eval().requires_grad_(False)


@pytest.fixture
def runtime(network):
    return TorchRuntime(network, choose_device("cpu", "float32"))


def prompts(n):
    points = torch.rand(n, 1, 2, generator=torch.Generator().manual_seed(0)) * 64
    return PromptTensors(points, torch.ones(n, 1, dtype=torch.long))


def limit_memory(runtime, monkeypatch, most, words="CUDA out of memory. Tried to allocate 2 GiB"):
    """Let decoding fail for more than `most` prompts; returns the sizes that were tried."""
    tried = []
    plain = runtime._model.decode

    def decode(tokens, given, multimask):
        tried.append(len(given.points))
        if len(given.points) > most:
            raise RuntimeError(words)
        return plain(tokens, given, multimask)

    monkeypatch.setattr(runtime._model, "decode", decode, raising=False)
    return tried


@pytest.mark.parametrize("shared", [True, False], ids=["shared embedding", "a window each"])
def test_when_memory_runs_out_the_batch_is_halved_and_the_answer_is_the_same(runtime, monkeypatch, shared):
    tokens = torch.randn(1 if shared else 7, 256, 4, 4, generator=torch.Generator().manual_seed(1))
    logits, iou = runtime.decode(tokens, prompts(7), True)
    tried = limit_memory(runtime, monkeypatch, 2)
    halved, halved_iou = runtime.decode(tokens, prompts(7), True)
    assert max(tried) == 7
    assert min(tried) <= 2
    np.testing.assert_allclose(halved, logits, atol=1e-4 * logits.std())
    np.testing.assert_allclose(halved_iou, iou, atol=1e-5)


@pytest.mark.parametrize("words", ["not enough memory: you tried to allocate", "MPS backend out of memory"])
def test_when_not_even_one_prompt_fits_it_says_what_to_do(runtime, monkeypatch, words):
    tried = limit_memory(runtime, monkeypatch, 0, words)
    with pytest.raises(DeviceError, match=r"too little free memory.*device='cpu'"):
        runtime.decode(torch.zeros(1, 256, 4, 4), prompts(4), True)
    assert tried == [4, 2, 1]


def test_other_errors_of_the_network_are_not_taken_for_lack_of_memory(runtime, monkeypatch):
    tried = limit_memory(runtime, monkeypatch, 0, "shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        runtime.decode(torch.zeros(1, 256, 4, 4), prompts(4), True)
    assert tried == [4]


@pytest.mark.parametrize(("failures", "works"), [(1, True), (2, False)], ids=["once", "twice"])
def test_encoding_is_tried_again_once_after_memory_was_freed(runtime, monkeypatch, failures, works):
    plain, left = runtime._model.encode, [failures]

    def encode(frames):
        if left[0]:
            left[0] -= 1
            raise RuntimeError("CUDA out of memory")
        return plain(frames)

    monkeypatch.setattr(runtime._model, "encode", encode, raising=False)
    if works:
        assert runtime.encode(FRAME).shape == (1, 256, 4, 4)
    else:
        with pytest.raises(DeviceError, match="too little free memory"):
            runtime.encode(FRAME)


def test_an_error_after_memory_ran_out_is_not_called_lack_of_memory(runtime, monkeypatch):
    errors = iter(["out of memory", "another error"])

    def encode(frames):
        raise RuntimeError(next(errors))

    monkeypatch.setattr(runtime._model, "encode", encode, raising=False)
    with pytest.raises(RuntimeError, match="another error"):
        runtime.encode(FRAME)


@pytest.mark.parametrize("precision", ["half", "int4", "", "double"])
def test_an_unknown_precision_is_refused_with_the_known_ones(precision):
    with pytest.raises(ConfigError, match="float32, bfloat16"):
        choose_device("cpu", precision)


@pytest.mark.parametrize("device", ["gpu", "tpu", "", "cuda:x", "meta"])
def test_an_unknown_device_is_refused_with_the_known_ones(device):
    with pytest.raises(ConfigError, match="auto, cpu, mps, cuda"):
        choose_device(device)


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="not available here"):
        choose_device(device)


CHOICES = {
    "gpu first": (True, True, ("cuda", "float16")),
    "then Apple's": (False, True, ("mps", "float16")),
    "then the processor": (False, False, ("cpu", "bfloat16")),
}


@pytest.mark.parametrize(("cuda", "mps", "chosen"), CHOICES.values(), ids=CHOICES.keys())
def test_the_best_device_is_chosen_and_the_reason_is_told(cuda, mps, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(runtime_module, "_cpu_has_bfloat16", lambda: True)
    device = choose_device()
    assert (device.name, device.precision) == chosen
    assert device.reason.startswith(chosen[0])
    assert chosen[1] in device.reason
    assert choose_device(precision="float32").precision == "float32"


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr(runtime_module, "_cpu_has_bfloat16", lambda: False)
    assert choose_device("cpu").precision == "float32"


def test_a_reduced_precision_that_gives_nonsense_is_given_up_with_a_warning(network, monkeypatch):
    def broken(model, dtype):
        return model.__class__(Garbage(), model.prompt_encoder, model.mask_decoder)

    class Garbage(torch.nn.Module):
        def forward(self, frames):
            return torch.full((1, 256, frames.shape[-2] // 16, frames.shape[-1] // 16), torch.nan)

    monkeypatch.setattr(runtime_module, "reduce_precision", broken)
    with pytest.warns(LightSamWarning, match="bfloat16 differs from float32.*float32 is used"):
        runtime = TorchRuntime(network, Device("cpu", "bfloat16", "asked"))
    assert runtime.device.precision == "float32"
    assert "failed" in runtime.device.reason
    assert torch.isfinite(runtime.encode(FRAME)).all()
    assert runtime.encode(FRAME).dtype == torch.float32


def test_bfloat16_of_the_embedded_model_passes_its_check_and_stays_close(segmenter, nuclei):
    frame = np.stack([nuclei[0].astype(np.float32) / 60 - 1] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduced = TorchRuntime(segmenter.runtime._model, Device("cpu", "bfloat16", "asked"))
    assert reduced.device.precision == "bfloat16"
    tokens, precise = reduced.encode(frame), segmenter.runtime.encode(frame)
    assert tokens.dtype == torch.bfloat16
    assert (tokens.float() - precise).norm() < 0.05 * precise.norm()
    logits, _ = reduced.decode(tokens, prompts(3), True)
    assert logits.dtype == np.float32


def test_float32_can_be_forced(segmenter):
    assert segmenter.precision == "float32"
    assert segmenter.device == "cpu"
    assert "asked for" in segmenter.device_reason
    assert segmenter.runtime.encode(FRAME).dtype == torch.float32
