"""The table of formats, label images for other programs, and files turned into files."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ConfigError, FileError, ImageError
from napari_lightsam.formats.convert import convert_files, find_stem, read_objects
from napari_lightsam.formats.export import FORMATS, export_objects, find_format, parse_formats, write_objects
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.sidecar import Record, write_record
from napari_lightsam.formats.tables import measure_objects


def tree(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def small(awkward: np.ndarray) -> np.ndarray:
    return np.where(awkward == 70_000, 13, awkward)


@pytest.mark.parametrize("ome", [False, True], ids=["ImageJ", "OME"])
def test_label_images_keep_ids_axes_and_calibration(tmp_path: Path, small: np.ndarray, ome: bool) -> None:
    stack = np.stack([small, small[::-1], small * 0])
    path = tmp_path / ("a.ome.tif" if ome else "a.tif")
    for axes, labels in (("YX", small), ("ZYX", stack), ("TYX", stack), ("TZYX", np.stack([stack] * 2))):
        write_objects(path, Objects(labels, axes, pixel_size=(0.5, 0.25), z_step=2.0))
        with tifffile.TiffFile(path) as tif:
            assert (tif.is_ome, tif.is_imagej) == (ome, not ome)
            assert tif.series[0].axes == axes
            assert tif.series[0].dtype == np.uint16
            np.testing.assert_array_equal(tif.asarray(), labels)
        back = read_objects(path)
        assert (back.axes, back.pixel_size) == (axes, (0.5, 0.25))
        assert back.z_step == (2.0 if "Z" in axes else back.z_step)


def test_70_000_ids_are_kept_in_32_bits(tmp_path: Path, many: np.ndarray) -> None:
    for name in ("a.tif", "a.ome.tif"):
        write_objects(tmp_path / name, Objects(many))
        with tifffile.TiffFile(tmp_path / name) as tif:
            assert tif.is_ome
            np.testing.assert_array_equal(tif.asarray(), many)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((2, 2)),
        np.zeros(3, int),
        np.zeros((2,) * 5, int),
        -np.eye(2, dtype=int),
        np.full((2, 2), 2**32),
    ],
    ids=["float", "1-D", "5-D", "negative", "beyond 32 bits"],
)
def test_what_is_no_label_image_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(ImageError):
        Objects(labels)


def test_a_table_is_measured_plane_by_plane(tmp_path: Path, small: np.ndarray) -> None:
    write_objects(tmp_path / "a.csv", Objects(np.stack([small, small * 0, small]), pixel_size=(0.5, 0.5)))

    table = pd.read_csv(tmp_path / "a.csv")
    expected = measure_objects(small, pixel_size=(0.5, 0.5))
    assert table["z"].tolist() == [0] * len(expected) + [2] * len(expected)
    for z in (0, 2):
        part = table[table["z"] == z].drop(columns="z").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, expected, check_dtype=False)


def test_names_and_endings_stand_for_formats() -> None:
    assert parse_formats("ROI, geojson,roi") == ("roi", "geojson")
    endings = [format_.ending for format_ in FORMATS.values()]
    assert len({*endings}) == len(endings)
    assert [find_format("x" + format_.ending) for format_ in FORMATS.values()] == list(FORMATS.values())
    for text, message in (("roi,png", "'png'"), (" , ", "No format")):
        with pytest.raises(ConfigError, match=message):
            parse_formats(text)
    with pytest.raises(ConfigError, match="does not say its format"):
        find_format("labels.xyz")


def test_outputs_take_their_names_together_or_not_at_all(tmp_path: Path, small: np.ndarray) -> None:
    (tmp_path / "a_labels.ome.zarr").write_text("somebody's")

    with pytest.raises(FileError, match="not replaced"):
        export_objects(tmp_path / "a", Objects(small), ["roi", "coco", "ome-zarr"])
    assert list(tree(tmp_path)) == ["a_labels.ome.zarr"]


# --- files to files


@pytest.fixture
def labels_file(tmp_path: Path, small: np.ndarray) -> Path:
    write_objects(tmp_path / "in" / "a_labels.tif", Objects(small, pixel_size=(0.5, 0.5)))
    return tmp_path / "in" / "a_labels.tif"


def test_every_format_of_labels_comes_back_as_the_same_labels(labels_file: Path, small: np.ndarray) -> None:
    before = tree(labels_file.parent)
    formats = [name for name in FORMATS if name != "tiff"]
    written = drain(convert_files([labels_file], formats))

    assert [path.name for path in written] == ["a" + FORMATS[name].ending for name in formats]
    for path in written:
        if path.suffix not in (".json", ".csv"):
            np.testing.assert_array_equal(read_objects(path).labels, small)
    assert {**tree(labels_file.parent), **before} == tree(labels_file.parent)
    assert pd.read_csv(labels_file.parent / "a_objects.csv")["area_um2"].sum() == (small > 0).sum() / 4


def test_outlines_become_label_images(labels_file: Path, tmp_path: Path, small: np.ndarray) -> None:
    for name in ("roi", "geojson"):
        (source,) = drain(convert_files([labels_file], [name]))
        (back,) = drain(convert_files([source], ["tiff"], tmp_path / name))
        np.testing.assert_array_equal(tifffile.imread(back), small)
        assert back.name == "a_labels.tif"


def test_an_output_that_is_there_is_kept_unless_told_otherwise(labels_file: Path) -> None:
    drain(convert_files([labels_file], ["roi"]))
    before = tree(labels_file.parent)

    with pytest.raises(ConfigError, match="there already"):
        drain(convert_files([labels_file], ["geojson", "roi"]))
    assert tree(labels_file.parent) == before
    drain(convert_files([labels_file], ["geojson", "roi"], overwrite=True))


@pytest.mark.parametrize("link", ["itself", "hard link", "symbolic link"])
def test_an_input_is_never_written(labels_file: Path, tmp_path: Path, link: str) -> None:
    before = labels_file.read_bytes()
    out = labels_file.parent if link == "itself" else tmp_path / "out"
    if link != "itself":
        out.mkdir()
        make = Path.hardlink_to if link == "hard link" else Path.symlink_to
        make(out / "a_labels.tif", labels_file)

    with pytest.raises(ConfigError, match="never written"):
        drain(convert_files([labels_file], ["tiff"], out, overwrite=True, pixel_size=(1, 1)))
    assert labels_file.read_bytes() == before


def test_two_inputs_with_one_output_are_refused(labels_file: Path, tmp_path: Path, small: np.ndarray) -> None:
    write_objects(tmp_path / "other" / "a.tif", Objects(small))

    with pytest.raises(ConfigError, match="would both be written"):
        drain(convert_files([labels_file, tmp_path / "other" / "a.tif"], ["roi"], tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    again = labels_file.parent / ".." / "in" / labels_file.name
    with pytest.raises(ConfigError, match="would both be written"):
        drain(convert_files([labels_file, again], ["roi"]))


def test_nuclei_make_cells_of_one_file(labels_file: Path, tmp_path: Path, small: np.ndarray) -> None:
    write_objects(tmp_path / "nuclei.tif", Objects(np.where(small == 4, 1, 0)))
    (path,) = drain(convert_files([labels_file], ["geojson"], nuclei=tmp_path / "nuclei.tif"))

    np.testing.assert_array_equal(read_objects(path).nuclei, np.where(small == 4, 4, 0))
    (again,) = drain(convert_files([path], ["geojson"], tmp_path / "again"))
    np.testing.assert_array_equal(read_objects(again).nuclei, read_objects(path).nuclei)
    with pytest.warns(LightSamWarning, match="tiff, csv holds the cells alone, only geojson both"):
        drain(convert_files([path], ["tiff", "geojson", "csv"], tmp_path / "all"))
    with pytest.raises(ConfigError, match="one file of cells"):
        drain(convert_files([labels_file] * 2, ["geojson"], nuclei=tmp_path / "nuclei.tif"))


def test_a_colour_picture_is_no_label_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")

    with pytest.raises(FileError, match="colour"):
        read_objects(tmp_path / "a.tif")


def test_the_stem_is_that_of_the_image() -> None:
    names = ["a_labels.tif", "a_rois.zip", "a_labels.ome.zarr", "a_objects.geojson", "a.ome.tif", "a.png"]
    assert {find_stem(Path(name)) for name in names} == {"a"}
    assert find_stem(Path("_labels.tif")) == "_labels"


@pytest.mark.parametrize("name", FORMATS)
def test_the_largest_ids_take_no_more_memory_than_others_in_any_format(tmp_path: Path, name: str) -> None:
    labels = np.zeros((64, 64), np.uint32)
    labels[2:9, 3:7], labels[20:30, 20:30] = 300_000_000, 2**32 - 1
    path = FORMATS[name].output(tmp_path / "a")
    tracemalloc.start()
    objects = Objects(labels)
    write_objects(path, replace(objects, table=objects.measured()), name)
    back = None if name in ("csv", "coco") else read_objects(path).labels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 100e6
    if back is not None:
        np.testing.assert_array_equal(back, labels)
    elif name == "csv":
        assert pd.read_csv(path)["label"].tolist() == [300_000_000, 2**32 - 1]
    else:
        assert [one["label"] for one in json.loads(path.read_text())["annotations"]] == [
            300_000_000,
            2**32 - 1,
        ]


@pytest.mark.parametrize("name", ["roi", "geojson"])
@pytest.mark.parametrize("filled", [True, False], ids=["objects", "empty"])
def test_outlines_know_the_planes_and_the_calibration_of_their_labels(
    tmp_path: Path, name: str, filled: bool
) -> None:
    for axes, shape in (("YX", (9, 8)), ("ZYX", (4, 9, 8)), ("TYX", (1, 9, 8)), ("TZYX", (3, 4, 9, 8))):
        labels = np.zeros(shape, np.int32)
        labels.reshape(-1, 9, 8)[0, 2:4, 3:6] = 5 * filled
        path = FORMATS[name].output(tmp_path / axes)
        write_objects(path, Objects(labels, axes, (0.5, 0.25), 2.0 if "Z" in axes else None))

        back = read_objects(path)
        assert (back.axes, back.pixel_size) == (axes, (0.5, 0.25))
        assert back.z_step == (2.0 if "Z" in axes else None)
        np.testing.assert_array_equal(back.labels, labels)


def test_coco_names_the_image_and_not_the_labels_of_a_batch(tmp_path: Path, small: np.ndarray) -> None:
    write_objects(tmp_path / "x_labels.tif", Objects(small))
    record = {"version": "1", "input": "x.czi", "input_sha256": "", "settings": {}, "model": "", "device": "",
              "model_sha256": "", "precision": "", "runtime": "", "object_size": None, "n_objects": 1,
              "object_size_estimated": False, "pixel_size": None, "pixel_size_source": "",
              "outputs": {"x_labels.tif": ""}}  # fmt: skip
    write_record(tmp_path / "x_labels.json", Record(**record))
    drain(convert_files([tmp_path / "x_labels.tif"], ["coco"]))

    assert json.loads((tmp_path / "x_coco.json").read_text())["images"][0]["file_name"] == "x.czi"


def test_equal_labels_give_equal_files_whose_identity_tells_nothing_of_the_machine(
    tmp_path: Path, small: np.ndarray, many: np.ndarray
) -> None:
    def identity(path: Path) -> str:
        with tifffile.TiffFile(path) as tif:
            return str(tif.ome_metadata).partition('UUID="urn:uuid:')[2][:36]

    identities = set()
    for i, labels in enumerate((small, small[:, ::-1], many)):
        paths = [tmp_path / f"{i}{name}.ome.tif" for name in "ab"]
        for path in paths:
            write_objects(path, Objects(labels))
        assert paths[0].read_bytes() == paths[1].read_bytes()
        identities.add(identity(paths[0]))
    assert len(identities) == 3
    assert all(uuid.UUID(one).version == 5 for one in identities)
