"""Behaviour with the embedded model on real images, without a window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_lightsam import segment_everything
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.stack import segment_stack
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.worker import Lane

# the fixture of the tiny model puts others in their places
CHOOSE_AGAIN, SEGMENT_PLANES = inference.choose_again, inference.segment_planes
KNOWN_BALANCES = inference.known_balances


@pytest.fixture
def real(desk, segmenter, monkeypatch):
    """A desk with the embedded model in float32."""
    monkeypatch.setattr(inference, "load", lambda name: segmenter)
    monkeypatch.setattr(inference, "choose_again", CHOOSE_AGAIN)
    monkeypatch.setattr(inference, "known_balances", KNOWN_BALANCES)
    monkeypatch.setattr(inference, "segment_planes", SEGMENT_PLANES)
    desk.control.shown.use_settings(Settings(object_size=26))
    return desk


def test_a_click_on_a_nucleus_outlines_it_and_a_negative_click_changes_it(real, nuclei, notes):
    image, truth = nuclei
    real.open(image)
    present = np.unique(truth[30:-30, 30:-30])[1:]
    wanted = sorted(present, key=lambda i: np.count_nonzero(truth == i))[len(present) // 2]
    centre = np.argwhere(truth == wanted).mean(axis=0)
    real.click(*centre)
    assert real.control.single.answer.masks(), (real.control.status, notes)
    (mask,) = real.control.single.answer.masks()
    found, target = mask.to_array(image.shape), truth == wanted
    assert (found & target).sum() / (found | target).sum() > 0.6
    real.control.annotator.always_negative = True
    points = real.control.annotator.points
    _y0, _x0, y1, x1 = mask.box
    points.add([y1 + 3, x1 + 3])
    real.finish(Lane.PROMPT)
    assert real.control.single.answer.prompts[0].points[1][2] is False
    assert real.control.single.answer.masks()


def test_a_ragged_object_of_another_tool_is_mended_by_one_click_and_no_other_pixel_changes(real, nuclei):
    image, truth = nuclei
    real.open(image)
    present = np.unique(truth[30:-30, 30:-30])[1:]
    wanted = sorted(present, key=lambda i: np.count_nonzero(truth == i))[len(present) // 2]
    target = truth == wanted
    near = ndimage.binary_dilation(target, iterations=3) & ((truth == 0) | target)
    given = truth.astype(np.int32)
    given[(np.random.default_rng(0).random(truth.shape) < 0.25) & near & ~target] = wanted
    given[(np.random.default_rng(1).random(truth.shape) < 0.25) & target] = 0
    others = np.where(given == wanted, 0, given)
    labels = real.viewer.add_labels(given.copy())
    before = (given == wanted) & target
    assert real.control.suggested.correct(labels, wanted)
    real.finish(Lane.PROMPT)
    assert real.commit().ids == (wanted,)
    found = labels.data == wanted
    iou = (found & target).sum() / (found | target).sum()
    assert iou > 0.75
    assert iou > before.sum() / ((given == wanted) | target).sum() + 0.05
    np.testing.assert_array_equal(np.where(found, 0, labels.data)[~near], others[~near])
    labels.undo()
    np.testing.assert_array_equal(labels.data, given)


def test_objects_like_a_clicked_one_are_outlined_and_saved_together(real, nuclei):
    image, truth = (part[:160, :160].copy() for part in nuclei)
    real.open(image)
    present = np.unique(truth[30:-30, 30:-30])[1:]
    wanted = sorted(present, key=lambda i: np.count_nonzero(truth == i))[len(present) // 2]
    centre = np.argwhere(truth == wanted).mean(axis=0)
    real.click(*centre)
    assert real.control.find_similar()
    real.finish(Lane.PROMPT)
    points = np.array([prompt.first_positive for prompt in real.control.single.answer.prompts])
    np.testing.assert_allclose(points[0], centre, atol=0.01)
    hit = truth[tuple(np.rint(points).astype(int).T)]
    assert len(points) > 5
    assert np.mean(hit > 0) > 0.7
    found = np.unique(hit[hit > 0])
    assert len(real.commit().ids) > 0.7 * len(found)


def everything(desk, **choices):
    """Run with these choices and return the layer."""
    control = desk.control
    control.everything.choose(replace(control.everything.choices, **choices))
    assert control.segment_everything()
    desk.finish(timeout=300)
    return next(x for x in desk.viewer.layers if x.unique_id == control.results.target)


def test_the_widgets_result_is_that_of_the_python_call_also_after_the_slider_was_moved(
    real, nuclei, segmenter
):
    image = nuclei[0][:128, :128].copy()
    real.open(image)
    labels = everything(real)
    np.testing.assert_array_equal(labels.data, segment_everything(image, model=segmenter, object_size=26))
    chooser = real.control.everything
    for settings in ({"balance": 0.8}, {"balance": -0.6, "max_size": 30.0, "keep_border": False}):
        chooser.choose(replace(chooser.choices, config=EverythingConfig(**settings)))
        real.finish(timeout=300)
        expected = segment_everything(image, model=segmenter, object_size=26, **settings)
        np.testing.assert_array_equal(labels.data, expected)
        assert chooser.last.count == expected.max()


def test_labels_of_another_tool_are_refined_and_keep_their_ids(real, nuclei):
    image, truth = (part[:128, :128].copy() for part in nuclei)
    real.open(image)
    rough = ndimage.binary_erosion(truth > 0, iterations=2) * (truth + 500)
    given = real.viewer.add_labels(rough.astype(np.uint16))
    labels = everything(real, prompts_from=given.unique_id)
    found = set(np.unique(labels.data)) - {0}
    assert found
    assert found <= set(np.unique(rough))
    assert np.count_nonzero(labels.data) > np.count_nonzero(rough)


def test_all_planes_of_a_stack_are_those_of_the_python_call(real, nuclei, segmenter):
    stack = np.stack([nuclei[0][:96, :96]] * 2)
    real.open(stack, axis_labels=("z", "y", "x"))
    labels = everything(real, scope=Scope.STACK)
    config = EverythingConfig(object_size=26)
    expected = drain(segment_stack(stack, config=config, model=segmenter)).labels
    np.testing.assert_array_equal(labels.data, expected)
    assert labels.data.any()
    np.testing.assert_array_equal(labels.data[0], labels.data[1])
