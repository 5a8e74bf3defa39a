"""Annotating a folder of images: saved, gone on, taken up again."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import tifffile

from napari_lightsam.plugin.objects.quality import Verdict
from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.session import read_document


@pytest.fixture
def folder(tmp_path):
    """Five images; number 10 comes last."""
    path = tmp_path / "images"
    path.mkdir()
    for number in (1, 2, 3, 4, 10):
        tifffile.imwrite(path / f"cell{number}.tif", np.full((60, 60), number, "uint8"))
    return path


FRESH = ["cell1", "LightSAM points"]
"""The first image, and the tool that was in use."""


def begin(desk, folder):
    assert desk.control.series.open(folder)
    settle(desk)


def settle(desk):
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    desk.finish()


def annotate(desk, *clicks):
    for at in clicks:
        desk.click(*at)
        desk.commit()


def go_on(desk):
    desk.control.series.next()
    settle(desk)


def names(desk):
    return [layer.name for layer in desk.viewer.layers]


def test_a_series_is_annotated_closed_half_way_and_resumed(new_desk, folder):
    first = new_desk()
    begin(first, folder)
    series = first.control.series
    assert (series.done, series.total, series.current.source.name) == (0, 5, "cell1.tif")
    annotate(first, (30, 20), (10, 45))
    drawn = first.target().data.copy()
    go_on(first)
    assert (series.done, series.current.source.name) == (1, "cell2.tif")
    # the former image and its labels are gone, and on the disk
    assert names(first) == ["cell2", "LightSAM points"]
    annotate(first, (50, 50))
    go_on(first)
    annotate(first, (20, 20))  # cell3 is left unfinished
    settle(first)
    half = first.target().data.copy()

    out = folder.with_name("images_annotated")
    found = sorted(path.name for path in out.iterdir() if path.is_file())
    assert found == [f"cell{i}{end}" for i in (1, 2) for end in (".lightsam", "_labels.tif", "_objects.csv")]
    np.testing.assert_array_equal(tifffile.imread(out / "cell1_labels.tif"), drawn)
    assert read_document(out / "cell1.lightsam").image.path == folder / "cell1.tif"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"cell{i}.tif" for i in (1, 2, 3, 4, 10)
    )  # nothing is written among the images

    second = new_desk()  # the first window was killed
    begin(second, folder)
    assert second.control.series.current.source.name == "cell3.tif"
    np.testing.assert_array_equal(second.target().data, half)
    annotate(second, (45, 45))
    assert second.target().data.max() == 2
    go_on(second)
    annotate(second, (30, 30))
    go_on(second)
    assert second.control.series.current.source.name == "cell10.tif"
    go_on(second)  # an image without objects counts as annotated too
    assert second.control.series.done == 5
    assert second.control.status.startswith("All 5 images are annotated")
    assert not tifffile.imread(out / "cell10_labels.tif").any()


def test_a_quality_check_of_an_image_is_a_row_in_the_results(desk, folder):
    begin(desk, folder)
    annotate(desk, (30, 20), (10, 45))
    curating, checking = desk.control.curating, desk.control.checking
    curating.use_layer(desk.target())
    curating.measure()
    desk.finish()
    checking.start(seed=4)
    for verdict in ("correct", "wrong"):
        checking.judge(Verdict(verdict))
    go_on(desk)
    table = folder.with_name("images_annotated") / "checks.csv"
    (row,) = csv.DictReader(table.open())
    assert (row["image"], row["precision"], row["judged"], row["changed_since"]) == (
        "cell1.tif", "0.5000", "2", "no",
    )  # fmt: skip
    annotate(desk, (30, 20))
    aside = desk.control.series.reset()
    assert (aside / "checks.csv").is_file()
    assert not table.exists()


def test_a_finished_image_is_opened_on_request_only_and_can_be_changed(desk, folder):
    begin(desk, folder)
    series = desk.control.series
    annotate(desk, (30, 20))
    go_on(desk)
    annotate(desk, (10, 10))
    assert series.show(series.items[0])
    settle(desk)
    assert (desk.target().data == 1).any()
    assert ours(desk.target())["largest"] == 1
    annotate(desk, (50, 50))
    go_on(desk)
    assert (series.done, series.current.source.name) == (1, "cell2.tif")
    assert (desk.target().data[10, 10], desk.target().data.max()) == (1, 1)  # what was begun there
    assert set(read_document(series.items[0].session).labels[0].objects) == {1, 2}


def test_the_next_image_is_prepared_while_this_one_is_annotated(desk, folder, tiny):
    begin(desk, folder)
    assert sorted({int(image.max()) for image, *_ in tiny.embedded}) == [1, 2]


def test_an_image_that_cannot_be_opened_is_passed_over_with_a_message(desk, folder, notes):
    (folder / "cell2.tif").write_bytes(b"no image")
    begin(desk, folder)
    go_on(desk)
    assert desk.control.series.current.source.name == "cell3.tif"
    assert notes
    for _ in range(3):
        go_on(desk)
    assert "1 of 5 images are left" in desk.control.status


def test_an_exercise_begins_anew_and_nothing_is_deleted(desk, folder):
    begin(desk, folder)
    series = desk.control.series
    annotate(desk, (30, 20))
    go_on(desk)
    annotate(desk, (30, 20))
    settle(desk)
    aside = series.reset()
    settle(desk)
    assert (series.done, series.current.source.name, names(desk)) == (0, "cell1.tif", FRESH)
    assert {"cell1.lightsam", "cell1_labels.tif", "cell2~1.lightsam"} <= {p.name for p in aside.iterdir()}


def test_a_folder_without_images_says_so(desk, tmp_path, notes):
    assert not desk.control.series.open(tmp_path)
    assert "No images were found" in notes[-1][1]


def test_n_goes_on_from_the_layer_that_everything_was_segmented_into(desk, folder):
    begin(desk, folder)
    desk.control.annotator.remove_prompts()
    assert desk.control.segment_everything()
    desk.finish()
    active = desk.viewer.layers.selection.active
    assert active.name == "Everything in cell1"
    (press,) = (act for key, act in active.keymap.items() if str(key) == "N")
    press(active)
    settle(desk)
    assert desk.control.series.done == 1
    assert desk.control.series.current.source.name == "cell2.tif"


def test_what_two_people_make_of_one_image_is_both_kept(new_desk, folder, notes):
    first, second = new_desk(), new_desk()
    for desk in (first, second):
        begin(desk, folder)
    annotate(first, (30, 20))
    annotate(second, (45, 45), (10, 10))
    go_on(first)
    out = folder.with_name("images_annotated")
    theirs = {name: (out / name).read_bytes() for name in ("cell1.lightsam", "cell1_labels.tif")}
    go_on(second)

    assert tifffile.imread(out / "cell1_labels.tif").max() == 2
    (aside,) = out.glob("before *")
    assert {name: (aside / name).read_bytes() for name in theirs} == theirs
    (warning,) = [text for kind, text in notes if kind == "warning"]
    assert "cell1.tif was annotated elsewhere, too" in warning
    assert str(aside) in warning
    # each goes on with what nobody has done
    assert first.control.series.current.source.name == "cell2.tif"
    annotate(second, (30, 20))
    go_on(second)
    assert len(list(out.glob("before *"))) == 1
    assert first.control.series.done == 2


def test_an_image_that_is_saved_again_in_one_window_was_annotated_by_nobody_else(desk, folder, notes):
    begin(desk, folder)
    annotate(desk, (30, 20))
    go_on(desk)
    series = desk.control.series
    assert series.show(series.items[0])
    settle(desk)
    annotate(desk, (45, 45))
    go_on(desk)
    assert tifffile.imread(series.out / "cell1_labels.tif").max() == 2
    assert not list(series.out.glob("before *"))
    assert notes == []
