"""Any size and anything that can go wrong: lazy reading, bounded memory, stopping, given proposals."""

import tracemalloc
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from napari_lightsam import EverythingConfig, segment_everything
from napari_lightsam.engine.found import FirstChoice
from napari_lightsam.engine.image import READ_PIXELS
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.proposals import from_boxes, from_points
from napari_lightsam.engine.segmenter import Segmenter
from napari_lightsam.errors import ImageError, PromptError

MODES = ["grid", "hierarchical", "object-aware"]
SIZE = 48  # the scale is 1: image pixels are frame pixels


class Lazy:
    """A plane that is made while it is read, remembers what was read, and may fail."""

    def __init__(self, shape, make, bad=None):
        self.shape, self.dtype, self.make, self.bad = shape, np.dtype(np.uint8), make, bad
        self.reads = np.zeros(tuple(-(-n // 256) for n in shape[:2]))
        self.largest = self.read = 0

    def __getitem__(self, key):
        (y0, y1, _), (x0, x1, _) = (part.indices(n) for part, n in zip(key, self.shape, strict=True))
        if self.bad is not None and y0 <= self.bad[0] < y1 and x0 <= self.bad[1] < x1:
            raise OSError("disk on fire")
        self.largest = max(self.largest, (y1 - y0) * (x1 - x0))
        self.read += (y1 - y0) * (x1 - x0)
        self.reads[y0 // 256 : -(-y1 // 256), x0 // 256 : -(-x1 // 256)] += 1
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.int32)
        return self.make(y, x).astype(np.uint8)


def dots(y, x, every=128, radius=22):
    """Bright discs on a grid of 128 px."""
    return 20 + 180 * (np.hypot(y % every - every / 2, x % every - every / 2) < radius)


def corner(y, x):
    """Discs in the first 700 x 700 pixels, nothing elsewhere."""
    if min(y[0, 0], x[0, 0]) >= 700 or max(y[0, 0], x[0, 0]) >= 700:
        return np.full(y.shape, 20, np.uint8)
    return np.where((y < 700) & (x < 700), dots(y, x), 20)


def everything(segmenter, image, **given):
    config = {name: given.pop(name) for name in list(given) if name not in ("proposals", "stop")}
    return drain(segmenter.everything(image, EverythingConfig(**{"object_size": SIZE, **config}), **given))


@pytest.mark.parametrize("mode", MODES)
def test_a_plane_of_many_tiles_gives_each_object_once(discs, mode):
    image = Lazy((1536, 1920), dots)
    result = everything(discs, image, mode=mode, point_spacing=24)
    places = np.stack(np.mgrid[64:1536:128, 64:1920:128], axis=-1).reshape(-1, 2)
    found = result.labels[places[:, 0], places[:, 1]]
    assert (found > 0).all()
    assert len(set(found.tolist())) == len(places)
    if mode == "object-aware":
        assert len(result.scores) == len(places)
        assert discs.runtime.asked < 3 * len(places)
    assert discs.runtime.encoded == 2 * 2
    assert image.largest <= 1290 * 1290  # never the whole plane


def test_each_part_of_a_plane_is_read_about_once(discs):
    image = Lazy((3000, 3000), corner)
    everything(discs, image, mode="object-aware")
    sampled = image.reads.copy()
    assert sampled.max() <= 14  # 4 tiles in 256 px to normalise, and blocks that overlap by a third
    assert np.median(sampled) <= 8


def test_what_is_blank_is_not_even_encoded_and_memory_is_that_of_a_tile(discs):
    image = Lazy((6000, 6000), corner)
    tracemalloc.start()
    result = everything(discs, image, mode="object-aware")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result.scores) == 36  # those cut at 700 pixels as well
    assert discs.runtime.encoded == 1
    assert image.largest < 1300 * 1300
    assert peak - result.labels.nbytes < 200e6  # the plane as float32 would be 144 MB a copy, in RGB 432 MB


def test_the_object_size_of_a_huge_plane_is_estimated_from_a_bounded_part(discs):
    image = Lazy((20_000, 20_000), lambda y, x: 20 + 180 * ((y % 512 < 40) & (x % 512 < 40)))
    discs.estimate_object_size(image)
    assert image.largest <= READ_PIXELS
    assert image.read < 20_000**2 / 5


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0, 255], ids=["blank", "saturated"])
def test_blank_and_saturated_tiles_give_no_objects(discs, mode, value):
    image = dots(*np.mgrid[:300, :1400])
    image[:, 300:] = value
    result = everything(discs, image.astype(np.uint8), mode=mode)
    assert len(result.scores) >= 4
    assert result.labels[:, 440:].max() == 0
    assert discs.runtime.encoded == 1


@pytest.mark.filterwarnings("ignore:.*NaN or infinite")
def test_tiles_of_nan_give_no_objects(discs):
    image = dots(*np.mgrid[:300, :1400]).astype(np.float32)
    image[:, 300:] = np.nan
    result = everything(discs, image)
    assert len(result.scores) >= 4
    assert result.labels[:, 360:].max() == 0


