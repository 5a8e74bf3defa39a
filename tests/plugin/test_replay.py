"""Work is repeated from its file: the same pixels by the same computation, nearly so by another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_lightsam.cli import app
from napari_lightsam.engine.progress import drain
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.objects.made import Made
from napari_lightsam.plugin.sessions.replay import origin_of, replay
from napari_lightsam.session import ImageRecord, LabelRecord, read_document, write_document


@pytest.fixture(scope="module")
def work(tmp_path_factory, nuclei, segmenter, make_desk):
    """Saved work: everything in one layer, clicked and brushed objects in another, by the real model."""
    folder = tmp_path_factory.mktemp("work")
    image = nuclei[0][:128, :128]
    tifffile.imwrite(folder / "nuclei.tif", image)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "load", lambda name: segmenter)
        desk = make_desk()
        (layer,) = desk.viewer.open(str(folder / "nuclei.tif"), plugin="napari")
        desk.control.shown.use_image(layer)
        desk.finish()
        assert desk.control.segment_everything()
        desk.finish()
        desk.control.results.target = None
        centres = [np.argwhere(nuclei[1][:128, :128] == v).mean(axis=0) for v in big(nuclei)[2:5]]
        for number, centre in enumerate(centres):
            desk.click(*centre)
            if not number:
                desk.control.single.cycle(1)
            desk.commit()
        target = desk.target()
        target.selected_label = 2
        target.paint(tuple(int(v) for v in centres[1]), 0)
        target.selected_label = 50
        target.paint((3, 3), 50)
        path = folder / "work.lightsam"
        desk.control.sessions.save(path)
        desk.run_until(lambda: not desk.control.sessions.is_busy)
        desk.control.close()
        desk.control.worker.join(10)
    return path


def big(nuclei):
    """Labels of whole nuclei in the corner; the third to fifth lie far apart."""
    part = nuclei[1][:128, :128]
    values, areas = np.unique(part, return_counts=True)
    return [v for v, a in zip(values, areas, strict=True) if v and a > 150]


def test_the_same_computation_gives_the_same_pixels_and_brush_work_is_kept(work, segmenter):
    document = read_document(work)
    assert len(document.labels) == 2
    result = drain(replay(document, work, lambda name: segmenter))
    assert result.differences == ()
    assert result.identical
    origins = {(one.layer, one.label): one.origin for one in result.outcomes}
    assert [origins[1, value] for value in (1, 2, 3, 50)] == ["made again", "edited", "made again", "painted"]
    assert sum(origin == "made again" for (layer, _), origin in origins.items() if layer == 0) > 3
    said = "\n".join(result.describe())
    assert "Bit-identical" in said
    assert "Kept as pixels, edited: 1 (2)." in said


def clicked(work, path):
    """The work without what everything mode found, as a file of its own."""
    document = read_document(work)
    write_document(path, replace(document, labels=document.labels[1:], target=0))
    return path


def test_another_precision_is_matched_and_said_so(work, tmp_path):
    work = clicked(work, tmp_path / "clicked.lightsam")
    out = tmp_path / "again.tif"
    done = CliRunner().invoke(app, ["replay", str(work), "--out", str(out), "--precision", "bfloat16"])
    assert "precision: float32 then, bfloat16 now" in done.output
    assert "Matched: " in done.output
    assert done.exit_code == (1 if "differs: IoU" in done.output else 0)
    again, stored = tifffile.imread(out), read_document(work).labels[0].data
    assert np.mean((again > 0) == (stored > 0)) > 0.99


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("again.xyz", [], "does not say its format"),
        ("there.tif", [], "is there already. Use --overwrite"),
        ("nuclei.tif", ["--overwrite"], "which is the input"),
        ("linked.tif", ["--overwrite"], "which is the input"),
    ],
)
def test_an_output_is_refused_before_anything_is_made_again(work, tmp_path, monkeypatch, name, more, message):
    (tmp_path / "there.tif").write_text("mine")
    (tmp_path / "linked.tif").symlink_to(work.parent / "nuclei.tif")
    out = work.parent / name if name == "nuclei.tif" else tmp_path / name
    before = out.read_bytes() if out.exists() else None
    monkeypatch.setattr("napari_lightsam.plugin.sessions.replay.replay", pytest.fail)
    done = CliRunner().invoke(app, ["replay", str(work), "--out", str(out), *more])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())
    assert (out.read_bytes() if out.exists() else None) == before


def test_an_object_that_comes_out_differently_is_named(work, tmp_path, segmenter):
    document = read_document(clicked(work, tmp_path / "clicked.lightsam"))
    document.labels[0].objects[3]["prompt"]["points"][0][:2] = [
        2.0,
        120.0,
    ]  # as if somewhere else was clicked
    path = tmp_path / "other.lightsam"
    write_document(path, document)
    result = drain(replay(read_document(path), path, lambda name: segmenter))
    assert [one.label for one in result.missed] == [3]
    assert not result.identical


def test_a_recorded_file_of_weights_is_never_loaded_by_itself(work, tmp_path):
    document = read_document(clicked(work, tmp_path / "clicked.lightsam"))
    for how in document.labels[0].objects.values():
        how["model"] = "/tmp/evil.pt"
    path = tmp_path / "evil.lightsam"
    write_document(path, document)
    done = CliRunner().invoke(app, ["replay", str(path)])
    assert done.exit_code == 2
    assert "Give its weights with --model" in done.output


@pytest.mark.parametrize(
    ("changes", "shape", "origin"),
    [
        pytest.param({}, (6, 8), "made again", id="a click"),
        pytest.param({}, (3, 8), "not recorded", id="a click in a part of the image"),
        pytest.param({"prompt": None}, (6, 8), "not recorded", id="no prompt"),
        pytest.param({"source": "propagated"}, (6, 8), "propagated", id="followed through planes"),
        pytest.param({"source": "manual"}, (6, 8), "painted", id="drawn"),
        pytest.param({"source": "auto"}, (6, 8), "not recorded", id="a run without its settings"),
        pytest.param({"edited": True}, (6, 8), "edited", id="brushed"),
    ],
)
def test_what_cannot_be_made_again_is_kept_and_called_by_its_reason(changes, shape, origin):
    prompt = {"points": [[1.0, 2.0, True]], "box": None}
    how = {"source": "prompt", "prompt": prompt, "plane": [None, None], "model": "lightsam"} | changes
    record = LabelRecord(name="a", data=np.ones(shape, np.int32), objects={1: how})
    image = ImageRecord(name="a", shape=(6, 8), dtype="uint8")
    assert origin_of(1, Made.from_plain(how), record, image) == origin
