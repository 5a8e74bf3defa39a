"""Slides on dask: one result for every scheduler, whatever dies, cannot be read, or is cancelled."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
import zarr
from typer.testing import CliRunner

from napari_lightsam.batch import BatchSettings, Recipe, scale, segment_many
from napari_lightsam.batch.lock import locked
from napari_lightsam.batch.scale import Pool, delay
from napari_lightsam.batch.slide import segment_slide
from napari_lightsam.batch.slide_blocks import Ids, Kept, draw_chunk
from napari_lightsam.batch.slide_record import read_record
from napari_lightsam.batch.slide_seams import (
    count_left,
    decide,
    find_clusters,
    find_visitors,
    join_changes,
    meet,
)
from napari_lightsam.batch.slide_source import SlidePlane
from napari_lightsam.cli import app
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.merge import Piece
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.stopping import Stopped
from napari_lightsam.errors import ConfigError, FileError, ImageError, WeightsError
from napari_lightsam.train.metrics import match

SEAM = 192  # the blocks of 512 frame pixels, two an image pixel, answer for half of these 384 pixels each
SETTINGS = BatchSettings(config=EverythingConfig(object_size=26), precision="float32", runtime="torch")
LAYOUT = {"block": 512, "chunk": 128}


@pytest.fixture(scope="module")
def pixels():
    from napari_lightsam.samples import read_sample

    return read_sample("nuclei_fluorescence")[100:484, 200:584].copy()


@pytest.fixture(scope="module")
def image(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "image.zarr"
    zarr.save_array(str(path), pixels)
    return path


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    workers = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**workers) as running, distributed.Client(running) as client:
        yield client


def run(image, out, segmenter, **options):
    report = drain(segment_slide(image, out, SETTINGS, model=segmenter, **LAYOUT, **options))
    return report, zarr.open_array(out / "0", mode="r")[:]


@pytest.fixture(scope="module")
def reference(image, segmenter, tmp_path_factory):
    """What threads make of the slide."""
    out = tmp_path_factory.mktemp("threads") / "labels.zarr"
    report, labels = run(image, out, segmenter, workers=2)
    return report, labels, out


def longest_run(labels, line):
    """Longest straight part of an outline within two pixels of a row."""
    longest = 0
    for row in range(line - 2, line + 2):
        above, below = labels[row], labels[row + 1]
        edge = np.r_[False, (above != below) & ((above > 0) | (below > 0)), False]
        ends = np.flatnonzero(np.diff(edge.astype(int)))
        longest = max(longest, (ends[1::2] - ends[::2]).max(initial=0))
    return longest


def test_blocks_give_what_the_engine_finds_in_one_piece_and_no_seam_shows(pixels, segmenter, reference):
    report, labels, out = reference
    whole = drain(segmenter.everything(pixels, SETTINGS.config)).labels
    assert report.blocks == 4
    assert not report.failed
    assert np.array_equal(np.unique(labels), np.arange(report.n_objects + 1))
    assert abs(report.n_objects - whole.max()) <= 0.03 * whole.max()
    assert match(whole, labels.astype(np.int32))[0].average_precision > 0.94
    assert max(longest_run(labels, SEAM), longest_run(labels.T, SEAM)) <= 20
    record = read_record(out)
    assert record["complete"]
    assert record["n_objects"] == report.n_objects
    assert record["settings"]["object_size"] == 26
    assert not out.with_name("labels.zarr.parts").exists()


def test_a_finished_slide_is_not_segmented_again_and_not_replaced_by_other_settings(
    image, segmenter, reference
):
    _, labels, out = reference
    report, again = run(image, out, segmenter)
    assert report.skipped == report.blocks == 4
    assert np.array_equal(again, labels)
    with pytest.raises(ConfigError, match="block: 512, now 640"):
        drain(segment_slide(image, out, SETTINGS, model=segmenter, block=640))


def test_processes_give_the_same_labels_and_threads_the_same_as_them(image, reference, tmp_path):
    report, labels = run(
        image, tmp_path / "labels.zarr", "lightsam", scheduler="processes", workers=2,
        threads=torch.get_num_threads(),
    )  # fmt: skip
    assert report.exit_code == 0
    assert np.array_equal(labels, reference[1])


def test_the_process_that_starts_a_slide_loads_no_model_where_others_compute(image, tmp_path, monkeypatch):
    from napari_lightsam.engine import segmenter as engine

    def refuse(*_, **__):
        pytest.fail("a model was loaded")

    monkeypatch.setattr(engine, "load_segmenter", refuse)
    for stage in ("laying out the blocks", "segmenting"):
        work = segment_slide(image, tmp_path / "labels.zarr", SETTINGS, scheduler="processes", **LAYOUT)
        assert list(tmp_path.iterdir()) == []  # also when the run before was cancelled before its first block
        next(step for step in work if step.stage == stage)
        work.close()


@pytest.mark.parametrize(
    ("given", "error"),
    [({"model": "no such model"}, WeightsError), ({"image": np.zeros((4, 5, 6, 7), np.uint8)}, ImageError)],
    ids=["no model", "no plane"],
)
def test_what_a_worker_refuses_before_the_first_block_is_said_as_here(image, tmp_path, given, error):
    said = []
    for how in ({"scheduler": "threads"}, {"scheduler": "processes", "workers": 1}):
        options = {"image": image, "out": tmp_path / "labels.zarr", "settings": SETTINGS, **how, **given}
        with pytest.raises(error) as refused:
            drain(segment_slide(**options))
        said.append(str(refused.value))
        assert list(tmp_path.iterdir()) == []
    assert said[0] == said[1]


def test_a_killed_worker_costs_nothing_of_the_result(image, cluster, reference, tmp_path):
    work = segment_slide(
        image,
        tmp_path / "labels.zarr",
        SETTINGS,
        scheduler=cluster,
        threads=torch.get_num_threads(),
        **LAYOUT,
    )
    killed = False
    try:
        while True:
            step = next(work)
            if step.stage == "segmenting" and step.done and not killed:
                killed = True
                os.kill(next(iter(cluster.run(os.getpid).values())), signal.SIGKILL)
    except StopIteration as stop:
        report = stop.value
    assert killed
    assert report.exit_code == 0
    assert np.array_equal(zarr.open_array(tmp_path / "labels.zarr" / "0", mode="r")[:], reference[1])


CLIENT = """
import sys
from napari_lightsam.batch import BatchSettings
from napari_lightsam.batch.slide import segment_slide
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain

