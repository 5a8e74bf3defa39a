"""Medians on a machine that is not quiet: the contestants of a row take turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LONG = 10.0  # s: what warms up in such a job does not count
_SHORT = 5.0  # s: such a job is run once more before it is decided how often a sample repeats it
_SAMPLE = 0.2  # s: shorter jobs are repeated within a sample


@dataclass(frozen=True, slots=True)
class Timing:
    """What one job took.

    Attributes
    ----------
    wall, cpu
        Median seconds on the clock, and of processor time summed over cores.
    runs
        Number of samples; 0 when it was put together from other timings.
    """

    wall: float
    cpu: float | None
    runs: int = 0

    def __add__(self, other: Timing) -> Timing:
        """Add the seconds of two steps."""
        cpu = None if self.cpu is None or other.cpu is None else self.cpu + other.cpu
        return Timing(self.wall + other.wall, cpu)

    def times(self, n: int) -> Timing:
        """Return the seconds of n equal steps."""
        return Timing(n * self.wall, None if self.cpu is None else n * self.cpu)


@dataclass(frozen=True, slots=True)
class Measured:
    """A timing, and what the job returned last."""

    timing: Timing
    result: Any


def interleave(jobs: Mapping[str, Callable[[], Any]], repeat: int) -> dict[str, Measured]:
    """Run jobs in turns and take medians, so that a disturbance meets all of them alike.

    Parameters
    ----------
    jobs
        Functions without arguments, by name.
    repeat
        Samples of each. The first run warms up and is not counted, unless it takes long.
    """
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
    inner, results = {}, {}
    for name, job in jobs.items():
        taken, results[name] = _sample(job, 1)
        if taken[0] > _LONG:
            samples[name].append(taken)
        elif taken[0] < _SHORT:
            taken, _ = _sample(job, 1)
        inner[name] = max(1, math.ceil(_SAMPLE / max(taken[0], 1e-6)))
    for _ in range(repeat):
        gc.collect()
        for name, job in jobs.items():
            if len(samples[name]) < repeat:
                taken, results[name] = _sample(job, inner[name])
                samples[name].append(taken)
    return {
        name: Measured(
            Timing(statistics.median(w for w, _ in got), statistics.median(c for _, c in got), len(got)),
            results[name],
        )
        for name, got in samples.items()
    }


def _sample(job: Callable[[], Any], times: int) -> tuple[tuple[float, float], Any]:
    """Return wall and CPU seconds of one run, averaged over `times`, and the last result."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        result = job()
    return ((time.perf_counter() - wall) / times, (time.process_time() - cpu) / times), result
