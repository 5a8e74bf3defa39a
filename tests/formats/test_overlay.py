"""Outlines over an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.segmentation import find_boundaries

import napari_lightsam
from napari_lightsam.errors import ImageError
from napari_lightsam.formats.overlay import draw_outlines, draw_overlay, save_overlay

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"
TRUTH = Path(__file__).parents[1] / "data" / "samples"
NAMES = ["nuclei_fluorescence", "nuclei_histology", "nuclei_tissue_16bit", "cells_phase_contrast"]


@pytest.mark.parametrize("name", NAMES)
def test_every_object_of_a_real_image_is_outlined_in_colour(name: str) -> None:
    image = tifffile.imread(SAMPLES / f"{name}.tif")
    labels = tifffile.imread(TRUTH / f"{name}_labels.tif").astype(np.int32)

    overlay = draw_overlay(image, labels)

    factor = overlay.shape[0] // labels.shape[0]
    assert overlay.shape == (labels.shape[0] * factor, labels.shape[1] * factor, 3)
    edge = find_boundaries(labels, mode="inner").repeat(factor, 0).repeat(factor, 1)
    large = labels.repeat(factor, 0).repeat(factor, 1)
    colourful = np.ptp(overlay.astype(int), axis=-1) > 150
    for i in np.unique(labels)[1:]:
        assert colourful[edge & (large == i)].mean() > 0.5


def test_the_image_shows_between_the_outlines_with_its_contrast_stretched() -> None:
    image = tifffile.imread(SAMPLES / "nuclei_tissue_16bit.tif")
    overlay = draw_overlay(image, np.zeros(image.shape, np.int32))[::2, ::2]

    assert np.ptp(overlay, axis=-1).max() == 0
    assert overlay.min() == 0
    assert overlay.max() == 255
    assert np.corrcoef(overlay[..., 0].ravel(), image.ravel())[0, 1] > 0.95


def test_touching_objects_have_different_colours() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[:32, :], labels[32:, :] = 1, 2
    overlay = draw_overlay(np.zeros((64, 64)), labels)

    factor = len(overlay) // 64
    upper, lower = overlay[32 * factor - 1, 99].astype(int), overlay[32 * factor, 99].astype(int)
    assert abs(upper - lower).max() > 100


@pytest.mark.parametrize(
    "image",
    [
        np.full((40, 30), np.nan),
        np.zeros((40, 30), bool),
        np.full((40, 30, 2), 7.0),
        np.zeros((40, 30, 4), "uint16"),
    ],
    ids=["nan", "blank bool", "constant", "four channels"],
)
def test_odd_images_are_drawn_without_fuss(image: np.ndarray) -> None:
    assert draw_overlay(image, np.ones((40, 30), np.int32)).dtype == np.uint8


def test_inputs_stay_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 255, (2000, 90, 3)).astype(np.uint8)
    labels = np.ones((2000, 90), np.int32)
    before = image.copy()

    draw_overlay(image, labels)

    np.testing.assert_array_equal(image, before)


def test_the_png_holds_what_was_drawn(tmp_path: Path) -> None:
    image = tifffile.imread(SAMPLES / "nuclei_histology.tif")
    labels = tifffile.imread(TRUTH / "nuclei_histology_labels.tif").astype(np.int32)
    save_overlay(tmp_path / "a.png", image, labels)

    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), draw_overlay(image, labels))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_image_and_labels_of_different_size_are_refused() -> None:
    with pytest.raises(ImageError, match=r"\(9, 9\).*\(9, 8\)"):
        draw_overlay(np.zeros((9, 9)), np.zeros((9, 8), int))


def test_two_label_images_are_outlined_in_a_colour_each_and_white_where_they_agree() -> None:
    left, right = np.zeros((20, 20), np.int32), np.zeros((20, 20), np.int32)
    left[4:12, 4:12] = 1
    right[4:12, 8:16] = 7
    drawn = draw_outlines(np.full((20, 20), 80, np.uint8), [(left, (0, 255, 0)), (right, (255, 0, 255))])

    def at(row: int, column: int) -> tuple[int, ...]:
        return tuple(int(value) for value in drawn[4 * row, 4 * column])

    assert at(6, 4) == (0, 255, 0)
    assert at(4, 15) == (255, 0, 255)
    assert at(4, 10) == (255, 255, 255)  # both end in this row
    assert at(8, 14) == at(0, 0)  # the image is seen inside


def test_outlines_of_another_size_are_refused() -> None:
    with pytest.raises(ImageError, match="do not fit"):
        draw_outlines(np.zeros((8, 8)), [(np.zeros((8, 9), int), (0, 255, 0))])
