"""Finding, splitting and reading images with ground truth."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.train.datasets import LabelledFile, find_labelled, is_fluorescence, read_labelled

SAMPLES = Path(__file__).parents[2] / "src" / "napari_lightsam" / "samples"
TRUTHS = Path(__file__).parents[1] / "data" / "samples"

LABELS = np.zeros((6, 8), np.uint16)
LABELS[1:3, 1:4], LABELS[4:6, 3:8] = 1, 2
GREY = (9 + 70 * (LABELS > 0) + LABELS).astype(np.uint8)


def write(path: Path, array: np.ndarray, **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, **kwargs)


def write_folders(root: Path, names: list[str], *, image: np.ndarray = GREY) -> None:
    for name in names:
        write(root / "images" / f"{name}.png", image)
        write(root / "labels" / f"{name}.png", LABELS)


def test_images_and_labels_folders_are_paired_by_stem_across_file_types(tmp_path):
    write(tmp_path / "images" / "b.png", GREY)
    write(tmp_path / "labels" / "b.tif", LABELS)
    write(tmp_path / "images" / "a.tif", GREY)
    write(tmp_path / "labels" / "a.png", LABELS)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / ".a.png").write_text("no image")
    files = find_labelled(tmp_path)
    assert [(f.dataset, f.name, f.labels.name) for f in files] == [
        (tmp_path.name, "a", "a.png"),
        (tmp_path.name, "b", "b.tif"),
    ]
    for file in files:
        read = read_labelled(file)
        assert np.array_equal(read.image, GREY)
        assert read.labels.dtype == np.int32
        assert np.array_equal(read.labels, LABELS)
        assert read.rgb is None


def test_files_with_the_suffix_labels_are_paired(tmp_path):
    write(tmp_path / "cells.tif", GREY)
    write(tmp_path / "cells_labels.tif", LABELS)
    write(tmp_path / "unlabelled.tif", GREY)
    assert [file.name for file in find_labelled(tmp_path)] == ["cells"]


def test_every_set_of_a_folder_of_sets_is_found(tmp_path):
    write_folders(tmp_path / "one", ["x", "y"])
    write(tmp_path / "two" / "image.tif", GREY)
    write(tmp_path / "two" / "labels.tif", LABELS)
    (tmp_path / "other").mkdir()
    assert [(f.dataset, f.name) for f in find_labelled(tmp_path)] == [
        ("one", "x"),
        ("one", "y"),
        ("two", "image"),
    ]


def test_a_volume_is_taken_slice_by_slice(tmp_path):
    volume = np.stack([GREY + np.uint8(z) for z in range(5)])
    labels = np.stack([LABELS * np.uint16(z + 1) for z in range(5)])
    write(tmp_path / "image.tif", volume)
    write(tmp_path / "labels.tif", labels)
    files = find_labelled(tmp_path)
    assert [file.name for file in files] == [f"image[{z}]" for z in range(5)]
    for z, file in enumerate(files):
        read = read_labelled(file)
        assert np.array_equal(read.image, volume[z])
        assert np.array_equal(read.labels, labels[z])


@pytest.mark.parametrize(
    ("image", "metadata", "shape", "rgb"),
    [
        pytest.param(np.full((6, 8, 3), 9, np.uint8), {"photometric": "rgb"}, (6, 8, 3), True, id="colour"),
        pytest.param(
            np.full((2, 6, 8), 9, np.uint16),
            {"imagej": True, "metadata": {"axes": "CYX"}},
            (6, 8, 2),
            False,
            id="two channels",
        ),
        pytest.param(
            np.full((1, 6, 8), 9, np.uint16), {"metadata": {"axes": "ZYX"}}, (6, 8), None, id="one plane"
        ),
    ],
)
def test_channels_come_last_and_colour_is_told_from_the_file(tmp_path, image, metadata, shape, rgb):
    write(tmp_path / "a.tif", image, **metadata)
    write(tmp_path / "a_labels.tif", LABELS)
    read = read_labelled(find_labelled(tmp_path)[0])
    assert read.image.shape == shape
    assert read.rgb is rgb


def test_a_movie_is_taken_frame_by_frame(tmp_path):
    frames = np.stack([GREY + np.uint8(t) for t in range(3)])
    for name, array in (("image", frames), ("labels", np.stack([LABELS] * 3))):
        write(tmp_path / f"{name}.tif", array, imagej=True, metadata={"axes": "TYX"})
    files = find_labelled(tmp_path)
    assert [(file.plane, file.movie) for file in files] == [(0, True), (1, True), (2, True)]
    assert np.array_equal(read_labelled(files[2]).image, frames[2])


def test_zarr_arrays_are_paired_with_labels_of_any_type_and_read_plane_by_plane(tmp_path):
    (tmp_path / "images").mkdir()
    volume = np.stack([GREY.astype(np.float32) + z for z in range(3)])
    zarr.save_array(str(tmp_path / "images" / "a.zarr"), volume)
    zarr.save_array(str(tmp_path / "images" / "flat.zarr"), GREY)
    write(tmp_path / "labels" / "a.tif", np.stack([LABELS] * 3), metadata={"axes": "ZYX"})
    write(tmp_path / "labels" / "flat.png", LABELS)
    files = find_labelled(tmp_path)
    assert [file.name for file in files] == ["a[0]", "a[1]", "a[2]", "flat"]
    for z in range(3):
        assert np.array_equal(read_labelled(files[z]).image, volume[z])
    assert np.array_equal(read_labelled(files[3]).labels, LABELS)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_ome_zarr_image_brings_its_labels_inside(tmp_path, version):
    modern = version == "0.5"
    root = zarr.open_group(str(tmp_path / "a.ome.zarr"), mode="w", zarr_format=3 if modern else 2)
    nested = root.create_group("labels")
    cells = nested.create_group("cells")
    channels = np.stack([GREY, GREY + 1]).astype(np.uint16)
    for group, array, axes in ((root, channels, "cyx"), (cells, LABELS, "yx")):
        stored = group.create_array("0", shape=array.shape, dtype=array.dtype)
        stored[...] = array
        scales = [{"axes": [{"name": axis} for axis in axes], "datasets": [{"path": "0"}]}]
        group.attrs.update({"ome": {"multiscales": scales}} if modern else {"multiscales": scales})
    nested.attrs.update({"ome": {"labels": ["cells"]}} if modern else {"labels": ["cells"]})
    (file,) = find_labelled(tmp_path)
    read = read_labelled(file)
    assert np.array_equal(read.labels, LABELS)
    assert read.image.shape == (6, 8, 2)
    assert np.array_equal(read.image[..., 1], GREY + 1)


def test_subfolders_of_images_are_groups(tmp_path):
    for mouse in ("one", "two"):
        write(tmp_path / "images" / mouse / "a.png", GREY)
        write(tmp_path / "labels" / mouse / "a.png", LABELS)
    assert [(file.group, file.name) for file in find_labelled(tmp_path)] == [("one", "a"), ("two", "a")]
    training, tuning = (find_labelled(tmp_path, split=split) for split in ("training", "tuning"))
    assert {training[0].group, tuning[0].group} == {"one", "two"}


@pytest.mark.parametrize("name", ["nuclei_histology", "nuclei_tissue_16bit", "cells_phase_contrast"])
def test_the_bundled_samples_can_be_read_with_their_truth(name):
    read = read_labelled(LabelledFile("samples", SAMPLES / f"{name}.tif", TRUTHS / f"{name}_labels.tif"))
    assert read.image.shape[:2] == read.labels.shape
    assert read.labels.max() >= 10
    assert read.rgb is (True if name == "nuclei_histology" else None)


def test_a_limit_takes_evenly_spaced_images_of_each_set(tmp_path):
    write_folders(tmp_path / "one", list("abcdef"))
    write_folders(tmp_path / "two", ["z"])
    assert [file.name for file in find_labelled(tmp_path, limit=3)] == ["a", "c", "e", "z"]


def test_images_without_labels_are_left_out_with_a_warning(tmp_path):
    write_folders(tmp_path, ["a"])
    write(tmp_path / "images" / "b.png", GREY)
    with pytest.warns(LightSamWarning, match=r"1 of 2 images .* left out: b\.png"):
        assert len(find_labelled(tmp_path)) == 1


def test_a_folder_without_ground_truth_says_what_is_accepted(tmp_path):
    write(tmp_path / "image_only.tif", GREY)
    with pytest.raises(FileError, match=r"images/NAME\.png with labels/NAME\.png"):
        find_labelled(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match="nowhere is not a folder"):
        find_labelled(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        pytest.param({"limit": 0}, "limit is 0", id="limit"),
        pytest.param({"split": "test"}, "split is 'test'; accepted are all, training", id="split"),
        pytest.param({"group": "red"}, "group is 'red'; accepted are all, fluorescence", id="group"),
    ],
)
def test_settings_that_are_not_accepted_are_named(tmp_path, setting, message):
    write_folders(tmp_path, ["a"])
    with pytest.raises(ConfigError, match=message):
        find_labelled(tmp_path, **setting)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(LABELS.T.copy(), r"\(6, 8\) pixels, .* \(8, 6\)", id="another size"),
        pytest.param(LABELS.astype(np.float32), "dtype float32", id="float labels"),
        pytest.param(-LABELS.astype(np.int16), "ids are 0 or more", id="negative ids"),
    ],
)
def test_labels_that_do_not_fit_the_image_are_refused(tmp_path, labels, message):
    write(tmp_path / "a.tif", GREY)
    write(tmp_path / "a_labels.tif", labels)
    with pytest.raises(FileError, match=message):
        read_labelled(find_labelled(tmp_path)[0])


@pytest.mark.parametrize(
    ("image", "rgb", "expected"),
    [
        pytest.param(np.full((4, 4), 99, np.uint8), None, True, id="dark grey"),
        pytest.param(np.full((4, 4), 100, np.uint8), None, False, id="bright grey"),
        pytest.param(np.full((4, 4), 99 * 257, np.uint16), None, True, id="dark grey in 16 bit"),
        pytest.param(np.full((4, 4, 3), 50, np.uint8), True, True, id="grey kept as colour"),
        pytest.param(np.full((4, 4, 3), (50, 40, 60), np.uint8), True, False, id="dark colour"),
    ],
)
def test_fluorescence_is_grey_and_dark(image, rgb, expected):
    assert is_fluorescence(image, rgb) is expected


def test_the_fluorescence_group_leaves_bright_images_out(tmp_path):
    write_folders(tmp_path, ["dark"])
    write(tmp_path / "images" / "bright.png", 255 - GREY)
    write(tmp_path / "labels" / "bright.png", LABELS)
    assert [file.name for file in find_labelled(tmp_path, group="fluorescence")] == ["dark"]
    (tmp_path / "images" / "dark.png").unlink()
    with pytest.raises(FileError, match="group 'fluorescence'"):
        find_labelled(tmp_path, group="fluorescence")


def test_the_development_data_splits_as_documented(development):
    def count(name: str, **settings) -> int:
        return len(find_labelled(development("data") / name, **settings))

    assert count("dsb2018") == 551
    assert count("dsb2018", split="validation") == 88
    assert count("dsb2018", split="validation", group="fluorescence") == 71
    assert count("usiigaci", split="validation") == 5
    assert count("bitdepth_nuclei", split="validation") == 11
    assert count("axon_sem", split="validation") == 2
    assert count("neuroproof", split="validation") == 40
