"""The training loop: resumable to the exact step, averaged weights, a log, and a stop before nonsense."""

from __future__ import annotations

import copy
import csv
import math
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.utils.data import DataLoader

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, TrainError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.model.build import build_sam, published_state_dict, sam_state_dict
from napari_lightsam.model.encoders import forget_attention_biases
from napari_lightsam.train.step import Check, check, step_losses

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from torch import Tensor

    from napari_lightsam.model.sam import Sam
    from napari_lightsam.train.config import TrainConfig
    from napari_lightsam.train.crops import Batch, CropMaker

_TIMED = range(5, 25)  # steps whose duration turns minutes into a number of steps
_STATE = "training.pt"
_LOG = "log.csv"
_CHECKS = "checks.csv"
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


def start_model(tensors: Mapping[str, Tensor] | None, seed: int) -> Sam:
    """Build the network to train: random, or from a checkpoint's tensors (published names).

    A checkpoint without a proposal head gets a new one.
    """
    torch.manual_seed(seed)
    model = build_sam("vit_t", proposals=True)
    if tensors is not None:
        missing, unexpected = model.load_state_dict(sam_state_dict(tensors, "vit_t"), strict=False)
        wrong = [n for n in missing if not n.startswith("proposal_head.") and "num_batches" not in n]
        if wrong or unexpected:
            raise FileError(
                f"The checkpoint does not fit: {len(wrong)} tensors are missing, {len(unexpected)} unknown."
            )
    return model


def train(
    model: Sam,
    crops: CropMaker,
    validation: Sequence[Batch],
    config: TrainConfig,
    folder: str | Path,
    *,
    objective: Objective = step_losses,
    frozen: Sequence[str] = (),
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

    Raises
    ------
    TrainError
        The loss is no number any more.
    FileError
        The state in the folder belongs to other settings.
    """
    run = _Run(model, config, Path(folder), objective, tuple(frozen))
    start = run.resume()
    checks: list[tuple[int, Check]] = []
    began = time.perf_counter()
    step = start
    for step, batch in enumerate(_batches(crops, start), start=start):
        if run.steps is not None and step >= run.steps:
            break
        if step == start + _TIMED.start:
            began = time.perf_counter()
        if run.steps is None and step == start + _TIMED.stop:
            seconds = (time.perf_counter() - began) / len(_TIMED)
            run.steps = max(step, round(config.minutes * 60 / seconds))
        run.step(batch, step)
        done = step + 1
        if done % config.save_every == 0:
            run.save(done)
        if done % config.check_every == 0:
            checks.append((done, run.check(validation, done)))
        yield Progress("training", done, run.steps or 0)
    run.save(step)
    checks.append((step, run.check(validation, step)))
    return Trained(run.export(), step, tuple(checks))


def _batches(crops: CropMaker, start: int) -> DataLoader[Batch]:
    return DataLoader(
        crops,
        batch_size=None,
        sampler=range(start, _ENDLESS),
        num_workers=1,
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
        objective: Objective = step_losses,
        frozen: tuple[str, ...] = (),
    ) -> None:
        self.model, self.config, self.folder, self.objective = model, config, folder, objective
        self.steps = config.steps
        folder.mkdir(parents=True, exist_ok=True)
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010  with a learned bias the fused kernel falls back to a slow one
        model.image_encoder.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        learned = [p for p in model.parameters() if p.requires_grad]
        matrices, vectors = [p for p in learned if p.ndim > 1], [p for p in learned if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )

    def step(self, batch: Batch, step: int) -> None:
        """Do one optimiser step."""
        start = time.perf_counter()
        self._training_mode()
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        torch.manual_seed(self.config.seed * 1_000_003 + step)  # drop path
        batch = batch._replace(frames=batch.frames.contiguous(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            losses = self.objective(self.model, batch, self.config.prompts, self.config.rounds, generator)
        if not bool(torch.isfinite(losses.total)):
            raise TrainError(
                f"The loss is {float(losses.total.detach())} at step {step}. Continue from the last "
                f"checkpoint in {self.folder} with a lower learning rate than "
                f"{self.config.learning_rate:g}."
            )
        self.optimizer.zero_grad(set_to_none=True)
        with _deterministic():
            losses.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self._average(step)
        row = {"step": step, "rate": rate, "norm": float(norm), "seconds": time.perf_counter() - start}
        row |= {name: float(value.detach()) for name, value in losses._asdict().items()}
        _append(self.folder / _LOG, row)

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
        """Measure the averaged weights."""
        forget_attention_biases(self.average)
        with torch.autocast("cpu", torch.bfloat16):
            result = check(self.average, validation)
        _append(self.folder / _CHECKS, {"step": step, **asdict(result), "score": result.score})
        return result

    def save(self, step: int) -> None:
        """Write everything that a continued run needs."""
        state = {
            "step": step,
            "steps": self.steps,
            "config": asdict(replace(self.config, steps=None)),
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
        state = torch.load(path, weights_only=True)
        if state["config"] != asdict(replace(self.config, steps=None)):
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
        _save(published_state_dict(self.average), path)
        return path


@contextmanager
def _deterministic() -> Iterator[None]:
    """Add up gradients in a fixed order: those of TinyViT's gathered attention biases are not by default."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _save(value: Any, path: Path) -> None:
    with written_whole(path) as temporary:
        torch.save(value, temporary)


def _append(path: Path, row: Mapping[str, float]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow(row)
