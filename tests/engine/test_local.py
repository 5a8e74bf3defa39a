"""Models of the user's own: named, listed and loaded like the published ones, which they never replace."""

from __future__ import annotations

import pytest

from napari_lightsam.engine.download import download, find_weights, is_available, list_models
from napari_lightsam.engine.local import check_name, local_folder, local_models, read_header
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.registry import ALIASES, MODELS, find_model, known_models
from napari_lightsam.engine.weights import load_model
from napari_lightsam.errors import ConfigError, WeightsError
from napari_lightsam.train.export import export_weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTSAM_LOCAL_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def own(folder):
    (embedded,) = find_weights("lightsam")
    facts = {"title": "My axons", "trained_on": "my axons", "date": "2026-01-31"}
    return export_weights(embedded, folder / "my-axons.safetensors", metadata=facts)


def test_a_model_in_the_folder_is_listed_found_and_loaded_by_its_name(own):
    (status,) = [status for status in list_models() if status.local]
    assert (status.name, status.title, status.path, status.available) == ("my-axons", "My axons", own, True)
    assert is_available("my-axons")
    assert find_weights("my-axons") == drain(download("my-axons")) == (own,)
    assert find_model("my-axons").spec.frame == MODELS["lightsam"].spec.frame
    loaded = load_model("my-axons")
    assert (loaded.source, loaded.spec.name, loaded.spec.trained_on) == (own, "my-axons", "my axons")


def test_its_header_is_read_without_its_tensors(own):
    assert read_header(own)["date"] == "2026-01-31"
    assert local_models()[0].card.name == "my-axons.md"


def test_a_file_never_takes_the_place_of_a_published_model(folder, own):
    for name in ("lightsam", "mobile_sam", *ALIASES):
        own.with_stem(name).write_bytes(own.read_bytes())
    assert find_model("lightsam").embedded
    assert [name for name, entry in known_models().items() if entry.local is not None] == ["my-axons"]
    assert find_weights("mobile_sam") is None


def test_files_that_are_none_of_ours_are_left_out(folder, own):
    (folder / "cut.safetensors").write_bytes(own.read_bytes()[:100])
    (folder / "empty.safetensors").write_bytes(b"")
    listed = b'{"__metadata__": ["napari-lightsam"]}'
    (folder / "listed.safetensors").write_bytes(len(listed).to_bytes(8, "little") + listed)
    (folder / "with space.safetensors").write_bytes(own.read_bytes())
    (folder / "other.pt").write_bytes(b"x")
    assert [model.name for model in local_models()] == ["my-axons"]


def test_a_folder_that_does_not_exist_holds_no_models(folder, monkeypatch):
    monkeypatch.setenv("LIGHTSAM_LOCAL_MODELS", str(folder / "missing"))
    assert local_models() == ()
    with pytest.raises(WeightsError, match="no model named"):
        find_model("my-axons")


def test_the_folder_is_in_the_users_data_unless_named(monkeypatch):
    monkeypatch.delenv("LIGHTSAM_LOCAL_MODELS")
    assert local_folder().parts[-2:] == ("napari-lightsam", "models")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/x", "a.pt", "-x", "x" * 49, "nul", "a b", "ä", "a\n"]
)
def test_names_that_are_paths_or_no_file_names_are_refused(folder, name):
    with pytest.raises(ConfigError, match="letters, digits"):
        check_name(name, MODELS)


@pytest.mark.parametrize("name", ["lightsam", "LightSAM", "mobile_sam", "mobilesamv2-decoder"])
def test_the_name_of_a_published_model_is_never_given_away(folder, name):
    with pytest.raises(ConfigError, match="published model"):
        check_name(name, [*MODELS, *ALIASES], replace=True)


def test_an_own_model_is_replaced_only_when_asked_for(own):
    with pytest.raises(ConfigError, match="--replace"):
        check_name("My-Axons", MODELS)
    assert check_name("My-Axons", MODELS, replace=True) == own
    assert check_name("other", MODELS) == own.with_stem("other")
