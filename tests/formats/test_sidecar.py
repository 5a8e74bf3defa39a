"""The record beside a result survives writing, and damage is noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_lightsam.errors import FileError
from napari_lightsam.formats.sidecar import Record, hash_file, read_record, write_record

if TYPE_CHECKING:
    from pathlib import Path

RECORD = Record(
    version="0.1.0", input="a.tif", input_sha256="12", settings={"mode": "grid", "object_size": None},
    model="lightsam", model_sha256="34", device="cpu", precision="float32", runtime="torch", object_size=26.5,
    object_size_estimated=True, pixel_size=(0.5, 0.25), pixel_size_source="OME", n_objects=3,
    outputs={"a_labels.tif": "56"},
)  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, pixel_size=None, object_size=None, settings={}, outputs={}),
        replace(RECORD, input="\udcb5m.tif"),  # a byte of a name on Linux that is no text
    ],
    ids=["full", "bare", "a name that is no text"],
)
def test_a_record_comes_back_as_it_was(tmp_path: Path, record: Record) -> None:
    write_record(tmp_path / "a_labels.json", record)

    assert read_record(tmp_path / "a_labels.json") == record


def test_equal_records_do_not_differ() -> None:
    same = replace(RECORD, device="cuda", n_objects=4, object_size=None)

    assert RECORD.differences(same) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_sha256": "99"}, "another version of the input"),
        ({"settings": {"mode": "hierarchical", "object_size": None}}, "mode grid (now hierarchical)"),
        ({"settings": {"mode": "grid", "object_size": 9.0}}, "object size not given (now 9.0)"),
        ({"settings": {"mode": "grid", "object_size": None, "z": 2}}, "z not given (now 2)"),
        ({"model": "tinysam"}, "model lightsam (now tinysam)"),
        ({"model_sha256": "99"}, "another version of model lightsam"),
        ({"version": "0.2.0"}, "version 0.1.0 (now 0.2.0)"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_a_difference_is_said_in_words(change: dict, words: str) -> None:
    (difference,) = RECORD.differences(replace(RECORD, **change))

    assert words in difference


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_a_truncated_record_is_damaged(tmp_path: Path, fraction: float) -> None:
    write_record(tmp_path / "a.json", RECORD)
    whole = (tmp_path / "a.json").read_bytes()
    (tmp_path / "a.json").write_bytes(whole[: int((len(whole) - 2) * fraction)])

    with pytest.raises(FileError, match=r"a\.json is damaged"):
        read_record(tmp_path / "a.json")


@pytest.mark.parametrize(
    "change",
    [
        {"n_objects": "3"},
        {"settings": []},
        {"pixel_size": [1]},
        {"pixel_size": ["x", "y"]},
        {"version": None},
        {"outputs": "a"},
    ],
    ids=str,
)
def test_a_record_with_unusable_values_is_damaged(tmp_path: Path, change: dict) -> None:
    write_record(tmp_path / "a.json", RECORD)
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(content | change))

    with pytest.raises(FileError, match="is damaged"):
        read_record(tmp_path / "a.json")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", RECORD)
    content = json.loads((tmp_path / "a.json").read_text())
    del content["model_sha256"]
    (tmp_path / "a.json").write_text(json.dumps(content))

    with pytest.raises(FileError, match="model_sha256"):
        read_record(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    ["[1, 2]", '{"a": 1}', '{"application": "other"}', "[" * 50_000],
    ids=["list", "plain", "another application", "bottomless"],
)
def test_foreign_json_is_no_record(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)

    with pytest.raises(FileError, match=r"no record of|damaged"):
        read_record(tmp_path / "a.json")


def test_a_missing_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        read_record(tmp_path / "a.json")


def test_the_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")

    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
