from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from napari_lightsam.plugin.request import Source, default_sources, make_request, n_channels, sources
from napari_lightsam.plugin.viewer.axes import (
    AxisRole,
    NoPlane,
    answer_role,
    displayed_plane,
    guess_roles,
    pixel_size,
    roles_of,
    unknown_axes,
)

D, T, C, P, U = AxisRole.DEPTH, AxisRole.TIME, AxisRole.CHANNEL, AxisRole.PLANE, AxisRole.UNKNOWN


@pytest.mark.parametrize(
    ("labels", "shape", "file_axes", "file_shape", "roles"),
    [
        pytest.param(("-2", "-1"), (9, 8), "", (), (P, P), id="a plane"),
        pytest.param(("-3", "-2", "-1"), (5, 9, 8), "", (), (U, P, P), id="nobody says what the slider is"),
        pytest.param(("z", "y", "x"), (5, 9, 8), "", (), (D, P, P), id="labels say it"),
        pytest.param(("Time", "Channel", "Y", "X"), (5, 2, 9, 8), "", (), (T, C, P, P), id="words count"),
        pytest.param(("-3", "-2", "-1"), (5, 9, 8), "TYX", (5, 9, 8), (T, P, P), id="the file says it"),
        pytest.param(
            ("-3", "-2", "-1"), (5, 9, 8), "ZCYX", (5, 2, 9, 8), (D, P, P), id="channels were split"
        ),
        pytest.param(
            ("-3", "-2", "-1"), (5, 9, 8), "TYX", (4, 9, 8), (U, P, P), id="the file is another one"
        ),
        pytest.param(("-3", "-2", "-1"), (1, 9, 8), "", (), (D, P, P), id="one step needs no answer"),
        pytest.param(("y", "x", "c"), (9, 8, 3), "", (), (P, P, C), id="channels last"),
        pytest.param(
            ("-3", "-2", "c"), (9, 8, 3), "", (), (P, P, C), id="channels last, and no more is said"
        ),
    ],
)
def test_roles_come_from_labels_then_from_the_file(labels, shape, file_axes, file_shape, roles):
    assert guess_roles(labels, shape, file_axes, file_shape) == roles


def test_napari_drops_the_axes_of_an_ome_tiff_but_we_read_them(tmp_path):
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(
        path,
        np.zeros((4, 40, 50), "u2"),
        metadata={"axes": "TYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25},
    )
    viewer = ViewerModel()
    (layer,) = viewer.open(str(path), plugin="napari")
    assert roles_of(layer) == (T, P, P)
    size, source = pixel_size(layer)
    assert size == pytest.approx(0.25)
    assert "OME" in source


def test_pixel_size_comes_from_units_and_not_from_dpi(tmp_path):
    viewer = ViewerModel()
    calibrated = viewer.add_image(np.zeros((40, 50)), scale=(500, 500), units=("nm", "nm"))
    assert pixel_size(calibrated)[0] == pytest.approx(0.5)
    assert pixel_size(viewer.add_image(np.zeros((40, 50)), scale=(2, 2)))[0] is None
    path = tmp_path / "dpi.tif"
    tifffile.imwrite(path, np.zeros((40, 50), "u1"), resolution=(300, 300), resolutionunit="INCH")
    (layer,) = viewer.open(str(path), plugin="napari")
    assert pixel_size(layer)[0] is None


def test_a_stack_whose_depth_comes_last_is_asked_about_when_it_is_turned():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((40, 50, 5)))
    viewer.dims.order = (2, 0, 1)
    assert unknown_axes(layer, viewer) == (2,)  # by default the last two axes are rows and columns
    with pytest.raises(NoPlane, match="what the slider is"):
        displayed_plane(layer, viewer)
    answer_role(layer, 2, D)
    assert roles_of(layer) == (P, P, D)
    assert displayed_plane(layer, viewer).shape == (40, 50)
    for order in ((0, 1, 2), (1, 0, 2)):  # from the side: what depth is, is known
        viewer.dims.order = order
        assert unknown_axes(layer, viewer) == ()
    told = viewer.add_image(np.zeros((5, 40, 50)), axis_labels=("z", "y", "x"))
    viewer.dims.order = (1, 0, 2)
    assert unknown_axes(told, viewer) == ()


def test_an_unknown_slider_is_asked_about_before_anything_runs():
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((5, 40, 50)))
    assert unknown_axes(layer, viewer) == (0,)
    with pytest.raises(NoPlane, match="what the slider is"):
        displayed_plane(layer, viewer)
    answer_role(layer, 0, D)
    assert unknown_axes(layer, viewer) == ()
    viewer.dims.set_current_step(0, 3)
    assert displayed_plane(layer, viewer).index == (3, None, None)


