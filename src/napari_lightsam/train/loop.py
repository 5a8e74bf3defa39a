"""The training loop: resumable to the exact step, averaged weights, a log, and a stop before nonsense."""

from __future__ import annotations

import copy
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, TrainError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.model.build import (
    build_sam,
    detect_architecture,
    published_state_dict,
    sam_state_dict,
)
from napari_lightsam.model.encoders import forget_attention_biases
from napari_lightsam.train.config import STAGES, TrainConfig
from napari_lightsam.train.devices import half_precision, move_batch, own_random, sum_in_order
from napari_lightsam.train.journal import CHECKS, LOSSES, Journal
from napari_lightsam.train.optim import Optimizer
from napari_lightsam.train.pictures import draw_answers
from napari_lightsam.train.step import Check, check, step_losses

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from torch import Tensor

    from napari_lightsam.model.sam import Sam
    from napari_lightsam.model.spec import Architecture
    from napari_lightsam.train.crops import Batch

_TIMED = range(5, 25)  # steps whose duration turns minutes into a number of steps
_STATE = "training.pt"
_ENDLESS = 1 << 40  # steps that a loader could be asked for
_FLOOR = 0.02  # of the highest learning rate, where the cosine ends


class StepResult(Protocol):
    """What an objective returns: named losses, one of which is minimised."""

    @property
    def total(self) -> Tensor:
        """The loss that is minimised."""
        ...

    def _asdict(self) -> dict[str, Tensor]: ...


class Objective(Protocol):
    """What a step minimises, such as `step_losses`."""

    def __call__(
        self, model: Sam, batch: Batch, prompts: int, rounds: int, generator: torch.Generator
    ) -> StepResult:
        """Return the losses of a batch."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a run.

    Attributes
    ----------
    checkpoint
        Averaged weights under published names; `export_weights` makes the file that is shipped of it.
    steps
        Steps done.
    checks
        (step, check) on validation crops.
    """

    checkpoint: Path
    steps: int
    checks: tuple[tuple[int, Check], ...]


def start_model(tensors: Mapping[str, Tensor] | None, seed: int, architecture: Architecture = "vit_t") -> Sam:
    """Build the network to train: random, or from a checkpoint's tensors (published names).

    A checkpoint without a proposal head gets a new one. Tensors decide the architecture by themselves.
    """
    if tensors is not None:
        architecture = detect_architecture(tensors) or architecture
    with own_random(torch.device("cpu")):
        torch.manual_seed(seed)
        model = build_sam(architecture, proposals=True)
    if tensors is not None:
        missing, unexpected = model.load_state_dict(sam_state_dict(tensors, architecture), strict=False)
        wrong = [n for n in missing if not n.startswith("proposal_head.") and "num_batches" not in n]
        if wrong or unexpected:
            raise FileError(
                f"The checkpoint does not fit: {len(wrong)} tensors are missing, {len(unexpected)} unknown."
            )
    return model


def train(
    model: Sam,
    crops: Dataset[Batch],
    validation: Sequence[Batch],
    config: TrainConfig,
    folder: str | Path,
    *,
    objective: Objective = step_losses,
    frozen: Sequence[str] = (),
    slower: Mapping[str, float] | None = None,
    workers: int = 1,
    journal: Journal | None = None,
    device: str | None = None,
) -> Generator[Progress, None, Trained]:
    """Train a model; a generator of `Progress` that returns `Trained`.

    Parameters
    ----------
    model
        From `start_model`; trained in place.
    crops
        Makes the batch of any step.
    validation
        Fixed batches to check on.
    config
        Settings.
    folder
        Gets the log, the state and the weights. A state in it is continued from, to the exact step.
    objective
        What a step minimises.
    frozen
        Beginnings of the names of parameters that stay as they are, such as `image_encoder.backbone.`.
    slower
        Beginnings of the names of parameters that learn at a part of the rate, with that part.
    workers
        Processes that make batches ahead; 0 makes each when it is needed, which suits batches that are kept.
    journal
        Where losses, checks and pictures go; None: CSV files and pictures in the folder.
    device
        `cpu` (bfloat16), `cuda` or `cuda:N` (bfloat16 where the GPU computes in it, else float32); None:
        where the model is.

    Raises
    ------
    TrainError
        The loss is no number any more.
    FileError
        The state in the folder belongs to other settings.
    """
    if device is not None:
        model.to(device)
    journal = journal or Journal(folder)
    run = _Run(model, config, Path(folder), journal, objective, tuple(frozen), slower)
    start = run.resume()
    journal.begin(start)
    try:
        return (yield from _steps(run, _batches(crops, start, workers), validation, start))
    finally:
        journal.close()


