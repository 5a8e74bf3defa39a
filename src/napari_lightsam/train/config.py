"""Settings of a training run, stated once for Python and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from napari_lightsam.errors import ConfigError


def _setting(default: Any, text: str, low: float = 0.0, high: float = math.inf) -> Any:
    return field(default=default, metadata={"help": text, "range": (low, high)})


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
    0.0004
    """

    steps: int | None = _setting(None, "Optimiser steps; decides over minutes", 1)
    minutes: float = _setting(60.0, "Time to train; becomes a number of steps after a timed warm-up", 0.01)
    seed: int = _setting(0, "Of crops, prompts and new weights")
    learning_rate: float = _setting(4e-4, "Highest rate; it rises at first, then falls as a cosine", 1e-8, 1)
    weight_decay: float = _setting(0.05, "Of matrices (AdamW)", 0, 1)
    warmup: int = _setting(100, "Steps in which the rate rises")
    prompts: int = _setting(32, "Prompts a step", 2, 4096)
    rounds: int = _setting(2, "Most corrective clicks after a prompt", 0, 8)
    ema: float = _setting(0.998, "Memory of the averaged weights that are saved in the end", 0, 1)
    clip: float = _setting(1.0, "Largest norm of the gradient", 1e-6)
    smallest: float = _setting(12.0, "Least typical object diameter of a crop, in frame pixels", 4)
    largest: float = _setting(96.0, "Largest typical object diameter of a crop, in frame pixels", 4)
    freeze_norm: bool = _setting(True, "Keep the batch norms' statistics, as fine-tuning on few crops should")
    check_every: int = _setting(500, "Steps between checks on validation crops", 1)
    save_every: int = _setting(200, "Steps between checkpoints", 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            value, (low, high) = getattr(self, setting.name), setting.metadata["range"]
            if value is not None and not low <= value <= high:
                raise ConfigError(f"{setting.name} must be between {low:g} and {high:g}; got {value!r}.")
        if self.smallest > self.largest:
            raise ConfigError(
                f"smallest ({self.smallest:g}) is larger than largest ({self.largest:g}); swap them."
            )