@pytest.mark.parametrize(("order", "axes"), [((0, 1, 2), (1, 2)), ((1, 2, 0), (0, 2)), ((0, 2, 1), (1, 2))])
def test_the_plane_is_the_one_on_display_whatever_the_order_of_axes(order, axes):
    viewer = ViewerModel()
    data = np.arange(5 * 40 * 50).reshape(5, 40, 50)
    layer = viewer.add_image(data, axis_labels=("z", "y", "x"))
    viewer.dims.order = order
    viewer.dims.set_current_step(order[0], 2)
    request = make_request(viewer, layer, default_sources(viewer, layer))
    assert request.plane.axes == axes
    np.testing.assert_array_equal(request.read(), data.take(2, axis=order[0]))


def test_scaled_images_are_read_at_the_step_of_the_slider():
    viewer = ViewerModel()
    data = np.arange(5)[:, None, None] * np.ones((5, 40, 50), int)
    layer = viewer.add_image(data, scale=(3, 0.5, 0.5), translate=(7, 1, 1), axis_labels=("z", "y", "x"))
    viewer.dims.set_current_step(0, 4)
    assert (make_request(viewer, layer, default_sources(viewer, layer)).read() == 4).all()


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(lambda v: setattr(v.dims, "ndisplay", 3), id="three axes are shown"),
        pytest.param(lambda v: setattr(v.dims, "order", (1, 0, 2)), id="channels are shown as rows"),
    ],
)
def test_where_there_is_no_plane_the_reason_is_told(block):
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((3, 40, 50)), axis_labels=("c", "y", "x"))
    block(viewer)
    with pytest.raises(NoPlane, match=r"\w{3}"):
        displayed_plane(layer, viewer)


def test_a_multiscale_image_is_read_at_full_resolution():
    viewer = ViewerModel()
    data = np.arange(64 * 64).reshape(64, 64)
    layer = viewer.add_image([data, data[::2, ::2]], multiscale=True)
    np.testing.assert_array_equal(make_request(viewer, layer, default_sources(viewer, layer)).read(), data)


@pytest.mark.parametrize(
    ("shape", "dtype", "rgb", "channels"),
    [
        pytest.param((40, 50, 3), "u1", True, 1, id="8 bit colour"),
        pytest.param((40, 50, 4), "u1", True, 1, id="8 bit colour with alpha"),
        pytest.param((40, 50, 4), "u2", False, 4, id="four 16 bit samples are channels"),
    ],
)
def test_colour_is_told_from_channels(shape, dtype, rgb, channels):
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros(shape, dtype))
    assert layer.rgb  # napari guesses colour for all of these
    request = make_request(viewer, layer, default_sources(viewer, layer))
    assert (request.rgb, n_channels(layer)) == (rgb, channels)
    assert request.read().shape == (40, 50, shape[2] if rgb else 3)


def test_up_to_three_channels_or_images_are_mapped_to_the_inputs():
    viewer = ViewerModel()
    stack = viewer.add_image(
        np.stack([np.full((40, 50), i) for i in range(4)]), axis_labels=("c", "y", "x"), name="a"
    )
    other = viewer.add_image(np.full((40, 50), 9), name="b")
    viewer.add_image(np.zeros((10, 10)), name="another size")
    offered = sources(viewer, stack)
    assert [s.title for s in offered] == ["channel 0", "channel 1", "channel 2", "channel 3", "b"]
    request = make_request(viewer, stack, [offered[2], Source(other.unique_id, None, "b"), offered[0]])
    assert request.read()[0, 0].tolist() == [2, 9, 0]
    assert not request.rgb


def test_without_a_choice_the_channel_on_display_is_used():
    viewer = ViewerModel()
    stack = viewer.add_image(np.stack([np.full((40, 50), i) for i in range(4)]), axis_labels=("c", "y", "x"))
    viewer.dims.set_current_step(0, 3)
    first = make_request(viewer, stack, default_sources(viewer, stack))
    assert (first.read() == 3).all()
    viewer.dims.set_current_step(0, 1)
    second = make_request(viewer, stack, default_sources(viewer, stack))
    assert first.key != second.key
    assert first.plane.key == second.plane.key


@pytest.fixture
def beside_channels():
    """A stack, and the second of two channels of another layer as the input."""
    viewer = ViewerModel()
    stack = viewer.add_image(np.zeros((4, 30, 32), np.uint8), axis_labels=("z", "y", "x"), name="a")
    values = np.arange(4 * 30 * 32).reshape(4, 30, 32) % 200
    data = np.stack([np.zeros_like(values), values]).astype(np.uint8)
    viewer.add_image(data, axis_labels=("c", "z", "y", "x"), name="b")
    (source,) = (one for one in sources(viewer, stack) if one.title == "b, channel 1")
    viewer.dims.set_point(1, 2)
    return make_request(viewer, stack, [source]), data[1]


def test_all_planes_of_an_input_with_other_axes_are_those_of_its_own_depth(beside_channels):
    request, values = beside_channels
    stack, axis = request.refer_stack(0)
    assert axis == 0
    np.testing.assert_array_equal(stack, values)


def test_the_whole_of_an_input_with_other_axes_is_its_own_plane(beside_channels):
    request, values = beside_channels
    whole = request.whole()
    assert whole.plane.shape == (30, 32)
    np.testing.assert_array_equal(whole.read(), values[2])
