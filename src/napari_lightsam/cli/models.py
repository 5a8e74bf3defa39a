"""`lightsam models`: list, download, find and import checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.cli.report import follow, reported, warn

app = typer.Typer(help="List, download, find and import models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of a model, as `lightsam models list` shows it.")]


@app.command("list")
@reported
def list_all(
    verify: Annotated[bool, typer.Option("--verify", help="Also check the hashes of files.")] = False,
) -> None:
    """List every known model and whether it is on this computer."""
    from napari_lightsam.engine.download import list_models

    statuses = list_models(verify=verify)
    width = max(len(status.name) for status in statuses)
    for status in statuses:
        there = "in the package" if status.embedded else "available" if status.available else "-"
        there = "your own" if status.local else there
        size = f"{status.size / 1e6:,.0f} MB"
        typer.echo(f"{status.name:<{width}}  {there:<14}  {size:>8}  {status.title}; {status.licence}")
        if status.problem:
            warn(f"problem: {status.problem}")


@app.command()
@reported
def download(
    name: Name,
    yes: Annotated[
        bool, typer.Option("--yes", help="Accept a file for which no hash is published; it is then pinned.")
    ] = False,
) -> None:
    """Download a model into the cache folder; no other command fetches models."""
    from napari_lightsam.engine import download as engine

    for path in follow(engine.download(name, consent=yes)):
        typer.echo(path)


@app.command()
@reported
def path(name: Name) -> None:
    """Print where the files of a model are; exit code 1 when it is not on this computer."""
    from napari_lightsam.engine.download import find_weights

    paths = find_weights(name)
    if paths is None:
        warn(f"{name} is not on this computer. Get it with `lightsam models download {name}`.")
        raise typer.Exit(1)
    for found in paths:
        typer.echo(found)


@app.command("import")
@reported
def import_file(
    file: Annotated[Path, typer.Argument(help="A downloaded checkpoint, under any name.")],
    name: Annotated[
        str | None, typer.Option(help="The model it belongs to; needed where no hash is published.")
    ] = None,
) -> None:
    """Copy a checkpoint that you brought along into the cache folder, after verifying it."""
    from napari_lightsam.engine.download import import_weights

    typer.echo(import_weights(file, name))
