"""`evaluate`: an oracle shows what is asked and counted, the embedded model that real figures come out."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch

from napari_lightsam import load_segmenter
from napari_lightsam.engine.checkpoint import read_checkpoint
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.engine.weights import find_weights
from napari_lightsam.errors import ConfigError
from napari_lightsam.model.spec import FixedFrame
from napari_lightsam.train import evaluate as evaluating
from napari_lightsam.train.evaluate import evaluate
from napari_lightsam.train.probing import PROMPTS_PER_CALL
from napari_lightsam.train.scores import ImageScore, summarise

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
    iou: float = 1.0

    @property
    def box(self):
        return (*self.offset, *np.add(self.offset, self.crop.shape))


class Oracle:
    """Answers from the image itself, whose grey values are the true ids; `lost` objects are never found.

    Objects in `halved` are answered by their left half until they got three clicks.
    """

    spec = SimpleNamespace(name="oracle")
    weights_hash, device, precision = "0" * 64, "cpu", "float32"

    def __init__(self, lost=(), halved=(), sure=1.0, proposed=None) -> None:
        self.lost, self.halved, self.sure, self.proposed = lost, halved, sure, proposed
        self.sizes: list[float | None] = []
        self.calls: list[tuple[str, int]] = []
        self.clicks: list[list[tuple[int, int]]] = []
        self.signs: list[list[int]] = []
        self.boxes: list[np.ndarray] = []

    def embed(self, image, *, object_size=None, rgb=None):
        self.sizes.append(object_size)
        return image

    lazy_embedding = embed

    def predict(self, embedding, points=None, point_labels=None, boxes=None):
        if points is not None:
            self.clicks += [[(int(row), int(column)) for row, column in clicks] for clicks in points]
            self.signs += point_labels.tolist()
            places = [clicks[0] for clicks in self.clicks[-len(points) :]]
        else:
            self.boxes.append(boxes)
            places = [((int(y0) + int(y1)) // 2, (int(x0) + int(x1)) // 2) for y0, x0, y1, x1 in boxes]
        self.calls.append(("click" if points is not None else "box", len(places)))
        half = points is not None and points.shape[1] < 3
        masks = [self._mask(embedding, embedding[place], half) for place in places]
        return SimpleNamespace(best=masks.__getitem__)

    def _mask(self, image, label, half=False) -> Crop:
        if label in (0, *self.lost):
            return Crop(np.zeros((0, 0), bool), (0, 0), self.sure)
        rows, columns = np.nonzero(image == label)
        top, left, right = int(rows.min()), int(columns.min()), int(columns.max()) + 1
        if half and label in self.halved:
            right = (left + right) // 2
        return Crop((image == label)[top : rows.max() + 1, left:right], (top, left), self.sure)

    def everything(self, image, config):
        assert config.object_size == self.sizes[-1]
        yield Progress("segmenting", 1, 1)
        labels = np.where(np.isin(image, self.lost), 0, image).astype(np.int32)
        found = np.unique(labels[labels > 0])
        numbered = np.searchsorted(found, labels).astype(np.int32) + 1
        scores = np.full(len(found), self.sure, np.float32)
        return SimpleNamespace(
            labels=np.where(labels > 0, numbered, 0), scores=scores, object_size=config.object_size
        )


@pytest.fixture(autouse=True)
def oracles_propose(monkeypatch):
    """An oracle has no network to look into: it says itself what its head proposes."""
    real = evaluating.proposed_boxes

    def boxes(segmenter, embedding, size):
        return segmenter.proposed if isinstance(segmenter, Oracle) else real(segmenter, embedding, size)

    monkeypatch.setattr(evaluating, "proposed_boxes", boxes)


@pytest.fixture(scope="module")
def unknown_sam(tmp_path_factory):
    """A file in the layout of the SAM family, without a proposal head; its frame is a quarter as wide."""
    path = tmp_path_factory.mktemp("weights") / "unknown.pt"
    tensors = read_checkpoint(find_weights("lightsam")[0]).tensors
    parts = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    torch.save({name: tensor for name, tensor in tensors.items() if name.startswith(parts)}, path)
    loaded = load_segmenter(str(path), device="cpu", precision="float32", runtime="torch")
    assert isinstance(loaded.spec.frame, FixedFrame)
    spec = replace(
        loaded.spec,
        frame=replace(loaded.spec.frame, size=256),
        everything=replace(loaded.spec.everything, points_per_side=4),
    )
    return Segmenter(spec, loaded.runtime, loaded.weights_hash)


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
    assert oracle.clicks == [[(13, 13)], [(13, 31)]]


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
    assert oracle.calls == [("click", PROMPTS_PER_CALL), ("click", 3)]  # a perfect answer is not corrected
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
        ({"corrective_clicks": -1}, "corrective clicks is -1"),
        ({"box_jitter": (0.1, 0.5)}, r"jitter is \[0.1, 0.5\].*below .5"),
        ({"worst": 2, "prompts": ("click",)}, "Add 'everything'"),
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
    assert "proposal" not in lines[2]
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


def test_the_keys_that_documents_quote_stay(tmp_path):
    """Of the JSON that `lightsam evaluate --json` writes; figures in README and model card name them."""
    content = json.loads(drain(evaluate(write_set(tmp_path, {"a": squares(3)}), Oracle())).to_json())
    quoted = (
        "images objects prompted ap50 ap75 msa ap50_pooled ap75_pooled msa_pooled panoptic_quality "
        "click_miou box_miou everything_seconds embed_seconds click_seconds box_seconds"
    )
    curves = (
        "corrected_miou ap_curve ap_curve_pooled click_curve box_curve prompted_calibration "
        "everything_calibration proposal_recall proposals_per_object"
    )
    assert set(content["overall"]) == {*quoted.split(), *curves.split()}
    assert content["iou_thresholds"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert content["box_jitter"] == [0, 0.05, 0.1, 0.2]
    assert len(content["overall"]["ap_curve"]) == len(content["images"][0]["ap_curve"]) == 10


def test_corrective_clicks_lift_the_curve_of_what_was_answered_by_half(tmp_path):
    oracle = Oracle(halved=(1,))
    overall = drain(evaluate(write_set(tmp_path, {"a": squares(2)}), oracle, prompts=("click",))).overall
    # One of two objects is half found after one and two clicks; the third click settles it.
    assert overall.click_curve == pytest.approx((0.75, 0.75, 1.0, 1.0))
    assert (overall.click_miou, overall.corrected_miou) == (0.75, 1)
    assert oracle.calls == [("click", 2), ("click", 1), ("click", 1)]
    first, second, third = oracle.clicks[-1]
    assert first == (14, 14)
    assert second == (14, 17)  # the middle of the missing half, columns 15 to 19
    assert third != second
    assert oracle.signs[-1] == [1, 1, 1]


@pytest.mark.parametrize("clicks", [0, 1, 4])
def test_the_number_of_corrective_clicks_is_an_option(tmp_path, clicks):
    folder = write_set(tmp_path, {"a": squares(1)})
    result = drain(evaluate(folder, Oracle(lost=(1,)), prompts=("click",), corrective_clicks=clicks))
    assert result.overall.click_curve == (0,) * (clicks + 1)
    assert result.overall.corrected_miou == (0 if clicks else None)
    assert (f"+{clicks} click" in result.to_markdown()) == (clicks > 0)


def test_boxes_are_drawn_with_more_and_less_care_and_always_alike(tmp_path):
    folder = write_set(tmp_path, {"a": squares(3)})
    drawn = []
    for seed in (0, 0, 1):
        oracle = Oracle()
        result = drain(evaluate(folder, oracle, prompts=("box",), box_jitter=(0.2, 0.1), seed=seed))
        assert result.box_jitter == (0, 0.1, 0.2)
        assert result.overall.box_curve == (1, 1, 1)
        drawn.append(oracle.boxes)
    exact, careful, careless = drawn[0]
    assert exact.tolist()[0] == [10, 10, 20, 20]
    assert 0 < np.abs(careful - exact).max() <= 1
    np.testing.assert_allclose(careless - exact, 2 * (careful - exact))
    assert all((a == b).all() for a, b in zip(drawn[0], drawn[1], strict=True))
    assert (drawn[0][1] != drawn[2][1]).all()


def test_predicted_iou_is_compared_with_what_was_reached(tmp_path):
    folder = write_set(tmp_path, {"a": squares(4)})
    overall = drain(evaluate(folder, Oracle(lost=(2,), sure=0.75))).overall
    assert overall.prompted_calibration is not None
    assert overall.everything_calibration is not None
    # By click and by box: three perfect masks, said to be .75, and an empty one, said to be .75 as well.
    assert overall.prompted_calibration.count == 8
    assert overall.prompted_error == pytest.approx((3 * 0.25 + 0.75) / 4)
    assert overall.prompted_calibration.bias == pytest.approx(0)
    assert overall.prompted_calibration.bins[7].reached == pytest.approx(0.75)
    # Everything mode found three and nothing else.
    assert overall.everything_calibration.count == 3
    assert overall.everything_error == pytest.approx(0.25)


def test_click_and_box_answers_of_several_images_are_each_compared_with_their_own_prediction():
    scores = [
        ImageScore("s", str(n), 1, click_ious=(a,), box_ious=(b,), click_predicted=(a,), box_predicted=(b,))
        for n, (a, b) in enumerate([(0.1, 0.9), (0.3, 0.7)])
    ]
    assert summarise(scores).prompted_error == 0


@pytest.mark.parametrize(
    ("proposed", "recall", "per_object"),
    [
        pytest.param(None, None, None, id="no head"),
        pytest.param(np.zeros((0, 4)), 0, 0, id="a head that proposes nothing"),
        pytest.param(
            np.array([[10, 10, 20, 20], [10, 11, 20, 20], [0, 0, 5, 5]]), 1 / 2, 3 / 2, id="one of two, twice"
        ),
    ],
)
def test_proposals_are_compared_with_the_true_boxes(tmp_path, proposed, recall, per_object):
    result = drain(
        evaluate(write_set(tmp_path, {"a": squares(2)}), Oracle(proposed=proposed), prompts=("everything",))
    )
    assert result.overall.proposal_recall == recall
    assert result.overall.proposals_per_object == per_object


def test_the_worst_images_are_kept_worst_first(tmp_path):
    folder = write_set(tmp_path, {"bad": squares(1), "fair": squares(2), "good": squares(8)})
    result = drain(evaluate(folder, Oracle(lost=(1,)), prompts=("everything",), worst=2))
    assert [example.score.name for example in result.worst] == ["bad", "fair"]
    fair = result.worst[1]
    assert set(np.unique(fair.truth)) - {0} == {1, 2}
    assert set(np.unique(fair.predicted)) - {0} == {1}
    assert not drain(evaluate(folder, Oracle(), prompts=("everything",))).worst


def test_the_embedded_model_finds_the_nuclei_of_a_real_image(tmp_path, segmenter):
    for folder, name in ((SAMPLES, "nuclei_fluorescence.tif"), (TRUTHS, "nuclei_fluorescence_labels.tif")):
        tifffile.imwrite(tmp_path / name, tifffile.imread(folder / name)[120:264, 240:384])
    result = drain(evaluate(tmp_path, segmenter, object_size="true", objects_per_image=5))
    overall = result.overall
    assert result.weights_hash == segmenter.weights_hash
    assert overall.prompted == 5
    assert overall.ap50 is not None
    assert overall.ap50 > 0.3
    assert overall.click_miou is not None
    assert overall.click_miou > 0.6
    assert overall.box_miou is not None
    assert overall.box_miou > 0.6
    assert len(overall.click_curve) == len(overall.box_curve) == 4
    assert overall.click_curve[-1] > overall.click_curve[0]
    assert overall.box_curve[-1] < overall.box_curve[0]
    assert overall.proposal_recall is not None
    assert overall.proposal_recall > 0.3
    assert overall.proposals_per_object is not None
    assert overall.prompted_error is not None
    assert overall.prompted_error < 0.3


def test_checkpoints_of_the_sam_family_are_evaluated_the_same_way(tmp_path, unknown_sam):
    labels = squares(1, side=16)
    folder = write_set(tmp_path, {"a": labels})
    result = drain(evaluate(folder, unknown_sam, corrective_clicks=1, box_jitter=(0.1,), worst=1))
    overall = result.overall
    assert overall.ap50 is not None
    assert len(overall.click_curve) == len(overall.box_curve) == 2
    assert overall.prompted_calibration is not None
    assert (overall.proposal_recall, overall.proposals_per_object) == (None, None)  # it has no head
    assert len(result.worst) == 1
