import warnings
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

from napari_lightsam.engine import image as image_module
from napari_lightsam.engine.image import SAMPLE_PIXELS, prepare_plane
from napari_lightsam.engine.resample import axis_weights
from napari_lightsam.engine.stack import Planes
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import ImageError

REAL = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", ">u2", ">i4", ">f4", ">f8"]


def discs(shape=(80, 100)):
    """Bright discs on a dark ground, 0 and 100."""
    y, x = np.indices(shape)
    return (((y % 40 - 20) ** 2 + (x % 40 - 20) ** 2) < 100) * 100.0


def read(plane):
    return plane.read((0, plane.shape[0]), (0, plane.shape[1]))


@pytest.mark.parametrize("dtype", REAL)
def test_every_real_type_of_number_gives_the_same_normalised_plane(dtype):
    image = discs().astype(dtype)
    unit = read(prepare_plane(image))
    assert unit.dtype == np.float32
    assert unit.shape == (1, 80, 100)
    np.testing.assert_array_equal(unit[0] > 0.5, discs() > 50)
    assert unit.min() == 0
    assert unit.max() == 1


SHAPES = {
    "plane": ((80, 100), "u1", None, 0, False),
    "one sample": ((80, 100, 1), "u1", None, 1, False),
    "two stains": ((80, 100, 2), "u1", None, 2, False),
    "uint8 of three": ((80, 100, 3), "u1", None, 3, True),
    "uint8 of four": ((80, 100, 4), "u1", None, 3, True),
    "uint16 of three": ((80, 100, 3), "u2", None, 3, False),
    "uint16 said to be colour": ((80, 100, 3), "u2", True, 3, True),
    "uint16 with transparency": ((80, 100, 4), "u2", True, 3, True),
    "uint8 said to be stains": ((80, 100, 3), "u1", False, 3, False),
    "float of three": ((80, 100, 3), "f4", None, 3, False),
}


@pytest.mark.parametrize(("shape", "dtype", "rgb", "channels", "colour"), SHAPES.values(), ids=SHAPES.keys())
def test_the_last_axis_is_colour_only_when_said_or_uint8(shape, dtype, rgb, channels, colour):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plane = prepare_plane(image, rgb=rgb)
    assert (plane.channels, plane.colour) == (channels, colour)
    assert len(plane.limits) == (1 if colour or channels <= 1 else channels)
    assert read(plane).shape == (3 if channels > 1 else 1, 80, 100)


def test_four_channels_of_uint16_are_stains_and_the_fourth_is_left_out_with_a_warning():
    with pytest.warns(LightSamWarning, match="first three"):
        plane = prepare_plane(np.ones((8, 8, 4), np.uint16))
    assert (plane.channels, plane.colour) == (3, False)


