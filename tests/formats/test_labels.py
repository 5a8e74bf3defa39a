"""Label images on disk: type, calibration, compression, and never half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lightsam.errors import FileError, ImageError
from napari_lightsam.formats.images import read_image
from napari_lightsam.formats.labels import write_labels

TRUTH = Path(__file__).parents[1] / "data" / "samples"


@pytest.fixture
def labels() -> np.ndarray:
    return tifffile.imread(TRUTH / "nuclei_fluorescence_labels.tif").astype(np.int32)


def test_labels_come_back_as_they_were_in_an_imagej_file(tmp_path: Path, labels: np.ndarray) -> None:
    write_labels(tmp_path / "a_labels.tif", labels)

    with tifffile.TiffFile(tmp_path / "a_labels.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].dtype == np.uint16
        np.testing.assert_array_equal(tif.asarray(), labels)
        assert tif.imagej_metadata["max"] == labels.max()


def test_labels_are_compressed(tmp_path: Path, labels: np.ndarray) -> None:
    write_labels(tmp_path / "a.tif", labels)

    assert (tmp_path / "a.tif").stat().st_size < labels.size * 2 / 10
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


@pytest.mark.parametrize("largest", [65_535, 65_536, 100_000])
def test_beyond_65535_objects_the_file_is_a_32_bit_ome_tiff(tmp_path: Path, largest: int) -> None:
    labels = np.arange(400 * 400, dtype=np.int32).reshape(400, 400)
    labels[labels > largest] = 0
    write_labels(tmp_path / "a.tif", labels, pixel_size=(0.5, 0.25))

    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_ome is (largest > 65_535)
        assert tif.is_imagej is (largest <= 65_535)
        assert tif.series[0].dtype == (np.uint32 if largest > 65_535 else np.uint16)
    image = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.data, labels)
    assert image.pixel_size == pytest.approx((0.5, 0.25), rel=1e-5)


@pytest.mark.parametrize("largest", [7, 70_000], ids=["ImageJ", "OME"])
def test_a_stack_keeps_its_calibration(tmp_path: Path, largest: int) -> None:
    labels = np.zeros((4, 30, 20), np.int64)
    labels[2, 5:9, 5:9] = largest
    write_labels(tmp_path / "a.tif", labels, pixel_size=(0.108, 0.216), z_step=0.3)

    image = read_image(tmp_path / "a.tif")

    assert image.axes == "ZYX"
    assert (*image.pixel_size, image.z_step) == pytest.approx((0.108, 0.216, 0.3), rel=1e-5)
    np.testing.assert_array_equal(image.data, labels)


def test_without_calibration_the_file_claims_none(tmp_path: Path, labels: np.ndarray) -> None:
    write_labels(tmp_path / "a.tif", labels)

    assert read_image(tmp_path / "a.tif").pixel_size is None


def test_no_objects_are_a_valid_file(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.tif", np.zeros((30, 20), np.int32))

    assert read_image(tmp_path / "a.tif").data.shape == (30, 20)
    assert not read_image(tmp_path / "a.tif").data.any()


@pytest.mark.parametrize(
    "labels",
    [np.zeros((3, 4)), np.zeros(5, int), np.zeros((0, 4), int), np.full((3, 4), -1), np.zeros((2, 2), bool)],
    ids=["floats", "one axis", "empty", "negative", "bool"],
)
def test_what_is_no_label_image_is_refused(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(ImageError, match="Labels"):
        write_labels(tmp_path / "a.tif", labels)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels(tmp_path / "a.tif", labels)
    before = (tmp_path / "a.tif").read_bytes()

    def full(self: object, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    with pytest.raises(FileError, match=r"a\.tif cannot be written: no space left"):
        write_labels(tmp_path / "a.tif", labels * 0)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert (tmp_path / "a.tif").read_bytes() == before
