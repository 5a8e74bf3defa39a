"""An object followed through a stack: how well, how it ends, and what is never touched."""

import numpy as np
import pytest
from scipy import ndimage

from napari_lightsam.engine.carry import carry
from napari_lightsam.engine.image import prepare_plane
from napari_lightsam.engine.masks import crop_mask
from napari_lightsam.engine.progress import drain
from napari_lightsam.engine.propagate import Ending, Found, PropagateConfig, propagate
from napari_lightsam.errors import ConfigError, ImageError, PromptError


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def disc(centre, radius, side=96):
    return np.hypot(*(np.ogrid[:side, :side][k] - centre[k] for k in range(2))) <= radius


def moving(count, *, until=None, step=1.5):
    """A bright disc on a textured ground that moves to the right; after `until` it is not there."""
    ground = ndimage.gaussian_filter(np.random.default_rng(3).normal(0, 1, (96, 96)), 2)
    truth = np.stack([disc((48, 30 + step * z), 12) for z in range(count)])
    shown = truth & (np.arange(count) <= (count if until is None else until))[:, None, None]
    soft = ndimage.gaussian_filter(shown.astype(np.float32), (0, 1, 1))
    return (60 + 150 * soft + 60 * ground).clip(0, 255).astype(np.uint8), truth


def test_a_mask_is_carried_by_what_is_seen_to_move():
    stack, truth = moving(2, step=3)
    before, after = (prepare_plane(plane) for plane in stack)
    moved, match = carry(crop_mask(truth[0]), before, after)
    assert iou(moved.to_array((96, 96)), truth[1]) > 0.9 > iou(truth[0], truth[1])
    assert match > 0.9


def test_a_neurite_is_followed_on_real_planes_better_than_by_copying_its_mask(sample, segmenter):
    image, labels = sample("neurites_fibsem_3d")
    rows, columns = (slice(max(0, s.start - 24), s.stop + 24) for s in ndimage.find_objects(labels)[2][1:])
    stack, truth = image[12:19, rows, columns], labels[12:19, rows, columns] == 3
    steps = []
    work = propagate(stack, 0, truth[0], model=segmenter, object_size=30)
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            found = end.value
            break
    assert sorted(found.masks) == [1, 2, 3, 4, 5, 6]
    assert [step.plane for step in steps if isinstance(step, Found)] == [1, 2, 3, 4, 5, 6]
    assert found.endings == {1: (7, Ending.EDGE), -1: (-1, Ending.EDGE)}
    overlaps = [iou(found.masks[z].to_array(truth[z].shape), truth[z]) for z in found.masks]
    copied = [iou(truth[0], truth[z]) for z in found.masks]
    assert min(overlaps) > 0.75
    assert np.mean(overlaps) > np.mean(copied)


def test_a_run_ends_where_the_object_does_and_only_the_wanted_side_is_looked_at(discs):
    stack, truth = moving(9, until=5)
    found = drain(propagate(stack, 2, truth[2], direction="forward", model=discs))
    assert set(found.masks) == {3, 4, 5}
    assert found.endings[1][0] == 6
    assert found.endings[1][1] in (Ending.SCORE, Ending.GONE, Ending.JUMP)
    assert -1 not in found.endings


def test_the_model_has_its_say_near_the_edge_only_where_it_is_trusted(discs):
    stack, truth = moving(2, step=0)
    rough = truth[0] ^ (truth[0] & disc((48, 42), 2))  # a notch that the model does not draw
    by_model, carried = (
        drain(propagate(stack, 0, rough, model=discs, config=PropagateConfig(min_trust=trust, min_score=0)))
        for trust in (0.5, 1.0)
    )
    notch = truth[0] & ~rough
    assert by_model.trust > 0.8
    assert (by_model.masks[1].to_array((96, 96)) & notch).sum() > (
        carried.masks[1].to_array((96, 96)) & notch
    ).sum()
    assert by_model.score == pytest.approx(0.9)


def test_a_run_stays_within_the_planes_asked_for_along_any_axis_and_can_be_stopped(discs):
    stack, truth = moving(7, step=0)
    lazy = np.moveaxis(stack, 0, 2)
    found = drain(propagate(lazy, 3, truth[3], axis=2, within=(2, 6), model=discs))
    assert sorted(found.masks) == [2, 4, 5]
    assert found.endings == {1: (6, Ending.LIMIT), -1: (1, Ending.LIMIT)}
    calls = iter([False, True, True])
    stopped = drain(propagate(stack, 3, truth[3], model=discs, stop=lambda: next(calls)))
    assert sorted(stopped.masks) == [4]
    assert stopped.endings[1] == (5, Ending.STOPPED)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"start": 3}, ImageError, "no plane 3"),
        ({"mask": np.zeros((96, 96), bool)}, PromptError, "empty"),
        ({"mask": np.ones((9, 9), bool)}, PromptError, r"\(96, 96\)"),
    ],
    ids=["plane", "empty mask", "shape"],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(discs, change, error, says):
    given = {"start": 1, "mask": disc((48, 48), 9), **change}
    with pytest.raises(error, match=says):
        drain(propagate(np.zeros((3, 96, 96), np.uint8), given["start"], given["mask"], model=discs))
    with pytest.raises(ConfigError):
        PropagateConfig(min_score=2)
    with pytest.raises(ConfigError, match="direction must be"):
        next(propagate(np.zeros((3, 96, 96)), 1, disc((48, 48), 9), direction="up", model=discs))
