"""All commands under one name."""

from typing import Annotated

import typer

from napari_lightsam import __version__
from napari_lightsam.cli import (
    cache,
    demo,
    distil,
    evaluate,
    export,
    info,
    models,
    quantize,
    replay,
    scale,
    segment,
    train,
)

app = typer.Typer(
    name="lightsam",
    help="Lightweight Segment Anything for microscopy.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("segment")(segment.segment)
app.command("slide")(scale.slide)
app.command("export")(export.export)
app.command("replay")(replay.replay)
app.command("demo")(demo.demo)
app.command("info")(info.info)
app.command("evaluate")(evaluate.evaluate)
app.command("quantize")(quantize.quantize)
app.command("train")(train.train)
app.command("distil")(distil.distil)
app.command("cache")(cache.cache)
app.add_typer(models.app, name="models")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lightsam {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass
