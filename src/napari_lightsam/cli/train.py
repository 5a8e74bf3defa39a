"""`lightsam train`: teach a model with labelled images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lightsam.cli.report import follow, reported
from napari_lightsam.errors import ConfigError
from napari_lightsam.train.config import TrainConfig

_HELP = {name: field.metadata["help"] for name, field in TrainConfig.__dataclass_fields__.items()}


def _option(name: str) -> Any:
    return typer.Option(help=_HELP[name] + ".")


_DEFAULTS = TrainConfig()


@reported
def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="As for `evaluate`.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the model and the log; continued from when used.")
    ],
    start: Annotated[
        str, typer.Option(help="Model or checkpoint to start from; 'random' for random weights.")
    ] = "lightsam",
    minutes: Annotated[float, _option("minutes")] = _DEFAULTS.minutes,
    steps: Annotated[int | None, _option("steps")] = None,
    seed: Annotated[int, _option("seed")] = _DEFAULTS.seed,
    learning_rate: Annotated[float, _option("learning_rate")] = _DEFAULTS.learning_rate,
    prompts: Annotated[int, _option("prompts")] = _DEFAULTS.prompts,
    smallest: Annotated[float, _option("smallest")] = _DEFAULTS.smallest,
    largest: Annotated[float, _option("largest")] = _DEFAULTS.largest,
    freeze_norm: Annotated[bool, _option("freeze_norm")] = _DEFAULTS.freeze_norm,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=WEIGHT of a set, may be repeated; 1 unless given.")
    ] = None,
) -> None:
    """Train on labelled images; writes OUT/model.safetensors, which every command takes as a model."""
    from napari_lightsam.train.recipe import train_model

    config = TrainConfig(
        steps=steps,
        minutes=minutes,
        seed=seed,
        learning_rate=learning_rate,
        prompts=prompts,
        smallest=smallest,
        largest=largest,
        freeze_norm=freeze_norm,
    )
    begin = None if start == "random" else start
    trained = follow(train_model(data, out, config, start=begin, sets=_weights(weight or [])))
    for step, check in trained.checks:
        typer.echo(f"step {step}: {check}")
    typer.echo(f"The model is {out / 'model.safetensors'}.")


def _weights(texts: list[str]) -> dict[str, float]:
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
