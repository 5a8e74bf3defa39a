"""Clicks and boxes that were not saved as objects come back with the session, on any plane."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_lightsam.plugin.sessions.prompts import bring_back
from napari_lightsam.session import read_document


def save(desk, path):
    assert desk.control.sessions.save(path)
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    return path


def reopen(desk, path):
    """Drop a session into a window, and let it come to rest."""
    opened = desk.viewer.open(str(path), plugin="napari-lightsam")
    desk.control.shown.use_image(opened[0])
    desk.finish()
    return opened


def box(*corners):
    y0, x0, y1, x1 = corners
    return np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]) - 0.5


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.arange(3600, dtype="uint16").reshape(60, 60))
    return path


def test_points_boxes_and_signs_come_back_in_order_and_are_previewed_again(
    desk, new_desk, image_file, tmp_path
):
    (image,) = desk.viewer.open(str(image_file), plugin="napari")
    image.scale, image.translate = (0.5, 0.25), (3, 4)
    desk.control.shown.use_image(image)
    desk.finish()
    desk.click(15, 15)
    desk.commit()
    desk.click(30.25, 20.5)
    desk.control.annotator.always_negative = True
    desk.click(36, 20)
    desk.control.annotator.always_negative = False
    desk.click(31, 22)
    desk.control.start("boxes")
    desk.control.annotator.boxes.add_rectangles([box(40, 40, 52, 50), box(5, 45, 15, 55)])
    desk.finish()
    asked, outlined = desk.control.annotator.read_prompts(), desk.control.single.answer.masks()
    assert [len(prompt.points) for prompt in asked] == [0, 0, 3]

    other = new_desk()
    picture, labels = reopen(other, save(desk, tmp_path / "work.lightsam"))
    annotator = other.control.annotator
    again = annotator.read_prompts()
    for prompt, former in zip(again, asked, strict=True):
        assert [positive for *_, positive in prompt.points] == [positive for *_, positive in former.points]
        np.testing.assert_allclose(
            [at[:2] for at in prompt.points], [at[:2] for at in former.points], atol=1e-9
        )
        np.testing.assert_allclose(prompt.box or (), former.box or ())
    for mask, former in zip(other.control.single.answer.masks(), outlined, strict=True):
        np.testing.assert_array_equal(mask.to_array((60, 60)), former.to_array((60, 60)))
    assert annotator.preview.visible
    names = [layer.name for layer in other.viewer.layers]
    assert names.index(labels.name) < names.index(annotator.points.name)
    assert other.commit().ids == (2, 3, 4)
    assert other.target().unique_id == labels.unique_id
    assert picture.scale.tolist() == [0.5, 0.25]


def test_the_outline_that_was_chosen_comes_back_not_the_best_one(desk, new_desk, image_file, tmp_path):
    (image,) = desk.viewer.open(str(image_file), plugin="napari")
    image.scale, image.translate = (0.5, 0.25), (3, 4)
    desk.control.shown.use_image(image)
    desk.finish()
    desk.click(30.25, 20.5)
    desk.control.single.cycle(1)
    chosen = desk.control.single.answer.current
    assert chosen is not desk.control.single.answer.mine[0]

    other = new_desk()
    reopen(other, save(desk, tmp_path / "work.lightsam"))
    answer = other.control.single.answer
    assert answer.chosen == [1]
    np.testing.assert_array_equal(answer.current.to_array((60, 60)), chosen.to_array((60, 60)))
    desk.control.single.cycle(-1)  # the best one, which is a choice too
    reopen(other, save(desk, tmp_path / "best.lightsam"))
    assert other.control.single.answer.chosen == [0]


def test_each_plane_has_its_own_and_the_one_on_display_is_shown(desk, new_desk, tmp_path):
    desk.open(np.zeros((2, 5, 60, 60)), axis_labels=("c", "z", "y", "x"))
    desk.control.annotator.use_each(True)
    for z, at in ((1, (10, 10)), (4, (20, 20)), (3, (30, 30)), (3, (50, 50))):
        desk.viewer.dims.set_point(1, z)
        desk.finish()
        desk.click(0, z, *at)
    assert len(desk.control.single.answer.masks()) == 2
    other = new_desk()
    reopen(other, save(desk, tmp_path / "work.lightsam"))
    assert other.control.annotator.each
    assert other.viewer.dims.point[1] == 3
    assert len(other.control.single.answer.masks()) == 2
    for z, at in ((4, (20, 20)), (1, (10, 10))):
        other.viewer.dims.set_point(1, z)
        other.finish()
        (prompt,) = other.control.annotator.read_prompts()
        np.testing.assert_allclose(prompt.points, [(*at, True)])


def test_a_correction_and_the_work_region_go_on_where_they_were(desk, new_desk, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_lightsam.plugin.region.LARGEST_PLANE", 2000)
    desk.open(np.arange(3600.0).reshape(60, 60))
    drawn = [[[20.0, 25.0], [20.0, 59.5], [59.5, 59.5], [59.5, 26.0]]]
    desk.control.region.use((20, 25, 60, 60), drawn)
    desk.finish()
    desk.click(40, 40)
    desk.commit()
    labels = desk.target()
    labels.paint((3, 3), 1)
    assert desk.control.suggested.correct(labels, 1)
    desk.finish()
    other = new_desk()
    _, again = reopen(other, save(desk, tmp_path / "work.lightsam"))
    correction = other.control.annotator.correction
    assert (correction.layer, correction.value) == (again.unique_id, 1)
    np.testing.assert_array_equal(correction.mask.crop, desk.control.annotator.correction.mask.crop)
    assert (other.control.region.box, other.control.region.polygons) == ((20, 25, 60, 60), drawn)
    assert desk.commit().ids == other.commit().ids == (1,)
    np.testing.assert_array_equal(again.data, labels.data)


def use(desk, image):
    desk.control.shown.use_image(image)
    desk.finish()


def test_open_clicks_come_back_when_another_image_was_looked_at(desk):
    first = desk.open(np.zeros((60, 60)), name="A")
    desk.click(15, 15)
    desk.commit()
    desk.click(30, 20)
    desk.control.single.cycle(1)
    desk.control.annotator.click((33, 22), negative=True)
    desk.control.start("boxes")
    desk.control.annotator.boxes.add_rectangles([box(40, 40, 52, 50)])
    desk.finish()
    asked, outlined = desk.control.annotator.read_prompts(), desk.control.single.answer.masks()
    second = desk.open(np.ones((60, 60)), name="B")
    assert not desk.control.annotator.has_prompts
    desk.click(10, 10)
    use(desk, first)
    assert desk.control.annotator.read_prompts() == asked
    for mask, former in zip(desk.control.single.answer.masks(), outlined, strict=True):
        np.testing.assert_array_equal(mask.to_array((60, 60)), former.to_array((60, 60)))
    assert desk.commit().ids == (2, 3)
    use(desk, second)
    assert [prompt.points for prompt in desk.control.annotator.read_prompts()] == [((10.0, 10.0, True),)]
    use(desk, first)
    assert not desk.control.annotator.has_prompts  # they were saved


def test_open_clicks_of_other_planes_come_back_and_leave_the_slider_where_it_is(desk):
    first = desk.open(np.zeros((3, 60, 60)), name="A", axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 1)
    desk.click(1, 30, 20)
    second = desk.open(np.ones((3, 60, 60)), name="B", axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 2)
    use(desk, first)
    assert desk.viewer.dims.current_step[0] == 2
    assert desk.control.annotator.read_prompts() == ()
    desk.viewer.dims.set_current_step(0, 1)
    desk.finish()
    assert len(desk.control.annotator.read_prompts()) == 1
    assert second in desk.viewer.layers


def test_a_correction_goes_on_unless_its_layer_is_gone(desk):
    first = desk.open(np.zeros((60, 60)), name="A")
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    assert desk.control.suggested.correct(labels, 1)
    desk.finish()
    second = desk.open(np.ones((60, 60)), name="B")
    use(desk, first)
    correction = desk.control.annotator.correction
    assert (correction.layer, correction.value) == (labels.unique_id, 1)
    use(desk, second)
    desk.viewer.layers.remove(labels)
    use(desk, first)
    assert desk.control.annotator.has_prompts
    assert desk.control.annotator.correction is None


def test_images_that_are_switched_quickly_keep_their_clicks(desk):
    first = desk.open(np.zeros((60, 60)), name="A")
    second = desk.viewer.add_image(np.ones((60, 60)), name="B")
    desk.click(30, 20)
    for image in (second, first, second, first):
        desk.control.shown.use_image(image)
    desk.finish()
    assert len(desk.control.annotator.read_prompts()) == 1


def test_clicks_in_another_work_region_are_kept(desk, new_desk, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_lightsam.plugin.region.LARGEST_PLANE", 2000)
    desk.open(np.arange(3600.0).reshape(60, 60))
    region = desk.control.region
    region.use((0, 0, 30, 60))
    desk.finish()
    desk.click(10, 12)
    desk.control.start("boxes")
    desk.control.annotator.boxes.add_rectangles([box(15, 40, 25, 50)])
    region.use((30, 0, 60, 60))
    desk.finish()
    desk.click(40, 40)
    desk.click(70, 70)  # beside the image
    assert desk.commit().ids == (1,)
    for table in (desk, new_desk()):
        if table is not desk:
            reopen(table, save(desk, tmp_path / "work.lightsam"))
        annotator = table.control.annotator
        assert [len(annotator.points.data), len(annotator.boxes.data)] == [1, 1]
        table.control.region.use((0, 0, 30, 60))
        table.finish()
        frame, clicked = annotator.read_prompts()
        np.testing.assert_allclose(frame.box, (15, 40, 25, 50))
        np.testing.assert_allclose(clicked.points, [(10, 12, True)])


def test_open_clicks_come_back_in_the_3d_view_and_beside_the_image_too(desk, new_desk, tmp_path):
    first = desk.open(np.zeros((3, 60, 60)), name="A", axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 1)
    desk.click(1, 15, 15)
    desk.commit()
    assert desk.control.suggested.correct(desk.target(), 1)
    desk.finish()
    second = desk.viewer.add_image(np.ones((9, 60, 60)), name="B", axis_labels=("z", "y", "x"))
    desk.viewer.dims.ndisplay = 3
    use(desk, second)
    desk.viewer.dims.set_point(0, 7)  # where the first image has no plane
    use(desk, first)
    assert desk.control.annotator.has_prompts
    path = save(desk, tmp_path / "work.lightsam")
    desk.viewer.dims.ndisplay = 2
    use(desk, second)
    use(desk, first)
    desk.viewer.dims.set_point(0, 1)
    desk.finish()
    assert [prompt.points for prompt in desk.control.annotator.read_prompts()] == [((15.0, 15.0, True),)]
    assert desk.commit().ids == (1,)

    other = new_desk()
    other.viewer.add_image(np.ones((9, 60, 60)), name="B")
    other.viewer.dims.ndisplay = 3
    reopen(other, path)
    other.viewer.dims.ndisplay = 2
    other.viewer.dims.set_point(0, 1)
    other.finish()
    assert len(other.control.annotator.read_prompts()) == 1


DAMAGED = (
    {"plane": [None, None, 0]},
    {"plane": [7, 7]},
    {"region": "all"},
    {"points": [[10**400, 1, True]]},
    {"points": [["nan", 1, True]]},
    {"mask": {"offset": [50, 50], "shape": [1, 99], "runs": [0, 99]}},
    {"mask": {"offset": [0, 0], "shape": [10**6, 10**6], "runs": [0, 10**12]}},
    {"polygons": [[[1, 2], [3]]]},
)


def test_clicks_of_a_damaged_file_are_left_out_with_a_message(desk, tmp_path, notes):
    desk.open(np.arange(3600.0).reshape(60, 60))
    desk.click(30, 20)
    annotator = desk.control.annotator
    (good,) = read_document(save(desk, tmp_path / "work.lightsam")).prompts
    annotator.remove_prompts()
    for number, change in enumerate(DAMAGED, 1):
        bring_back(desk.control, [{**good, **change}], {})
        assert not annotator.has_prompts
        assert [severity for severity, _ in notes] == ["error"] * number
    earlier = {name: good[name] for name in ("points", "box", "mask")}  # as it was written before
    for plain in ({**good, "corrects": {"labels": [0], "label": 1}}, earlier):
        annotator.remove_prompts()
        bring_back(desk.control, [plain], {})
        assert annotator.read_prompts()[0].points == ((30.0, 20.0, True),)
        assert annotator.correction is None


def test_dropped_into_an_open_widget_the_clicks_lie_on_top_and_the_tool_is_in_hand(
    desk, image_file, tmp_path, qtbot
):
    from napari.components import ViewerModel

    from napari_lightsam.plugin.widget.dock import LightSamWidget

    (image,) = desk.viewer.open(str(image_file), plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    desk.click(30, 20)
    desk.commit()
    assert desk.control.suggested.correct(desk.target(), 1)
    desk.finish()
    path = save(desk, tmp_path / "work.lightsam")
    viewer = ViewerModel()
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    _, labels = viewer.open(str(path), plugin="napari-lightsam")
    control, click = widget.controller, widget.click
    qtbot.waitUntil(lambda: bool(control.single.answer.masks()), timeout=10_000)
    assert viewer.layers.selection.active.unique_id == control.annotator.points.unique_id
    assert viewer.layers[-1].unique_id == control.annotator.points.unique_id
    assert control.annotator.correction.layer == labels.unique_id
    qtbot.waitUntil(lambda: click.commit_button.text() == "Replace object 1 (C)", timeout=10_000)
    assert click.target_combo.currentData() == labels.unique_id
    widget.shut_down()
    assert control.worker.join(10)
