import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine import level as levels
from napari_lightsam.engine.image import prepare_plane
from napari_lightsam.engine.level import (
    BLOCK,
    Block,
    BlockCache,
    BlockReader,
    Level,
    make_level,
    read_block,
    window_start,
)
from napari_lightsam.model.spec import FixedFrame, ModelSpec, ObjectFrame

OWN = ModelSpec("own", "Own", frame=ObjectFrame(), window=16)
SAM = ModelSpec("sam", "SAM")
quick = settings(max_examples=60, deadline=None)
sides = st.integers(1, 5000)


@quick
@given(sides, sides)
def test_a_fixed_frame_has_its_longest_side_filled(height, width):
    level = make_level((height, width), SAM)
    assert level.padded == (1024, 1024)
    assert max(level.frame) == 1024
    factor = 1024 / max(height, width)
    assert level.frame == tuple(max(1, int(n * factor + 0.5)) for n in (height, width))


@quick
@given(sides, sides, st.floats(0.01, 4))
def test_a_frame_of_any_size_is_padded_to_the_next_multiple(height, width, scale):
    level = make_level((height, width), OWN, scale)
    for side, padded in zip(level.frame, level.padded, strict=True):
        assert padded % 64 == 0
        assert padded == 256 or 256 < padded < side + 64
        assert padded >= side >= 1