image, out, scheduler, threads = sys.argv[1:]
settings = BatchSettings(config=EverythingConfig(object_size=26), precision="float32", runtime="torch")
layout = {"block": 512, "chunk": 128}
drain(segment_slide(image, out, settings, scheduler=scheduler, threads=int(threads), **layout))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_another_run_goes_on_where_one_on_a_cluster_was_killed(image, cluster, reference, tmp_path):
    out, threads = tmp_path / "labels.zarr", torch.get_num_threads()
    given = [str(image), str(out), cluster.scheduler.address, str(threads)]
    running = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLIENT, *given], stderr=subprocess.PIPE, text=True
    )
    while not list(out.with_name("labels.zarr.parts").glob("block_*.npz")) and running.poll() is None:
        time.sleep(0.02)
    running.kill()  # while its workers are at other blocks
    _, said = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL, said
    assert not read_record(out)["complete"]

    report = drain(segment_slide(image, out, SETTINGS, scheduler=cluster, threads=threads, **LAYOUT))
    assert report.exit_code == 0
    assert report.skipped
    assert np.array_equal(zarr.open_array(out / "0", mode="r")[:], reference[1])
    assert [path.name for path in tmp_path.iterdir()] == ["labels.zarr"]


def test_of_an_object_that_two_blocks_found_the_better_stays_and_what_meets_nothing_is_left_alone(tmp_path):
    def square(y, x, side):
        bits = np.packbits(np.ones((side, side), bool), axis=1)
        return Piece((y, x, y + side, x + side), bits, side * side)

    config = SimpleNamespace(overlap=0.5, min_size=0)
    plan = SimpleNamespace(kept=lambda i: tmp_path / f"{i}.npz", identity="same", config=config)
    found = (
        Kept.of([square(10, 90, 20), square(50, 10, 10)], np.array([0.9, 0.8]), (0, 0, 100, 100)),
        Kept.of([square(11, 91, 20), square(70, 150, 10)], np.array([0.7, 0.6]), (0, 100, 100, 200)),
    )
    for i, kept in enumerate(found):
        kept.save(plan.kept(i), "same")
    assert Kept.load(plan.kept(0), "other") is None
    cut = tmp_path / "cut.npz"
    cut.write_bytes(plan.kept(0).read_bytes()[:200])
    assert Kept.load(cut, "same") is None
    blocks = {i: Kept.load(plan.kept(i), "same").summary() for i in (0, 1)}
    visitors = find_visitors(blocks)
    clusters = find_clusters({i: meet(plan, i, boxes) for i, (boxes, _) in visitors.items()}, visitors)
    assert clusters == {0: ((0, 0), (1, 0))}
    changes = join_changes([decide(plan, nodes) for nodes in clusters.values()])
    assert changes == {1: {0: None}}
    assert count_left(blocks, changes) == {0: 2, 1: 1}


