"""Settings of everything mode: defaults, ranges, units and help stated once for every interface."""

from __future__ import annotations

import math
import numbers
import re
import sys
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

    FloatArray = NDArray[np.floating[Any]]

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
RuntimeName = Literal["auto", "torch", "openvino"]
Mode = Literal["auto", "object-aware", "hierarchical", "grid"]

_MORE = 0.5  # of the usual thresholds: what a balance of 1 goes down to
_FEWER = 0.5  # of the way from the usual thresholds to 1: what a balance of -1 goes up to
_TINY = 1e-9
_SIZE = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?) *(px|px2|px²|um|µm|μm|um2|µm²|μm²|um²)")


def ranged(default: Any, text: str, unit: str = "", low: float = 0.0, high: float = math.inf) -> Any:
    """Make a dataclass field whose metadata say what it is, in what unit, and what is accepted."""
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

    mode: Mode = ranged(  # noqa: RUF009  (it is dataclasses.field)
        "auto",
        "Where prompts are placed: object-aware (where objects probably are), hierarchical (coarse, then "
        "fine where nothing was found), grid (everywhere), auto (what suits the model)",
    )
    object_size: float | None = ranged(
        None, "Typical object diameter, 2 * sqrt(area / pi); estimated when not given", "px", 1
    )
    balance: float = ranged(
        0.0, "Fewer (-1) or more (1) objects: moves the thresholds that are not given", "", -1, 1
    )
    iou_threshold: float | None = ranged(None, "Least predicted IoU of a mask", "", 0, 1)
    stability_threshold: float | None = ranged(None, "Least stability score of a mask", "", 0, 1)
    min_size: float | None = ranged(None, "Least object diameter; a third of the object size", "px")
    max_size: float | None = ranged(None, "Largest object diameter; no limit", "px")
    keep_border: bool = ranged(True, "Keep objects that touch the image border")
    overlap: float = ranged(0.5, "Drop a mask when better ones cover more than this part of it", "", 0, 1)
    point_spacing: float | None = ranged(None, "Distance of prompts", "px of the model's frame", 4)
    points_per_side: int | None = ranged(None, "Prompts along the longer side (fixed frame)", "", 1, 256)
    confident_logit: float | None = ranged(
        None, "Logit above which hierarchical mode takes pixels as settled; lowered for dim objects", ""
    )
    batch: int = ranged(64, "Prompts decoded at once", "", 1, 1024)
    published: bool = ranged(
        False, "Reproduce the published generators: their lattices, full-size filters, box NMS, no merging"
    )

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigError(f"Unknown mode {self.mode!r}; choose one of {', '.join(get_args(Mode))}.")
        check_ranges(self)
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise ConfigError(f"min_size ({self.min_size:g}) is larger than max_size ({self.max_size:g}).")


def check_ranges(config: DataclassInstance) -> None:
    """Check every field of numbers, all made by `ranged`, and store it as Python's own bool, int or float.

    Raises
    ------
    ConfigError
        If a value is of another kind or outside its range.
    """
    for setting in fields(config):
        value = getattr(config, setting.name)
        chosen = isinstance(setting.default, str)  # among names, which the class itself checks
        if not chosen and not (value is None and setting.default is None):
            object.__setattr__(config, setting.name, _checked(setting, value))


def _checked(setting: Field[Any], value: Any) -> bool | int | float:
    """Return a setting as Python's own bool, int or float (a sidecar must be able to hold it)."""
    if isinstance(setting.default, bool):
        if not isinstance(value, bool | np.bool_):
            raise ConfigError(f"{setting.name} must be True or False; got {value!r}.")
        return bool(value)
    low, high = setting.metadata["range"]
    value = value.item() if isinstance(value, np.generic) else value
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low <= value <= min(high, sys.float_info.max):
        raise ConfigError(f"{setting.name} must be a number between {low:g} and {high:g}; got {value!r}.")
    if "int" not in str(setting.type):
        return float(value) if not isinstance(value, numbers.Integral) else int(value)
    if value != int(value):
        raise ConfigError(f"{setting.name} must be a whole number; got {value!r}.")
    return int(value)


