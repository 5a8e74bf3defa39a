"""What files of outlines, which know no image, say about the labels that they were made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_lightsam.formats.objects import Objects


@dataclass(frozen=True, slots=True)
class Layout:
    """Size and calibration of a label image; all that is not known is None.

    Attributes
    ----------
    height, width
        The least size of an image that holds the labels where they are.
    t, z
        How many time points and planes there are, where the labels have such an axis.
    pixel_size, z_step
        As in `formats.objects.Objects`.
    """

    height: int | None = None
    width: int | None = None
    t: int | None = None
    z: int | None = None
    pixel_size: tuple[float, float] | None = None
    z_step: float | None = None

    @classmethod
    def of(cls, objects: Objects) -> Layout:
        """Describe a label image."""
        sizes = dict(zip(objects.axes, objects.labels.shape, strict=True))
        height, width = (int(sizes[a] + first) for a, first in zip("YX", objects.origin, strict=True))
        return cls(height, width, sizes.get("T"), sizes.get("Z"), objects.pixel_size, objects.z_step)

    @property
    def plane(self) -> tuple[int, int] | None:
        """(H, W), or None."""
        return (self.height, self.width) if self.height and self.width else None

    def to_plain(self) -> dict[str, Any]:
        """Give what is known as JSON holds it."""
        size = self.pixel_size and list(self.pixel_size)
        named = {
            "height": self.height, "width": self.width, "sizeT": self.t, "sizeZ": self.z,
            "pixelSizeMicrons": size, "zSpacingMicrons": self.z_step,
        }  # fmt: skip
        return {name: value for name, value in named.items() if value is not None}

    @classmethod
    def from_plain(cls, found: Any) -> Layout:
        """Read what a file says; what is damaged, or was written by another program, is not known."""
        if not isinstance(found, Mapping):
            return cls()
        height, width, t, z = (_count(found.get(name)) for name in ("height", "width", "sizeT", "sizeZ"))
        size = found.get("pixelSizeMicrons")
        row, column = map(_length, size) if isinstance(size, list) and len(size) == 2 else (None, None)
        known = (row, column) if row and column else None
        return cls(height, width, t, z, known, _length(found.get("zSpacingMicrons")))


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _length(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) and value > 0 else None
