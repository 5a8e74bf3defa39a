"""Hashes of files: the proof that a checkpoint is the one its authors published."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from napari_lightsam.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["file_hash", "has_hash"]

_BLOCK = 1 << 20


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


# (path, hash) -> (size, mtime in ns) at the last successful check in this process, so that a 2.5 GB file is
# read once and not at every use; a file that was touched since is read again.
_verified: dict[tuple[str, str], tuple[int, int]] = {}


def file_hash(path: Path, kind: str, on_bytes: Callable[[int], object] | None = None) -> str:
    """Hash a file.

    Parameters
    ----------
    path
        The file.
    kind
        `sha256`, `xxh128` or `gitblob` (the id git gives to a file: sha1 of `blob <size>`, a zero byte and
        the content).
    on_bytes
        Called with the number of bytes of every block read; it may raise to stop.

    Returns
    -------
    str
        As the registry writes it, for instance `sha256:6dbb...`.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> empty = pathlib.Path(tempfile.mkdtemp()) / "empty"
    >>> empty.touch()
    >>> file_hash(empty, "gitblob")
    'gitblob:e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    with path.open("rb") as stream:
        hasher = _new_hasher(kind, os.fstat(stream.fileno()).st_size)
        while block := stream.read(_BLOCK):
            hasher.update(block)
            if on_bytes is not None:
                on_bytes(len(block))
    return f"{kind}:{hasher.hexdigest()}"


def has_hash(path: Path, expected: str, on_bytes: Callable[[int], object] | None = None) -> bool:
    """Tell whether a file has the expected hash; a success is remembered until the file changes.

    Parameters
    ----------
    path, on_bytes
        As for `file_hash`.
    expected
        `sha256:...`, `xxh128:...` or `gitblob:...`.
    """
    path = path.absolute()
    status = path.stat()
    state = (status.st_size, status.st_mtime_ns)
    key = (str(path), expected)
    if _verified.get(key) == state:
        return True
    if file_hash(path, expected.partition(":")[0], on_bytes) != expected.lower():
        _verified.pop(key, None)
        return False
    _verified[key] = state
    return True


def _new_hasher(kind: str, size: int) -> _Hasher:
    if kind == "sha256":
        return hashlib.sha256()
    if kind == "xxh128":
        import xxhash

        hasher: _Hasher = xxhash.xxh128()
        return hasher
    if kind == "gitblob":
        # Git's ids are sha1; it identifies the published object, and nothing stronger is published for it.
        blob = hashlib.sha1(usedforsecurity=False)
        blob.update(f"blob {size}\0".encode())
        return blob
    raise WeightsError(f"Unknown kind of hash {kind!r}; known are sha256, xxh128 and gitblob.")
