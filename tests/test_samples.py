"""Every bundled image can be read, is what the chooser says, and has ground truth of its shape."""

from importlib import resources

import numpy as np
import pytest

from napari_lightsam.samples import SAMPLES, read_sample


@pytest.mark.parametrize("name", SAMPLES)
def test_a_bundled_image_has_contrast_and_ground_truth_of_its_shape(name, sample):
    image, labels = sample(name)
    assert image.dtype in (np.uint8, np.uint16)
    assert image.std() > 1
    spatial = image.shape[:-1] if image.ndim == 3 and image.shape[-1] == 3 else image.shape
    assert labels.shape == spatial
    assert len(np.unique(labels)) > 20


def test_there_is_a_colour_image_a_16_bit_image_and_a_stack():
    assert read_sample("nuclei_histology").shape[-1] == 3
    assert read_sample("nuclei_tissue_16bit").dtype == np.uint16
    assert read_sample("neurites_fibsem_3d").ndim == 3
    assert len(SAMPLES) >= 4


def test_an_unknown_sample_is_refused_with_the_names_that_exist():
    with pytest.raises(KeyError, match="nuclei_fluorescence"):
        read_sample("cat")


def test_the_licence_of_every_bundled_image_is_noted():
    text = (resources.files("napari_lightsam.samples") / "LICENSES.md").read_text(encoding="utf-8")
    assert [name for name in SAMPLES if name not in text] == []
