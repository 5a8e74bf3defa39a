"""Nuclei that are made up lie inside their cells, and cells grown from them are compared id by id."""

import numpy as np
import pytest
import tifffile
from benchmarks.nuclei import NucleiScore, make_nuclei, score_cells, to_markdown

from napari_lightsam.samples import read_sample
from napari_lightsam.train.datasets import LabelledImage


@pytest.fixture(scope="module")
def cells(request):
    path = request.config.rootpath / "tests" / "data" / "samples" / "cells_phase_contrast_labels.tif"
    part = np.s_[384:640, 256:512]
    image = read_sample("cells_phase_contrast")[part]
    return LabelledImage(image, None, tifffile.imread(path)[part].astype(np.int32))


def test_a_nucleus_is_the_deep_part_of_its_cell_and_has_its_id(cells):
    nuclei = make_nuclei(cells.labels)
    inside = nuclei > 0
    assert np.array_equal(nuclei[inside], cells.labels[inside])
    assert set(np.unique(nuclei)) == set(np.unique(cells.labels))
    assert 0.1 < inside.sum() / (cells.labels > 0).sum() < 0.7


def test_cells_are_scored_by_the_ids_of_their_nuclei(cells, segmenter):
    score = score_cells([cells], segmenter, neighbours=4)
    assert score.cells == len(np.unique(cells.labels)) - 1 > 3
    assert 0.5 < score.answered <= 1
    assert 0 < score.nucleus_iou < 0.7
    assert 0 < score.iou < 1


def test_the_table_has_a_row_for_each_way_to_ask():
    table = to_markdown({"a click": NucleiScore(10, 0.9, 0.75, 0.8, 0.25)})
    assert table.splitlines()[-1] == "| a click | 10 | 90.0% | 0.750 | 80.0% | 0.250 |"
