"""Large images: a part of them is worked on at once, and everything lies where it belongs in the whole."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_lightsam.batch import BatchSettings, segment_slide
from napari_lightsam.batch.slide_record import read_record
from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.formats.geojson import read_geojson
from napari_lightsam.formats.ome_zarr import create_levels
from napari_lightsam.formats.roi import read_rois
from napari_lightsam.plugin import inference, region, whole, writer
from napari_lightsam.plugin.scope import Scope, name_of_plane
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.layers import ours

SIZE = (600, 800)


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    """Take for large what is quick to test."""
    monkeypatch.setattr(region, "LARGEST_PLANE", 500 * 500)
    monkeypatch.setattr(region, "LARGEST_LAZY_PLANE", 300 * 300)
    monkeypatch.setattr(region, "SIDE", 200)


def lazy(read, shape=SIZE):
    """An array of chunks that are noted as they are computed, whose values tell the column."""

    def block(block_info):
        read.append(block_info[None]["chunk-location"])
        return np.broadcast_to(
            np.arange(*block_info[None]["array-location"][-1]) % 251, block_info[None]["chunk-shape"]
        ).astype(np.uint8)

    chunks = (1,) * (len(shape) - 2) + (100, 100)
    return da.map_blocks(block, chunks=da.core.normalize_chunks(chunks, shape), dtype=np.uint8)


def world(labels, value=1):
    """Return where the pixels of an object are in the world: first and last along rows and columns."""
    at = np.array([labels.data_to_world(p) for p in np.argwhere(labels.data == value)])[:, -2:]
    return at.min(axis=0).tolist(), at.max(axis=0).tolist()


def test_a_large_lazy_image_is_worked_on_in_the_middle_of_what_is_visible_and_read_nowhere_else(desk, tiny):
    read: list = []
    image = desk.open(lazy(read), scale=(0.5, 0.5), translate=(7, 9), contrast_limits=(0, 255))
    assert desk.control.region.box == (200, 300, 400, 500)
    assert name_of_plane(image, desk.control.annotator.plane()) == "the work region"
    read.clear()
    desk.control.inference._embeddings.clear()
    desk.control.shown.prepare()
    desk.finish()
    assert tiny.embedded[-1][0].shape == (200, 200)
    assert tiny.embedded[-1][0][0, 0] == 300 % 251
    assert {location[0] for location in read} == {2, 3}
    assert {location[1] for location in read} == {3, 4}
    desk.click(250, 320)  # in pixels of the whole image
    np.testing.assert_allclose(np.ravel(tiny.predicted[-1][0]), (50, 20))
    desk.commit()
    labels = desk.target()
    assert isinstance(labels.data, np.ndarray)
    assert labels.data.shape == (200, 200)
    assert ours(labels)["region"] == [200, 300, 400, 500]
    (top, left), (bottom, right) = world(labels)
    assert ((top + bottom) / 2, (left + right) / 2) == tuple(image.data_to_world((250, 320)))


def test_another_region_has_a_layer_of_its_own_and_going_back_finds_the_former_one(desk, notes):
    desk.open(lazy([]), contrast_limits=(0, 255))
    desk.click(250, 320)
    desk.commit()
    first = desk.target()
    drawn = desk.viewer.add_shapes([[(10, 20), (10, 139), (89, 139), (89, 20)]], shape_type="polygon")
    assert desk.control.region.use_drawn(drawn)
    desk.finish()
    assert desk.control.region.box == (10, 20, 90, 140)
    desk.control.annotator.clear()
    desk.click(40, 60)
    desk.commit()
    second = desk.target()
    assert second.unique_id != first.unique_id
    assert second.data.shape == (80, 120)
    assert world(second)[0] == [36, 56]
    assert desk.control.targets() == [second]
    assert desk.control.region.use_labels(first)
    assert desk.control.targets() == [first]
    desk.viewer.add_shapes([[(0, 0), (0, 799), (599, 799), (599, 0)]], shape_type="polygon", name="all")
    assert not desk.control.region.use_drawn(desk.viewer.layers["all"])
    assert "larger than" in notes[-1][1]


def test_exports_count_from_the_first_pixel_of_the_whole_image(desk, tmp_path):
    desk.open(lazy([]), contrast_limits=(0, 255))
    desk.click(250, 320)
    desk.commit()
    data, meta, _ = desk.target().as_layer_data_tuple()
    writer.write_geojson(str(tmp_path / "cells.geojson"), data, meta)
    writer.write_rois(str(tmp_path / "cells.zip"), data, meta)
    read = read_geojson(tmp_path / "cells.geojson").labels, read_rois(tmp_path / "cells.zip").labels
    for labels in read:
        np.testing.assert_allclose(np.argwhere(labels).mean(axis=0), (250, 320))
    table = writer.layer_objects(data, meta).measured()
    assert (table["centroid_y"][0], table["centroid_x"][0]) == pytest.approx((250, 320))


def test_everything_in_the_region_lies_where_it_is_in_the_image(desk, tiny):
    desk.open(lazy([]), contrast_limits=(0, 255))
    assert desk.control.segment_everything()
    desk.finish()
    labels = desk.target()
    assert tiny.runs[-1][0].shape == (200, 200)
    assert labels.data.max() == 4
    assert world(labels)[0] == [201, 302]


@pytest.mark.parametrize("kind", ["multiscale", "stack", "rgb"])
def test_regions_of_multiscale_images_stacks_and_colours(desk, tiny, kind):
    if kind == "multiscale":
        full = lazy([])
        image = desk.open([full, full[::2, ::2]], multiscale=True, contrast_limits=(0, 255))
    elif kind == "stack":
        image = desk.open(lazy([], (3, *SIZE)), axis_labels=("z", "y", "x"), contrast_limits=(0, 255))
    else:
        image = desk.open(da.stack([lazy([])] * 3, axis=-1), rgb=True)
    y0, x0, y1, x1 = desk.control.region.box
    assert (y1 - y0, x1 - x0) == (200, 200)
    assert tiny.embedded[-1][0].shape == ((200, 200, 3) if kind == "rgb" else (200, 200))
    control = desk.control
    control.results.commit(image, control.annotator.plane(), [Mask((3, 4), np.ones((5, 5), bool))])
    labels = desk.target()
    assert world(labels)[0] == [y0 + 3, x0 + 4]
    assert labels.data.shape == ((3, 200, 200) if kind == "stack" else (200, 200))
    if kind == "stack":
        assert control.shown.request().refer_stack(0)[0].shape == (3, 200, 200)


@pytest.mark.parametrize("axis", ["c", "z", "t"])
def test_the_outline_of_the_region_is_on_every_plane_and_leaves_the_slider_alone(desk, axis):
    image = desk.open(
        lazy([], (3, *SIZE)), axis_labels=(axis, "y", "x"), contrast_limits=(0, 255), scale=(2, 1, 1)
    )
    before = desk.viewer.dims.range[0]
    desk.viewer.dims.set_point(0, 4)
    desk.finish()
    assert desk.control.region.use((10, 20, 90, 140))
    desk.finish()
    outline = layers.find(desk.viewer, "work region", desk.control.annotator.owner)
    assert desk.viewer.dims.range[0] == before
    for step in (0, 2, 4):
        desk.viewer.dims.set_point(0, step)
        assert len(outline._data_view.displayed_vertices), step
    corners = np.array([image.world_to_data(outline.data_to_world(at)) for at in outline.data[0]])[:, 1:]
    np.testing.assert_allclose(
        [corners.min(axis=0), corners.max(axis=0)], [(9.5, 19.5), (89.5, 139.5)], atol=1e-3
    )


def outlined(viewer):
    """Name the images whose region is outlined."""
    found = [ours(layer)["image"] for layer in viewer.layers if ours(layer).get("role") == layers.Role.REGION]
    return [layer.name for image in found for layer in viewer.layers if str(layer.unique_id) == image]


def test_the_outline_is_that_of_the_chosen_image_and_goes_with_the_tool(new_desk):
    desk = new_desk()
    first = desk.open(np.zeros(SIZE), name="first")
    box = desk.control.region.box
    desk.open(np.zeros(SIZE), name="second")
    assert outlined(desk.viewer) == ["second"]
    desk.control.shown.use_image(first)
    desk.finish()
    assert (outlined(desk.viewer), desk.control.region.box) == (["first"], box)
    desk.control.close()
    assert outlined(desk.viewer) == []
    again = new_desk(desk.viewer)
    again.control.shown.use_image(first)
    again.finish()
    assert (outlined(desk.viewer), again.control.region.box) == (["first"], box)


def test_an_image_that_fits_has_no_region(desk):
    desk.open(np.zeros((400, 500), np.uint8))
    assert desk.control.region.box is None
    assert not desk.control.region.is_needed()
    assert desk.control.everything.choices.scope is Scope.PLANE


class Slide:
    """Stands for the batch engine: two blocks, of which the second may fail or take its time."""

    def __init__(self):
        self.error, self.hold, self.seen, self.closed = None, False, [], False

    def __call__(self, plane, out, settings, *, model, workers):
        self.seen.append((plane, settings))
        yield Progress("opening the image", 0, 0)
        record = read_record(out)
        assert record is None or not record["complete"]
        levels = create_levels(
            out, plane.shape[:2], "YX", "uint32", pixel_size=settings.pixel_size, chunk=256
        )
        attributes = zarr.open_group(out, mode="r+").attrs
        attributes["lightsam"] = {"complete": False, "identity": "x"}
        levels[0][10:20, 700:720] = 1
        try:
            yield Progress("segmenting", 1, 2)
            while self.hold:
                time.sleep(0.01)
                yield Progress("segmenting", 1, 2)
        finally:
            self.closed = True
        if self.error is not None:
            raise self.error
        for level, array in enumerate(levels):
            array[:] = levels[0][:: 2**level, :: 2**level]
        attributes["lightsam"] = {"complete": True, "identity": "x", "n_objects": 1, "blocks": 2}
        return SimpleNamespace(n_objects=1, failed=(), path=out)


@pytest.fixture
def slide(monkeypatch):
    fake = Slide()
    monkeypatch.setattr(whole, "segment_slide", fake)
    return fake


def test_the_whole_image_is_segmented_on_disk_and_opened_to_look_at(desk, slide, tmp_path):
    desk.open(
        zarr.array(np.broadcast_to(np.arange(800) % 251, SIZE).astype(np.uint8)),
        contrast_limits=(0, 255),
        scale=(0.5, 0.25),
        units=("um", "um"),
    )
    path = tmp_path / "whole.zarr"
    control = desk.control
    assert control.segment_whole(path)
    desk.finish()
    ((plane, settings),) = slide.seen
    assert plane.shape == SIZE
    assert plane[0:2, 300:302][0, 0] == 300 % 251
    assert settings.pixel_size == (0.5, 0.25)
    labels = desk.viewer.layers["Whole image of image"]
    assert not labels.editable
    assert labels.multiscale
    assert [np.asarray(level).sum() for level in labels.data] == [200, 50]
    assert control.results.target != labels.unique_id
    assert "1 object in whole.zarr" in control.status
    assert control.region.unfinished is None
    assert not control.segment_whole(path)


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_a_run_on_the_whole_image_that_did_not_end_is_gone_on_with(desk, slide, tmp_path, notes, how):
    image = desk.open(lazy([]), contrast_limits=(0, 255))
    control, path = desk.control, tmp_path / "whole.zarr"
    slide.error = LightSamError("The disk is full.") if how == "failed" else None
    slide.hold = how == "stopped"
    told = []
    control.region.progress.connect(told.append)
    assert control.segment_whole(path)
    if how == "stopped":
        desk.run_until(lambda: any(step is not None and step.done for step in told))
        control.region.stop()
        assert not control.region.is_running
    desk.finish()
    assert slide.closed
    assert control.region.unfinished == path
    assert any("The disk is full." in message for _, message in notes) == (how == "failed")
    partial = [layer for layer in desk.viewer.layers if layer.name == "Whole image of image"]
    assert len(partial) == (how == "stopped")
    slide.error, slide.hold = None, False
    assert control.segment_whole(path)
    desk.finish()
    assert [one.path for one, _ in slide.seen] == [slide.seen[0][0].path] * 2
    assert len([layer for layer in desk.viewer.layers if layer.name == "Whole image of image"]) == 1
    assert control.region.unfinished is None
    assert "1 object in whole.zarr" in control.status
    desk.viewer.layers.remove(image)


@pytest.mark.parametrize("most", [100, 150, 1000])
def test_what_a_stopped_run_has_done_is_read_from_disk_once_and_not_whenever_the_view_moves(
    desk, slide, tmp_path, monkeypatch, most
):
    monkeypatch.setattr(whole, "_LARGEST_LEVEL", most)
    desk.open(lazy([]), contrast_limits=(0, 255), name="cells")
    slide.hold, told = True, []
    desk.control.region.progress.connect(told.append)
    assert desk.control.segment_whole(tmp_path / "whole.zarr")
    desk.run_until(lambda: any(step is not None and step.done for step in told))
    desk.control.region.stop()
    desk.finish()
    labels = desk.viewer.layers["Whole image of cells"]
    full = np.zeros(SIZE, np.uint32)
    full[10:20, 700:720] = 1
    levels = labels.data if labels.multiscale else [labels.data]
    for number, level in enumerate(levels):
        np.testing.assert_array_equal(np.asarray(level), full[:: 2**number, :: 2**number])
    assert max(levels[-1].shape) <= most
    assert isinstance(levels[-1], np.ndarray) == labels.multiscale == (most < max(SIZE))
    assert told[-1] is None


@pytest.mark.parametrize(("side", "rows"), [(1, 1), (7, 3), (64, 64), (100, 7), (129, 32)])
def test_labels_that_are_thinned_are_every_nth_of_all(tmp_path, monkeypatch, side, rows):
    monkeypatch.setattr(whole, "_LARGEST_LEVEL", 16)
    full = np.arange(side * (side + 3), dtype=np.int32).reshape(side, side + 3)
    group = zarr.open_group(tmp_path / "labels.zarr", mode="w")
    group.create_array("0", shape=full.shape, chunks=(rows, 5), dtype=full.dtype)[:] = full
    small = drain(whole.thinned(tmp_path / "labels.zarr"))
    step = next(n for n in (1, 2, 4, 8, 16) if -(-(side + 3) // n) <= 16)
    np.testing.assert_array_equal(small, full[::step, ::step])


def test_a_run_that_an_earlier_window_did_not_finish_is_gone_on_with(new_desk, slide, tmp_path, monkeypatch):
    zarr.save_array(tmp_path / "cells.zarr", np.zeros(SIZE, np.uint8))
    monkeypatch.chdir(tmp_path)

    def opened():
        desk = new_desk()
        (image,) = desk.viewer.open(str(tmp_path / "cells.zarr"), plugin="napari")
        desk.control.shown.use_image(image)
        desk.finish()
        return desk

    desk, slide.error = opened(), LightSamError("The power goes.")
    region = desk.control.region
    assert region.unfinished is None
    assert region.suggested() == tmp_path / "cells_labels.ome.zarr"
    assert desk.control.segment_whole(region.suggested())
    desk.finish()
    later, slide.error = opened(), None
    assert later.control.region.unfinished == tmp_path / "cells_labels.ome.zarr"
    assert later.control.segment_whole(later.control.region.unfinished)
    later.finish()
    assert later.control.region.unfinished is None
    assert opened().control.region.unfinished is None


def test_what_lies_where_an_image_without_a_file_would_put_its_labels_is_not_gone_on_with(
    desk, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    attributes = zarr.open_group(tmp_path / "image_labels.ome.zarr", mode="w", zarr_format=2).attrs
    attributes["lightsam"] = {"complete": False, "identity": "x"}
    desk.open(lazy([]), contrast_limits=(0, 255))
    assert whole.begun(desk.control.region.suggested())
    assert desk.control.region.unfinished is None


def test_labels_of_the_whole_image_are_not_written_into_the_image(desk, slide, tmp_path, notes):
    zarr.save_array(tmp_path / "image.zarr", np.zeros(SIZE, np.uint8))
    (image,) = desk.viewer.open(str(tmp_path / "image.zarr"), plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    assert not desk.control.segment_whole(tmp_path / "image.zarr" / "labels.zarr")
    assert "inside the input" in notes[-1][1]
    assert slide.seen == []


def test_clicks_are_answered_and_nothing_is_told_twice_while_the_whole_image_waits(desk, slide, tmp_path):
    desk.open(lazy([]), contrast_limits=(0, 255))
    told = []
    desk.control.region.progress.connect(told.append)
    slide.hold = True
    assert desk.control.segment_whole(tmp_path / "whole.zarr")
    desk.click(250, 320)
    assert desk.commit()
    desk.control.region.stop()
    desk.finish()
    assert told[-1] is None
    assert len({id(step) for step in told}) == len(told)


def test_the_whole_image_is_what_the_batch_engine_makes_of_it(
    new_desk, segmenter, monkeypatch, nuclei, tmp_path
):
    monkeypatch.setattr(region, "LARGEST_PLANE", 1000)
    monkeypatch.setattr(inference, "load", lambda name: segmenter)
    desk, pixels = new_desk(), nuclei[0][:160, :160]
    desk.open(pixels)
    choices = desk.control.everything.choices
    config = replace(choices.config, object_size=26.0)
    desk.control.everything.choose(replace(choices, config=config))
    assert desk.control.segment_whole(tmp_path / "whole.zarr")
    desk.finish()
    report = drain(
        segment_slide(pixels, tmp_path / "batch.zarr", BatchSettings(config=config), model=segmenter)
    )
    ours_, theirs = (zarr.open_array(tmp_path / name / "0")[:] for name in ("whole.zarr", "batch.zarr"))
    assert report.n_objects > 3
    np.testing.assert_array_equal(ours_, theirs)
    shown = desk.viewer.layers["Whole image of image"].data
    np.testing.assert_array_equal(np.asarray(shown), theirs)


def test_of_a_region_drawn_as_a_polygon_only_the_inside_counts(desk, tiny, notes):
    image = desk.open(lazy([]), contrast_limits=(0, 255))
    # what the tiny model finds lies along the left side of the box, from the top down
    drawn = desk.viewer.add_shapes([[(100, 100), (100, 180), (180, 180), (120, 100)]], shape_type="polygon")
    assert desk.control.region.use_drawn(drawn)
    desk.finish()
    assert desk.control.region.box == (100, 100, 181, 181)
    outline = desk.viewer.layers["work region"].data[0]
    np.testing.assert_allclose(outline, drawn.data[0])
    desk.click(170, 110)  # in its box, and outside
    assert "outside of the work region" in desk.control.status
    assert desk.control.single.answer.masks() == []
    assert desk.commit() is None
    desk.control.annotator.clear()
    desk.click(120, 150)
    assert len(desk.control.single.answer.prompts) == 1
    assert desk.commit().ids == (1,)
    made = desk.target()
    assert desk.control.segment_everything()
    desk.finish()
    found = desk.target()
    assert found.data.max() == 2  # of four
    assert ours(found)["polygons"] == [[[0, 0], [0, 80], [80, 80], [20, 0]]]
    desk.control.region.use_visible()
    assert desk.control.region.polygons == []
    assert desk.control.region.use_labels(made)
    assert desk.control.region.polygons == [np.array(drawn.data[0]).tolist()]
    assert image.metadata["napari-lightsam"]["work_region"]["box"] == [100, 100, 181, 181]


def test_all_planes_are_refused_in_a_polygon_with_the_way_out(desk, notes):
    desk.open(lazy([], (3, *SIZE)), axis_labels=("z", "y", "x"), contrast_limits=(0, 255))
    corners = [(1, 100, 100), (1, 100, 180), (1, 180, 180)]
    drawn = desk.viewer.add_shapes([corners], shape_type="polygon")
    assert desk.control.region.use_drawn(drawn)
    desk.finish()
    desk.control.everything.choose(replace(desk.control.everything.choices, scope=Scope.STACK))
    assert not desk.control.segment_everything()
    assert "rectangle" in notes[-1][1]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((290, 390, 310, 410), (225, 325, 375, 475)),  # little: more around it
        ((0, 0, 20, 20), (0, 0, 150, 150)),  # as far as the image goes
        ((590, 100, 600, 280), (450, 100, 600, 280)),
        ((0, 0, 600, 800), (200, 300, 400, 500)),  # much: its middle
    ],
)
def test_work_here_takes_at_least_a_useful_part_around_the_middle_of_the_window(
    desk, tiny, monkeypatch, shown, expected
):
    monkeypatch.setattr(region, "LEAST_SIDE", 150)
    desk.open(lazy([]), contrast_limits=(0, 255))
    monkeypatch.setattr(region, "visible_region", lambda viewer, image, plane: shown)
    assert desk.control.region.use_visible()
    assert desk.control.region.box == expected


def test_a_refused_run_on_the_whole_image_names_no_option_of_the_command_line(desk, notes, tmp_path):
    desk.open(lazy([]), contrast_limits=(0, 255))
    found = FileError("a.zarr was changed since it was written. Use --overwrite, or another output.")
    running = region._Whole("image", None, tmp_path / "a.zarr", threading.Event())
    desk.control.region._on_error(running, found)
    message = notes[-1][1]
    assert "--" not in message
    assert message.endswith("Choose another name, or remove a.zarr first.")
