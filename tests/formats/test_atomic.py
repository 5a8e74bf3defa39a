"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from napari_lightsam.formats import atomic
from napari_lightsam.formats.atomic import WriteError, explain, folder_written_whole, written_whole


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


@pytest.mark.parametrize(
    ("name", "reason"), [("a" * 150, "its path is longer than Windows takes"), ("a", "No such file")]
)
def test_a_path_that_is_too_long_for_windows_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.chdir(tmp_path)
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert reason in str(explain(Path(name, name), error))


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    def fail() -> None:
        with written_whole(tmp_path / "out" / "sub" / "a.txt"):
            pass

    with pytest.raises(WriteError, match="cannot be written"):
        fail()
    assert (tmp_path / "out").read_text() == "a file"


@pytest.fixture
def in_use(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that cannot be renamed, each entry once: as on Windows where a file in them is open."""
    names: list[str] = []
    replace = os.replace

    def replaced(old: Path, new: Path) -> None:
        if old.name in names:
            names.remove(old.name)
            raise PermissionError(errno.EACCES, "Access is denied", str(old), None, str(new))
        replace(old, new)

    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(atomic, "_WAITS", (0.0, 0.0, 0.0))
    return names


def rewrite(folder: Path, in_use: list[str], held: int = 0) -> None:
    with folder_written_whole(folder) as part:
        (part / "a.txt").write_text("new")
        in_use += [part.name] * held


def test_a_folder_that_a_scanner_looks_through_gets_its_name_a_moment_later(
    tmp_path: Path, in_use: list[str]
) -> None:
    (tmp_path / "a").mkdir()
    in_use += ["a", "a"]
    rewrite(tmp_path / "a", in_use, held=2)

    assert {path.name: path.read_text() for path in (tmp_path / "a").iterdir()} == {"a.txt": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("held", ["old", "new"])
def test_a_folder_that_stays_open_elsewhere_is_kept_and_the_error_says_to_close_it(
    tmp_path: Path, in_use: list[str], held: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.txt").write_text("old")
    in_use += ["a"] * (4 * (held == "old"))

    with pytest.raises(WriteError, match="Close it where it is open in another program"):
        rewrite(tmp_path / "a", in_use, held=4 * (held == "new"))
    assert (tmp_path / "a" / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
