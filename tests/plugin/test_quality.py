"""The quality check: its figures, and going through it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import FileError
from napari_lightsam.plugin.objects.quality import (
    Check,
    Field,
    Share,
    Verdict,
    count_outlined,
    draw_field,
    draw_sample,
    read_check,
    wilson,
)
from napari_lightsam.plugin.objects.table import measure
from napari_lightsam.plugin.worker import Lane
from napari_lightsam.session import LabelRecord
from napari_lightsam.session.checks import is_outdated, note_check


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3, as statsmodels' `proportion_confint`
        # with method="wilson"
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_intervals_are_those_of_the_literature(hits, total, low, high):
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson(total - hits, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_looked_at_says_nothing():
    assert wilson(0, 0) == (0, 1)
    assert math.isnan(Share(0, 0).value)
    with pytest.raises(ValueError, match="between 0 and 3"):
        wilson(4, 3)


@pytest.fixture
def desk(new_desk):
    table = new_desk()
    data = np.zeros((70, 70), np.int32)
    for label in range(1, 50):
        y, x = divmod(label - 1, 7)
        data[10 * y + 1 : 10 * y + 7, 10 * x + 1 : 10 * x + 7] = label
    table.layer = table.viewer.add_labels(data, name="result")
    table.control.curating.outdated.connect(table.control.curating.measure)
    table.control.curating.use_layer(table.layer)
    table.finish(Lane.MEASURE)
    return table


def test_the_same_seed_draws_the_same_objects_and_fields(desk):
    table = desk.control.curating.table
    one, same, other = (draw_sample(table, seed) for seed in (1, 1, 2))
    assert one == same
    assert one.sampled != other.sampled
    assert len(set(one.sampled)) == 30 == len(one.sampled)
    assert len(draw_sample(table, 1, count=100).sampled) == 49
    field = draw_field(table, (70, 70), one)
    assert field == draw_field(table, (70, 70), same)
    assert 12 <= field.outlined <= 30
    assert field.outlined == count_outlined(table, field.box)
    y0, x0, y1, x1 = field.box
    assert min(y0, x0) >= 0
    assert max(y1, x1) <= 70


def test_a_check_is_answered_kept_with_the_layer_and_gone_on_with(desk):
    checking, layer = desk.control.checking, desk.layer
    checking.start(seed=3)
    order = checking.check.sampled
    for number, label in enumerate(order[:29]):
        assert checking.current == label == layer.selected_label
        checking.judge(Verdict.MERGED if number < 2 else Verdict.CORRECT)
    checking.pause()
    kept = json.loads(json.dumps(layer.metadata["napari-lightsam"]["quality"]))
    assert Check.from_plain(kept) == checking.check == read_check(layer)
    checking.resume()
    assert checking.current == order[29]
    checking.step_back()
    checking.judge(Verdict.SPLIT)  # thought better of it
    checking.judge(Verdict.WRONG)
    assert checking.current is None
    plain = layer.metadata["napari-lightsam"]["quality"]
    assert (plain["precision"]["hits"], plain["precision"]["total"]) == (26, 30)
    assert (plain["precision"]["low"], plain["precision"]["high"]) == wilson(26, 30)
    assert not checking.is_outdated
    desk.control.curating.select([order[0]])
    desk.control.curating.repairs.delete()
    desk.finish(Lane.MEASURE)
    assert checking.is_outdated


def test_missed_objects_are_clicked_in_a_random_field(desk):
    checking = desk.control.checking
    checking.start(seed=3)
    checking.pause()
    checking.add_field()
    outlined = checking.field.outlined
    clicks = desk.viewer.layers["missed objects"]
    clicks.add([[29, 9], [39, 9]])
    assert checking.field.missed == 2
    checking.set_missed(5)
    clicks.add([29, 19])
    assert checking.field.missed == 6
    checking.set_false(1)
    checking.end_field()
    assert [layer.name for layer in desk.viewer.layers] == ["result"]
    assert checking.check.recall == Share(outlined - 1, outlined + 5)
    checking.add_field()
    checking.end_field()
    assert len(checking.check.fields) == 2


def test_clicks_beside_the_field_are_not_counted_in_it(desk):
    checking = desk.control.checking
    checking.start(seed=3)
    checking.pause()
    checking.add_field()
    y0, x0, y1, x1 = checking.field.box
    clicks = desk.viewer.layers["missed objects"]
    clicks.add([[y0, x0], [y1 - 1, x1 - 1]])
    clicks.add([[y0 - 1, x0], [y0, x1]])
    assert checking.field.missed == 2
    assert "in the frame" in desk.control.status
    checking.set_missed(4)
    clicks.add([y0 + 1, x0 + 1])
    checking.end_field()
    assert checking.check.fields[0].missed == 5


def test_a_field_counts_only_when_it_was_searched_to_its_end(desk):
    checking = desk.control.checking
    checking.start(seed=3)
    checking.pause()
    checking.add_field()
    first = checking.field.box
    assert checking.check.fields == ()
    checking.pause()  # as when the section is folded
    assert checking.field is None
    assert checking.check.fields == ()
    assert math.isnan(checking.check.recall.value)
    checking.add_field()
    assert checking.field.box == first  # nobody can draw until a field suits
    checking.end_field()
    assert len(checking.check.fields) == 1


@pytest.fixture
def stack_desk(new_desk):
    table = new_desk()
    data = np.zeros((4, 40, 40), np.int32)
    data[0, 1:9, 1:9], data[0, 11:19, 11:19], data[2, 21:29, 21:29] = 1, 3, 2
    table.layer = table.viewer.add_labels(data, name="result")
    table.viewer.dims.set_point(0, 0)
    table.control.curating.outdated.connect(table.control.curating.measure)
    table.control.curating.use_layer(table.layer)
    table.finish(Lane.MEASURE)
    return table


def test_a_check_is_gone_on_with_on_its_own_plane(stack_desk):
    checking, viewer = stack_desk.control.checking, stack_desk.viewer
    checking.start(seed=0)
    checking.judge(Verdict.CORRECT)
    checking.pause()
    viewer.dims.set_point(0, 2)
    stack_desk.control.curating.use_all_planes(True)
    stack_desk.finish(Lane.MEASURE)
    checking.resume()
    stack_desk.finish(Lane.MEASURE)
    assert viewer.dims.point[0] == 0
    assert checking.current == checking.check.sampled[1] == stack_desk.layer.selected_label
    assert "not there any more" not in stack_desk.control.status
    viewer.dims.set_point(0, 3)  # to look at another plane, before the answer
    stack_desk.finish(Lane.MEASURE)
    checking.step_back()
    stack_desk.finish(Lane.MEASURE)
    assert viewer.dims.point[0] == 0
    assert stack_desk.layer.selected_label == checking.check.sampled[0]


def test_a_check_along_other_axes_is_not_gone_on_with(stack_desk, notes):
    checking = stack_desk.control.checking
    checking.start(seed=0)
    checking.pause()
    stack_desk.viewer.dims.order = (1, 0, 2)
    stack_desk.finish(Lane.MEASURE)
    checking.resume()
    assert checking.current is None
    assert "swap the axes back" in notes[-1][1]


def test_missed_objects_are_counted_on_a_plane_only(stack_desk, notes):
    stack_desk.viewer.dims.ndisplay = 3
    stack_desk.finish(Lane.MEASURE)
    checking = stack_desk.control.checking
    checking.start(seed=0)
    checking.pause()
    checking.add_field()
    assert checking.field is None
    assert "on one plane" in notes[-1][1]


@pytest.mark.parametrize("place", [(1, None, None), (None, None, None), (None, 3, None)])
def test_a_file_tells_whether_objects_were_changed_since_the_check(place):
    data = np.random.default_rng(0).integers(0, 6, (3, 20, 30)).astype(np.int32)
    check = draw_sample(drain(measure(data, place)), seed=1)
    record = LabelRecord(name="objects", data=data, quality=check.to_plain())
    assert not is_outdated(record)
    data[1, 3, :9] = 9
    assert is_outdated(record)
    assert is_outdated(replace(record, data=data[0]))


def test_the_checks_of_many_images_are_rows_of_one_table(tmp_path):
    path = tmp_path / "checks.csv"
    data = np.array([[0, 1, 1], [2, 2, 0]], np.int32)
    check = draw_sample(drain(measure(data, (None, None))), seed=5)
    unchecked = LabelRecord(name="objects", data=data)
    note_check(path, "a.tif", unchecked)
    assert not path.exists()
    checked = replace(unchecked, quality=check.judge(1, Verdict.WRONG).to_plain())
    note_check(path, "a.tif", checked)
    right = check.judge(1, Verdict.CORRECT).judge(2, Verdict.CORRECT)
    searched = right.with_field(Field((0, 0, 2, 3), (None, None), 2, missed=1))
    note_check(path, "b.tif", replace(unchecked, quality=searched.to_plain()))
    note_check(path, "a.tif", replace(checked, quality=right.to_plain(), data=data[::-1]))
    first, second = pd.read_csv(path).to_dict("records")
    assert (first["image"], first["precision"], first["judged"]) == ("b.tif", 1, 2)
    assert first["changed_since"] == "no"
    assert (first["recall"], first["searched"], first["seed"]) == (pytest.approx(2 / 3, abs=1e-4), 3, 5)
    assert (first["precision_low"], first["precision_high"]) == pytest.approx(wilson(2, 2), abs=1e-4)
    assert (second["image"], second["precision"], second["changed_since"]) == ("a.tif", 1, "yes")
    assert math.isnan(second["recall"])
    for _ in range(2):  # a name that is no text, in a table that is read again
        note_check(path, os.fsdecode(b"\xb5m.tif"), checked)
    assert b"\n\xb5m.tif," in path.read_bytes()
    assert path.read_bytes().count(b"\n") == 4


@pytest.mark.parametrize(
    ("plain", "said"),
    [({"version": 2}, "version 2"), ({"version": 1}, "damaged"), ({}, "version None")],
)
def test_a_check_that_cannot_be_read_says_what_to_do(plain, said):
    with pytest.raises(FileError, match=said):
        Check.from_plain(plain)


def test_only_objects_of_the_sample_are_judged():
    check = Check(0, (4, 5)).with_field(Field((0, 0, 9, 9), (None, None), 3))
    with pytest.raises(ValueError, match="not in the sample"):
        check.judge(6, Verdict.CORRECT)
    assert check.with_field(Field((0, 0, 9, 9), (None, None), 3, missed=1)).recall == Share(3, 4)


def test_the_frame_of_the_field_is_seen_at_every_zoom(desk):
    checking, camera = desk.control.checking, desk.viewer.scene.camera
    camera.zoom = 60
    checking.start(seed=3)
    checking.pause()
    checking.add_field()
    frame = desk.viewer.layers["field to search"]
    for zoom in (camera.zoom, 0.3, 40):
        camera.zoom = zoom
        assert 2 <= frame.edge_width[0] * camera.zoom <= 4
    checking.end_field()
    camera.zoom = 1


def test_objects_are_judged_as_outlines_and_from_near(desk):
    checking, curating, layer = desk.control.checking, desk.control.curating, desk.layer
    curating.begin()
    assert layer.contour in (1, 2)
    checking.start(seed=3)
    across = 6 * desk.viewer.scene.camera.zoom
    assert across == pytest.approx(min(desk.viewer.canvas.size) / 5, rel=0.2)
    other = desk.viewer.add_labels(layer.data.copy(), name="other")
    curating.use_layer(other)
    assert (layer.contour, other.contour > 0) == (0, True)
    curating.hide()
    assert other.contour == 0


def test_outlines_are_thin_from_near_and_thick_from_afar(desk):
    curating, camera = desk.control.curating, desk.viewer.scene.camera
    curating.begin()
    for zoom, width in ((8, 1), (0.5, 2), (4, 1)):
        camera.zoom = zoom
        assert desk.layer.contour == width
    assert curating.is_current
    desk.layer.contour = 3  # as the user wants it
    camera.zoom = 0.5
    assert desk.layer.contour == 3
    camera.zoom = 1


def test_the_outlines_that_a_user_wants_stay_as_they_are(desk):
    desk.layer.contour = 5
    desk.control.curating.begin()
    assert desk.layer.contour == 5
    desk.control.curating.hide()
    assert desk.layer.contour == 5


def test_the_status_follows_the_check_to_its_end(desk):
    checking, control = desk.control.checking, desk.control
    checking.start(seed=3)
    assert "Press 1, 2, 3 or 4" in control.status
    checking.pause()
    assert control.status == "The check is paused: 0 of 30 judged."
    checking.add_field()
    checking.pause()
    assert "does not count" in control.status
    checking.add_field()
    checking.set_missed(2)
    checking.end_field()
    assert control.status == "The field counts: 2 missed, 0 false."
