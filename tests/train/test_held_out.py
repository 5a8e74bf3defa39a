"""The held-out part is judged as the user will ask about it: as a part of its image."""

from __future__ import annotations

import numpy as np

from napari_lightsam import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.train.corrections import Corrected, Division, Part
from napari_lightsam.train.held_out import HeldOut


def test_a_held_out_part_has_the_brightness_that_it_has_in_its_image(nuclei, segmenter):
    image, labels = nuclei[0].astype(np.float32), nuclei[1].astype(np.int32)
    image[160:] *= 0.05  # what is held out is so dim that in the whole image nothing is seen there
    division = Division((Part(0, (0, 0, 160, 256)),), Part(0, (160, 0, 256, 256)), (12, 12), 26.0)
    held = HeldOut.of([Corrected(image, labels)], division)
    _, found = drain(held.judge(segmenter, "testing"))
    assert found.shape == held.image.shape == (96, 256)
    assert not found.any()
    alone = drain(segmenter.everything(image[160:], EverythingConfig(object_size=26.0)))
    assert alone.labels.max() > 5  # stretched by itself it would have been found
