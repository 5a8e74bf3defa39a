from __future__ import annotations

import json
import os
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import WriteError
from napari_lightsam.session import (
    Document,
    ImageRecord,
    LabelRecord,
    Run,
    archive,
    read_document,
    read_lightsam,
    write_document,
)
from napari_lightsam.session.checks import note_check
from napari_lightsam.session.methods import methods_text
from napari_lightsam.session.picture import hash_content, hash_pixels, hash_sample, read_pixels

PIXELS = np.arange(48, dtype="uint16").reshape(6, 8)
MADE = {"source": "prompt", "score": 0.9, "prompt": {"points": [[1.0, 2.0, True]], "box": None}, "area": 4}


def document(**changes):
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 2:4] = 7
    record = LabelRecord(
        name="objects",
        data=labels,
        layer={"scale": [0.5, 0.5], "units": ["um", "um"]},
        note={"role": "objects", "largest": 9},
        objects={7: MADE | {"edited": False}},
        features={"index": [7], "score": [0.9]},
        quality={"checked": 30},
    )
    image = ImageRecord(
        name="cells", shape=(6, 8), dtype="uint16", pixels=PIXELS, pixels_hash=hash_pixels(PIXELS)
    )
    return Document(**({"images": (image,), "labels": (record,), "target": 0} | changes))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "work.lightsam"
    write_document(path, document(run=Run(version="1", model="lightsam", threads=2), pixel_size_um=0.5))
    return path


