"""Objects leave for other programs by one button, without going through napari's menus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from qtpy.QtWidgets import QFileDialog

from napari_lightsam.formats.convert import read_objects
from napari_lightsam.plugin.widget.series import SessionRow


@pytest.fixture
def cells(desk, tmp_path):
    """An image with a file, and one object saved in it."""
    tifffile.imwrite(tmp_path / "cells.tif", np.zeros((40, 40), np.uint8))
    (image,) = desk.viewer.open(str(tmp_path / "cells.tif"), plugin="napari")
    desk.control.shown.use_image(image)
    desk.finish()
    desk.click(20, 20)
    desk.commit()
    return image


def wait_for(desk):
    desk.run_until(lambda: not desk.control.sessions.is_saving)


@pytest.mark.parametrize(
    ("typed", "chosen", "made"),
    [("a", "roi", "a.zip"), ("a.geojson", "roi", "a.geojson"), ("a", "csv", "a.csv"), ("a", "tiff", "a.tif")],
)
def test_an_ending_decides_the_format_else_the_kind_that_was_chosen(
    desk, cells, tmp_path, typed, chosen, made
):
    assert desk.control.exporting.start(tmp_path / typed, chosen)
    wait_for(desk)
    assert desk.control.status == f"Objects in cells was written to {tmp_path / made}."
    if chosen != "csv":
        found = read_objects(tmp_path / made).labels
        ours = desk.target().data[: found.shape[0], : found.shape[1]]
        np.testing.assert_array_equal(found, ours)


def test_the_labels_layer_that_is_selected_is_exported_else_the_one_saved_into(desk, cells, tmp_path):
    exporting, target = desk.control.exporting, desk.target()
    desk.viewer.layers.selection.active = cells
    assert exporting.layer.unique_id == target.unique_id
    other = desk.viewer.add_labels(np.full((40, 40), 7), name="of Cellpose")
    assert exporting.layer.unique_id == other.unique_id
    desk.viewer.layers.selection.active = cells
    desk.control.results.target = None
    assert exporting.layer.unique_id == other.unique_id  # on top
    exporting.start(tmp_path / "b.zip", "roi")
    other.data_setitem((np.arange(40), np.arange(40)), 9)  # what is painted meanwhile is not in the file
    wait_for(desk)
    assert np.unique(read_objects(tmp_path / "b.zip").labels).tolist() == [7]


def test_the_image_is_never_written_and_a_bare_name_replaces_nothing(desk, cells, tmp_path, notes):
    before = (tmp_path / "cells.tif").read_bytes()
    assert not desk.control.exporting.start(tmp_path / "cells.tif", "tiff")
    assert "never written" in notes[-1][1]
    desk.control.exporting.start(tmp_path / "cells", "tiff")
    wait_for(desk)
    assert "is there already" in notes[-1][1]
    assert (tmp_path / "cells.tif").read_bytes() == before


def test_without_objects_it_is_said_what_to_do(desk, notes):
    assert desk.control.exporting.why_not() == (
        "There are no objects yet: segment everything, or click some."
    )
    assert not desk.control.exporting.start(Path("a.zip"), "roi")
    assert "click some" in notes[-1][1]


def test_the_button_names_the_layer_and_asks_where_to(desk, cells, qtbot, monkeypatch, tmp_path):
    row = SessionRow(desk.control)
    qtbot.addWidget(row)
    assert row.export_button.isEnabled()
    assert "'Objects in cells'" in row.export_button.toolTip()
    asked = []

    def ask(parent, title, start, kinds):
        asked.append((title, start, kinds.split(";;")))
        return str(tmp_path / "rois"), asked[0][2][0]

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
    row.export_button.click()
    wait_for(desk)
    ((title, start, kinds),) = asked
    assert title == "Export Objects in cells"
    assert start == str(tmp_path / "cells")
    assert kinds[:2] == ["ImageJ ROIs, for Fiji (*.zip)", "Label image, for Fiji (*.tif)"]
    assert (tmp_path / "rois.zip").exists()


@pytest.mark.parametrize(
    ("given", "written"), [("x.GeoJSON", "x.GeoJSON"), ("x.ome.tif", "x.ome.tif"), ("x", "x.zip")]
)
def test_where_the_desktop_does_not_tell_the_chosen_kind_the_name_does(
    desk, cells, qtbot, monkeypatch, tmp_path, given, written
):
    row = SessionRow(desk.control)
    qtbot.addWidget(row)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / given), ""))
    row.export_button.click()
    wait_for(desk)
    assert (tmp_path / written).exists()
