"""`lightsam segment`: many images to label images, tables and a report."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_lightsam.batch.recipe import OVERLAY, Recipe, read_recipe
from napari_lightsam.batch.settings import BatchReport, BatchSettings
from napari_lightsam.cli.report import follow_until_stopped, reported, warn
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.export import FORMATS, parse_formats

_FIELDS = {
    field.name: field for cls in (BatchSettings, EverythingConfig) for field in dataclasses.fields(cls)
}
PIXELS, _OBJECTS, _COMPUTED = "Which pixels", "Which objects", "How it is computed"
_PANELS = {
    PIXELS: ("channel", "z", "time", "link", "series", "axes", "pixel_size"),
    _OBJECTS: (
        "object_size", "balance", "iou_threshold", "stability_threshold", "min_size", "max_size",
        "keep_border", "overlap",
    ),
}  # fmt: skip


def setting(name: str, *flags: str, **options: Any) -> Any:
    """Make the option of a setting; help, unit and range stand at its field."""
    metadata = _FIELDS[name].metadata
    low, high = metadata.get("range", (-math.inf, math.inf))
    if _FIELDS[name].type not in ("bool", "Mode", bool) and metadata.get("range"):
        options["min"] = low
        options["max"] = None if math.isinf(high) else high
        options["metavar"] = "N"  # short: names of options need the room
    unit = f" ({metadata['unit']})" if metadata["unit"] else ""
    panel = next((title for title, names in _PANELS.items() if name in names), _COMPUTED)
    return typer.Option(*flags, help=f"{metadata['help']}{unit}.", rich_help_panel=panel, **options)


def default(name: str) -> Any:
    """Look up the default of a setting."""
    return _FIELDS[name].default


def computed(text: str, **options: Any) -> Any:
    """Make an option about how it is computed."""
    return typer.Option(help=text, rich_help_panel=_COMPUTED, **options)


ModelName = Annotated[str, computed("Name of a model (see `lightsam models list`) or path of a checkpoint.")]
Workers = Annotated[int | None, computed("Workers on this machine; one a core when not given.", min=1)]
Threads = Annotated[
    int | None, computed("Threads of the model in each worker; cores / workers, 1 on a cluster.", min=1)
]


@reported
def segment(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Images, folders, patterns in quotes, lists (CSV with a column image), addresses of zarr.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder. Inputs are never written.")],
    context: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Take model, settings and outputs from this file (YAML); options replace what it says."
        ),
    ] = None,
    object_size: Annotated[float | None, setting("object_size")] = default("object_size"),
    channel: Annotated[str | None, setting("channel")] = default("channel"),
    z: Annotated[str | None, setting("z", "--z")] = default("z"),
    time: Annotated[int | None, setting("time")] = default("time"),
    link: Annotated[bool, setting("link", "--link")] = default("link"),
    series: Annotated[str | None, setting("series")] = default("series"),
    axes: Annotated[str | None, setting("axes")] = default("axes"),
    pixel_size: Annotated[str | None, setting("pixel_size")] = default("pixel_size"),
    model: ModelName = "lightsam",
    mode: Annotated[str, setting("mode")] = default("mode"),
    device: Annotated[str, setting("device")] = default("device"),
    precision: Annotated[str, setting("precision")] = default("precision"),
    runtime: Annotated[str, setting("runtime")] = default("runtime"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make results again that are there already.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write a picture with every object outlined.")
    ] = False,
    scheduler: Annotated[
        str | None,
        computed(
            "Segment several images at once: threads, processes, or the address of a dask scheduler "
            "such as tcp://host:8786; one after the other when not given."
        ),
    ] = None,
    workers: Workers = None,
    threads: Threads = None,
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
    For all of them it receives objects.csv, images.csv and report.html. What is finished with the same
    settings is skipped, so a run that was stopped goes on where it was.

    Exit code: 0 all done, 1 an image failed (the others are done), 2 nothing was done, 130 stopped by Ctrl-C.
    """
    given = dict(locals())
    chosen = Recipe() if recipe is None else read_recipe(recipe)
    if recipe is not None:
        given = {name: given[name] for name in given if _is_on_command_line(context, name)}
    from napari_lightsam.batch import segment_many

    work = segment_many(
        inputs, out, with_options(chosen, given), overwrite=overwrite, scheduler=scheduler, workers=workers,
        threads=threads,
    )  # fmt: skip
    report = follow_until_stopped(work, f"What is finished is in {out}; the same command goes on from there.")
    raise typer.Exit(show(report, out))


def _is_on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


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


def parse_series(text: str | None) -> int | Literal["all"] | None:
    """Read the number of an image, or "all"."""
    if text is None:
        return None
    if text.strip().casefold() == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"--series is the number of an image (from 0) or all; got {text!r}.") from None


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


_PARSED: dict[str, Callable[[Any], Any]] = {
    "channel": parse_channel,
    "z": parse_z,
    "series": parse_series,
    "pixel_size": parse_pixel_size,
}


def with_options(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """Replace parts of a recipe by options of the command line, by their names."""
    options = {name: _PARSED[name](value) if name in _PARSED else value for name, value in given.items()}

    def changed(cls: type) -> dict[str, Any]:
        return {f.name: options[f.name] for f in dataclasses.fields(cls) if f.name in options}

    config = dataclasses.replace(recipe.settings.config, **changed(EverythingConfig))
    settings = dataclasses.replace(recipe.settings, **{**changed(BatchSettings), "config": config})
    outputs = list(recipe.outputs)
    if options.get("export") is not None:
        outputs = [*parse_formats(options["export"]), *([OVERLAY] if recipe.overlay else [])]
    if options.get("overlay"):
        outputs.append(OVERLAY)
    return Recipe(settings, options.get("model", recipe.model), tuple(outputs))


def show(report: BatchReport, out: Path) -> int:
    """Print what became of a batch; returns the exit code."""
    from napari_lightsam.batch.inputs import printable

    names = [printable(str(outcome.source)) for outcome in report.outcomes]
    for name, outcome in zip(names, report.outcomes, strict=True):
        if outcome.status == "written":
            objects = "1 object" if outcome.n_objects == 1 else f"{outcome.n_objects} objects"
            typer.echo(f"{name}: {objects}, {outcome.seconds:.1f} s -> {outcome.outputs[0]}")
        elif outcome.status == "skipped":
            typer.echo(f"{name}: skipped, finished before -> {outcome.outputs[0]}")
    counts = [
        f"{n} {status}"
        for status in ("written", "skipped", "failed")
        if (n := sum(o.status == status for o in report.outcomes))
    ]
    size = "" if report.object_size is None else f"{report.object_size:.1f} px, "
    typer.echo(f"Object size: {size}{report.object_size_source}.")
    typer.echo(f"Model: {report.model} on {report.device_reason}")
    typer.echo(f"Images: {', '.join(counts)}. Results are in {out}.")
    for path in report.tables:
        typer.echo(f"Of all images: {path}")
    for note in report.notes:
        warn(f"note: {note}.")
    for problem in report.problems:
        warn(f"failed: {problem}")
    for name, outcome in zip(names, report.outcomes, strict=True):
        for flag in outcome.flags:
            warn(f"look at {name}: {flag}")
    for name, outcome in zip(names, report.outcomes, strict=True):
        if outcome.status == "failed":
            warn(f"failed: {name}: {outcome.message}")
    return report.exit_code
