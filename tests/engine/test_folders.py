"""Folders of an account that has a home folder, and of one that has none."""

import pytest

from napari_lightsam.cli.info import _models
from napari_lightsam.engine.cache import cache_folder, search_folders
from napari_lightsam.engine.folders import user_folder
from napari_lightsam.engine.local import local_folder, local_models
from napari_lightsam.engine.store import with_store
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ConfigError

VARIABLES = ("LIGHTSAM_CACHE", "LIGHTSAM_LOCAL_MODELS", "LIGHTSAM_MODEL_PATH")


@pytest.fixture
def homeless(monkeypatch):
    """An account without a home folder, as its libraries find it."""

    def nothing(*_, **__):
        raise RuntimeError("could not determine the home directory")

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("platformdirs.user_cache_dir", nothing)
    monkeypatch.setattr("platformdirs.user_data_dir", nothing)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    ("find", "variable"), [(cache_folder, "LIGHTSAM_CACHE"), (local_folder, "LIGHTSAM_LOCAL_MODELS")]
)
def test_an_account_without_a_home_folder_is_told_what_to_set(find, variable, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=f"no home folder .* Set {variable}, or HOME,"):
        find()
    monkeypatch.setenv(variable, str(tmp_path))
    assert find() == tmp_path


def test_a_home_folder_that_was_not_found_is_never_made_in_the_working_folder():
    with pytest.raises(ConfigError, match="no home folder"):
        user_folder("LIGHTSAM_NOT_SET", lambda: "~/.cache/napari-lightsam")


@pytest.mark.usefixtures("homeless")
def test_models_are_searched_where_there_are_folders(tmp_path, monkeypatch):
    assert search_folders() == ()
    assert local_models() == ()
    monkeypatch.setenv("LIGHTSAM_MODEL_PATH", str(tmp_path))
    assert search_folders() == (tmp_path,)


def test_a_home_folder_of_nobody_is_a_name_like_any(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTSAM_CACHE", "~nobody-of-this-name/cache")
    assert cache_folder() == tmp_path / "~nobody-of-this-name" / "cache"


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_embeddings_are_not_kept_and_info_says_why():
    with pytest.warns(LightSamWarning, match="Embeddings are not kept. This account has no home folder"):
        assert with_store("a runtime", True, "") == "a runtime"
    told = list(_models())
    assert [value[:37] for name, value in told if name in ("Model folder", "Your own models")] == [
        "none. This account has no home folder"
    ] * 2
    assert ("  lightsam", "in the package") in told
