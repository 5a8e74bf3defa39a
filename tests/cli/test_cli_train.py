"""`lightsam train --finetune`: options, and what is printed; the lesson itself has its own tests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_lightsam.cli import app
from napari_lightsam.engine.progress import Progress
from napari_lightsam.train import finetune as training
from napari_lightsam.train.config import TEACHING, TrainConfig
from napari_lightsam.train.finetune import FineTuned
from napari_lightsam.train.held_out import Picture, Score


@pytest.fixture
def asked(monkeypatch):
    """What `finetune` was asked; it answers at once."""
    calls = []

    def finetune(corrected, name, *, start, config, replace_model):
        calls.append((corrected, name, start, config, replace_model))
        yield Progress("training", 1, 1)
        found = np.zeros((9, 9), np.int32)
        path = Path("models") / f"{name}.safetensors"
        return FineTuned(
            name=name,
            path=path,
            card=path.with_suffix(".md"),
            before=Score(0.4, 0.6, 0.3),
            after=Score(0.5, 0.7, 0.45),
            held_out=(0, 0, 9, 9),
            image=0,
            picture=Picture(found, found, found, found),
            steps=99,
            objects=(30, 12),
            object_size=14.0,
        )

    monkeypatch.setattr(training, "finetune", finetune)
    return calls


@pytest.fixture
def data(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 40), np.uint8))
    tifffile.imwrite(tmp_path / "a_labels.tif", np.eye(40, dtype=np.uint16))
    return str(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["train", *arguments])


def test_a_lesson_is_one_command_and_says_what_was_gained(asked, data):
    result = run("--finetune", data, "--name", "my-axons", "--minutes", "2")
    assert result.exit_code == 0, result.output
    assert "one click 0.40 -> 0.50" in result.stdout
    assert "Learned from 30 objects in 99 steps, tested on 12 others" in result.stdout
    assert "my-axons.safetensors" in result.stdout
    ((item,), name, start, config, replaced) = asked[0]
    assert (item.name, name, start, replaced) == ("a", "my-axons", "lightsam", False)
    assert (config.minutes, config.learning_rate) == (2, TEACHING.learning_rate)


def test_settings_and_start_are_handed_on(asked, data):
    result = run(
        "--finetune", data, "--name", "x", "--replace", "--start", "y", "--steps", "7", "--seed", "3"
    )
    assert result.exit_code == 0, result.output
    *_, start, config, replaced = asked[0]
    assert (start, config.steps, config.seed, replaced) == ("y", 7, 3, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--finetune",), "--name NAME", id="no name"),
        pytest.param(("--finetune", "--name", "x", "--out", "y"), "--out cannot be used with", id="out"),
        pytest.param(("--finetune", "--name", "x", "--weight", "a=1"), "--weight cannot", id="weight"),
        pytest.param(
            ("--finetune", "--name", "x", "--no-tensorboard"), "--tensorboard cannot", id="tensorboard"
        ),
        pytest.param(("--name", "x"), "--name needs --finetune", id="name alone"),
        pytest.param((), "--out FOLDER", id="nowhere to write"),
    ],
)
def test_options_that_do_not_go_together_are_refused(asked, data, arguments, words):
    result = run(data, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert asked == []


def test_the_help_names_both_defaults():
    text = re.sub(r"[\s│]+", " ", run("--help").output)
    assert f"Default {TrainConfig().minutes:g}; {TEACHING.minutes:g} with --finetune" in text
