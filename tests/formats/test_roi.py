"""ImageJ ROIs, read back by roifile and by us; and files that are none."""

from __future__ import annotations

import struct
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
import roifile
import shapely

from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.formats import filling, roi
from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.objects import Objects, Position
from napari_lightsam.formats.roi import holds_rois, read_rois

if TYPE_CHECKING:
    from pathlib import Path


def area(one: roifile.ImagejRoi) -> float:
    """Area by the even-odd rule, as ImageJ counts it."""
    shape = shapely.Polygon()
    for ring in one.coordinates(multi=True):
        shape = shape.symmetric_difference(shapely.Polygon(ring))
    return shape.area


def rois(path: Path) -> list[roifile.ImagejRoi]:
    return roifile.roiread(path)


def test_roifile_finds_every_object_by_name_with_its_area(tmp_path: Path, awkward: np.ndarray) -> None:
    write_objects(tmp_path / "a.zip", Objects(awkward))

    found = {int(one.name): area(one) for one in rois(tmp_path / "a.zip")}
    ids, count = np.unique(awkward[awkward > 0], return_counts=True)
    assert found == dict(zip(ids.tolist(), count.tolist(), strict=True))
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == [f"{i}.roi" for i in ids]


def test_an_object_in_one_piece_is_a_traced_outline_and_others_are_composite(
    tmp_path: Path, awkward: np.ndarray
) -> None:
    write_objects(tmp_path / "a.zip", Objects(awkward))

    kinds = {int(one.name): one.roitype.name for one in rois(tmp_path / "a.zip")}
    assert kinds[4] == kinds[5] == "TRACED"  # whole pixels, the edges as ImageJ's wand draws them
    assert kinds[3] == kinds[7] == "RECT"  # ImageJ's mark of composite shapes
    corner = next(one for one in rois(tmp_path / "a.zip") if one.name == "5")
    assert (corner.left, corner.top, corner.right, corner.bottom) == (11, 6, 12, 7)


@pytest.mark.parametrize(
    ("axes", "positions"),
    [("ZYX", [(3, 1, 0), (3, 2, 0)]), ("TYX", [(3, 6, 1), (3, 6, 2)])],
    ids=["depth", "time"],
)
def test_channel_plane_and_time_point_are_set(tmp_path: Path, axes: str, positions: list) -> None:
    labels = np.zeros((2, 5, 5), int)
    labels[:, 1:3, 1:3] = 8
    place = Position(c=2, z=5 if axes == "TYX" else None)
    write_objects(tmp_path / "a.zip", Objects(labels, axes, position=place))

    found = rois(tmp_path / "a.zip")
    assert [(one.c_position, one.z_position, one.t_position) for one in found] == positions
    assert [one.name for one in found] == ["8", "8"]
    assert len(set(zipfile.ZipFile(tmp_path / "a.zip").namelist())) == 2


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_in_a_plain_stack_a_roi_is_set_to_its_slice(tmp_path: Path, axes: str) -> None:
    labels = np.zeros((3, 5, 5), int)
    labels[:, 1:3, 1:3] = 8
    write_objects(tmp_path / "a.zip", Objects(labels, axes))

    found = rois(tmp_path / "a.zip")
    assert [one.position for one in found] == [1, 2, 3]
    assert not any(one.c_position or one.z_position or one.t_position for one in found)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX", "TZYX"])
