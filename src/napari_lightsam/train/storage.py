"""Arrays that are kept in memory up to a limit, and in files beyond it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class StoredArray:
    """An array in a file, of which only the parts asked for are read.

    The file is opened for each part: open maps of thousands of images would exceed what a process may hold,
    and a path is all that goes to another process.

    Attributes
    ----------
    path
        A `.npy` file.
    shape, dtype
        Of the array.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        return np.array(np.load(self.path, mmap_mode="r")[key])


class ArrayStore:
    """Keeps arrays in memory as long as there is room, and the others in a folder of its own.

    A context manager: the files are gone when it is left.

    Parameters
    ----------
    limit
        Bytes in memory.
    parent
        Where the folder is made; the system's place for temporary files by default.

    Examples
    --------
    >>> import numpy as np
    >>> with ArrayStore(limit=100) as store:
    ...     kept = [store.keep(np.full(8, n)) for n in (1, 2)]
    ...     [type(array).__name__ for array in kept], kept[1][3:5].tolist()
    (['ndarray', 'StoredArray'], [2, 2])
    """

    def __init__(self, limit: float, parent: str | Path | None = None) -> None:
        self._left = limit
        self._parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def keep(self, array: npt.NDArray[Any] | StoredArray) -> npt.NDArray[Any] | StoredArray:
        """Return the array, or one that reads it from a file."""
        if isinstance(array, StoredArray):
            return array
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            return array
        path = self._new_path()
        np.save(path, array)
        return StoredArray(path, array.shape, array.dtype)

    def scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return an array to fill, mapped to a file when there is no room for it in memory."""
        if int(np.prod(shape)) * dtype.itemsize <= self._left:
            return np.empty(shape, dtype)
        return np.lib.format.open_memmap(self._new_path(), mode="w+", dtype=dtype, shape=shape)

    def _new_path(self) -> Path:
        if self._folder is None:
            # On Windows a file stays that is mapped still, as by an error that is on its way.
            self._folder = tempfile.TemporaryDirectory(
                prefix="images-", dir=self._parent, ignore_cleanup_errors=True
            )
        self._count += 1
        return Path(self._folder.name) / f"{self._count}.npy"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()
