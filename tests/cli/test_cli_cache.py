"""`lightsam cache`: how much room embeddings take, and how to have it back."""

import torch
from typer.testing import CliRunner

from napari_lightsam.cli import app
from napari_lightsam.engine.store import EmbeddingStore


def test_the_room_of_embeddings_is_shown_and_given_back(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    monkeypatch.setenv("LIGHTSAM_EMBEDDINGS_GIB", "2")
    store = EmbeddingStore()
    store.put("ab" * 16, torch.ones(1, 16, 8, 8))
    shown = CliRunner().invoke(app, ["cache"])
    assert shown.exit_code == 0
    assert "1 embedding, 0.0 MiB of at most 2.0 GiB" in shown.stdout
    assert "Removed" in CliRunner().invoke(app, ["cache", "--clear"]).stdout
    assert store.entries() == []


def test_a_limit_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("LIGHTSAM_EMBEDDINGS_GIB", "much")
    done = CliRunner().invoke(app, ["cache"])
    assert done.exit_code == 2
    assert "LIGHTSAM_EMBEDDINGS_GIB" in done.stderr
