"""The folder that `lightsam evaluate --out` writes."""

import importlib.util
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

from napari_lightsam.train.metrics import match
from napari_lightsam.train.report import to_report, write_report
from napari_lightsam.train.scores import Evaluation, Example, ImageScore

LABELS = np.zeros((40, 60), np.int32)
LABELS[10:30, 10:30] = 1
LABELS[10:30, 40:50] = 2
FOUND = np.where(LABELS == 1, 1, 0)


def evaluation(image, *, proposals=None, proposed=None):
    score = ImageScore(
        "cells",
        "a",
        2,
        found=1,
        matchings=match(LABELS, FOUND),
        click_ious=(0.5,),
        click_predicted=(0.5,),
        corrected_ious=((0.75,),),
        box_ious=(0.8,),
        box_predicted=(0.85,),
        careless_ious=((0.7,),),
        found_ious=(1.0,),
        found_predicted=(0.9,),
        proposals=proposals,
        proposed=proposed,
        everything_seconds=1.25,
        click_seconds=0.01,
        box_seconds=0.02,
    )
    return Evaluation(
        "m",
        "0",
        "cpu",
        "float32",
        26.0,
        "all",
        "all",
        None,
        None,
        corrective_clicks=1,
        box_jitter=(0.0, 0.1),
        seed=0,
        images=(score,),
        worst=(Example(score, image, LABELS, FOUND),),
    )


def grey():
    return np.tile(np.linspace(0, 200, 60), (40, 1)).astype(np.uint8)


def test_the_folder_holds_figures_tables_curves_and_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluation(grey())
    written = write_report(result, tmp_path / "new" / "report")
    names = {
        "evaluation.json",
        "evaluation.md",
        "ap_curve.png",
        "clicks.png",
        "calibration.png",
        "worst_01.png",
    }
    assert {path.name for path in written} == names
    assert {path.name for path in (tmp_path / "new" / "report").iterdir()} == names  # nothing half written
    content = json.loads(written[0].read_text(encoding="utf-8"))
    assert content["overall"]["ap50"] == 0.5
    assert content["worst"] == [{"dataset": "cells", "name": "a", "msa": 0.5}]
    shown = re.findall(r"!\[.+\]\((.+)\)", written[1].read_text(encoding="utf-8"))
    assert set(shown) == names - {"evaluation.json", "evaluation.md"}


def test_a_picture_has_truth_in_green_what_was_found_in_magenta_and_agreement_in_white(tmp_path):
    pytest.importorskip("matplotlib")
    result = evaluation(grey())
    (example,) = result.worst
    moved = np.roll(FOUND, 3, axis=0)
    right = Example(example.score, grey(), LABELS, FOUND)
    for name, shown, colours in (
        ("agree", right, {(255, 255, 255), (0, 255, 0)}),
        ("moved", Example(example.score, grey(), LABELS, moved), {(255, 0, 255), (0, 255, 0)}),
    ):
        write_report(replace(result, images=(), worst=(shown,)), tmp_path / name)
        picture = np.asarray(Image.open(tmp_path / name / "worst_01.png"))
        assert picture.shape == (4 * 40, 4 * 60, 3)
        found = {tuple(int(v) for v in colour) for colour in np.unique(picture.reshape(-1, 3), axis=0)}
        assert colours <= found
        assert ((255, 0, 255) in found) == (name == "moved")
        assert tuple(picture[0, 0]) == (0, 0, 0)
        assert len(set(picture[2].ravel().tolist())) > 10  # the image is seen


def test_the_page_tells_every_figure_in_words():
    text = to_report(evaluation(grey(), proposals=3, proposed=1))
    for heading in (
        "Average precision",
        "Clicks and boxes",
        "Predicted against",
        "Proposals",
        "Times",
        "Worst",
    ):
        assert f"\n## {heading}" in text
    assert "| set | 1 click | +1 |" in text
    assert "| cells | 0.500 | 0.750 |" in text
    assert "| set | exact | 10% |" in text
    assert "| cells | 0.800 | 0.700 |" in text
    assert "2 masks" in text
    assert "mean absolute error 0.100" in text
    assert "| cells | 0.500 | 1.50 |" in text
    assert "| cells | 1.25 | - | 10.0 | 20.0 |" in text
    assert "cells/a: mSA 0.500, 2 true objects, 1 found" in text
    assert "![" not in text  # no picture was written


def test_a_model_without_a_proposal_head_says_so():
    assert "Not available: the model has no proposal head." in to_report(evaluation(grey()))


def test_what_was_not_measured_has_no_heading():
    only_boxes = Evaluation(
        "m",
        "0",
        "cpu",
        "float32",
        "true",
        "all",
        "all",
        None,
        None,
        corrective_clicks=3,
        box_jitter=(0.0,),
        seed=0,
        images=(ImageScore("cells", "a", 1, box_ious=(0.5,), box_predicted=(0.5,)),),
    )
    text = to_report(only_boxes)
    assert re.findall("## (.+)", text) == ["Clicks and boxes", "Predicted against true IoU", "Times"]
    assert "1 click" not in text


@pytest.fixture
def folder(tmp_path, nuclei):
    image, labels = nuclei
    tifffile.imwrite(tmp_path / "a.tif", image[:96, :96])
    tifffile.imwrite(tmp_path / "a_labels.tif", labels[:96, :96])
    return tmp_path


def run(*arguments):
    from napari_lightsam.cli import app

    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_the_command_prints_three_corrective_clicks_and_writes_the_report(folder, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    done = run(folder, "--object-size", 26, "--objects-per-image", 2, "--box-jitter", "0.1", "--out", out)
    assert done.exit_code == 0, done.output
    assert "+3 clicks" in done.stdout
    assert str(out / "evaluation.md") in done.stderr
    content = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert len(content["overall"]["click_curve"]) == 4
    assert content["box_jitter"] == [0, 0.1]
    assert content["overall"]["proposal_recall"] is not None
    assert (out / "worst_01.png").is_file()


def test_a_missing_matplotlib_is_told_before_any_work(folder, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else real(name, *rest)
    )
    done = run(folder, "--out", tmp_path / "report")
    assert done.exit_code == 2
    assert "pip install matplotlib" in done.stderr
    assert not (tmp_path / "report").exists()


def test_a_jitter_that_is_no_number_is_one_message(folder):
    done = run(folder, "--box-jitter", "little")
    assert done.exit_code == 2
    assert "--box-jitter is parts of a box's side" in done.stderr
