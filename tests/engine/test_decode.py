"""Prompts are decoded in windows and batches; neither changes an answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_lightsam.engine.decode import _mask_prompt, decode, encode_block, window_size, window_sizes
from napari_lightsam.engine.level import Block, make_level
from napari_lightsam.engine.prompts import Prompts, check_prompts
from napari_lightsam.model.sam import PromptTensors
from napari_lightsam.model.spec import ModelSpec


def clicks(points):
    points = np.asarray(points, np.float64)
    return Prompts(points[:, None], np.ones((len(points), 1), np.intp))


def gather(segmenter, embedding, prompts, scale=1.0, batch=64, multimask=True):
    """All answers in the order of the prompts."""
    level = segmenter.level(embedding, scale)
    parts = list(
        decode(segmenter.runtime, embedding, level, prompts, segmenter.spec, multimask=multimask, batch=batch)
    )
    index = np.concatenate([part.index for part in parts])
    assert sorted(index.tolist()) == list(range(len(prompts)))
    order = np.argsort(index)
    return tuple(
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("logits", "iou", "origins")
    )


@pytest.fixture(scope="module")
def oblong(sample):
    image, _ = sample("nuclei_fluorescence")
    return image[100:300, 100:470]  # neither side is a multiple of 256


POINTS = [(0, 0), (199, 369), (0, 369), (199, 0), (100, 185), (30.4, 200.6), (150, 12), (90, 300)]


@pytest.mark.parametrize("scale", [1.0, 2.0], ids=["one row of windows", "many windows"])
def test_prompts_together_answer_like_each_alone(segmenter, oblong, scale):
    embedding = segmenter.lazy_embedding(oblong)
    logits, iou, origins = gather(segmenter, embedding, clicks(POINTS), scale)
    assert logits.shape == (len(POINTS), 3, 64, 64)
    for i, point in enumerate(POINTS):
        alone, alone_iou, origin = gather(segmenter, embedding, clicks([point]), scale)
        np.testing.assert_allclose(logits[i], alone[0], atol=2e-4 * logits.std())
        np.testing.assert_allclose(iou[i], alone_iou[0], atol=1e-5)
        assert origins[i].tolist() == origin[0].tolist()


def test_the_size_of_a_batch_changes_nothing_but_rounding(segmenter, oblong):
    embedding = segmenter.lazy_embedding(oblong)
    logits, iou, _ = gather(segmenter, embedding, clicks(POINTS))
    small, small_iou, _ = gather(segmenter, embedding, clicks(POINTS), batch=3)
    np.testing.assert_allclose(small, logits, atol=2e-4 * logits.std())
    np.testing.assert_allclose(small_iou, iou, atol=1e-5)


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.1])
def test_every_window_lies_in_the_frame_and_holds_its_prompt(segmenter, oblong, scale):
    embedding = segmenter.lazy_embedding(oblong)
    level = segmenter.level(embedding, scale)
    side = window_size(level, segmenter.spec)
    assert side == 256
    _, _, origins = gather(segmenter, embedding, clicks(POINTS), scale)
    start, frame = origins * 4, np.array(POINTS) * level.scale
    assert (start >= 0).all()
    assert (start + side <= level.padded).all()
    assert (start <= frame).all()
    assert (frame < start + side).all()


def test_a_window_is_decoded_exactly_as_its_tokens_alone(segmenter, oblong):
    embedding = segmenter.lazy_embedding(oblong)
    logits, _, origins = gather(segmenter, embedding, clicks([(90, 360)]), 4.0)
    level = segmenter.level(embedding, 4.0)
    block = level.block_of(*(int(v) * 4 for v in origins[0]), 256)
    assert block.x > 0  # not the first block of the frame
    tokens = encode_block(segmenter.runtime, embedding, level, block, segmenter.spec)
    y, x = (origins[0] * 4 - (block.y, block.x)) // 16
    window = tokens[..., y : y + 16, x : x + 16]
    at = [(360 + 0.5) * 4 - 0.5 - origins[0, 1] * 4, (90 + 0.5) * 4 - 0.5 - origins[0, 0] * 4]
    prompts = PromptTensors(torch.tensor([[at]], dtype=torch.float32), torch.ones(1, 1, dtype=torch.long))
    expected, _ = segmenter.runtime.decode(window, prompts, True)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * logits.std())


def test_a_block_is_encoded_once(segmenter, oblong, monkeypatch):
    encoded = []
    encode = segmenter.runtime.encode
    monkeypatch.setattr(
        segmenter.runtime, "encode", lambda frame: encoded.append(frame.shape) or encode(frame)
    )
    embedding = segmenter.lazy_embedding(oblong)
    for _ in range(2):
        gather(segmenter, embedding, clicks(POINTS))
    assert encoded == [(3, 256, 384)]


def test_models_of_a_fixed_frame_decode_the_whole_frame():
    spec = ModelSpec("sam", "SAM", window=16)
    assert window_size(make_level((300, 400), spec), spec) == 0


def test_a_mask_prompt_covers_its_object_in_the_window(segmenter, oblong):
    mask = np.zeros(oblong.shape, bool)
    mask[64:136, 96:216] = True  # whole logits at this scale: 8 px each
    prompts = check_prompts(oblong.shape, mask=mask)
    level = segmenter.level(segmenter.lazy_embedding(oblong), 0.5)
    drawn = _mask_prompt(prompts.masks[0], level, np.array([0, 0]), 64)
    expected = np.zeros((64, 64), bool)
    expected[8:17, 12:27] = True
    np.testing.assert_array_equal(drawn > 0, expected)
    assert drawn.max() == -drawn.min() == 8
    shifted = _mask_prompt(prompts.masks[0], level, np.array([10, 20]), 64)
    np.testing.assert_array_equal(shifted[:20, :20], drawn[10:30, 20:40])
    outside = _mask_prompt(prompts.masks[0], level, np.array([40, 40]), 64)
    assert (outside == -8).all()


def test_encoding_gives_tokens_of_the_block(segmenter, oblong):
    embedding = segmenter.lazy_embedding(oblong)
    level = segmenter.level(embedding, 1.0)
    tokens = encode_block(segmenter.runtime, embedding, level, Block(0, 0, *level.padded), segmenter.spec)
    assert tuple(tokens.shape) == (1, 256, 16, 24)


def test_small_objects_get_small_windows_where_the_model_knows_them(segmenter, oblong):
    level = segmenter.level(segmenter.lazy_embedding(oblong), 2.0)
    sides = np.array([5, 37, 39, 57, 58, 200]) / 2.0
    boxes = np.stack([0 * sides, 0 * sides, sides, np.full_like(sides, 3.0)], axis=1)
    prompts = check_prompts(oblong.shape, boxes=boxes * 2)
    spec = replace(segmenter.spec, window=16, small_windows=(8, 12))
    assert window_sizes(prompts, level, spec).tolist() == [128, 128, 192, 192, 256, 256]
    assert window_sizes(clicks(POINTS), level, spec).tolist() == [256] * len(POINTS)
    assert window_sizes(prompts, level, replace(spec, small_windows=())).tolist() == [256] * 6