def test_a_part_that_cannot_be_read_is_named_and_the_cause_is_kept(discs):
    with pytest.raises(ImageError, match=r"rows \d+:\d+, columns \d+:\d+ .OSError: disk on fire") as raised:
        everything(discs, Lazy((600, 600), dots, bad=(200, 300)))
    assert isinstance(raised.value.__cause__, OSError)


def test_a_part_that_fails_only_later_is_named_too(discs):
    image = Lazy((1300, 600), dots)
    work = discs.everything(image, EverythingConfig(object_size=SIZE))
    assert next(work).stage == "encoding the image"
    image.bad = (1290, 5)
    with pytest.raises(ImageError, match=r"rows .*1300, columns 0:600"):
        drain(work)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_found_is_handed_out_as_it_comes_and_looking_at_it_changes_nothing(discs, mode):
    """What is drawn on the way is not drawn again."""
    image = dots(*np.mgrid[:384, :1536]).astype(np.uint8)
    config = EverythingConfig(object_size=SIZE, mode=mode)
    plain = drain(discs.everything(image, config))
    choice, shown, encoded = FirstChoice(), [], []

    def look(step):
        if step.found is not None:
            new = choice.add(step.found)
            shown.extend(new)
            encoded.extend([discs.runtime.encoded] * len(new))

    discs.runtime.encoded = 0
    result = drain(discs.everything(image, config), look)
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_array_equal(result.scores, plain.scores)
    assert {1, 2} == set(encoded)  # the first tile's before the second one was looked at
    places = {tuple(np.add(piece.box[:2], piece.box[2:]) // 2 // 128) for piece in shown}
    assert len(places) == 36
    if mode == "object-aware":  # of the others some repeat an object beside itself
        assert len(shown) == len(result.scores) == 36
        drawn = {id(result.candidates.piece(i)) for i in range(len(result.candidates))}
        assert drawn.issuperset(map(id, shown))


@pytest.mark.parametrize(("mode", "batch"), [("grid", 64), ("hierarchical", 64), ("object-aware", 2)])
def test_stopping_keeps_what_was_found_and_says_so(discs, mode, batch):
    calls = count()
    image = dots(*np.mgrid[:600, :600]).astype(np.uint8)
    result = everything(discs, image, mode=mode, batch=batch, stop=lambda: next(calls) > 8)
    assert not result.complete
    assert 0 < discs.runtime.asked <= 8 * batch
    whole = everything(discs, image, mode=mode)
    assert whole.complete
    assert 0 < len(result.scores) < len(whole.scores)


def test_stopping_at_once_gives_an_empty_result(discs):
    result = everything(discs, dots(*np.mgrid[:300, :300]).astype(np.uint8), stop=lambda: True)
    assert not result.complete
    assert (result.labels.max(), discs.runtime.encoded) == (0, 0)


def test_progress_counts_prompts_and_ends_with_all_of_them(discs):
    steps = []
    image = dots(*np.mgrid[:300, :1900]).astype(np.uint8)
    drain(discs.everything(image, EverythingConfig(object_size=SIZE, mode="grid")), steps.append)
    asking = [step for step in steps if step.stage == "segmenting"]
    assert asking[-1].done == asking[-1].total == discs.runtime.asked
    assert all(0.6 * discs.runtime.asked < step.total < 1.6 * discs.runtime.asked for step in asking)
    assert [step.done for step in asking] == sorted(step.done for step in asking)
    begun = [step for step in steps if step.stage == "encoding the image"]
    assert len(begun) > 1
    assert all(step.done < step.total for step in begun[1:])  # a tile is still to come


SHAPES = [(1, 1), (1, 5000), (8, 4000), (4000, 8), (2, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [0.5, 48, 10_000], ids=["tiny", "usual", "huge"])
def test_odd_shapes_and_sizes_give_labels_of_that_shape(discs, shape, size):
    image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    image[shape[0] // 2 :] //= 4
    result = everything(discs, image, object_size=max(size, 1))
    assert result.labels.shape == shape
    with pytest.raises(Exception, match="object_size"):
        segment_everything(image, model=discs, object_size=0)


def test_ten_thousand_objects_are_no_special_case(discs):
    places = np.stack(np.meshgrid(np.arange(100) * 8 + 4, np.arange(100) * 8 + 4), axis=-1).reshape(-1, 2)
    discs.runtime.radius = 14.0  # in a frame of 4 px to a pixel
    image = dots(*np.mgrid[:800, :800], every=8, radius=3).astype(np.uint8)
    result = everything(discs, image, object_size=7, proposals=places)
    assert len(result.scores) == 10_000
    assert "more than is likely" in result.advice


def test_the_models_head_is_asked_by_one_box_for_each_object(discs):
    image = dots(*np.mgrid[:256, :512]).astype(np.uint8)

    def heat(tokens):
        plane = np.full((5, 2 * tokens.shape[2], 2 * tokens.shape[3]), 24, np.float32)
        plane[0] = 0
        plane[0, 8::16, 8::16] = 0.9
        return plane

    discs.runtime.heat = heat
    result = everything(discs, image)
    assert len(result.scores) == 8
    assert (discs.runtime.asked, discs.runtime.multimask) == (8, {False})


def one_box(y, x):
    """What a head says that proposes one object 48 px wide, at a cell of 8 px."""

    def heat(tokens):
        plane = np.full((5, 2 * tokens.shape[2], 2 * tokens.shape[3]), 24, np.float32)
        plane[0] = 0
        plane[0, y, x] = 0.9
        return plane

    return heat


@pytest.fixture
def decoded(discs):
    """Sides, in tokens, of the windows that were decoded, in their order."""
    sides, plain = [], discs.runtime.decode

    def decode(tokens, prompts, multimask):
        sides.append(tokens.shape[-1])
        return plain(tokens, prompts, multimask)

    discs.runtime.decode = decode
    return sides


def with_small_windows(discs):
    spec = replace(discs.spec, small_windows=(8, 12))
    return Segmenter(spec, discs.runtime, discs.weights_hash)


def test_a_small_object_is_decoded_in_a_small_window_and_is_the_same(discs, decoded):
    image = dots(*np.mgrid[:256, :384]).astype(np.uint8)
    discs.runtime.heat = one_box(8, 24)
    usual = everything(discs, image)
    small = everything(with_small_windows(discs), image)
    assert decoded == [16, 8]
    assert len(usual.scores) == len(small.scores) == 1
    assert np.array_equal(small.labels, usual.labels)


def test_what_a_small_window_cuts_is_asked_for_in_the_usual_one(discs, decoded):
    image = np.full((256, 256), 20, np.uint8)
    image[48:208, 48:208] = 200
    discs.runtime.heat, plain = one_box(16, 16), discs.runtime.decode

    def square(tokens, prompts, multimask):
        """The part of the square that a window shows: bright tokens."""
        logits, iou = plain(tokens, prompts, multimask)
        bright = np.asarray(tokens[:, :1] > 0.5, np.float32).repeat(4, axis=2).repeat(4, axis=3)
        return np.where(np.broadcast_to(bright, logits.shape) > 0, 5, -5).astype(np.float32), iou

    discs.runtime.decode = square
    result = everything(with_small_windows(discs), image)
    assert decoded == [8, 16]
    assert len(result.scores) == 1
    assert np.count_nonzero(result.labels == 1) == pytest.approx(160 * 160, rel=0.05)


def test_a_label_image_is_refined_and_its_ids_are_kept(discs):
    y, x = np.mgrid[:256, :400]
    image = dots(y, x).astype(np.uint8)
    given = np.where(image > 100, (y // 128) * 10 + x // 128 + 40, 0)
    result = everything(discs, image, proposals=given, object_size=None)
    assert set(np.unique(result.labels)) == set(np.unique(given))
    assert result.ids.tolist() == sorted(set(np.unique(given)) - {0})
    assert len(result.scores) == len(result.ids)
    assert result.object_size == pytest.approx(44, abs=6)
    for name in result.ids:
        assert (given[result.labels == name] == name).mean() > 0.8


def test_overlapping_objects_with_ids_are_all_kept_and_lost_ones_are_named(discs):
    boxes = [(20, 20, 70, 70), (25, 25, 75, 75), (100, 100, 150, 150)]
    image = dots(*np.mgrid[:256, :256]).astype(np.uint8)
    result = everything(discs, image, proposals=from_boxes(boxes, ids=[3, 8, 5]))
    assert result.ids.tolist() == [3, 5, 8]
    result = everything(discs, image, proposals=from_boxes([*boxes, boxes[0]], ids=[3, 8, 5, 9]))
    assert (result.missing, result.ids.tolist()) == ((9,), [3, 5, 8])
    assert "No mask was found for 1 of the given objects (9)" in result.advice


def test_objects_larger_than_a_window_are_asked_at_a_coarser_scale(discs):
    image = np.full((700, 900), 20, np.uint8)
    image[150:550, 200:600] = 200
    plain = discs.runtime.decode

    def square(tokens, prompts, multimask):
        """The part of the square that a window shows: bright tokens."""
        logits, iou = plain(tokens, prompts, multimask)
        bright = np.asarray(tokens[:, :1] > 0.5, np.float32).repeat(4, axis=2).repeat(4, axis=3)
        return np.where(np.broadcast_to(bright, logits.shape) > 0, 5, -5).astype(np.float32), iou

    discs.runtime.decode = square
    result = everything(discs, image, proposals=from_points([(350, 400)]))
    assert len(result.scores) == 1
    area = np.count_nonzero(result.labels == 1)
    assert area == pytest.approx(400 * 400, rel=0.2)
    assert discs.runtime.asked <= 4


def test_proposals_are_refused_before_any_work(discs):
    with pytest.raises(PromptError, match="outside"):
        discs.everything(np.ones((50, 50), np.uint8), proposals=[(70, 70)])
    with pytest.raises(PromptError, match="integer labels"):
        segment_everything(np.ones((50, 50), np.uint8), model=discs, proposals=np.ones((3, 3)))
