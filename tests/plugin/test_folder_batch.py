"""A folder from the widget: the recipe of the settings, progress, cancelling, going on, the result."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog

from napari_lightsam.batch import BatchSettings, Recipe, read_recipe, write_recipe
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.plugin import folder
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.recipes import recipe_from
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.widget.dock import LightSamWidget
from napari_lightsam.plugin.worker import Lane
from thresholder import Thresholder, write

if TYPE_CHECKING:
    from pathlib import Path


class Gated(Thresholder):
    """Waits before its second image."""

    gate = threading.Event()

    def everything(self, plane, config, *, rgb):
        while self.calls == 1 and not self.gate.wait(0.01):
            yield from ()
        return (yield from super().everything(plane, config, rgb=rgb))


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """A folder of two images and one that is none; every run has a model of its own."""
    monkeypatch.setattr(folder, "load", lambda name, cache: Thresholder())
    for name in ("a.tif", "sub/b.tif"):
        write(tmp_path / "images" / name)
    (tmp_path / "images" / "broken.tif").write_bytes(b"II*\0")
    return tmp_path / "images"


def choose(control, **config):
    choices = control.everything.choices
    control.everything.choices = replace(choices, config=replace(choices.config, **config))


def test_the_recipe_is_what_the_tool_would_do_with_the_image_on_display(desk, tmp_path):
    desk.open(np.zeros((4, 3, 40, 40), np.uint8), axis_labels=("z", "c", "y", "x"))
    desk.viewer.dims.set_current_step(0, 2)
    desk.viewer.dims.set_current_step(1, 1)
    desk.control.shown.use_settings(Settings("mobile_sam", 26.0))
    choose(desk.control, mode="grid", min_size=8.0)
    desk.control.pixel_size_um = 0.5

    desk.control.batch.save_recipe(tmp_path / "r.yaml")
    assert desk.control.status == f"The recipe was written to {tmp_path / 'r.yaml'}."

    recipe = read_recipe(tmp_path / "r.yaml")
    assert recipe == recipe_from(desk.control)
    assert recipe.model == "mobile_sam"
    assert recipe.settings.config == EverythingConfig(mode="grid", object_size=26.0, min_size=8.0)
    assert (recipe.settings.z, recipe.settings.channel, recipe.settings.link) == (2, 1, False)
    assert recipe.settings.pixel_size == (0.5, 0.5)
    desk.control.everything.choices = replace(desk.control.everything.choices, scope=Scope.STACK)
    stacked = recipe_from(desk.control, overlay=True)
    assert (stacked.settings.link, stacked.settings.z, stacked.overlay) == (True, None, True)


def stack_of_channels(desk):
    desk.open(np.zeros((4, 3, 40, 40), np.uint8), axis_labels=("z", "c", "y", "x"))


def stack_over_time(desk):
    desk.open(np.zeros((5, 4, 40, 40), np.uint8), axis_labels=("t", "z", "y", "x"))


@pytest.mark.parametrize(
    ("opened", "recipe"),
    [
        (stack_of_channels, {"z": 3, "channel": 2, "pixel_size": (0.25, 0.25)}),
        (stack_of_channels, {"z": 0, "channel": (0, 2)}),
        (stack_of_channels, {"link": True, "channel": 1}),
        (stack_over_time, {"z": 2, "time": 4}),
        (stack_over_time, {"link": True, "time": 1}),
    ],
)
def test_a_recipe_that_is_loaded_is_the_one_that_would_be_saved(desk, tmp_path, notes, opened, recipe):
    config = EverythingConfig(object_size=18.0, mode="grid", balance=0.3, max_size=40.0, keep_border=False)
    wanted = Recipe(BatchSettings(config, **recipe), "mobile_sam", ("overlay",))
    write_recipe(tmp_path / "r.yaml", wanted)
    opened(desk)
    told = []
    desk.control.settings_taken.connect(lambda: told.append(True))

    desk.control.batch.load_recipe(tmp_path / "r.yaml")
    assert recipe_from(desk.control, overlay=desk.control.batch.folder.overlay) == wanted
    assert told
    assert notes == [("info", "Model and settings are as r.yaml says.")]

    write_recipe(tmp_path / "r.yaml", Recipe())
    desk.control.batch.load_recipe(tmp_path / "r.yaml")
    now = recipe_from(desk.control, overlay=desk.control.batch.folder.overlay)
    assert (now.settings.config, now.model, now.outputs) == (EverythingConfig(), "lightsam", ())
    assert not now.settings.link


def test_what_a_recipe_says_beyond_the_image_and_the_dock_is_named(desk, tmp_path, notes):
    settings = BatchSettings(EverythingConfig(object_size=18.0), z=9, channel="DAPI", device="cpu")
    write_recipe(tmp_path / "r.yaml", Recipe(settings, "no/such/model.pt", ("roi", "overlay")))
    desk.open(np.zeros((4, 40, 40), np.uint8), axis_labels=("z", "y", "x"))
    before = desk.viewer.dims.current_step
    desk.control.batch.load_recipe(tmp_path / "r.yaml")
    ((kind, text),) = notes
    assert kind == "warning"
    said = "model: no/such/model.pt; channel: DAPI; z: 9; device: cpu; outputs: roi"
    assert f"as r.yaml says, but for {said}: " in text
    assert desk.control.shown.settings == Settings("lightsam", 18.0)
    assert desk.viewer.dims.current_step == before


def test_a_recipe_needs_no_image_and_one_that_is_broken_changes_nothing(desk, tmp_path, notes):
    (tmp_path / "r.yaml").write_text("object_size: 30\npixel_size: 0.5\nlink: true\n")
    desk.control.batch.load_recipe(tmp_path / "r.yaml")
    assert desk.control.shown.settings.object_size == 30
    assert desk.control.everything.choices.scope is Scope.PLANE
    assert "but for link: True; pixel_size: [0.5, 0.5]: " in notes.pop()[1]

    (tmp_path / "r.yaml").write_text("object_size: 20\nmode: sideways\n")
    desk.control.batch.load_recipe(tmp_path / "r.yaml")
    assert desk.control.shown.settings.object_size == 30
    assert "line 2" in notes.pop()[1]
    desk.control.batch.load_recipe(tmp_path / "none.yaml")
    assert "cannot be read" in notes.pop()[1]


def test_all_time_points_are_refused_as_a_batch_takes_one_of_each_file(desk, tmp_path, notes):
    desk.open(np.zeros((5, 40, 40), np.uint8), axis_labels=("t", "y", "x"))
    desk.viewer.dims.set_current_step(0, 3)
    choices = desk.control.everything.choices
    desk.control.everything.choices = replace(choices, scope=Scope.STACK)
    desk.control.batch.choose(source=tmp_path)
    assert not desk.control.batch.start()
    desk.control.batch.save_recipe(tmp_path / "r.yaml")
    assert not (tmp_path / "r.yaml").exists()
    assert len(notes) == 2
    assert "lightsam segment --time" in notes[0][1]
    desk.control.everything.choices = replace(choices, scope=Scope.PLANE)
    assert recipe_from(desk.control).settings.time == 3


def test_all_planes_of_a_stack_over_time_are_linked_at_the_time_point_on_display(desk):
    desk.open(np.zeros((5, 3, 40, 40), np.uint8), axis_labels=("t", "z", "y", "x"))
    desk.viewer.dims.set_current_step(0, 4)
    desk.control.everything.choices = replace(desk.control.everything.choices, scope=Scope.STACK)
    settings = recipe_from(desk.control).settings
    assert (settings.time, settings.z, settings.link) == (4, None, True)


@pytest.mark.parametrize(
    ("name", "results"),
    [
        ("2026.01.15", "2026.01.15_segmented"),
        ("plate.zarr", "plate_segmented"),
        ("plate.csv", "plate_segmented"),
    ],
)
def test_folders_whose_names_differ_behind_a_point_have_results_of_their_own(tmp_path, name, results):
    source = tmp_path / name
    if name.endswith(".csv"):
        source.touch()
    else:
        source.mkdir()
    assert folder.Folder(source).results == tmp_path / results


def test_a_folder_is_segmented_and_a_result_is_shown(desk, images, notes):
    batch, steps = desk.control.batch, []
    batch.progress.connect(steps.append)
    assert not batch.start()
    batch.choose(source=images)
    assert batch.start()
    desk.finish(Lane.BATCH)

    out = images.with_name("images_segmented")
    assert [o.status for o in batch.report.outcomes] == ["written", "failed", "written"]
    assert set(pd.read_csv(out / "objects.csv")["image"]) == {"a.tif", "sub/b.tif"}
    assert any(step is not None and step.stage.startswith("a.tif") for step in steps)
    assert steps[-1] is None
    assert any(kind == "warning" and "1 images failed" in text for kind, text in notes)
    batch.show(batch.report.outcomes[0])
    assert [layer.name for layer in desk.viewer.layers] == ["a.tif", "Objects in a.tif"]
    np.testing.assert_array_equal(desk.viewer.layers[1].data, tifffile.imread(out / "a_labels.tif"))
    opened = []
    batch.opened.connect(opened.append)
    batch.show(replace(batch.report.outcomes[2], flags=("segment it with --object-size 9",)))
    assert [layer.name for layer in desk.viewer.layers if layer.visible] == [
        "sub/b.tif",
        "Objects in sub/b.tif",
    ]
    assert [image.name for image in opened] == ["sub/b.tif"]
    assert desk.control.status == "sub/b.tif: 9 objects. ⚠ segment it with object size 9"


def test_a_cancelled_folder_keeps_what_is_finished_and_goes_on(desk, images, monkeypatch):
    batch, model = desk.control.batch, Gated()
    model.gate = threading.Event()
    monkeypatch.setattr(folder, "load", lambda name, cache: model)
    batch.choose(source=images)
    batch.progress.connect(lambda step: step and "b.tif: reading" in step.stage and batch.cancel())
    batch.start()
    desk.run_until(lambda: not batch.is_running)
    model.gate.set()
    desk.control.worker.submit(Lane.EDIT, iter_nothing(), lambda _: None, lambda _: None)
    desk.finish()
    assert batch.report is None

    monkeypatch.setattr(folder, "load", lambda name, cache: Thresholder())
    batch.progress.disconnect()
    batch.start()
    desk.finish(Lane.BATCH)
    assert [o.status for o in batch.report.outcomes] == ["skipped", "failed", "written"]
    assert desk.control.status.startswith("2 images done, 1 failed. 'Open report' shows them;")


def iter_nothing():
    """Work that is done at once."""
    yield from ()


def test_the_section_offers_folder_progress_report_and_images(tiny, qtbot, images):
    widget = LightSamWidget(ViewerModel())
    qtbot.addWidget(widget)
    widget.show()
    section = widget.batch
    assert not section.inner.isVisible()
    section.toggle.click()
    assert section.inner.isVisible()
    assert not section.button.isEnabled()
    widget.controller.batch.choose(source=images)
    assert str(images.with_name("images_segmented")) in section.where.text()
    section.overlay.click()
    section.button.click()
    assert section.row.isVisible()
    assert not section.button.isVisible()
    qtbot.waitUntil(lambda: widget.controller.batch.report is not None, timeout=60_000)
    assert section.button.isVisible()
    assert section.report_button.isEnabled()
    assert [section.show_combo.itemText(i) for i in range(3)] == [
        "show an image ...",
        "a.tif: 9",
        "sub/b.tif: 9",
    ]
    assert (images.with_name("images_segmented") / "sub" / "b_overlay.png").exists()
    section.show_combo.setCurrentIndex(2)
    section.show_combo.activated.emit(2)
    assert "Objects in sub/b.tif" in widget.viewer.layers
    widget.shut_down()
    assert widget.controller.worker.join(10)


def test_the_dock_shows_the_settings_of_a_recipe_that_was_loaded(qtbot, tmp_path, monkeypatch):
    checkpoint = tmp_path / "ours.safetensors"
    checkpoint.touch()
    (tmp_path / "r.yaml").write_text(
        "model: ours.safetensors\nobject_size: 18\nmode: grid\nmax_size: 40\npixel_size: 0.5\n"
        "outputs: [overlay]\n"
    )
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "r.yaml"), ""))
    viewer = ViewerModel()
    viewer.add_image(np.zeros((40, 40), np.uint8))
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    widget.batch.load_button.click()
    assert widget.models.combo.currentText() == "ours.safetensors"
    assert (widget.size_row.pixels, widget.everything.max_size.pixels) == (18, 40)
    assert widget.everything.mode.currentData() == "grid"
    assert widget.pixel_box.value() == 0.5
    assert widget.batch.overlay.isChecked()
    widget.shut_down()
    assert widget.controller.worker.join(10)
