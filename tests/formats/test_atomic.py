"""Files appear whole or not at all."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from napari_lightsam.formats.atomic import WriteError, written_whole

if TYPE_CHECKING:
    from pathlib import Path


def test_the_name_appears_only_when_the_block_ends(tmp_path: Path) -> None:
    with written_whole(tmp_path / "deep" / "a.txt") as part:
        part.write_text("whole")
        assert not (tmp_path / "deep" / "a.txt").exists()

    assert (tmp_path / "deep" / "a.txt").read_text() == "whole"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_an_error_inside_the_block_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def fail() -> None:
        with written_whole(tmp_path / "a.txt") as part:
            part.write_text("ha")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.txt": "old"}


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
    ids=["full", "read-only", "denied"],
)
def test_the_file_system_is_quoted_in_words(tmp_path: Path, number: int, reason: str) -> None:
    def fail() -> None:
        with written_whole(tmp_path / "a.txt"):
            raise OSError(number, "")

    with pytest.raises(WriteError, match=reason):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    def fail() -> None:
        with written_whole(tmp_path / "out" / "sub" / "a.txt"):
            pass

    with pytest.raises(WriteError, match="cannot be written"):
        fail()
    assert (tmp_path / "out").read_text() == "a file"
