"""What is copied from a session: a methods text that is complete, a script that runs as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_lightsam.plugin import inference
from napari_lightsam.plugin.sessions.script import as_python
from napari_lightsam.session import read_document
from napari_lightsam.session.checks import fingerprint_of
from napari_lightsam.session.methods import methods_text


@pytest.fixture(scope="module")
def saved(tmp_path_factory, nuclei, segmenter, make_desk):
    """Two planes with clicked objects, one found automatically, one by brush."""
    folder = tmp_path_factory.mktemp("saved")
    stack = np.stack([nuclei[0][:96, :96], nuclei[0][96:192, 96:192]])
    tifffile.imwrite(folder / "n.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "load", lambda name: segmenter)
        desk = make_desk()
        (image,) = desk.viewer.open(str(folder / "n.tif"), plugin="napari")
        image.axis_labels = ("z", "y", "x")
        desk.control.shown.use_image(image)
        desk.viewer.dims.set_current_step(0, 1)
        desk.finish()
        desk.control.segment_everything()
        desk.finish()
        for z, labels in enumerate((nuclei[1][:96, :96], nuclei[1][96:192, 96:192])):
            desk.viewer.dims.set_current_step(0, z)
            desk.finish()
            values, areas = np.unique(labels[labels > 0], return_counts=True)
            centre = np.argwhere(labels == values[areas.argmax()]).mean(axis=0)
            desk.control.single.replace_others = True
            desk.click(z, *centre)
            desk.commit()
        target = desk.target()
        target.selected_label = 90
        target.paint((0, 92, 92), 90)
        path = folder / "work.lightsam"
        desk.control.sessions.save(path)
        desk.run_until(lambda: not desk.control.sessions.is_busy)
        desk.control.close()
        desk.control.worker.join(10)
    return path


def test_the_script_runs_as_it_is_and_gives_the_same_labels(saved, tmp_path):
    document = read_document(saved)
    script = tmp_path / "again.py"
    script.write_text(as_python(document, saved), encoding="utf-8")
    compile(script.read_text(encoding="utf-8"), str(script), "exec")
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, env=environment)
    again = tifffile.imread(tmp_path / "n_labels.tif")
    np.testing.assert_array_equal(again, document.labels[document.target].data)
    assert "draw(" in script.read_text(encoding="utf-8")
    assert "segment_everything(" in script.read_text(encoding="utf-8")


def test_without_a_file_the_script_says_what_it_leaves_out(saved):
    script = as_python(read_document(saved))
    assert "Not in this script" in script
    assert "read_document" not in script
    compile(script, "script", "exec")


def test_the_methods_text_says_that_objects_were_changed_since_the_check(saved):
    document = read_document(saved)
    share = {"value": 0.9, "low": 0.74, "high": 0.97, "hits": 27, "total": 30}
    record = document.main
    place = [None] * record.data.ndim
    then = fingerprint_of(record.data, place)
    quality = {"seed": 1, "precision": share, "place": place, "fingerprint": then}
    (current, changed) = (
        methods_text(replace(document, labels=(replace(record, data=data, quality=quality),), target=0))
        for data in (record.data, np.where(record.data == record.data.max(), 0, record.data))
    )
    assert "27 of 30" in current
    assert "changed after that check" not in current
    assert "changed after that check" in changed


def test_the_methods_text_names_all_that_repeats_the_work(saved, segmenter):
    document = read_document(saved)
    record = document.labels[document.target]
    share = {"value": 0.9, "low": 0.74, "high": 0.97, "hits": 27, "total": 30}
    checked = replace(record, quality={"seed": 1, "precision": share, "recall": {"total": 0}})
    text = methods_text(replace(document, labels=(checked,), target=0, pixel_size_um=0.5))
    for part in (
        segmenter.weights_hash, "float32 by PyTorch", "0.5 um a pixel", "outlined from clicks and boxes",
        "found automatically", "1 drawn by hand", "27 of 30", "0.74 to 0.97", "BSD-3-Clause",
        "@software{napari_lightsam", "@inproceedings{kirillov2023segment",
    ):  # fmt: skip
        assert part in text, part


def test_the_methods_text_names_the_channels_that_the_model_saw(saved):
    document = read_document(saved)
    record = document.main
    assert "channel" not in methods_text(document)
    one = next(value for value, how in record.objects.items() if how["source"] == "prompt")
    how = record.objects[one] | {"inputs": [[0, 1], [0, 0]], "edited": True}
    alone = replace(record, data=np.where(record.data == one, one, 0), objects={one: how})
    text = methods_text(replace(document, labels=(alone,), target=0))
    assert "The model saw channel 1 of 'n' with channel 0 of 'n'" in text
    assert "There is 1 object: 1 outlined from clicks and boxes (1 point, 0 boxes). 1 of them was" in text


def test_objects_of_a_time_series_are_counted_at_each_time_point(saved):
    document = read_document(saved)
    data = np.zeros((3, 6, 6), np.int32)
    data[:, 0, 0], data[:2, 3, 3], data[1, 5, 1:4] = 1, 2, 7
    clicked = {"source": "prompt", "plane": [1, None, None], "prompt": {"points": [[5, 2, True]]}}
    objects = {1: {"source": "auto"}, 2: clicked | {"area": 1}, 7: clicked | {"area": 9}}
    record = replace(document.main, data=data, objects=objects, note={"role": "everything"})
    image = replace(document.image, axes={"0": "time", "1": "plane", "2": "plane"})
    text = methods_text(replace(document, images=(image,), labels=(record,), target=0))
    assert "There are 6 objects at 3 time points, each counted by itself: 2 outlined from clicks" in text
    assert "4 found automatically (2 points, 0 boxes). 1 of them was corrected" in text
