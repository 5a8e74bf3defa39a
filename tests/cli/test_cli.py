"""The `lightsam` command with the embedded model on real images: outputs, exit codes, messages."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from typer.testing import CliRunner

import napari_lightsam
from napari_lightsam.batch import BatchSettings
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD
from napari_lightsam.cli import app
from napari_lightsam.cli.report import StageClock, exit_code, follow
from napari_lightsam.cli.segment import parse_channel, parse_pixel_size, parse_z
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import (
    ConfigError,
    DeviceError,
    DownloadError,
    FileError,
    LightSamError,
    WeightsError,
)
from napari_lightsam.formats.atomic import WriteError
from napari_lightsam.formats.images import read_image

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"
TRUTH = Path(__file__).parents[1] / "data" / "samples"
SUFFIXES = ("_labels.tif", "_objects.csv", "_labels.json")
HEAVY = ("torch", "timm", "napari", "qtpy", "pandas", "skimage", "scipy")


@pytest.fixture(scope="module")
def segmenter():
    """The embedded model as the command loads it by default."""
    return napari_lightsam.load_segmenter()


@pytest.fixture
def lightsam(monkeypatch: pytest.MonkeyPatch, segmenter):
    """Run the command in this process, with the embedded model loaded once for all tests."""
    monkeypatch.setattr("napari_lightsam.engine.segmenter.load_segmenter", lambda *_, **__: segmenter)
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def lightsam_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from napari_lightsam.cli import main; main()", *map(str, arguments)]
    environ = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=500)


def nuclei(row: int, column: int, size: int = 96) -> np.ndarray:
    return tifffile.imread(SAMPLES / "nuclei_fluorescence.tif")[row : row + size, column : column + size]


def tree(folder: Path) -> dict[str, str]:
    of_all = (*BATCH_OUTPUTS, BATCH_RECORD)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in of_all)
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight CYX OME-TIFFs in two subfolders with equal stems, one of them blank, one truncated."""
    folder = tmp_path_factory.mktemp("plates")
    for p, plate in enumerate(("plate A", "plate B")):
        (folder / plate).mkdir()
        for i in range(4):
            channel = nuclei(40 + 100 * i, 300 + 100 * p, 72)
            blank = (plate, i) == ("plate A", 1)
            data = np.stack([channel[::-1] // 2, channel * (not blank)])
            metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "Channel": {"Name": ["GFP", "DAPI"]}}
            path = folder / plate / f"well_{i}.ome.tif"
            tifffile.imwrite(path, data, metadata=metadata, photometric="minisblack")
            if (plate, i) == ("plate B", 2):
                path.write_bytes(path.read_bytes()[:9000])
    return folder


@pytest.fixture(scope="module")
def segmented(plates: Path, tmp_path_factory: pytest.TempPathFactory):
    """One real run of the command over the plates."""
    out = tmp_path_factory.mktemp("results") / "out"
    before = tree(plates)
    done = lightsam_process("segment", plates, "-o", out, "--channel", "DAPI")
    return out, before, done


GOOD = [f"plate {p}/well_{i}" for p in "AB" for i in range(4) if (p, i) != ("B", 2)]


def test_eight_files_in_two_folders_give_exactly_their_results(plates: Path, segmented) -> None:
    out, before, done = segmented

    assert done.returncode == 1, done.stderr
    assert set(tree(out)) == {stem + end for stem in GOOD for end in SUFFIXES}
    assert tree(plates) == before
    assert re.search(r"failed: .*plate B.well_2\.ome\.tif.*truncated", done.stderr)
    assert "Images: 7 written, 1 failed." in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_labels_are_exported_and_exports_are_read(lightsam, tmp_path: Path) -> None:
    truth = tifffile.imread(TRUTH / "nuclei_fluorescence_labels.tif")[:96, :96]
    tifffile.imwrite(tmp_path / "a_labels.tif", truth.astype(np.uint16))
    done = lightsam("export", tmp_path / "a_labels.tif", "--to", "roi,geojson", "--pixel-size", "0.5")

    assert done.exit_code == 0, done.output
    assert [line for line in done.stdout.splitlines() if line] == [
        f"Wrote {tmp_path / name}" for name in ("a_rois.zip", "a_objects.geojson")
    ]
    again = lightsam("export", tmp_path / "a_rois.zip", "--to", "tiff", "-o", tmp_path / "out")
    assert again.exit_code == 0, again.output
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a_labels.tif"), truth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "a.tif", "--to", "png"), "Formats are tiff"),
        (("export", "a.tif", "--to", "roi"), "does not exist"),
        (("segment", "a.tif", "-o", "out", "--export", "roi,x"), "No format is called 'x'"),
    ],
    ids=["format", "missing", "segment"],
)
def test_an_impossible_export_does_nothing(
    lightsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lightsam(*arguments)

    assert done.exit_code == 2
    assert message in plain(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_each_result_is_that_of_the_python_call_at_the_common_size(
    plates: Path, segmented, segmenter
) -> None:
    out, _, _ = segmented
    records = {stem: json.loads((out / f"{stem}_labels.json").read_text()) for stem in GOOD}
    (size,) = {record["object_size"] for record in records.values()}

    assert 15 < size < 45
    for stem in GOOD:
        labels = read_image(out / f"{stem}_labels.tif")
        image = read_image(plates / f"{stem}.ome.tif").data[1]
        expected = napari_lightsam.segment_everything(image, model=segmenter, object_size=size)
        np.testing.assert_array_equal(labels.data, expected)
        assert labels.data.dtype == np.uint16
        assert labels.pixel_size == pytest.approx((0.5, 0.5))
        table = pd.read_csv(out / f"{stem}_objects.csv")
        assert len(table) == records[stem]["n_objects"] == expected.max()
        if stem == "plate A/well_1":
            assert len(table) == 0
        else:
            assert len(table) >= 1
            np.testing.assert_allclose(table["area_um2"], table["area_px"] / 4)
            assert table["intensity_max_DAPI"].max() <= image.max()


def test_a_second_run_skips_what_is_finished_and_fails_where_it_failed(
    plates: Path, segmented, lightsam
) -> None:
    out, before, _ = segmented
    results = tree(out)
    done = lightsam("segment", plates, "-o", out, "--channel", "DAPI")

    assert done.exit_code == 1
    assert "Images: 7 skipped, 1 failed." in done.stdout
    assert tree(out) == results
    assert tree(plates) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--channel", "GFP"], r"channel DAPI \(now GFP\)"),
        (["--channel", "DAPI", "--mode", "grid"], r"mode auto \(now grid\)"),
        (["--channel", "DAPI", "--min-size", "12"], r"min size not given \(now 12"),
    ],
    ids=["channel", "mode", "least size"],
)
def test_other_settings_stop_before_any_work(
    plates: Path, segmented, lightsam, options: list[str], message: str
) -> None:
    out, _, _ = segmented
    results = tree(out)
    done = lightsam("segment", plates, "-o", out, *options)

    assert done.exit_code == 2
    assert re.search(message, plain(done.stderr))
    assert "--overwrite" in done.stderr
    assert tree(out) == results


