"""Units of length, by the names that files give them."""

from __future__ import annotations

import math
from typing import Any

# Inches stand for a printer's or camera's dpi, pixels for no calibration.
_MICROMETRES = {
    "m": 1e6, "meter": 1e6, "metre": 1e6, "dm": 1e5, "decimeter": 1e5, "decimetre": 1e5,
    "cm": 1e4, "centimeter": 1e4, "centimetre": 1e4, "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3,
    "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0,
    "micrometres": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometers": 1e-3, "nanometre": 1e-3,
    "å": 1e-4, "angstrom": 1e-4, "angstroms": 1e-4, "ångström": 1e-4, "pm": 1e-6, "picometer": 1e-6,
    "picometre": 1e-6,
}  # fmt: skip


def to_micrometres(value: Any, unit: str) -> float | None:
    """Micrometres of a positive length, or `None` when it or its unit is no calibration.

    Examples
    --------
    >>> to_micrometres("65", "nm"), to_micrometres(13.5, "Angstrom"), to_micrometres(72, "inch")
    (0.065, 0.00135, None)
    """
    factor = _MICROMETRES.get(unit.strip().casefold().replace("µ", "u").replace("μ", "u"))
    try:
        length = float(value) * (factor or 0.0)
    except (TypeError, ValueError):
        return None
    return length if math.isfinite(length) and length > 0 else None