def rewritten(path, edit=None, **members):
    """The same archive with its JSON edited, and members added or replaced."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    if edit is not None:
        content = json.loads(parts["session.json"])
        edit(content)
        parts["session.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, part in (parts | members).items():
            file.writestr(name, part)
    return path


def test_saved_work_is_read_back_with_every_field(saved):
    given, read = document(), read_lightsam(saved)
    assert isinstance(read, Document)
    label, wanted = read.labels[0], given.labels[0]
    np.testing.assert_array_equal(label.data, wanted.data)
    assert label.data.dtype == wanted.data.dtype
    for name in ("name", "layer", "note", "objects", "features", "quality"):
        assert getattr(label, name) == getattr(wanted, name), name
    np.testing.assert_array_equal(read.image.pixels, PIXELS)
    assert (read.target, read.inputs, read.pixel_size_um) == (0, ((0, None),), 0.5)
    assert read.run == Run(version="1", model="lightsam", threads=2)


def test_large_labels_keep_all_their_bits_and_equal_work_gives_equal_bytes(tmp_path):
    data = np.array([[0, 70_000], [2**31 - 1, 1]], np.int32)
    for name in "ab":
        write_document(tmp_path / f"{name}.lightsam", document(labels=(LabelRecord(name="x", data=data),)))
    np.testing.assert_array_equal(read_document(tmp_path / "a.lightsam").labels[0].data, data)
    assert (tmp_path / "a.lightsam").read_bytes() == (tmp_path / "b.lightsam").read_bytes()


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="all names of files are text there")
def test_an_image_whose_name_is_no_text_is_found_again(tmp_path):
    image = tmp_path / os.fsdecode(b"\xb5m.tif")  # as older programs wrote a Greek letter
    tifffile.imwrite(image, PIXELS)
    record = ImageRecord(
        name=image.stem, shape=(6, 8), dtype="uint16", path=image, pixels_hash=hash_pixels(PIXELS)
    )
    write_document(tmp_path / "work.lightsam", document(images=(record,)))
    again = read_document(tmp_path / "work.lightsam")
    assert again.image.name == image.stem
    np.testing.assert_array_equal(read_pixels(again.image, tmp_path / "work.lightsam"), PIXELS)


def test_the_hash_of_pixels_knows_their_values_and_not_the_order_of_their_bytes():
    swapped = PIXELS.astype(PIXELS.dtype.newbyteorder())
    assert hash_pixels(swapped) == hash_pixels(PIXELS)
    assert hash_sample(swapped) == hash_sample(PIXELS)


@pytest.mark.parametrize(
    "damage",
    [
        {"quality": {"precision": {"total": 3}}},
        {"quality": {"precision": {"total": 1, "hits": 1, "value": 1, "low": 0, "high": 1}, "place": 4,
                     "fingerprint": 1}},
        {"note": {"settings": {"balance": "x"}}},
        {"objects": {7: {"model": "lightsam", "inputs": [[7, None]]}}},
        {"objects": {7: {"prompt": 3}}},
    ],
    ids=["a share", "a place", "a setting", "an image that is not there", "a prompt"],
)  # fmt: skip
def test_damaged_notes_make_no_methods_text_and_say_so(damage):
    work = document()
    with pytest.raises(FileError, match="damaged"):
        methods_text(replace(work, labels=(replace(work.labels[0], **damage),)))


def test_a_table_of_checks_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    (tmp_path / "checks.csv").mkdir()
    with pytest.raises(WriteError, match=r"checks\.csv"):
        note_check(tmp_path / "checks.csv", "a.tif", document().main)


def test_a_folder_with_images_and_work_can_be_moved(tmp_path):
    image = tmp_path / "old" / "images" / "cells.tif"
    image.parent.mkdir(parents=True)
    tifffile.imwrite(image, PIXELS)
    record = ImageRecord(
        name="cells", shape=(6, 8), dtype="uint16", path=image, file_hash=hash_content(image)
    )
    write_document(tmp_path / "old" / "out" / "work.lightsam", document(images=(record,)))
    os.rename(tmp_path / "old", tmp_path / "new")
    read = read_document(tmp_path / "new" / "out" / "work.lightsam")
    assert read.image.path == tmp_path / "new" / "images" / "cells.tif"
    np.testing.assert_array_equal(read_pixels(read.image, tmp_path / "work.lightsam"), PIXELS)
    with zipfile.ZipFile(tmp_path / "new" / "out" / "work.lightsam") as file:
        assert file.namelist() == ["session.json", "labels/0.bin"]  # the image is named, not copied


def test_a_file_cut_anywhere_is_one_clear_error(saved, tmp_path):
    whole = saved.read_bytes()
    for end in range(0, len(whole), 97):
        cut = tmp_path / "cut.lightsam"
        cut.write_bytes(whole[:end])
        with pytest.raises(FileError, match="truncated or damaged"):
            read_lightsam(cut)


def test_flipped_bytes_never_pass_unnoticed(saved, tmp_path):
    whole = saved.read_bytes()
    start = whole.index(b"labels/0.bin") + len("labels/0.bin") + 8
    broken = tmp_path / "broken.lightsam"
    broken.write_bytes(whole[:start] + bytes([whole[start] ^ 0xFF]) + whole[start + 1 :])
    with pytest.raises(FileError, match="damaged"):
        read_document(broken)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(lambda c: c.update(version=3), "newer version.*Upgrade", id="a newer version"),
        pytest.param(
            lambda c: c.update(version=1), "a zip archive has version 2", id="the version of a text"
        ),
        pytest.param(lambda c: c.update(format="x"), "no LightSAM file", id="another format"),
        pytest.param(lambda c: c.update(extra=1), "unknown names: extra", id="an unknown name"),
        pytest.param(lambda c: c["images"].clear(), "does not hold", id="no image"),
        pytest.param(lambda c: c.update(target=4), "does not hold", id="a layer that is not there"),
        pytest.param(
            lambda c: c["labels"][0]["array"].update(dtype="object"), "no type of pixels", id="objects"
        ),
        pytest.param(
            lambda c: c["labels"][0]["array"].update(shape=[10**6, 10**6]), "size it should", id="a bomb"
        ),
        pytest.param(
            lambda c: c["labels"][0]["array"].update(member="../../etc/passwd"), "size it should", id="escape"
        ),
        pytest.param(lambda c: c["images"][0].update(path="//server/a.tif"), "not an address", id="a share"),
        pytest.param(
            lambda c: c["labels"][0]["features"].update(x=[]), "differ in length", id="a ragged table"
        ),
        pytest.param(lambda c: c["labels"][0]["layer"].update(data=[1]), "unknown names: data", id="layer"),
        pytest.param(
            lambda c: c["labels"][0]["objects"].update(a={}), "no number", id="an object without number"
        ),
        pytest.param(
            lambda c: c["labels"][0]["objects"].update({"1" * 5000: {}}), "no number", id="an endless label"
        ),
    ],
)
def test_what_an_archive_must_not_say_is_refused_in_words(saved, edit, message):
    with pytest.raises(FileError, match=message):
        read_document(rewritten(saved, edit))


@pytest.mark.parametrize("name", ["evil.pkl", "../labels/1.bin", "labels/../x.bin", "/labels/1.bin"])
def test_members_that_do_not_belong_there_are_refused(saved, name):
    with pytest.raises(FileError, match="no part of a LightSAM file"):
        read_document(rewritten(saved, **{name: b"x"}))
    assert not (saved.parent / "x.bin").exists()


def test_arrays_that_nothing_refers_to_and_parts_that_are_too_large_are_refused(saved, monkeypatch):
    with pytest.raises(FileError, match=r"nothing refers to labels/5\.bin"):
        read_document(rewritten(saved, **{"labels/5.bin": b"x"}))
    monkeypatch.setattr(archive, "LARGEST_ARRAY", 10)
    with pytest.raises(FileError, match="up to 10 are accepted"):
        read_document(saved)


def test_a_failed_write_leaves_the_former_file(saved, monkeypatch):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_document(saved, document(pixel_size_um=float("nan")))
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("limit", ["LARGEST_JSON", "LARGEST_ARRAY", "MOST_MEMBERS"])
def test_what_could_not_be_opened_again_is_not_written(saved, monkeypatch, limit):
    before = saved.read_bytes()
    monkeypatch.setattr(archive, limit, 2)
    with pytest.raises(FileError, match="Save fewer or smaller layers"):
        write_document(saved, document())
    assert saved.read_bytes() == before


@pytest.mark.parametrize("bits", [0x01, 0x20, 0x40, 0x41], ids=["encrypted", "patched", "strong", "both"])
def test_parts_that_are_encrypted_or_packed_strangely_are_refused(saved, bits):
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as file:
        at = file.start_dir
    for _ in range(len(zipfile.ZipFile(saved).namelist())):
        content[at + 8] |= bits  # of the entry in the table of contents
        at = content.find(b"PK\x01\x02", at + 4)
    saved.write_bytes(content)
    with pytest.raises(FileError, match=r"cannot be read|not opened"):
        read_document(saved)
