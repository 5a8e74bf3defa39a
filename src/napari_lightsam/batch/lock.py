"""One run at a time on an output."""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Hold:
    """A run's hold on its output, as its workers see it on whatever machine they are.

    Attributes
    ----------
    path
        File of the lock, absolute: workers may be in another folder. It names who holds the output.
    token
        Unique to the run.
    told
        The file says the token; on a full disk it cannot.
    """

    path: Path
    token: str
    told: bool = True

    def lost(self) -> bool:
        """Tell whether the run is over: it gave up or ended, or another run has taken its output since."""
        try:
            # Opened, since machines may remember for minutes whether a file of the network is there.
            return self.token.encode() not in self.path.read_bytes() and self.told
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the network may stumble; a writer will be told by its own writing

    def give_up(self) -> None:
        """Say that the run is to end, while it holds the output still."""
        with suppress(OSError), self.path.open("r+b") as file:
            at = file.read().find(self.token.encode())
            if at >= 0:
                file.seek(at)
                file.write(b"-" * len(self.token))

    def check(self, output: Path) -> None:
        """Make sure that the run is not over.

        Raises
        ------
        FileError
            It is, and not by its own will.
        """
        if self.lost():
            raise FileError(
                f"{output} is not this run's any more: another run has taken it, or {self.path.name} was "
                "removed. What is finished is kept; the same command goes on from there."
            )

    def unseen(self) -> FileError:
        """Say why a worker took the run for over though it goes on."""
        return FileError(
            f"A worker does not see {self.path}, which tells it that the run goes on. Choose an output in a "
            "folder that all workers share under one path; what is finished is kept."
        )


@contextmanager
def locked(output: Path, lock: Path | None = None) -> Iterator[Hold]:
    """Keep other runs away from an output.

    The lock is the operating system's, on a file that says who holds it. It ends with the process however
    that ends, so what a killed run left is taken over.

    Parameters
    ----------
    output
        What errors name; a folder where no lock is given.
    lock
        File of the lock; None: inside the folder. An output that is replaced as a whole has it beside it.

    Yields
    ------
    hold
        By which workers know whether the run that they work for still is the one that holds the output.

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
    descriptor, hold = _acquire(path, output)
    try:
        yield hold
    finally:
        # Windows removes no open file; elsewhere it must go while it is locked, or another's could go.
        if sys.platform == "win32":
            os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":
            os.close(descriptor)


def _acquire(path: Path, output: Path) -> tuple[int, Hold]:
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
    token, told = secrets.token_hex(8), False
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(" ", "seconds"),
        "token": token,
    }
    with suppress(OSError):  # a full disk: the lock holds, and only does not say whose it is
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(about).encode())
        told = True
    return descriptor, Hold(path.absolute(), token, told)


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
