"""Quantising the encoder: what is measured, what is kept, what is refused."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.quantized import FILE
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.train import quantize as module
from napari_lightsam.train.quantize import Quantization, quantize

GOOD = Quantization("lightsam", "ab", 3, 9, 20_000_000, 6_000_000, 0.985, 0.93, "hard", 0.0, 1.2)

REFUSED = {
    "masks differ": ({"mean_iou": 0.97}, "IoU of 0.970"),
    "one image is bad": ({"worst_iou": 0.85}, "on hard only to 0.850"),
    "no faster": ({"speed": 1.0}, "no faster"),
    "nonsense": ({"mean_iou": float("nan")}, "IoU of nan"),
}


def test_a_good_one_has_no_problem():
    assert GOOD.problem == ""


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_worse_or_slower_is_refused_and_the_text_says_why(change, words):
    result = replace(GOOD, **change)
    assert words in result.problem
    assert f"not saved: {result.problem}" in result.to_text()
    assert "--force" in result.to_text()


def test_without_nncf_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match="pip install nncf"):
        next(quantize("lightsam"))


def test_images_of_one_name_in_two_sets_are_two_images(tmp_path, nuclei, monkeypatch):
    for name, part in (("worse", np.s_[:128, :128]), ("better", np.s_[:128, 128:])):
        (tmp_path / name).mkdir()
        for kind, array in zip(("image", "labels"), nuclei, strict=True):
            tifffile.imwrite(tmp_path / name / f"{kind}.tif", array[part])
    runtime = SimpleNamespace(device=None, propose=None, decode=None)
    monkeypatch.setattr(module, "_load_nncf", lambda: None)
    monkeypatch.setattr(module, "OpenVinoRuntime", lambda *_: runtime)
    monkeypatch.setattr(module, "_Recorder", lambda _: SimpleNamespace(frames=[None], device=None))
    monkeypatch.setattr(
        module, "_quantized", lambda *_: lambda place: (place / FILE).with_suffix(".bin").touch()
    )
    monkeypatch.setattr(module, "_masks", lambda _, case: [])
    agreements = iter([0.8, 1.0])
    monkeypatch.setattr(module, "_agreement", lambda *_: next(agreements))
    monkeypatch.setattr(module, "_ap_change", lambda *_: iter(()))
    monkeypatch.setattr(module, "_speed", lambda *_: 1.2)
    found = drain(quantize("lightsam", tmp_path))
    assert found.images == 2
    assert found.mean_iou == pytest.approx(0.9)
    assert found.worst_iou == 0.8


@pytest.fixture
def folder(tmp_path, nuclei):
    """Two tiny images with ground truth."""
    image, labels = nuclei
    for name, part in (("left", np.s_[:128, :128]), ("right", np.s_[:128, 128:])):
        tifffile.imwrite(tmp_path / f"{name}.tif", image[part])
        tifffile.imwrite(tmp_path / f"{name}_labels.tif", labels[part])
    return tmp_path


@pytest.fixture
def nncf():
    pytest.importorskip("openvino", reason="OpenVINO has no wheel for this platform", exc_type=ImportError)
    from napari_lightsam.engine.openvino import load_silently

    try:
        return load_silently("nncf")
    except ImportError:
        pytest.skip("NNCF is not installed")


def test_the_command_keeps_an_encoder_that_precision_int8_then_uses(
    nncf, folder, tmp_path, monkeypatch, nuclei, segmenter
):
    from napari_lightsam import load_segmenter
    from napari_lightsam.cli import app

    monkeypatch.setenv("LIGHTSAM_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["quantize", "--data", str(folder), "--force"])
    assert done.exit_code == 0, done.output
    assert "over 2 images" in done.output
    assert "AP at IoU .5" in done.output
    assert str(tmp_path / "cache" / "int8") in done.output
    coarse = load_segmenter(precision="int8")
    assert (coarse.precision, coarse.runtime_name, coarse.device) == ("int8", "openvino", "cpu")
    image, labels = nuclei
    inside = labels == np.bincount(labels[labels > 0]).argmax()
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    masks = [
        one.predict(one.embed(image, object_size=26), boxes=box).to_array() for one in (segmenter, coarse)
    ]
    assert (masks[0] & masks[1]).sum() > 0.8 * (masks[0] | masks[1]).sum()


def test_a_folder_without_images_is_refused(nncf, tmp_path):
    with pytest.raises(FileError):
        for _ in quantize("lightsam", tmp_path):
            pass
