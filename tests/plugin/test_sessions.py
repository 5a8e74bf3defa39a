"""Saving work, opening it again, and autosaving, without a window."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.objects.made import made_objects
from napari_lightsam.plugin.reader import read_lightsam
from napari_lightsam.plugin.sessions.shelf import Shelf
from napari_lightsam.plugin.viewer.layers import input_key, ours
from napari_lightsam.session import read_document


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "images" / "cells.tif"
    path.parent.mkdir()
    tifffile.imwrite(path, np.arange(3600, dtype="uint16").reshape(60, 60))
    return path


def open_file(desk, path):
    (image,) = desk.viewer.open(str(path), plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    return image


def save(desk, path):
    assert desk.control.sessions.save(path)
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    return path


def settle(desk):
    desk.run_until(lambda: not desk.control.sessions.is_busy)


def made(labels, image):
    """How the objects of a layer were made, with its image as number 0."""
    return {value: how.with_inputs({input_key(image): 0}) for value, how in made_objects(labels).items()}


def test_work_is_saved_and_dropped_into_another_window_it_goes_on(desk, new_desk, image_file, tmp_path):
    image = open_file(desk, image_file)
    image.scale = (0.5, 0.5)
    desk.click(30, 20)
    desk.commit()
    desk.click(10, 45)
    desk.commit()
    labels = desk.target()
    labels.selected_label = 40
    labels.paint((50, 50), 40)  # by hand
    labels.data_setitem(np.nonzero(labels.data == 40), 0)  # and erased again: 40 is used up all the same
    labels.selected_label = 1
    labels.paint((30, 26), 1)
    ours(labels)["quality"] = {"checked": 30, "correct": 28}
    path = save(desk, tmp_path / "out" / "work.lightsam")

    other = new_desk()
    picture, again = other.viewer.open(str(path), plugin="napari-lightsam")
    np.testing.assert_array_equal(again.data, labels.data)
    assert again.data.dtype == labels.data.dtype
    np.testing.assert_allclose(again.scale, (0.5, 0.5))
    assert ours(again)["quality"] == {"checked": 30, "correct": 28}
    assert made(again, picture) == made(labels, image)
    other.control.shown.use_image(picture)
    other.finish()
    other.click(50, 10)
    assert other.commit().ids == (41,)
    assert other.target().unique_id == again.unique_id
    document = read_document(path)
    assert [document.labels[0].objects[i]["edited"] for i in (1, 2)] == [True, False]
    assert document.image.path == image_file


def test_a_file_for_another_image_says_so(desk, image_file, tmp_path):
    open_file(desk, image_file)
    desk.click(30, 20)
    desk.commit()
    path = save(desk, tmp_path / "work.lightsam")
    tifffile.imwrite(image_file, np.ones((60, 60), "uint16"))
    with pytest.raises(FileError, match=r"belongs to another image than .*cells\.tif"):
        read_lightsam(str(path))
    image_file.unlink()
    with pytest.raises(FileError, match=r"image cells\.tif, which is not at"):
        read_lightsam(str(path))


def test_an_image_without_a_file_is_kept_in_the_archive(desk, tmp_path):
    data = np.arange(3600, dtype="float32").reshape(60, 60)
    desk.open(data, axis_labels=("y", "x"))
    desk.click(30, 20)
    desk.commit()
    path = save(desk, tmp_path / "work.lightsam")
    picture, labels = ViewerModel().open(str(path), plugin="napari-lightsam")
    np.testing.assert_array_equal(picture.data, data)
    np.testing.assert_array_equal(labels.data, desk.target().data)


def test_every_commit_is_saved_by_itself_and_found_when_the_image_is_opened_again(desk, new_desk):
    data = np.arange(3600.0).reshape(60, 60)
    desk.open(data)
    for at in ((30, 20), (10, 45), (50, 50)):
        desk.click(*at)
        desk.commit()
        settle(desk)
    other = new_desk()  # the first window was killed, and nothing was saved by hand
    other.open(data.copy())
    settle(other)
    assert other.control.sessions.unsaved is not None
    assert other.control.sessions.restore()
    np.testing.assert_array_equal(other.target().data, desk.target().data)
    other.click(10, 10)
    assert other.commit().ids == (4,)
    third = new_desk()
    third.open(data + 1)
    settle(third)
    assert third.control.sessions.unsaved is None


def test_autosaving_keeps_three_files_that_are_apart(desk, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    image = desk.open(np.zeros((60, 60)))
    desk.control.sessions.keep_on(image.unique_id, Shelf(tmp_path / "autosave", "a"))
    counts = {}
    for number, seconds in enumerate((0, 6, 1, 6, 6, 1), 1):
        now[0] += seconds
        desk.click(5 + 8 * number, 20)
        desk.commit()
        settle(desk)
    for file in sorted((tmp_path / "autosave").iterdir()):
        counts[file.name] = len(read_document(file).labels[0].objects)
    assert counts == {"a~1.lightsam": 6, "a~2.lightsam": 4, "a~3.lightsam": 3}


def test_saving_without_an_image_says_what_to_do(desk, notes, tmp_path):
    assert not desk.control.sessions.save(tmp_path / "a.lightsam")
    assert "open an image first" in notes[-1][1]


def test_a_name_that_gets_its_ending_replaces_no_file_of_others(desk, image_file, tmp_path, notes):
    open_file(desk, image_file)
    theirs = tmp_path / "work.lightsam"
    theirs.write_bytes(b"of somebody else")
    assert not desk.control.sessions.save(tmp_path / "work")
    assert "choose it by its whole name" in notes[-1][1]
    assert theirs.read_bytes() == b"of somebody else"
    save(desk, tmp_path / "mine")
    save(desk, tmp_path / "mine")  # the work that is open
    assert read_document(tmp_path / "mine.lightsam").image.name == "cells"


def test_an_image_that_another_reader_opened_is_kept_in_the_archive(desk, new_desk, tmp_path):
    path = tmp_path / "cells.npy"  # of napari's own types
    np.save(path, np.arange(3600, dtype="uint16").reshape(60, 60))
    image = open_file(desk, path)
    desk.click(30, 20)
    desk.commit()
    save(desk, tmp_path / "work.lightsam")
    other = new_desk()
    picture, labels = other.viewer.open(str(tmp_path / "work.lightsam"), plugin="napari-lightsam")
    np.testing.assert_array_equal(picture.data, image.data)
    np.testing.assert_array_equal(labels.data, desk.target().data)


def test_pixels_that_were_replaced_after_opening_are_kept_in_the_archive(desk, image_file, tmp_path):
    image = open_file(desk, image_file)
    assert read_document(save(desk, tmp_path / "file.lightsam")).image.path == image_file
    image.data = image.data[::-1].copy()  # as who subtracts a background does
    desk.finish()
    desk.click(30, 20)
    desk.commit()
    (picture, *_), *_ = read_lightsam(str(save(desk, tmp_path / "changed.lightsam")))
    np.testing.assert_array_equal(picture, image.data)
