"""Large images: a part of them is worked on at once, and everything lies where it belongs in the whole."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.progress import Progress
from napari_lightsam.formats.geojson import read_geojson
from napari_lightsam.formats.roi import read_rois
from napari_lightsam.plugin import layers, region, writer
from napari_lightsam.plugin.layers import ours
from napari_lightsam.plugin.scope import Scope

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


def test_an_image_that_fits_has_no_region(desk):
    desk.open(np.zeros((400, 500), np.uint8))
    assert desk.control.region.box is None
    assert not desk.control.region.is_needed()
    assert desk.control.everything.choices.scope is Scope.PLANE


def test_the_whole_image_is_segmented_on_disk_and_opened_to_look_at(desk, tiny, tmp_path, monkeypatch):
    def everything(image, config, *, rgb, stop, out):
        assert image.shape == SIZE
        assert np.asarray(image[0:2, 300:302])[0, 0] == 300 % 251
        out[10:20, 700:720] = 1
        yield Progress("segmenting", 1, 1)
        return SimpleNamespace(scores=np.array([0.9]), complete=True)

    monkeypatch.setattr(tiny, "everything", everything)
    desk.open(
        zarr.array(np.broadcast_to(np.arange(800) % 251, SIZE).astype(np.uint8)), contrast_limits=(0, 255)
    )
    path = tmp_path / "whole.zarr"
    control = desk.control
    assert control.segment_whole(path)
    desk.finish()
    labels = desk.viewer.layers["image whole image"]
    assert not labels.editable
    assert np.asarray(labels.data[0]).sum() == 200
    assert labels.multiscale
    assert control.results.target != labels.unique_id
    assert "1 object in whole.zarr" in control.status
    assert not control.segment_whole(path)


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
