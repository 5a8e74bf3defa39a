import numpy as np
import pytest

from napari_lightsam.engine.image import prepare_plane
from napari_lightsam.engine.level import Embedding
from napari_lightsam.engine.prompts import check_prompts
from napari_lightsam.engine.scales import pyramid, scales_for
from napari_lightsam.model.spec import ObjectFrame

FRAME = ObjectFrame()


def embedding(size=None, shape=(512, 700)):
    return Embedding(prepare_plane(np.ones(shape, np.uint8)), size, "")


def test_a_known_object_size_is_brought_to_the_models_target():
    assert pyramid(embedding(FRAME.target / 2), FRAME)[0] == pytest.approx(2.0)
    assert pyramid(embedding(2 * FRAME.target), FRAME)[0] == pytest.approx(0.5)


def test_an_unknown_size_is_looked_for_in_octaves_finer_and_coarser():
    scales = pyramid(embedding(), FRAME)
    assert scales[0] == 1
    assert max(scales) > 1
    assert min(scales) < 0.3
    assert len(set(scales)) == len(scales)


@pytest.mark.parametrize("size", [None, 30.0])
def test_all_prompts_of_an_object_share_a_window_at_every_chosen_scale(size):
    prompts = check_prompts(
        (512, 700),
        points=[[(5, 5), (500, 690)], [(5, 5), (5, 9)], [(100, 100), (300, 300)]],
        point_labels=[[1, 0]] * 3,
    )
    spans = [685, 4, 200]
    for span, chosen in zip(spans, scales_for(embedding(size), prompts, FRAME, 16), strict=True):
        assert len(chosen) >= 1
        assert all(span * scale <= 256 for scale in chosen)


def test_a_click_of_unknown_size_is_decoded_at_several_scales_and_a_known_one_at_one():
    click = check_prompts((512, 700), points=[(100, 100)])
    assert len(scales_for(embedding(), click, FRAME, 16)[0]) > 2
    assert len(scales_for(embedding(30.0), click, FRAME, 16)[0]) == 1


@pytest.mark.parametrize("side", [8, 40, 150, 500])
def test_a_box_is_decoded_at_one_scale_at_which_its_object_fits_the_model(side):
    box = check_prompts((512, 700), boxes=(0, 0, side, side))
    (chosen,) = scales_for(embedding(), box, FRAME, 16)
    assert len(chosen) == 1
    assert FRAME.smallest * 0.7 <= side * chosen[0] <= 256
