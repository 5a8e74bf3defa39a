"""Labels layers saved by napari in the formats of other programs, and opened again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import npe2
import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.components import ViewerModel

from napari_lightsam.errors import FileError, ImageError
from napari_lightsam.formats.convert import read_objects
from napari_lightsam.plugin.reader import get_reader
from napari_lightsam.plugin.writer import layer_objects

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = "napari-lightsam"


@pytest.fixture
def viewer() -> ViewerModel:
    npe2.PluginManager.instance().discover()
    return ViewerModel()


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((9, 12), np.int32)
    labels[0:4, 0:5], labels[1:3, 1:3], labels[4:9, 4:12] = 3, 0, 8
    return labels


@pytest.mark.parametrize(
    "name", ["a.zip", "a.geojson", "a.ome.tif", "a.ome.zarr", "a.zarr", "a.json", "a.csv", "a.tif"]
)
def test_a_layer_is_saved_by_its_ending(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray, name: str
) -> None:
    viewer.add_labels(labels, scale=(0.5, 0.25), units=("um", "um"))

    assert viewer.layers.save(str(tmp_path / name), plugin=PLUGIN) == [str(tmp_path / name)]
    if name.endswith(("json", "csv")) and not name.endswith("geojson"):
        text = (tmp_path / name).read_text()
        ids = pd.read_csv(tmp_path / name)["label"] if name == "a.csv" else json.loads(text)["annotations"]
        assert len(ids) == 2
    else:
        np.testing.assert_array_equal(read_objects(tmp_path / name).labels, labels)


def test_napari_itself_still_saves_plain_tiff_files(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    viewer.add_labels(labels)

    writer, _ = npe2.PluginManager.instance().get_writer(str(tmp_path / "a.tif"), ["labels"])
    assert writer.command == "napari.write_labels"


def test_a_chosen_format_gives_its_ending_to_a_bare_name(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    """As the save dialog does when a format is chosen and a name without ending is typed."""
    viewer.add_labels(labels)
    for writer in npe2.PluginManager.instance().iter_compatible_writers(["labels"]):
        if writer.command.startswith(PLUGIN):
            (path,) = viewer.layers.save(str(tmp_path / "bare"), _writer=writer)
            assert path == str(tmp_path / "bare") + writer.filename_extensions[0]


def test_a_bare_name_never_replaces_a_file_that_nobody_was_asked_about(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    viewer.add_labels(labels)
    (tmp_path / "bare.zip").write_text("somebody's")
    writers = npe2.PluginManager.instance().iter_compatible_writers(["labels"])
    rois = next(writer for writer in writers if writer.command == f"{PLUGIN}.write_rois")

    with pytest.raises(FileError, match=r"bare\.zip is there already"):
        viewer.layers.save(str(tmp_path / "bare"), _writer=rois)
    assert (tmp_path / "bare.zip").read_text() == "somebody's"
    viewer.layers.save(str(tmp_path / "bare.zip"), _writer=rois)
    np.testing.assert_array_equal(read_objects(tmp_path / "bare.zip").labels, labels)


def test_pixel_size_and_time_axis_of_the_layer_are_kept(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    movie = np.stack([labels, labels * 0, labels])[:, None]
    viewer.add_labels(
        movie, scale=(1, 2, 500, 250), units=("s", "um", "nm", "nm"), axis_labels=("t", "z", "y", "x")
    )
    viewer.layers.save(str(tmp_path / "a.ome.tif"), plugin=PLUGIN)

    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.series[0].axes == "TYX"
    assert read_objects(tmp_path / "a.ome.tif").pixel_size == pytest.approx((0.5, 0.25))


def test_features_of_the_layer_become_measurements(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    viewer.add_labels(labels, features=pd.DataFrame({"index": [0, 3, 8], "score": [0, 0.5, 0.75]}))
    viewer.layers.save(str(tmp_path / "a.geojson"), plugin=PLUGIN)

    found = json.loads((tmp_path / "a.geojson").read_text())["features"]
    numbers = [f["properties"]["measurements"] for f in found]
    assert [(n["score"], n["area_px"]) for n in numbers] == [(0.5, 16), (0.75, 40)]


@pytest.mark.parametrize("index", [["a", "b"], [3, 3]], ids=["words", "one id twice"])
def test_features_that_name_no_objects_are_left_out(labels: np.ndarray, index: list) -> None:
    features = pd.DataFrame({"index": index, "score": [1.0, 2.0]})
    assert layer_objects(labels, {"features": features}).table is None


def test_two_layers_are_saved_as_cells_with_nuclei_and_opened_as_two(
    viewer: ViewerModel, tmp_path: Path, labels: np.ndarray
) -> None:
    nuclei = np.where(labels == 8, 2, 0)
    nuclei[4:6] = 0
    viewer.add_labels(nuclei)
    viewer.add_labels(labels)
    viewer.layers.save(str(tmp_path / "a.geojson"), plugin=PLUGIN)
    opened = viewer.open(str(tmp_path / "a.geojson"), plugin=PLUGIN)

    assert [layer.name for layer in opened] == ["a", "a nuclei"]
    np.testing.assert_array_equal(opened[0].data, labels)
    np.testing.assert_array_equal(opened[1].data, np.where(nuclei, 8, 0))


def test_rois_open_without_naming_the_plugin(viewer: ViewerModel, tmp_path: Path, labels: np.ndarray) -> None:
    viewer.add_labels(np.stack([labels, labels * 0, labels]))
    viewer.layers.save(str(tmp_path / "a_rois.zip"))
    (layer,) = viewer.open(str(tmp_path / "a_rois.zip"), plugin=None)

    assert (layer.name, layer.axis_labels) == ("a", ("z", "y", "x"))
    np.testing.assert_array_equal(layer.data[[0, 2]], [labels, labels])


def test_a_zip_of_other_things_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert get_reader(str(tmp_path / "a.zip")) is None
    assert get_reader([str(tmp_path / "a.geojson")]) is None


@pytest.mark.parametrize(
    ("shape", "axis_labels", "axes"),
    [
        ((5, 6), ("a", "b"), "YX"),
        ((4, 5, 6), ("-3", "-2", "-1"), "ZYX"),
        ((4, 5, 6), ("time", "y", "x"), "TYX"),
        ((4, 3, 5, 6), ("-4", "-3", "-2", "-1"), "TZYX"),
        ((4, 3, 5, 6), ("z", "t", "y", "x"), "TZYX"),
        ((1, 3, 5, 6), ("c", "-3", "-2", "-1"), "ZYX"),
    ],
)
def test_axes_follow_their_labels(shape: tuple, axis_labels: tuple, axes: str) -> None:
    data = np.arange(np.prod(shape)).reshape(shape)
    objects = layer_objects(data, {"axis_labels": axis_labels})

    assert objects.axes == axes
    turned = axis_labels[0] == "z"
    np.testing.assert_array_equal(objects.labels, data.swapaxes(0, 1) if turned else data.squeeze())


@pytest.mark.parametrize(
    ("shape", "axis_labels"),
    [
        ((3, 5, 6), ("c", "y", "x")),
        ((2, 2, 2, 5, 6), ("",) * 5),
        ((4,), ("x",)),
        ((5, 6, 4), ("y", "x", "z")),
    ],
    ids=["channels", "too many", "a line", "depth last"],
)
def test_other_axes_are_refused(shape: tuple, axis_labels: tuple) -> None:
    with pytest.raises(ImageError, match=r"rows and columns|row and column|have the axes"):
        layer_objects(np.ones(shape, int), {"axis_labels": axis_labels})
