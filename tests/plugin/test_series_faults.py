"""A series and what may come between: other images, deleted layers, saves under way."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile

from napari_lightsam.plugin import region
from napari_lightsam.plugin.request import sources
from napari_lightsam.plugin.series import annotating
from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.session import read_document


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number in (1, 2, 3):
        tifffile.imwrite(path / f"cell{number}.tif", np.full((60, 60), number, "uint8"))
    return path


def settle(desk):
    desk.finish()
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    desk.finish()


def begin(desk, folder):
    assert desk.control.series.open(folder)
    settle(desk)
    return desk.control.series


def annotate(desk, *clicks):
    for at in clicks:
        desk.click(*at)
        desk.commit()
        settle(desk)


def saved_images(folder):
    out = folder.with_name(f"{folder.name}_annotated")
    return {read_document(path).image.name for path in out.rglob("*.lightsam")}


def test_objects_of_another_image_are_never_saved_as_those_of_the_series(desk, folder, notes):
    images = begin(desk, folder)
    annotate(desk, (10, 10))
    desk.open(np.full((40, 40), 9, "uint8"), name="other")
    annotate(desk, (20, 20))
    images.next()
    settle(desk)
    assert images.done == 0
    assert "chosen again" in notes[-1][1]
    assert desk.control.annotator.image.name == "cell1"
    images.next()
    settle(desk)
    assert (images.done, images.current.source.name) == (1, "cell2.tif")
    assert saved_images(folder) == {"cell1"}


def test_an_image_of_the_series_that_was_deleted_is_passed_over(desk, folder):
    images = begin(desk, folder)
    desk.viewer.layers.remove(desk.control.annotator.image)
    desk.open(np.full((40, 40), 9, "uint8"), name="other")
    annotate(desk, (20, 20))
    images.next()
    settle(desk)
    assert images.current.source.name == "cell2.tif"
    assert saved_images(folder) == set()


def test_an_image_that_is_damaged_is_named_and_passed_over(desk, folder, notes):
    first, second, *_ = sorted(folder.iterdir())
    first.write_bytes(b"no")
    assert desk.control.series.open(folder)
    desk.finish()
    assert desk.control.series.current.source == second
    assert [text for severity, text in notes if severity == "error" and str(first) in text]


def test_a_series_is_opened_after_the_image_of_another_one_was_deleted(desk, folder, tmp_path):
    begin(desk, folder)
    desk.viewer.layers.clear()
    settle(desk)
    second = tmp_path / "second"
    second.mkdir()
    tifffile.imwrite(second / "x.tif", np.zeros((50, 50), "uint8"))
    assert begin(desk, second).current.source.name == "x.tif"


def test_open_prompts_of_a_skipped_image_come_back_with_and_without_objects(desk, folder):
    images = begin(desk, folder)
    desk.click(30, 20)
    images.skip()
    settle(desk)
    annotate(desk, (10, 10))
    desk.click(40, 40)
    images.show(images.items[0])
    settle(desk)
    assert desk.control.annotator.points.data.tolist() == [[30, 20]]
    images.show(images.items[1])
    settle(desk)
    assert desk.control.annotator.points.data.tolist() == [[40, 40]]


def test_objects_saved_while_an_image_is_written_are_among_its_results(desk, folder, monkeypatch):
    gate = threading.Event()
    write = annotating.write_item

    def slowly(*given):
        work = write(*given)
        yield next(work)
        assert gate.wait(10)
        return (yield from work)

    monkeypatch.setattr(annotating, "write_item", slowly)
    images = begin(desk, folder)
    annotate(desk, (10, 10))
    item = images.current
    images.next()
    desk.click(40, 40)
    desk.commit()
    gate.set()
    settle(desk)
    assert (images.done, images.current.source.name) == (1, "cell2.tif")
    assert set(read_document(item.session).labels[0].objects) == {1, 2}
    assert tifffile.imread(item.base.with_name("cell1_labels.tif")).max() == 2
    assert not list(images.out.glob("before *"))


def test_saving_elsewhere_leaves_the_files_of_the_series(desk, folder, tmp_path):
    images = begin(desk, folder)
    annotate(desk, (10, 10))
    assert desk.control.sessions.save(tmp_path / "elsewhere.lightsam")
    settle(desk)
    first = images.current
    images.skip()
    settle(desk)
    assert images.show(first)
    settle(desk)
    assert desk.target().data.max() == 1


def test_an_exercise_is_not_begun_anew_while_results_are_written(desk, folder, notes):
    images = begin(desk, folder)
    annotate(desk, (10, 10))
    images.next()
    assert images.reset() is None
    assert "still being saved" in notes[-1][1]
    settle(desk)
    first = images.reset()
    annotate(desk, (10, 10))
    images.next()
    settle(desk)
    second = images.reset()
    settle(desk)
    assert first != second
    assert (first / "cell1.lightsam").is_file()
    assert (second / "cell1.lightsam").is_file()


def test_tool_channels_and_a_typed_pixel_size_are_those_of_the_image_before(desk, tmp_path):
    path = tmp_path / "multi"
    path.mkdir()
    for number in (1, 2):
        data = np.full((3, 60, 60), number, "uint8")
        tifffile.imwrite(path / f"c{number}.tif", data, imagej=True, metadata={"axes": "CYX"})
    images = begin(desk, path)
    desk.control.shown.use_sources(sources(desk.viewer, desk.control.annotator.image)[1:3])
    desk.control.pixel_size_um = 0.325
    desk.control.start("points")
    images.next()
    settle(desk)
    assert images.current.source.name == "c2.tif"
    assert [(one.layer, one.channel) for one in desk.control.shown.sources] == [
        (desk.control.annotator.image_id, channel) for channel in (1, 2)
    ]
    assert desk.control.pixel_size_um == 0.325
    assert desk.viewer.layers.selection.active.unique_id == desk.control.annotator.points.unique_id


def test_tables_of_a_work_region_count_from_the_image_and_say_how_objects_were_made(
    desk, tmp_path, monkeypatch
):
    monkeypatch.setattr(region, "LARGEST_PLANE", 2000)
    monkeypatch.setattr(region, "SIDE", 40)
    path = tmp_path / "large"
    path.mkdir()
    for number in (1, 2):
        tifffile.imwrite(path / f"c{number}.tif", np.full((100, 100), number, "uint8"))
    images = begin(desk, path)
    desk.control.region.use((50, 50, 90, 90))
    desk.control.start("points")
    desk.control.annotator.points.add([60, 60])
    desk.finish()
    desk.commit()
    assert ours(desk.target())["region"] == [50, 50, 90, 90]
    item = images.current
    images.next()
    settle(desk)
    names, values = item.base.with_name("c1_objects.csv").read_text().splitlines()
    row = dict(zip(names.split(","), values.split(","), strict=True))
    assert (float(row["centroid_y"]), row["bbox_y0"]) == (60, "56")
    assert (float(row["score"]), row["source"]) == (pytest.approx(0.9), "prompt")


def test_work_on_an_image_that_was_replaced_is_moved_aside_before_anything_is_written(desk, folder, notes):
    begin(desk, folder)
    series = desk.control.series
    annotate(desk, (30, 20))
    series.next()
    settle(desk)
    first = series.items[0]
    before = {path.name: path.read_bytes() for path in series.out.iterdir() if path.is_file()}
    tifffile.imwrite(first.source, np.full((60, 60), 77, "uint8"))  # exported once more
    assert series.show(first)
    settle(desk)
    assert series.current is first
    assert any("belongs to another image" in text for _, text in notes)
    (aside,) = series.out.glob("before *")
    assert str(aside) in notes[-1][1]
    annotate(desk, (10, 10))
    series.next()
    settle(desk)
    assert first.is_done
    for name in (first.session.name, f"{first.base.name}_labels.tif"):
        assert (aside / name).read_bytes() == before[name]
        assert (series.out / name).read_bytes() != before[name]
