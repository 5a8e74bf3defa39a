"""What a batch is asked to do, and what became of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


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
    device, precision, runtime
        As in `load_segmenter`.

    Raises
    ------
    ConfigError
        A pixel size is no pair of positive numbers, or a plane is chosen of stacks that are linked.
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
    device: str = _setting("auto (CUDA, then MPS, then CPU), cpu, mps, cuda or cuda:N", "auto")
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = _setting(
        "auto (the fastest that agrees with float32), float32, bfloat16, float16, or int8 (after "
        "`lightsam quantize`)",
        "auto",
    )
    runtime: Literal["auto", "torch", "openvino"] = _setting(
        "auto (openvino on the CPU where it runs the model, else torch), torch or openvino",
        "auto",
    )

    def __post_init__(self) -> None:
        size = self.pixel_size
        if size is not None and not (len(size) == 2 and all(math.isfinite(s) and s > 0 for s in size)):
            raise ConfigError(f"The pixel size is one or two positive numbers of micrometres; got {size}.")
        if self.link and self.z is not None:
            raise ConfigError(f"Linking takes all planes of a stack; leave out --z {self.z}.")

    def to_plain(self) -> dict[str, Any]:
        """All settings as one flat dictionary of the values that JSON knows."""
        plain = asdict(self)
        plain = {**plain.pop("config"), **plain}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What became of one input.

    Attributes
    ----------
    source
        The input file.
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
    """

    source: Path
    status: Literal["written", "skipped", "failed"]
    outputs: tuple[Path, ...] = ()
    n_objects: int | None = None
    seconds: float = 0.0
    message: str = ""
    flags: tuple[str, ...] = ()


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
    """

    outcomes: tuple[FileOutcome, ...]
    object_size: float | None
    object_size_source: str
    model: str
    device: str
    precision: str
    device_reason: str
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every input has its result, 1 when one failed."""
        return 1 if any(o.status == "failed" for o in self.outcomes) else 0
