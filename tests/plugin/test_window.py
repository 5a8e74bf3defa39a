"""A real napari window with the embedded model: what a scientist does, by mouse and keyboard."""

from __future__ import annotations

import time

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QMainWindow
from real_window import ONLY_WITH_A_DISPLAY, iou, key, mouse, pump

pytestmark = ONLY_WITH_A_DISPLAY


def test_click_shift_click_commit_paint_everything_undo_redo(window, qapp, nuclei):
    viewer = window
    image, truth = nuclei
    viewer.add_image(image, name="nuclei")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    widget.size_row.box.setValue(26)
    pump(qapp, lambda: control.shown.settings.object_size == 26 and control.shown.ready is not None)
    widget.click.object_button.click()
    qapp.processEvents()
    present = np.unique(truth[40:-40, 40:-40])[1:]
    first, other = (tuple(np.argwhere(truth == i).mean(axis=0)) for i in (present[0], present[-1]))

    mouse(viewer, *first)
    points = control.annotator.points
    assert len(points.data) == 1
    np.testing.assert_allclose(points.data[0], first, atol=1.5)
    pump(qapp, lambda: bool(control.single.answer.masks()))
    box = control.single.answer.masks()[0].box
    mouse(viewer, min(box[2] + 4, 250), min(box[3] + 4, 250), shift=True)
    assert list(points.features["sign"]) == ["positive", "negative"]
    pump(qapp, lambda: [len(prompt.points) for prompt in control.single.answer.prompts] == [2])
    mask = control.single.answer.masks()[0].to_array(truth.shape)
    key(viewer, "C")
    labels = next(x for x in viewer.layers if x.unique_id == control.results.target)
    empty = np.zeros(truth.shape, np.int32).tobytes()
    committed = mask.astype(np.int32).tobytes()
    assert labels.data.tobytes() == committed
    assert len(points.data) == 0

    mouse(viewer, *other)
    pump(qapp, lambda: bool(control.single.answer.masks()))
    key(viewer, "C")
    second = labels.data.tobytes()
    assert second != committed

    widget.click.correct_button.click()
    mouse(viewer, *first)  # no new point: the object under the mouse comes back with its two
    pump(qapp, lambda: control.annotator.correction is not None and len(points.data) == 2)
    assert control.annotator.correction.value == 1
    pump(qapp, lambda: widget.click.commit_button.text() == "Replace object 1 (C)")
    pump(qapp, lambda: bool(control.single.answer.masks()))
    np.testing.assert_array_equal(control.single.answer.masks()[0].to_array(truth.shape), mask)
    key(viewer, "Z", Qt.KeyboardModifier.ControlModifier)
    assert control.annotator.correction is None
    assert len(points.data) == 0
    assert labels.data.tobytes() == second

    viewer.layers.selection.active = labels
    labels.mode = "paint"
    labels.brush_size = 12
    qapp.processEvents()
    mouse(viewer, 250, 20, to=(250, 60))
    painted = labels.data.tobytes()
    assert painted != second

    longest, count = [0.0], len(viewer.layers)
    widget.everything.button.click()
    last = time.monotonic()

    def finished():
        nonlocal last, count
        now, before = time.monotonic(), count
        last, count, taken = now, len(viewer.layers), now - last
        if count == before:  # adding a layer is napari's own work
            longest[0] = max(longest[0], taken)
        return "Everything in nuclei" in viewer.layers

    pump(qapp, finished, 400)
    everything = viewer.layers["Everything in nuclei"]
    assert everything.data.max() > 15
    assert longest[0] < 2.0  # the window was never frozen for longer, on a busy machine
    assert labels.data.tobytes() == painted

    viewer.layers.selection.active = labels
    qapp.processEvents()
    control_key = Qt.KeyboardModifier.ControlModifier
    steps = [painted]
    for _ in range(3):
        key(viewer, "Z", control_key)
        steps.append(labels.data.tobytes())
    assert steps == [painted, second, committed, empty]
    key(viewer, "Z", control_key | Qt.KeyboardModifier.ShiftModifier)
    assert labels.data.tobytes() == committed


def test_a_box_is_dragged_with_the_point_tool_and_a_point_clicked_with_the_box_tool(window, qapp, nuclei):
    viewer, (image, truth) = window, nuclei
    viewer.add_image(image, name="nuclei")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    widget.size_row.box.setValue(26)
    pump(qapp, lambda: control.shown.settings.object_size == 26 and control.shown.ready is not None)
    widget.click.object_button.click()
    qapp.processEvents()
    rows, columns = np.nonzero(truth == np.unique(truth[40:-40, 40:-40])[1])
    centre = viewer.scene.camera.center
    mouse(viewer, rows.min() - 1, columns.min() - 1, to=(rows.max() + 1, columns.max() + 1))
    pump(qapp, lambda: bool(control.single.answer.masks()))
    (prompt,) = control.annotator.read_prompts()
    corners = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    np.testing.assert_allclose(prompt.box, corners, atol=2.5)
    assert not prompt.points
    assert viewer.scene.camera.center == centre
    mask = control.single.answer.masks()[0].to_array(truth.shape)
    assert iou(mask, truth == truth[rows[0], columns[0]]) > 0.7
    key(viewer, "Z", Qt.KeyboardModifier.ControlModifier)
    assert not control.annotator.has_prompts

    widget.click.box_button.click()
    mouse(viewer, *np.argwhere(truth == truth[rows[0], columns[0]]).mean(axis=0))
    pump(qapp, lambda: bool(control.single.answer.masks()))
    assert len(control.annotator.points.data) == 1
    assert not len(control.annotator.boxes.data)


