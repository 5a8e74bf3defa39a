"""Settings of everything mode: defaults, ranges, units and help stated once for every interface."""

from __future__ import annotations

import math
import numbers
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["auto", "object-aware", "hierarchical", "grid"]


def _setting(default: Any, text: str, unit: str = "", low: float = 0.0, high: float = math.inf) -> Any:
    return field(default=default, metadata={"help": text, "unit": unit, "range": (low, high)})


@dataclass(frozen=True, slots=True)
class EverythingConfig:
    """How everything in an image is segmented; None means the model's own default.

    Each field's `metadata` carries `help`, `unit` and `range`, which widget, command line and docs read.

    Raises
    ------
    ConfigError
        If a value is outside its range.

    Examples
    --------
    >>> EverythingConfig(object_size=30).mode
    'auto'
    """

    mode: Mode = _setting(  # noqa: RUF009  (it is dataclasses.field)
        "auto",
        "Where prompts are placed: object-aware (where objects probably are), hierarchical (coarse, then "
        "fine where nothing was found), grid (everywhere), auto (what suits the model)",
    )
    object_size: float | None = _setting(
        None, "Typical object diameter, 2 * sqrt(area / pi); estimated when not given", "px", 1
    )
    iou_threshold: float | None = _setting(None, "Least predicted IoU of a mask", "", 0, 1)
    stability_threshold: float | None = _setting(None, "Least stability score of a mask", "", 0, 1)
    min_size: float | None = _setting(None, "Least object diameter; a third of the object size", "px")
    max_size: float | None = _setting(None, "Largest object diameter; no limit", "px")
    keep_border: bool = _setting(True, "Keep objects that touch the image border")
    overlap: float = _setting(0.5, "Drop a mask when better ones cover more than this part of it", "", 0, 1)
    point_spacing: float | None = _setting(None, "Distance of prompts", "px of the model's frame", 4)
    points_per_side: int | None = _setting(None, "Prompts along the longer side (fixed frame)", "", 1, 256)
    confident_logit: float | None = _setting(
        None, "Logit above which hierarchical mode takes pixels as settled; lowered for dim objects", ""
    )
    batch: int = _setting(64, "Prompts decoded at once", "", 1, 1024)
    published: bool = _setting(
        False, "Reproduce the published generators: their lattices, full-size filters, box NMS, no merging"
    )

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"Unknown mode {self.mode!r}; choose one of {', '.join(get_args(Mode))}.")
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name == "mode" or (value is None and setting.default is None):
                continue
            object.__setattr__(self, setting.name, _checked(setting, value))
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise ConfigError(f"min_size ({self.min_size:g}) is larger than max_size ({self.max_size:g}).")


def _checked(setting: Field[Any], value: object) -> bool | int | float:
    """Return a setting as Python's own bool, int or float (a sidecar must be able to hold it)."""
    if isinstance(setting.default, bool):
        if not isinstance(value, bool | np.bool_):
            raise ConfigError(f"{setting.name} must be True or False; got {value!r}.")
        return bool(value)
    low, high = setting.metadata["range"]
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not (low <= value < math.inf and value <= high):  # type: ignore[operator]
        raise ConfigError(f"{setting.name} must be a number between {low:g} and {high:g}; got {value!r}.")
    if "int" not in str(setting.type):
        return float(value) if not isinstance(value, numbers.Integral) else int(value)  # type: ignore[arg-type]
    if value != int(value):  # type: ignore[call-overload]
        raise ConfigError(f"{setting.name} must be a whole number; got {value!r}.")
    return int(value)  # type: ignore[call-overload, no-any-return]


def config_from(settings: Mapping[str, Any]) -> EverythingConfig:
    """Make a config from named settings.

    Raises
    ------
    ConfigError
        If a name is unknown or a value is not accepted.
    """
    known = {setting.name for setting in fields(EverythingConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"Unknown setting(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
    return EverythingConfig(**settings)
