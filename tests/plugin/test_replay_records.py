"""What is recorded of an object is enough to make it again, whatever was done before and after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_lightsam.engine.progress import drain
from napari_lightsam.plugin import region
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.objects import results
from napari_lightsam.plugin.request import sources
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.sessions import document as sessions_document
from napari_lightsam.plugin.sessions.replay import replay
from napari_lightsam.plugin.sessions.scene import differences
from napari_lightsam.session import Run, read_document, write_document


@pytest.fixture
def segmenter(tiny):
    tiny.runtime_name = "torch"
    return tiny


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.arange(3600, dtype="uint16").reshape(60, 60))
    return path


def open_file(desk, path):
    (image,) = desk.viewer.open(str(path), plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    return image


def box(desk, y0, x0, y1, x1):
    desk.control.start("boxes")
    corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]) - 0.5
    desk.control.annotator.boxes.add_rectangles(corners)
    desk.finish()


def box_on_plane(desk, *box):
    """Put a box on the plane on display, whatever its pixels measure."""
    desk.control.annotator.take([], [box])
    desk.finish()


def save(desk, path):
    assert desk.control.sessions.save(path)
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    return path


def again(path, segmenter):
    return drain(replay(read_document(path), path, lambda name: segmenter))


def run(script, monkeypatch, segmenter, folder):
    """Run a copied script with the tiny model; returns the labels that it makes."""
    monkeypatch.setattr("napari_lightsam.load_segmenter", lambda name, **_: segmenter)
    monkeypatch.chdir(folder)
    exec(compile(script, "script", "exec"), {})
    return tifffile.imread(folder / "cells_labels.tif")


@pytest.fixture
def clipped(desk, image_file, segmenter, tmp_path):
    """Work with an object that was clipped by one that is gone."""
    open_file(desk, image_file)
    box(desk, 5, 5, 25, 25)
    desk.commit()
    box(desk, 20, 10, 40, 24)
    desk.commit()
    box(desk, 42, 10, 52, 24)
    desk.commit()
    curating = desk.control.curating
    curating.use_layer(desk.target())
    curating.measure()
    desk.finish()
    curating.select([1])
    curating.repairs.delete()
    return save(desk, tmp_path / "work.lightsam")


def test_an_object_clipped_by_a_deleted_one_is_made_again_as_it_was(clipped, segmenter):
    document = read_document(clipped)
    assert document.labels[0].objects[2]["cut"] is not None
    result = again(clipped, segmenter)
    assert result.identical
    assert {one.origin for one in result.outcomes} == {"made again"}


def test_the_script_draws_it_as_it_was_too(desk, clipped, segmenter, monkeypatch, tmp_path):
    labels = desk.target().data
    made = run(desk.control.sessions.as_python(), monkeypatch, segmenter, tmp_path)
    np.testing.assert_array_equal(made, labels)


@pytest.mark.parametrize("name", ["nuclei_fluorescence", "nuclei_histology", "neurites_fibsem_3d"])
def test_the_script_reads_a_sample_image_by_its_name(desk, segmenter, monkeypatch, tmp_path, name):
    (image,) = desk.viewer.open_sample("napari-lightsam", name)
    image.name = "cells"
    desk.control.shown.use_image(image)
    desk.finish()
    box_on_plane(desk, 5, 5, 25, 25)
    desk.commit()
    script = desk.control.sessions.as_python()
    assert f"image = read_sample({name!r})" in script
    made = run(script, monkeypatch, segmenter, tmp_path)
    np.testing.assert_array_equal(made, desk.target().data.squeeze())


def test_overlapping_objects_of_a_layer_of_its_own_are_made_again(
    desk, image_file, segmenter, tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "LARGEST_STEP", 40)
    open_file(desk, image_file)
    box(desk, 5, 5, 25, 25)
    box(desk, 20, 20, 40, 40)
    desk.commit()
    assert again(save(desk, tmp_path / "work.lightsam"), segmenter).identical


def test_channels_are_those_on_which_the_object_was_outlined(desk, segmenter, tmp_path):
    path = tmp_path / "two.tif"
    data = np.stack([np.full((60, 60), 1, "uint8"), np.full((60, 60), 2, "uint8")])
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "CYX"})
    open_file(desk, path)
    desk.viewer.dims.set_point(0, 0)
    desk.click(0, 20, 20)
    desk.commit()
    desk.viewer.dims.set_point(0, 1)
    desk.finish()
    saved = save(desk, tmp_path / "work.lightsam")
    assert read_document(saved).labels[0].objects[1]["inputs"] == [[0, 0]]
    segmenter.embedded.clear()
    assert again(saved, segmenter).identical
    assert [int(image.max()) for image, *_ in segmenter.embedded] == [1]


def test_another_image_that_was_an_input_is_found_again(desk, new_desk, segmenter, tmp_path):
    image = desk.open(np.full((60, 60), 1, "uint8"), name="cells")
    desk.viewer.add_image(np.full((60, 60), 2, "uint8"), name="stain")
    desk.control.shown.use_sources(sources(desk.viewer, image)[1:])
    desk.finish()
    desk.click(20, 20)
    desk.commit()
    desk.control.shown.use_sources(())
    desk.finish()
    saved = save(desk, tmp_path / "work.lightsam")
    document = read_document(saved)
    assert document.labels[0].objects[1]["inputs"] == [[1, None]]
    segmenter.embedded.clear()
    assert again(saved, segmenter).identical
    assert [int(seen.max()) for seen, *_ in segmenter.embedded] == [2]

    other = new_desk()
    opened = other.viewer.open(str(saved), plugin="napari-lightsam")
    other.control.shown.use_image(opened[0])
    other.finish()
    assert other.control.shown.sources == ()
    twice = read_document(save(other, tmp_path / "twice.lightsam"))
    assert twice.labels[0].objects[1]["inputs"] == [[1, None]]


def test_chosen_channels_come_back_and_a_displayed_one_is_not_chosen(desk, new_desk, segmenter, tmp_path):
    image = desk.open(np.zeros((3, 60, 60), "uint8"), axis_labels=("c", "y", "x"))
    stays = save(desk, tmp_path / "displayed.lightsam")
    desk.control.shown.use_sources(sources(desk.viewer, image)[2:3])
    desk.finish()
    chosen = save(desk, tmp_path / "chosen.lightsam")
    for path, channels in ((stays, []), (chosen, [2])):
        other = new_desk()
        (picture, *_) = other.viewer.open(str(path), plugin="napari-lightsam")
        other.control.shown.use_image(picture)
        other.finish()
        assert [one.channel for one in other.control.shown.sources] == channels


def test_objects_of_a_work_region_are_made_again(desk, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(region, "LARGEST_PLANE", 2000)
    monkeypatch.setattr(region, "SIDE", 40)
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.arange(10_000, dtype="uint16").reshape(100, 100))
    open_file(desk, path)
    desk.control.region.use((50, 50, 90, 90))
    desk.finish()
    desk.click(60, 60)
    desk.commit()
    saved = save(desk, tmp_path / "work.lightsam")
    segmenter.embedded.clear()
    result = again(saved, segmenter)
    assert (result.identical, [one.origin for one in result.outcomes]) == (True, ["made again"])
    assert [(image.shape, int(image[0, 0])) for image, *_ in segmenter.embedded] == [((40, 40), 5050)]
    made = run(desk.control.sessions.as_python(), monkeypatch, segmenter, tmp_path)
    np.testing.assert_array_equal(made, desk.target().data)


@pytest.fixture
def in_a_region(desk, segmenter, tmp_path, monkeypatch):
    """A window in which a part of an image is the work region."""
    monkeypatch.setattr(region, "LARGEST_PLANE", 2000)
    monkeypatch.setattr(region, "SIDE", 40)
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.arange(10_000, dtype="uint16").reshape(100, 100))
    open_file(desk, path)
    desk.control.region.use((50, 40, 95, 90))
    desk.finish()
    return desk


@pytest.mark.parametrize("drawn", [None, [[54, 44], [54, 80], [92, 80], [92, 44]]], ids=["all", "a part"])
def test_everything_in_a_work_region_is_made_again(in_a_region, segmenter, tmp_path, monkeypatch, drawn):
    desk = in_a_region
    if drawn is not None:
        shapes = desk.viewer.add_shapes([np.array(drawn) - 0.5], name="a part")
        everything = desk.control.everything
        everything.choose(replace(everything.choices, scope=Scope.REGION, region_from=shapes.unique_id))
    assert desk.control.segment_everything()
    desk.finish()
    if drawn is None:
        desk.click(90, 60)
        desk.commit()
    saved = save(desk, tmp_path / "work.lightsam")
    seen = segmenter.runs[-1][0]
    assert seen.shape == ((45, 50) if drawn is None else (38, 36))
    result = again(saved, segmenter)
    assert {one.origin for one in result.outcomes} == {"made again"}
    assert result.identical
    np.testing.assert_array_equal(segmenter.runs[-1][0], seen)
    if drawn is None:  # a script draws whole parts alone, and reads others from the file
        made = run(desk.control.sessions.as_python(), monkeypatch, segmenter, tmp_path)
        np.testing.assert_array_equal(made, desk.target().data)


def test_everything_in_a_work_region_of_an_early_file_is_kept(in_a_region, segmenter, tmp_path):
    assert in_a_region.control.segment_everything()
    in_a_region.finish()
    saved = save(in_a_region, tmp_path / "work.lightsam")
    document = read_document(saved)
    del document.labels[0].note["part"]
    write_document(saved, document)
    result = again(saved, segmenter)
    assert {one.origin for one in result.outcomes} == {"not recorded"}
    assert result.identical


def test_objects_of_a_stack_in_a_layer_without_its_planes_are_kept_as_pixels(
    desk, segmenter, tmp_path, monkeypatch
):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.arange(10_800, dtype="uint16").reshape(3, 60, 60), metadata={"axes": "ZYX"})
    image = open_file(desk, path)
    image.axis_labels = tuple("zyx")
    theirs = desk.viewer.add_labels(np.zeros((60, 60), np.int32), name="theirs")
    desk.control.results.target = theirs.unique_id
    desk.viewer.dims.set_point(0, 2)
    desk.finish()
    desk.click(2, 20, 20)
    desk.commit()
    assert theirs.data.any()
    saved = save(desk, tmp_path / "work.lightsam")
    result = again(saved, segmenter)
    assert [one.origin for one in result.outcomes] == ["not recorded"]  # on which plane it was outlined
    assert result.identical
    made = run(desk.control.sessions.as_python(), monkeypatch, segmenter, tmp_path)
    np.testing.assert_array_equal(made, theirs.data)


def test_objects_of_pixels_that_were_replaced_since_are_kept_as_pixels(
    desk, image_file, segmenter, tmp_path, monkeypatch
):
    image = open_file(desk, image_file)
    box(desk, 5, 5, 25, 25)
    desk.commit()
    image.data = image.data[::-1].copy()  # as who subtracts a background does
    desk.finish()
    box(desk, 30, 30, 50, 50)
    desk.commit()
    result = again(save(desk, tmp_path / "work.lightsam"), segmenter)
    assert [one.origin for one in result.outcomes] == ["not recorded", "made again"]
    assert result.identical
    made = run(desk.control.sessions.as_python(), monkeypatch, segmenter, tmp_path)
    np.testing.assert_array_equal(made, desk.target().data)


def test_parts_that_were_split_are_kept_as_pixels(desk, image_file, segmenter, tmp_path):
    open_file(desk, image_file)
    box(desk, 5, 5, 25, 25)
    desk.commit()
    curating, splitting = desk.control.curating, desk.control.splitting
    curating.use_layer(desk.target())
    curating.measure()
    desk.finish()
    curating.select([1])
    splitting.start()
    splitting.clicks.layer.add([[10, 10], [20, 20]])
    splitting.apply()
    desk.finish()
    result = again(save(desk, tmp_path / "work.lightsam"), segmenter)
    assert [one.origin for one in result.outcomes] == ["not recorded"] * 2
    assert result.identical


def test_objects_know_the_weights_that_made_them(desk, image_file, segmenter, tmp_path):
    open_file(desk, image_file)
    desk.click(10, 10)
    desk.commit()
    segmenter.weights_hash = "1" * 64
    desk.control.shown.use_settings(Settings(desk.control.shown.settings.model, 30))
    desk.finish()
    desk.click(40, 40)
    desk.commit()
    saved = save(desk, tmp_path / "work.lightsam")
    objects = read_document(saved).labels[0].objects
    assert [objects[value]["weights_hash"][:1] for value in (1, 2)] == ["0", "1"]
    assert "weights: 000000000000 then, 111111111111 now" in again(saved, segmenter).differences


def test_a_computation_is_the_recorded_one_only_where_threads_and_versions_agree(segmenter):
    import torch

    run = sessions_document.here_and_now()
    recorded = replace(
        run, device="cpu", precision="float32", runtime="torch", weights_hash=segmenter.weights_hash
    )
    assert recorded.threads == torch.get_num_threads()
    assert differences(recorded, segmenter) == ()
    other = replace(recorded, threads=64, processor="NO", packages={**recorded.packages, "torch": "1.0"})
    said = differences(other, segmenter)
    assert [text.partition(":")[0] for text in said] == ["torch", "threads", "processor"]
    assert differences(Run(version="1"), segmenter) == ()  # of an early file, which told nothing
