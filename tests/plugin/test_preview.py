"""The layer that outlines what was clicked: few pixels change, and it shows exactly the answer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_lightsam.engine.masks import Mask
from napari_lightsam.plugin.viewer import preview
from napari_lightsam.plugin.viewer.axes import displayed_plane
from napari_lightsam.plugin.viewer.preview import Preview


@pytest.fixture
def scene(monkeypatch):
    """An image that is larger than the layer, and a preview on it."""
    monkeypatch.setattr(preview, "_SIDE", 40)
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((100, 120)), scale=(0.5, 0.5), translate=(3, 4))
    return viewer, image, displayed_plane(image, viewer), Preview(viewer, "me", "outline")


def shown(image, layer):
    """Return the layer's pixels where they lie on the image."""
    whole = np.zeros(image.data.shape, np.uint8)
    y, x = np.rint(image.world_to_data(layer.data_to_world((0, 0)))).astype(int)
    whole[y : y + layer.data.shape[0], x : x + layer.data.shape[1]] = layer.data
    return whole


def square(y, x, side=6):
    return Mask((y, x), np.ones((side, side), bool))


def wanted(image, *squares):
    whole = np.zeros(image.data.shape, np.uint8)
    for mask in squares:
        y0, x0, y1, x1 = mask.box
        whole[y0:y1, x0:x1] = 2
        whole[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = 1
    return whole


def test_the_next_outline_nearby_only_changes_pixels_and_one_far_away_moves_the_layer(scene):
    _, image, plane, outline = scene
    outline.show(image, plane, [square(10, 10)])
    layer = outline.layer
    assert layer.data.shape == (40, 40)
    sliced = []
    layer.events.set_data.connect(lambda event: sliced.append(1))
    outline.show(image, plane, [square(14, 12, 9)])
    np.testing.assert_array_equal(shown(image, layer), wanted(image, square(14, 12, 9)))
    outline.hide()
    assert not layer.data.any()
    outline.show(image, plane, [square(20, 20), square(2, 30)])
    np.testing.assert_array_equal(shown(image, layer), wanted(image, square(20, 20), square(2, 30)))
    assert not sliced
    far = square(90, 100)
    outline.show(image, plane, [far])
    assert outline.layer is layer
    np.testing.assert_array_equal(shown(image, layer), wanted(image, far))
    large = square(5, 5, 80)
    outline.show(image, plane, [large])
    np.testing.assert_array_equal(shown(image, layer), wanted(image, large))


def test_a_large_change_leaves_no_undo_step_behind(scene, monkeypatch):
    _, image, plane, outline = scene
    monkeypatch.setattr(preview, "_LARGEST_STEP", 30)
    outline.show(image, plane, [square(10, 10)])
    outline.show(image, plane, [square(12, 12, 12)])
    layer = outline.layer
    before = layer.data.copy()
    np.testing.assert_array_equal(shown(image, layer), wanted(image, square(12, 12, 12)))
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)


def test_a_layer_that_was_hidden_is_shown_again_with_the_next_outline(scene):
    _, image, plane, outline = scene
    outline.show(image, plane, [square(10, 10)])
    outline.layer.visible = False
    outline.hide()
    outline.show(image, plane, [square(20, 10)])
    assert outline.layer.visible
    np.testing.assert_array_equal(shown(image, outline.layer), wanted(image, square(20, 10)))


def test_inside_and_edge_have_the_colours_of_a_preview(scene):
    _, image, plane, outline = scene
    outline.show(image, plane, [square(10, 10)])
    nothing, inside, edge = outline.layer.colormap.map(np.array([0, 1, 2], np.uint8))
    assert nothing[3] == 0
    np.testing.assert_allclose(inside, (0.94, 0.89, 0.26, 0.2), atol=0.01)
    np.testing.assert_allclose(edge, (0.94, 0.89, 0.26, 1), atol=0.01)
