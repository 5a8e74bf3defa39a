"""Settings of a training run, stated once for Python and the command line."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from napari_lightsam.engine.config import check_ranges, ranged
from napari_lightsam.errors import ConfigError
from napari_lightsam.model.spec import TINY_VIT_WIDTHS, Architecture

Method = Literal["decoupled", "full-stage", "supervised"]

_PRACTICAL = ("steps", "memory", "workers")  # what may change while a run is interrupted


def _setting(default: Any, text: str, low: float = 0.0, high: float = math.inf) -> Any:
    return ranged(default, text, low=low, high=high)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a model is trained; each field's `metadata` carries `help` and `range`.

    Raises
    ------
    ConfigError
        If a value is outside its range.

    Examples
    --------
    >>> TrainConfig(minutes=5).learning_rate
    0.0006
    """

    steps: int | None = _setting(None, "Optimiser steps; decides over minutes", 1)
    minutes: float = _setting(60.0, "Time to train; becomes a number of steps after a timed warm-up", 0.01)
    seed: int = _setting(0, "Random seed of crops, prompts and new weights")
    learning_rate: float = _setting(6e-4, "Highest rate; it rises at first, then falls as a cosine", 1e-8, 1)
    weight_decay: float = _setting(0.05, "Of matrices", 0, 1)
    warmup: int = _setting(50, "Steps in which the rate rises")
    prompts: int = _setting(32, "Prompts a step", 2, 4096)
    rounds: int = _setting(2, "Most corrective clicks after a prompt", 0, 8)
    ema: float = _setting(0.996, "Memory of the averaged weights that are saved in the end", 0, 1)
    clip: float = _setting(1.0, "Largest norm of the gradient", 1e-6)
    smallest: float = _setting(12.0, "Least typical object diameter of a crop, in frame pixels", 4)
    largest: float = _setting(96.0, "Largest typical object diameter of a crop, in frame pixels", 4)
    freeze_norm: bool = _setting(True, "Keep the batch norms' statistics, as fine-tuning on few crops should")
    check_every: int = _setting(500, "Steps between checks on validation crops", 1)
    save_every: int = _setting(200, "Steps between checkpoints", 1)
    memory: float = _setting(4.0, "GB of images kept in memory; the others wait in temporary files")
    workers: int = _setting(1, "Processes that cut crops ahead; 0 cuts them between steps", 0, 64)

    def identity(self) -> dict[str, Any]:
        """Return the settings that a continued run must share; steps, memory and workers may change."""
        return {name: value for name, value in asdict(self).items() if name not in _PRACTICAL}

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.smallest > self.largest:
            raise ConfigError(
                f"smallest ({self.smallest:g}) is larger than largest ({self.largest:g}); swap them."
            )


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """How a student learns from a teacher; each field's `metadata` carries `help` and `range`.

    Raises
    ------
    ConfigError
        If a value is none of those accepted.

    Examples
    --------
    >>> DistilConfig(student="vit_t_3m").method
    'decoupled'
    """

    method: Method = field(
        default="decoupled",
        metadata={
            "help": "decoupled: the student's embedding equals the teacher's; full-stage: its tokens and "
            "masks as well, and the truth is met; supervised: the truth alone, for comparison",
        },
    )
    student: Architecture = field(
        default="vit_t_2m",
        metadata={
            "help": f"Encoder of the student: {', '.join(TINY_VIT_WIDTHS)} (5, 3 and 2 million parameters)"
        },
    )
    tune: int = _setting(
        0, "Steps in which the decoder adapts to the student after decoupled distillation", 0
    )
    distinct: int = _setting(
        0, "Different batches of crops, which come again in turn; 0 makes new ones for every step", 0
    )
    cache: float = _setting(4.0, "GB that the teacher's cached embeddings may take", 0)
    decoder_rate: float = _setting(
        0.1, "Part of the learning rate for the decoder, which starts as the teacher's (full-stage)", 0, 1
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        for name, accepted in (("method", get_args(Method)), ("student", tuple(TINY_VIT_WIDTHS))):
            if getattr(self, name) not in accepted:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; accepted are {', '.join(accepted)}.")


TEACHING = TrainConfig(
    minutes=5.0,
    learning_rate=2e-4,
    warmup=20,
    prompts=24,
    rounds=1,
    ema=0.99,
    smallest=20.0,
    largest=90.0,
    check_every=1_000_000,
    save_every=1_000_000,
)
"""What teaching an existing model with a few corrected images takes: minutes, no checks on the way."""

STAGES = ("testing as it is", "looking at the images", "training", "testing what was learned")
"""Stages of a lesson that take time, in their order."""

SAVING = "saving"
"""Stage of a lesson's last `Progress`: the step after it writes the files, and nothing interrupts it."""
