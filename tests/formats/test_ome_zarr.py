"""OME-Zarr labels, checked against the models of the specification and read by ome-zarr and by us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from napari_lightsam.errors import FileError
from napari_lightsam.formats.convert import read_objects
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.objects import Objects

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
def test_labels_are_valid_and_read_by_ome_zarr(tmp_path: Path, awkward: np.ndarray, axes: str) -> None:
    reason = "ome-zarr is for fewer versions of Python"
    models = pytest.importorskip("ome_zarr_models.v04.image_label", reason=reason)
    parse_url = pytest.importorskip("ome_zarr.io", reason=reason).parse_url
    reader = pytest.importorskip("ome_zarr.reader", reason=reason).Reader
    labels = np.stack([awkward] * 4).reshape(2, 2, *awkward.shape)
    labels = {"YX": awkward, "TZYX": labels}.get(axes, labels[1])
    path = tmp_path / "a.ome.zarr"
    write_objects(path, Objects(labels, axes, pixel_size=(0.5, 0.25), z_step=2.0))

    group = zarr.open_group(path, mode="r")
    models.ImageLabel.from_zarr(group)
    (node,) = reader(parse_url(str(path), mode="r"))()
    assert {type(spec).__name__ for spec in node.specs} == {"Label", "Multiscales"}
    np.testing.assert_array_equal(np.asarray(node.data[0]), labels)
    (scales,) = group.attrs["multiscales"]
    assert [axis["name"].upper() for axis in scales["axes"]] == list(axes)
    sizes = dict(zip(axes, scales["datasets"][0]["coordinateTransformations"][0]["scale"], strict=True))
    assert sizes == {a: {"Y": 0.5, "X": 0.25, "Z": 2.0, "T": 1.0}[a] for a in axes}
    assert {a["name"]: a.get("unit") for a in scales["axes"]} == {
        a.lower(): None if a == "T" else "micrometer" for a in axes
    }


def test_smaller_copies_invent_no_ids(tmp_path: Path, many: np.ndarray) -> None:
    write_objects(tmp_path / "a.zarr", Objects(many))

    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    levels = [group[d["path"]] for d in group.attrs["multiscales"][0]["datasets"]]
    assert [level.shape[0] for level in levels] == [1590, 795, 398]
    assert {level.dtype for level in levels} == {np.dtype("uint32")}
    np.testing.assert_array_equal(levels[0][...], many)
    np.testing.assert_array_equal(levels[2][...], many[::4, ::4])
    scale = group.attrs["multiscales"][0]["datasets"][2]["coordinateTransformations"]
    assert scale == [{"type": "scale", "scale": [4.0, 4.0]}]


def test_labels_come_back_with_their_axes(tmp_path: Path, awkward: np.ndarray) -> None:
    labels = np.stack([awkward, awkward // 2])
    write_objects(tmp_path / "a.zarr", Objects(labels, "TYX"))

    back = read_objects(tmp_path / "a.zarr")
    assert back.axes == "TYX"
    np.testing.assert_array_equal(back.labels, labels)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("micrometer", 1.0), ("nanometer", 1e-3), ("angstrom", 1e-4), ("centimeter", 1e4), ("second", None)],
)
def test_the_pixel_size_is_read_in_every_unit_of_length(
    tmp_path: Path, awkward: np.ndarray, unit: str, factor: float | None
) -> None:
    write_objects(tmp_path / "a.zarr", Objects(awkward, pixel_size=(8.0, 4.0)))
    attributes = zarr.open_group(tmp_path / "a.zarr", mode="r+").attrs
    (scales,) = attributes["multiscales"]
    attributes["multiscales"] = [{**scales, "axes": [{**axis, "unit": unit} for axis in scales["axes"]]}]

    size = read_objects(tmp_path / "a.zarr").pixel_size
    assert size == (None if factor is None else pytest.approx((8 * factor, 4 * factor)))


def test_labels_are_replaced_as_a_whole_and_nothing_else_is(tmp_path: Path, awkward: np.ndarray) -> None:
    path = tmp_path / "a.ome.zarr"
    write_objects(path, Objects(np.repeat(np.repeat(awkward, 30, 0), 30, 1)))
    write_objects(path, Objects(awkward))

    assert sorted(zarr.open_group(path, mode="r").array_keys()) == ["0"]
    assert [p.name for p in tmp_path.iterdir()] == ["a.ome.zarr"]
    image = tmp_path / "image.zarr"
    zarr.save_array(image, np.ones((4, 4)))
    for other in (image, tmp_path):
        with pytest.raises(FileError, match="not replaced"):
            write_objects(other, Objects(awkward), "ome-zarr")
    assert (zarr.open(image)[...] == 1).all()


def test_a_failure_leaves_the_earlier_labels(
    tmp_path: Path, awkward: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_objects(tmp_path / "a.zarr", Objects(awkward))

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zarr.Group.create_array", fail)
    with pytest.raises(FileError, match="no space left"):
        write_objects(tmp_path / "a.zarr", Objects(awkward * 2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "a.zarr", mode="r")["0"][...], awkward)


def test_a_header_of_absurd_size_is_refused(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(2**20, 2**20), dtype="uint16", chunks=(1024, 1024))

    with pytest.raises(FileError, match="at most"):
        read_objects(tmp_path / "a.zarr")
