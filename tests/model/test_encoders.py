import copy

import pytest
import torch

from napari_lightsam.model import encoders
from napari_lightsam.model.build import (
    build_sam,
    detect_architecture,
    fold_batch_norm,
    published_state_dict,
    sam_state_dict,
)
from napari_lightsam.model.encoders import TinyVitEncoder


@pytest.fixture(scope="module")
def frame():
    return torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))


def random_encoder(seed):
    """An encoder whose attention biases and batch norms matter."""
    torch.manual_seed(seed)
    encoder = TinyVitEncoder().eval()
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():
            if "attention_biases" in name:
                tensor.normal_(0, 2)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                tensor.normal_(0, 0.2)
    return encoder


@pytest.fixture(scope="module")
def pair():
    return random_encoder(1), random_encoder(2)


@torch.no_grad()
def test_weights_loaded_after_a_forward_pass_leave_no_stale_attention_bias(pair, frame):
    first, second = (copy.deepcopy(encoder) for encoder in pair)
    before = first(frame)
    first.load_state_dict(second.state_dict())  # no .eval() or .train() in between, which would hide it
    fresh = copy.deepcopy(pair[1])(frame)
    torch.testing.assert_close(first(frame), fresh, rtol=0, atol=0)
    assert (before - fresh).abs().max() > 0.1


@torch.no_grad()
def test_loading_through_the_whole_network_leaves_no_stale_attention_bias_either(frame):
    torch.manual_seed(3)
    sam, other = build_sam("vit_t").eval(), build_sam("vit_t").eval()
    for model, fill in ((sam, 0.0), (other, 3.0)):
        for name, tensor in model.state_dict().items():
            if "attention_biases" in name:
                tensor.copy_(torch.linspace(-fill, fill, tensor.numel()).reshape(tensor.shape))
    sam.encode(frame)
    sam.load_state_dict(other.state_dict())
    torch.testing.assert_close(sam.encode(frame), other.encode(frame), rtol=0, atol=0)


@torch.no_grad()
def test_without_the_hook_the_attention_bias_would_be_stale(pair, frame, monkeypatch):
    """Guards the two tests above: timm still caches, so that they can fail."""
    monkeypatch.setattr(encoders, "_after_loading", lambda module, keys: None)
    unhooked = TinyVitEncoder().eval()
    unhooked.load_state_dict(pair[0].state_dict())
    unhooked(frame)
    unhooked.load_state_dict(pair[1].state_dict())
    fresh = copy.deepcopy(pair[1])(frame)
    assert (unhooked(frame) - fresh).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(64, 64), (128, 256), (272, 80), (256, 48)], ids=str)
@torch.no_grad()
def test_frames_of_any_size_give_a_token_for_every_16_pixels(pair, shape):
    tokens = pair[0](torch.zeros(2, 3, *shape))
    assert tokens.shape == (2, 256, shape[0] // 16, shape[1] // 16)
    assert torch.isfinite(tokens).all()


@torch.no_grad()
def test_folding_batch_norm_removes_it_and_changes_nothing(pair, frame):
    folded = copy.deepcopy(pair[0])
    fold_batch_norm(folded)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in pair[0].modules()) > 20
    torch.testing.assert_close(folded(frame), pair[0](frame), rtol=1e-4, atol=1e-4)


def test_the_architecture_is_told_from_the_tensors():
    patch = "image_encoder.patch_embed.proj.weight"
    stem = "image_encoder.patch_embed.seq.0.c.weight"
    assert detect_architecture({stem: torch.zeros(32, 3, 3, 3)}) == "vit_t"
    assert detect_architecture({stem: torch.zeros(24, 3, 3, 3)}) == "vit_t_3m"
    assert detect_architecture({stem: torch.zeros(16, 3, 3, 3)}) == "vit_t_2m"
    assert detect_architecture({stem: torch.zeros(7, 3, 3, 3)}) is None
    assert detect_architecture({patch: torch.zeros(768, 3, 16, 16)}) == "vit_b"
    assert detect_architecture({patch: torch.zeros(1280, 3, 16, 16)}) == "vit_h"
    assert detect_architecture({patch: torch.zeros(7, 3, 16, 16)}) is None
    assert detect_architecture({}) is None


@pytest.mark.parametrize(
    ("name", "millions"), [("vit_t", 5.07), ("vit_t_3m", 3.22), ("vit_t_2m", 1.78)], ids=lambda v: str(v)
)
def test_a_narrower_encoder_differs_in_width_alone(name, millions):
    with torch.device("meta"):
        model, usual = build_sam(name), build_sam("vit_t")
    backbone = model.image_encoder.backbone
    assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert model.state_dict().keys() == usual.state_dict().keys()
    for stage in backbone.stages[1:]:
        assert all(block.attn.key_dim == 32 for block in stage.blocks)
    assert detect_architecture(published_state_dict(model)) == name


@torch.no_grad()
def test_a_narrow_encoder_embeds_like_any_and_comes_back_from_its_published_names(frame):
    torch.manual_seed(4)
    first, second = build_sam("vit_t_2m").eval(), build_sam("vit_t_2m").eval()
    second.load_state_dict(sam_state_dict(published_state_dict(first), "vit_t_2m"))
    tokens = first.encode(frame)
    assert tokens.shape == (1, 256, 8, 8)
    assert torch.equal(second.encode(frame), tokens)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("image_encoder.patch_embed.seq.2.bn.bias", "image_encoder.backbone.patch_embed.conv2.bn.bias"),
        (
            "image_encoder.layers.0.blocks.1.conv2.c.weight",
            "image_encoder.backbone.stages.0.blocks.1.conv2.conv.weight",
        ),
        (
            "image_encoder.layers.1.downsample.conv1.c.weight",
            "image_encoder.backbone.stages.2.downsample.conv1.conv.weight",
        ),
        ("image_encoder.neck.0.weight", "image_encoder.neck.0.weight"),
        ("mask_decoder.iou_token.weight", "mask_decoder.iou_token.weight"),
    ],
    ids=["stem", "block", "downsampling moves on one stage", "neck", "decoder"],
)
def test_published_names_of_mobile_sam_become_ours(published, ours):
    assert list(sam_state_dict({published: torch.zeros(1)}, "vit_t")) == [ours]
    assert ours in build_sam_names()


def test_the_unused_classification_head_is_left_out_and_unknown_names_are_kept():
    given = {"image_encoder.head.weight": 0, "image_encoder.norm_head.bias": 0, "something.else": 0}
    assert list(sam_state_dict(given, "vit_t")) == ["something.else"]


def build_sam_names():
    with torch.device("meta"):
        return set(build_sam("vit_t").state_dict())


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_large_encoders_take_the_names_of_the_original_checkpoints(name):
    with torch.device("meta"):
        names = set(build_sam(name).state_dict())
    published = [
        "pos_embed",
        "patch_embed.proj.weight",
        "blocks.0.attn.rel_pos_h",
        "blocks.1.mlp.lin1.weight",
        "neck.2.weight",
    ]
    renamed = sam_state_dict({f"image_encoder.{part}": torch.zeros(1) for part in published}, name)
    assert set(renamed) <= names
