"""Everything mode with the embedded model on real images, noise and odd shapes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from napari_lightsam import EverythingConfig, segment_everything
from napari_lightsam.engine.candidates import collect
from napari_lightsam.engine.everything import to_labels
from napari_lightsam.engine.level import make_level
from napari_lightsam.engine.points import lattice_axes
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.samplers import mark_settled
from napari_lightsam.errors import ConfigError, ImageError
from napari_lightsam.model.spec import ModelSpec, ObjectFrame

EIGHT = np.ones((3, 3))
MODES = ["grid", "hierarchical", "object-aware"]
OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)


@pytest.fixture(scope="module")
def small(nuclei):
    """136 x 136 px of nuclei: one block at their scale."""
    image, labels = nuclei
    return image[60:196, 60:196], labels[60:196, 60:196]


@pytest.fixture(scope="module", params=MODES)
def run(request, segmenter, small):
    """Progress and result of one run in each mode."""
    steps = []
    config = EverythingConfig(mode=request.param, object_size=26)
    return steps, drain(segmenter.everything(small[0], config), steps.append)


def check(labels, count):
    assert labels.dtype == np.int32
    assert np.unique(labels[labels > 0]).tolist() == list(range(1, count + 1))
    for i in range(1, count + 1):
        assert ndimage.label(labels == i, EIGHT)[1] == 1, i


def found(labels, truth):
    """Part of the true objects of some size that a label meets at IoU 0.5."""
    ids = [i for i, area in zip(*np.unique(truth, return_counts=True), strict=True) if i and area > 150]
    hits = 0
    for i in ids:
        true = truth == i
        met = np.unique(labels[true])
        hits += any(
            np.count_nonzero(true & (labels == k)) > 0.5 * np.count_nonzero(true | (labels == k))
            for k in met
            if k
        )
    return hits / len(ids)


def test_every_mode_finds_most_nuclei_and_every_label_is_one_object(run, small):
    _, result = run
    check(result.labels, len(result.scores))
    assert result.labels.shape == small[0].shape
    assert found(result.labels, small[1]) > 0.4
    truth = len(np.unique(small[1])) - 1
    assert 0.4 * truth <= len(result.scores) <= 1.5 * truth
    assert result.scores.dtype == np.float32
    assert ((result.scores >= 0.3) & (result.scores <= 1.1)).all()
    assert (result.object_size, result.object_size_estimated, result.advice) == (26, False, "")


def test_progress_rises_and_ends_and_settings_are_filled_in(run):
    steps, result = run
    segmenting = [step for step in steps if step.stage == "segmenting"]
    done = [step.done for step in segmenting]
    assert done == sorted(done)
    assert all(0 <= step.done <= step.total or step.total == 0 for step in steps)
    assert segmenting[-1].done == segmenting[-1].total
    assert len({step.stage for step in steps}) >= 3
    assert (result.config.iou_threshold, result.config.balance) == (None, 0)  # the balance still moves it
    assert result.config.point_spacing is not None
    assert result.config.min_size > 0


def test_other_modes_ask_fewer_prompts_than_the_grid(segmenter, small, monkeypatch):
    asked = {}
    plain = segmenter.runtime.decode
    for mode in MODES:
        asked[mode] = 0

        def count(tokens, prompts, multimask, mode=mode):
            asked[mode] += len(prompts.points)
            return plain(tokens, prompts, multimask)

        monkeypatch.setattr(segmenter.runtime, "decode", count)
        drain(segmenter.everything(small[0][:90, :90], EverythingConfig(mode=mode, object_size=26)))
    assert 0 < asked["object-aware"] < asked["hierarchical"] < asked["grid"]


def test_the_same_image_gives_the_same_labels_again(segmenter, small, run):
    _, result = run
    again = drain(segmenter.everything(small[0].copy(), replace(result.config, object_size=26)))
    assert again.labels.tobytes() == result.labels.tobytes()
    assert again.scores.tobytes() == result.scores.tobytes()


def test_thresholds_sizes_and_borders_are_applied_again_without_a_new_run(run):
    _, result = run
    labels, scores = to_labels(result.candidates, result.config)
    np.testing.assert_array_equal(labels, result.labels)
    np.testing.assert_array_equal(scores, result.scores)
    diameters = 2 * np.sqrt(np.bincount(labels.ravel())[1:] / np.pi)
    middle = float(np.median(diameters))
    large, _ = to_labels(result.candidates, replace(result.config, min_size=middle))
    assert large.max() > 0
    assert 2 * np.sqrt(np.bincount(large.ravel())[1:] / np.pi).min() > 0.65 * middle
    little, _ = to_labels(result.candidates, replace(result.config, max_size=middle))
    assert 2 * np.sqrt(np.bincount(little.ravel())[1:] / np.pi).max() < 1.15 * middle
    strict, kept = to_labels(result.candidates, replace(result.config, iou_threshold=0.8))
    assert strict.max() < labels.max()
    assert (kept >= 0.8).all()


def test_objects_at_the_border_can_be_left_out(run):
    _, result = run
    edge = np.ones(result.labels.shape, bool)
    edge[1:-1, 1:-1] = False
    assert (result.labels[edge] > 0).any()
    inner, _ = to_labels(result.candidates, replace(result.config, keep_border=False))
    assert not (inner[edge] > 0).any()
    assert 0 < inner.max() < result.labels.max()


def test_closing_the_generator_cancels_and_leaves_the_segmenter_usable(segmenter, small, monkeypatch):
    asked = []
    plain = segmenter.runtime.decode
    monkeypatch.setattr(segmenter.runtime, "decode", lambda *given: asked.append(1) or plain(*given))
    work = segmenter.everything(small[0], EverythingConfig(mode="grid", object_size=26, batch=8))
    while next(work).stage != "segmenting":
        pass
    before = len(asked)
    work.close()
    assert len(asked) == before == 1
    with pytest.raises(StopIteration):
        next(work)
    embedding = segmenter.embed(small[0], object_size=26)
    assert segmenter.predict(embedding, points=[(60, 60)]).to_array().shape == (1, 136, 136)


def noise(kind, seed):
    source = np.random.default_rng(seed)
    if kind == "counts":
        return source.poisson(4, (96, 128)).astype(np.uint16)
    if kind == "few counts":
        return source.poisson(0.05, (96, 128)).astype(np.uint16)
    deviation = 3 if kind == "weak" else 30
    return source.normal(100, deviation, (96, 128)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", ["weak", "strong", "counts", "few counts"])
def test_blank_noise_gives_no_objects_and_advice(segmenter, kind, seed):
    result = drain(segmenter.everything(noise(kind, seed)))
    assert result.labels.max() == 0
    assert len(result.scores) == 0
    assert "No objects were found" in result.advice
    assert "noise" in result.advice


@pytest.mark.parametrize("size", [None, 20], ids=["size unknown", "size given"])
@pytest.mark.parametrize("value", [0, 7.5, 65535, np.nan], ids=str)
@pytest.mark.filterwarnings("ignore:.*NaN or infinite")
def test_a_constant_plane_gives_no_objects_and_says_so(segmenter, value, size):
    result = drain(segmenter.everything(np.full((60, 50), value), EverythingConfig(object_size=size)))
    assert result.labels.shape == (60, 50)
    assert result.labels.max() == 0
    assert "constant" in result.advice


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (5, 9), (20, 150)], ids=str)
def test_oblong_and_tiny_planes_are_segmented(segmenter, nuclei, shape, mode):
    image = nuclei[0][100 : 100 + shape[0], 50 : 50 + shape[1]]
    result = drain(segmenter.everything(image, EverythingConfig(mode=mode, object_size=26)))
    assert result.labels.shape == shape
    check(result.labels, len(result.scores))


@pytest.mark.parametrize("mode", MODES)
def test_a_size_larger_than_the_image_is_tolerated(segmenter, small, mode):
    result = drain(segmenter.everything(small[0], EverythingConfig(mode=mode, object_size=5000)))
    check(result.labels, len(result.scores))


def test_the_least_size_that_is_filled_in_is_never_above_the_largest_given(segmenter, small):
    result = drain(segmenter.everything(small[0], EverythingConfig(object_size=60, max_size=15)))
    assert result.config.min_size == 15


def test_the_size_is_estimated_and_reported_when_it_is_not_given(segmenter, small):
    result = drain(segmenter.everything(small[0], EverythingConfig(mode="hierarchical")))
    assert result.object_size_estimated
    assert 13 < result.object_size < 45
    assert found(result.labels, small[1]) > 0.4
    assert segmenter.estimate_object_size(small[0]) == result.object_size


def rectangles(*boxes):
    """Candidates that are rectangles of a 256 x 256 plane, in logits of 4 px."""
    logits = np.full((len(boxes), 1, 64, 64), -5, np.float32)
    for plane, (y0, x0, y1, x1) in zip(logits[:, 0], boxes, strict=True):
        plane[y0:y1, x0:x1] = 5
    level, n = make_level((256, 256), OWN, 1.0), len(boxes)
    iou = np.linspace(0.9, 0.8, n, dtype=np.float32)[:, None]
    return collect(
        level, logits, iou, np.zeros((n, 2), np.intp), np.arange(n), np.zeros((n, 2)), stability_offset=1
    )


def test_the_largest_object_is_kept_and_the_background_is_dropped():
    large, small, background = (1, 1, 50, 62), (52, 20, 60, 30), (0, 0, 64, 64)
    labels, scores = to_labels(rectangles(background, large, small), EverythingConfig())
    assert len(scores) == 2
    areas = np.bincount(labels.ravel())[1:]
    assert areas[0] == pytest.approx(49 * 61 * 16, rel=0.03)
    assert areas[1] == pytest.approx(80 * 16, rel=0.03)


def test_the_short_form_equals_the_long_one(segmenter, small, run):
    _, result = run
    labels = segment_everything(small[0], mode=result.config.mode, model=segmenter, object_size=26)
    np.testing.assert_array_equal(labels, result.labels)


def test_what_is_not_accepted_is_refused_before_any_work(segmenter, small):
    with pytest.raises(ConfigError, match="diameter"):
        segment_everything(small[0], model=segmenter, diameter=3)
    with pytest.raises(ConfigError, match="mode"):
        segment_everything(small[0], model=segmenter, mode="all")
    with pytest.raises(ImageError, match="axes"):
        segment_everything(np.ones((2, 3, 4, 5)), model=segmenter)


@pytest.mark.parametrize("shape", [(256, 256), (30, 700), (1, 1), (7, 5)], ids=str)
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_prompts_cover_the_whole_plane_evenly(shape, scale):
    level = make_level(shape, OWN, scale)
    for axis, (length, places) in enumerate(zip(shape, lattice_axes(level, 16), strict=True)):
        gaps = np.diff(places)
        assert places[0] >= -0.5
        assert places[-1] <= length - 0.5
        if len(gaps):
            assert np.ptp(gaps) < 1e-6
            assert gaps[0] * level.scale[axis] == pytest.approx(16, rel=0.35)
        assert places[0] + 0.5 == pytest.approx(length - 0.5 - places[-1])  # last row and column included


def test_dim_objects_settle_their_surest_half_and_bright_ones_what_is_above_the_threshold():
    def settled(values, confident):
        plane = np.zeros((6, 6), bool)
        crops = (np.array(values, np.float16),)
        mark_settled(plane, SimpleNamespace(origins=np.array([[1, 2]]), logits=crops), confident)
        return np.argwhere(plane).tolist()

    assert settled([[-1, 1, 2, 3]], 8.5) == [[1, 4], [1, 5]]
    assert settled([[-1, 9, 20, 30]], 8.5) == [[1, 3], [1, 4], [1, 5]]
    assert settled([[-1, -2]], 8.5) == []
