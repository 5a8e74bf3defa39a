"""`lightsam train`: teach a model with labelled images, from the ground up or with a few corrections."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lightsam.cli.evaluate import LAYOUT
from napari_lightsam.cli.report import follow, reported
from napari_lightsam.errors import ConfigError
from napari_lightsam.train.config import TEACHING, TrainConfig

_HELP = {name: field.metadata["help"] for name, field in TrainConfig.__dataclass_fields__.items()}
_DEFAULTS = TrainConfig()


def _option(name: str, *flags: str) -> Any:
    usual, teaching = getattr(_DEFAULTS, name), getattr(TEACHING, name)
    text = "" if usual is None else f" Default {_shown(usual)}"
    text += f"; {_shown(teaching)} with --finetune" if text and teaching != usual else ""
    text += "." if text else ""
    return typer.Option(*flags, help=f"{_HELP[name]}.{text}")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@reported
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=LAYOUT)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for the model and the log; continued from when used."),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option(
            "--finetune",
            help="Teach a model with a few corrected images, in minutes, and save it by its name.",
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="With --finetune: what the model is called from now on.")
    ] = None,
    replace_model: Annotated[
        bool, typer.Option("--replace", help="With --finetune: replace a model of your own of this name.")
    ] = False,
    start: Annotated[
        str, typer.Option(help="Model or checkpoint to start from; 'random' for random weights.")
    ] = "lightsam",
    minutes: Annotated[float | None, _option("minutes")] = None,
    steps: Annotated[int | None, _option("steps")] = None,
    seed: Annotated[int | None, _option("seed")] = None,
    learning_rate: Annotated[float | None, _option("learning_rate")] = None,
    prompts: Annotated[int | None, _option("prompts")] = None,
    smallest: Annotated[float | None, _option("smallest")] = None,
    largest: Annotated[float | None, _option("largest")] = None,
    freeze_norm: Annotated[bool | None, _option("freeze_norm", "--freeze-norm/--no-freeze-norm")] = None,
    memory: Annotated[float | None, _option("memory")] = None,
    workers: Annotated[int | None, _option("workers")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    tensorboard: Annotated[
        bool | None, typer.Option(help="Write events for TensorBoard. Default: where it is installed.")
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=WEIGHT of a set, may be repeated; 1 unless given.")
    ] = None,
) -> None:
    """Train on labelled images; writes OUT/model.safetensors, which every command takes as a model.

    With --finetune a model learns from a few corrected images instead. A part of them is held out, and the
    model is saved, as one of your own, only if it got better there.
    """
    given: dict[str, Any] = {
        "minutes": minutes,
        "steps": steps,
        "seed": seed,
        "learning_rate": learning_rate,
        "prompts": prompts,
        "smallest": smallest,
        "largest": largest,
        "freeze_norm": freeze_norm,
        "memory": memory,
        "workers": workers,
    }
    settings = {key: value for key, value in given.items() if value is not None}
    if finetune:
        of_no_use = {
            "--out": out is not None,
            "--weight": bool(weight),
            "--memory": memory is not None,
            "--workers": workers is not None,
            "--device": device != "auto",
            "--tensorboard": tensorboard is not None,
        }
        _refuse(of_no_use, "cannot be used with")
        _teach(data, name, start, replace(TEACHING, **settings), replace_model)
        return
    _refuse({"--name": name is not None, "--replace": replace_model}, "needs")
    if out is None:
        raise ConfigError("Give a folder for the model and the log: `--out FOLDER`.")
    from napari_lightsam.train.recipe import train_model

    begin = None if start == "random" else start
    config = replace(_DEFAULTS, **settings)
    work = train_model(
        data,
        out,
        config,
        start=begin,
        sets=set_weights(weight or []),
        device=device,
        tensorboard=tensorboard,
    )
    trained = follow(work)
    for step, check in trained.checks:
        typer.echo(f"step {step}: {check}")
    typer.echo(f"The model is {out / 'model.safetensors'}.")


def _teach(data: Path, name: str | None, start: str, config: TrainConfig, replace_model: bool) -> None:
    if name is None:
        raise ConfigError("Give the model a name: `--name NAME`, for instance my-axons.")
    from napari_lightsam.train.finetune import finetune, read_corrected

    taught = follow(
        finetune(read_corrected(data), name, start=start, config=config, replace_model=replace_model)
    )
    learned, tested = taught.objects
    typer.echo(f"Learned from {learned} objects in {taught.steps} steps, tested on {tested} others:")
    typer.echo(taught.in_words())
    typer.echo(f"The model is {taught.name!r}: {taught.path}, with its card {taught.card.name}.")


def _refuse(options: dict[str, bool], how: str) -> None:
    for option, used in options.items():
        if used:
            raise ConfigError(f"{option} {how} --finetune.")


def set_weights(texts: list[str]) -> dict[str, float]:
    """Read NAME=WEIGHT options."""
    weights = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            weights[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--weight is NAME=NUMBER, for instance nuclei=0.5; got {text!r}.")
    return weights