def _steps(
    run: _Run, batches: Iterable[Batch], validation: Sequence[Batch], start: int
) -> Generator[Progress, None, Trained]:
    config = run.config
    validation = [move_batch(batch, run.device) for batch in validation]
    checks: list[tuple[int, Check]] = []
    began = time.perf_counter()
    step = start
    for step, batch in enumerate(batches, start=start):
        if run.steps is not None and step >= run.steps:
            break
        if step == start + _TIMED.start:
            began = time.perf_counter()
        if run.steps is None and step == start + _TIMED.stop:
            seconds = (time.perf_counter() - began) / len(_TIMED)
            run.steps = max(step + 1, round(config.minutes * 60 / seconds))
        run.step(batch, step)
        done = step + 1
        if done % config.save_every == 0:
            run.save(done)
        if done % config.check_every == 0 and done != run.steps:
            checks.append((done, run.check(validation, done)))
        yield Progress(STAGES[2], done, run.steps or 0)
    run.save(step)
    checks.append((step, run.check(validation, step)))
    return Trained(run.export(), step, tuple(checks))


def _batches(crops: Dataset[Batch], start: int, workers: int) -> DataLoader[Batch]:
    if not workers:
        return DataLoader(crops, batch_size=None, sampler=range(start, _ENDLESS))
    return DataLoader(
        crops,
        batch_size=None,
        sampler=range(start, _ENDLESS),
        num_workers=workers,
        prefetch_factor=4,
        # A forked worker shares the images in memory; where processes are spawned it gets a copy.
        multiprocessing_context="fork" if sys.platform == "linux" else "spawn",
    )


class _Run:
    """State of a run: weights, averaged weights, optimiser, log."""

    def __init__(
        self,
        model: Sam,
        config: TrainConfig,
        folder: Path,
        journal: Journal,
        objective: Objective = step_losses,
        frozen: tuple[str, ...] = (),
        slower: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.config, self.folder, self.objective = model, config, folder, objective
        self.journal, self.device = journal, next(model.parameters()).device
        self.steps = config.steps
        folder.mkdir(parents=True, exist_ok=True)
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010  with a learned bias the fused kernel falls back to a slow one
        model.image_encoder.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        self.optimizer = Optimizer(model, config.learning_rate, config.weight_decay, slower)

    def step(self, batch: Batch, step: int) -> None:
        """Do one optimiser step."""
        start = time.perf_counter()
        self._training_mode()
        rate = self._rate(step)
        self.optimizer.set_rate(rate)
        generator = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + step)
        batch = move_batch(batch, self.device)
        # Few prompt tokens, large window: plain products take half the time of the fused kernel's backward.
        with own_random(self.device), half_precision(self.device), sdpa_kernel(SDPBackend.MATH):
            torch.manual_seed(self.config.seed * 1_000_003 + step)  # drop path
            losses = self.objective(self.model, batch, self.config.prompts, self.config.rounds, generator)
        if not bool(torch.isfinite(losses.total)):
            raise TrainError(
                f"The loss is {float(losses.total.detach())} at step {step}. Continue from the last "
                f"checkpoint in {self.folder} with a lower learning rate than "
                f"{self.config.learning_rate:g}."
            )
        self.optimizer.zero_grad()
        with sum_in_order():
            losses.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self._average(step)
        row = {"step": step, "rate": rate, "norm": float(norm), "seconds": time.perf_counter() - start}
        row |= {name: float(value.detach()) for name, value in losses._asdict().items()}
        self.journal.note(LOSSES, row)

    def _training_mode(self) -> None:
        self.model.train()
        if self.config.freeze_norm:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def _rate(self, step: int) -> float:
        if step < self.config.warmup:
            return self.config.learning_rate * (step + 1) / self.config.warmup
        if self.steps is None:
            return self.config.learning_rate
        part = min(1.0, (step - self.config.warmup) / max(1, self.steps - self.config.warmup))
        return self.config.learning_rate * (_FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * part)))

    @torch.no_grad()
    def _average(self, step: int) -> None:
        keep = min(self.config.ema, (step + 1) / (step + 10))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        averages, weights = (list(part) for part in zip(*pairs, strict=True))
        torch._foreach_lerp_(averages, weights, 1 - keep)
        for own, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
            own.copy_(new)

    def check(self, validation: Sequence[Batch], step: int) -> Check:
        """Measure the averaged weights, and show what they answer."""
        forget_attention_biases(self.average)
        with half_precision(self.device):
            result = check(self.average, validation)
            picture = draw_answers(self.average, validation) if validation else None
        self.journal.note(CHECKS, {"step": step, **asdict(result), "score": result.score})
        if picture is not None:
            self.journal.show(step, picture)
        return result

    def save(self, step: int) -> None:
        """Write everything that a continued run needs."""
        state = {
            "step": step,
            "steps": self.steps,
            "config": self.config.identity(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        _save(state, self.folder / _STATE)
        self.export()

    def resume(self) -> int:
        """Continue from the folder's state; returns the step to go on with."""
        path = self.folder / _STATE
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        known = {**TrainConfig().identity(), **state["config"]}  # an unknown setting had its default
        if any(known[name] != value for name, value in self.config.identity().items()):
            raise FileError(
                f"{path} was written with other settings: {state['config']}. Use the same ones to continue, "
                "or another folder to start anew."
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = self.config.steps or state["steps"]
        return int(state["step"])

    def export(self) -> Path:
        """Write the averaged weights under published names."""
        path = self.folder / "weights.pt"
        _save({name: part.cpu() for name, part in published_state_dict(self.average).items()}, path)
        return path


def _save(value: Any, path: Path) -> None:
    with written_whole(path) as temporary:
        torch.save(value, temporary)
