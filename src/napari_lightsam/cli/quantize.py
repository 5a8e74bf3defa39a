"""`lightsam quantize`: make a model's encoder compute in int8, if that costs no quality."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.cli.report import follow, reported


@reported
def quantize(
    model: Annotated[str, typer.Argument(help="Name of a model or path of a checkpoint.")] = "lightsam",
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of images like yours, with ground truth or without; default: the samples."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many images, evenly spaced.")] = 12,
    force: Annotated[bool, typer.Option("--force", help="Keep it even if it is worse or slower.")] = False,
) -> None:
    """Quantise the encoder to int8 with NNCF, compare it with float32 and keep it if it is good enough.

    It is kept with a mask IoU of .98 on average, no image under .90, and only if it is faster. Use it with
    `--precision int8`. Exit code 1 when it was not kept.
    """
    from napari_lightsam.train.quantize import quantize as run

    result = follow(run(model, data, limit=limit, force=force))
    typer.echo(result.to_text())
    if result.saved is None:
        raise typer.Exit(1)