def test_without_a_channel_nothing_is_done_and_channels_are_listed(
    plates: Path, tmp_path: Path, lightsam
) -> None:
    done = lightsam("segment", plates, "-o", tmp_path / "out")

    assert done.exit_code == 2
    assert "0 (GFP), 1 (DAPI)" in plain(done.stderr)
    assert "--channel" in done.stderr
    assert not (tmp_path / "out").exists()


def test_equal_stems_without_their_folders_are_refused(plates: Path, tmp_path: Path, lightsam) -> None:
    files = [plates / plate / "well_0.ome.tif" for plate in ("plate A", "plate B")]
    done = lightsam("segment", *files, "-o", tmp_path / "out", "--channel", "1")

    assert done.exit_code == 2
    assert "would both be written to" in plain(done.stderr)
    assert not (tmp_path / "out").exists()


def test_overwriting_beside_the_inputs_leaves_the_inputs(tmp_path: Path, lightsam) -> None:
    tifffile.imwrite(tmp_path / "a.tif", nuclei(40, 300))
    before = tree(tmp_path)["a.tif"]
    arguments = ("segment", tmp_path, "-o", tmp_path, "--object-size", "26", "--overwrite")

    assert lightsam(*arguments).exit_code == 0
    assert lightsam(*arguments).exit_code == 0
    assert set(tree(tmp_path)) == {"a.tif", *(f"a{end}" for end in SUFFIXES)}
    assert tree(tmp_path)["a.tif"] == before


