"""Where something lies in an array of more axes: a plane of a stack, or all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = tuple[int | None, ...]
"""Position along every axis of an array; None on the axes that are looked at as a whole."""


def index_of(place: Place) -> tuple[int | slice, ...]:
    """Return a place as an index.

    Examples
    --------
    >>> index_of((2, None))
    (2, slice(None, None, None))
    """
    return tuple(slice(None) if step is None else step for step in place)


def view(data: NDArray[Any], place: Place) -> NDArray[Any]:
    """Return the part of an array at a place, without copying it."""
    part: NDArray[Any] = data[index_of(place)]
    return part
