"""Writing files so that a name never stands for half a file."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_REASONS = {
    errno.ENOSPC: "no space left on the disk. Free some, or choose another output folder",
    errno.EDQUOT: "the disk quota is used up. Free some space, or choose another output folder",
    errno.EROFS: "the file system is read-only. Choose another output folder",
    errno.EACCES: "permission denied. Choose an output folder that you may write to",
    errno.EPERM: "permission denied. Choose an output folder that you may write to",
    errno.ENOTDIR: "a part of its path is a file, not a folder. Choose another output folder",
    errno.EEXIST: "a file of that name is in the way. Choose another output folder",
}


_WAITS = (0.05, 0.2, 0.6)  # seconds; a virus scanner or an indexer lets a file go by then
_MOST_NAMES = 20
_LONG = 200  # characters of a path; of 260 that Windows takes, those while it is written need up to 60 more

_EVERYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class WriteError(FileError):
    """The file system refused an output.

    Attributes
    ----------
    everywhere
        Other outputs would fail alike: the disk is full or read-only.
    """

    def __init__(self, message: str, *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its name only when the block ends well.

    Missing folders are made. If the block raises, nothing is left behind and an existing `path` stays.

    Raises
    ------
    WriteError
        No space, no permission, or another reason of the file system.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with written_whole(Path(folder) / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     sorted(p.name for p in Path(folder).iterdir())
    ['a.txt']
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        _flush(part)
        _replace(part, path)
    except OSError as error:
        raise explain(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def put_in_place(part: Path, path: Path, may_replace: Callable[[Path], bool]) -> Path:
    """Give a finished file its name, or one with a number where that one is taken.

    A name is taken by a file that must not be replaced, or that another program holds open (on Windows).

    Parameters
    ----------
    part
        The finished file, on the same disk.
    path
        Wanted name.
    may_replace
        Tells whether an existing file may go.

    Returns
    -------
    path
        The name that it got.

    Raises
    ------
    WriteError
        The file system refuses all names.
    """
    _flush(part)
    refused: OSError | None = None
    for number in range(1, _MOST_NAMES + 1):
        target = path if number == 1 else path.with_stem(f"{path.stem} ({number})")
        if os.path.exists(target) and not may_replace(target):
            continue
        try:
            _replace(part, target)
        except PermissionError as error:
            refused = error
        except OSError as error:
            raise explain(target, error) from error
        else:
            return target
    raise explain(path, refused or FileExistsError(errno.EEXIST, "File exists")) from refused


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its name only when the block ends well.

    As `written_whole`, for outputs that are folders; an existing one is replaced with all that is in it.

    Raises
    ------
    WriteError
        No space, no permission, or another reason of the file system.
    """
    part, aside = (path.with_name(f".{path.name}.{secrets.token_hex(4)}.{end}") for end in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            if os.path.isfile(file):
                _flush(file)
        if os.path.exists(path):
            _replace(path, aside)
        try:
            _replace(part, path)
        except OSError:
            if os.path.exists(aside):
                _replace(aside, path)
            raise
    except OSError as error:
        raise explain(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if os.path.exists(path):
            shutil.rmtree(aside, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make sure that files can be written into a folder, making it where it is missing.

    Raises
    ------
    WriteError
        They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise explain(folder, error) from error


def explain(path: Path, error: OSError) -> WriteError:
    """Say in words why a file system refused an output."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    too_long = sys.platform == "win32" and len(os.path.abspath(path)) > _LONG
    if too_long and isinstance(error, FileNotFoundError):  # which is all that Windows says of it
        reason = "its path is longer than Windows takes. Choose an output folder with a shorter one"
    # A second name is that of a renaming, which all but what is in use got as far as.
    if isinstance(error, PermissionError) and (os.path.isfile(path) or error.filename2 is not None):
        reason = "permission denied. Close it where it is open in another program, or make it writable"
    return WriteError(f"{path} cannot be written: {reason}.", everywhere=error.errno in _EVERYWHERE)


def _replace(part: Path, path: Path) -> None:
    """Rename, with patience for whoever holds the old file, or one of a folder, for a moment (on Windows)."""
    for wait in _WAITS:
        try:
            os.replace(part, path)
        except PermissionError:
            if not (os.path.isfile(path) or os.path.isdir(part)):
                raise
            time.sleep(wait)
        else:
            return
    os.replace(part, path)


def _flush(path: Path) -> None:
    """Force a file to the disk, so that a power cut after the renaming finds it whole."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
