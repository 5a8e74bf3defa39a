"""`lightsam segment`: files, folders and patterns to label images, tables and records."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_lightsam.batch.settings import BatchReport, BatchSettings
from napari_lightsam.cli.report import follow, reported, warn
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.export import FORMATS, parse_formats

_FIELDS = {
    field.name: field for cls in (BatchSettings, EverythingConfig) for field in dataclasses.fields(cls)
}


def setting(name: str, *flags: str, **options: Any) -> Any:
    """Make the option of a setting; help, unit and range stand at its field."""
    metadata = _FIELDS[name].metadata
    low, high = metadata.get("range", (-math.inf, math.inf))
    if _FIELDS[name].type not in ("bool", "Mode", bool) and metadata.get("range"):
        options["min"] = low
        options["max"] = None if math.isinf(high) else high
    unit = f" ({metadata['unit']})" if metadata["unit"] else ""
    return typer.Option(*flags, help=f"{metadata['help']}{unit}.", **options)


def default(name: str) -> Any:
    """Look up the default of a setting."""
    return _FIELDS[name].default


@reported
def segment(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, or patterns in quotes.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder. Inputs are never written.")],
    mode: Annotated[str, setting("mode")] = default("mode"),
    model: Annotated[
        str, typer.Option(help="Name of a model (see `lightsam models list`) or path of a checkpoint.")
    ] = "lightsam",
    object_size: Annotated[float | None, setting("object_size")] = default("object_size"),
    channel: Annotated[str | None, setting("channel")] = default("channel"),
    z: Annotated[str | None, setting("z", "--z")] = default("z"),
    time: Annotated[int | None, setting("time")] = default("time"),
    link: Annotated[bool, setting("link", "--link")] = default("link"),
    pixel_size: Annotated[str | None, setting("pixel_size")] = default("pixel_size"),
    device: Annotated[str, setting("device")] = default("device"),
    precision: Annotated[str, setting("precision")] = default("precision"),
    runtime: Annotated[str, setting("runtime")] = default("runtime"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make results again that are there already.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write a picture with every object outlined.")
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(help=f"Also write these formats, separated by commas: {', '.join(FORMATS)}."),
    ] = None,
    balance: Annotated[float, setting("balance")] = default("balance"),
    iou_threshold: Annotated[float | None, setting("iou_threshold")] = default("iou_threshold"),
    stability_threshold: Annotated[float | None, setting("stability_threshold")] = default(
        "stability_threshold"
    ),
    min_size: Annotated[float | None, setting("min_size")] = default("min_size"),
    max_size: Annotated[float | None, setting("max_size")] = default("max_size"),
    keep_border: Annotated[bool, setting("keep_border", "--keep-border/--drop-border")] = default(
        "keep_border"
    ),
    overlap: Annotated[float, setting("overlap")] = default("overlap"),
    point_spacing: Annotated[float | None, setting("point_spacing")] = default("point_spacing"),
    points_per_side: Annotated[int | None, setting("points_per_side")] = default("points_per_side"),
    confident_logit: Annotated[float | None, setting("confident_logit")] = default("confident_logit"),
    batch: Annotated[int, setting("batch")] = default("batch"),
    published: Annotated[bool, setting("published", "--published")] = default("published"),
) -> None:
    """Segment every object of every image.

    For each image OUT receives STEM_labels.tif, STEM_objects.csv and STEM_labels.json; subfolders are kept.
    What is finished with the same settings is skipped.

    Exit code: 0 all done, 1 an image failed (the others are done), 2 nothing was done.
    """
    given = dict(locals())
    config = EverythingConfig(**{f.name: given[f.name] for f in dataclasses.fields(EverythingConfig)})
    settings = BatchSettings(
        config=config,
        channel=parse_channel(channel),
        z=parse_z(z),
        time=time,
        link=link,
        pixel_size=parse_pixel_size(pixel_size),
        device=device,
        precision=precision,  # type: ignore[arg-type]  # checked with the device
        runtime=runtime,  # type: ignore[arg-type]  # too
    )
    from napari_lightsam.batch import segment_files

    exports = parse_formats(export) if export is not None else ()
    work = segment_files(
        inputs, out, settings, model=model, overwrite=overwrite, overlay=overlay, exports=exports
    )
    raise typer.Exit(show(follow(work), out))


def parse_channel(text: str | None) -> str | tuple[str, ...] | None:
    """Split names or numbers at commas."""
    if text is None or "," not in text:
        return text
    return tuple(part.strip() for part in text.split(","))


def parse_z(text: str | None) -> int | Literal["max"] | None:
    """Read a plane number or "max"."""
    if text is None:
        return None
    if text.strip().casefold() == "max":
        return "max"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--z is a plane number (from 0) or max; got {text!r}.") from None


def parse_pixel_size(text: str | None) -> tuple[float, float] | None:
    """Read one number, or height and width."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ConfigError(f"--pixel-size is one number of micrometres, or HEIGHT,WIDTH; got {text!r}.")
    return numbers[0], numbers[-1]


def show(report: BatchReport, out: Path) -> int:
    """Print what became of a batch; returns the exit code."""
    for outcome in report.outcomes:
        if outcome.status == "written":
            objects = "1 object" if outcome.n_objects == 1 else f"{outcome.n_objects} objects"
            typer.echo(f"{outcome.source}: {objects}, {outcome.seconds:.1f} s -> {outcome.outputs[0]}")
        elif outcome.status == "skipped":
            typer.echo(f"{outcome.source}: skipped, finished before -> {outcome.outputs[0]}")
    counts = [
        f"{n} {status}"
        for status in ("written", "skipped", "failed")
        if (n := sum(o.status == status for o in report.outcomes))
    ]
    size = "" if report.object_size is None else f"{report.object_size:.1f} px, "
    typer.echo(f"Object size: {size}{report.object_size_source}.")
    typer.echo(f"Model: {report.model} on {report.device_reason}")
    typer.echo(f"Images: {', '.join(counts)}. Results are in {out}.")
    for note in report.notes:
        warn(f"note: {note}.")
    for outcome in report.outcomes:
        for flag in outcome.flags:
            warn(f"look at {outcome.source}: {flag}")
    for outcome in report.outcomes:
        if outcome.status == "failed":
            warn(f"failed: {outcome.source}: {outcome.message}")
    return report.exit_code
