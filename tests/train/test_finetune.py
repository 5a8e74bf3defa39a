"""Teaching: a model learns from a few corrected objects, and is saved only if it got better on others."""

from __future__ import annotations

import tempfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lightsam import load_segmenter
from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights, list_models
from napari_lightsam.engine.local import read_header
from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import ConfigError, FileError, TrainError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train import finetune as module
from napari_lightsam.train.config import TEACHING
from napari_lightsam.train.corrections import Corrected
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.finetune import finetune, read_corrected
from napari_lightsam.train.images import read_unit, training_image
from napari_lightsam.train.loop import start_model
from napari_lightsam.train.step import step_losses

QUICK = replace(TEACHING, steps=10, prompts=12, rounds=0, warmup=3, ema=0.9, smallest=40.0, largest=60.0)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Few and small crops: what is tested is that it learns, not how far it comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_KEPT", 6)
        patch.setattr(module, "_SHAPES", ((2, 224),))
        yield


@pytest.fixture(scope="module")
def axons(sample):
    """Axons in transmission electron microscopy: a kind of which the model never saw an image."""
    image, labels = sample("axons_tem")
    return Corrected(image, labels.astype(np.int32), name="axons")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The user's folder of models."""
    place = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTSAM_LOCAL_MODELS", str(place))
        yield place


@pytest.fixture(scope="module")
def taught(axons, folder):
    return drain(finetune([axons], "my-axons", config=QUICK))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """Another folder of models, without any."""
    monkeypatch.setenv("LIGHTSAM_LOCAL_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_it_gets_better_on_held_out_objects_of_a_kind_that_it_never_saw(taught, axons):
    assert taught.after.mean > taught.before.mean + 0.03
    assert taught.after.box > taught.before.box + 0.02
    assert taught.after.everything > taught.before.everything + 0.05
    assert min(taught.objects) > 12
    assert taught.steps == 10
    y0, x0, y1, x1 = taught.held_out
    assert (y1 - y0) * (x1 - x0) < 0.5 * axons.labels.size
    assert taught.picture.truth.shape == taught.picture.before.shape == (y1 - y0, x1 - x0)
    assert taught.picture.draw().shape[2] == 3


def test_it_is_a_model_like_any_other_under_its_name(taught, folder):
    (status,) = [status for status in list_models() if status.local]
    assert (status.name, status.path) == ("my-axons", taught.path)
    segmenter = load_segmenter("my-axons", device="cpu", precision="float32", runtime="torch")
    assert segmenter.spec.name == "my-axons"
    assert "axons" in segmenter.spec.trained_on
    assert segmenter.weights_hash != load_segmenter("lightsam", runtime="torch").weights_hash


def test_its_file_and_card_say_what_it_was_made_of_and_how_good_it_is(taught, segmenter):
    header, card = read_header(taught.path), taught.card.read_text(encoding="utf-8")
    assert header["made_from"] == "lightsam"
    assert header["made_from_sha256"] == segmenter.weights_hash
    for fact in (header["before"], header["after"], header["date"], header["licence"], "my-axons.png"):
        assert fact in card
    assert taught.card.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_backbone_stays_as_it_was_and_the_rest_learned(taught):
    (embedded,) = find_weights("lightsam")
    before, after = read_checkpoint(embedded).tensors, read_checkpoint(taught.path).tensors
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [
        n for n in changed if n.startswith("image_encoder.") and not n.startswith("image_encoder.neck.")
    ]
    for part in ("image_encoder.neck.", "mask_decoder.", "proposal_head."):
        assert [name for name in changed if name.startswith(part)]


def test_a_taught_model_can_be_taught_again_but_is_replaced_only_when_asked_for(taught, axons):
    before = taught.path.read_bytes()
    with pytest.raises(ConfigError, match="already"):
        next(finetune([axons], "my-axons", config=QUICK))
    work = finetune([axons], "my-axons", start="my-axons", config=QUICK, replace_model=True)
    for progress in work:
        if progress.stage == "testing as it is":
            break
    work.close()
    assert taught.path.read_bytes() == before


def test_a_model_that_did_not_get_better_is_not_saved(axons, empty):
    useless = replace(QUICK, steps=1, learning_rate=1e-8)
    with pytest.raises(TrainError, match=r"(?s)did not get better.*one click .* -> .*Correct more"):
        drain(finetune([axons], "useless", config=useless))
    assert list(empty.iterdir()) == []


def test_cancelling_leaves_nothing_behind(axons, empty, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(module, "_KEPT", 1)
    work = finetune([axons], "cancelled", config=QUICK)
    for progress in work:
        if progress.stage == "training" and progress.done == 1:
            break
    assert list(scratch.iterdir())
    work.close()
    assert list(scratch.iterdir()) == []
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", ["lightsam", "LIGHTSAM", "mobile_sam", "../lightsam", ""])
def test_published_models_are_never_overwritten_and_names_are_no_paths(axons, empty, name):
    with pytest.raises(ConfigError):
        next(finetune([axons], name, replace_model=True))
    assert not empty.exists()


def test_too_little_is_refused_before_anything_is_loaded(empty):
    labels = np.zeros((64, 64), int)
    labels[10:20, 10:20] = 1
    with pytest.raises(TrainError, match="too few"):
        drain(finetune([Corrected(np.zeros((64, 64)), labels)], "little"))


@pytest.mark.parametrize(
    ("start", "error"), [("mobile_sam", ConfigError), ("missing.safetensors", FileError)]
)
def test_only_models_that_follow_object_size_can_be_taught(axons, empty, start, error):
    with pytest.raises(error):
        drain(finetune([axons], "new", start=start))


def test_kept_features_give_the_losses_of_the_frames(axons):
    (path,) = find_weights("lightsam")
    model = start_model(read_checkpoint(path).tensors, 0).eval()
    image = training_image("set", "axons", read_unit(axons.image, None), axons.labels)
    batch = CropMaker([image], ObjectFrame(), 0, sizes=(40, 60), shapes=((1, 224),))[1]
    with torch.no_grad():
        kept = batch._replace(
            frames=torch.zeros(()).expand(batch.frames.shape),
            features=model.image_encoder.backbone.forward_features(batch.frames),
        )
        losses = [step_losses(model, b, 6, 0, torch.Generator().manual_seed(0)) for b in (batch, kept)]
    assert float(losses[0].total) == pytest.approx(float(losses[1].total), rel=1e-4)


def test_a_folder_of_corrected_images_is_read_of_a_volume_the_middle_plane(tmp_path):
    import tifffile

    for name, shape in (("plane", (40, 50)), ("volume", (5, 40, 50))):
        tifffile.imwrite(
            tmp_path / f"{name}.tif", np.zeros(shape, np.uint8), metadata={"axes": "ZYX"[-len(shape) :]}
        )
        labels = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", labels, metadata={"axes": "ZYX"[-len(shape) :]})
    plane, middle = read_corrected(tmp_path)
    assert (plane.name, plane.labels[0, 0]) == ("plane", 0)
    assert (middle.name, middle.labels[0, 0]) == ("volume[2]", 4000)
