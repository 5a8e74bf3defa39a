"""One run at a time on an output."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import explain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lightsam.lock"
"""Name of the lock inside a folder."""

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # how systems say so
_FAR = 1 << 20  # byte that stands for the lock; others could not read what is locked (on Windows)


@contextmanager
def locked(output: Path, lock: Path | None = None) -> Iterator[None]:
    """Keep other runs away from an output.

    The lock is the operating system's, on a file that says who holds it. It ends with the process however
    that ends, so what a killed run left is taken over.

    Parameters
    ----------
    output
        What errors name; a folder where no lock is given.
    lock
        File of the lock; None: inside the folder. An output that is replaced as a whole has it beside it.

    Raises
    ------
    FileError
        Another run holds it.
    WriteError
        The file system refuses.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as name, locked(Path(name)):
    ...     [path.name for path in Path(name).iterdir()]
    ['.lightsam.lock']
    """
    path = output / LOCK if lock is None else lock
    descriptor = _acquire(path, output)
    try:
        yield
    finally:
        # Windows removes no open file; elsewhere it must go while it is locked, or another's could go.
        if sys.platform == "win32":
            os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(descriptor)


def _acquire(path: Path, output: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise explain(path, error) from error
        try:
            _lock(descriptor)
        except OSError as error:
            if error.errno not in _HELD:
                break  # a file system that knows no locks, as some networks have
            os.close(descriptor)
            raise FileError(
                f"{output} is in use by another run ({_holder(path)}). Wait until it has ended, "
                "or choose another output."
            ) from None
        if _is_current(path, descriptor):
            break
        os.close(descriptor)  # its owner removed it between the two steps above
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(" ", "seconds"),
    }
    with suppress(OSError):  # a full disk: the lock holds, and only does not say whose it is
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
    return descriptor


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        return f"process {about['pid']} on {about['host']}, since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it does not say which"
