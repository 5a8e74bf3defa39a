"""Each image is one lesson, and what was refused stands in the table as well."""

from pathlib import Path

from benchmarks.teaching import Lesson, choose_planes, to_markdown

from napari_lightsam.train.datasets import LabelledFile
from napari_lightsam.train.held_out import Score


def test_of_a_volume_the_middle_plane_is_a_lesson():
    volume = [LabelledFile("set", Path("v.tif"), Path("v_labels.tif"), plane=p, planes=5) for p in range(5)]
    single = LabelledFile("set", Path("a.tif"), Path("a_labels.tif"))
    assert choose_planes((*volume, single)) == [volume[2], single]


def test_the_table_shows_gains_and_refusals():
    gained = Lesson("axons", 61.2, "", Score(0.6, 0.7, 0.3), Score(0.65, 0.75, 0.45), (30, 12), 90)
    refused = Lesson("noise", 5.0, "nothing to learn")
    rows = to_markdown([gained, refused]).splitlines()[2:]
    assert rows[0] == "| axons | 30 | 12 | 0.60 -> 0.65 | 0.70 -> 0.75 | 0.30 -> 0.45 | 90 | 61 |"
    assert rows[1] == "| noise | | | refused: nothing to learn | | | | 5 |"
