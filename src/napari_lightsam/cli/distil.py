"""`lightsam distil`: teach a smaller model by a larger one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lightsam.cli.evaluate import LAYOUT
from napari_lightsam.cli.report import follow, reported
from napari_lightsam.cli.train import set_weights
from napari_lightsam.train.config import DistilConfig, TrainConfig


def _option(config: type[Any], name: str) -> Any:
    return typer.Option(help=config.__dataclass_fields__[name].metadata["help"] + ".")


_TRAIN, _DISTIL = TrainConfig(freeze_norm=False), DistilConfig()


@reported
def distil(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=LAYOUT)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for student and log; continued from when used.")
    ],
    teacher: Annotated[str, typer.Option(help="Model to learn from, by name or path.")] = "lightsam",
    student: Annotated[str, _option(DistilConfig, "student")] = _DISTIL.student,
    method: Annotated[str, _option(DistilConfig, "method")] = _DISTIL.method,
    start: Annotated[
        str | None, typer.Option(help="Student to go on from; without, a random encoder is begun with.")
    ] = None,
    minutes: Annotated[float, _option(TrainConfig, "minutes")] = _TRAIN.minutes,
    steps: Annotated[int | None, _option(TrainConfig, "steps")] = None,
    tune: Annotated[int, _option(DistilConfig, "tune")] = _DISTIL.tune,
    distinct: Annotated[int, _option(DistilConfig, "distinct")] = _DISTIL.distinct,
    cache: Annotated[float, _option(DistilConfig, "cache")] = _DISTIL.cache,
    decoder_rate: Annotated[float, _option(DistilConfig, "decoder_rate")] = _DISTIL.decoder_rate,
    seed: Annotated[int, _option(TrainConfig, "seed")] = _TRAIN.seed,
    learning_rate: Annotated[float, _option(TrainConfig, "learning_rate")] = _TRAIN.learning_rate,
    prompts: Annotated[int, _option(TrainConfig, "prompts")] = _TRAIN.prompts,
    workers: Annotated[int, _option(TrainConfig, "workers")] = _TRAIN.workers,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=WEIGHT of a set, may be repeated; 1 unless given.")
    ] = None,
) -> None:
    """Teach a smaller, faster model by a larger one; writes OUT/model.safetensors, a model like any."""
    from napari_lightsam.train.distil import distil_model

    config = TrainConfig(
        steps=steps,
        minutes=minutes,
        seed=seed,
        learning_rate=learning_rate,
        prompts=prompts,
        workers=workers,
        freeze_norm=False,
    )
    distillation = DistilConfig(
        method=method,  # type: ignore[arg-type]
        student=student,  # type: ignore[arg-type]
        tune=tune,
        distinct=distinct,
        cache=cache,
        decoder_rate=decoder_rate,
    )
    sets = set_weights(weight or [])
    work = distil_model(
        data, out, config, distillation, teacher=teacher, start=start, sets=sets, device=device
    )
    trained = follow(work)
    for step, check in trained.checks:
        typer.echo(f"step {step}: {check}")
    typer.echo(f"The student is {out / 'model.safetensors'}.")
