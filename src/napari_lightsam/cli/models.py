"""`lightsam models`: list, download, find, import and prepare checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.cli.report import follow, reported, warn

app = typer.Typer(help="List, download, find, import and prepare models.", no_args_is_help=True)

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
    """Download a model into the cache folder; nothing else ever uses the network."""
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


@app.command()
@reported
def prepare(
    name: Annotated[str, typer.Argument(help="Name of a model, or path of a checkpoint.")] = "lightsam",
    undo: Annotated[bool, typer.Option("--undo", help="Use PyTorch for this model again.")] = False,
) -> None:
    """Convert a model for OpenVINO, and let the runtime `auto` use it for this model on this computer.

    It takes ten seconds or more and 28 MB of the cache folder. Embedding an image then takes about half the
    time on a CPU; results differ from PyTorch's in single pixels.
    """
    from napari_lightsam.engine.converted import mark_prepared
    from napari_lightsam.engine.segmenter import load_segmenter
    from napari_lightsam.errors import FileError

    segmenter = load_segmenter(name, device="cpu", runtime="torch" if undo else "openvino")
    try:
        mark_prepared(segmenter.weights_hash, segmenter.spec.name, on=not undo)
    except OSError as error:
        raise FileError(f"The cache folder cannot be written: {error}. Set LIGHTSAM_CACHE.") from error
    if segmenter.runtime_name == "torch" and not undo:
        raise typer.Exit(1)
    typer.echo(f"{segmenter.spec.name}: the runtime auto is now {segmenter.runtime_name} on the CPU.")
