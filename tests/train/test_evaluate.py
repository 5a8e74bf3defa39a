"""`evaluate`: an oracle shows what is asked and counted, the embedded model that real figures come out."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.errors import ConfigError
from napari_lightsam.train.evaluate import PROMPTS_PER_CALL, evaluate

SAMPLES = Path(__file__).parents[2] / "src" / "napari_lightsam" / "samples"
TRUTHS = Path(__file__).parents[1] / "data" / "samples"


def squares(count: int = 4, side: int = 10) -> np.ndarray:
    """A row of squares with ids 1, 2, 3 ... and a gap as wide as a square."""
    labels = np.zeros((3 * side, 2 * side * count + side), np.uint16)
    for n in range(count):
        labels[side : 2 * side, (2 * n + 1) * side : (2 * n + 2) * side] = n + 1
    return labels


@dataclass(frozen=True)
class Crop:
    crop: np.ndarray
    offset: tuple[int, int]


class Oracle:
    """Answers from the image itself, whose grey values are the true ids; `lost` objects are never found."""

    spec = SimpleNamespace(name="oracle")
    weights_hash, device, precision = "0" * 64, "cpu", "float32"

    def __init__(self, lost: tuple[int, ...] = ()) -> None:
        self.lost = lost
        self.sizes: list[float | None] = []
        self.calls: list[tuple[str, int]] = []
        self.clicks: list[tuple[int, int]] = []

    def embed(self, image, *, object_size=None, rgb=None):
        self.sizes.append(object_size)
        return image

    def predict(self, embedding, points=None, boxes=None):
        if points is not None:
            places = [(int(row), int(column)) for ((row, column),) in points]
            self.clicks += places
        else:
            places = [((int(y0) + int(y1)) // 2, (int(x0) + int(x1)) // 2) for y0, x0, y1, x1 in boxes]
        self.calls.append(("click" if points is not None else "box", len(places)))
        masks = [self._mask(embedding, embedding[place]) for place in places]
        return SimpleNamespace(best=masks.__getitem__)

    def _mask(self, image, label) -> Crop:
        if label in (0, *self.lost):
            return Crop(np.zeros((0, 0), bool), (0, 0))
        rows, columns = np.nonzero(image == label)
        top, left = int(rows.min()), int(columns.min())
        return Crop((image == label)[top : rows.max() + 1, left : columns.max() + 1], (top, left))

    def everything(self, image, config, rgb=None):
        self.sizes.append(config.object_size)
        yield Progress("segmenting", 1, 1)
        labels = np.where(np.isin(image, self.lost), 0, image).astype(np.int32)
        found = np.unique(labels[labels > 0])
        return SimpleNamespace(labels=labels, scores=np.ones(len(found)), object_size=config.object_size)


def write_set(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for name, labels in images.items():
        for part in ("images", "labels"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / part / f"{name}.tif", labels)
    return folder


def test_a_perfect_segmenter_scores_one_in_every_figure(tmp_path):
    result = drain(evaluate(write_set(tmp_path, {"a": squares(), "b": squares(2)}), Oracle()))
    overall = result.overall
    assert (overall.images, overall.objects, overall.prompted) == (2, 6, 6)
    for name in ("ap50", "ap75", "msa", "ap50_pooled", "ap75_pooled", "msa_pooled", "panoptic_quality"):
        assert getattr(overall, name) == 1, name
    assert (overall.click_miou, overall.box_miou) == (1, 1)


def test_images_are_averaged_and_pooled_separately(tmp_path):
    folder = write_set(tmp_path, {"many": squares(8), "one": squares(1)})
    overall = drain(evaluate(folder, Oracle(lost=(1,)))).overall
    assert overall.ap50 == pytest.approx((7 / 8 + 0) / 2)
    assert overall.ap50_pooled == pytest.approx(7 / 9)
    assert overall.click_miou == pytest.approx(7 / 9)
    assert overall.box_miou == pytest.approx(7 / 9)


def test_sets_are_summarised_one_by_one_and_together(tmp_path):
    write_set(tmp_path / "good", {"a": squares(4)})
    write_set(tmp_path / "bad", {"a": np.where(squares(4) > 0, 9, 0).astype(np.uint16) * (squares(4) == 1)})
    result = drain(evaluate(tmp_path, Oracle(lost=(9,))))
    assert {name: summary.ap50 for name, summary in result.sets.items()} == {"bad": 0, "good": 1}
    assert result.overall.ap50 == 0.5


def test_clicks_land_on_the_innermost_point_of_each_object(tmp_path):
    oracle = Oracle()
    drain(evaluate(write_set(tmp_path, {"a": squares(2, side=9)}), oracle, prompts=("click",)))
    assert oracle.clicks == [(13, 13), (13, 31)]


@pytest.mark.parametrize(
    ("object_size", "expected"),
    [
        pytest.param("estimated", None, id="estimated leaves the choice to the segmenter"),
        pytest.param("true", 2 * np.sqrt(100 / np.pi), id="true is the median of the truth"),
        pytest.param(33.0, 33.0, id="a number is handed on"),
    ],
)
def test_the_object_size_reaches_every_part_of_the_segmenter(tmp_path, object_size, expected):
    oracle = Oracle()
    result = drain(evaluate(write_set(tmp_path, {"a": squares()}), oracle, object_size=object_size))
    assert len(oracle.sizes) == 2
    assert all(size == (None if expected is None else pytest.approx(expected)) for size in oracle.sizes)
    assert result.images[0].object_size == oracle.sizes[0]


@pytest.mark.parametrize(
    ("prompts", "calls", "measured"),
    [
        pytest.param(("everything",), set(), {"ap50"}, id="everything"),
        pytest.param(("click",), {"click"}, {"click_miou"}, id="click"),
        pytest.param(("box",), {"box"}, {"box_miou"}, id="box"),
    ],
)
def test_only_what_was_asked_for_is_measured(tmp_path, prompts, calls, measured):
    oracle = Oracle()
    overall = drain(evaluate(write_set(tmp_path, {"a": squares()}), oracle, prompts=prompts)).overall
    assert {kind for kind, _ in oracle.calls} == calls
    figures = {name: getattr(overall, name) for name in ("ap50", "click_miou", "box_miou")}
    assert {name for name, value in figures.items() if value is not None} == measured


def test_objects_are_prompted_in_batches_and_their_number_can_be_limited(tmp_path):
    folder = write_set(tmp_path, {"a": squares(PROMPTS_PER_CALL + 3, side=3)})
    oracle = Oracle()
    drain(evaluate(folder, oracle, prompts=("click",)))
    assert oracle.calls == [("click", PROMPTS_PER_CALL), ("click", 3)]
    oracle = Oracle()
    result = drain(evaluate(folder, oracle, prompts=("click",), objects_per_image=5))
    assert oracle.calls == [("click", 5)]
    assert (result.overall.objects, result.overall.prompted) == (PROMPTS_PER_CALL + 3, 5)


def test_an_image_without_objects_is_segmented_but_not_prompted(tmp_path):
    oracle = Oracle()
    folder = write_set(tmp_path, {"blank": np.zeros((20, 20), np.uint16)})
    overall = drain(evaluate(folder, oracle, object_size="true")).overall
    assert oracle.calls == []
    assert (overall.ap50, overall.click_miou) == (1, None)


def test_progress_names_each_image_and_ends_complete(tmp_path):
    seen: list[Progress] = []
    drain(evaluate(write_set(tmp_path, {"a": squares(), "b": squares()}), Oracle()), seen.append)
    stages = [step.stage for step in seen]
    assert f"evaluating {tmp_path.name}/a" in stages
    assert f"evaluating {tmp_path.name}/b" in stages
    assert (seen[-1].done, seen[-1].total) == (2, 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"object_size": "large"}, "object size is 'large'; accepted are 'estimated', 'true'"),
        ({"object_size": 0}, "object size is 0"),
        ({"object_size": float("nan")}, "object size is nan"),
        ({"prompts": ("click", "scribble")}, "scribble.*everything, click, box"),
        ({"prompts": ()}, "one or more of"),
        ({"objects_per_image": 0}, "objects per image is 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_are_not_accepted_are_refused_before_any_work(tmp_path, setting, message):
    oracle = Oracle()
    with pytest.raises(ConfigError, match=message):
        drain(evaluate(write_set(tmp_path, {"a": squares()}), oracle, **setting))
    assert oracle.sizes == []


def test_the_table_has_a_row_per_set_and_no_empty_column(tmp_path):
    write_set(tmp_path / "one", {"a": squares()})
    write_set(tmp_path / "two", {"a": squares()})
    table = drain(evaluate(tmp_path, Oracle(), prompts=("everything",))).to_markdown()
    lines = table.splitlines()
    assert lines[0] == "oracle on cpu in float32, object size estimated"
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["one", "two", "all images"]
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert "AP .5" in lines[2]
    assert "click" not in lines[2]
    assert "| 1.000 |" in lines[4]


def test_the_json_holds_settings_summaries_and_one_record_per_image(tmp_path):
    result = drain(evaluate(write_set(tmp_path, {"a": squares(3)}), Oracle(lost=(2,)), limit=1))
    content = json.loads(result.to_json())
    assert (content["model"], content["limit"], content["object_size"]) == ("oracle", 1, "estimated")
    assert content["overall"] == content["sets"][tmp_path.name]
    assert content["overall"]["ap50"] == round(2 / 3, 4)
    (record,) = content["images"]
    assert (record["name"], record["objects"], record["found"]) == ("a", 3, 2)
    assert record["click_ious"] == [1, 0, 1]


def test_the_embedded_model_finds_the_nuclei_of_a_real_image(tmp_path, segmenter):
    for folder, name in ((SAMPLES, "nuclei_fluorescence.tif"), (TRUTHS, "nuclei_fluorescence_labels.tif")):
        tifffile.imwrite(tmp_path / name, tifffile.imread(folder / name)[120:320, 240:440])
    result = drain(evaluate(tmp_path, segmenter, object_size="true", objects_per_image=10))
    overall = result.overall
    assert result.weights_hash == segmenter.weights_hash
    assert overall.prompted == 10
    assert overall.ap50 is not None
    assert overall.ap50 > 0.3
    assert overall.click_miou is not None
    assert overall.click_miou > 0.6
    assert overall.box_miou is not None
    assert overall.box_miou > 0.6