def test_stains_are_normalised_each_by_itself_and_colour_jointly():
    image = np.stack([discs(), discs() / 10, discs() / 100], axis=-1)
    stains = read(prepare_plane(image))
    assert [channel.max() for channel in stains] == [1, 1, 1]
    colour = read(prepare_plane(image, rgb=True))
    np.testing.assert_allclose([channel.max() for channel in colour], [1, 0.1, 0.01], rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_values_that_are_no_numbers_are_background_with_a_warning(bad):
    image = discs().astype(np.float32)
    image[30:34, 50:60] = bad
    with pytest.warns(LightSamWarning, match="40 of 8000 .*NaN or infinite"):
        plane = prepare_plane(image)
    unit = read(plane)
    assert np.isfinite(unit).all()
    assert (unit[0, 30:34, 50:60] == 0).all()
    assert plane.limits[0] == prepare_plane(np.nan_to_num(image, nan=0, posinf=0, neginf=0)).limits[0]


@pytest.mark.parametrize("dtype", ["u1", "i2", "f8"])
def test_what_a_masked_array_hides_is_background_in_planes_and_stacks(dtype):
    hidden = np.zeros((80, 100), bool)
    hidden[10:50, 30:70] = True
    image = np.ma.masked_array(np.where(hidden, 120, discs()).astype(dtype), hidden)
    with pytest.warns(LightSamWarning, match="1600 of 8000 sampled values"):
        planes = [prepare_plane(image), Planes.of(np.ma.stack([image, image]), 0, None).read(1)]
    for plane in planes:
        assert plane.limits == ((0, 100),)
        assert not read(plane)[0][hidden].any()
        np.testing.assert_array_equal(read(plane)[0] > 0.5, (discs() > 50) & ~hidden)


def test_a_plane_of_nothing_but_nan_is_constant():
    with pytest.warns(LightSamWarning):
        plane = prepare_plane(np.full((20, 20), np.nan))
    assert plane.std == 0
    assert (read(plane) == 0).all()


def test_numbers_beyond_float32_are_tolerated():
    image = discs()
    image[3, 3] = 1e300
    with pytest.warns(LightSamWarning):
        plane = prepare_plane(image)
    np.testing.assert_array_equal(read(plane)[0] > 0.5, discs() > 50)


REFUSED = {
    "complex": (np.ones((4, 4), complex), "complex"),
    "objects": (np.array([[None, 1], [2, 3]]), "object"),
    "text": (np.array([["a", "b"]]), "U1"),
    "dates": (np.zeros((3, 3), "M8[s]"), "datetime"),
    "a line": (np.ones(5), r"1 axes, \(5,\)"),
    "a number": (np.float32(3), "0 axes"),
    "a series of stacks": (np.ones((2, 3, 4, 5)), "4 axes"),
    "a stack": (np.ones((30, 40, 50)), "50 samples.*stack"),
    "no rows": (np.ones((0, 5)), "empty"),
    "no samples": (np.ones((5, 5, 0)), "empty"),
    "a list": ([[1, 2], [3, 4]], "array is needed; got list"),
    "a path": (Path("cells.tif"), r"got the path 'cells.tif'. Read it first, .* read_image"),
    "a group of arrays": (zarr.group(), "got Group. Choose one of its arrays"),
    "a tensor elsewhere": (
        torch.zeros(4, 4, device="meta"),
        r"Tensor of torch.float32.*detach\(\).cpu\(\)",
    ),
    "an unknown shape": (da.ones((8, 8))[da.ones(8) > 0], r"compute_chunk_sizes\(\)"),
}


@pytest.mark.parametrize(("image", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_image_plane_is_refused_in_words(image, words):
    with pytest.raises(ImageError, match=words):
        prepare_plane(image)


@pytest.mark.parametrize("shape", [(), (5,)], ids=str)
def test_no_plane_can_be_chosen_of_less_than_a_plane(shape):
    with pytest.raises(ImageError) as raised:
        prepare_plane(np.ones(shape))
    assert "image[0]" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_a_tensor_is_read_as_the_array_that_it_is(dtype):
    image = discs().astype(np.uint8)
    given, usual = prepare_plane(torch.from_numpy(image).to(dtype)), prepare_plane(image)
    assert np.array_equal(read(given), read(usual))


@pytest.mark.parametrize("shape", [(9, 9), (9, 9, 1), (9, 9, 2)], ids=str)
def test_colour_needs_three_samples(shape):
    with pytest.raises(ImageError, match="3 or 4 samples"):
        prepare_plane(np.ones(shape), rgb=True)


LIMITS = {
    "upside down": ((5.0, 1.0),),
    "nothing between": ((1.0, 1.0),),
    "two pairs": ((0.0, 1.0), (0.0, 1.0)),
    "no number": ((np.nan, 1.0),),
    "infinite": ((-np.inf, np.inf),),
}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS.keys())
def test_limits_that_do_not_fit_are_refused(limits):
    with pytest.raises(ImageError, match="low < high"):
        prepare_plane(np.ones((8, 8)), limits=limits)


def test_given_limits_replace_those_of_the_data():
    plane = prepare_plane(discs(), limits=((0.0, 200.0),))
    assert read(plane).max() == 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 2), (1, 1, 3)], ids=str)
def test_the_smallest_planes_are_read(shape):
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    plane = prepare_plane(image)
    assert read(plane).shape[-2:] == shape[:2]
    assert np.isfinite([plane.mean, plane.std]).all()


NOISE = {
    **{
        f"normal, deviation {s}": lambda g, s=s: g.normal(100, s, (192, 256)).astype(np.float32)
        for s in (0.01, 1, 30)
    },
    **{
        f"8 bit, deviation {s}": lambda g, s=s: g.normal(100, s, (192, 256)).round().astype(np.uint8)
        for s in (0.3, 0.6, 3, 20)
    },
    **{
        f"{n} counts": lambda g, n=n: g.poisson(n, (192, 256)).astype(np.uint16)
        for n in (0.02, 0.1, 0.5, 3, 100)
    },
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())
def test_blank_noise_is_not_stretched(noise, seed):
    assert prepare_plane(noise(np.random.default_rng(seed))).std < 0.14


