"""Points and boxes without changing tools, by the events that napari passes on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks


def drag(layer, *places, zoom=1.0, modifiers=(), button=1):
    """Press at the first place, in world coordinates, move through the others, and release at the last.

    Returns for each move whether the view would have moved as well.
    """
    event = SimpleNamespace(
        type="mouse_press", modifiers=modifiers, handled=False, button=button, is_dragging=True,
        view_direction=None, dims_displayed=[0, 1], dims_point=[0, 0], viewbox=None, camera_zoom=zoom,
    )  # fmt: skip
    panned = []
    for kind, call, stops in (
        ("mouse_press", mouse_press_callbacks, places[:1]),
        ("mouse_move", mouse_move_callbacks, places[1:]),
        ("mouse_release", mouse_release_callbacks, places[-1:]),
    ):
        for at in stops:
            event.type, event.pos, event.position, event.handled = kind, zoom * np.array(at), tuple(at), False
            call(layer, event)
            if kind == "mouse_move":
                panned.append(layer.mouse_pan)
    return panned


def boxes_of(desk):
    return [prompt.box for prompt in desk.control.annotator.read_prompts() if prompt.box]


def test_a_drag_with_the_point_tool_draws_a_box_and_does_not_move_the_view(desk):
    desk.open(np.zeros((60, 80)), scale=(2, 0.5))
    points = desk.control.annotator.start_points()
    assert drag(points, (20, 5), (30, 10), (60, 20)) == [False, False]
    assert points.mouse_pan
    desk.finish()
    assert boxes_of(desk) == [(10.5, 10.5, 30.5, 40.5)]
    assert not len(points.data)
    assert desk.viewer.layers.selection.active is points
    assert [mask.area for mask in desk.control.single.answer.masks()] == [20 * 30]
    drag(points, (100, 30), (110, 38))  # another one beside it
    desk.finish()
    assert len(boxes_of(desk)) == 2
    desk.control.annotator.undo()
    assert boxes_of(desk) == [(10.5, 10.5, 30.5, 40.5)]


def test_a_box_is_no_prompt_while_it_is_drawn_nor_when_the_mouse_comes_back(desk):
    desk.open(np.zeros((60, 80)))
    points, edits = desk.control.annotator.start_points(), []
    desk.control.annotator.edited.connect(lambda: edits.append(boxes_of(desk)))
    drag(points, (20, 20), (40, 40), (22, 22))
    desk.finish()
    assert edits == [[]]  # of the point that napari adds, as the mouse is where it was pressed
    assert len(points.data) == 1
    assert not len(desk.control.annotator.boxes.data)


@pytest.mark.parametrize(
    ("modifiers", "button", "mode"),
    [(("Shift",), 1, "add"), ((), 2, "add"), ((), 1, "pan_zoom")],
    ids=["with Shift", "with the right button", "while the view is moved"],
)
def test_other_drags_move_the_view(desk, modifiers, button, mode):
    desk.open(np.zeros((60, 80)))
    points = desk.control.annotator.start_points()
    points.mode = mode
    assert drag(points, (20, 20), (40, 40), modifiers=modifiers, button=button) == [True]
    assert desk.control.annotator.boxes is None


def test_a_box_drawn_past_the_edge_ends_there(desk):
    desk.open(np.zeros((60, 80)))
    drag(desk.control.annotator.start_points(), (-9, 70), (30, 200))
    desk.finish()
    assert boxes_of(desk) == [(0, 70.5, 30.5, 80)]


def test_a_box_of_a_plane_of_a_stack_lies_on_that_plane(desk):
    desk.open(np.zeros((4, 60, 80)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 2)
    desk.finish()
    drag(desk.control.annotator.start_points(), (2, 10, 10), (2, 30, 40))
    desk.finish()
    assert boxes_of(desk) == [(10.5, 10.5, 30.5, 40.5)]
    desk.viewer.dims.set_point(0, 1)
    assert not boxes_of(desk)


@pytest.mark.parametrize("modifiers", [(), ("Shift",)], ids=["click", "Shift+click"])
def test_a_click_with_the_box_tool_makes_a_point_and_no_box(desk, modifiers):
    desk.open(np.zeros((60, 80)))
    desk.click(30, 30)
    boxes = desk.control.annotator.start_boxes()
    drag(boxes, (20, 20), modifiers=modifiers)
    desk.finish()
    points = desk.control.annotator.points
    np.testing.assert_allclose(points.data, [(30, 30), (20, 20)])
    assert list(points.features["sign"]) == ["positive", "negative" if modifiers else "positive"]
    assert not len(boxes.data)
    assert desk.viewer.layers.selection.active is boxes
    drag(boxes, (10, 10), (30, 40))
    desk.finish()
    assert len(boxes_of(desk)) == 1


def test_a_small_box_that_a_script_adds_stays_a_box(desk):
    desk.open(np.zeros((60, 80)))
    desk.control.annotator.start_boxes().add_rectangles([[(10, 10), (10, 12), (12, 12), (12, 10)]])
    assert boxes_of(desk) == [(10.5, 10.5, 12.5, 12.5)]