def test_a_run_is_cancelled_within_a_second_and_leaves_the_window_alive(window, qapp):
    viewer = window
    viewer.open_sample("napari-lightsam", "nuclei_brightfield")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.controller.shown.ready is not None, 300)
    widget.everything.mode.setCurrentIndex(widget.everything.mode.findData("grid"))  # the longest run
    steps = []
    widget.controller.everything.progress.connect(steps.append)
    place = widget.everything.slider.y()
    widget.everything.button.click()
    pump(qapp, lambda: any(step is not None and step.total > 0 for step in steps))
    assert widget.everything.slider.y() == place  # nothing moves below the button
    bar = next(x for x in qapp.topLevelWidgets() if isinstance(x, QMainWindow)).statusBar()
    (sign,) = [label.movie() for label in bar.findChildren(QLabel) if label.movie()]
    pump(qapp, lambda: sign.speed() < 100)  # each of its pictures has the whole window composed
    started = time.monotonic()
    widget.everything.row.cancel_button.click()
    qapp.processEvents()
    assert sign.speed() == 100
    assert not widget.everything.row.isVisible()
    assert widget.everything.button.isEnabled()
    assert time.monotonic() - started < 1
    pump(qapp, lambda: "opped" in widget.status.text())
    pump(qapp, lambda: not any("(running)" in layer.name for layer in viewer.layers))
    assert all("(stopped)" in layer.name for layer in viewer.layers[1:])


def test_a_typical_object_is_drawn_and_what_the_window_shows_is_segmented(window, qapp, nuclei):
    viewer = window
    viewer.add_image(nuclei[0], name="nuclei")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.controller.shown.ready is not None)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (64, 64), viewer.scene.camera.zoom * 2.5
    pump(qapp, lambda: np.ptp(viewer.layers[0].corner_pixels[:, 0]) < 150)
    widget.size_row.draw_button.click()
    qapp.processEvents()
    mouse(viewer, 50, 50, to=(76, 76))
    pump(qapp, lambda: widget.size_row.pixels is not None)
    assert 22 <= widget.size_row.pixels <= 30
    assert [layer.name for layer in viewer.layers] == ["nuclei"]
    section = widget.everything
    section.scope.setCurrentIndex(1)
    section.scope.activated.emit(1)
    section.button.click()
    pump(qapp, lambda: "Everything in nuclei" in viewer.layers, 300)
    found = viewer.layers["Everything in nuclei"].data
    assert found.shape == nuclei[0].shape
    assert found[:128, :128].any()
    assert not found[200:, 200:].any()
    count = section.count.text()
    section.slider.setValue(-100)
    pump(qapp, lambda: section.count.text() != count)
    assert [layer.name for layer in viewer.layers if layer.visible] == ["nuclei", "Everything in nuclei"]


def test_the_window_goes_on_being_drawn_when_layers_are_removed(window, qapp, tiny):
    viewer = window
    viewer.add_image(np.arange(4096.0).reshape(64, 64), name="cells")
    dock, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    pump(qapp, lambda: widget.controller.shown.ready is not None)

    def repaint():
        for zoom in (1.1, 1.2):
            viewer.scene.camera.zoom *= zoom
            qapp.processEvents()

    drawn = viewer.add_shapes([np.array([[8, 8], [8, 30], [30, 30]])], shape_type="polygon", name="mine")
    repaint()
    viewer.layers.remove(drawn)
    repaint()
    viewer.layers.selection = {viewer.add_points([[20, 20]]), viewer.add_shapes([np.eye(4)[:, :2] * 20])}
    repaint()
    viewer.layers.remove_selected()
    repaint()
    widget.click.object_button.click()
    mouse(viewer, 30, 30)
    pump(qapp, lambda: bool(widget.controller.single.answer.masks()))
    repaint()
    viewer.window.remove_dock_widget(dock)
    repaint()
    assert [layer.name for layer in viewer.layers] == ["cells"]


def test_the_menu_command_opens_the_widget_and_runs_on_the_active_layer(window, qapp, sample):
    from app_model import Application

    viewer = window
    viewer.add_image(sample("nuclei_fluorescence")[0][:128, :128], name="crop")
    viewer.add_image(np.zeros((32, 32)), name="other")
    viewer.layers.selection.active = viewer.layers["crop"]
    Application.get_app("napari").commands.execute_command("napari-lightsam.segment_everything").result(
        timeout=60
    )
    pump(qapp, lambda: "Everything in crop" in viewer.layers, 300)
    assert viewer.layers["Everything in crop"].data.max() > 2


def test_the_window_may_be_closed_during_a_run(qapp, segmenter, monkeypatch):
    import napari

    from napari_lightsam.plugin import inference
    from napari_lightsam.plugin.widget.dock import LightSamWidget

    monkeypatch.setattr(inference, "load", lambda name: segmenter)
    viewer = napari.Viewer(show=True)
    viewer.open_sample("napari-lightsam", "nuclei_brightfield")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    worker, everything = widget.controller.worker, widget.controller.everything
    widget.everything.button.click()
    pump(qapp, lambda: everything.is_running)
    del widget
    viewer.close()
    qapp.processEvents()
    pump(qapp, lambda: worker.join(0.01), 60)
    assert LightSamWidget.of(viewer) is None