def test_the_defaults_give_the_result_of_the_python_call(tmp_path: Path, lightsam, segmenter) -> None:
    tifffile.imwrite(tmp_path / "a.tif", nuclei(40, 300, 96))
    done = lightsam("segment", tmp_path / "a.tif", "-o", tmp_path / "out")

    assert done.exit_code == 0
    expected = napari_lightsam.segment_everything(nuclei(40, 300, 96), model=segmenter)
    np.testing.assert_array_equal(read_image(tmp_path / "out" / "a_labels.tif").data, expected)
    assert expected.max() >= 3
    assert f"{expected.max()} objects" in done.stdout


def test_every_option_reaches_the_engine(tmp_path: Path, lightsam) -> None:
    stack = np.stack([np.stack([nuclei(40, 300)] * 2)] * 2)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX"})
    done = lightsam(
        "segment", tmp_path / "a.tif", "-o", tmp_path / "out", "--mode", "grid", "--object-size", "26",
        "--channel", "0,1", "--z", "max", "--pixel-size", "0.5,0.25", "--iou-threshold", "0.7",
        "--stability-threshold", "0.75", "--min-size", "8", "--max-size", "60", "--drop-border",
        "--overlap", "0.4", "--point-spacing", "20", "--batch", "32", "--overlay", "--balance", "0.1",
    )  # fmt: skip

    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "out" / "a_labels.json").read_text())
    assert record["settings"] == {
        **BatchSettings().to_plain(), "mode": "grid", "object_size": 26.0, "channel": ["0", "1"], "z": "max",
        "pixel_size": [0.5, 0.25], "iou_threshold": 0.7, "stability_threshold": 0.75, "min_size": 8.0,
        "max_size": 60.0, "keep_border": False, "overlap": 0.4, "point_spacing": 20.0, "batch": 32,
        "balance": 0.1,
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "out" / "a_objects.csv")
    assert not table["touches_border"].any()
    assert "intensity_mean_ch1" in table
    assert (tmp_path / "out" / "a_overlay.png").exists()


@pytest.mark.parametrize("config", [EverythingConfig, BatchSettings])
def test_every_setting_has_its_flag_with_the_help_of_its_field(lightsam, config: type) -> None:
    import typer

    command = typer.main.get_command(app).commands["segment"]
    options = {parameter.name: parameter for parameter in command.params}
    for field in dataclasses.fields(config):
        if field.name == "config":
            continue
        assert field.metadata["help"] in options[field.name].help
        assert options[field.name].default == field.default


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.tif"], 2, "nothing.tif does not exist"),
        (["image.tif", "--mode", "magic"], 2, "Unknown mode 'magic'; choose one of auto, object-aware"),
        (["image.tif", "--z", "top"], 2, "--z is a plane number"),
        (["image.tif", "--link", "--z", "1"], 2, "takes all planes of a stack; leave out --z 1"),
        (["image.tif", "--pixel-size", "1,2,3"], 2, "--pixel-size is one number"),
        (["image.tif", "--pixel-size", "0"], 2, "pixel size is one or two positive"),
        (["image.tif", "--object-size", "0.5"], 2, "greater than or equal to"),
        (["image.tif", "--balance", "2"], 2, "Invalid value for '--balance'"),
        (["image.tif", "--min-size", "9", "--max-size", "3"], 2, "min_size (9) is larger than max_size (3)"),
        (["image.tif", "--channel", "Cy5"], 2, "no channel 'Cy5'"),
        (["image.tif", "--time", "4"], 2, "time 4"),
    ],
    ids=lambda v: " ".join(v[1:]) if isinstance(v, list) else "",
)
def test_a_wrong_request_is_one_message_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lightsam, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("image.tif", nuclei(40, 300))
    done = lightsam("segment", *arguments, "-o", "out")

    assert done.exit_code == code
    assert message in plain(done.stderr)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--model", "no_such_model"], 2, "no model named 'no_such_model'"),
        (["--model", "tinysam"], 2, "lightsam models download tinysam"),
        (["--device", "toaster"], 2, "Unknown device 'toaster'"),
        (["--device", "cuda:63"], 1, "cuda:63"),
        (["--precision", "int4"], 2, "Unknown precision 'int4'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_model_or_device_that_is_not_there_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "cache"))
    tifffile.imwrite(tmp_path / "image.tif", nuclei(40, 300))
    request = ["segment", str(tmp_path / "image.tif"), "-o", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(app, request)

    assert done.exit_code == code
    assert message in plain(done.stderr)
    assert done.stderr.count("error:") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(""), 2), (FileError(""), 2), (WeightsError(""), 2), (WriteError(""), 1),
        (DownloadError(""), 1), (DeviceError(""), 1), (LightSamError(""), 1),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "",
)  # fmt: skip
def test_usage_errors_and_failures_have_their_own_exit_code(error: LightSamError, code: int) -> None:
    assert exit_code(error) == code


