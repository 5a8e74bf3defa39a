"""Names with accents, written down on one system and looked for on another."""

import os

import pytest

from napari_lightsam.batch.lists import read_list
from napari_lightsam.formats.spelling import as_on_disk
from napari_lightsam.session import Session, read_session, write_session
from napari_lightsam.session.picture import find_image

ONE, TWO = "\xe9", "e\u0301"  # the same letter in one sign and in two


@pytest.fixture(params=[(ONE, TWO), (TWO, ONE)], ids=["one sign on disk", "two signs on disk"])
def spelt(request, tmp_path):
    """A folder and a file in it as the disk spells them, and in the other spelling."""
    here, there = request.param
    (tmp_path / f"d{here}").mkdir()
    (tmp_path / f"d{here}" / f"{here}.tif").write_bytes(b"image")
    if os.path.exists(tmp_path / f"d{there}"):
        pytest.skip("this disk takes both spellings for the same")
    return tmp_path / f"d{here}" / f"{here}.tif", tmp_path / f"d{there}" / f"{there}.tif"


def test_a_file_is_found_in_either_spelling(spelt):
    file, other = spelt
    assert as_on_disk(other) == as_on_disk(file) == file
    assert as_on_disk(other.with_name("x.tif")) == other.with_name("x.tif")  # which is not there


def test_a_file_of_the_very_name_comes_first(spelt):
    file, other = spelt
    other.parent.mkdir()
    other.write_bytes(b"another image")
    assert as_on_disk(other) == other
    assert as_on_disk(file) == file


def test_a_path_of_any_length_is_looked_at(tmp_path):
    long = tmp_path.joinpath(*[ONE] * 20_000)
    assert as_on_disk(long) == long


def test_images_of_lists_and_of_saved_work_are_found_in_either_spelling(spelt):
    file, other = spelt
    root = file.parents[1]
    (root / "list.csv").write_text(f"image\n{other.relative_to(root).as_posix()}\n", "utf-8")
    assert [(row.source, row.place) for row in read_list(root / "list.csv")] == [
        (file, file.parent.relative_to(root))
    ]
    write_session(root / "work.lightsam", Session(other))
    assert read_session(root / "work.lightsam").image == file
    assert find_image(file.with_name("w.lightsam"), f"elsewhere/{other.name}") == file
