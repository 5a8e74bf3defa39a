"""The plain baseline does what it says: the published procedure, on this package's modules."""

import numpy as np
import pytest
import torch
from benchmarks.baseline import PlainGenerator, Settings, box_nms, published_network

from napari_lightsam import EverythingConfig, drain
from napari_lightsam.engine.runtime import TorchRuntime, choose_device
from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.engine.weights import load_model
from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import FixedFrame, ModelSpec

FRAME = FixedFrame(size=256)
LOW = Settings(points_per_side=6, batch=16, iou_threshold=0.1, stability_threshold=0.1)
# low, because the embedded model is unsure of objects that SAM's fixed frame shows in another size


@pytest.fixture(scope="module")
def network():
    return published_network()


@pytest.fixture(scope="module")
def framed() -> Segmenter:
    """The embedded weights, fed like SAM in a small frame."""
    loaded = load_model("lightsam", spec=ModelSpec("framed", "framed", frame=FRAME))
    runtime = TorchRuntime(loaded.model, choose_device("cpu", "float32"))
    return Segmenter(loaded.spec, runtime, loaded.weights_hash)


def overlap(a, b) -> float:
    return float(np.sum(a & b) / np.sum(a | b))


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(np.s_[:128, :128], id="a square image"),
        pytest.param(np.s_[:96, :128], id="an oblong image, padded"),
    ],
)
def test_the_baseline_gives_the_masks_of_published_grid_mode(network, framed, nuclei, part):
    image = nuclei[0][part]
    image = (image * (255 / image.max())).astype(np.uint8)
    plain = PlainGenerator(network, FRAME, LOW).generate(image)
    config = EverythingConfig(
        mode="grid",
        published=True,
        points_per_side=LOW.points_per_side,
        batch=LOW.batch,
        iou_threshold=LOW.iou_threshold,
        stability_threshold=LOW.stability_threshold,
    )
    found = drain(framed.everything(image, config)).candidates
    ours = [found.mask(i).to_array(image.shape) for i in range(len(found))]
    assert len(plain) == len(ours) > 3
    assert min(overlap(a, b) for a, b in zip(plain, ours, strict=True)) > 0.99


def test_its_network_computes_what_the_package_computes(network, framed, nuclei):
    frame = PlainGenerator(network, FRAME).prepare(nuclei[0])
    with torch.inference_mode():
        plain, ours = network.encode(frame), framed.runtime.encode(frame[0].numpy())
        assert torch.allclose(plain, ours, atol=1e-3)
        prompts = PromptTensors(torch.tensor([[[60.0, 90.0]], [[120.0, 40.0]]]), torch.ones(2, 1))
        repeated = plain.repeat_interleave(2, dim=0)
        logits, iou = network.decode(repeated, prompts, True)
        shared, shared_iou = framed.runtime.decode(ours, prompts, True)
    np.testing.assert_allclose(logits.numpy(), shared, atol=2e-3)
    np.testing.assert_allclose(iou.numpy(), shared_iou, atol=1e-4)


def test_it_shares_nothing_between_prompts_and_enlarges_every_mask(network, nuclei, monkeypatch):
    generator = PlainGenerator(network, FRAME, LOW)
    tokens = generator.encode(generator.prepare(nuclei[0]))
    decoded, enlarged = [], []
    decode, interpolate = network.decode, torch.nn.functional.interpolate
    monkeypatch.setattr(
        network, "decode", lambda t, p, m: decoded.append(tuple(t.shape)) or decode(t, p, m), raising=True
    )
    monkeypatch.setattr(
        torch.nn.functional,
        "interpolate",
        lambda x, size, **k: enlarged.append((len(x) * x.shape[1], tuple(size))) or interpolate(x, size, **k),
    )
    shape = (300, 200)
    generator.batch(tokens, shape, generator.lattice(shape)[:5])
    assert decoded == [(5, 256, 16, 16)]
    assert enlarged == [(15, (256, 256)), (15, shape)]


def test_the_published_settings_are_those_of_the_paper():
    settings = Settings()
    assert (settings.points_per_side, settings.batch, settings.batches) == (32, 64, 16)
    assert (settings.iou_threshold, settings.stability_threshold, settings.box_nms) == (0.88, 0.95, 0.7)
    assert PlainGenerator(None).frame.size == 1024


def test_box_suppression_keeps_the_better_of_two_like_boxes_and_all_others():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
    assert box_nms(boxes, scores, 0.7).tolist() == [1, 2, 3]
