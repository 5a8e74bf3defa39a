import hashlib
import subprocess
import sys

import pytest
import torch

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights
from napari_lightsam.errors import WeightsError
from napari_lightsam.train.export import export_weights

TENSORS = {
    "image_encoder.patch_embed.seq.0.c.weight": torch.linspace(-1, 1, 864).reshape(32, 3, 3, 3),
    "image_encoder.patch_embed.seq.0.bn.running_var": torch.full((32,), 1e-9),
    "image_encoder.patch_embed.seq.0.bn.num_batches_tracked": torch.tensor(7),
    "image_encoder.norm_head.weight": torch.ones(4),
    "image_encoder.head.weight": torch.ones(4, 4),
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": torch.full((2, 128), 0.123456789),
}


@pytest.fixture
def trained(tmp_path):
    torch.save({"model": TENSORS, "epoch": 3}, tmp_path / "trained.pt")
    return tmp_path / "trained.pt"


def test_matrices_are_halved_and_what_half_precision_would_hurt_is_kept(trained, tmp_path):
    from safetensors.torch import load_file

    stored = load_file(export_weights(trained, tmp_path / "out.safetensors"))
    weight, variance, count, positions = (stored[name] for name in (*list(TENSORS)[:3], list(TENSORS)[5]))
    assert weight.dtype == torch.float16
    assert torch.equal(variance, TENSORS["image_encoder.patch_embed.seq.0.bn.running_var"])
    assert torch.equal(positions, TENSORS[list(TENSORS)[5]])
    assert count.item() == 7
    assert not any("head" in name for name in stored)


def test_the_file_says_what_it_is_and_from_what_it_was_made(trained, tmp_path):
    target = export_weights(trained, tmp_path / "out.safetensors", metadata={"title": "Yeast"})
    checkpoint = read_checkpoint(target)
    assert checkpoint.metadata == {
        "format": "napari-lightsam",
        "spec": "lightsam",
        "source_sha256": hashlib.sha256(trained.read_bytes()).hexdigest(),
        "small_windows": "8,12",
        "title": "Yeast",
    }
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_equal_weights_give_equal_bytes_in_every_process(trained, tmp_path):
    command = [sys.executable, "-m", "napari_lightsam.train.export", str(trained)]
    for target in ("one.safetensors", "two.safetensors"):
        subprocess.run([*command, str(tmp_path / target)], check=True)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_exporting_the_embedded_model_again_changes_no_tensor(tmp_path):
    (embedded,) = find_weights("lightsam")
    again = read_checkpoint(export_weights(embedded, tmp_path / "again.safetensors"))
    before = read_checkpoint(embedded)
    assert again.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(again.tensors[name], before.tensors[name]) for name in before.tensors)


def test_an_unknown_spec_is_refused_before_anything_is_written(trained, tmp_path):
    with pytest.raises(WeightsError, match="no model named 'lightsan'"):
        export_weights(trained, tmp_path / "out.safetensors", spec="lightsan")
    assert not (tmp_path / "out.safetensors").exists()