@quick
@given(st.integers(4, 120), st.integers(4, 120), st.data())
def test_every_window_lies_whole_inside_the_block_it_is_decoded_in(rows, columns, data):
    padded = rows * 64, columns * 64
    level = Level(padded, padded, padded, fixed=False)
    y, x = (data.draw(st.integers(0, (n - 256) // 16)) * 16 for n in padded)
    block = level.block_of(y, x, 256)
    assert block.y in level.blocks()[0]
    assert block.x in level.blocks()[1]
    assert block.y <= y <= y + 256 <= block.y + block.height <= padded[0]
    assert block.x <= x <= x + 256 <= block.x + block.width <= padded[1]
    assert max(block.height, block.width) <= BLOCK


@quick
@given(st.integers(21, 200), st.data())
def test_blocks_that_share_less_are_no_more_and_hold_windows_of_half_the_side(units, data):
    length = units * 64
    wide = Level((256, length), (256, length), (256, length), fixed=False)
    level = wide.narrow()
    assert len(level.block_list()) <= len(wide.block_list())
    assert {b.x - a.x <= a.width - 128 for a, b in itertools.pairwise(level.block_list())} == {True}
    x = data.draw(st.integers(0, (length - 128) // 16)) * 16
    block = level.block_of(0, x, 128)
    assert block.x <= x <= x + 128 <= block.x + block.width


def test_a_plane_of_one_block_is_the_same_level_however_little_blocks_share():
    level = make_level((1200, 1200), OWN, 1.0)
    assert level.narrow() is level
    wide = make_level((8192, 8192), OWN, 1.0)
    assert len(wide.narrow().block_list()) == 49
    assert len(wide.block_list()) == 64


@quick
@given(st.integers(4, 400))
def test_blocks_along_an_axis_are_equal_and_no_more_than_needed(units):
    length = units * 64
    level = Level((256, length), (256, length), (256, length), fixed=False)
    blocks = level.block_list()
    assert {block.width for block in blocks} == {blocks[0].width}
    assert blocks[0].x == 0
    assert blocks[-1].x + blocks[-1].width == length
    assert len(blocks) == max(1, -(-(length - 256) // (BLOCK - 256)))


@quick
@given(st.floats(-100, 5000), st.integers(1, 16))
def test_windows_start_on_a_token_and_stay_inside_the_frame(centre, multiples):
    length = multiples * 256
    start = window_start(centre, length, 256)
    assert start % 16 == 0
    assert 0 <= start <= length - 256
    if 128 <= centre < length - 128:
        assert start + 112 <= centre < start + 144


def test_blocks_of_one_plane_equal_the_parts_of_the_whole_frame(nuclei):
    plane = prepare_plane(nuclei[0])
    level = make_level(plane.shape, OWN, 1.3)
    whole = read_block(plane, level, Block(0, 0, *level.padded), OWN)
    part = read_block(plane, level, Block(128, 64, 256, 256), OWN)
    assert whole.shape == (3, 384, 384)
    np.testing.assert_allclose(part, whole[:, 128:, 64:320], atol=1e-5)
    assert (whole[:, level.frame[0] :] == 0).all()


def test_a_sam_frame_is_the_resized_uint8_image_with_sams_mean_and_deviation(nuclei):
    plane = prepare_plane(nuclei[0][:200])
    level = make_level(plane.shape, ModelSpec("s", "S", frame=FixedFrame(size=256)))
    frame = read_block(plane, level, Block(0, 0, 256, 256), ModelSpec("s", "S", frame=FixedFrame(size=256)))
    back = frame[:, :200] * np.array(FixedFrame().std).reshape(3, 1, 1) + np.array(FixedFrame().mean).reshape(
        3, 1, 1
    )
    np.testing.assert_allclose(back, np.stack([nuclei[0][:200]] * 3), atol=1e-3)
    assert (frame[:, 200:] == 0).all()


def test_the_cache_forgets_the_block_that_was_used_longest_ago():
    cache, level = BlockCache(8), make_level((9, 9), OWN, 1.0)
    for i in range(8):
        cache.put(level, Block(i, 0, 1, 1), i)
    assert cache.get(level, Block(0, 0, 1, 1)) == 0
    cache.put(level, Block(8, 0, 1, 1), 8)
    assert cache.get(level, Block(1, 0, 1, 1)) is None
    assert cache.get(level, Block(0, 0, 1, 1)) == 0


@pytest.mark.parametrize(
    "level", [make_level((100, 300), OWN, 0.7), make_level((300, 90), SAM)], ids=["own", "sam"]
)
def test_mask_weights_reach_every_image_pixel(level):
    for axis in (0, 1):
        weights = level.mask_weights(axis, (0, level.shape[axis]))
        assert weights.matrix.shape[0] == level.shape[axis]
        np.testing.assert_allclose(weights.matrix.sum(axis=1), 1, atol=1e-5)


@quick
@given(st.integers(1, 4000), st.integers(1, 4000))
def test_every_frame_pixel_belongs_to_one_block_and_its_window_lies_inside(height, width):
    level = make_level((height, width), OWN, 1.0)
    covered = np.zeros(tuple(n // 16 for n in level.padded), int)
    for block in level.block_list():
        y0, x0, y1, x1 = level.own(block)
        covered[y0 // 16 : y1 // 16, x0 // 16 : x1 // 16] += 1
        for axis, (low, high) in enumerate(((y0, y1), (x0, x1))):
            for at in (low, high - 1):
                start = window_start(at, level.padded[axis], min(256, level.padded[axis]))
                assert block[axis] <= start
                assert start + 256 <= block[axis] + block[axis + 2]
    assert (covered == 1).all()


def test_a_reader_gives_what_is_read_block_by_block_and_reads_shared_columns_once():
    image = np.random.default_rng(0).integers(0, 255, (300, 2000), np.uint8)
    plane, level = prepare_plane(image), make_level(image.shape, OWN, 1.2)
    reader, reads = BlockReader(plane, level, OWN), []
    plain = levels.read_block

    def read(plane, level, block, spec):
        reads.append(block.width)
        return plain(plane, level, block, spec)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "read_block", read)
        for block in level.block_list():
            found = reader.read(block)
            np.testing.assert_allclose(found, plain(plane, level, block, OWN), atol=1e-5)
            assert reader.read(block) is found
    assert sum(reads) == level.padded[1]


@pytest.mark.parametrize("shape", [(1500, 1100), (700, 3000)], ids=str)
def test_a_fixed_frame_is_resized_in_strips_within_one_grey(shape, monkeypatch):
    plane = prepare_plane(np.random.default_rng(0).integers(0, 255, shape, np.uint8))
    level = make_level(shape, SAM)
    whole = read_block(plane, level, *level.block_list(), SAM)
    monkeypatch.setattr(levels, "_STRIP_PIXELS", 200_000)
    strips = read_block(plane, level, *level.block_list(), SAM)
    np.testing.assert_allclose(strips, whole, atol=1.01 / min(FixedFrame().std))
    assert (strips != whole).mean() < 0.001
