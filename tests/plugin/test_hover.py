"""Outlines under the mouse, without a window: the test is mouse and clock."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.plugin.worker import Lane


class Mouse:
    """Moves over a viewer with the switch on, and says when it rests."""

    def __init__(self, desk):
        self.desk, self.hover = desk, desk.control.hover
        self.moves = []
        self.hover.moved.connect(lambda: self.moves.append(None))
        self.hover.on = True

    def move(self, *at, modifiers=()):
        """Move to a world position."""
        for callback in list(self.desk.viewer.mouse_move_callbacks):
            callback(self.desk.viewer, SimpleNamespace(position=at, modifiers=modifiers))

    def rest(self, *at):
        """Stay at a world position until the model has answered."""
        self.move(*at)
        self.hover.rest()
        self.desk.finish(Lane.HOVER)

    @property
    def layer(self):
        """The layer of the outline under the mouse."""
        owner = f"{self.desk.control.annotator.owner} hover"
        return next((x for x in self.desk.viewer.layers if ours(x).get("owner") == owner), None)

    @property
    def shown(self):
        """World position of the middle of what is shown; None when nothing is."""
        layer = self.layer
        if layer is None or not layer.visible or not layer.data.any():
            return None
        return tuple(np.round(pixels_of(layer).mean(axis=0), 3).tolist())


def pixels_of(layer):
    """World positions (N, D) of what a preview shows."""
    return np.array([layer.data_to_world(at) for at in np.argwhere(layer.data)])


@pytest.fixture
def mouse(desk):
    return Mouse(desk)


def open_with_tool(desk, data=None, **keywords):
    image = desk.open(np.zeros((60, 60)) if data is None else data, **keywords)
    desk.control.start("points")
    return image


def test_the_object_under_the_mouse_is_shown_and_nothing_else_changes(desk, mouse):
    open_with_tool(desk)
    status, annotator = desk.control.status, desk.control.annotator
    mouse.rest(30, 20)
    assert mouse.shown == (30, 20)
    assert desk.viewer.layers.selection.active.unique_id == annotator.points.unique_id
    assert mouse.layer.opacity < 1
    assert [x.name for x in desk.viewer.layers].index(mouse.layer.name) == 1  # between image and points
    assert not annotator.has_prompts
    assert not annotator.undo()
    assert desk.control.status == status
    assert desk.control.targets() == []
    assert desk.control.sessions.document().labels == ()
    mouse.move(32, 21)  # still on the object: it stays
    assert mouse.shown == (30, 20)
    mouse.move(45, 40)
    assert mouse.shown is None
    mouse.rest(45, 40)
    assert mouse.shown == (45, 40)
    desk.viewer.mouse_over_canvas = True
    desk.viewer.mouse_over_canvas = False
    assert mouse.shown is None


def test_a_click_takes_what_is_shown_without_asking_the_model_again(desk, mouse, tiny):
    image = open_with_tool(desk, scale=(0.3, 0.7), rotate=33.3, translate=(5, -7))
    points = desk.control.annotator.points
    world = tuple(image.data_to_world((31.37, 20.81)))
    mouse.rest(*world)
    shown, asked = mouse.layer, len(tiny.predicted)
    points.add(points.world_to_data(world))  # as napari does
    pixels = pixels_of(shown)
    assert mouse.shown is not None  # until the answer to the click takes its place
    desk.finish(Lane.PROMPT)
    assert mouse.shown is None
    preview = desk.control.annotator.preview
    assert preview.visible
    np.testing.assert_allclose(pixels_of(preview), pixels)
    assert len(tiny.predicted) == asked
    assert desk.commit().ids == (1,)
    mouse.rest(*world)  # the next object
    assert mouse.shown is not None


def test_only_the_last_place_is_asked_about(desk, mouse, tiny):
    open_with_tool(desk)
    before = len(tiny.predicted)
    tiny.gate = threading.Event()
    for at in ((10, 10), (20, 20), (30, 30), (40, 40)):
        mouse.move(*at)
        mouse.hover.rest()
    tiny.gate.set()
    desk.finish(Lane.HOVER)
    assert mouse.shown == (40, 40)
    assert len(tiny.predicted) <= before + 2  # the one under way, and the last
    tiny.gate.clear()
    mouse.move(10, 10)
    mouse.hover.rest()
    mouse.move(50, 50)  # and on it goes, before the answer is there
    tiny.gate.set()
    desk.finish(Lane.HOVER)
    assert mouse.shown is None


def test_nothing_is_shown_where_a_click_would_not_be_the_first_of_an_object(desk, mouse, tiny):
    image = open_with_tool(desk)
    annotator = desk.control.annotator

    def hidden_by(change, undo):
        mouse.rest(30, 20)
        assert mouse.shown is not None
        change()
        desk.finish()
        mouse.rest(30, 21)
        assert mouse.shown is None
        undo()
        desk.finish()

    hidden_by(lambda: desk.click(10, 10), desk.control.annotator.clear)
    hidden_by(lambda: desk.control.start("boxes"), lambda: desk.control.start("points"))
    hidden_by(
        lambda: desk.control.start("points", negative=True),
        lambda: desk.control.start("points"),
    )
    points = annotator.points
    hidden_by(lambda: setattr(points, "mode", "pan_zoom"), lambda: setattr(points, "mode", "add"))
    layers = desk.viewer.layers
    hidden_by(
        lambda: setattr(layers.selection, "active", image),
        lambda: setattr(layers.selection, "active", points),
    )
    mouse.rest(30, 20)
    mouse.move(30, 21, modifiers=("Shift",))
    assert mouse.shown is None
    mouse.rest(200, 200)
    assert mouse.shown is None
    mouse.moves.clear()
    mouse.hover.on = False
    mouse.move(30, 20)
    assert mouse.layer is None
    assert not mouse.moves


def test_the_plane_on_display_and_the_work_region_count(desk, mouse, monkeypatch):
    open_with_tool(desk, np.zeros((4, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 2)
    desk.finish()
    mouse.rest(2, 30, 20)
    assert mouse.shown == (2, 30, 20)
    desk.viewer.dims.set_point(0, 3)  # and the mouse does not move
    desk.finish()
    assert mouse.shown is None
    mouse.rest(3, 10, 20)
    assert mouse.shown == (3, 10, 20)
    monkeypatch.setattr("napari_lightsam.plugin.region.LARGEST_PLANE", 1000)
    corners = [[3, 20, 20], [3, 20, 50], [3, 50, 50]]
    frame = desk.viewer.add_shapes([corners], shape_type="polygon")  # half of a square
    assert desk.control.region.use_drawn(frame)
    desk.finish()
    desk.control.start("points")
    mouse.rest(3, 30, 40)
    assert mouse.shown == (3, 30, 40)
    mouse.rest(3, 45, 25)  # in the other half
    assert mouse.shown is None
    mouse.rest(3, 10, 20)  # outside of the region
    assert mouse.shown is None


def test_the_image_may_be_changed_or_deleted_and_an_error_is_left_to_the_click(desk, mouse, tiny, notes):
    first = open_with_tool(desk)
    mouse.rest(30, 20)
    desk.open(np.ones((50, 50)), name="second")
    assert mouse.layer is None
    desk.control.shown.use_image(first)
    desk.control.start("points")
    desk.finish()
    mouse.rest(31, 21)
    assert mouse.shown is not None
    desk.viewer.layers.remove(mouse.layer)  # the user may do that
    mouse.rest(40, 40)
    assert mouse.shown == (40, 40)
    tiny.error = RuntimeError("out of memory")
    mouse.rest(10, 10)
    assert mouse.shown is None
    assert not notes
    tiny.error = None
    mouse.rest(30, 30)
    desk.viewer.layers.remove(first)
    assert mouse.layer is None
    mouse.move(30, 30)
    desk.control.close()
    assert desk.viewer.mouse_move_callbacks == []


def test_the_switch_of_the_widget_is_off_at_first_and_has_the_clock(tiny, qtbot):
    from napari.components import ViewerModel

    from napari_lightsam.plugin.widget.dock import LightSamWidget

    viewer = ViewerModel()
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    viewer.add_image(np.zeros((60, 60)))
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)
    widget.click.object_button.click()
    assert viewer.mouse_move_callbacks == []
    widget.click.hover_box.click()
    (callback,) = viewer.mouse_move_callbacks
    callback(viewer, SimpleNamespace(position=(30, 20), modifiers=()))
    qtbot.waitUntil(lambda: "LightSAM under the mouse" in viewer.layers, timeout=10_000)
    widget.shut_down()
    assert "LightSAM under the mouse" not in viewer.layers
    assert viewer.mouse_move_callbacks == []
    assert widget.controller.worker.join(10)
