from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from napari_lightsam.errors import FileError
from napari_lightsam.session import Selection, Session, read_session, write_session


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "images" / "cells.tif"
    path.parent.mkdir()
    path.write_bytes(b"anything")
    return path


def write(folder, **changes):
    content = {
        "format": "napari-lightsam",
        "version": 1,
        "image": "images/cells.tif",
        "settings": {},
    } | changes
    path = folder / "a.lightsam"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not ...}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "session",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"model": "mobile_sam", "mode": "grid", "object_size": 31.5}, id="settings"),
        pytest.param({"selection": Selection(channel=(0, "DAPI"), z="max", time=3)}, id="a plane of a stack"),
    ],
)
def test_what_is_written_is_read_back(tmp_path, image, session):
    given = Session(image, **session)
    write_session(tmp_path / "b.lightsam", given)
    assert read_session(tmp_path / "b.lightsam") == given


def test_a_folder_can_be_moved_with_its_images(tmp_path, image):
    write_session(tmp_path / "b.lightsam", Session(image))
    moved = tmp_path.parent / f"{tmp_path.name} moved"
    os.rename(tmp_path, moved)
    assert read_session(moved / "b.lightsam").image == moved / "images" / "cells.tif"


def test_an_image_elsewhere_is_kept_by_its_absolute_path(tmp_path, image):
    folder = tmp_path / "sessions"
    folder.mkdir()
    write_session(folder / "b.lightsam", Session(image))
    assert json.loads((folder / "b.lightsam").read_text(encoding="utf-8"))["image"] == str(image)
    assert read_session(folder / "b.lightsam").image == image


@pytest.mark.parametrize(
    "given", ["images/cells.tif", "./images/cells.tif", "images\\cells.tif", "x/../images/cells.tif"]
)
def test_a_relative_path_is_looked_up_beside_the_file_not_in_the_working_folder(
    tmp_path, image, given, monkeypatch, tmp_path_factory
):
    path = write(tmp_path, image=given)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert read_session(path).image == image


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"version": 3}, "newer version.*Upgrade", id="made by a newer version"),
        pytest.param({"version": 2}, "damaged: a text has version 1", id="the version of an archive"),
        pytest.param({"version": "1"}, "whole number", id="version is text"),
        pytest.param({"format": "other"}, "no LightSAM file", id="another format"),
        pytest.param({"format": ...}, "no LightSAM file", id="no format"),
        pytest.param({"image": ...}, "must be the path", id="no image"),
        pytest.param({"image": "images/missing.tif"}, "not at .*missing.tif", id="image is missing"),
        pytest.param({"image": "images"}, "not at", id="image is a folder"),
        pytest.param({"image": "https://example.org/a.tif"}, "not an address", id="a web address"),
        pytest.param({"image": "file:///etc/hosts"}, "not an address", id="a file address"),
        pytest.param({"image": "\\\\server\\share\\a.tif"}, "not an address", id="a network share"),
        pytest.param({"image": "//server/share/a.tif"}, "not an address", id="a network share with slashes"),
        pytest.param({"image": "a\0b"}, "must be the path", id="a null byte"),
        pytest.param({"settings": []}, "names and values", id="settings are a list"),
        pytest.param({"settings": {"colour": 1}}, "unknown names: colour", id="an unknown setting"),
        pytest.param({"extra": 1}, "unknown names: extra", id="an unknown name"),
        pytest.param({"settings": {"model": "/tmp/evil.pt"}}, "'model' must be one of", id="a path as model"),
        pytest.param({"settings": {"mode": "magic"}}, "'mode' must be", id="an unknown mode"),
        pytest.param({"settings": {"object_size": -3}}, "'object_size' must be", id="a negative size"),
        pytest.param({"settings": {"object_size": True}}, "'object_size' must be", id="a size that is true"),
        pytest.param({"settings": {"z": "mean"}}, "'z' must be", id="an unknown projection"),
        pytest.param({"settings": {"channel": [0, 1, 2, 3]}}, "'channel' must be", id="four channels"),
    ],
)
def test_what_cannot_be_true_is_refused_in_words(tmp_path, image, changes, message):
    with pytest.raises(FileError, match=message):
        read_session(write(tmp_path, **changes))


@pytest.mark.skipif(os.name == "nt", reason="a drive letter is a local path there")
def test_a_path_of_a_windows_computer_is_explained(tmp_path, image):
    with pytest.raises(FileError, match=r"address|Windows"):
        read_session(write(tmp_path, image="C:\\data\\cells.tif"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "truncated or damaged", id="empty"),
        pytest.param(b'{"format": "napari-lightsam", "ver', "truncated or damaged", id="cut short"),
        pytest.param(b"[1, 2]", "must hold a JSON object", id="a list"),
        pytest.param(b"\xff\xfe\x00binary\x80", "not text", id="binary"),
        pytest.param(b"[" * 100_000, "truncated or damaged", id="nested without end"),
        pytest.param(b" " * 2_000_000, "too large", id="huge"),
        pytest.param(b'{"version": ' + b"1" * 5000 + b"}", "truncated or damaged", id="an endless number"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, content, message):
    path = tmp_path / "a.lightsam"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_session(path)


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_session(tmp_path / "none.lightsam")


def test_a_file_of_another_ending_is_not_written(tmp_path, image):
    with pytest.raises(FileError, match=r"must end in \.lightsam"):
        write_session(tmp_path / "b.json", Session(image))
    assert not (tmp_path / "b.json").exists()


def test_reading_a_session_needs_neither_napari_nor_qt_nor_torch(tmp_path, image):
    path = write(tmp_path)
    code = (
        "import sys; from napari_lightsam.session import read_session; "
        f"read_session({str(path)!r}); "
        "print([m for m in ('napari', 'qtpy', 'torch', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="all names of files are text there")
def test_an_image_whose_name_is_no_text_is_named(tmp_path):
    path = tmp_path / os.fsdecode(b"\xb5m.tif")  # as older programs wrote a Greek letter
    path.write_bytes(b"anything")
    write_session(tmp_path / "a.lightsam", Session(image=path))
    assert read_session(tmp_path / "a.lightsam").image == path