def test_a_few_cells_in_a_large_dark_field_are_normalised_like_many():
    noise = np.random.default_rng(0).normal(10, 0.5, (640, 640))
    few, many = noise.copy(), noise.copy()
    few[:80, :100] += discs()
    for y in range(0, 640, 80):
        for x in range(0, 600, 100):
            many[y : y + 80, x : x + 100] += discs()
    (few_low, few_high), (many_low, many_high) = (prepare_plane(i).limits[0] for i in (few, many))
    assert few_high == pytest.approx(many_high, rel=0.05)
    assert few_low == pytest.approx(many_low, abs=1)


def test_one_small_object_on_an_even_ground_is_seen():
    image = np.full((400, 400), 7, np.uint16)
    image[100:108, 100:108] = 900
    plane = prepare_plane(image)
    assert plane.std > 0
    np.testing.assert_array_equal(read(plane)[0] > 0.5, image > 7)


def test_the_input_is_never_modified_and_need_not_be_contiguous_or_writable(nuclei):
    image, _ = nuclei
    expected = read(prepare_plane(image))
    wide = np.zeros((512, 512), image.dtype)
    wide[::2, ::2] = image
    strided = wide[::2, ::2]
    frozen = image.copy()
    frozen.flags.writeable = False
    for other in (strided, frozen, np.asfortranarray(image)):
        before = other.copy()
        np.testing.assert_array_equal(read(prepare_plane(other)), expected)
        np.testing.assert_array_equal(other, before)


@pytest.mark.parametrize("factor", [257, 1 / 255], ids=["uint16", "float in the unit range"])
def test_the_scale_of_grey_values_does_not_matter(nuclei, factor):
    image, _ = nuclei
    other = image.astype(np.uint16) * 257 if factor == 257 else image * factor
    np.testing.assert_allclose(read(prepare_plane(other)), read(prepare_plane(image)), atol=1e-5)


class Spy:
    """A huge array that tells what is read of it."""

    def __init__(self, shape):
        self.shape, self.dtype, self.reads = shape, np.dtype(np.uint16), []

    def __getitem__(self, key):
        rows, columns = (range(*part.indices(n)) for part, n in zip(key, self.shape, strict=True))
        self.reads.append(len(rows) * len(columns))
        return np.add.outer(np.arange(len(rows)), np.arange(len(columns))).astype(np.uint16)


@pytest.mark.parametrize("shape", [(100_000, 80_000), (3, 50_000_000), (60_000_000, 2)], ids=str)
def test_of_a_huge_plane_only_a_bounded_sample_is_read(shape):
    spy = Spy(shape)
    prepare_plane(spy)
    assert sum(spy.reads) <= 1.5 * SAMPLE_PIXELS
    assert max(spy.reads) <= 200 * 200


def test_sam_gets_the_values_of_a_uint8_image_as_they_are(nuclei):
    image, _ = nuclei
    plane = prepare_plane(image).to_uint8()
    assert plane.shape == (256, 256, 3)
    np.testing.assert_array_equal(plane, np.repeat(image[..., None], 3, axis=2))
    stretched = prepare_plane(image.astype(np.uint16) * 100).to_uint8()
    assert stretched.max() == 255


def test_a_part_keeps_the_normalisation_of_the_whole(nuclei):
    plane = prepare_plane(nuclei[0])
    part = plane.part((100, 180), (40, 90))
    np.testing.assert_array_equal(read(part), read(plane)[:, 100:180, 40:90])


def test_a_part_too_large_to_be_held_is_resized_piece_by_piece(monkeypatch):
    plane = prepare_plane(np.random.default_rng(0).integers(0, 255, (300, 500), np.uint8))
    rows, columns = (
        axis_weights((5, 60), 0.2, 300, antialias=True),
        axis_weights((0, 100), 0.2, 500, antialias=True),
    )
    whole = plane.resized(rows, columns)
    monkeypatch.setattr(image_module, "READ_PIXELS", 2000)
    np.testing.assert_allclose(plane.resized(rows, columns), whole, atol=1e-5)


def test_a_part_of_an_array_on_disk_is_not_read_before_it_is_asked_for():
    spy = Spy((9000, 9000))
    plane = prepare_plane(spy)
    before = len(spy.reads)
    part = plane.part((100, 4000), (200, 5000))
    assert len(spy.reads) == before
    assert part.read((10, 20), (30, 50)).shape == (1, 10, 20)
    assert part.contrast() > 0
    assert sum(spy.reads[before:]) < 30_000


def test_a_read_that_fails_names_the_rows_and_columns():
    class Torn(Spy):
        def __getitem__(self, key):
            raise ValueError("torn")

    with pytest.raises(ImageError, match=r"rows 0:100, columns 0:90 .ValueError: torn") as raised:
        prepare_plane(Torn((100, 90)))
    assert isinstance(raised.value.__cause__, ValueError)
