"""Students learn from a teacher: losses, hard prompts, the teacher's cache, and the whole recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from napari_lightsam import load_segmenter
from napari_lightsam.cli import app
from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.model.build import build_sam, published_state_dict
from napari_lightsam.model.spec import FixedFrame, ObjectFrame
from napari_lightsam.train import crops as crops_module
from napari_lightsam.train import recipe
from napari_lightsam.train.config import DistilConfig, TrainConfig
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.distil import check_teacher, distil, distil_model, export_student, make_student
from napari_lightsam.train.distil_losses import Decoupled, FullStage, ask_harder, hard_weight
from napari_lightsam.train.distil_teacher import EmbeddingCache, Teacher, as_fixed_frames
from napari_lightsam.train.images import read_unit, training_image
from napari_lightsam.train.prompting import Asked

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = TrainConfig(
    steps=1,
    prompts=2,
    rounds=1,
    warmup=1,
    check_every=100,
    save_every=100,
    learning_rate=1e-3,
    ema=0.5,
    freeze_norm=False,
)


@pytest.fixture(scope="module")
def loaded():
    return load_model("lightsam")


@pytest.fixture(scope="module")
def crops(sample):
    image, labels = sample("nuclei_fluorescence")
    image, labels = image[120:376, 240:496], labels[120:376, 240:496].astype(np.int32)
    made = training_image("samples", "nuclei", read_unit(image, None), labels)
    return CropMaker([made], ObjectFrame(), 0, shapes=((1, 224),), sizes=(24, 48))


class Counting:
    """A network that embeds in no time, and counts how often it is asked."""

    def __init__(self, side: int | None = None) -> None:
        self.asked, self.seen = 0, ()
        self._side = side

    def encode(self, frames):
        self.asked, self.seen = self.asked + 1, tuple(frames.shape)
        side = self._side or frames.shape[-1] // 16
        tokens = frames.mean() * torch.ones(len(frames), 256, side, side) + torch.arange(side) / 8
        return tokens.contiguous(memory_format=torch.channels_last)  # as convolutions leave them


def loaded_as(network, frame=None, name="a" * 64):
    return SimpleNamespace(
        model=network, spec=SimpleNamespace(frame=frame or ObjectFrame(), name="large"), weights_hash=name
    )


# --- losses and prompts


def test_decoupled_distillation_is_the_mean_square_over_what_is_visible(crops):
    batch = crops[0]
    inside = torch.zeros_like(batch.inside)
    inside[:, :112] = True
    taught = torch.zeros(1, 256, 14, 14)
    own = torch.full_like(taught, 100.0)  # below, where nothing is visible, anything goes
    own[:, :, :7] = 3.0
    objective = Decoupled(SimpleNamespace(tokens=lambda _: taught))
    losses = objective(SimpleNamespace(encode=lambda _: own), batch._replace(inside=inside), 2, 1, None)
    assert losses.total.item() == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("teacher", "student", "weight"),
    [(0.7, 0.7, 0.5), (0.9, 0.3, 0.8808), (0.3, 0.6, 0.3775), (0.5, 0.0, 1.0), (0.0, 0.5, 0.2689)],
    ids=["as good", "far better", "worse", "the student has nothing", "the teacher has nothing"],
)
def test_a_mask_counts_the_more_the_better_the_teacher_is(teacher, student, weight):
    found = hard_weight(torch.tensor([teacher]), torch.tensor([student]))
    assert found.item() == pytest.approx(weight, abs=1e-3)


def asked_about(truth):
    return Asked(
        crop=torch.zeros(1, dtype=torch.long),
        corners=torch.zeros(1, 2, dtype=torch.long),
        window=64,
        truth=truth[None, None].float(),
        points=torch.full((1, 1, 2), 20.0),
        point_labels=torch.ones(1, 1, dtype=torch.long),
        boxes=None,
    )


def test_hard_prompts_fall_into_the_truth_that_the_mask_lacks():
    truth = torch.zeros(64, 64)
    truth[8:40, 8:40] = 1
    logits = torch.full((1, 1, 16, 16), -4.0)
    logits[..., 2:10, 2:6] = 4.0  # the object's left half ...
    logits[..., 12:, :] = 4.0  # ... and much that is no object, where no hard prompt falls
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        harder = ask_harder(asked_about(truth), logits, generator)
        assert harder.points.shape == (1, 2, 2)
        assert harder.point_labels.tolist() == [[1, 1]]
        x, y = harder.points[0, 1].tolist()
        assert 24 <= x < 40
        assert 8 <= y < 40


def test_where_nothing_is_missing_the_object_is_asked_for_again():
    truth = torch.zeros(64, 64)
    truth[8:40, 8:40] = 1
    harder = ask_harder(asked_about(truth), torch.full((1, 1, 16, 16), 5.0), torch.Generator().manual_seed(0))
    x, y = harder.points[0, 1].tolist()
    assert truth[int(y), int(x)] == 1


def test_a_student_that_is_its_teacher_has_only_the_truth_to_learn(loaded, crops):
    batch, objective = crops[0], FullStage(Teacher(loaded))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        same = objective(loaded.model, batch, 2, 1, torch.Generator().manual_seed(3))
        other = copy.deepcopy(loaded.model)
        other.mask_decoder.mask_tokens.weight += 0.5
        apart = objective(other, batch, 2, 1, torch.Generator().manual_seed(3))
    assert same.embedding < 1e-3
    assert same.tokens < 0.01
    assert same.output < 0.05
    torch.testing.assert_close(same.total, same.truth, atol=0.01, rtol=0.01)
    assert apart.embedding < 1e-3
    assert apart.tokens > 0.02
    assert apart.output > 0.1


# --- the teacher


def test_a_second_run_reads_what_the_teacher_said_in_the_first(crops, tmp_path):
    first, second = Counting(), Counting()
    for network in (first, second):
        teacher = Teacher(loaded_as(network), EmbeddingCache(tmp_path, "a" * 64, 10**9))
        tokens = [teacher.tokens(crops[0]), teacher.tokens(crops[1]), teacher.tokens(crops[0])]
    assert (first.asked, second.asked) == (2, 0)
    direct = Teacher(loaded_as(Counting()))
    assert torch.equal(tokens[0], direct.tokens(crops[0]))
    assert torch.equal(tokens[1], direct.tokens(crops[1]))
    assert not torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:-1] + b"x", lambda b: b""])
def test_a_damaged_embedding_is_made_anew(crops, tmp_path, damage):
    network = Counting()
    teacher = Teacher(loaded_as(network), EmbeddingCache(tmp_path, "a" * 64, 10**9))
    whole = teacher.tokens(crops[0])
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(teacher.tokens(crops[0]), whole)
    assert torch.equal(teacher.tokens(crops[0]), whole)
    assert network.asked == 2


def test_another_teacher_is_asked_itself(crops, tmp_path):
    networks = {"a" * 64: Counting(), "b" * 64: Counting()}
    for name, network in networks.items():
        Teacher(loaded_as(network), EmbeddingCache(tmp_path, name, 10**9)).tokens(crops[0])
    assert [network.asked for network in networks.values()] == [1, 1]


def test_a_full_cache_keeps_what_it_has(crops, tmp_path):
    network = Counting()
    teacher = Teacher(loaded_as(network), EmbeddingCache(tmp_path, "a" * 64, 256 * 14 * 14 * 2 + 100))
    for step in (0, 1, 0, 1):
        teacher.tokens(crops[step])
    assert network.asked == 3
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_teacher_of_the_sam_family_sees_each_crop_as_an_image_of_its_own(crops):
    network = Counting(side=64)
    tokens = Teacher(loaded_as(network, FixedFrame())).tokens(crops[0])
    assert network.seen == (1, 3, 1024, 1024)
    assert tokens.shape == (1, 256, 14, 14)
    steps = tokens[0, 0, 0].diff()
    assert steps.min() > 0.4  # means of blocks, from left to right


def test_what_a_teacher_of_the_sam_family_said_is_kept_too(crops, tmp_path):
    networks = Counting(side=64), Counting(side=64)
    said = [
        Teacher(loaded_as(network, FixedFrame()), EmbeddingCache(tmp_path, "a" * 64, 10**9)).tokens(crops[0])
        for network in networks
    ]
    assert [network.asked for network in networks] == [1, 0]
    assert torch.equal(*said)


def test_crops_are_standardised_as_sam_does(crops):
    frame = FixedFrame(size=224)
    batch = crops[0]
    inside = torch.ones_like(batch.inside)
    inside[:, 200:] = False
    shown = as_fixed_frames(batch._replace(inside=inside), frame)
    for channel, (mean, std) in enumerate(zip(frame.mean, frame.std, strict=True)):
        values = (shown[0, channel, :200] * std + mean).round(decimals=2)
        assert values.min() >= 0
        assert values.max() <= 255
        assert torch.allclose(values, values.round(), atol=0.02)
    red = shown[0, 0, :200] * frame.std[0] + frame.mean[0]
    assert red.max() - red.min() == pytest.approx(255, abs=0.1)  # grey: all channels reach both ends
    assert (shown[:, :, 200:] == 0).all()


# --- students


def test_making_a_student_leaves_pytorchs_random_numbers_as_they_were(loaded):
    before = torch.random.get_rng_state()
    make_student(loaded, DistilConfig(student="vit_t_2m"), 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_student_begins_with_its_teachers_decoder(loaded):
    student = make_student(loaded, DistilConfig(student="vit_t_2m"), 0)
    for part in ("prompt_encoder", "mask_decoder", "proposal_head"):
        taught = getattr(loaded.model, part).state_dict()
        assert all(
            torch.equal(value, taught[name]) for name, value in getattr(student, part).state_dict().items()
        )
    plain = make_student(loaded, DistilConfig(student="vit_t_2m", method="supervised"), 0)
    own, other = (model.image_encoder.state_dict() for model in (student, plain))
    assert all(torch.equal(own[name], other[name]) for name in own)
    assert not torch.equal(plain.mask_decoder.iou_token.weight, student.mask_decoder.iou_token.weight)


def test_a_random_student_comes_closer_to_its_teacher_in_a_few_steps(loaded, crops, tmp_path):
    taught = Teacher(loaded, EmbeddingCache(tmp_path / "said", loaded.weights_hash, 10**9))
    distillation = DistilConfig(distinct=1)
    student = make_student(loaded, distillation, 0)
    config = replace(CONFIG, steps=8, learning_rate=3e-3)

    def apart():
        with torch.no_grad():
            return float((student.encode(crops[0].frames) - taught.tokens(crops[0])).square().mean())

    before = apart()
    trained = drain(distil(student, taught, crops, [], config, tmp_path / "run", distillation))
    assert apart() < 0.75 * before
    assert len(list((tmp_path / "said").rglob("*.safetensors"))) == 1  # the crops come again
    weights = read_checkpoint(trained.checkpoint).tensors
    assert torch.equal(
        weights["mask_decoder.iou_token.weight"], loaded.model.mask_decoder.iou_token.weight
    )  # frozen


def test_full_stage_distillation_lets_the_decoder_learn_more_slowly(loaded, crops, tmp_path):
    distillation = DistilConfig(method="full-stage", decoder_rate=0.0)
    student = make_student(loaded, distillation, 0)
    before = copy.deepcopy(student.state_dict())
    drain(distil(student, Teacher(loaded), crops, [], CONFIG, tmp_path, distillation))
    after = student.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"image_encoder"}
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert {"total", "embedding", "tokens", "output", "truth"} <= set(header.split(","))


def test_the_decoder_can_adapt_to_the_student_afterwards(loaded, crops, tmp_path):
    distillation = DistilConfig(tune=1)
    student = make_student(loaded, distillation, 0)
    trained = drain(distil(student, Teacher(loaded), crops, [], CONFIG, tmp_path, distillation))
    assert trained.steps == 2
    first, tuned = (read_checkpoint(path).tensors for path in (tmp_path / "weights.pt", trained.checkpoint))
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], tuned[name])}
    assert "mask_decoder" in changed
    assert "image_encoder" not in changed


def test_a_narrow_student_is_a_model_like_any_on_both_runtimes(loaded, tmp_path):
    torch.manual_seed(0)
    torch.save(published_state_dict(build_sam("vit_t_2m", proposals=True)), tmp_path / "student.pt")
    path = export_student(tmp_path / "student.pt", tmp_path / "student.safetensors", loaded, DistilConfig())
    frame = np.random.default_rng(0).standard_normal((3, 128, 192), np.float32)
    tokens = []
    for runtime in ("torch", "openvino"):
        segmenter = load_segmenter(path, device="cpu", precision="float32", runtime=runtime)
        assert segmenter.spec.architecture == "vit_t_2m"
        assert segmenter.spec.frame == loaded.spec.frame
        assert "distilled from lightsam" in segmenter.spec.title
        assert "taught by" in segmenter.spec.trained_on
        tokens.append(segmenter.runtime.encode(frame).float())
    torch.testing.assert_close(*tokens, rtol=1e-3, atol=1e-3)
    assert path.stat().st_size < 15e6


# --- refusals


def test_full_stage_distillation_wants_a_teacher_that_follows_object_size():
    large = loaded_as(None, FixedFrame())
    check_teacher(large, DistilConfig(method="decoupled"))
    with pytest.raises(ConfigError, match="decoupled"):
        check_teacher(large, DistilConfig(method="full-stage"))


def test_a_student_of_another_width_is_not_gone_on_with(loaded):
    tensors = published_state_dict(build_sam("vit_t_3m"))
    with pytest.raises(ConfigError, match="vit_t_3m"):
        make_student(loaded, DistilConfig(student="vit_t_2m"), 0, tensors)


@pytest.mark.parametrize("setting", [{"method": "magic"}, {"student": "vit_b"}, {"cache": -1}, {"tune": -1}])
def test_settings_that_are_not_accepted_are_refused(setting):
    with pytest.raises(ConfigError):
        DistilConfig(**setting)


# --- the command


@pytest.fixture
def data(tmp_path, sample, monkeypatch) -> Path:
    """Two small images, one to train on and one to check on, and steps that are as small."""
    monkeypatch.setattr(crops_module, "_SHAPES", ((1, 224),))
    monkeypatch.setattr(recipe, "_CHECK_BATCHES", 1)
    image, labels = sample("nuclei_fluorescence")
    for name, part in (("a", np.s_[120:248, 240:368]), ("j", np.s_[248:376, 368:496])):
        for folder, array in (("images", image), ("labels", labels)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "data" / folder / f"{name}.tif", array[part])
    return tmp_path / "data"


def test_the_command_writes_a_student_and_goes_on_with_it_only_as_it_began(data, tmp_path):
    command = ["distil", str(data), "--out", str(tmp_path / "run"), "--steps", "1", "--prompts", "2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "step 1: click" in done.output
    student = load_model(tmp_path / "run" / "model.safetensors")
    assert student.spec.architecture == "vit_t_2m"
    assert len(list((tmp_path / "run" / "embeddings").rglob("*.safetensors"))) == 1
    with pytest.raises(FileError, match="another distillation"):
        drain(
            distil_model(
                data, tmp_path / "run", CONFIG, DistilConfig(method="full-stage"), teacher="lightsam"
            )
        )
