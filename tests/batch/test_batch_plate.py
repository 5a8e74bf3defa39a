"""A folder of mixed real files: exactly the right results, tables and report, however often killed."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import signal
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from skimage.measure import regionprops

import napari_lightsam
from napari_lightsam.batch import BatchReport, Recipe, segment_many, write_recipe
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD
from napari_lightsam.batch.lock import LOCK
from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.progress import drain
from napari_lightsam.errors import FileError
from napari_lightsam.samples import read_sample

RECIPE = Recipe(BatchSettings(EverythingConfig(object_size=26), channel=0, z="max"), outputs=("roi",))
ENDINGS = ("_labels.tif", "_objects.csv", "_labels.json", "_rois.zip")
GOOD = ("A/well", "B/well", "histology", "stack", "tissue", "wells/Ω blank")
BROKEN = ("empty.tif", "lying.tif", "no image.png", "pixels.tif", "truncated.tif")
CALIBRATED = {"A/well.ome.tif": (0.5, 0.25), "B/well.tif": (0.325, 0.325)}


def crop(name: str, size: int = 96) -> np.ndarray:
    return read_sample(name)[..., 40 : 40 + size, 300 : 300 + size]


def mixed(folder: Path) -> dict[str, list[np.ndarray]]:
    """Write the files; returns the raw channels that are to be measured, by image."""
    for name in ("A", "B", "wells"):
        (folder / name).mkdir(parents=True)
    grey = crop("nuclei_fluorescence")
    two = np.stack([grey.astype(np.uint16) * 7, np.flipud(grey).astype(np.uint16)])
    sizes = {"PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}, **sizes}
    tifffile.imwrite(folder / "A/well.ome.tif", two, photometric="minisblack", metadata=metadata)
    resolution = (1 / 0.325, 1 / 0.325)
    tifffile.imwrite(folder / "B/well.tif", grey, imagej=True, resolution=resolution, metadata={"unit": "um"})
    stack = np.stack([grey // 2, grey, grey // 3]).astype(np.uint8)
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    colour = read_sample("nuclei_histology")[:96, :96]
    Image.fromarray(colour).save(folder / "histology.png")
    tissue = read_sample("nuclei_tissue_16bit")[:96, :96]
    assert tissue.dtype == np.uint16
    tifffile.imwrite(folder / "tissue.tif", tissue)
    tifffile.imwrite(folder / "wells/Ω blank.tif", np.full((64, 64), 9, np.uint8))
    damage(folder, grey)
    return {
        "A/well.ome.tif": list(two), "B/well.tif": [grey], "stack.tif": [stack.max(axis=0)],
        "histology.png": [colour[..., i] for i in range(3)], "tissue.tif": [tissue], "wells/Ω blank.tif": [],
    }  # fmt: skip


def damage(folder: Path, grey: np.ndarray) -> None:
    (folder / "empty.tif").write_bytes(b"")
    (folder / "no image.png").write_text("<html><script>alert(1)</script>")
    header = struct.pack(">IIBBBBB", 900_000, 900_000, 16, 0, 0, 0, 0)  # 1.6 TB
    (folder / "lying.tif").write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 90
    )
    stream = io.BytesIO()
    tifffile.imwrite(stream, grey, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(stream.getvalue())) as tif:
        offset = tif.pages[0].dataoffsets[0]
    content = bytearray(stream.getvalue())
    content[offset : offset + 40] = b"\xff" * 40
    (folder / "pixels.tif").write_bytes(content)
    tifffile.imwrite(folder / "truncated.tif", grey)
    whole = (folder / "truncated.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[np.ndarray]]]:
    folder = tmp_path_factory.mktemp("plate") / "data"
    return folder, mixed(folder)


@pytest.fixture(scope="module")
def done(plate, segmenter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BatchReport]:
    """One run with the embedded model, from a recipe in a file."""
    folder, _ = plate
    out = tmp_path_factory.mktemp("results") / "out"
    write_recipe(out.parent / "recipe.yaml", RECIPE)
    before = hashes(folder)
    report = drain(segment_many([folder], out, out.parent / "recipe.yaml", segmenter=segmenter))
    assert hashes(folder) == before
    return out, report


def test_every_file_has_its_results_and_the_broken_ones_their_reason(done) -> None:
    out, report = done

    expected = {stem + end for stem in GOOD for end in ENDINGS} | {*BATCH_OUTPUTS, BATCH_RECORD}
    assert set(hashes(out)) == expected
    failed = {o.image: o.message for o in report.outcomes if o.status == "failed"}
    assert tuple(sorted(failed)) == BROKEN
    assert "0 bytes" in failed["empty.tif"]
    assert "declares an image of" in failed["lying.tif"]
    assert report.exit_code == 1
    assert report.problems == ()
    images = pd.read_csv(out / "images.csv", keep_default_na=False)
    assert dict(zip(images["image"], images["status"], strict=True)) == {
        o.image: "failed" if o.status == "failed" else "done" for o in report.outcomes
    }
    assert images.set_index("image")["message"].to_dict() == {o.image: o.message for o in report.outcomes}
    blank = images[images["image"] == "wells/Ω blank.tif"].iloc[0]
    assert (blank["n_objects"], blank["flags"][:21]) == ("0", "No objects were found")


def test_the_table_of_all_objects_is_what_regionprops_measures(plate, done) -> None:
    out, _ = done
    table = pd.read_csv(out / "objects.csv")
    names = {1: [""], 2: ["_DAPI", "_GFP"], 3: ["_red", "_green", "_blue"]}
    for image, channels in plate[1].items():
        rows = table[table["image"] == image].set_index("label")
        stem = image.removesuffix(".ome.tif") if ".ome." in image else image.rpartition(".")[0]
        labels = tifffile.imread(out / f"{stem}_labels.tif")
        assert list(rows.index) == list(range(1, labels.max() + 1))
        if not channels:
            continue
        assert len(rows) >= 2, image
        row_size, column_size = CALIBRATED.get(image, (np.nan, np.nan))
        for region in regionprops(labels):
            row = rows.loc[region.label]
            assert row["area_px"] == region.area
            np.testing.assert_allclose(row["area_um2"], region.area * row_size * column_size, rtol=1e-6)
            assert (row["centroid_y"], row["centroid_x"]) == pytest.approx(region.centroid)
            for end, channel in zip(names[len(channels)], channels, strict=True):
                measured = [row[f"intensity_{key}{end}"] for key in ("mean", "sd", "min", "max", "sum")]
                (seen,) = regionprops((labels == region.label).astype(np.uint8), channel.astype(float))
                values = seen.image_intensity[seen.image]
                expected = [seen.intensity_mean, values.std(), seen.intensity_min, seen.intensity_max]
                expected.append(values.sum())
                assert measured == pytest.approx(expected, rel=1e-9)
        assert set(rows["source"]) == {"auto"}
        assert rows["score"].between(0, 1).all()
        assert rows["touches_border"].any()
        expected_size = np.sqrt(row_size * column_size)
        np.testing.assert_allclose(rows["pixel_size_um"], expected_size, rtol=1e-9)
    assert set(table["plane"].astype(str)) == {"0", "max"}


def test_a_colour_image_gives_the_same_objects_with_and_without_a_channel(
    plate, done, segmenter, tmp_path: Path
) -> None:
    recipe = Recipe(BatchSettings(EverythingConfig(object_size=26)))
    drain(segment_many([plate[0] / "histology.png"], tmp_path, recipe, segmenter=segmenter))

    name = "histology_labels.tif"
    assert tifffile.imread(done[0] / name).max() > 5
    np.testing.assert_array_equal(tifffile.imread(done[0] / name), tifffile.imread(tmp_path / name))


@pytest.mark.parametrize(("channel", "fitting"), [(1, ["A/well", "histology"]), ("GFP", ["A/well"])], ids=str)
def test_images_without_the_chosen_channel_fail_alone(plate, tmp_path: Path, channel, fitting: list) -> None:
    from thresholder import Thresholder

    recipe = Recipe(BatchSettings(EverythingConfig(object_size=26), channel=channel, z="max"))
    report = drain(segment_many([plate[0]], tmp_path / "out", recipe, segmenter=Thresholder()))

    done = [o.image.partition(".")[0] for o in report.outcomes if o.status == "written"]
    assert sorted(done) == fitting
    messages = {o.image: o.message for o in report.outcomes if o.status == "failed"}
    assert len(messages) == len(GOOD) + len(BROKEN) - len(fitting)
    assert "B/well.tif has no channel" in messages["B/well.tif"]
    assert report.exit_code == 1


def test_a_channel_that_no_image_has_is_refused_before_any_work(plate, tmp_path: Path) -> None:
    from thresholder import Thresholder

    model = Thresholder()
    recipe = Recipe(BatchSettings(EverythingConfig(object_size=26), channel="Cy5", z="max"))
    with pytest.raises(FileError, match="no channel 'Cy5'"):
        drain(segment_many([plate[0]], tmp_path / "out", recipe, segmenter=model))
    assert model.calls == 0
    assert not (tmp_path / "out").exists()


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.links: list[str] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br", "line", "rect"):
            self.open.append(tag)
        self.scripts += tag == "script"
        self.pictures += [value or "" for name, value in attrs if tag == "img" and name == "src"]
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_report_shows_everything_and_needs_nothing_else(done, segmenter) -> None:
    out, report = done
    text = (out / "report.html").read_text(encoding="utf-8")
    page = _Page(text)

    assert page.open == []
    assert page.scripts == 0
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert len(page.pictures) == len(GOOD)
    for picture in page.pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as shown:
            assert max(shown.size) <= 200
    places = [
        text.index(part) for part in (">Failed: 5<", "Look at these first", "<svg", ">Images<", ">Settings<")
    ]
    assert places == sorted(places)
    assert places[1] < text.index("No objects were found") < places[2]
    assert segmenter.weights_hash in text
    assert "channel: 0" in text
    cited = text[text.index("Please cite") :]
    for part in (
        "The napari-lightsam developers", "lightweight Segment Anything for microscopy in napari",
        f"Version {napari_lightsam.__version__}", "Kirillov, Alexander and Mintun, Eric", "@software{",
    ):  # fmt: skip
        assert part in cited
    assert "CITATION.cff" not in text
    objects = sum(o.n_objects or 0 for o in report.outcomes)
    assert f'<b class="">{objects:,}</b>objects' in text
    outlined = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(page.pictures[1].partition(",")[2]))).convert("RGB")
    )
    assert (outlined == (0, 255, 140)).all(axis=-1).sum() > 50


STOPPED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {tests!r})
from thresholder import Thresholder
engine = {{  # without torch, which takes seconds to import
    "segmenter": SimpleNamespace(load_segmenter=lambda *_, **__: Thresholder()),
    "stack": SimpleNamespace(StackSegmentation=type(None)),
}}
sys.modules |= {{f"napari_lightsam.engine.{{name}}": module for name, module in engine.items()}}
replace = os.replace
def replaced(part, path):
    if Path(path).name == {before!r}:
        os.kill(os.getpid(), {signal})
    replace(part, path)
    if Path(path).name == {after!r}:
        os.kill(os.getpid(), {signal})
os.replace = replaced
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in tests that run in the background
sys.argv = ["lightsam", "segment", {data!r}, "--out", {out!r}, "--recipe", {recipe!r}]
from napari_lightsam.cli import main
main()
"""
STOPS = (  # between the names of one result, and among the tables of the batch
    ("SIGINT", "well_labels.json", ""), ("SIGKILL", "well_objects.csv", ""),
    ("SIGINT", "", "objects.csv"), ("SIGKILL", "images.csv", ""),
)  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_stopped_and_killed_again_and_again_ends_with_the_same_files(
    plate, tmp_path: Path
) -> None:
    from thresholder import Thresholder

    folder, _ = plate
    before = hashes(folder)
    whole = drain(segment_many([folder], tmp_path / "whole", RECIPE, segmenter=Thresholder()))
    write_recipe(tmp_path / "recipe.yaml", RECIPE)
    for name, before_name, after_name in STOPS:
        number = getattr(signal, name)
        code = STOPPED.format(
            tests=str(Path(__file__).parents[1]), before=before_name, after=after_name, data=str(folder),
            out=str(tmp_path / "out"), recipe=str(tmp_path / "recipe.yaml"), signal=int(number),
        )  # fmt: skip
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        if number == signal.SIGINT:
            assert ended.returncode == 130, ended.stderr
            assert "Stopped. What is finished is in" in ended.stderr
            assert not [path for path in (tmp_path / "out").rglob(".*") if path.suffix != ".pending"]
        else:
            assert ended.returncode == -number, ended.stderr
    assert (tmp_path / "out" / LOCK).exists()

    report = drain(segment_many([folder], tmp_path / "out", RECIPE, segmenter=Thresholder()))

    assert report.exit_code == whole.exit_code == 1
    assert "skipped" in {o.status for o in report.outcomes}
    expected, found = hashes(tmp_path / "whole"), hashes(tmp_path / "out")
    for name in ("report.html", BATCH_RECORD):  # one has the time, the other what was there before
        del expected[name], found[name]
    assert found == expected
    assert hashes(folder) == before
    shown = re.findall(
        '<b class="">([0-9,]+)</b>objects', (tmp_path / "out" / "report.html").read_text("utf-8")
    )
    assert shown == [str(sum(o.n_objects or 0 for o in whole.outcomes))]


def test_the_public_names_lead_here() -> None:
    assert napari_lightsam.segment_many is segment_many
    assert napari_lightsam.Recipe is Recipe
