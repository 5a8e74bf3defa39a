"""`lightsam evaluate`: how good a model is on images with ground truth."""

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_lightsam.cli.report import follow, reported
from napari_lightsam.errors import ConfigError

_LAYOUT = "Folder with images/ and labels/, or NAME.tif and NAME_labels.tif; or a folder of such folders."


@reported
def evaluate(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=_LAYOUT)],
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
    json: Annotated[Path | None, typer.Option(help="Also write all figures to this file.")] = None,
) -> None:
    """Print average precision at IoU .5 and .75, mSA, and the mean IoU of one click and of a box."""
    from napari_lightsam.engine.segmenter import load_segmenter
    from napari_lightsam.formats.atomic import written_whole
    from napari_lightsam.train.evaluate import evaluate as run

    size = parse_size(object_size)
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
        )
    )
    typer.echo(result.to_markdown(), nl=False)
    if json is not None:
        with written_whole(json) as part:
            part.write_text(result.to_json(), encoding="utf-8")


def parse_size(text: str) -> Any:
    """Read "estimated", "true" or a number."""
    if text in ("estimated", "true"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--object-size is estimated, true or a number of pixels; got {text!r}.") from None
