"""The rules of a batch: what is read, what is written, what is refused, what survives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
import zarr
from PIL import Image

import napari_lightsam
from napari_lightsam.batch import BatchReport, BatchSettings, Recipe, segment_many
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD, find_jobs
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.stack import estimate_stack_size, segment_stack
from napari_lightsam.errors import ConfigError, FileError, ImageError, LightSamError
from napari_lightsam.formats.convert import read_objects
from napari_lightsam.formats.export import FORMATS
from napari_lightsam.formats.images import read_image
from napari_lightsam.formats.sidecar import hash_file, read_record, write_record
from thresholder import Thresholder, discs, write

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"
SUFFIXES = ("_labels.tif", "_objects.csv", "_labels.json")


def run(
    inputs: list,
    out: Path,
    settings: BatchSettings | None = None,
    *,
    model: Thresholder | None = None,
    overwrite: bool = False,
    outputs: tuple[str, ...] = (),
) -> BatchReport:
    recipe = Recipe(settings or BatchSettings(), outputs=outputs)
    return drain(segment_many(inputs, out, recipe, segmenter=model or Thresholder(), overwrite=overwrite))


def tree(folder: Path) -> dict[str, str]:
    """Hash every file by its path, but those of the batch as a whole."""
    files = sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name not in (*BATCH_OUTPUTS, BATCH_RECORD)
    )
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def results(*stems: str) -> set[str]:
    return {stem + end for stem in stems for end in SUFFIXES}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a.tif", "sub/a.tif", "sub/deep/b.ome.tif"):
        write(tmp_path / "data" / name)
    (tmp_path / "data" / "notes.txt").write_text("no image")
    write(tmp_path / "data" / ".hidden.tif")
    return tmp_path / "data"


# --- what is read and where results go


def test_a_folder_is_mirrored(data: Path, tmp_path: Path) -> None:
    report = run([data], tmp_path / "out")

    assert set(tree(tmp_path / "out")) == results("a", "sub/a", "sub/deep/b")
    assert [o.status for o in report.outcomes] == ["written"] * 3
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.tif", results("a")),
        ("**/*.tif", results("a", "sub/a", "sub/deep/b")),
        ("sub/*.tif", results("a")),
        ("s?b/**/*.tif", results("sub/a", "sub/deep/b")),
    ],
)
def test_a_pattern_is_mirrored_below_its_fixed_part(
    data: Path, tmp_path: Path, pattern: str, expected: set[str]
) -> None:
    run([str(data / pattern)], tmp_path / "out")

    assert set(tree(tmp_path / "out")) == expected


def test_files_go_straight_into_the_output_folder(data: Path, tmp_path: Path) -> None:
    run([data / "a.tif", data / "sub" / "deep" / "b.ome.tif"], tmp_path / "out")

    assert set(tree(tmp_path / "out")) == results("a", "b")


def test_a_file_name_with_brackets_is_a_file_not_a_pattern(tmp_path: Path) -> None:
    run([write(tmp_path / "scan [1].tif")], tmp_path / "out")

    assert set(tree(tmp_path / "out")) == results("scan [1]")


def test_an_image_given_twice_is_segmented_once(data: Path, tmp_path: Path) -> None:
    report = run([data, data / "a.tif", str(data / "*.tif")], tmp_path / "out")

    assert len(report.outcomes) == 3


def test_png_jpeg_and_bmp_are_segmented_too(tmp_path: Path) -> None:
    for name in ("p.png", "j.jpg", "b.bmp"):
        Image.fromarray((discs() // 4).astype(np.uint8)).save(tmp_path / name)

    report = run([tmp_path / "p.png", tmp_path / "j.jpg", tmp_path / "b.bmp"], tmp_path / "out")

    assert [o.n_objects for o in report.outcomes] == [9, 9, 9]


@pytest.mark.parametrize(
    ("given", "message"),
    [("nothing.tif", "does not exist"), ("*.nd2", "No image matches"), ("empty", "No images were found")],
)
def test_an_input_without_images_is_refused(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(FileError, match=message):
        run([str(tmp_path / given)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- inputs are never written, names never clash


def test_two_inputs_with_one_output_name_are_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    model = Thresholder()
    write(data / "sub" / "a.ome.tif")

    with pytest.raises(ConfigError, match=r"a\.ome\.tif and .*a\.tif would both be written"):
        run([data], tmp_path / "out", model=model)
    with pytest.raises(ConfigError, match="would both be written"):
        run([data / "a.tif", data / "sub" / "a.tif"], tmp_path / "out", model=model)
    assert model.calls == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [False, True], ids=["plain", "overwrite"])
@pytest.mark.parametrize("link", ["same folder", "symbolic link", "hard link", "linked folder"])
def test_an_input_is_never_written_whatever_it_is_called(tmp_path: Path, link: str, overwrite: bool) -> None:
    source = write(tmp_path / "data" / "a.tif")
    victim = write(tmp_path / "data" / "a_labels.tif", discs(5))
    out = tmp_path / "out"
    if link == "same folder":
        out = tmp_path / "data"
    elif link == "linked folder":
        out.symlink_to(tmp_path / "data", target_is_directory=True)
    else:
        out.mkdir()
        (os.symlink if link == "symbolic link" else os.link)(victim, out / "a_labels.tif")
    before = tree(tmp_path)

    with pytest.raises(ConfigError, match=r"which is the input .*a_labels\.tif.*never written"):
        run([source, victim], out, overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("given", ["in.zarr", "in.zarr/0"])
@pytest.mark.parametrize("out", ["in.zarr", "in.zarr/results"])
def test_no_result_is_written_inside_a_zarr_folder_that_is_an_input(
    tmp_path: Path, given: str, out: str
) -> None:
    group = zarr.open_group(tmp_path / "in.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=discs())
    group.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    before = tree(tmp_path)

    with pytest.raises(ConfigError, match=r"inside the input .*in\.zarr.*never written"):
        run([tmp_path / given], tmp_path / out)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("one", "other"), [("Cell", "cell"), ("\u00e9", "e\u0301"), ("STRASSE", "stra\u00dfe")], ids=str
)
@pytest.mark.parametrize("folds", [False, True], ids=["as usual", "as on macOS"])
def test_names_that_are_one_to_the_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, folds: bool
) -> None:
    if folds:
        there = os.path.lexists
        monkeypatch.setattr(  # a disk that takes a name for the same however it is written
            "napari_lightsam.formats.guard.os.path.lexists",
            lambda path: there(path) or Path(path).name.casefold().startswith(".lightsam-"),
        )
    sources = [write(tmp_path / "A" / f"{one}.tif"), write(tmp_path / "B" / f"{other}.tif")]
    if folds:
        with pytest.raises(ConfigError, match="would both be written to"):
            run(sources, tmp_path / "out")
    else:
        assert len(run(sources, tmp_path / "out").outcomes) == 2
    assert not list(tmp_path.glob(".lightsam-*"))


def test_labels_without_a_record_among_the_inputs_are_kept_even_when_overwriting(tmp_path: Path) -> None:
    write(tmp_path / "a.tif")
    write(tmp_path / "a_labels.tif", discs(5))  # somebody's ground truth
    before = tree(tmp_path)

    with pytest.raises(ConfigError, match="never written"):
        run([tmp_path], tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_own_results_inside_the_input_folder_are_no_inputs(data: Path) -> None:
    for out in (data, data / "results"):
        run([data], out)
        report = run([data], out)

        assert {o.status for o in report.outcomes} == {"skipped"}
        assert len(report.outcomes) == 3
        assert "passed over" in report.notes[0]


def test_results_beside_their_images_are_no_inputs_of_another_folder(data: Path, tmp_path: Path) -> None:
    run([data], data)
    report = run([data, str(data / "a*.tif")], tmp_path / "out")

    assert len(report.outcomes) == 3


def test_inputs_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    before = tree(data)
    run([data], tmp_path / "out", outputs=("overlay",))
    run([data], tmp_path / "out", outputs=("overlay",), overwrite=True)

    assert tree(data) == before


# --- channels and planes


def test_several_channels_without_a_choice_stop_before_any_work(tmp_path: Path) -> None:
    model = Thresholder()
    write(tmp_path / "data" / "a.tif")
    channels = np.stack([discs(), discs(5)])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    write(tmp_path / "data" / "b.ome.tif", channels, photometric="minisblack", metadata=metadata)

    with pytest.raises(FileError, match=r"b\.ome\.tif has 2 channels: 0 \(DAPI\), 1 \(GFP\)"):
        run([tmp_path / "data"], tmp_path / "out", model=model)
    assert model.calls == model.looks == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("channel", "brightest"), [("GFP", [0, 500]), ((1, 0), [1000, 500])], ids=["one", "two"]
)
def test_the_chosen_channels_are_segmented_and_all_measured(
    tmp_path: Path, channel, brightest: list[int]
) -> None:
    channels = np.stack([discs(10) if channel != "GFP" else discs() * 0, discs(15) // 2])
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    path = write(tmp_path / "b.ome.tif", channels, photometric="minisblack", metadata=metadata)

    run([path], tmp_path / "out", BatchSettings(channel=channel))

    table = pd.read_csv(tmp_path / "out" / "b_objects.csv")
    assert [c for c in table if c.startswith("intensity_max")] == ["intensity_max_DAPI", "intensity_max_GFP"]
    assert [table[f"intensity_max_{c}"].max() for c in ("DAPI", "GFP")] == brightest


@pytest.mark.parametrize(("z", "brightest"), [(1, 2000), ("max", 3000)])
def test_the_chosen_plane_is_segmented(tmp_path: Path, z: int | str, brightest: int) -> None:
    stack = np.stack([discs(), discs() * 2, discs() * 3])
    path = write(tmp_path / "b.tif", stack, imagej=True, metadata={"axes": "ZYX"})

    run([path], tmp_path / "out", BatchSettings(z=z))

    assert pd.read_csv(tmp_path / "out" / "b_objects.csv")["intensity_max"].max() == brightest


def test_colour_is_passed_on_as_colour(tmp_path: Path) -> None:
    model = Thresholder()
    run([SAMPLES / "nuclei_histology.tif"], tmp_path, model=model)
    assert model.rgb is True

    run([write(tmp_path / "a.tif")], tmp_path, model=model)
    assert model.rgb is False


# --- results


def test_every_object_has_its_label_and_its_row(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    report = run([write(tmp_path / "a.ome.tif", discs(), metadata=metadata)], tmp_path / "out")

    labels = read_image(tmp_path / "out" / "a_labels.tif")
    table = pd.read_csv(tmp_path / "out" / "a_objects.csv")
    record = read_record(tmp_path / "out" / "a_labels.json")
    assert report.outcomes[0].n_objects == record.n_objects == len(table) == labels.data.max() == 9
    assert labels.pixel_size == record.pixel_size == (0.5, 0.25)
    assert record.pixel_size_source == "OME"
    np.testing.assert_allclose(table["area_um2"], table["area_px"] * 0.125)
    assert list(table["score"]) == pytest.approx([0.9] * 9)
    assert not table["touches_border"].any()
    assert record.object_size == 20
    assert record.object_size_estimated
    assert record.input_sha256 == hash_file(tmp_path / "a.ome.tif")
    assert record.outputs == {
        name: hash_file(tmp_path / "out" / name) for name in ("a_labels.tif", "a_objects.csv")
    }


def test_a_given_pixel_size_replaces_that_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", discs(), metadata={"axes": "YX", "PhysicalSizeX": 0.25})
    run([path], tmp_path / "out", BatchSettings(pixel_size=(2.0, 2.0)))

    assert read_image(tmp_path / "out" / "a_labels.tif").pixel_size == (2.0, 2.0)
    assert read_record(tmp_path / "out" / "a_labels.json").pixel_size_source == "given"


@pytest.mark.parametrize("size", [(0.0, 1.0), (1.0,), (float("nan"), 1.0), 0.5], ids=str)
def test_an_impossible_pixel_size_is_refused(size: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="pixel size"):
        BatchSettings(pixel_size=size)


def test_a_blank_image_gives_an_empty_result_not_an_error(tmp_path: Path) -> None:
    report = run([write(tmp_path / "a.tif", discs() * 0)], tmp_path / "out")

    assert report.outcomes[0].n_objects == 0
    assert not read_image(tmp_path / "out" / "a_labels.tif").data.any()
    assert len(pd.read_csv(tmp_path / "out" / "a_objects.csv")) == 0


# --- one bad file, a full disk, a cancelled run


def test_a_bad_file_is_reported_and_does_not_stop_the_rest(data: Path, tmp_path: Path) -> None:
    whole = (data / "sub" / "a.tif").read_bytes()
    (data / "sub" / "a.tif").write_bytes(whole[: len(whole) // 2])
    report = run([data], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["written", "failed", "written"]
    assert "truncated" in report.outcomes[1].message
    assert report.exit_code == 1
    assert set(tree(tmp_path / "out")) == results("a", "sub/deep/b")


def test_a_file_with_damaged_pixels_fails_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "data" / "b.tif", discs(), compression="zlib")
    write(tmp_path / "data" / "c.tif")
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)

    report = run([tmp_path / "data"], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["failed", "written"]
    assert "damaged" in report.outcomes[0].message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_dangling_link_fails_alone(data: Path, tmp_path: Path) -> None:
    (data / "z.tif").symlink_to(data / "gone.tif")
    report = run([data], tmp_path / "out")

    failed = [o for o in report.outcomes if o.status == "failed"]
    assert [o.source.name for o in failed] == ["z.tif"]
    assert "does not exist" in failed[0].message


@pytest.mark.parametrize(
    "error",
    [LightSamError("the model gave up"), MemoryError(), ZeroDivisionError("a fault")],
    ids=["ours", "memory", "a bug"],
)
def test_an_error_in_one_image_is_its_message(tmp_path: Path, error: Exception) -> None:
    report = run([write(tmp_path / "a.tif")], tmp_path / "out", model=Thresholder(stop=error))

    assert report.exit_code == 1
    assert (str(error) or "memory") in report.outcomes[0].message
    assert tree(tmp_path / "out") == {}


def test_a_full_disk_stops_the_batch_and_leaves_no_half_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Thresholder()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    report = run([data], tmp_path / "out", model=model)

    assert report.exit_code == 1
    assert "no space left" in report.outcomes[0].message
    assert ".part" not in report.outcomes[0].message
    assert all("not tried" in o.message for o in report.outcomes[1:])
    assert model.calls == 1
    assert tree(tmp_path / "out") == {}


def test_a_full_disk_leaves_an_earlier_result_whole(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([data], tmp_path / "out")
    before = tree(tmp_path / "out")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_lightsam.batch.single.save_record", full)
    assert run([data], tmp_path / "out", overwrite=True).exit_code == 1
    assert tree(tmp_path / "out") == before


def test_an_output_folder_that_is_a_file_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    model = Thresholder()
    (tmp_path / "out").write_text("a file")

    with pytest.raises(FileError, match="out cannot be written"):
        run([data], tmp_path / "out", model=model)
    assert model.calls == model.looks == 0


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_read_only_output_folder_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)

    with pytest.raises(FileError, match="permission denied"):
        run([data], tmp_path / "out")


def test_a_cancelled_batch_keeps_what_is_finished_and_goes_on_from_there(data: Path, tmp_path: Path) -> None:
    work = segment_many([data], tmp_path / "out", segmenter=Thresholder())
    for step in work:
        if step.stage.startswith("sub/a.tif") and step.done == 1:
            break
    work.close()
    finished = tree(tmp_path / "out")
    assert set(finished) == results("a")

    report = run([data], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["skipped", "written", "written"]
    assert {k: v for k, v in tree(tmp_path / "out").items() if k in finished} == finished


# --- resuming


def test_a_finished_batch_is_skipped_without_running_the_model(data: Path, tmp_path: Path) -> None:
    run([data], tmp_path / "out")
    before, model = tree(tmp_path / "out"), Thresholder()

    report = run([data], tmp_path / "out", model=model)

    assert [(o.status, o.n_objects) for o in report.outcomes] == [("skipped", 9)] * 3
    assert report.exit_code == 0
    assert model.calls == model.looks == 0
    assert tree(tmp_path / "out") == before


def test_a_new_image_is_added_with_the_object_size_of_the_finished_ones(data: Path, tmp_path: Path) -> None:
    run([data], tmp_path / "out", model=Thresholder(size=20))
    write(data / "new.tif")
    model = Thresholder(size=33)

    report = run([data], tmp_path / "out", model=model)

    assert sorted(o.status for o in report.outcomes) == ["skipped", "skipped", "skipped", "written"]
    assert model.used == report.object_size == 20
    assert "finished" in report.object_size_source


def change_version(record: Path) -> None:
    write_record(record, replace(read_record(record), version="0.0.1"))


def corrupt(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("spoil", "settings", "weights", "message"),
    [
        (None, BatchSettings(EverythingConfig(mode="grid")), "00", r"mode auto \(now grid\)"),
        (None, BatchSettings(EverythingConfig(object_size=9)), "00", r"object size not given \(now 9"),
        (None, BatchSettings(z=0), "00", r"z not given \(now 0\)"),
        (None, None, "11", "another version of model thresholder"),
        (lambda d, o: write(d / "sub" / "a.tif", discs(12)), None, "00", "another version of the input"),
        (lambda d, o: change_version(o / "sub" / "a_labels.json"), None, "00", r"version 0\.0\.1"),
        (lambda d, o: corrupt(o / "sub" / "a_labels.json"), None, "00", "no usable record.*damaged"),
        (lambda d, o: (o / "sub" / "a_labels.json").unlink(), None, "00", "no usable record"),
        (lambda d, o: corrupt(o / "sub" / "a_labels.tif"), None, "00", r"a_labels\.tif was changed"),
        (lambda d, o: corrupt(o / "sub" / "a_objects.csv"), None, "00", r"a_objects\.csv was changed"),
    ],
    ids=[
        "mode", "object size", "plane", "model", "input", "version", "record damaged", "record gone",
        "labels edited", "table edited",
    ],
)  # fmt: skip
def test_results_made_otherwise_stop_the_batch_unless_overwriting(
    data: Path, tmp_path: Path, spoil, settings: BatchSettings | None, weights: str, message: str
) -> None:
    out = tmp_path / "out"
    run([data], out)
    if spoil is not None:
        spoil(data, out)
    before, model = tree(out), Thresholder(weights_hash=weights)

    with pytest.raises(ConfigError, match=message) as caught:
        run([data], out, settings, model=model)
    assert "--overwrite" in str(caught.value)
    assert model.calls == 0
    assert tree(out) == before

    report = run([data], out, settings, model=model, overwrite=True)
    assert [o.status for o in report.outcomes] == ["written"] * 3
    assert {o.status for o in run([data], out, settings, model=model).outcomes} == {"skipped"}


@pytest.mark.parametrize("missing", SUFFIXES[:2])
def test_a_deleted_result_is_made_again(data: Path, tmp_path: Path, missing: str) -> None:
    run([data], tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / f"a{missing}").unlink()

    report = run([data], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["written", "skipped", "skipped"]
    assert tree(tmp_path / "out") == before


def test_pictures_are_added_to_finished_results_and_foreign_ones_kept(data: Path, tmp_path: Path) -> None:
    run([data], tmp_path / "out")
    before = tree(tmp_path / "out")
    report = run([data], tmp_path / "out", outputs=("overlay",))

    assert {o.status for o in report.outcomes} == {"written"}
    pictures = {f"{stem}_overlay.png" for stem in ("a", "sub/a", "sub/deep/b")}
    assert set(tree(tmp_path / "out")) == set(before) | pictures
    assert {o.status for o in run([data], tmp_path / "out", outputs=("overlay",)).outcomes} == {"skipped"}

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a_overlay.png").write_text("somebody's")
    with pytest.raises(ConfigError, match="no usable record"):
        run([data], tmp_path / "other", outputs=("overlay",))


def test_what_an_earlier_run_exported_stays_while_it_fits_and_goes_when_results_are_made_again(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run([data], out, outputs=("roi", "ome-zarr"))
    run([data], out, outputs=("overlay",))
    both = run([data], out, outputs=("overlay", "roi", "ome-zarr"))
    assert {o.status for o in both.outcomes} == {"skipped"}

    (out / "sub" / "a_rois.zip").write_bytes(b"corrected by hand")
    for name in ("a_coco.json", "a notes.txt"):
        (out / name).write_text("somebody's")
    run([data], out, BatchSettings(pixel_size=(1.0, 1.0)), overwrite=True, outputs=("geojson",))

    endings = (*SUFFIXES, "_objects.geojson")
    made = {stem + end for stem in ("a", "sub/a", "sub/deep/b") for end in endings}
    assert set(tree(out)) == made | {"sub/a_rois.zip", "a_coco.json", "a notes.txt"}
    assert not list(out.rglob("*.zarr"))
    run([data], out, overwrite=True)
    assert set(tree(out)) == results("a", "sub/a", "sub/deep/b") | {
        "sub/a_rois.zip",
        "a_coco.json",
        "a notes.txt",
    }


def test_further_formats_are_written_recorded_and_found_finished(data: Path, tmp_path: Path) -> None:
    exports = ("roi", "geojson", "coco", "ome-zarr", "ome-tiff", "csv", "tiff")
    run([data], tmp_path / "out")
    report = run([data], tmp_path / "out", outputs=exports)

    assert {o.status for o in report.outcomes} == {"written"}
    outputs = report.outcomes[0].outputs
    endings = ("_labels.tif", "_objects.csv", "_labels.json", *(FORMATS[name].ending for name in exports[:5]))
    assert [path.name for path in outputs] == [f"a{ending}" for ending in endings]
    recorded = read_record(tmp_path / "out" / "a_labels.json").outputs
    assert recorded == {path.name: hash_file(path) for path in outputs if path.name != "a_labels.json"}
    labels = tifffile.imread(outputs[0])
    for path in outputs[3:]:
        if path.suffix != ".json":
            np.testing.assert_array_equal(read_objects(path).labels, labels)
    before = tree(tmp_path / "out")
    assert {o.status for o in run([data], tmp_path / "out", outputs=exports).outcomes} == {"skipped"}
    assert {o.status for o in run([data], tmp_path / "out").outcomes} == {"skipped"}
    assert tree(tmp_path / "out") == before


def test_a_lost_or_changed_export_is_noticed(data: Path, tmp_path: Path) -> None:
    run([data / "a.tif"], tmp_path / "out", outputs=("ome-zarr",))
    before = tree(tmp_path / "out")
    changed = tmp_path / "out" / "a_labels.ome.zarr" / ".zattrs"
    changed.write_text(changed.read_text() + " ")
    with pytest.raises(ConfigError, match="was changed since"):
        run([data / "a.tif"], tmp_path / "out", outputs=("ome-zarr",))

    shutil.rmtree(changed.parent)
    report = run([data / "a.tif"], tmp_path / "out", outputs=("ome-zarr",))
    assert [o.status for o in report.outcomes] == ["written"]
    assert tree(tmp_path / "out") == before


def test_foreign_files_named_like_exports_are_kept(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_rois.zip").write_text("somebody's")

    with pytest.raises(ConfigError, match="no usable record"):
        run([data / "a.tif"], tmp_path / "out", outputs=("roi",))
    assert tree(tmp_path / "out").keys() == {"a_rois.zip"}


def test_an_export_that_fails_leaves_no_part_of_the_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ImageError("it does not fit")

    monkeypatch.setattr("napari_lightsam.formats.coco.save_coco", fail)
    report = run([data / "a.tif"], tmp_path / "out", outputs=("roi", "coco", "ome-zarr"))

    assert report.outcomes[0].message == "it does not fit"
    assert tree(tmp_path / "out") == {}


def test_an_unknown_format_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'png'"):
        run([data], tmp_path / "out", outputs=("png",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [str, Path])
def test_one_folder_may_be_given_by_itself(data: Path, kind: type) -> None:
    given, listed = find_jobs(kind(data), data / "out"), find_jobs([data], data / "out")
    assert given == listed


def test_label_images_of_every_kind_in_the_input_folder_are_no_inputs(data: Path) -> None:
    run([data / "a.tif"], data, outputs=("ome-tiff", "ome-zarr"))

    found = find_jobs([data], data / "out")
    assert [job.source.name for job in found.jobs] == ["a.tif", "a.tif", "b.ome.tif"]


def test_rois_lie_on_the_plane_and_channel_that_were_segmented(tmp_path: Path) -> None:
    image = np.zeros((3, 2, 150, 150), np.uint16)
    image[2, 1] = discs()
    path = write(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX"})
    run([path], tmp_path / "out", BatchSettings(channel=1, z=2), outputs=("roi",))

    rois = roifile.roiread(tmp_path / "out" / "a_rois.zip")
    assert {(one.c_position, one.z_position, one.t_position) for one in rois} == {(2, 3, 0)}
    assert [one.name for one in rois] == [str(i) for i in range(1, 10)]


# --- one runtime, one object size


def test_the_object_size_is_estimated_once_from_at_most_eight_images(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "data" / f"{i:02}.tif")
    model = Thresholder(size=17.5)
    report = run([tmp_path / "data"], tmp_path / "out", model=model)

    assert model.looks == 8
    assert report.object_size == model.used == 17.5
    assert report.object_size_source == "estimated from 8 images"


def test_a_given_object_size_is_used_as_it_is(data: Path, tmp_path: Path) -> None:
    model = Thresholder()
    settings = BatchSettings(EverythingConfig(object_size=12))
    report = run([data], tmp_path / "out", settings, model=model)

    assert model.looks == 0
    assert model.used == report.object_size == 12
    assert report.object_size_source == "given"


def test_images_that_deviate_are_flagged(tmp_path: Path) -> None:
    for i in range(17):
        write(tmp_path / "data" / f"{i:02}.tif", discs(20 if i == 1 else 10))
    model = Thresholder(size=20)
    report = run([tmp_path / "data"], tmp_path / "out", model=model)

    flagged = {o.source.name: o.flags for o in report.outcomes if o.flags}
    assert list(flagged) == ["01.tif"]
    assert "about 40 px" in flagged["01.tif"][0]
    assert "--object-size 40" in flagged["01.tif"][0]


def test_notes_about_a_file_become_its_flags(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tif:
        tif.write(discs(), metadata={"axes": "YX"})
        tif.write(discs()[:40, :40], metadata={"axes": "YX"})
    report = run([tmp_path / "a.tif"], tmp_path / "out")

    assert report.outcomes[0].flags == (
        "the file holds 2 images; the first is used (--series chooses others)",
    )


def test_a_batch_runs_in_a_worker_thread(data: Path, tmp_path: Path) -> None:
    reports: list[BatchReport] = []
    thread = threading.Thread(target=lambda: reports.append(run([data], tmp_path / "out")))
    thread.start()
    thread.join(60)

    assert reports[0].exit_code == 0


def test_finding_inputs_imports_no_model_and_no_viewer() -> None:
    code = (
        "import sys; from napari_lightsam.batch import segment_many, Recipe;"
        "print([m for m in ('torch', 'timm', 'napari', 'qtpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


# --- the real model


def test_the_model_is_loaded_once_for_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmenter
) -> None:
    loads: list[tuple] = []

    def load(*args: object, **options: object):
        loads.append((args, options))
        return segmenter

    monkeypatch.setattr("napari_lightsam.engine.segmenter.load_segmenter", load)
    for i in range(300):
        write(tmp_path / "data" / f"{i}.tif", np.zeros((16, 16), np.uint8))
    settings = BatchSettings(device="cpu", precision="float32", runtime="openvino")
    report = drain(segment_many([tmp_path / "data"], tmp_path / "out", Recipe(settings)))

    assert loads == [(("lightsam",), {"device": "cpu", "precision": "float32", "runtime": "openvino"})]
    assert [o.n_objects for o in report.outcomes] == [0] * 300


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nuclei_fluorescence", (slice(20, 132), slice(300, 412))),
        ("nuclei_histology", (slice(0, 112), slice(0, 112))),
    ],
    ids=["grey", "colour"],
)
def test_a_batch_of_one_gives_what_the_python_call_gives(
    tmp_path: Path, segmenter, name: str, part: tuple[slice, slice]
) -> None:
    image = tifffile.imread(SAMPLES / f"{name}.tif")[part]
    write(tmp_path / "a.tif", image)

    report = drain(segment_many([tmp_path / "a.tif"], tmp_path / "out", segmenter=segmenter))
    expected = napari_lightsam.segment_everything(image, model=segmenter)

    assert expected.max() >= 3
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a_labels.tif").data, expected)
    table = pd.read_csv(tmp_path / "out" / "a_objects.csv")
    assert list(table["label"]) == list(range(1, expected.max() + 1))
    assert table["score"].between(0, 1).all()
    assert report.object_size == json.loads((tmp_path / "out" / "a_labels.json").read_text())["object_size"]


def test_nan_pixels_are_flagged_by_file(tmp_path: Path, segmenter) -> None:
    image = tifffile.imread(SAMPLES / "nuclei_fluorescence.tif")[20:84, 300:364].astype(np.float32)
    image[3, 3] = np.nan
    settings = BatchSettings(EverythingConfig(object_size=26))
    path = write(tmp_path / "a.tif", image)
    report = drain(segment_many([path], tmp_path / "out", Recipe(settings), segmenter=segmenter))

    assert any("NaN" in flag for flag in report.outcomes[0].flags)


# --- stacks that are linked


LINKED = BatchSettings(EverythingConfig(object_size=26), link=True)


@pytest.fixture(scope="module")
def drifting() -> np.ndarray:
    """Three planes of the same nuclei, each a few pixels on."""
    image = tifffile.imread(SAMPLES / "nuclei_fluorescence.tif")
    return np.stack([image[20 + 2 * z : 132 + 2 * z, 300 + 3 * z : 412 + 3 * z] for z in range(3)])


def write_stack(path: Path, stack: np.ndarray, axes: str = "ZYX") -> Path:
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    return write(path, stack, metadata=metadata, photometric="minisblack")


@pytest.fixture(scope="module")
def linked(tmp_path_factory, segmenter, drifting: np.ndarray) -> SimpleNamespace:
    """The stack as a file, its results and the report; not to be changed."""
    folder = tmp_path_factory.mktemp("linked")
    path = write_stack(folder / "a.ome.tif", drifting)
    return SimpleNamespace(
        path=path, out=folder / "out", report=run([path], folder / "out", LINKED, model=segmenter)
    )


def test_a_linked_stack_gives_what_the_python_call_gives(linked, segmenter, drifting: np.ndarray) -> None:
    expected = drain(segment_stack(drifting, config=LINKED.config, model=segmenter))

    labels, record = read_image(linked.out / "a_labels.tif"), read_record(linked.out / "a_labels.json")
    assert (labels.axes, labels.pixel_size, labels.z_step) == ("ZYX", (0.5, 0.5), 2.0)
    np.testing.assert_array_equal(labels.data, expected.labels)
    assert record.settings["link"] is True
    assert linked.report.outcomes[0].n_objects == record.n_objects == len(expected.table)


def test_the_object_size_of_a_linked_stack_is_estimated_as_by_the_python_call(
    tmp_path: Path, segmenter, drifting: np.ndarray
) -> None:
    stack = np.stack([np.zeros_like(drifting[0]), drifting[0]])[:, :72, :72]  # the first plane tells nothing
    path = write_stack(tmp_path / "a.ome.tif", stack)
    report = run([path], tmp_path / "out", BatchSettings(link=True), model=segmenter)

    assert report.object_size is not None
    assert report.object_size == estimate_stack_size(stack, segmenter)
    assert read_record(tmp_path / "out" / "a_labels.json").object_size_estimated


def test_the_table_of_a_linked_stack_follows_each_object_through_its_planes(
    linked, drifting: np.ndarray
) -> None:
    table = pd.read_csv(linked.out / "a_objects.csv")
    labels = tifffile.imread(linked.out / "a_labels.tif")
    assert list(table.columns[:2]) == ["label", "z"]
    lasting = table[table["n_planes"] == 3]
    assert lasting["label"].nunique() >= 3
    assert {tuple(planes) for _, planes in lasting.groupby("label")["z"]} == {(0, 1, 2)}
    inner = lasting.groupby("label").filter(lambda planes: not planes["touches_border"].any())
    steps = inner.groupby("label")[["centroid_y", "centroid_x"]].diff().dropna().median()
    np.testing.assert_allclose(steps, (-2, -3), atol=0.7)
    for z, plane in table.groupby("z"):
        areas = np.bincount(labels[z].ravel())
        assert list(plane["area_px"]) == [areas[i] for i in plane["label"]]
        brightest = [drifting[z][labels[z] == i].max() for i in plane["label"]]
        assert list(plane["intensity_max"]) == brightest
    assert table.groupby("label")["area_px"].sum().equals(table.groupby("label")["volume_px"].first())
    assert (table["single_plane"] == (table["n_planes"] == 1)).all()
    assert {"score", "area_jump", "gap_bridged"} <= set(table)


def test_an_axis_of_unknown_meaning_is_depth_where_planes_are_linked(
    tmp_path: Path, segmenter, drifting: np.ndarray
) -> None:
    report = run(
        [write(tmp_path / "a.tif", drifting[:2, :64, :64], photometric="minisblack")],
        tmp_path / "out", LINKED, model=segmenter, outputs=("overlay",),
    )  # fmt: skip

    assert read_image(tmp_path / "out" / "a_labels.tif").axes == "ZYX"
    assert report.outcomes[0].flags == ()
    assert Image.open(tmp_path / "out" / "a_overlay.png").size == (256, 256)  # a picture of one plane


def test_a_blank_stack_gives_an_empty_result(tmp_path: Path, segmenter) -> None:
    path = write_stack(tmp_path / "a.ome.tif", np.zeros((2, 40, 40), np.uint8))
    report = run([path], tmp_path / "out", LINKED, model=segmenter)

    assert report.outcomes[0].n_objects == 0
    table = pd.read_csv(tmp_path / "out" / "a_objects.csv")
    assert len(table) == 0
    assert {"z", "area_px", "single_plane"} <= set(table)


def test_bad_pixels_of_a_stack_are_flagged_by_file(tmp_path: Path, segmenter, drifting: np.ndarray) -> None:
    stack = drifting[:2, :64, :64].astype(np.float32)
    stack[:, 3, 3] = np.nan
    report = run([write_stack(tmp_path / "a.ome.tif", stack)], tmp_path / "out", LINKED, model=segmenter)

    assert len([flag for flag in report.outcomes[0].flags if "NaN" in flag]) == 1


def test_an_image_without_depth_is_segmented_and_says_that_nothing_was_linked(tmp_path: Path) -> None:
    report = run([write(tmp_path / "a.tif")], tmp_path / "out", BatchSettings(link=True))

    assert report.outcomes[0].n_objects == 9
    assert report.outcomes[0].flags == ("it has a single plane: there is nothing to link",)
    assert read_image(tmp_path / "out" / "a_labels.tif").axes == "YX"
    assert "z" not in pd.read_csv(tmp_path / "out" / "a_objects.csv")


def test_time_points_are_not_linked_and_one_plane_is_no_stack(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([discs()] * 3), imagej=True, metadata={"axes": "TYX"})

    with pytest.raises(FileError, match="has 3 time points"):
        run([path], tmp_path / "out", BatchSettings(link=True))
    with pytest.raises(ConfigError, match=r"all planes of a stack; leave out --z 3"):
        BatchSettings(link=True, z=3)


def test_a_linked_stack_is_skipped_when_finished_and_refused_when_made_otherwise(linked, segmenter) -> None:
    before = tree(linked.out)

    assert run([linked.path], linked.out, LINKED, model=segmenter).outcomes[0].status == "skipped"
    with pytest.raises(ConfigError, match=r"link True \(now False\)"):
        run([linked.path], linked.out, replace(LINKED, link=False, z=0), model=segmenter)
    assert tree(linked.out) == before


def test_a_cancelled_stack_leaves_nothing(tmp_path: Path, segmenter, linked) -> None:
    work = segment_many([linked.path], tmp_path / "out", Recipe(LINKED), segmenter=segmenter)
    assert next(step.done for step in work if step.stage == "plane 2 of 3") == 1
    work.close()

    assert tree(tmp_path / "out") == {}


def test_a_record_from_before_a_setting_was_added_still_counts(data: Path, tmp_path: Path) -> None:
    run([data], tmp_path / "out")
    path = tmp_path / "out" / "a_labels.json"
    record = read_record(path)
    settings = {key: value for key, value in record.settings.items() if key != "link"}
    write_record(path, replace(record, settings=settings))

    assert {o.status for o in run([data], tmp_path / "out").outcomes} == {"skipped"}


def test_names_are_found_for_every_kind_of_tiff_stem(tmp_path: Path) -> None:
    for name in ("a.ome.tif", "b.OME.TIFF", "c.d.tif", "e.lsm"):
        shutil.copy(SAMPLES / "nuclei_histology.tif", tmp_path / name)
    found = find_jobs([tmp_path], tmp_path / "out")

    assert sorted(job.labels.name for job in found.jobs) == [
        "a_labels.tif", "b_labels.tif", "c.d_labels.tif", "e_labels.tif",
    ]  # fmt: skip