# --- parsing


@pytest.mark.parametrize(
    ("text", "value"), [(None, None), ("1", "1"), ("DAPI", "DAPI"), ("0, GFP", ("0", "GFP"))], ids=str
)
def test_channels_are_split_at_commas(text: str | None, value: object) -> None:
    assert parse_channel(text) == value


@pytest.mark.parametrize(("text", "value"), [(None, None), ("3", 3), ("max", "max"), ("MAX", "max")], ids=str)
def test_a_plane_is_a_number_or_max(text: str | None, value: object) -> None:
    assert parse_z(text) == value


@pytest.mark.parametrize(("text", "value"), [(None, None), ("0.5", (0.5, 0.5)), ("1,2", (1, 2))], ids=str)
def test_a_pixel_size_is_one_number_or_two(text: str | None, value: object) -> None:
    assert parse_pixel_size(text) == value


# --- progress


def test_progress_goes_to_stderr_and_is_plain_without_a_terminal(segmented) -> None:
    _, _, done = segmented

    assert "loading the model\n" in done.stderr
    assert "well_3.ome.tif (8/8)\n" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "loading" not in done.stdout


def test_a_terminal_shows_a_bar_and_the_result_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def count():
        yield Progress("counting [sheep]", 1, 2)
        yield Progress("pausing", 1, 0)
        return 42

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    heard: list[Progress] = []

    assert follow(count(), heard.append) == 42
    assert "counting [sheep]" in terminal.getvalue()
    assert "left" in terminal.getvalue()
    assert [step.done for step in heard] == [1, 1]


def test_the_clock_adds_up_stages_that_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 6.0, 10.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    clock = StageClock()
    for stage in ("a", "b", "a"):
        clock(Progress(stage, 0, 0))

    assert clock.stop() == {"starting": 1.0, "a": 2.0 + 4.0, "b": 3.0}


# --- the other commands


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"lightsam {napari_lightsam.__version__}\n"


def test_the_command_runs_as_a_module_where_no_folder_of_commands_is_searched() -> None:
    command = [sys.executable, "-m", "napari_lightsam", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"lightsam {napari_lightsam.__version__}\n"


COMMANDS = (
    "segment", "slide", "export", "replay", "demo", "info", "evaluate", "quantize", "train", "distil",
    "cache", "models", "models list", "models download", "models path", "models import",
)  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_that_a_narrow_terminal_shows_in_full(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"})

    assert done.exit_code == 0
    assert "Usage" in done.stdout
    assert "…" not in done.stdout  # no name of an option is cut off


def test_the_options_of_a_batch_are_shown_by_what_they_are_about() -> None:
    shown = CliRunner().invoke(app, ["segment", "--help"], env={"COLUMNS": "80"}).stdout

    places = [shown.index(title) for title in ("Which objects", "Which pixels", "How it is computed")]
    assert places == sorted(places)
    assert shown.index("--object-size") < places[1] < shown.index("--channel") < places[2]


def test_importing_the_command_and_its_help_load_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['lightsam', '--help']\n"
        "from napari_lightsam.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == "[]"


def test_models_are_listed_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['lightsam', 'models', 'list']\n"
        "from napari_lightsam.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.strip() == "False"
    assert "in the package" in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) >= 10


def test_the_path_of_a_model_is_printed() -> None:
    done = CliRunner().invoke(app, ["models", "path", "lightsam"])

    assert Path(done.stdout.strip()).name == "lightsam.safetensors"
    assert Path(done.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["path", "tinysam"], 1, "lightsam models download tinysam"),
        (["path", "nonsense"], 2, "no model named 'nonsense'"),
        (["import", "nothing.pt"], 2, "no file nothing.pt"),
        (["download", "tinysam_42.3"], 1, "--yes"),
        (["download", "tinysam"], 1, "127.0.0.1"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_model_that_cannot_be_had_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path))
    monkeypatch.setenv("LIGHTSAM_MIRROR", "http://127.0.0.1:9")
    done = CliRunner().invoke(app, ["models", *arguments])

    assert done.exit_code == code
    assert message in plain(done.stderr)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_info_names_versions_device_and_models() -> None:
    done = CliRunner().invoke(app, ["info"])

    assert done.exit_code == 0
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert lines["napari-lightsam"].strip() == napari_lightsam.__version__
    assert lines["numpy"].strip() == np.__version__
    assert "because" in lines["Device"]
    assert {"Python", "torch", "timm", "napari", "Qt binding", "CPU", "CPU features", "OpenGL"} <= set(lines)
    assert "in the package" in lines["  lightsam"]
    assert "downloads go here" in lines["Model folder"]


