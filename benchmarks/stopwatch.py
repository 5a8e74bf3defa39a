"""Which steps of a run take how long; the engine has no timers, its functions are wrapped from here."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any
from unittest import mock

from napari_lightsam.engine import (
    answer,
    assemble,
    candidates,
    decode,
    level,
    merge,
    samplers,
    segmenter,
    walk,
)
from napari_lightsam.engine.runtime import ForwardingRuntime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from napari_lightsam.engine.resample import FloatArray
    from napari_lightsam.engine.runtime import Runtime
    from napari_lightsam.model.sam import PromptTensors

Places = tuple[tuple[str, Any, str], ...]
"""Steps: what each is called, and the module or class and name of the function that does it."""

CLICK: Places = (
    ("prompt_set-up", segmenter, "check_prompts"),
    ("prompt_set-up", answer, "scales_for"),
    ("prompt_set-up", decode, "place"),
    ("prompt_set-up", decode, "_tensors"),
    ("window_cut", decode, "_windows"),
    ("candidates", answer, "collect"),
    ("mask_drawing", candidates.Candidates, "mask"),
)
EVERYTHING: Places = (
    ("normalising", segmenter, "prepare_plane"),
    ("reading", level.BlockReader, "read"),
    ("proposals", samplers, "from_head"),
    ("prompt_set-up", decode, "_tensors"),
    ("window_cut", decode, "_windows"),
    ("candidates", walk, "collect"),
    ("filters", assemble, "plausible"),
    ("choice", assemble, "suppress"),
    ("drawing", candidates.Candidates, "piece"),
    ("merging", merge.Pile, "settle"),
    ("writing", assemble, "write_pieces"),
)
_REST = "everything_else"


class Stopwatch:
    """Sums the time of steps; a step within another one stops the outer one's clock."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count what happens inside as a step."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self, places: Places) -> Iterator[None]:
        """Count calls of these functions as steps."""
        with ExitStack() as stack:
            for name, owner, function in places:
                stack.enter_context(
                    mock.patch.object(owner, function, self._wrapped(name, getattr(owner, function)))
                )
            yield

    def _wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            with self.step(name):
                return function(*given, **named)

        return timed

    def split(self, job: Callable[[], object], places: Places, repeat: int) -> dict[str, Any]:
        """Run a job a few times with timers and without.

        Returns
        -------
        dict
            `ms` of the job without timers in the functions, and the `steps`, milliseconds each; medians.
        """
        job()
        bare: list[float] = []
        samples: dict[str, list[float]] = defaultdict(list)
        for _ in range(repeat):
            start = time.perf_counter()
            job()
            bare.append(time.perf_counter() - start)
            self.seconds.clear()
            with self.watching(places), self.step(_REST):
                job()
            for name, seconds in self.seconds.items():
                samples[name].append(seconds)
        return {"ms": 1e3 * statistics.median(bare), "steps": {n: _median_ms(s) for n, s in samples.items()}}


def _median_ms(seconds: Sequence[float]) -> float:
    return 1e3 * statistics.median(seconds)


class WatchedRuntime(ForwardingRuntime):
    """A runtime whose encoder, proposal head and decoder are steps of their own."""

    def __init__(self, runtime: Runtime, watch: Stopwatch) -> None:
        self._runtime, self._watch = runtime, watch

    @property
    def runtime(self) -> Runtime:
        """The runtime that does the work."""
        return self._runtime

    def encode(self, frame: FloatArray) -> Tensor:
        """Embed one frame, as `Runtime.encode`."""
        with self._watch.step("encoder"):
            return self.runtime.encode(frame)

    def propose(self, tokens: Tensor) -> FloatArray | None:
        """Propose objects, as `Runtime.propose`."""
        with self._watch.step("proposal_head"):
            return self.runtime.propose(tokens)

    def decode(
        self, tokens: Tensor, prompts: PromptTensors, multimask: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Decode prompts, as `Runtime.decode`."""
        with self._watch.step("decoder"):
            return self.runtime.decode(tokens, prompts, multimask)
