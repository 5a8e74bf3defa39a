"""The journal of a run: rows, pictures, TensorBoard's events, and what is forgotten on going on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from napari_lightsam.errors import ConfigError, DeviceError
from napari_lightsam.train import journal
from napari_lightsam.train.journal import CHECKS, LOSSES, Journal
from napari_lightsam.train.recipe import train_model


def test_rows_after_the_step_that_is_gone_on_with_are_forgotten(tmp_path):
    first = Journal(tmp_path)
    first.begin(0)
    for step in range(4):
        first.note(LOSSES, {"step": step, "total": 1.5})
        first.note(CHECKS, {"step": step + 1, "score": 0.5})
    with (tmp_path / LOSSES).open("a") as stream:
        stream.write("4,")  # the run was killed while it wrote
    Journal(tmp_path).begin(2)
    assert (tmp_path / LOSSES).read_text().split() == ["step,total", "0,1.5", "1,1.5"]
    assert (tmp_path / CHECKS).read_text().split() == ["step,score", "1,0.5", "2,0.5"]


def test_a_run_that_begins_anew_may_have_other_columns(tmp_path):
    first = Journal(tmp_path)
    first.begin(0)
    first.note(LOSSES, {"step": 0, "total": 1.5})
    (tmp_path / CHECKS).touch()  # the run was killed before it wrote the header
    again = Journal(tmp_path)
    again.begin(0)
    again.note(LOSSES, {"step": 0, "embedding": 2.0})
    again.note(CHECKS, {"step": 1, "score": 0.5})
    assert (tmp_path / LOSSES).read_text().split() == ["step,embedding", "0,2.0"]
    assert (tmp_path / CHECKS).read_text().split() == ["step,score", "1,0.5"]


def test_pictures_are_png_files_named_by_step(tmp_path):
    Journal(tmp_path).show(50, np.full((4, 6, 3), 9, np.uint8))
    with Image.open(tmp_path / "pictures" / "step-000050.png") as picture:
        assert picture.size == (6, 4)


def test_tensorboard_gets_figures_and_pictures(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    book = Journal(tmp_path, tensorboard=True)
    book.begin(0)
    book.note(LOSSES, {"step": 0, "total": 2.0})
    book.show(1, np.zeros((4, 6, 3), np.uint8))
    book.close()
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert found.Scalars("log/total")[0].value == 2.0
    assert found.Tags()["images"] == ["answers"]


def test_without_tensorboard_asking_for_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "has_tensorboard", lambda: False)
    with pytest.raises(ConfigError, match=r"napari-lightsam\[train\]"):
        Journal(tmp_path, tensorboard=True)
    Journal(tmp_path).begin(0)


def test_a_run_that_is_refused_claims_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "has_tensorboard", lambda: False)
    for refused in ({"tensorboard": True}, {"tensorboard": False, "device": "nothing"}):
        with pytest.raises((ConfigError, DeviceError)):
            next(train_model(tmp_path, tmp_path / "run", start=None, **refused))
    assert not (tmp_path / "run").exists()
