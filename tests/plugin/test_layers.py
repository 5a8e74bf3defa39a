from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_lightsam.plugin.axes import displayed_plane
from napari_lightsam.plugin.layers import add, make_labels, on_plane, place_in, plane_shape

TRANSFORMS = {
    "plain": {},
    "scaled, moved and in micrometres": {
        "scale": (2, 0.5, 0.25),
        "translate": (10, 3, -4),
        "units": ("um",) * 3,
    },
    "rotated": {"scale": (2, 0.5, 0.25), "rotate": [[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]]},
    "sheared": {"shear": (0, 0, 0.3), "scale": (1, 2, 2)},
    "under an affine": {
        "scale": (1, 2, 2),
        "affine": [[1, 0, 0, 5], [0, 0, -1, 2], [0, 1, 0, 3], [0, 0, 0, 1]],
    },
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_labels_layer_lies_pixel_on_pixel_on_its_image(transform):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 40, 50)), axis_labels=("z", "y", "x"), **transform)
    viewer.dims.set_current_step(0, 2)
    plane = displayed_plane(image, viewer)
    labels = add(viewer, make_labels(image, plane, "objects", {"role": "objects"}))
    corner = (4, 39, 49)
    np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(corner), atol=1e-9)
    assert (labels.data.dtype, labels.data.shape) == (np.int32, (5, 40, 50))
    assert (labels.units, labels.axis_labels) == (image.units, image.axis_labels)
    assert place_in(labels, image, plane) == (plane.index[0], None, None)


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_part_of_a_plane_lies_where_it_was_cut_from(transform):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 40, 50)), axis_labels=("z", "y", "x"), **transform)
    viewer.dims.set_current_step(0, 2)
    plane = displayed_plane(image, viewer)
    part = viewer.add_labels(np.ones(plane_shape(plane, 6, 7), np.uint8), **on_plane(image, plane, (11, 13)))
    world = image.data_to_world((plane.index[0], 11 + 5, 13 + 6))
    np.testing.assert_allclose(part.data_to_world((0, 5, 6)), world, atol=1e-9)


def test_labels_of_a_channel_stack_show_in_every_channel_and_leave_the_slider_alone():
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 3, 40, 50)), axis_labels=("z", "c", "y", "x"), scale=(2, 1, 1, 1))
    before = viewer.dims.range
    plane = displayed_plane(image, viewer)
    content = np.zeros((40, 50), np.int32)
    content[20, 25] = 7
    labels = add(viewer, make_labels(image, plane, "objects", {"role": "objects"}, content))
    assert labels.data.shape == (5, 1, 40, 50)
    assert viewer.dims.range == before
    for channel in range(3):
        viewer.dims.set_current_step(1, channel)
        assert labels.get_value(image.data_to_world((plane.index[0], channel, 20, 25)), world=True) == 7


@pytest.mark.parametrize(
    ("shape", "keywords", "place"),
    [
        pytest.param((5, 40, 50), {}, (2, None, None), id="the whole stack"),
        pytest.param((40, 50), {}, (None, None), id="a plane without a slider"),
        pytest.param((5, 40, 51), {}, None, id="another size"),
        pytest.param((5, 40, 50), {"translate": (0, 3, 0)}, None, id="shifted"),
        pytest.param((5, 40, 50), {"scale": (1, 2, 2)}, None, id="scaled"),
        pytest.param((5, 40, 50), {"scale": (1, -1, -1), "translate": (0, 39, 49)}, None, id="turned over"),
        pytest.param((1, 40, 50), {"translate": (2, 0, 0)}, (0, None, None), id="this plane only"),
        pytest.param((1, 40, 50), {"translate": (3, 0, 0)}, None, id="another plane only"),
    ],
)
def test_only_labels_that_lie_on_the_plane_can_be_written(shape, keywords, place):
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((5, 40, 50)), axis_labels=("z", "y", "x"))
    labels = viewer.add_labels(np.zeros(shape, np.int32), **keywords)
    viewer.dims.set_current_step(0, 2)
    assert place_in(labels, image, displayed_plane(image, viewer)) == place


def test_labels_with_rows_and_columns_exchanged_do_not_lie_on_a_square_plane():
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((30, 30)))
    exchanged = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    labels = viewer.add_labels(np.zeros((30, 30), np.int32), affine=exchanged)
    assert place_in(labels, image, displayed_plane(image, viewer)) is None
