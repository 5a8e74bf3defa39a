"""Training images are the same wherever they are kept; volumes are seen from three sides."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import tifffile
import torch

from napari_lightsam.errors import FileError
from napari_lightsam.model.spec import ObjectFrame
from napari_lightsam.train.crops import CropMaker
from napari_lightsam.train.datasets import find_labelled
from napari_lightsam.train.images import load_training_images, sparse_sample
from napari_lightsam.train.storage import ArrayStore, StoredArray


@pytest.fixture
def folder(tmp_path, nuclei):
    image, labels = nuclei
    for name, part in (("left", np.s_[:, :128]), ("right", np.s_[:, 128:])):
        tifffile.imwrite(tmp_path / f"{name}.tif", image[part])
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", labels[part].astype(np.uint16))
    return tmp_path


def test_images_beyond_the_limit_wait_in_files_and_give_the_same_batches(folder, tmp_path):
    files = find_labelled(folder)
    in_memory = load_training_images(files)
    with ArrayStore(limit=250_000, parent=tmp_path) as store:
        bounded = load_training_images(files, store)
        kinds = [type(part) for image in bounded for part in (image.unit, image.labels)]
        assert kinds == [np.ndarray, np.ndarray, StoredArray, StoredArray]
        for step in range(3):
            first, second = (
                CropMaker(images, ObjectFrame(), 0, shapes=((2, 224),))[step]
                for images in (in_memory, bounded)
            )
            assert torch.equal(first.frames, second.frames)
            assert torch.equal(first.labels, second.labels)
        assert list(tmp_path.glob("images-*"))
    assert not list(tmp_path.glob("images-*"))


def test_a_file_that_is_held_open_does_not_hide_the_result(tmp_path, monkeypatch):
    def held(path, *_, **__):
        raise PermissionError(13, "The process cannot access the file", path)  # as Windows says

    with ArrayStore(limit=0, parent=tmp_path) as store:
        store.keep(np.ones(8))
        monkeypatch.setattr(os, "unlink", held)
    monkeypatch.undo()


def test_the_sample_that_crops_are_standardised_by_is_taken_once_and_small(folder):
    (image, _) = load_training_images(find_labelled(folder))
    assert np.array_equal(image.whole, sparse_sample(image.unit))
    assert image.whole.base is None


@pytest.mark.parametrize("limit", [math.inf, 0], ids=["in memory", "in files"])
def test_a_volume_is_cut_along_its_three_axes(tmp_path, limit):
    labels = np.zeros((64, 20, 24), np.uint16)
    labels[10:50, 5:15, 6:20] = 1
    tifffile.imwrite(tmp_path / "image.tif", (labels * 90 + 5).astype(np.uint8))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    with ArrayStore(limit) as store:
        images = load_training_images(find_labelled(tmp_path), store)
        shapes = [image.labels.shape for image in images]
        sides = [image for image in images if image.labels.shape == (64, 24)]
        assert [shapes.count(shape) for shape in ((20, 24), (64, 24), (64, 20))] == [40, 5, 7]
        assert all(np.array_equal(image.labels[:, :] > 0, labels[:, 6] > 0) for image in sides)


def test_a_folder_without_objects_is_refused(tmp_path):
    for name in ("a", "a_labels"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.zeros((32, 32), np.uint8))
    with pytest.raises(FileError, match="None of the training images holds an object"):
        load_training_images(find_labelled(tmp_path))