class Thresholds(NamedTuple):
    """Least scores of a candidate.

    Attributes
    ----------
    iou
        Predicted intersection over union.
    stability
        Stability score.
    """

    iou: float
    stability: float


def thresholds(config: EverythingConfig, usual: Thresholds) -> Thresholds:
    """Return the thresholds of a config: those given, else the model's own moved by the balance.

    Parameters
    ----------
    config
        Settings.
    usual
        The model's thresholds at a balance of 0.

    Examples
    --------
    >>> thresholds(EverythingConfig(balance=1), Thresholds(0.88, 0.94))
    Thresholds(iou=0.44, stability=0.47)
    >>> thresholds(EverythingConfig(balance=1, iou_threshold=0.7), Thresholds(0.88, 0.94))
    Thresholds(iou=0.7, stability=0.47)
    """
    given = config.iou_threshold, config.stability_threshold
    moved = (balanced(value, config.balance) for value in usual)
    return Thresholds(*(own if mine is None else mine for mine, own in zip(given, moved, strict=True)))


def balanced(usual: float, balance: float) -> float:
    """Move a threshold between 0 and 1 to let pass more objects (balance up to 1) or fewer (down to -1)."""
    return usual * (1 - (1 - _MORE) * balance) if balance >= 0 else usual + (1 - usual) * _FEWER * -balance


def balance_of(usual: float, scores: FloatArray) -> FloatArray:
    """Return the balance from which on candidates pass a threshold: beyond 1 where none lets them pass.

    Parameters
    ----------
    usual
        The threshold at a balance of 0.
    scores
        float (N,).

    Examples
    --------
    >>> balance_of(0.5, np.array([0.25, 0.5, 0.75])).tolist()
    [1.0, 0.0, -1.0]
    """
    more = (usual - scores) / max(usual * (1 - _MORE), _TINY)
    fewer = (usual - scores) / max((1 - usual) * _FEWER, _TINY)
    return np.where(scores < usual, more, fewer)


def keep_floors(config: EverythingConfig, usual: Thresholds) -> Thresholds:
    """Return the scores below which a run may drop candidates at once: no balance brings them back."""
    lowest = Thresholds(*(balanced(value, 1.0) for value in usual))
    now = thresholds(config, usual)
    return Thresholds(min(now.iou, lowest.iou), min(now.stability, lowest.stability))


def in_pixels(size: str, pixel_size: float | tuple[float, float] | None = None) -> float:
    """Return the diameter in pixels of an object whose diameter or area is given with its unit.

    Parameters
    ----------
    size
        Number and unit: `8 um` (or `µm`) and `24 px` are diameters, `50 um2` (or `µm²`) and `450 px2`
        are areas of the object, whose diameter is `2 * sqrt(area / pi)`.
    pixel_size
        Micrometres per pixel, or (row, column) of an oblong one; needed for `um` and `um2`.

    Raises
    ------
    ConfigError
        If the text is none of these, or the pixel size is missing or not positive.

    Examples
    --------
    >>> in_pixels("8 um", pixel_size=0.5)
    16.0
    >>> round(in_pixels("50 um2", pixel_size=(0.5, 0.5)), 2)
    15.96
    """
    found = _SIZE.fullmatch(str(size).strip().lower())
    if found is None:
        raise ConfigError(f"A size is a number and px, px2, um or um2, such as '8 um'; got {size!r}.")
    try:
        value, unit = float(found[1]), found[2]
    except ValueError:
        raise ConfigError(f"{found[1]!r} in the size {size!r} is no number.") from None
    area = unit[-1] in "2²"
    if unit[0] != "p":
        sides = np.atleast_1d(np.asarray(0.0 if pixel_size is None else pixel_size, np.float64))
        if not (np.isfinite(sides).all() and (sides > 0).all() and len(sides) <= 2):
            raise ConfigError(
                f"The size {size!r} needs a pixel size above 0 in micrometres; got {pixel_size!r}. "
                "Give it, or give the size in px."
            )
        pixel_area = float(sides[0] * sides[-1])
        value /= pixel_area if area else math.sqrt(pixel_area)
    return 2 * math.sqrt(value / math.pi) if area else value


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
