import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_lightsam.engine.resample import apply_weights, axis_weights

quick = settings(max_examples=40, deadline=None)
lengths = st.integers(1, 60)


def resize(array, shape, antialias, rows=None, columns=None):
    """A block of `array` resized to `shape`."""
    scale = [n / m for n, m in zip(shape, array.shape[-2:], strict=True)]
    weights = [
        axis_weights(block or (0, n), s, m, antialias=antialias)
        for block, n, s, m in zip((rows, columns), shape, scale, array.shape[-2:], strict=True)
    ]
    y, x = weights
    return apply_weights(array[..., y.start : y.stop, x.start : x.stop], y, x)


@quick
@given(size=lengths, out=lengths, antialias=st.booleans(), data=st.data())
def test_weights_of_every_output_sum_to_one_and_are_not_negative(size, out, antialias, data):
    a = data.draw(st.integers(0, out - 1))
    b = data.draw(st.integers(a + 1, out))
    weights = axis_weights((a, b), out / size, size, antialias=antialias)
    assert weights.matrix.shape == (b - a, weights.stop - weights.start)
    assert 0 <= weights.start < weights.stop <= size
    np.testing.assert_allclose(weights.matrix.sum(axis=1), 1, atol=1e-6)
    assert weights.matrix.min() >= 0


# torch's antialiased filter takes planes one pixel wide for another memory layout and skips the rows
wide = st.integers(2, 60)


@quick
@given(h=wide, w=wide, oh=wide, ow=wide, antialias=st.booleans(), seed=st.integers(0, 99))
def test_resizing_equals_torch(h, w, oh, ow, antialias, seed):
    image = np.random.default_rng(seed).random((2, h, w), np.float32)
    ours = resize(image, (oh, ow), antialias)
    theirs = F.interpolate(torch.from_numpy(image)[None], (oh, ow), mode="bilinear", antialias=antialias)[0]
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)


@quick
@given(h=lengths, w=lengths, oh=lengths, ow=lengths, antialias=st.booleans(), data=st.data())
def test_a_block_equals_the_same_block_of_the_whole(h, w, oh, ow, antialias, data):
    image = np.random.default_rng(h * 61 + w).random((1, h, w), np.float32)
    y0, x0 = data.draw(st.integers(0, oh - 1)), data.draw(st.integers(0, ow - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, oh)), data.draw(st.integers(x0 + 1, ow))
    block = resize(image, (oh, ow), antialias, (y0, y1), (x0, x1))
    whole = resize(image, (oh, ow), antialias)
    np.testing.assert_allclose(block, whole[:, y0:y1, x0:x1], atol=1e-6)


def test_no_outputs_need_almost_nothing():
    assert axis_weights((3, 3), 0.5, 10).matrix.shape == (0, 1)


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0, 3.7])
def test_beyond_the_border_the_last_sample_is_repeated(scale):
    image = np.array([[1.0, 5.0]], np.float32)
    x = axis_weights((0, round(2 * scale) or 1), scale, 2)
    row = image[:, x.start : x.stop] @ x.matrix.T
    assert row.min() >= 1
    assert row.max() <= 5
