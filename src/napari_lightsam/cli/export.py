"""`lightsam export`: label images, ROIs and GeoJSON to the formats of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.cli.report import follow, reported
from napari_lightsam.cli.segment import parse_pixel_size
from napari_lightsam.formats.export import FORMATS, parse_formats

_NAMES = ", ".join(FORMATS)


@reported
def export(
    labels: Annotated[
        list[Path],
        typer.Argument(
            metavar="LABELS",
            help="Label images (TIFF, PNG, OME-Zarr), ImageJ ROIs (.zip, .roi) or QuPath's .geojson.",
        ),
    ],
    to: Annotated[str, typer.Option("--to", help=f"Formats, separated by commas: {_NAMES}.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Output folder; beside each input when not given.")
    ] = None,
    nuclei: Annotated[
        Path | None,
        typer.Option(help="Label image of the nuclei of these cells: GeoJSON then has cells with nuclei."),
    ] = None,
    pixel_size: Annotated[
        str | None,
        typer.Option(help="Size of a pixel, or HEIGHT,WIDTH; from the file when not given (um)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")] = False,
) -> None:
    """Write objects in the formats of Fiji, QuPath, COCO tools and others.

    Exit code: 0 all written, 1 labels or an output were refused, 2 the command or an input file is wrong.
    Files are written one after the other; those before a problem stay.
    """
    from napari_lightsam.formats.convert import convert_files

    work = convert_files(
        labels,
        parse_formats(to),
        out,
        nuclei=nuclei,
        pixel_size=parse_pixel_size(pixel_size),
        overwrite=overwrite,
    )
    for path in follow(work):
        typer.echo(f"Wrote {path}")