def test_axes_that_are_told_go_before_those_of_the_file(tmp_path):
    stack = np.arange(3 * 8 * 9, dtype="uint16").reshape(3, 8, 9)
    zarr.save_array(tmp_path / "a.zarr", stack)
    plane = SlidePlane(tmp_path / "a.zarr", BatchSettings(axes="ZYX", z=1))
    np.testing.assert_array_equal(plane[2:5, :], stack[1, 2:5])


def _zarr_array(folder, pixels):
    zarr.create_array(folder / "a.zarr", data=pixels, chunks=(32, 32))
    return folder / "a.zarr", lambda: zarr.open_array(folder / "a.zarr", mode="r+")


def _tiff_file(folder, pixels):
    tifffile.imwrite(folder / "a.tif", pixels)
    return folder / "a.tif", lambda: tifffile.memmap(folder / "a.tif")


def _array(folder, pixels):
    own = pixels.copy()
    return own, lambda: own


@pytest.mark.parametrize("kind", [_zarr_array, _tiff_file, _array])
def test_a_slide_whose_pixels_have_changed_is_not_continued(kind, pixels, segmenter, tmp_path):
    image, writable = kind(tmp_path, pixels[:128, :128])
    out = tmp_path / "labels.zarr"
    work = segment_slide(image, out, SETTINGS, model=segmenter, **LAYOUT)
    while next(work).stage != "segmenting":
        pass
    work.close()
    drain(segment_slide(image, out, SETTINGS, model=segmenter, **LAYOUT))
    writable()[70:90, 40:60] = 255
    with pytest.raises(ConfigError, match="the image has changed since"):
        drain(segment_slide(image, out, SETTINGS, model=segmenter, **LAYOUT))
    work = segment_slide(image, out, SETTINGS, model=segmenter, overwrite=True, **LAYOUT)
    while next(work).stage != "segmenting":
        pass
    writable()[70:90, 40:60] = 7
    with pytest.raises(FileError, match="was changed during the run"):
        drain(work)
    assert not read_record(out)["complete"]


def _planes_of_a_file(folder, stack):
    tifffile.imwrite(folder / "stack.tif", stack)
    return tifffile.memmap(folder / "stack.tif", mode="r")


def _lazy_planes(_, stack):
    return pytest.importorskip("dask.array").from_array(stack)


@pytest.mark.parametrize("kind", [_planes_of_a_file, _lazy_planes])
def test_a_slide_of_another_plane_of_the_same_stack_is_not_taken_for_finished(
    kind, pixels, segmenter, tmp_path
):
    planes = kind(tmp_path, np.stack([pixels[:64, :64], pixels[64:128, :64]]))
    out = tmp_path / "labels.zarr"
    drain(segment_slide(planes[0], out, SETTINGS, model=segmenter, **LAYOUT))
    assert drain(segment_slide(planes[0], out, SETTINGS, model=segmenter, **LAYOUT)).skipped
    with pytest.raises(ConfigError, match="the image has changed since"):
        drain(segment_slide(planes[1], out, SETTINGS, model=segmenter, **LAYOUT))


