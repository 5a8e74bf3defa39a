"""`lightsam evaluate`: how good a model is on images with ground truth."""

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lightsam.cli.report import follow, reported, warn
from napari_lightsam.errors import ConfigError

LAYOUT = "Folder with images/ and labels/, or NAME.tif and NAME_labels.tif; or a folder of such folders."
"""Help for labelled data, as every command that takes it wants it."""


@reported
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=LAYOUT)],
    model: Annotated[str, typer.Option(help="Name of a model or path of a checkpoint.")] = "lightsam",
    object_size: Annotated[
        str, typer.Option(help="estimated, true (from the ground truth) or a diameter in pixels.")
    ] = "estimated",
    prompts: Annotated[
        str, typer.Option(help="What to measure, separated by commas: everything, click, box.")
    ] = "everything,click,box",
    split: Annotated[
        str, typer.Option(help="all, training, validation, tuning or reporting (halves of validation).")
    ] = "all",
    group: Annotated[str, typer.Option(help="all or fluorescence.")] = "all",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most this many images of each set, evenly spaced.")
    ] = None,
    objects_per_image: Annotated[
        int | None, typer.Option(min=1, help="At most this many objects of an image are prompted.")
    ] = None,
    device: Annotated[str, typer.Option(help="As for `segment`.")] = "auto",
    precision: Annotated[str, typer.Option(help="As for `segment`.")] = "auto",
    runtime: Annotated[str, typer.Option(help="As for `segment`.")] = "auto",
    corrective_clicks: Annotated[
        int, typer.Option(min=0, help="Clicks that correct the answer to the first one.")
    ] = 3,
    box_jitter: Annotated[
        str, typer.Option(help="How far boxes' sides are off, in parts of the box, separated by commas.")
    ] = "0,0.05,0.1,0.2",
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write a folder of figures, tables, curves and pictures of the worst images."),
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst images `--out` shows.")] = 6,
) -> None:
    """Measure how good a model is: average precision, clicks, boxes, calibration, proposals and times."""
    from napari_lightsam.engine.segmenter import load_segmenter
    from napari_lightsam.formats.atomic import check_writable, written_whole
    from napari_lightsam.train.evaluate import evaluate as run
    from napari_lightsam.train.plots import check_plotting
    from napari_lightsam.train.report import write_report

    size, jitter = parse_size(object_size), parse_jitter(box_jitter)
    if out is not None:
        check_plotting()
        check_writable(out)
    if json is not None:
        check_writable(json.parent)
    segmenter = load_segmenter(model, device=device, precision=precision, runtime=runtime)  # type: ignore[arg-type]
    kinds: Any = tuple(part.strip() for part in prompts.split(",") if part.strip())
    result = follow(
        run(
            data,
            segmenter,
            limit=limit,
            object_size=size,
            prompts=kinds,
            split=split,  # type: ignore[arg-type]  # checked there
            group=group,  # type: ignore[arg-type]  # checked there
            objects_per_image=objects_per_image,
            corrective_clicks=corrective_clicks,
            box_jitter=jitter,
            worst=worst if out is not None and "everything" in kinds else 0,
        )
    )
    typer.echo(result.to_markdown(), nl=False)
    if json is not None:
        with written_whole(json) as part:
            part.write_text(result.to_json(), encoding="utf-8")
    if out is not None:
        write_report(result, out)
        warn(f"The report is {out / 'evaluation.md'}.")


def parse_size(text: str) -> Any:
    """Read "estimated", "true" or a number."""
    if text in ("estimated", "true"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--object-size is estimated, true or a number of pixels; got {text!r}.") from None


def parse_jitter(text: str) -> tuple[float, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(
            f"--box-jitter is parts of a box's side separated by commas, such as 0,0.1; got {text!r}."
        ) from None