def test_rois_come_back_as_the_labels_they_were(tmp_path: Path, awkward: np.ndarray, axes: str) -> None:
    labels = np.stack([awkward, awkward[::-1], awkward * 0, awkward // 9]).reshape(2, 2, *awkward.shape)
    labels = {"YX": awkward, "TZYX": labels}.get(axes, labels[1])
    write_objects(tmp_path / "a.zip", Objects(labels, axes))

    back = read_rois(tmp_path / "a.zip")
    assert back.axes == axes
    np.testing.assert_array_equal(back.labels, labels)


def test_more_objects_than_a_plain_zip_file_can_list_come_back(tmp_path: Path) -> None:
    labels = np.arange(1, 256 * 257 + 1).reshape(256, 257)  # 65,792 of one pixel, the quickest ones
    write_objects(tmp_path / "a.zip", Objects(labels))

    np.testing.assert_array_equal(read_rois(tmp_path / "a.zip").labels, labels)


def test_objects_beyond_the_reach_of_16_bits_are_exact(tmp_path: Path) -> None:
    labels = np.zeros((3, 70_010), np.uint8)
    labels[1, 69_990:70_005] = 1
    labels[0, 100:60_000] = 2
    write_objects(tmp_path / "a.zip", Objects(labels))

    np.testing.assert_array_equal(read_rois(tmp_path / "a.zip").labels, labels)
    assert {one.name: area(one) for one in rois(tmp_path / "a.zip")} == {"1": 15, "2": 59_900}


def test_equal_objects_give_equal_files(tmp_path: Path, awkward: np.ndarray) -> None:
    for name in ("a.zip", "b.zip"):
        write_objects(tmp_path / name, Objects(awkward))

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_areas_drawn_by_hand_are_read_and_everything_else_is_passed_over(tmp_path: Path) -> None:
    kind = roifile.ROI_TYPE
    drawn = [
        roifile.ImagejRoi(roitype=kind.RECT, left=1, top=2, right=4, bottom=4, name="0002-0001"),
        roifile.ImagejRoi(roitype=kind.OVAL, left=10, top=0, right=20, bottom=10, name="5"),
        roifile.ImagejRoi.frompoints([[0, 6], [4.5, 6], [0, 10.5]], name="triangle"),
        roifile.ImagejRoi(roitype=kind.LINE, x1=0, y1=0, x2=9, y2=9, name="3"),
    ]
    roifile.roiwrite(tmp_path / "a.zip", drawn)

    labels = read_rois(tmp_path / "a.zip", shape=(12, 20)).labels
    assert labels.shape == (12, 20)
    assert labels[2:4, 1:4].tolist() == [[6] * 3] * 2  # 6 and 7: the next free ids
    assert (labels == 6).sum() == 6
    assert abs((labels == 5).sum() - np.pi * 25) < 6
    assert labels[6:11, 0].tolist() == [7, 7, 7, 7, 0]  # the centre of the last pixel lies on the edge
    assert read_rois(tmp_path / "a.zip").labels.shape == (11, 20)


def test_a_single_roi_is_read_and_one_outside_is_cut_off(tmp_path: Path) -> None:
    roifile.ImagejRoi.frompoints([[-3, -3], [2, -3], [2, 2], [-3, 2]], name="4").tofile(tmp_path / "a.roi")

    assert read_rois(tmp_path / "a.roi", shape=(3, 3)).labels.tolist() == [[4, 4, 0], [4, 4, 0], [0, 0, 0]]


# --- bad input


def packed(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def square(**options: object) -> bytes:
    one = roifile.ImagejRoi.frompoints([[0, 0], [2, 0], [2, 2], [0, 2]], name="1")
    for key, value in options.items():
        setattr(one, key, value)
    return one.tobytes()


def with_bytes(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


FAR = roifile.ImagejRoi.frompoints(np.array([[0.0, 0], [3e6, 0], [3e6, 3e6]]), name="1").tobytes()
NAN = roifile.ImagejRoi.frompoints(np.array([[0.0, 0], [5, 0], [5, 5]]), name="1")
NAN.subpixel_coordinates = np.array([[0, 0], [np.nan, 0], [5, 5]], np.float32)
BAD = {
    "no ROI": b"something else entirely",
    "cut off": square()[:66],
    "more corners than bytes": with_bytes(square(), 16, struct.pack(">H", 60_000)),
    "billions of corners": with_bytes(square(), 16, struct.pack(">Hi", 0, 2**31 - 1)),
    "a path of billions": with_bytes(square(), 36, struct.pack(">i", 2**31 - 1)),
    "a negative path": with_bytes(square(), 36, struct.pack(">i", -1)),
    "far away": FAR,
    "not a number": NAN.tobytes(),
    "a billion planes": square(z_position=2**31 - 1),
    "a billion of both": square(z_position=2**30, t_position=2**30),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_roi_is_an_error_of_ours(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(FileError, match=r"a\.zip"):
        read_rois(packed(tmp_path / "a.zip", {"1.roi": data}))


def test_every_truncation_and_many_mutations_give_labels_or_an_error_of_ours(
    tmp_path: Path, awkward: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "MOST_PIXELS", 10_000)
    write_objects(tmp_path / "good.zip", Objects(awkward[:8, :13]))
    good = (tmp_path / "good.zip").read_bytes()
    one = square()
    rng = np.random.default_rng(0)
    for _ in range(150):
        whole, single = bytearray(good), bytearray(one)
        for data in (whole, single):
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(256)
        for name, data in (
            ("a.zip", bytes(whole)),
            ("b.zip", good[: rng.integers(len(good))]),
            ("c.roi", bytes(single)),
            ("d.roi", one[: rng.integers(len(one))]),
        ):
            (tmp_path / name).write_bytes(data)
            with suppress(LightSamError):
                assert read_rois(tmp_path / name).labels.size <= 10_000


def test_path_names_in_a_zip_lead_nowhere(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = packed(inside / "a.zip", {"../../escaped.roi": square(), "/tmp/x/8.roi": square(name="")})

    assert read_rois(path).labels.max() == 8
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip", "inside"]


def test_a_zip_that_unpacks_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roi, "_LARGEST_ENTRY", 1000)
    with pytest.raises(FileError, match="unpacks beyond"):
        read_rois(packed(tmp_path / "a.zip", {"1.roi": square() + bytes(2000)}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [({}, "no ROIs of areas"), ({"a.txt": b"1"}, "no ROIs of areas")],
    ids=["empty", "other files"],
)
def test_a_zip_without_rois_is_said_to_be_one(tmp_path: Path, entries: dict, message: str) -> None:
    path = packed(tmp_path / "a.zip", entries)

    assert not holds_rois(path)
    with pytest.raises(FileError, match=message):
        read_rois(path)


def test_files_that_are_no_zip_or_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("no zip")
    assert not holds_rois(tmp_path / "a.zip")
    for name, message in (("a.zip", "no readable zip"), ("b.zip", "does not exist"), ("c.roi", "not exist")):
        with pytest.raises(FileError, match=message):
            read_rois(tmp_path / name)


def test_outlines_of_more_corners_than_memory_holds_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.zip", {"1.roi": square(), "2.roi": square()})
    monkeypatch.setattr(filling, "_MOST_CORNERS", 7)
    with pytest.raises(FileError, match="outlines of 8 corners"):
        read_rois(path)


def test_names_that_are_no_text_are_refused_and_not_offered_to_the_reader(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"\u00e9.roi": square()})
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xff"))

    assert not holds_rois(path)
    with pytest.raises(FileError, match="no readable zip"):
        read_rois(path)


def test_a_comment_that_lies_about_the_shape_cannot_take_the_memory(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"1.roi": square()})
    for comment in (
        b'{"shape": [1000000000, 1000000000]}',
        b'{"shape": [-1, "x"]}',
        b"\xff",
        b"[1]",
        b"9" * 5000,
    ):
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = comment
        if b"1000000000" in comment:
            with pytest.raises(FileError, match="at most"):
                read_rois(path)
        else:
            assert read_rois(path).labels.shape == (2, 2)
