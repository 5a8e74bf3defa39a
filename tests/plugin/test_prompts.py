from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks

from napari_lightsam.plugin.prompting.prompts import COLOURS, NEGATIVE, POSITIVE, group_prompts, read_points

BOX = (10.0, 10.0, 20.0, 20.0)
FAR = (100.0, 100.0, 120.0, 120.0)


@pytest.mark.parametrize(
    ("points", "boxes", "expected"),
    [
        pytest.param([], [], [], id="nothing"),
        pytest.param([(1, 1, True), (2, 2, False)], [], [(2, None)], id="all points are one object"),
        pytest.param([(1, 1, False)], [], [], id="a negative point alone is no object"),
        pytest.param([], [BOX, FAR], [(0, BOX), (0, FAR)], id="every box is an object"),
        pytest.param(
            [(15, 15, False), (50, 50, True)], [BOX], [(1, BOX), (1, None)], id="inside and outside"
        ),
        pytest.param(
            [(22, 22, False)], [BOX, FAR], [(1, BOX), (0, FAR)], id="negative beside the nearest box"
        ),
    ],
)
def test_prompts_are_grouped_into_objects(points, boxes, expected):
    assert [(len(o.points), o.box) for o in group_prompts(points, boxes)] == expected


def click(layer, at, *modifiers):
    event = SimpleNamespace(
        type="mouse_press", modifiers=modifiers, pos=np.zeros(2), position=at, handled=False, button=1
    )
    mouse_press_callbacks(layer, event)
    event.type = "mouse_release"
    mouse_release_callbacks(layer, event)


def test_a_click_is_positive_and_a_shift_click_negative_in_features_shape_and_colour(desk):
    desk.open(np.zeros((60, 60)))
    points = desk.control.annotator.start_points()
    click(points, (10, 10))
    click(points, (20, 20), "Shift")
    click(points, (30, 30))
    assert list(points.features["sign"]) == [POSITIVE, NEGATIVE, POSITIVE]
    assert [str(s) for s in points.symbol] == ["disc", "cross", "disc"]
    assert COLOURS[NEGATIVE].lower() == _hex(points.face_color[1])
    assert COLOURS[POSITIVE].lower() == _hex(points.face_color[2])
    assert [sign for *_, sign in desk.control.annotator.read_prompts()[0].points] == [True, False, True]


def _hex(colour):
    return "#" + "".join(f"{round(float(c) * 255):02x}" for c in colour[:3])


def test_the_signs_are_never_red_and_green():
    for colour in COLOURS.values():
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert not (red > 150 and green < 90 and blue < 90)
        assert not (green > 120 and red < 90 and blue < 90)


def test_removing_a_point_keeps_the_signs_of_the_others(desk):
    desk.open(np.zeros((60, 60)))
    points = desk.control.annotator.start_points()
    click(points, (10, 10))
    click(points, (20, 20), "Shift")
    points.selected_data = {0}
    points.remove_selected()
    assert list(points.features["sign"]) == [NEGATIVE]
    assert str(points.symbol[0]) == "cross"


def test_a_sign_edited_in_the_features_table_counts(desk):
    desk.open(np.zeros((60, 60)))
    points = desk.control.annotator.start_points()
    click(points, (10, 10))
    click(points, (20, 20))
    points.features = points.features.assign(sign=[POSITIVE, NEGATIVE])
    assert str(points.symbol[1]) == "cross"
    assert [sign for *_, sign in desk.control.annotator.read_prompts()[0].points] == [True, False]


def test_prompts_are_in_pixels_of_the_image_however_it_is_scaled(desk):
    desk.open(np.zeros((60, 80)), scale=(0.5, 0.25), translate=(3, 4), units=("um", "um"))
    annotator = desk.control.annotator
    annotator.start_points()
    click(annotator.points, (3 + 10 * 0.5, 4 + 20 * 0.25))
    annotator.start_boxes()
    annotator.boxes.add_rectangles(np.array([[29.5, 39.5], [29.5, 49.5], [44.5, 49.5], [44.5, 39.5]]))
    box, point = annotator.read_prompts()
    assert point.points == ((10.0, 20.0, True),)
    assert box.box == (30.0, 40.0, 45.0, 50.0)


def test_points_beside_the_image_are_ignored_and_counted(desk):
    desk.open(np.zeros((60, 60)))
    points = desk.control.annotator.start_points()
    click(points, (100, 10))
    assert desk.control.annotator.read_prompts() == ()
    assert desk.control.annotator.count_outside() == 1
    desk.finish()
    assert "beside the image" in desk.control.status


def test_prompts_of_another_plane_are_not_mixed_in(desk):
    desk.open(np.zeros((5, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 1)
    points = desk.control.annotator.start_points()
    points.add([1, 10, 10])
    points.add([3, 20, 20])
    assert desk.control.annotator.read_prompts()[0].points == ((10.0, 10.0, True),)


def test_a_point_shows_in_every_channel(desk):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("c", "y", "x"))
    points = desk.control.annotator.start_points()
    desk.viewer.dims.set_current_step(0, 2)
    click(points, (2, 10, 10))
    desk.viewer.dims.set_current_step(0, 0)
    assert desk.control.annotator.read_prompts()[0].points == ((10.0, 10.0, True),)
    points.selected_data = {0}
    assert points.get_value((0, 10, 10), world=True) == 0


def test_markers_keep_their_size_on_the_screen(desk):
    desk.open(np.zeros((60, 60)), scale=(0.1, 0.1))
    points = desk.control.annotator.start_points()
    camera = desk.viewer.scene.camera
    click(points, (1, 1))
    on_screen = []
    for zoom in (2.0, 40.0):
        camera.zoom = zoom
        on_screen.append(float(points.size[0]) * 0.1 * zoom)
        assert points.current_size == points.size[0]
    assert on_screen[0] == pytest.approx(on_screen[1])
    assert 8 < on_screen[0] < 25


def test_many_prompts_are_read_with_as_few_looks_at_the_transforms_as_one(desk, monkeypatch):
    image = desk.open(np.zeros((60, 80)), scale=(0.5, 0.25), translate=(7, 9), rotate=30)
    rng = np.random.default_rng(0)
    places = rng.uniform(1, 58, (300, 2))
    given = desk.viewer.add_points(
        places, scale=image.scale, translate=image.translate, rotate=image.rotate, name="given"
    )
    asked = []
    plain = type(image).world_to_data
    monkeypatch.setattr(type(image), "world_to_data", lambda *a: asked.append(1) or plain(*a))
    found = read_points(given, image, desk.control.annotator.plane())
    assert len(asked) < 10
    np.testing.assert_allclose([point[:2] for point in found], places, atol=1e-9)
    assert desk.control.suggested.take_from(given)
    desk.finish()
    assert len(desk.control.single.answer.prompts) == 300
    answered = [p.points[0][:2] for p in desk.control.single.answer.prompts]
    np.testing.assert_allclose(answered, places, atol=1e-9)


def test_a_negative_point_goes_to_the_nearest_object_and_into_the_smallest_box():
    points = [(5, 5, True), (50, 50, True), (48, 40, False), (12, 12, False)]
    groups = group_prompts(points, [], each=True)
    assert [len(group.points) for group in groups] == [2, 2]
    boxes = [(0, 0, 60, 60), (0, 0, 20, 20)]
    inside = group_prompts(points, boxes, each=True)
    assert [len(group.points) for group in inside] == [2, 2]
    assert [group.box for group in inside] == boxes
