from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from napari_lightsam import open_and_segment, segment_everything
from napari_lightsam.errors import FileError
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.objects import Objects
from napari_lightsam.plugin.reader import get_reader
from napari_lightsam.plugin.viewer.layers import ours


@pytest.fixture(autouse=True)
def real_model(segmenter, monkeypatch):
    """The embedded model in float32, loaded once for all tests."""
    from napari_lightsam.plugin import loading

    monkeypatch.setattr(loading, "load", lambda name: segmenter)


def recipe(folder, image, **settings):
    path = folder / "recipe.lightsam"
    content = {"format": "napari-lightsam", "version": 1, "image": image, "settings": settings}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def small(nuclei):
    return nuclei[0][:128, :128]


def test_a_lightsam_file_opens_as_image_and_objects_without_a_window(tmp_path, nuclei, segmenter):
    image = small(nuclei)
    tifffile.imwrite(
        tmp_path / "n.ome.tif", image, metadata={"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    )
    viewer = ViewerModel()
    picture, labels = viewer.open(
        str(recipe(tmp_path, "n.ome.tif", object_size=26)), plugin="napari-lightsam"
    )
    np.testing.assert_array_equal(picture.data, image)
    expected = segment_everything(image, model=segmenter, object_size=26)
    assert expected.max() > 3
    np.testing.assert_array_equal(labels.data, expected)
    np.testing.assert_allclose(labels.scale, (0.5, 0.5))
    assert [str(u) for u in labels.units] == ["micrometer"] * 2
    assert labels.axis_labels == picture.axis_labels == ("y", "x")
    assert ours(labels)["model"] == "lightsam"


def test_a_plane_of_a_stack_lands_in_its_place(tmp_path, nuclei):
    image = small(nuclei)
    stack = np.zeros((4, *image.shape), image.dtype)
    stack[2] = image
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    viewer = ViewerModel()
    picture, labels = open_and_segment(viewer, tmp_path / "s.tif", object_size=26, z=2)
    assert labels.data.shape == picture.data.shape
    assert [z for z in range(4) if labels.data[z].any()] == [2]


def test_objects_of_one_channel_show_in_all(tmp_path, nuclei):
    image = small(nuclei)
    tifffile.imwrite(
        tmp_path / "c.ome.tif",
        np.stack([image // 4, image]),
        metadata={"axes": "CYX"},
        photometric="minisblack",
    )
    viewer = ViewerModel()
    picture, labels = open_and_segment(viewer, tmp_path / "c.ome.tif", object_size=26, channel=1)
    assert labels.data.shape == (1, *image.shape)
    at = np.argwhere(labels.data[0])[0]
    for channel in (0, 1):
        viewer.dims.set_current_step(0, channel)
        assert labels.get_value(picture.data_to_world((channel, *at)), world=True)


def test_several_planes_and_no_choice_is_one_clear_error(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((4, 64, 64), "u1"), imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(FileError, match="planes"):
        open_and_segment(ViewerModel(), tmp_path / "s.tif")


@pytest.mark.parametrize("name", ["a_rois.zip", "a.geojson"])
@pytest.mark.parametrize("id_", [7, 0, 2**32 - 1], ids=str)
def test_outlines_lie_on_the_image_that_they_were_made_from(tmp_path, name, id_):
    labels = np.zeros((4, 9, 9), np.uint32)
    labels[1, 2:5, 3:6] = id_
    write_objects(tmp_path / name, Objects(labels, "ZYX", (0.5, 0.25), 2.0))
    viewer = ViewerModel()
    (layer,) = viewer.open(tmp_path / name, plugin="napari-lightsam")

    np.testing.assert_array_equal(layer.data, labels)
    assert tuple(layer.scale) == (2.0, 0.5, 0.25)
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")


@pytest.mark.parametrize("path", ["a.tif", "a.png", "folder", "lightsam"])
def test_other_files_are_left_to_others(path):
    assert get_reader(path) is None


def test_files_are_not_stacked(tmp_path):
    assert get_reader([str(tmp_path / "a.lightsam"), str(tmp_path / "b.lightsam")]) is None
    assert get_reader(str(tmp_path / "A.LIGHTSAM")) is not None
