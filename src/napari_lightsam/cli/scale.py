"""`lightsam slide`: one image larger than memory, on all cores or a dask cluster."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.cli.report import follow_until_stopped, reported, warn
from napari_lightsam.cli.segment import (
    PIXELS,
    ModelName,
    Threads,
    Workers,
    computed,
    default,
    parse_channel,
    parse_pixel_size,
    parse_series,
    parse_z,
    setting,
)
from napari_lightsam.engine.config import config_from

SCHEDULER_HELP = (
    "Where the work is done: threads, processes, or the address of a dask scheduler such as tcp://host:8786."
)


@reported
def slide(
    image: Annotated[str, typer.Argument(help="OME-Zarr image or zarr array, or its address, or TIFF file.")],
    out: Annotated[Path, typer.Argument(help="OME-Zarr label image to write, such as labels.zarr.")],
    object_size: Annotated[float | None, setting("object_size")] = default("object_size"),
    channel: Annotated[str | None, setting("channel")] = default("channel"),
    z: Annotated[str | None, setting("z", "--z")] = default("z"),
    time: Annotated[int | None, setting("time")] = default("time"),
    series: Annotated[
        str | None,
        typer.Option(
            help="Image of a file that holds several (from 0); the first when not given.",
            rich_help_panel=PIXELS,
        ),
    ] = None,
    axes: Annotated[str | None, setting("axes")] = default("axes"),
    pixel_size: Annotated[str | None, setting("pixel_size")] = default("pixel_size"),
    balance: Annotated[float, setting("balance")] = default("balance"),
    min_size: Annotated[float | None, setting("min_size")] = default("min_size"),
    max_size: Annotated[float | None, setting("max_size")] = default("max_size"),
    model: ModelName = "lightsam",
    mode: Annotated[str, setting("mode")] = default("mode"),
    device: Annotated[str, setting("device")] = default("device"),
    precision: Annotated[str, setting("precision")] = default("precision"),
    runtime: Annotated[str, setting("runtime")] = default("runtime"),
    scheduler: Annotated[str, computed(SCHEDULER_HELP)] = "processes",
    workers: Workers = None,
    threads: Threads = None,
    block: Annotated[
        int,
        computed(
            "Largest side of what is encoded at once, from 512 in steps of 64 (px of the model's frame)."
        ),
    ] = 1280,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew, whatever is there.")] = False,
) -> None:
    """Segment one image that is larger than memory.

    A run that was stopped goes on where it was. Exit code: 0 when all of it was segmented, 1 when parts
    could not be, 2 when nothing could be done as asked, 130 when stopped by Ctrl-C.
    """
    config = config_from(
        {
            "mode": mode,
            "object_size": object_size,
            "balance": balance,
            "min_size": min_size,
            "max_size": max_size,
        }
    )
    settings = BatchSettings(
        config=config,
        channel=parse_channel(channel),
        z=parse_z(z),
        time=time,
        series=parse_series(series),
        axes=axes,
        pixel_size=parse_pixel_size(pixel_size),
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked with the device
        runtime=runtime,  # type: ignore[arg-type]  # too
    )
    from napari_lightsam.batch.slide import segment_slide

    work = segment_slide(
        image, out, settings, model=model, scheduler=scheduler, workers=workers, threads=threads,
        block=block, overwrite=overwrite,
    )  # fmt: skip
    advice = (
        f"Finished blocks are kept in {out}.parts, and {out} says that it is not complete; "
        "the same command goes on from there."
    )
    report = follow_until_stopped(work, advice)
    size = "" if report.object_size is None else f" of about {report.object_size:.1f} px"
    typer.echo(f"{image}: {report.n_objects} objects{size} -> {report.path}")
    typer.echo(f"Blocks: {report.blocks}, of which {report.skipped} were finished before.")
    for note in report.notes:
        warn(f"note: {note}.")
    for failed in report.failed:
        y0, x0, y1, x1 = failed.box
        warn(f"failed: rows {y0}:{y1}, columns {x0}:{x1} are left 0: {failed.message}")
    raise typer.Exit(report.exit_code)
