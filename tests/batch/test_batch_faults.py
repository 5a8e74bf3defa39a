"""What can go wrong around a batch: locks, open tables, changing files, strange names, lists, readers."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_batch import run, tree
from typer.testing import CliRunner

from napari_lightsam.batch import BatchSettings, segment_many
from napari_lightsam.batch import run as run_module
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD, _stem, find_jobs
from napari_lightsam.batch.lists import read_list
from napari_lightsam.batch.lock import LOCK, locked
from napari_lightsam.batch.slide_source import SlidePlane
from napari_lightsam.batch.summary import RESERVED
from napari_lightsam.cli import app
from napari_lightsam.engine.linking import link_planes
from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import ConfigError, FileError, LightSamError
from napari_lightsam.formats.convert import read_objects
from napari_lightsam.formats.images import read_image
from napari_lightsam.formats.tables import measure_objects
from thresholder import Thresholder, discs, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("a.tif", "sub/b.tif"):
        write(tmp_path / "data" / name)
    return tmp_path / "data"


# --- one run at a time


def test_a_second_run_on_an_output_folder_is_refused_and_a_stale_lock_taken_over(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LOCK).write_text(
        '{"pid": 1, "host": "elsewhere", "since": "yesterday"}'
    )  # of a run that was killed
    first = segment_many([data], out, segmenter=Thresholder())
    while not next(first).stage.startswith("a.tif"):
        pass

    with pytest.raises(FileError, match=f"in use by another run .process {os.getpid()} on"):
        run([data], out)
    first.close()

    assert run([data], out).exit_code == 0
    assert not (out / LOCK).exists()


# --- tables that are open, changed or not ours


def test_a_folder_is_locked_even_where_the_disk_has_no_room_to_say_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_lightsam.batch.lock.os.write", full)
        with locked(tmp_path), pytest.raises(FileError, match="in use"), locked(tmp_path):
            pass


def test_a_table_that_is_open_elsewhere_stays_and_the_new_one_gets_a_number(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", os.replace
    run([data / "a.tif"], out)
    before = (out / "objects.csv").read_bytes()

    def locked(part: os.PathLike[str], path: os.PathLike[str]) -> None:
        if Path(path).name == "objects.csv":
            raise PermissionError(13, "Permission denied")
        replace(part, path)

    monkeypatch.setattr(os, "replace", locked)
    monkeypatch.setattr("napari_lightsam.formats.atomic.time.sleep", lambda _: None)
    report = run([data / "a.tif", data / "sub"], out)

    assert [path.name for path in report.tables] == ["objects (2).csv", "images.csv", "report.html"]
    assert any("open in another program" in note for note in report.notes)
    assert report.exit_code == 0
    assert (out / "objects.csv").read_bytes() == before
    assert set(pd.read_csv(out / "objects (2).csv")["image"]) == {"a.tif", "b.tif"}


def test_tables_that_are_not_ours_or_were_changed_are_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "objects.csv").write_text("somebody's")
    first = run([data], out)
    (out / "images.csv").write_text("changed by hand")
    second = run([data], out)

    assert [path.name for path in first.tables] == ["objects (2).csv", "images.csv", "report.html"]
    assert [path.name for path in second.tables] == ["objects (2).csv", "images (2).csv", "report.html"]
    assert (out / "objects.csv").read_text() == "somebody's"
    assert (out / "images.csv").read_text() == "changed by hand"
    assert [path.name for path in run([data], out, overwrite=True).tables] == list(BATCH_OUTPUTS)


def test_a_full_disk_at_the_very_end_keeps_all_results_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_lightsam.batch.summary.write_report", full)
        report = run([data], tmp_path / "out")

    assert report.exit_code == 1
    assert "no space left" in report.problems[0]
    assert len(tree(tmp_path / "out")) == 6
    assert run([data], tmp_path / "out").exit_code == 0


def test_a_run_goes_on_where_a_file_that_was_open_elsewhere_kept_it_from_replacing_all(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, replace = tmp_path / "out", os.replace
    run([data / "a.tif"], out, model=Thresholder(size=20.0))

    def refused(source: Path, target: Path) -> None:
        if Path(target).name == "a_objects.csv":
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("napari_lightsam.formats.atomic.os.replace", refused)
        write(data / "a.tif", discs(n=2))
        failed = run([data / "a.tif"], out, overwrite=True)
    assert failed.outcomes[0].status == "failed"

    again = run([data / "a.tif"], out)
    assert [(o.status, o.n_objects) for o in again.outcomes] == [("written", 4)]
    assert set(tree(out)) == {"a_labels.tif", "a_objects.csv", "a_labels.json"}


@pytest.mark.parametrize("overwrite", [False, True], ids=["plain", "overwrite"])
def test_a_record_of_another_program_is_never_replaced(data: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / BATCH_RECORD).write_text('{"jobs": []}')

    with pytest.raises(ConfigError, match=r"batch\.json is no record of a batch.*another output folder"):
        run([data], tmp_path / "out", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [BATCH_RECORD]
    assert (tmp_path / "out" / BATCH_RECORD).read_text() == '{"jobs": []}'


# --- files that change while they are read


@pytest.mark.parametrize(("times", "status"), [(1, "written"), (9, "failed")], ids=["once", "always"])
def test_a_file_that_changes_while_it_is_read_is_never_recorded_wrongly(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, status: str
) -> None:
    left = [times]

    def read(path: Path, series: int | None, **how: bool):
        image = read_image(path, series, **how)
        if path.name == "a.tif" and left[0] > 0:
            left[0] -= 1
            write(path, discs(5 + left[0]))
        return image

    monkeypatch.setattr("napari_lightsam.batch.single.read_image", read)
    report = run([data], tmp_path / "out", BatchSettings(pixel_size=(1.0, 1.0)))

    assert [o.status for o in report.outcomes] == [status, "written"]
    assert ("changes while it is read" in report.outcomes[0].message) is (status == "failed")
    if status == "written":
        labels = tifffile.imread(tmp_path / "out" / "a_labels.tif")
        np.testing.assert_array_equal(labels > 0, tifffile.imread(data / "a.tif") > 0)


def test_a_file_that_vanishes_while_the_batch_runs_fails_alone(data: Path, tmp_path: Path) -> None:
    work = segment_many([data], tmp_path / "out", segmenter=Thresholder())
    while not next(work).stage.startswith("a.tif"):
        pass
    (data / "sub" / "b.tif").unlink()
    report = drain(work)

    assert [o.status for o in report.outcomes] == ["written", "failed"]
    assert "does not exist" in report.outcomes[1].message


def test_ctrl_c_ends_with_what_is_finished_and_no_parts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Thresholder):
        def everything(self, plane, config, *, rgb):
            if self.calls:
                raise KeyboardInterrupt
            return (yield from super().everything(plane, config, rgb=rgb))

    model = Interrupted()
    monkeypatch.setattr("napari_lightsam.engine.segmenter.load_segmenter", lambda *_, **__: model)
    done = CliRunner().invoke(app, ["segment", str(data), "-o", str(tmp_path / "out")])

    assert done.exit_code == 130
    assert "goes on from there" in done.stderr
    assert set(tree(tmp_path / "out")) == {"a_labels.tif", "a_objects.csv", "a_labels.json"}


# --- names and links


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_run_can_be_stopped_while_files_are_looked_at_and_says_which_image_it_is_at(
    data: Path, tmp_path: Path
) -> None:
    def stages(**options: object) -> list[str]:
        found: list[str] = []
        work = segment_many([data], tmp_path / "out", segmenter=Thresholder(), **options)
        drain(work, lambda step: found.append(step.stage))
        return found

    first, second = stages(), stages()
    n = sum(stage == "looking at the images" for stage in first)
    assert n > 1
    assert first.count("looking for finished results") == second.count("looking for finished results") == n
    images = {stage.partition(": ")[0] for stage in first if ": " in stage}
    assert len(images) == n
    named = {
        stage.partition(": ")[0] for stage in stages(scheduler="threads", overwrite=True) if ": " in stage
    }
    assert named == images


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_a_folder_is_passed_over_and_one_given_by_name_fails(data: Path, tmp_path: Path) -> None:
    os.mkfifo(data / "pipe.tif")

    report = run([data], tmp_path / "out")
    assert {o.image for o in report.outcomes} == {"a.tif", "sub/b.tif"}
    (outcome,) = run([data / "pipe.tif"], tmp_path / "other").outcomes
    assert "a pipe" in outcome.message


def test_links_in_circles_are_walked_once(data: Path, tmp_path: Path) -> None:
    (data / "sub" / "up").symlink_to(data, target_is_directory=True)
    (data / "self.tif").symlink_to(data / "self.tif")

    report = run([data], tmp_path / "folder")
    assert [(o.image, o.status) for o in report.outcomes] == [
        ("a.tif", "written"), ("self.tif", "failed"), ("sub/b.tif", "written"),
    ]  # fmt: skip
    matched = run([str(data / "**" / "[ab].tif")], tmp_path / "pattern")
    assert [o.image for o in matched.outcomes] == ["a.tif", "sub/b.tif"]


def test_strange_and_very_long_names_keep_their_images_apart(tmp_path: Path) -> None:
    long = "ö" * 120  # 240 bytes of the 255 that a name may have
    names = [f"{long}1.tif", f"{long}2.tif", "Zellen 细胞 'a' #1;.tif", "=1+1.tif", " .tif"]
    names += [] if sys.platform == "win32" else ['<b>"&amp;.tif']
    for name in names:
        write(tmp_path / "data" / name)
    report = run([tmp_path / "data"], tmp_path / "out", outputs=("ome-zarr", "geojson"))

    assert [o.status for o in report.outcomes] == ["written"] * len(names)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert '<b>"&' not in page
    assert ("&lt;b&gt;&quot;&amp;amp;.tif" in page) is (sys.platform != "win32")
    table = pd.read_csv(tmp_path / "out" / "images.csv")
    assert set(table["image"]) == set(names)
    assert table["labels"].nunique() == len(names)
    assert {o.status for o in run([tmp_path / "data"], tmp_path / "out").outcomes} == {"skipped"}


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_is_no_text_is_segmented_too(tmp_path: Path) -> None:
    write(tmp_path / "data" / "a.tif")
    os.rename(tmp_path / "data" / "a.tif", os.fsencode(tmp_path / "data") + b"/\xff.tif")

    assert run([tmp_path / "data"], tmp_path / "out").exit_code == 0
    assert list(pd.read_csv(tmp_path / "out" / "images.csv")["image"]) == ["\ufffd.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="the letters of file names are chosen elsewhere")
def test_names_are_written_whole_where_the_system_knows_few_letters(tmp_path: Path) -> None:
    write(tmp_path / "data" / "Zellkern é 日本.tif")
    code = (
        "import sys; from pathlib import Path; from napari_lightsam.batch.inputs import find_jobs; "
        "job, = find_jobs([sys.argv[1]], Path('out')).jobs; print(ascii(job.image), ascii(job.name))"
    )
    few = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "data"],
        env=os.environ | few, capture_output=True, text=True, check=True,
    )  # fmt: skip
    name = ascii("Zellkern é 日本.tif")
    assert done.stdout.split(" '") == [f"{name}", f"{name[1:]}\n"]


# --- lists


def test_a_list_brings_its_columns_into_the_tables(data: Path, tmp_path: Path) -> None:
    listed = data / "plate.csv"
    listed.write_text("\ufeffcondition;Path;well\ncontrol;a.tif;A1\n\ndrug;sub/b.tif;A2\nnone;gone.tif;A3\n")
    report = run([listed], tmp_path / "out")

    assert [(o.image, o.status) for o in report.outcomes] == [
        ("a.tif", "written"), ("sub/b.tif", "written"), ("gone.tif", "failed"),
    ]  # fmt: skip
    objects = pd.read_csv(tmp_path / "out" / "objects.csv")
    assert list(objects.columns[:4]) == ["image", "plane", "condition", "well"]
    assert set(zip(objects["image"], objects["condition"], objects["well"], strict=True)) == {
        ("a.tif", "control", "A1"), ("sub/b.tif", "drug", "A2"),
    }  # fmt: skip
    assert list(pd.read_csv(tmp_path / "out" / "images.csv")["well"]) == ["A1", "A2", "A3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("file,well\na.tif,A1", "line 1: one column is called image or path"),
        ("image,area_px\na.tif,3", "line 1: a column 'area_px' is a column of the results"),
        ("image,Intensity_mean\na.tif,3", "a column 'Intensity_mean' is a column of the results"),
        ("image,n_planes\na.tif,3", "line 1: a column 'n_planes' is a column of the results"),
        ("image,,\na.tif,1,2", "line 1: a column '' has no name"),
        ("image,w,w\na.tif,1,2", "line 1: a column 'w' is there twice"),
        ("image,well\na.tif", "line 2: 1 values for 2 columns"),
        ("image,well\n,A1", "line 2: no image"),
        ("image\na.tif\nsub/b.tif\na.tif", "line 4: 'a.tif' was listed in line 2"),
        ("image\n", "lists no image"),
        ('image\n"' + "x" * 200_000, "line 2: field larger"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(data: Path, tmp_path: Path, text: str, message: str) -> None:
    (data / "list.csv").write_text(text)

    with pytest.raises(ConfigError, match=message):
        run([data / "list.csv"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_subfolders_are_kept_however_the_list_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "list.csv").write_text("image\nA/1.tif\n../B/2.tif\nA/../C/3.tif\n")

    rows = read_list(tmp_path / "here" / ".." / "list.csv")
    assert [row.place for row in rows] == [Path("A"), Path(), Path()]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("sep=;\r\nimage;well\r\na.tif;A1\r\n", id="the separator told"),
        pytest.param('"sep=,"\nimage,well\na.tif,A1\n', id="the separator told, quoted"),
        pytest.param("image;well;;\r\na.tif;A1;;\r\n;;;\r\n", id="empty columns and rows at the end"),
        pytest.param("image;well\na.tif;A1; ;\n", id="empty cells at the end of a row"),
    ],
)
def test_a_list_may_be_as_spreadsheets_leave_it(data: Path, text: str) -> None:
    (data / "list.csv").write_text(text, newline="")

    assert [(row.source.name, row.facts) for row in read_list(data / "list.csv")] == [
        ("a.tif", (("well", "A1"),))
    ]


def test_an_empty_column_between_others_is_refused_still(data: Path) -> None:
    (data / "list.csv").write_text("image,,well\na.tif,,A1\n")

    with pytest.raises(ConfigError, match="line 1: a column '' has no name"):
        read_list(data / "list.csv")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=60) | st.text('image,path;\t"\n\r\0../\\:a1é', max_size=60).map(str.encode))
@example(b".,")  # the folder of the list itself
def test_any_list_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    for start in (b"", b"image,well\n"):
        (tmp_path / "list.csv").write_bytes(start + content)
        with contextlib.suppress(LightSamError):
            assert read_list(tmp_path / "list.csv")


def test_no_column_of_the_tables_can_be_taken_by_a_list() -> None:
    labels = np.ones((9, 9), int)
    _, linked = link_planes([labels, labels])
    measured = measure_objects(labels, None, (0.5, 0.5), np.ones(1))
    assert {*linked, *measured, "z"} <= set(RESERVED)


def test_a_list_is_never_replaced_by_a_table(data: Path) -> None:
    (data / "images.csv").write_text("image\na.tif\n")

    with pytest.raises(ConfigError, match="Inputs are never written"):
        run([data / "images.csv"], data, overwrite=True)


# --- series, axes, zarr, readers


def test_every_image_of_a_file_is_segmented_where_asked(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        tif.write(discs(), metadata={"axes": "YX", "PhysicalSizeX": 0.5})
        tif.write(discs()[:100, :100], metadata={"axes": "YX", "PhysicalSizeX": 0.25})
    report = run([tmp_path / "a.ome.tif"], tmp_path / "out", BatchSettings(series="all"))

    assert [(o.image, o.n_objects, o.flags) for o in report.outcomes] == [
        ("a.ome.tif [0]", 9, ()), ("a.ome.tif [1]", 4, ()),
    ]  # fmt: skip
    assert (tmp_path / "out" / "a_series1_labels.tif").exists()
    assert list(pd.read_csv(tmp_path / "out" / "images.csv")["pixel_size_um"]) == [0.5, 0.25]
    one = run([tmp_path / "a.ome.tif"], tmp_path / "one", BatchSettings(series=1))
    assert [o.n_objects for o in one.outcomes] == [4]
    missing = run([tmp_path / "a.ome.tif"], tmp_path / "none", BatchSettings(series=2))
    assert "numbered from 0 to 1" in missing.outcomes[0].message


def test_axes_can_be_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([discs() * 0, discs()]), photometric="minisblack")
    report = run([path], tmp_path / "out", BatchSettings(axes="CYX", channel=1))

    assert report.outcomes[0].n_objects == 9
    assert "intensity_mean_ch1" in pd.read_csv(tmp_path / "out" / "objects.csv")
    with pytest.raises(FileError, match="the axes ZCYX do not fit"):
        run([path], tmp_path / "wrong", BatchSettings(axes="ZCYX"))


def ome_zarr(store: object) -> None:
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.create_array("0", data=np.stack([discs() * 0, discs()]), chunks=(1, 64, 64))
    axes = [{"name": "c"}, *({"name": name, "unit": "micrometer"} for name in "yx")]
    scale = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 0.5, 0.25]}]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [scale]}]
    group.attrs["omero"] = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class _Unlisted(_Quiet):
    """Gives files and no lists of them, as most stores on the web do."""

    def list_directory(self, _: object) -> None:
        self.send_error(403)


@contextlib.contextmanager
def served(folder: Path, how: type[_Quiet]) -> Iterator[str]:
    """Serve a folder on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(how, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[str]:
    """Copy a folder into a store that speaks as S3 does; what is written later is not there."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    s3fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        s3fs.S3FileSystem().mkdir("plates")
        s3fs.S3FileSystem().put(str(folder), "plates", recursive=True)
        yield f"s3://plates/{folder.name}"
    server.stop()


@contextlib.contextmanager
def remembered(folder: Path) -> Iterator[str]:
    """Copy a folder into fsspec's own store in memory."""
    fsspec = pytest.importorskip("fsspec")
    fsspec.filesystem("memory").put(str(folder), f"/plates/{folder.name}", recursive=True)
    yield f"memory://plates/{folder.name}"


PLACES = {
    "folder": lambda folder: contextlib.nullcontext(str(folder)),
    "file": lambda folder: contextlib.nullcontext(folder.as_uri()),
    "http": lambda folder: served(folder, _Quiet),
    "http without lists": lambda folder: served(folder, _Unlisted),
    "memory": remembered,
    "s3": bucket,
}


@pytest.mark.parametrize(
    "place",
    [pytest.param(PLACES[name], id=name, marks=[pytest.mark.readers] * (name == "s3")) for name in PLACES],
)
def test_ome_zarr_is_read_from_anywhere_with_channels_and_calibration(
    tmp_path: Path, place: Callable[[Path], contextlib.AbstractContextManager[str]]
) -> None:
    stored, out, settings = tmp_path / "data" / "a.ome.zarr", tmp_path / "out", BatchSettings(channel="GFP")
    ome_zarr(stored)
    before = tree(tmp_path / "data")
    with place(tmp_path / "data") as address:
        report = run([f"{address}/a.ome.zarr"], out, settings)

        assert [(o.image, o.n_objects, o.message) for o in report.outcomes] == [("a.ome.zarr", 9, "")]
        table = pd.read_csv(out / "objects.csv")
        np.testing.assert_allclose(table["area_um2"], table["area_px"] * 0.125)
        assert table["intensity_max_DAPI"].max() == 0
        assert {o.status for o in run([f"{address}/a.ome.zarr"], out, settings).outcomes} == {"skipped"}
        plane = SlidePlane(f"{address}/a.ome.zarr", settings)
        np.testing.assert_array_equal(plane[10:40, 10:30], discs()[10:40, 10:30])
        assert plane.state() == SlidePlane(f"{address}/a.ome.zarr", settings).state() != ""
    assert tree(tmp_path / "data") == before


@pytest.mark.parametrize("how", [_Quiet, _Unlisted], ids=["listed", "without lists"])
def test_an_image_that_has_changed_at_its_address_is_noticed(tmp_path: Path, how: type[_Quiet]) -> None:
    pytest.importorskip("aiohttp")
    stored, settings = tmp_path / "data" / "a.ome.zarr", BatchSettings(channel="GFP")
    ome_zarr(stored)
    with served(tmp_path / "data", how) as address:
        run([f"{address}/a.ome.zarr"], tmp_path / "out", settings)
        chunk = stored / "0" / "1.0.0"
        os.utime(chunk, (1_000_000_000, 1_000_000_000))

        with pytest.raises(ConfigError, match="another version of the input"):
            run([f"{address}/a.ome.zarr"], tmp_path / "out", settings)


def test_ome_zarr_in_a_folder_is_found_as_one_image(tmp_path: Path) -> None:
    ome_zarr(tmp_path / "data" / "a.ome.zarr")
    report = run([tmp_path / "data"], tmp_path / "out", BatchSettings(channel="GFP"))

    assert [(o.image, o.n_objects) for o in report.outcomes] == [("a.ome.zarr", 9)]


def test_a_zarr_whose_metadata_are_damaged_fails_alone(data: Path, tmp_path: Path) -> None:
    ome_zarr(data / "c.zarr")
    group = zarr.open_group(data / "c.zarr", mode="r+")
    group.attrs["multiscales"] = [{**group.attrs["multiscales"][0], "axes": [{}, {}, {}]}]

    report = run([data], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["written", "failed", "written"]
    assert "metadata that are damaged" in report.outcomes[1].message


@pytest.mark.parametrize("given", ["folder", "list"])
def test_an_image_whose_path_ends_without_a_name_stays_inside_the_output_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    ome_zarr(tmp_path / "a.zarr")
    (tmp_path / "list.csv").write_text(f"image\n{(tmp_path / 'a.zarr').as_uri()}/\n")
    monkeypatch.chdir(tmp_path / "a.zarr")

    job = find_jobs(["."] if given == "folder" else ["../list.csv"], tmp_path / "out").jobs[0]

    assert (job.labels, job.name) == (tmp_path / "out" / "a_labels.tif", "a.zarr")


def test_a_zarr_that_lies_about_its_size_fails_alone(data: Path, tmp_path: Path) -> None:
    zarr.create_array(data / "huge.zarr", shape=(2_000_000, 2_000_000), chunks=(1000, 1000), dtype="u2")

    report = run([data], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["written", "failed", "written"]
    assert "declares an image of" in report.outcomes[1].message


@pytest.mark.parametrize("name", ["u.czi", "v.ND2", "w.lif"])
def test_a_missing_reader_is_advised(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    (data / name).write_bytes(b"ZISRAWFILE" * 9)

    report = run([data], tmp_path / "out")

    failed = [o for o in report.outcomes if o.status == "failed"]
    assert [o.image for o in failed] == [name]
    kind = name.rpartition(".")[2].lower()
    assert f"pip install bioio bioio-{kind}" in failed[0].message


def test_an_unreachable_address_is_one_failure(tmp_path: Path, data: Path) -> None:
    report = run([data / "a.tif", "file:///nowhere/x.zarr", "nosuch://x/y.zarr"], tmp_path / "out")

    assert [o.status for o in report.outcomes] == ["written", "failed", "failed"]


# --- the command


def test_options_of_the_command_go_before_those_of_the_recipe(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Thresholder()
    monkeypatch.setattr("napari_lightsam.engine.segmenter.load_segmenter", lambda *_, **__: model)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("object_size: 26\npixel_size: 0.5\noutputs: [overlay]\nmode: grid\n")
    arguments = [
        "segment",
        str(data),
        "-o",
        str(tmp_path / "out"),
        "--recipe",
        str(recipe),
        "--object-size",
        "31",
    ]
    done = CliRunner().invoke(app, arguments)

    assert done.exit_code == 0, done.output
    images = pd.read_csv(tmp_path / "out" / "images.csv")
    assert set(images["object_size_px"]) == {31}
    assert set(images["pixel_size_um"]) == {0.5}
    assert (tmp_path / "out" / "a_overlay.png").exists()
    recipe.write_text("object_size: 26\nmodus: grid\n")
    wrong = CliRunner().invoke(app, arguments)
    assert wrong.exit_code == 2
    assert "line 2: Unknown name 'modus'" in wrong.stderr.replace("\n", " ")


# --- what a file system or a list of files may come up with


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch):
    """Make all below a folder unreadable, whoever runs the tests."""
    places: list[str] = []

    def guarded(real):
        def ask(path, *args, **kwargs):
            if isinstance(path, str | os.PathLike) and any(os.fspath(path).startswith(p) for p in places):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return real(path, *args, **kwargs)

        return ask

    for name in ("stat", "lstat", "open", "scandir", "listdir", "mkdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(io, "open", guarded(io.open))
    return lambda path: places.append(os.fspath(path))


LONG = "n" * 300


@pytest.mark.parametrize(
    "what", ["locked/a.tif", LONG, f"{LONG}.tif", f"{LONG}.csv", f"{LONG}*.tif", "locked"]
)
def test_names_that_cannot_be_looked_at_are_one_message(
    data: Path, tmp_path: Path, forbidden, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load = run_module.load_model
    monkeypatch.setattr(
        run_module, "load_model", lambda name, how: Thresholder() if name == "lightsam" else load(name, how)
    )
    (tmp_path / "locked").mkdir()
    forbidden(tmp_path / "locked")
    given = str(tmp_path / what)
    with pytest.raises(FileError):
        find_jobs([given], tmp_path / "out")
    with pytest.raises(LightSamError):
        read_image(given)
    with pytest.raises(LightSamError):
        read_objects(given)
    for command in (
        ["segment", given, "-o", "x"],
        ["slide", given, "x.zarr"],
        ["export", given, "--to", "roi"],
        ["segment", str(data), "-o", given],
        ["segment", str(data), "-o", "x", "--model", given],
        ["evaluate", given],
    ):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, SystemExit), (command, done.exception)
        assert done.exit_code in (1, 2)
        assert "error: " in done.stderr


def test_an_unreadable_row_of_a_list_fails_alone(data: Path, tmp_path: Path, forbidden) -> None:
    (tmp_path / "locked").mkdir()
    forbidden(tmp_path / "locked")
    listed = tmp_path / "list.csv"
    listed.write_text(f"image\n{data / 'a.tif'}\n{tmp_path / 'locked' / 'b.tif'}\n{LONG}.tif\n")
    report = run([listed], tmp_path / "out")
    assert [outcome.status for outcome in report.outcomes] == ["written", "failed", "failed"]


def test_a_subfolder_that_cannot_be_read_is_named(data: Path, tmp_path: Path, forbidden) -> None:
    (data / "locked").mkdir()
    forbidden(data / "locked")
    report = run([data], tmp_path / "out")
    assert [note for note in report.notes if "locked cannot be read (Permission denied)" in note]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_folder_whose_name_is_no_text_is_segmented_too(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(bytes(tmp_path) + b"/data/\xff"))
    write(folder / "a.tif")
    report = run([tmp_path / "data"], tmp_path / "out")
    assert [outcome.status for outcome in report.outcomes] == ["written"]
    assert not report.problems
    assert len(pd.read_csv(tmp_path / "out" / "images.csv")) == 1


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        ("s3://b/a:b.zarr", "a_b~"),
        ("s3://b/..\\..\\evil.zarr", ".._.._evil~"),
        ("https://h/x?y.zarr", "x_y~"),
        ("s3://b/con.zarr", "con~"),
        ("s3://b/Com1.ome.zarr", "Com1~"),
        ("s3://b/d.zarr", "d"),
    ],
)
def test_names_of_addresses_are_safe_on_every_system(address: str, stem: str) -> None:
    named = _stem(address)
    assert named.startswith(stem)
    assert ("~" in named) == ("~" in stem)
    assert not set(named) & set('<>:"/\\|?*')


def test_colour_that_is_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "two.tif", np.zeros((32, 32, 2), np.uint8), photometric="minisblack")
    with pytest.raises(FileError, match=r"colour samples \(S\) are the last one, of 3 or 4"):
        run([tmp_path / "two.tif"], tmp_path / "out", BatchSettings(axes="YXS"))


def test_an_image_that_no_size_can_be_estimated_of_does_not_stop_the_others(
    data: Path, tmp_path: Path
) -> None:
    class Faulty(Thresholder):
        def estimate_object_size(self, plane, *, rgb):
            self.looks += 1
            if self.looks == 1:
                raise IndexError
            return super().estimate_object_size(plane, rgb=rgb)

    assert run([data], tmp_path / "out", model=Faulty()).exit_code == 0


def test_a_record_of_hashes_that_are_none_is_damaged(data: Path, tmp_path: Path) -> None:
    run([data / "a.tif"], tmp_path / "out")
    path = tmp_path / "out" / "a_labels.json"
    record = json.loads(path.read_text())
    record["outputs"] = {"a_labels.tif": ["x"]}
    (tmp_path / "out" / ".a_labels.json.pending").write_text(json.dumps(record))
    (tmp_path / "out" / "a_labels.tif").write_bytes(b"changed")
    with pytest.raises(ConfigError, match="was changed since"):
        run([data / "a.tif"], tmp_path / "out")
