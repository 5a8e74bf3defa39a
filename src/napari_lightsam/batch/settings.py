"""What a batch is asked to do, and what became of it."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_lightsam.engine.config import EverythingConfig, Precision, RuntimeName
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_lightsam.engine.segmenter import Segmenter

_MOST_CHANNELS = 3


def _setting(text: str, default: Any = None, unit: str = "") -> Any:
    return field(default=default, metadata={"help": text, "unit": unit})


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How every image of a batch is read and segmented; each field's `metadata` carries `help` and `unit`.

    Attributes
    ----------
    config
        Settings of everything mode. Its object size, where given, holds for all images; else one size is
        estimated for all.
    channel, z, time
        The plane to take, as in `formats.images.ImageInfo.select`.
    link
        Segment all planes of a depth axis with `engine.stack.segment_stack`: slice by slice, the same object
        with the same label in all planes.
    pixel_size
        (row, column) in micrometres, instead of what the files say.
    series
        Which image of a file that holds several: its number, or "all"; None takes the first, and says so.
    axes
        One letter per dimension (T, C, Z, Y, X, S for colour), instead of what the files say.
    device, precision, runtime
        As in `load_segmenter`.

    Raises
    ------
    ConfigError
        A value is of another kind or outside its range, or a plane is chosen of stacks that are linked.
    """

    config: EverythingConfig = field(default_factory=EverythingConfig)
    channel: int | str | tuple[int | str, ...] | None = _setting(
        "Channel to segment, by number (from 0) or name; up to three, separated by commas. "
        "Needed where a file has several"
    )
    z: int | Literal["max"] | None = _setting(
        "Plane of a stack (from 0), or max for the maximum over all. Needed where a file has several"
    )
    time: int | None = _setting("Time point (from 0). Needed where a file has several")
    link: bool = _setting(
        "Segment all planes of a stack, slice by slice, and link objects that overlap from plane to plane; "
        "instead of --z",
        False,
    )
    pixel_size: tuple[float, float] | None = _setting(
        "Size of a pixel, or HEIGHT,WIDTH of an oblong one; from the file when not given", unit="um"
    )
    series: int | Literal["all"] | None = _setting(
        "Image of a file that holds several (from 0), or all for a result of each; the first when not given"
    )
    axes: str | None = _setting(
        "Axes of the files where these do not say it, or say it wrongly: a letter per dimension, such as ZYX"
    )
    device: str = _setting("auto (CUDA, then MPS, then CPU), cpu, mps, cuda or cuda:N", "auto")
    precision: Precision = _setting(  # noqa: RUF009
        "auto (the fastest that agrees with float32), float32, bfloat16, float16, or int8 (after "
        "`lightsam quantize`)",
        "auto",
    )
    runtime: RuntimeName = _setting(  # noqa: RUF009
        "auto (openvino on the CPU where it runs the model, else torch), torch or openvino",
        "auto",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.config, EverythingConfig):
            raise ConfigError(f"config is an EverythingConfig; got {type(self.config).__name__}.")
        _check_choice("channel", self.channel, _is_channel, "a number from 0, a name, or up to three of them")
        _check_choice("z", self.z, lambda v: v == "max" or _is_count(v), "a plane number from 0, or max")
        _check_choice("time", self.time, _is_count, "a whole number from 0")
        _check_choice("series", self.series, lambda v: v == "all" or _is_count(v), "a number from 0, or all")
        _check_choice("axes", self.axes, _is_axes, "different letters of T, C, Z, Y, X and S, with Y and X")
        _check_choice("pixel_size", self.pixel_size, _is_size, "one or two positive numbers of micrometres")
        for name, kinds in (("precision", Precision), ("runtime", RuntimeName)):
            value = getattr(self, name)
            if value not in get_args(kinds):
                raise ConfigError(f"Unknown {name} {value!r}; choose one of {', '.join(get_args(kinds))}.")
        if not isinstance(self.device, str):
            raise ConfigError(f"device is auto, cpu, mps, cuda or cuda:N; got {self.device!r}.")
        if not isinstance(self.link, bool):
            raise ConfigError(f"link must be True or False; got {self.link!r}.")
        if self.link and self.z is not None:
            raise ConfigError(f"Linking takes all planes of a stack; leave out --z {self.z}.")

    def to_plain(self) -> dict[str, Any]:
        """All settings as one flat dictionary of the values that JSON knows."""
        plain = asdict(self)
        plain = {**plain.pop("config"), **plain}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _check_choice(name: str, value: Any, accepts: Callable[[Any], bool], wanted: str) -> None:
    if value is not None and not accepts(value):
        raise ConfigError(f"{name.replace('_', ' ')} is {wanted}; got {value!r}.")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_channel(value: Any) -> bool:
    given = value if isinstance(value, tuple) else (value,)
    return 1 <= len(given) <= _MOST_CHANNELS and all(isinstance(v, str) or _is_count(v) for v in given)


def _is_axes(value: Any) -> bool:
    known = isinstance(value, str) and set(value) <= set("TCZYXS") and {"Y", "X"} <= set(value)
    return known and len(set(value)) == len(value) and "S" not in value[:-1]


def _is_size(value: Any) -> bool:
    given = value if isinstance(value, tuple | list) else ()
    numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool)]
    return len(given) == len(numbers) == 2 and all(0 < v <= sys.float_info.max for v in numbers)


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one input.

    Attributes
    ----------
    source
        The input file; text where it is an address.
    status
        `written` now, `skipped` because it was finished before, or `failed`.
    outputs
        Files that hold the result.
    n_objects
        Number of objects; `None` where it failed.
    seconds
        Time it took.
    message
        Why it failed.
    flags
        What to look at: notes, warnings, advice, a deviating object size.
    image
        What tables call it.
    """

    source: Path | str
    status: Literal["written", "skipped", "failed"]
    outputs: tuple[Path, ...] = ()
    n_objects: int | None = None
    seconds: float = 0.0
    message: str = ""
    flags: tuple[str, ...] = ()
    image: str = ""


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch.

    Attributes
    ----------
    outcomes
        One per input, in order.
    object_size
        Diameter in pixels used for all images; `None` where each was left to itself.
    object_size_source
        How it came about, in words.
    model, device, precision, device_reason
        What ran, on what, and why.
    notes
        About the batch as a whole.
    tables
        Files about the batch as a whole: all objects, all images, and the report.
    problems
        What of these could not be written.
    """

    outcomes: tuple[FileOutcome, ...]
    object_size: float | None
    object_size_source: str
    model: str
    device: str
    precision: str
    device_reason: str
    notes: tuple[str, ...] = ()
    tables: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every input has its result, 1 when one failed."""
        return 1 if self.problems or any(o.status == "failed" for o in self.outcomes) else 0


def load_model(name: str, settings: BatchSettings) -> Segmenter:
    """Load a model as the settings of a batch say.

    Raises
    ------
    WeightsError, DeviceError, ConfigError
        As `load_segmenter`.
    """
    from napari_lightsam.engine.segmenter import load_segmenter

    return load_segmenter(
        name, device=settings.device, precision=settings.precision, runtime=settings.runtime
    )
