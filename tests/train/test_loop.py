"""Training learns, continues to the exact step, and stops before nonsense."""

from __future__ import annotations

from dataclasses import replace
from itertools import count, repeat
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import ConfigError, FileError, TrainError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train import loop
from napari_lightsam.train.config import TrainConfig
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.devices import half_precision, move_batch
from napari_lightsam.train.images import read_unit, training_image
from napari_lightsam.train.loop import start_model, train
from napari_lightsam.train.pictures import ANSWER, TRUTH

CONFIG = TrainConfig(
    steps=4, prompts=8, rounds=1, warmup=1, check_every=100, save_every=2, learning_rate=1e-4, ema=0.5
)


@pytest.fixture(scope="module")
def embedded():
    (path,) = find_weights("lightsam")
    return read_checkpoint(path).tensors


@pytest.fixture(scope="module")
def images(sample):
    image, labels = sample("nuclei_fluorescence")
    return [training_image("samples", "nuclei", read_unit(image, None), labels.astype(np.int32))]


@pytest.fixture(scope="module")
def crops(images):
    return CropMaker(images, ObjectFrame(), 0, shapes=((2, 224),), sizes=(24, 48))


def weights(path):
    return torch.load(path, weights_only=True)


def test_an_interrupted_run_continues_to_the_very_same_weights(embedded, crops, tmp_path):
    whole = drain(train(start_model(embedded, 0), crops, [], CONFIG, tmp_path / "whole"))
    work = train(start_model(embedded, 0), crops, [], CONFIG, tmp_path / "cut")
    for progress in work:
        if progress.done == 3:  # saved after 2: the third step is done again
            break
    work.close()
    cut = drain(train(start_model(embedded, 5), crops, [], CONFIG, tmp_path / "cut"))
    assert whole.steps == cut.steps == 4
    first, second = weights(whole.checkpoint), weights(cut.checkpoint)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], embedded[name].to(first[name].dtype)) for name in embedded)


def test_a_run_of_too_few_minutes_never_counts_past_its_end(monkeypatch):
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=count(0, 9999).__next__))  # slow steps
    run = MagicMock(config=replace(CONFIG, steps=None, minutes=1), steps=None)
    counts = [(step.done, step.total) for step in loop._steps(run, repeat(None), [], 0)]
    assert counts[-1][0] == counts[-1][1] == run.step.call_count > 0


def test_other_settings_do_not_continue_a_run(embedded, crops, tmp_path):
    drain(train(start_model(embedded, 0), crops, [], replace(CONFIG, steps=2), tmp_path))
    with pytest.raises(FileError, match="other settings"):
        drain(train(start_model(embedded, 0), crops, [], replace(CONFIG, seed=9), tmp_path))


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_weights(embedded, crops, tmp_path):
    model = start_model(embedded, 0)
    work = train(model, crops, [], CONFIG, tmp_path)
    for progress in work:
        if progress.done == 2:
            with torch.no_grad():
                model.mask_decoder.iou_token.weight.fill_(float("nan"))
            break
    with pytest.raises(TrainError, match="step 2"):
        drain(work)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "weights.pt").values())


def test_a_few_steps_from_random_weights_lower_the_loss(images, tmp_path):
    import pandas as pd

    crops = CropMaker(images, ObjectFrame(), 0, shapes=((1, 224),), sizes=(24, 48))
    config = replace(CONFIG, steps=16, learning_rate=3e-4, freeze_norm=False)
    drain(train(start_model(None, 0), crops, [], config, tmp_path))
    log = pd.read_csv(tmp_path / "log.csv")
    assert len(log) == 16
    assert log.total[-4:].mean() < 0.8 * log.total[:4].mean()


def test_checks_measure_the_averaged_weights(embedded, images, crops, tmp_path):
    fixed = CropMaker(images, ObjectFrame(), 5, shapes=((2, 224),), sizes=(30, 40), augment=False)
    trained = drain(train(start_model(embedded, 0), crops, [fixed[0]], replace(CONFIG, steps=1), tmp_path))
    ((step, check),) = trained.checks
    assert step == 1
    assert 0.3 < check.click <= 1
    assert 0.3 < check.box <= 1
    assert (tmp_path / "checks.csv").read_text().count("\n") == 2


def test_a_check_leaves_a_picture_and_the_log_of_a_continued_run_has_each_step_once(
    embedded, images, crops, tmp_path
):
    fixed = CropMaker(images, ObjectFrame(), 5, shapes=((1, 224),), sizes=(30, 40), augment=False)
    config = replace(CONFIG, steps=2, save_every=1, check_every=1)
    work = train(start_model(embedded, 0), crops, [fixed[0]], config, tmp_path)
    for progress in work:
        if progress.done == 1:
            break
    work.close()
    drain(train(start_model(embedded, 0), crops, [fixed[0]], config, tmp_path))
    steps = [line.split(",")[0] for line in (tmp_path / "log.csv").read_text().split()]
    assert steps == ["step", "0", "1"]
    with Image.open(tmp_path / "pictures" / "step-000002.png") as picture:
        colours = set(picture.getdata())
    assert {TRUTH, ANSWER} <= colours


def test_settings_that_change_no_weight_may_change_in_a_continued_run(tmp_path):
    config = TrainConfig()
    assert replace(config, memory=1, workers=0, steps=7).identity() == config.identity()
    assert replace(config, prompts=7).identity() != config.identity()


@pytest.mark.parametrize(("capability", "native"), [((9, 0), True), ((8, 0), True), ((7, 5), False)])
def test_gpus_compute_in_bfloat16_where_they_have_it(monkeypatch, capability, native):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    chosen = half_precision(torch.device("cuda"))
    assert isinstance(chosen, torch.autocast) is native
    if native:
        assert chosen.fast_dtype == torch.bfloat16


def test_cpus_compute_in_bfloat16():
    assert half_precision(torch.device("cpu")).fast_dtype == torch.bfloat16


def test_all_of_a_batch_moves_to_the_device(crops):
    moved = move_batch(crops[0], torch.device("meta"))
    assert {part.device.type for part in (*moved.objects, *moved) if isinstance(part, torch.Tensor)} == {
        "meta"
    }


@pytest.mark.parametrize(
    "setting", [{"steps": 0}, {"minutes": 0}, {"ema": 2}, {"smallest": 50, "largest": 20}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError):
        TrainConfig(**setting)
