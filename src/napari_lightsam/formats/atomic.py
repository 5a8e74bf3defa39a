"""Writing files so that a name never stands for half a file."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        os.replace(part, path)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


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
            if file.is_file():
                _flush(file)
        if path.exists():
            os.replace(path, aside)
        try:
            os.replace(part, path)
        except OSError:
            if aside.exists():
                os.replace(aside, path)
            raise
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if path.exists():
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
        raise _explain(folder, error) from error


def _explain(path: Path, error: OSError) -> WriteError:
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    return WriteError(f"{path} cannot be written: {reason}.", everywhere=error.errno in _EVERYWHERE)


def _flush(path: Path) -> None:
    """Force a file to the disk, so that a power cut after the renaming finds it whole."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
