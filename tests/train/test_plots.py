"""The figures show what was measured, and nothing where nothing was."""

import importlib.util

import numpy as np
import pytest
from PIL import Image

from napari_lightsam.errors import ConfigError
from napari_lightsam.train.metrics import THRESHOLDS, match
from napari_lightsam.train.plots import (
    FIGURES,
    check_plotting,
    draw_ap_curve,
    draw_calibration,
    draw_prompts,
    save,
)
from napari_lightsam.train.scores import Evaluation, ImageScore

LABELS = np.repeat(np.arange(1, 5), 20).reshape(4, 20)
FOUND = np.where(np.arange(20) < 15, LABELS, 0)  # each with IoU 3/4


def evaluation(*images):
    return Evaluation(
        "m", "0", "cpu", "float32", "true", "all", "all", None, None, 2, (0.0, 0.1), seed=0, images=images
    )


def full(dataset, found=FOUND):
    return ImageScore(
        dataset,
        "a",
        4,
        matchings=match(LABELS, found),
        click_ious=(0.5, 0.7),
        click_predicted=(0.5, 0.9),
        corrected_ious=((0.6, 0.8), (0.9, 0.9)),
        box_ious=(0.8, 0.8),
        box_predicted=(0.85, 0.85),
        careless_ious=((0.7, 0.7),),
        found_ious=(0.75,) * 4,
        found_predicted=(0.7,) * 4,
    )


@pytest.fixture(autouse=True)
def matplotlib():
    pytest.importorskip("matplotlib")


def lines(axes):
    return {line.get_label(): line.get_xydata().round(6).tolist() for line in axes.get_lines()}


def test_average_precision_is_drawn_per_set_averaged_and_pooled():
    figure = draw_ap_curve(evaluation(full("half"), full("none", np.zeros_like(LABELS))))
    assert figure is not None
    averaged, pooled = map(lines, figure.axes)
    assert set(averaged) == set(pooled) == {"half", "none", "all images"}
    expected = [[threshold, float(threshold < 0.75)] for threshold in THRESHOLDS]
    assert averaged["half"] == expected
    assert averaged["none"] == [[threshold, 0] for threshold in THRESHOLDS]
    assert averaged["all images"] == pooled["all images"] == [[t, ap / 2] for t, ap in expected]


def test_clicks_and_boxes_are_drawn_over_their_number_and_carelessness():
    figure = draw_prompts(evaluation(full("one")))
    assert figure is not None
    clicks, boxes = map(lines, figure.axes)
    assert clicks == {"one": [[1, 0.6], [2, 0.7], [3, 0.9]]}
    assert boxes == {"one": [[0, 0.8], [10, 0.7]]}


def test_calibration_is_drawn_for_prompts_and_for_everything_mode():
    figure = draw_calibration(evaluation(full("one")))
    assert figure is not None
    prompted, everything = figure.axes
    assert "mean error 0.075" in prompted.get_title()  # 0, .2, .05 and .05
    assert lines(prompted)["mean true IoU"] == [[0.5, 0.5], [0.85, 0.8], [0.9, 0.7]]
    assert lines(everything)["mean true IoU"] == [[0.7, 0.75]]


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_nothing_is_drawn_where_nothing_was_measured(draw):
    assert draw(evaluation(ImageScore("one", "a", 0))) is None


def test_one_kind_of_prompt_has_one_panel():
    figure = draw_prompts(
        evaluation(ImageScore("one", "a", 1, box_ious=(0.5,), box_predicted=(0.5,), careless_ious=((0.25,),)))
    )
    assert figure is not None
    (boxes,) = figure.axes
    assert lines(boxes) == {"one": [[0, 0.5], [10, 0.25]]}


def test_many_sets_keep_lines_that_can_be_told_apart():
    figure = draw_prompts(evaluation(*(full(f"set {n}") for n in range(12))))
    assert figure is not None
    looks = {(line.get_color(), line.get_linestyle(), line.get_linewidth()) for line in figure.axes[0].lines}
    assert len(looks) == 13


def test_a_figure_is_the_same_file_every_time(tmp_path):
    for name in ("a.png", "b.png"):
        figure = draw_ap_curve(evaluation(full("one")))
        assert figure is not None
        save(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert picture.shape[1] > 1000
    assert picture.min() < 100
    assert picture[0, 0] == 255


def test_without_matplotlib_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install matplotlib.*napari-lightsam\[plots\]"):
        check_plotting()
