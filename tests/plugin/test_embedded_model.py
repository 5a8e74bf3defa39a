"""Behaviour with the embedded model on real images, without a window."""

from __future__ import annotations

import numpy as np
import pytest

from napari_lightsam import segment_everything
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.worker import Lane


@pytest.fixture
def real(desk, segmenter, monkeypatch):
    """A desk with the embedded model in float32."""
    monkeypatch.setattr(inference, "load", lambda name: segmenter)
    desk.control.use_settings(Settings(object_size=26))
    return desk


def test_a_click_on_a_nucleus_outlines_it_and_a_negative_click_changes_it(real, nuclei, notes):
    image, truth = nuclei
    real.open(image)
    present = np.unique(truth[30:-30, 30:-30])[1:]
    wanted = sorted(present, key=lambda i: np.count_nonzero(truth == i))[len(present) // 2]
    centre = np.argwhere(truth == wanted).mean(axis=0)
    real.click(*centre)
    assert real.control.answer.masks(), (real.control.status, notes)
    (mask,) = real.control.answer.masks()
    found, target = mask.to_array(image.shape), truth == wanted
    assert (found & target).sum() / (found | target).sum() > 0.6
    real.control.annotator.always_negative = True
    points = real.control.annotator.points
    _y0, _x0, y1, x1 = mask.box
    points.add([y1 + 3, x1 + 3])
    real.finish(Lane.PROMPT)
    assert real.control.answer.prompts[0].points[1][2] is False
    assert real.control.answer.masks()


def test_the_widgets_result_is_that_of_the_python_call(real, nuclei, segmenter):
    image = nuclei[0][:128, :128].copy()
    real.open(image)
    assert real.control.segment_everything()
    real.finish(timeout=300)
    labels = next(x for x in real.viewer.layers if x.unique_id == real.control.results.target)
    np.testing.assert_array_equal(labels.data, segment_everything(image, model=segmenter, object_size=26))