@pytest.mark.parametrize(
    "code",
    ["import os; os.abort()", "import time; time.sleep(60)", "print('', '|', '')"],
    ids=["crash", "hang", "no name, as on a display without OpenGL"],
)
def test_a_broken_opengl_driver_does_not_take_info_down(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    from napari_lightsam.cli import info

    monkeypatch.setattr(info, "_OPENGL", code)
    monkeypatch.setattr(info, "OPENGL_SECONDS", 2)
    assert info.opengl_renderer().startswith("none")


@pytest.mark.gl
@pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="no display")
def test_info_names_the_opengl_renderer() -> None:
    from napari_lightsam.cli.info import opengl_renderer

    assert not opengl_renderer().startswith("none")


def test_evaluate_prints_a_table_and_writes_all_figures(tmp_path: Path, lightsam) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    truth = tifffile.imread(TRUTH / "nuclei_fluorescence_labels.tif")[40:136, 300:396]
    tifffile.imwrite(tmp_path / "data" / "images" / "a.tif", nuclei(40, 300))
    tifffile.imwrite(tmp_path / "data" / "labels" / "a.tif", truth)

    done = lightsam("evaluate", tmp_path / "data", "--object-size", "26", "--json", tmp_path / "figures.json")

    assert done.exit_code == 0, done.stderr
    assert "| set |" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["object_size"] == 26
    assert figures["images"][0]["objects"] == len(np.unique(truth)) - 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--object-size", "big"], "--object-size is estimated, true or a number"),
        (["--prompts", "wish"], "wish"),
        (["--split", "half"], "half"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_wrong_evaluation_is_one_message(
    tmp_path: Path, lightsam, options: list[str], message: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", nuclei(40, 300))
    tifffile.imwrite(tmp_path / "a_labels.tif", nuclei(40, 300))
    done = lightsam("evaluate", tmp_path, *options)

    assert done.exit_code == 2
    assert message in plain(done.stderr)


def test_an_evaluation_whose_figures_cannot_be_written_never_begins(tmp_path: Path, lightsam) -> None:
    (tmp_path / "file").touch()
    done = lightsam("evaluate", tmp_path / "nothing", "--json", tmp_path / "file" / "figures.json")

    assert done.exit_code == 1
    assert "cannot be written" in plain(done.stderr)


# --- what ends a command early


def test_ctrl_c_while_the_command_is_still_being_imported_is_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'napari_lightsam.cli.segment': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from napari_lightsam.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=500)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (PermissionError(13, "Permission denied", "x/a.tif"), 1, "error: x/a.tif: Permission denied."),
    ],
    ids=["Ctrl-C", "a file"],
)
def test_what_no_function_expects_is_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("napari_lightsam.formats.convert.convert_files", fail)
    done = CliRunner().invoke(app, ["export", "a.tif", "--to", "roi"])
    assert (done.exit_code, done.stderr) == (code, f"{message}\n")


def test_a_name_that_the_console_cannot_show_does_not_end_the_work(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "\u0394ctb.tif", np.eye(8, dtype=np.uint16))
    done = lightsam_process(
        "export", tmp_path / "\u0394ctb.tif", "--to", "tiff", PYTHONIOENCODING="cp1252", PYTHONUTF8="0"
    )
    assert done.returncode == 0, done.stderr
    assert "\\u0394ctb_labels.tif" in done.stdout