def test_what_killed_runs_left_beside_a_slide_goes_with_the_next_run(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    drain(segment_slide(pixels[:64, :64], out, SETTINGS, model=segmenter, **LAYOUT))
    for name in ("labels.zarr.parts", ".labels.zarr.0123abcd.part", ".labels.zarr.4567cdef.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "block_0000000.npz").write_bytes(b"half")
    (tmp_path / ".labels.zarr.mine").mkdir()
    drain(segment_slide(pixels[:64, :64], out, SETTINGS, model=segmenter, **LAYOUT))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".labels.zarr.mine", "labels.zarr"]


def test_a_second_run_on_a_slide_is_refused_until_the_first_has_ended(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    first = segment_slide(pixels[:64, :64], out, SETTINGS, model=segmenter, **LAYOUT)
    while next(first).stage != "segmenting":
        pass
    for overwrite in (False, True):
        again = segment_slide(pixels[:64, :64], out, SETTINGS, model=segmenter, overwrite=overwrite, **LAYOUT)
        with pytest.raises(FileError, match=f"labels.zarr is in use by another run .process {os.getpid()}"):
            drain(again)
    assert out.exists()
    other = segment_slide(pixels[:64, :64], tmp_path / "b.zarr", SETTINGS, model=segmenter, **LAYOUT)
    assert drain(other).exit_code == drain(first).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zarr", "labels.zarr"]


def begun(pixels, out, segmenter):
    """A slide of which a run laid out the blocks before it was stopped."""
    work = segment_slide(pixels[:128, :128], out, SETTINGS, model=segmenter, **LAYOUT)
    while next(work).stage != "segmenting":
        pass
    work.close()


@pytest.mark.parametrize("what", ["array", "labels of others", "file"])
def test_what_takes_the_name_of_a_slide_that_was_stopped_is_never_replaced(what, pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    begun(pixels, out, segmenter)
    shutil.rmtree(out)
    if what == "array":
        zarr.save_array(str(out), np.arange(9))
    elif what == "file":
        out.write_text("mine")
    else:
        zarr.open_group(out, mode="w", zarr_format=2).attrs["image-label"] = {"version": "0.4"}
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="was not begun by a run like this"):
        drain(segment_slide(pixels[:128, :128], out, SETTINGS, model=segmenter, **LAYOUT))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("overwrite", [False, True], ids=["plain", "overwrite"])
def test_files_of_others_beside_a_slide_stop_it_and_stay(overwrite, pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    parts = tmp_path / "labels.zarr.parts"
    parts.mkdir()
    (parts / "mine.txt").write_text("precious")
    options = {"model": segmenter, "overwrite": overwrite, **LAYOUT}
    with pytest.raises(ConfigError, match=r"holds something else: mine\.txt"):
        drain(segment_slide(pixels[:64, :64], out, SETTINGS, **options))
    assert (parts / "mine.txt").read_text() == "precious"
    (parts / "mine.txt").rename(parts / ".DS_Store")
    assert drain(segment_slide(pixels[:64, :64], out, SETTINGS, **options)).exit_code == 0
    assert [path.name for path in parts.iterdir()] == [".DS_Store"]


@pytest.mark.parametrize("out", ["labels.zarr", "labels.zarr/again", "."])
def test_a_slide_never_replaces_the_image_it_is_made_of(out, pixels, segmenter, tmp_path):
    image = tmp_path / "labels.zarr"
    group = zarr.open_group(image, mode="w", zarr_format=2)
    group.create_array("0", data=pixels[:64, :64])
    group.attrs["multiscales"] = [{"version": "0.4", "axes": ["y", "x"], "datasets": [{"path": "0"}]}]
    group.attrs["image-label"] = {"version": "0.4"}
    with pytest.raises(ConfigError, match="Inputs are never written"):
        drain(segment_slide(image, tmp_path / out, SETTINGS, model=segmenter, overwrite=True, **LAYOUT))
    assert zarr.open_array(image / "0", mode="r").shape == (64, 64)


def test_labels_of_other_settings_are_kept_when_their_blocks_are_gone(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    begun(pixels, out, segmenter)
    shutil.rmtree(tmp_path / "labels.zarr.parts")
    with pytest.raises(ConfigError, match="was made otherwise"):
        drain(segment_slide(pixels[:64, :64], out, SETTINGS, model=segmenter, **LAYOUT))
    assert zarr.open_array(out / "0", mode="r").shape == (128, 128)


def test_of_other_settings_only_those_are_named_that_differ(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    begun(pixels, out, segmenter)
    other = replace(SETTINGS, config=replace(SETTINGS.config, max_size=40.0))
    with pytest.raises(ConfigError, match=r"made otherwise \(max_size: None, now 40.0\)"):
        drain(segment_slide(pixels[:128, :128], out, other, model=segmenter, **LAYOUT))


def test_a_damaged_block_is_segmented_again_and_does_not_count_as_finished(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    begun(pixels, out, segmenter)
    (tmp_path / "labels.zarr.parts" / "block_0000000.npz").write_bytes(b"PK")
    report = drain(segment_slide(pixels[:128, :128], out, SETTINGS, model=segmenter, **LAYOUT))
    assert (report.blocks, report.skipped) == (1, 0)


def test_a_slide_is_the_image_of_a_file_that_was_chosen(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        for series in (3, 5):
            tif.write(np.full((64, 40 + series), series, np.uint8), metadata={"axes": "YX"})
    for series, value in ((None, 3), (0, 3), (1, 5)):
        plane = SlidePlane(tmp_path / "a.ome.tif", BatchSettings(series=series))
        assert plane.shape == (64, 40 + value)
        assert np.unique(plane[:9, :9]) == value
        assert [note[:22] for note in plane.notes] == ["the file holds 2 image"] * (series is None)
    with pytest.raises(FileError, match="numbered from 0 to 1; there is no number 2"):
        SlidePlane(tmp_path / "a.ome.tif", BatchSettings(series=2))
    with pytest.raises(ConfigError, match="A slide is one image"):
        drain(segment_slide(tmp_path / "a.ome.tif", tmp_path / "out", BatchSettings(series="all")))
    zarr.save_array(tmp_path / "a.zarr", np.zeros((8, 8)))
    with pytest.raises(FileError, match="there is no number 1"):
        SlidePlane(tmp_path / "a.zarr", BatchSettings(series=1))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal to a group of processes")
def test_ctrl_c_keeps_what_is_finished_marks_it_and_tells_how_to_go_on(image, reference, tmp_path):
    out = tmp_path / "labels.zarr"
    command = [
        sys.executable,
        "-c",
        # whoever starts the tests in the background may have SIGINT ignored in all of them
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from napari_lightsam.cli import main; main()",
        "slide",
        str(image),
        str(out),
    ]
    command += ["--object-size", "26", "--runtime", "torch", "--block", "512", "--workers", "1"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(out.with_name("labels.zarr.parts").glob("block_*.npz")) and running.poll() is None:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    _, said = running.communicate(timeout=60)

    assert running.returncode == 130, said
    assert "Traceback" not in said
    assert "Stopped. Finished blocks are kept in" in said
    assert "the same command goes on from there" in said
    assert not read_record(out)["complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.zarr", "labels.zarr.parts"]


def test_a_finished_block_that_was_taken_away_is_an_error_not_an_empty_place(tmp_path):
    zarr.create_array(tmp_path / "0", shape=(64, 64), chunks=(64, 64), dtype="uint32")
    plan = SimpleNamespace(kept=lambda i: tmp_path / f"{i}.npz", identity="same", out=tmp_path)
    plan.hold = SimpleNamespace(lost=lambda: False)

    assert draw_chunk(plan, (0, 0, 64, 64), [Ids(0, 0)]) == 0
    with pytest.raises(FileError, match="during the run"):
        draw_chunk(plan, (0, 0, 64, 64), [Ids(0, 0, {})])


class Poisoned:
    """A plane of which one part cannot be read."""

    path = "poisoned"

    def __init__(self, pixels):
        self.pixels, self.healed = pixels, False
        self.shape, self.dtype = pixels.shape, pixels.dtype

    def __getitem__(self, key):
        rows, columns = key
        if not self.healed and rows.start < 64 and columns.start < 64:
            raise OSError("bad sector")
        return self.pixels[key]


def test_a_part_that_cannot_be_read_is_named_left_empty_and_done_when_it_can_be(pixels, segmenter, tmp_path):
    poisoned, out = Poisoned(pixels), tmp_path / "labels.zarr"
    report, labels = run(poisoned, out, segmenter, workers=2)
    (failed,) = report.failed
    assert failed.box == (0, 0, SEAM, SEAM)
    assert "bad sector" in failed.message
    assert report.exit_code == 1
    assert not labels[:100, :100].any()
    assert len(np.unique(labels[SEAM:, SEAM:])) > 5
    assert read_record(out)["failed"][0]["box"] == [0, 0, SEAM, SEAM]
    poisoned.healed = True
    report, labels = run(poisoned, out, segmenter, workers=2)
    assert report.skipped == 3
    assert report.exit_code == 0
    assert labels[:100, :100].any()


def test_a_cancelled_run_keeps_what_is_finished_and_goes_on_from_there(image, segmenter, reference, tmp_path):
    out = tmp_path / "labels.zarr"
    work = segment_slide(image, out, SETTINGS, model=segmenter, workers=1, **LAYOUT)
    while (step := next(work)).stage != "segmenting" or step.done < 2:
        pass
    work.close()
    kept = len(list(out.with_name("labels.zarr.parts").glob("block_*.npz")))
    assert 2 <= kept < 4
    assert not read_record(out)["complete"]
    layout = LAYOUT | {"chunk": 96}  # which changes no label
    report = drain(segment_slide(image, out, SETTINGS, model=segmenter, workers=2, **layout))
    labels = zarr.open_array(out / "0", mode="r")[:]
    assert report.skipped >= 2
    assert np.array_equal(labels, reference[1])


def test_a_slide_whose_output_was_taken_away_is_not_complete_and_goes_on_later(pixels, segmenter, tmp_path):
    out = tmp_path / "labels.zarr"
    work = segment_slide(pixels[:128, :128], out, SETTINGS, model=segmenter, **LAYOUT)
    while next(work).stage != "segmenting":
        pass
    (tmp_path / ".labels.zarr.lock").unlink()
    with pytest.raises(FileError, match=r"labels\.zarr is not this run's any more"):
        drain(work)
    assert not read_record(out)["complete"]
    assert drain(segment_slide(pixels[:128, :128], out, SETTINGS, model=segmenter, **LAYOUT)).n_objects > 5


def test_a_worker_that_comes_late_keeps_no_block_and_draws_nothing(tmp_path):
    square = Piece((0, 0, 8, 8), np.packbits(np.ones((8, 8), bool), axis=1), 64)
    kept = Kept.of([square], np.array([0.9]), (0, 0, 64, 64))
    with pytest.raises(Stopped):
        kept.save(tmp_path / "late.npz", "same", lambda: True)
    assert not list(tmp_path.iterdir())
    kept.save(tmp_path / "0.npz", "same", lambda: False)
    zarr.create_array(tmp_path / "0", shape=(64, 64), chunks=(64, 64), dtype="uint32")
    asked = iter([False, True])
    plan = SimpleNamespace(kept=lambda i: tmp_path / f"{i}.npz", identity="same", out=tmp_path)
    plan.hold = SimpleNamespace(lost=lambda: next(asked))
    assert draw_chunk(plan, (0, 0, 64, 64), [Ids(0, 0)]) is None  # so that nobody takes it for drawn
    assert not zarr.open_array(tmp_path / "0", mode="r")[:].any()


def test_a_batch_on_a_cluster_gives_the_files_of_one_process(pixels, segmenter, cluster, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels[:128, :128])
    tifffile.imwrite(tmp_path / "b.tif", pixels[128:256, :128])
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    sources, recipe = sorted(tmp_path.glob("*.tif")), Recipe(SETTINGS)
    alone = drain(segment_many(sources, tmp_path / "alone", recipe, segmenter=segmenter))
    options = {"scheduler": cluster, "threads": torch.get_num_threads()}
    report = drain(segment_many(sources, tmp_path / "many", recipe, segmenter=segmenter, **options))
    assert [outcome.status for outcome in report.outcomes] == ["written", "written", "failed"]
    assert report.exit_code == alone.exit_code == 1
    for name in ("a_labels.tif", "b_labels.tif", "a_objects.csv"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert not list((tmp_path / "many").glob(".*"))  # no lock and nothing half
    again = drain(segment_many(sources, tmp_path / "many", recipe, segmenter=segmenter, scheduler="threads"))
    assert [outcome.status for outcome in again.outcomes] == ["skipped", "skipped", "failed"]


@pytest.fixture
def elsewhere(cluster, tmp_path_factory):
    """The workers of the cluster in a folder of their own, and not in that of this process."""
    before, folder = os.getcwd(), tmp_path_factory.mktemp("elsewhere")
    cluster.run(os.chdir, str(folder))
    yield folder
    cluster.run(os.chdir, before)


@pytest.fixture
def blind(cluster):
    """The workers of the cluster see no lock, as on a machine that has another disk under that path."""

    def shut():
        from napari_lightsam.batch.lock import Hold

        Hold.open_eyes, Hold.lost = Hold.lost, lambda _: True

    def open_again():
        from napari_lightsam.batch.lock import Hold

        Hold.lost = Hold.open_eyes

    cluster.run(shut)
    yield
    cluster.run(open_again)


def test_relative_paths_are_those_of_the_process_that_starts_a_run_on_a_cluster(
    pixels, segmenter, cluster, elsewhere, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", pixels[:128, :128])
    os.symlink(find_weights("lightsam")[0], "own.safetensors")
    options = {"scheduler": cluster, "threads": torch.get_num_threads()}

    report, labels = run("a.tif", Path("a.zarr"), "own.safetensors", **options)
    assert report.path == Path("a.zarr")
    assert labels.max() == report.n_objects > 5

    work = segment_many(["a.tif"], "many", Recipe(SETTINGS), segmenter=segmenter, **options)
    (outcome,) = drain(work).outcomes
    assert (outcome.source, outcome.outputs[0]) == (Path("a.tif"), Path("many/a_labels.tif"))
    assert tifffile.imread("many/a_labels.tif").max() == outcome.n_objects > 5
    assert not list(elsewhere.iterdir())


def test_workers_that_do_not_see_the_output_fail_the_run_and_do_not_leave_it_empty(
    pixels, segmenter, cluster, blind, tmp_path
):
    out = tmp_path / "labels.zarr"
    image = tmp_path / "a.tif"
    tifffile.imwrite(image, pixels[:128, :128])
    for model in ("lightsam", segmenter):  # a worker lays out the slide, or this process
        with pytest.raises(FileError, match=r"A worker does not see .*\.labels\.zarr\.lock"):
            run(image, out, model, scheduler=cluster)
    assert not read_record(out)["complete"]

    many = segment_many([image], tmp_path / "many", Recipe(SETTINGS), segmenter=segmenter, scheduler=cluster)
    (outcome,) = drain(many).outcomes
    assert outcome.status == "failed"
    assert "A worker does not see" in outcome.message


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_tasks_of_dead_processes_are_done_again_and_those_that_kill_are_given_up(tmp_path):
    died = tmp_path / "died"

    def die_once():  # defined here, so that workers need not import this module
        if not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    def always_die():
        os.kill(os.getpid(), signal.SIGKILL)

    pool = Pool("processes", 1)
    tasks = {"once": delay(die_once, "once"), "ever": delay(always_die, "ever")}
    with locked(tmp_path) as hold:
        outcomes = dict(event for event in pool.run(tasks, hold) if event)
    pool.close()
    assert outcomes["once"] == "done"
    assert "died" in str(outcomes["ever"])


@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")
def test_in_a_container_there_are_as_many_workers_as_it_has_cores(monkeypatch):
    files = {"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "100000 100000"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 64, raising=False)
    monkeypatch.setattr("dask.system.psutil", None)
    read = open

    def opened(path, *options, **more):
        if str(path).startswith("/sys/fs/cgroup/cpu") and path not in files:
            raise FileNotFoundError(path)
        return io.StringIO(files[path]) if path in files else read(path, *options, **more)

    monkeypatch.setattr("builtins.open", opened)
    assert Pool("processes").workers == 1


def test_windows_gets_as_many_processes_as_it_can_wait_for(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(scale, "count_cores", lambda: 128)
    pool = Pool("processes")
    assert pool.workers == 61
    pool._start_processes()  # which refuses more
    assert Pool("threads").workers == 128
    with pytest.raises(ConfigError, match="Windows runs at most 61 worker processes; got 62"):
        Pool("processes", 62)


@pytest.mark.parametrize("scheduler", ["slurm", 3, None], ids=str)
def test_what_is_no_scheduler_is_refused(scheduler):
    with pytest.raises(ConfigError, match="A scheduler is threads, processes, the address"):
        Pool(scheduler)


def test_the_command_segments_a_tiff_file_and_names_what_it_wrote(pixels, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tif:
        tif.write(pixels[:64, :64] * 0)
        tif.write(pixels[:128, :128])
    command = ["slide", str(tmp_path / "a.tif"), str(tmp_path / "a.zarr"), "--object-size", "26"]
    chosen = ["--series", "1", "--axes", "YX"]
    result = CliRunner().invoke(app, [*command, "--scheduler", "threads", "--runtime", "torch", *chosen])
    assert result.exit_code == 0, result.output
    labels = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")[:]
    assert f"{labels.max()} objects" in result.output
    assert labels.shape == (128, 128)
