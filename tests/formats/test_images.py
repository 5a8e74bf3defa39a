"""Reading images: axes, colour, channels, pixel size, and files that are not what they seem."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from makers import write_lif, write_nd2
from PIL import Image

import napari_lightsam
from napari_lightsam.engine.warned import LightSamWarning
from napari_lightsam.errors import FileError
from napari_lightsam.formats.convert import read_objects
from napari_lightsam.formats.images import ImageFile, read_image, read_info, read_pixel_size
from napari_lightsam.formats.zarrs import find_zarr_labels, read_levels

SAMPLES = Path(napari_lightsam.__file__).parent / "samples"


def ramp(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_ome(path: Path, data: np.ndarray, axes: str, **metadata: object) -> Path:
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})
    return path


# --- axes and colour


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [
        ("nuclei_fluorescence", "YX", (520, 696)),
        ("cells_phase_contrast", "YX", (1022, 1024)),
        ("nuclei_histology", "YXS", (256, 320, 3)),
        ("neurites_fibsem_3d", "QYX", (25, 250, 250)),
    ],
)
def test_a_bundled_sample_is_read_with_its_axes(name: str, axes: str, shape: tuple[int, ...]) -> None:
    image = read_image(SAMPLES / f"{name}.tif")

    assert image.axes == axes
    assert image.data.shape == image.shape == shape
    np.testing.assert_array_equal(image.data, tifffile.imread(SAMPLES / f"{name}.tif"))


@pytest.mark.parametrize("axes", ["CYX", "ZYX", "TYX", "TCYX", "ZCYX", "TZCYX"])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_the_axes_a_file_names_are_kept(tmp_path: Path, kind: str, axes: str) -> None:
    shape = tuple({"T": 2, "Z": 3, "C": 4, "Y": 11, "X": 13}[a] for a in axes)
    data = ramp(*shape)
    options = {kind: True, "photometric": "minisblack", "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)

    image = read_image(tmp_path / "a.tif")

    assert image.axes == axes
    np.testing.assert_array_equal(image.data, data)


@pytest.mark.parametrize(
    ("data", "options", "axes"),
    [
        (ramp(9, 8, 4), {}, "YXC"),
        (ramp(9, 8, 4), {"photometric": "rgb"}, "YXC"),
        (ramp(9, 8, 4), {"photometric": "minisblack", "planarconfig": "contig"}, "YXC"),
        (ramp(9, 8, 3), {"photometric": "rgb"}, "YXS"),
        (ramp(9, 8, 3, dtype="uint8"), {"photometric": "rgb"}, "YXS"),
        (ramp(9, 8, 4, dtype="uint8"), {"photometric": "rgb"}, "YXS"),
        (ramp(9, 8, 3, dtype="uint8"), {"photometric": "minisblack", "planarconfig": "contig"}, "YXS"),
        (ramp(3, 9, 8, dtype="uint8"), {"photometric": "rgb", "planarconfig": "separate"}, "YXS"),
        (ramp(3, 9, 8), {"photometric": "rgb", "planarconfig": "separate"}, "QYX"),
        (ramp(5, 9, 8), {"photometric": "minisblack"}, "QYX"),
    ],
    ids=[
        "four uint16 samples", "four uint16 samples marked RGB", "four plain uint16 samples", "16-bit RGB",
        "8-bit RGB", "8-bit RGBA", "8-bit samples not marked", "8-bit planar RGB",
        "three uint16 planes that the writer marked", "planes without meaning",
    ],
)  # fmt: skip
def test_colour_is_only_what_the_file_or_eight_bits_say(
    tmp_path: Path, data: np.ndarray, options: dict[str, str], axes: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", data, **options)

    image = read_image(tmp_path / "a.tif")

    assert image.axes == axes
    assert image.data.shape == image.shape
    assert ("S" in axes) is (image.axes.endswith("S"))
    if axes == "YXS":
        assert image.plane()[1] is True


@pytest.mark.parametrize("compression", ["lzw", "zlib", "jpeg", "packbits"])
def test_compressed_tiff_is_read(tmp_path: Path, compression: str) -> None:
    data = tifffile.imread(SAMPLES / "nuclei_fluorescence.tif")
    tifffile.imwrite(tmp_path / "a.tif", data, compression=compression)

    read = read_image(tmp_path / "a.tif").data.astype(float)

    assert abs(read - data).max() <= (30 if compression == "jpeg" else 0)


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}], ids=str)
def test_variants_of_tiff_are_read(tmp_path: Path, options: dict[str, object]) -> None:
    data = ramp(50, 40)
    tifffile.imwrite(tmp_path / "a.tif", data, **options)

    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").data, data)


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (ramp(30, 20), ".png"),
        (ramp(30, 20, dtype="uint8"), ".png"),
        (ramp(30, 20, 3, dtype="uint8"), ".png"),
        (ramp(30, 20, 4, dtype="uint8"), ".png"),
        (ramp(30, 20, dtype="uint8"), ".bmp"),
        (ramp(30, 20, 3, dtype="uint8"), ".bmp"),
    ],
    ids=["16-bit png", "8-bit png", "rgb png", "rgba png", "grey bmp", "rgb bmp"],
)
def test_a_lossless_picture_is_read_as_it_is(tmp_path: Path, data: np.ndarray, suffix: str) -> None:
    Image.fromarray(data).save(tmp_path / f"a{suffix}")

    image = read_image(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(image.data, data)
    assert image.data.dtype == data.dtype
    plane, rgb = image.plane()
    assert rgb is (data.ndim == 3)
    assert plane.shape == data.shape[:2] + ((3,) if rgb else ())


def test_sixteen_bit_colour_png_keeps_its_depth(tmp_path: Path) -> None:
    import imagecodecs

    data = ramp(30, 20, 3) * 30
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(data))

    image = read_image(tmp_path / "a.png")

    np.testing.assert_array_equal(image.data, data)
    assert image.plane()[1]


@pytest.mark.parametrize("mode", ["1", "P", "LA"])
def test_rare_png_modes_become_grey_or_colour(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray((ramp(30, 20) % 2 * 255).astype("uint8"))
    grey.convert("RGB").convert(mode).save(tmp_path / "a.png")

    plane, rgb = read_image(tmp_path / "a.png").plane()

    assert rgb is (mode == "P")
    np.testing.assert_array_equal(plane[..., 0] if rgb else plane, np.asarray(grey))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_is_read(tmp_path: Path, mode: str) -> None:
    sample = tifffile.imread(SAMPLES / "nuclei_histology.tif")
    Image.fromarray(sample).convert(mode).save(tmp_path / "a.jpg", quality=95)

    plane, rgb = read_image(tmp_path / "a.jpg").plane()

    assert rgb is (mode != "L")
    expected = np.asarray(Image.fromarray(sample).convert("L" if mode == "L" else "RGB"), dtype=float)
    assert abs(plane - expected).mean() < 8


def test_a_type_is_recognised_by_content_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(ramp(9, 8, dtype="uint8")).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.tif")

    assert read_image(tmp_path / "a.tif").shape == (9, 8)


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.tif")), ids=lambda p: p.stem)
def test_info_tells_the_same_as_the_image(file: Path) -> None:
    info, image = read_info(file), read_image(file)

    assert (info.axes, info.shape, info.dtype) == (image.axes, image.data.shape, image.data.dtype)


# --- pixel size and names


@pytest.mark.parametrize(
    ("unit", "factor"), [("µm", 1.0), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), (None, 1.0)], ids=str
)
def test_ome_pixel_size_is_given_in_micrometres(tmp_path: Path, unit: str | None, factor: float) -> None:
    units = {f"PhysicalSize{a}Unit": unit for a in "XYZ"} if unit else {}
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    path = write_ome(tmp_path / "a.ome.tif", ramp(3, 9, 8), "ZYX", **sizes, **units)

    size, z_step, source = read_pixel_size(path)

    assert size == pytest.approx((0.25 * factor, 0.5 * factor))
    assert z_step == pytest.approx(2.0 * factor)
    assert source == "OME"


@pytest.mark.parametrize("unit", ["pixel", "reference frame"])
def test_ome_units_that_are_no_length_give_no_pixel_size(tmp_path: Path, unit: str) -> None:
    units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    path = write_ome(tmp_path / "a.ome.tif", ramp(9, 8), "YX", PhysicalSizeX=1, PhysicalSizeY=1, **units)

    assert read_pixel_size(path) == (None, None, "")


@pytest.mark.parametrize(
    ("unit", "factor"), [("um", 1.0), ("micron", 1.0), ("\\u00B5m", 1.0), ("nm", 1e-3), ("mm", 1e3)]
)
def test_imagej_pixel_size_is_given_in_micrometres(tmp_path: Path, unit: str, factor: float) -> None:
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 3.0}
    tifffile.imwrite(tmp_path / "a.tif", ramp(3, 9, 8), imagej=True, resolution=(2, 4), metadata=metadata)

    size, z_step, source = read_pixel_size(tmp_path / "a.tif")

    assert size == pytest.approx((0.25 * factor, 0.5 * factor))
    assert z_step == pytest.approx(3.0 * factor)
    assert source == "ImageJ"


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": (300, 300), "resolutionunit": "inch"},
        {"resolution": (118, 118), "resolutionunit": "centimeter"},
        {"imagej": True, "resolution": (300, 300), "metadata": {"unit": "inch"}},
        {"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}},
        {"imagej": True, "resolution": (2, 2)},
    ],
    ids=["dots per inch", "dots per centimetre", "ImageJ inch", "ImageJ pixel", "ImageJ without unit"],
)
def test_printing_resolution_is_no_microscope_calibration(tmp_path: Path, options: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(9, 8), **options)

    assert read_pixel_size(tmp_path / "a.tif")[0] is None


def test_dots_per_inch_of_a_picture_are_no_calibration(tmp_path: Path) -> None:
    Image.fromarray(ramp(9, 8, dtype="uint8")).save(tmp_path / "a.png", dpi=(300, 300))

    assert read_pixel_size(tmp_path / "a.png") == (None, None, "")


def test_ome_channel_names_are_read(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "a.ome.tif", ramp(2, 9, 8), "CYX", Channel={"Name": ["DAPI", "GFP"]})

    assert read_image(path).channel_names == ("DAPI", "GFP")


def test_imagej_labels_name_the_channels(tmp_path: Path) -> None:
    metadata = {"axes": "CYX", "Labels": ["DAPI", "GFP"]}
    tifffile.imwrite(tmp_path / "a.tif", ramp(2, 9, 8), imagej=True, metadata=metadata)

    assert read_image(tmp_path / "a.tif").channel_names == ("DAPI", "GFP")


# --- choosing a plane


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    names = {"Name": ["DAPI", "GFP", "2"]}
    return write_ome(tmp_path / "a.ome.tif", ramp(2, 4, 3, 9, 8), "TZCYX", Channel=names)


@pytest.mark.parametrize(
    ("channel", "number"), [(1, 1), ("1", 1), ("GFP", 1), ("gfp", 1), ("2", 2), (np.int64(0), 0)], ids=str
)
def test_a_channel_is_chosen_by_number_or_name(stack: Path, channel: int | str, number: int) -> None:
    plane, rgb = read_image(stack).plane(channel=channel, z=3, time=1)

    np.testing.assert_array_equal(plane, ramp(2, 4, 3, 9, 8)[1, 3, number])
    assert not rgb


def test_several_channels_become_the_last_axis_in_the_order_given(stack: Path) -> None:
    plane, rgb = read_image(stack).plane(channel=("GFP", 0), z=0, time=0)

    np.testing.assert_array_equal(plane, np.moveaxis(ramp(2, 4, 3, 9, 8)[0, 0, [1, 0]], 0, -1))
    assert not rgb


def test_the_maximum_over_depth_is_taken_per_channel(stack: Path) -> None:
    plane, _ = read_image(stack).plane(channel=(2, 0), z="max", time=0)

    np.testing.assert_array_equal(plane, np.moveaxis(ramp(2, 4, 3, 9, 8)[0].max(0)[[2, 0]], 0, -1))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"z": 0, "time": 0}, r"has 3 channels: 0 \(DAPI\), 1 \(GFP\), 2 \(2\).*--channel"),
        ({"channel": 0, "time": 0}, r"has 4 planes.*--z 0 to 3 or max"),
        ({"channel": 0, "z": 0}, r"has 2 time points.*--time 0 to 1"),
        ({"channel": 3, "z": 0, "time": 0}, r"no channel 3.*0 \(DAPI\)"),
        ({"channel": -1, "z": 0, "time": 0}, r"no channel -1"),
        ({"channel": "Cy5", "z": 0, "time": 0}, r"no channel 'Cy5'"),
        ({"channel": (0, "dapi"), "z": 0, "time": 0}, r"given twice"),
        ({"channel": (), "z": 0, "time": 0}, r"One to three"),
        ({"channel": 0, "z": 4, "time": 0}, r"numbered from 0 to 3; z 4"),
        ({"channel": 0, "z": "mean", "time": 0}, r"z 'mean'"),
        ({"channel": 0, "z": 0, "time": 2}, r"time 2"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
def test_an_open_or_wrong_choice_says_what_there_is(stack: Path, choice: dict, message: str) -> None:
    with pytest.raises(FileError, match=message):
        read_image(stack).plane(**choice)
    with pytest.raises(FileError, match=message):
        read_info(stack).select(**choice)


@pytest.mark.parametrize("choice", [{"z": 1}, {"time": 1}, {"channel": 1}], ids=str)
def test_an_axis_of_unknown_meaning_takes_the_role_it_is_asked_for(tmp_path: Path, choice: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(5, 9, 8), photometric="minisblack")
    image = read_image(tmp_path / "a.tif")

    np.testing.assert_array_equal(image.plane(**choice)[0], ramp(5, 9, 8)[1])
    with pytest.raises(FileError, match="does not say what it is"):
        image.plane()


@pytest.mark.parametrize("choice", [{"z": 1}, {"time": 1}, {"channel": 1}, {"channel": "red"}], ids=str)
def test_a_plain_plane_has_only_number_zero(tmp_path: Path, choice: dict) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(9, 8))
    image = read_image(tmp_path / "a.tif")

    assert image.plane(channel=0, z=0, time=0)[0].shape == image.plane(z="max")[0].shape == (9, 8)
    with pytest.raises(FileError):
        image.plane(**choice)


def test_a_stack_has_its_planes_first_and_its_channels_last(stack: Path) -> None:
    image, data = read_image(stack), ramp(2, 4, 3, 9, 8)

    one, rgb = image.stack(channel="GFP", time=1)
    np.testing.assert_array_equal(one, data[1, :, 1])
    assert not rgb
    two, _ = image.stack(channel=(2, 0), time=0)
    np.testing.assert_array_equal(two, np.moveaxis(data[0][:, [2, 0]], 1, -1))
    assert image.count_planes(channel=0, time=0) == 4
    with pytest.raises(FileError, match="has 2 time points"):
        image.stack(channel=0)


def test_the_axes_of_a_stack_are_put_in_order() -> None:
    data = ramp(9, 4, 8)
    image = ImageFile(path=Path("a.tif"), shape=data.shape, dtype=data.dtype, axes="XZY", data=data)

    np.testing.assert_array_equal(image.stack()[0], data.transpose(1, 2, 0))
    np.testing.assert_array_equal(image.plane(z=2)[0], data[:, 2].T)


def test_a_plain_plane_is_a_stack_of_one() -> None:
    image = read_image(SAMPLES / "nuclei_histology.tif")
    stack, rgb = image.stack()

    assert image.count_planes() == 1
    assert (stack.shape, rgb) == ((1, *image.plane()[0].shape), True)


def test_one_sample_of_a_colour_image_can_be_chosen() -> None:
    image = read_image(SAMPLES / "nuclei_histology.tif")

    for i, channel in enumerate(("red", "green", "blue")):
        plane, rgb = image.plane(channel=channel)
        np.testing.assert_array_equal(plane, image.data[..., i])
        assert not rgb


@pytest.mark.parametrize("channel", [0, 2, "1", (0, 1)], ids=str)
def test_the_number_of_a_channel_takes_all_of_a_colour_image(channel: object) -> None:
    image = read_image(SAMPLES / "nuclei_histology.tif")

    plane, rgb = image.plane(channel=channel)
    assert rgb
    np.testing.assert_array_equal(plane, image.data[..., :3])


@pytest.mark.parametrize("compression", [None, "zlib"], ids=["plain", "compressed"])
@pytest.mark.parametrize("axes", ["TZCYX", "TYXS", "TSYX"])
def test_planes_that_are_read_lazily_are_those_of_the_whole_array(
    tmp_path: Path, axes: str, compression: str | None
) -> None:
    shape = tuple({"T": 3, "Z": 4, "C": 2, "Y": 9, "X": 8, "S": 3}[axis] for axis in axes)
    planar = "separate" if axes == "TSYX" else None
    kind = "rgb" if "S" in axes else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.ome.tif", ramp(*shape).astype(np.uint8), photometric=kind, planarconfig=planar,
        compression=compression, metadata={"axes": axes},
    )  # fmt: skip
    whole, lazy = (read_image(tmp_path / "a.ome.tif", lazily=lazily) for lazily in (False, True))

    assert not isinstance(lazy.data, np.ndarray)
    assert (lazy.shape, lazy.axes, lazy.dtype) == (whole.shape, whole.axes, whole.dtype)
    choices = [{"time": 1, "z": 2}, {"time": 2, "z": "max"}] if "Z" in axes else [{"time": 1}]
    for choice in choices:
        if "C" in axes:
            choice["channel"] = (1, 0)
        (found, rgb), (expected, _) = lazy.plane(**choice), whole.plane(**choice)
        assert rgb == ("S" in axes)
        np.testing.assert_array_equal(found, expected)
        selection = whole.select(**choice)
        found_channels, expected_channels = lazy.channels(selection), whole.channels(selection)
        assert found_channels.keys() == expected_channels.keys()
        for name, channel in expected_channels.items():
            np.testing.assert_array_equal(found_channels[name], channel)


@pytest.mark.parametrize("compression", [None, "zlib"], ids=["plain", "compressed"])
def test_one_time_point_takes_the_memory_of_one(tmp_path: Path, compression: str | None) -> None:
    series = np.zeros((30, 256, 512), np.uint16)
    series[7] = ramp(256, 512)
    tifffile.imwrite(tmp_path / "a.tif", series, metadata={"axes": "TYX"}, compression=compression)
    tracemalloc.start()
    plane, _ = read_image(tmp_path / "a.tif", lazily=True).plane(time=7)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    np.testing.assert_array_equal(plane, series[7])
    assert peak < series.nbytes / 4


def test_damage_in_a_plane_that_is_read_lazily_is_an_error_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ramp(4, 64, 64), photometric="minisblack", compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[1].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = b"\xff" * 20
    path.write_bytes(content)
    image = read_image(path, lazily=True)

    np.testing.assert_array_equal(image.plane(time=0)[0], ramp(4, 64, 64)[0])
    with pytest.raises(FileError, match="damaged"):
        image.plane(time=1)


# --- files that are not what they seem


def test_complex_numbers_are_refused_with_what_to_do(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 8), np.complex64))
    for read in (read_image, read_info):
        with pytest.raises(FileError, match=r"complex numbers\. Save one real number a pixel"):
            read(tmp_path / "a.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b.tif")
    for read in (read_image, read_info):
        with pytest.raises(FileError, match="pipe"):
            read(tmp_path / "b.tif")


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        read_image(tmp_path / "nothing.tif")
    with pytest.raises(FileError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b"hello, world", "no image of a known type.*OME-TIFF")]
)
def test_a_file_that_is_no_image_is_refused_with_advice(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tif").write_bytes(content)

    with pytest.raises(FileError, match=message):
        read_image(tmp_path / "a.tif")


def encode(folder: Path, kind: str) -> bytes:
    path = folder / "whole"
    sample = tifffile.imread(SAMPLES / "nuclei_tissue_16bit.tif")
    stack = np.stack([sample, sample, sample, sample])
    if kind in ("PNG", "JPEG", "BMP"):
        Image.fromarray((sample >> 8).astype("uint8")).save(path, format=kind)
    elif kind == "plain":
        tifffile.imwrite(path, sample)
    elif kind == "ome":
        tifffile.imwrite(path, stack, ome=True, metadata={"axes": "CYX"}, photometric="minisblack")
    elif kind == "ome zlib":
        tifffile.imwrite(path, stack, ome=True, metadata={"axes": "CYX"}, compression="zlib",
                         photometric="minisblack")  # fmt: skip
    else:
        tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "CYX"})
    return path.read_bytes()


@pytest.mark.parametrize("fraction", [0.0002, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["plain", "ome", "ome zlib", "imagej", "PNG", "JPEG", "BMP"])
def test_a_truncated_file_is_never_read_in_part(tmp_path: Path, kind: str, fraction: float) -> None:
    whole = encode(tmp_path, kind)
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * fraction)])

    with pytest.raises(FileError, match=r"truncated|damaged|no image|empty"):
        read_image(tmp_path / "cut")


@pytest.mark.parametrize("read", [read_image, read_info], ids=["image", "info"])
def test_a_png_header_that_lies_about_its_size_is_refused_before_reading(tmp_path: Path, read) -> None:
    body = struct.pack(">IIBBBBB", 200_000, 200_000, 16, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)

    with pytest.raises(FileError, match=r"declares an image of 74\.5 GiB"):
        read(tmp_path / "a.png")


def test_a_bitmap_header_that_lies_about_its_size_is_refused_before_reading(tmp_path: Path) -> None:
    Image.fromarray(ramp(9, 8, dtype="uint8")).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[18:26] = struct.pack("<ii", 200_000, 200_000)
    (tmp_path / "a.bmp").write_bytes(content)

    with pytest.raises(FileError, match="too large for its type"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("read", [read_image, read_info], ids=["image", "info"])
def test_a_tiff_header_that_lies_about_its_size_is_refused_before_reading(tmp_path: Path, read) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages[0].tags[tag].overwrite(60_000)

    with pytest.raises(FileError, match=r"declares an image of [67]\.\d GiB but holds"):
        read(tmp_path / "a.tif")


def test_a_file_with_several_images_reads_the_first_and_says_so(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as tif:
        tif.write(ramp(9, 8), metadata={"axes": "YX"})
        tif.write(ramp(5, 4), metadata={"axes": "YX"})

    with pytest.warns(LightSamWarning, match="holds 2 images; the first is used"):
        image = read_image(tmp_path / "a.tif")
    assert image.shape == (9, 8)


def test_other_files_named_inside_a_file_are_not_opened(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "other.ome.tif", ome=True) as tif:
        tif.write(ramp(2, 9, 8), photometric="minisblack", metadata={"axes": "CYX"})
    xml = tifffile.TiffFile(tmp_path / "other.ome.tif").ome_metadata
    planes = "".join(
        f'<TiffData FirstC="{c}" IFD="{c}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(["a.ome.tif", "other.ome.tif"])
    )
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    xml = xml[:start] + planes + xml[end:]
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(9, 8), description=xml, metadata=None)

    with pytest.warns(LightSamWarning, match="belongs to a set of several files"):
        image = read_image(tmp_path / "a.ome.tif")
    assert image.shape == (9, 8)


@pytest.mark.parametrize("by", ["name", "identity"])
def test_each_file_of_a_set_has_its_own_calibration_and_channels(tmp_path: Path, by: str) -> None:
    def image(i: int) -> str:
        file = f'<UUID FileName="{i}.ome.tif">urn:uuid:{i}</UUID>'
        place = f'<TiffData IFD="0" PlaneCount="1">{file}</TiffData>'
        return (
            f'<Image ID="Image:{i}"><Pixels ID="Pixels:{i}" DimensionOrder="XYCZT" Type="uint16" SizeX="8" '
            f'SizeY="9" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{i + 1}" PhysicalSizeY="{i + 1}">'
            f'<Channel ID="Channel:{i}:0" Name="stain {i}" SamplesPerPixel="1"/>{place}</Pixels></Image>'
        )

    space = 'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
    for i in range(3):
        xml = f'<OME {space} UUID="urn:uuid:{i}">{"".join(map(image, range(3)))}</OME>'
        name = f"{i}.ome.tif" if by == "name" else f"renamed {i}.tif"
        tifffile.imwrite(tmp_path / name, ramp(9, 8), description=xml, metadata=None)
        info = read_info(tmp_path / name)
        assert (info.pixel_size, info.channel_names) == ((i + 1, i + 1), (f"stain {i}",))


def test_reading_changes_neither_file_nor_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = encode(tmp_path, "ome")
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FileError):
            read_image(tmp_path / "cut")
    assert (tmp_path / "cut").read_bytes() == whole[: len(whole) // 2]
    assert not caplog.records


@pytest.mark.readers
def test_a_czi_file_is_read_with_channels_and_calibration_and_a_cut_one_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("bioio_czi")
    czi = pytest.importorskip("pylibCZIrw.czi")
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 3, 40, 50)).astype(np.uint16)
    with czi.create_czi(str(tmp_path / "a.czi")) as file:
        for c, z in np.ndindex(2, 3):
            file.write(data=pixels[c, z][..., None], plane={"C": c, "Z": z, "T": 0})
        sizes = {"scale_y": 0.5e-6, "scale_x": 0.25e-6, "scale_z": 2e-6}
        file.write_metadata("a", channel_names={0: "DAPI", 1: "GFP"}, **sizes)
    image = read_image(tmp_path / "a.czi")
    assert (image.pixel_size, image.z_step, image.pixel_size_source) == ((0.5, 0.25), 2.0, "file")
    np.testing.assert_array_equal(image.plane(channel="GFP", z=2)[0], pixels[1, 2])
    (tmp_path / "b.czi").write_bytes((tmp_path / "a.czi").read_bytes()[:3000])
    with pytest.raises(FileError, match="its reader is missing, or the file is damaged"):
        read_image(tmp_path / "b.czi")


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_what_one_plane_does_not_know_another_may(dtype: str) -> None:
    data = np.arange(24, dtype=dtype).reshape(2, 3, 4)
    expected = data.max(axis=0)
    if dtype == "float32":
        data[1, 0, 0], data[:, 2, 3] = np.nan, np.nan
        expected[0, 0], expected[2, 3] = 0, np.nan
    image = ImageFile(path=Path("a.tif"), shape=data.shape, dtype=data.dtype, axes="ZYX", data=data)

    np.testing.assert_array_equal(image.plane(z="max")[0], expected)


def declare(folder: Path, shape: list[int], chunks: list[int]) -> Path:
    """A zarr array of which there is no pixel."""
    folder.mkdir()
    about = {"zarr_format": 2, "shape": shape, "chunks": chunks, "dtype": "|u1", "compressor": None,
             "fill_value": 0, "order": "C", "filters": None}  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(about))
    return folder


def test_chunks_that_reach_far_beyond_their_image_are_refused_before_they_are_unpacked(
    tmp_path: Path,
) -> None:
    bomb = declare(tmp_path / "bomb.zarr", [64, 64], [40_000, 40_000])
    for read in (read_image, read_info, read_levels):
        with pytest.raises(FileError, match=r"chunks of 1\.5 GiB"):
            read(bomb)
    small = declare(tmp_path / "small.zarr", [64, 64], [4096, 4096])
    whole = declare(tmp_path / "whole.zarr", [30_000, 30_000], [30_000, 30_000])
    assert read_image(small).plane()[0].shape == (64, 64)
    assert read_info(whole).shape == (30_000, 30_000)


@pytest.mark.parametrize("version", [2, 3])
def test_damage_in_a_chunk_is_an_error_of_ours(tmp_path: Path, version: int) -> None:
    zarr.save_array(str(tmp_path / "a.zarr"), ramp(64, 64), zarr_format=version)
    chunk = tmp_path / "a.zarr" / ("0.0" if version == 2 else "c/0/0")
    chunk.write_bytes(chunk.read_bytes()[:20])

    for read in (lambda path: read_image(path).plane(), read_objects):
        with pytest.raises(FileError, match=r"a\.zarr cannot be read \(RuntimeError: Zstd"):
            read(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dtype": "|O", "filters": [{"id": "vlen-utf8"}], "fill_value": ""}, "values of the type"),
        ({"dtype": "<c8", "fill_value": None}, "complex numbers"),
        ({"filters": [{"id": "pickle"}]}, "pickle"),
        ({"compressor": {"id": "pickle"}}, "pickle"),
    ],
    ids=["text", "complex", "a filter that runs programs", "a compressor that runs programs"],
)
def test_an_array_of_anything_but_plain_numbers_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    path = declare(tmp_path / "a.zarr", [64, 64], [64, 64])
    about = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps({**about, **changes}))

    for read in (read_image, read_info, read_levels, read_objects):
        with pytest.raises(FileError, match=says):
            read(path)


@pytest.mark.parametrize(
    ("named", "found"),
    [
        (["nuclei"], "nuclei"),
        (["original/0"], "original/0"),
        (["/etc/x"], None),
        (["../../../secret"], None),
        (["\\\\host\\share"], None),
        (["C:x"], None),
        ([""], None),
        ([["x"]], None),
        ({"a": 1}, None),
        (5, None),
        ([], None),
    ],
    ids=str,
)
def test_labels_of_an_image_lie_inside_it(tmp_path: Path, named: object, found: str | None) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_group("labels").attrs["labels"] = named

    labels = tmp_path / "a.zarr" / "labels"
    assert find_zarr_labels(tmp_path / "a.zarr") == (found and labels / found)
    zarr.open_group(labels, mode="r+").attrs["ome"] = [1]
    assert find_zarr_labels(tmp_path / "a.zarr") is None


@pytest.mark.readers
@pytest.mark.parametrize("lazily", [False, True], ids=["at once", "lazily"])
@pytest.mark.parametrize("kind", ["lif", "nd2"])
def test_lif_and_nd2_are_read_with_channels_and_calibration_and_cut_ones_are_refused(
    tmp_path: Path, kind: str, lazily: bool
) -> None:
    pytest.importorskip(f"bioio_{kind}")
    pixels = np.random.default_rng(0).integers(0, 4000, (3, 2, 40, 50)).astype(np.uint16)
    path, cut = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    if kind == "lif":
        write_lif(path, pixels, ["DAPI", "GFP"], (2.0, 0.5, 0.25))
    else:
        write_nd2(path, pixels, ["DAPI", "GFP"], (2.0, 0.5))
    image = read_image(path, lazily=lazily)
    assert image.pixel_size == pytest.approx((0.5, 0.25 if kind == "lif" else 0.5))
    assert image.z_step == pytest.approx(2.0)
    assert (image.pixel_size_source, image.channel_names) == ("file", ("DAPI", "GFP"))
    np.testing.assert_array_equal(image.plane(channel="GFP", z=2)[0], pixels[2, 1])
    np.testing.assert_array_equal(image.stack(channel=0)[0], pixels[:, 0])
    cut.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FileError, match="damaged"):
        read_image(cut, lazily=lazily)
