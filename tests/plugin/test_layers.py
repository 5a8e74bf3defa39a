from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import _layer_actions

from napari_lightsam.plugin.everything import proposals
from napari_lightsam.plugin.objects.made import made_objects
from napari_lightsam.plugin.objects.refused import refused_labels
from napari_lightsam.plugin.prompting import sources as prompt_sources
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import displayed_plane
from napari_lightsam.plugin.viewer.layers import add, make_labels, on_plane, place_in, plane_shape

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


def test_layers_that_serve_the_mouse_or_the_eye_are_offered_nowhere(desk):
    image = desk.open(np.zeros((60, 60), np.uint8))
    data = np.zeros((60, 60), np.int32)
    data[10:20, 10:20] = 1
    objects = desk.viewer.add_labels(data)
    drawn = desk.viewer.add_shapes([[(0, 0), (0, 9), (9, 9), (9, 0)]], shape_type="polygon", name="drawn")
    control = desk.control
    control.curating.use_layer(objects)
    control.curating.measure()
    desk.finish()
    control.curating.select([1])
    control.checking.start(0)
    control.checking.pause()
    control.checking.add_field()
    control.curating.select([1])
    control.splitting.start()
    control.draw_typical()
    control.region._set(image, displayed_plane(image, desk.viewer), (5, 5, 50, 50))
    control.start("boxes")
    plane = control.annotator.plane()
    names = {layer.name for layer in desk.viewer.layers}
    assert {"field to search", "missed objects", "one click in each part", "work region"} <= names
    proposed = proposals.sources(desk.viewer, image, plane)
    own = [layer for layer in proposed if layers.ours(layer).get("role") in layers.PROMPTS]
    assert [layer.name for layer in proposed if layer not in own] == ["drawn"]  # labels lie on the whole
    assert prompt_sources.sources(desk.viewer, image) == [drawn]
    assert list(control.teaching.region_layers(image)) == [drawn]
    assert list(control.curating.choices()) == [objects]
    assert list(layers.user_marks(desk.viewer, 2)) == [drawn]


def test_labels_on_the_image_that_cannot_be_saved_into_are_named_with_the_way_out(desk):
    image = desk.open(np.zeros((5, 40, 50), np.uint8), axis_labels=("z", "y", "x"))
    full = np.zeros((5, 40, 50), np.int32)
    desk.viewer.add_labels([full, full[:, ::2, ::2]], multiscale=True, name="pyramid")
    desk.viewer.add_labels([full[0, :30], full[0, :30:2, ::2]], multiscale=True, name="elsewhere")
    desk.viewer.add_labels(full, name="fine")
    desk.viewer.add_labels(full.copy(), name="locked").editable = False
    refused = dict(refused_labels(desk.viewer, image, displayed_plane(image, desk.viewer)))
    assert set(refused) == {"pyramid", "locked"}
    assert "multiscale" in refused["pyramid"]
    assert "Save into a new layer" in refused["pyramid"]


def duplicate(viewer, layer):
    """Do as napari's menu of the layer list does."""
    viewer.layers.selection = {layer}
    _layer_actions._duplicate_layer(viewer.layers)
    return viewer.layers[viewer.layers.index(layer) + 1]


def test_a_duplicate_has_notes_of_its_own(desk):
    desk.open(np.zeros((60, 60), np.uint8))
    desk.click(10, 10)
    desk.commit()
    labels = desk.target()
    copy = duplicate(desk.viewer, labels)
    assert layers.ours(copy) == layers.ours(labels)
    curating = desk.control.curating
    curating.use_layer(copy)
    curating.accept([1])
    desk.control.results.target = copy.unique_id
    desk.click(40, 40)
    desk.commit()
    assert list(made_objects(copy)) == [1, 2]
    assert list(made_objects(labels)) == [1]
    assert "accepted" not in layers.ours(labels)


def test_a_duplicate_of_clicks_is_a_layer_of_the_user(desk):
    desk.open(np.zeros((60, 60), np.uint8))
    desk.click(10, 10)
    points = desk.control.annotator.points
    copy = duplicate(desk.viewer, points)
    desk.finish()
    desk.viewer.layers.remove(points)
    desk.finish()
    assert not desk.control.annotator.has_prompts
    assert list(layers.user_marks(desk.viewer, 2)) == [copy]


def test_a_duplicate_of_an_opened_image_is_another_image(desk):
    image = desk.open(np.zeros((60, 60), np.uint8), metadata={"napari-lightsam": {
        "role": "image", "input_key": "a:0", "session_file": "work.lightsam", "axes": {},
    }})  # fmt: skip
    copy = duplicate(desk.viewer, image)
    assert layers.input_key(copy) != layers.input_key(image) == "a:0"
    desk.control.shown.use_image(copy)
    assert desk.control.sessions.path is None


def test_duplicates_that_are_older_than_the_tool_have_notes_of_their_own(new_desk):
    viewer = ViewerModel()
    note = {"role": "objects", "largest": 3, "accepted": [1]}
    labels = viewer.add_labels(np.zeros((60, 60), np.int32), metadata={"napari-lightsam": note})
    copy = duplicate(viewer, labels)
    new_desk(viewer)
    assert layers.ours(labels) is note
    assert layers.ours(copy) == note
    assert layers.ours(copy) is not note
