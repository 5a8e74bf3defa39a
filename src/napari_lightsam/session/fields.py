"""Reads the values of a file one by one and says which is wrong, and what it must be."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_REQUIRED = object()
_LARGEST = sys.float_info.max


class Fields:
    """The named values of one object in a JSON file.

    Parameters
    ----------
    path
        The file, for messages.
    where
        What the object is, for messages.
    values
        As JSON gave it.
    known
        Names that may occur.

    Raises
    ------
    FileError
        It is no object, or holds other names.
    """

    def __init__(self, path: Path, where: str, values: Any, known: Collection[str]) -> None:
        self._path, self._where = path, where
        if not isinstance(values, Mapping):
            raise FileError(f"{path} is damaged: {where} must hold names and values.")
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise FileError(f"{path}: {where} holds unknown names: {', '.join(map(str, unknown))}.")
        self._values = values

    def get(self, name: str, wanted: str, accepts: Callable[[Any], bool], default: Any = _REQUIRED) -> Any:
        """Return a value; the default where it is missing or null."""
        value = self._values.get(name)
        if value is None and default is not _REQUIRED:
            return default
        if not accepts(value):
            raise FileError(f"{self._path} is damaged: {name!r} of {self._where} must be {wanted}.")
        return value

    def text(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a text."""
        return self.get(name, "text", lambda v: isinstance(v, str), default)

    def count(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a whole number from 0."""
        return self.get(name, "a whole number from 0", _is_count, default)

    def counts(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers from 0."""
        wanted = "a list of whole numbers from 0"
        return tuple(self.get(name, wanted, lambda v: isinstance(v, list) and all(map(_is_count, v))))

    def number(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a finite number."""
        return self.get(name, "a finite number", is_number, default)

    def mapping(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return an object of names and values."""
        return self.get(name, "names and values", lambda v: isinstance(v, Mapping), default)

    def sequence(self, name: str, default: Any = _REQUIRED) -> Any:
        """Return a list."""
        return self.get(name, "a list", lambda v: isinstance(v, list), default)


def is_number(value: Any) -> bool:
    """Tell whether a value is a finite number."""
    # A whole number in JSON may have thousands of digits.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def plain(value: Any) -> Any:
    """Return a value as what JSON can hold; what it cannot hold is left out (None).

    Examples
    --------
    >>> plain({"a": (1, 2.5), 3: float("nan"), "b": object()})
    {'a': [1, 2.5], '3': None, 'b': None}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if hasattr(value, "tolist"):  # of NumPy, as numbers and as arrays
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else None
