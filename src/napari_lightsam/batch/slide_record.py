"""What a slide says of how it was made: in the attributes of its labels, and beside its finished blocks."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeGuard

from napari_lightsam.engine.image import Plane
from napari_lightsam.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_lightsam.engine.image import ArrayLike

RECORD = "lightsam"
"""Attribute of the label image's group that says how it was made."""

NORMALISED = ("blank", "channels", "chosen", "colour", "limits", "mean", "std")
"""Of `engine.image.Plane`: what is measured once a slide."""

_LARGEST = 64 << 20  # bytes; a failed block takes a hundred


def read_record(out: Path) -> dict[str, Any] | None:
    """Return how a label image was made, `complete` or not; None where no slide was begun there.

    Raises
    ------
    FileError
        As `read_facts`.
    """
    record = read_facts(out / ".zattrs").get(RECORD)
    if not isinstance(record, dict) or not {"complete", "identity"} <= set(record):
        return None
    counted = all(type(record.get(name)) is int for name in ("n_objects", "blocks"))
    return {**record, "complete": record["complete"] is True and counted}


def read_facts(path: Path) -> dict[str, Any]:
    """Read a file of facts by name; none where it is not there or damaged.

    Raises
    ------
    FileError
        It holds something else.
    """
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        raise FileError(f"{path} was changed since it was written. Use --overwrite, or another output.")
    return value


def recall_plane(data: ArrayLike, facts: Mapping[str, Any]) -> Plane | None:
    """Return a plane with the normalisation of an earlier run; None where that is not told or cannot be."""
    told = {name: facts.get(name) for name in NORMALISED}
    try:
        limits = tuple((float(low), float(high)) for low, high in facts["limits"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    numbers = [told["mean"], told["std"], *(value for pair in limits for value in pair)]
    kinds = all(type(told[name]) is bool for name in ("blank", "chosen", "colour"))
    samples = data.shape[2] if len(data.shape) == 3 else 0
    fits = type(told["channels"]) is int and min(1, samples) <= told["channels"] <= samples
    if not fits or not kinds or facts.get("shape") != list(data.shape):
        return None
    if len(limits) not in (1, told["channels"]) or not all(map(_is_number, numbers)):
        return None
    return Plane(data=data, **(told | {"limits": limits}))  # type: ignore[arg-type]  # checked above


def recall_size(facts: Mapping[str, Any]) -> float | None:
    """Return the object size of an earlier run in pixels; None where it is not told or cannot be."""
    size = facts.get("object_size")
    return size if _is_number(size) and 0 < size < 1e6 else None


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and math.isfinite(value)
