"""`lightsam demo`: one real image, the whole way."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import napari_lightsam
from napari_lightsam.cli.report import StageClock, follow, reported
from napari_lightsam.cli.segment import show
from napari_lightsam.errors import LightSamError

SAMPLE = Path(napari_lightsam.__file__).parent / "samples" / "nuclei_fluorescence.tif"


@reported
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("lightsam-demo"),
    view: Annotated[bool, typer.Option("--view", help="Open the result in napari.")] = False,
) -> None:
    """Segment a real microscopy image that comes with the package and that no model was trained on.

    Writes the label image, the table and a picture of the outlines. Needs no network.
    """
    if view:
        check_window()
    from napari_lightsam.batch import Recipe, segment_many

    clock = StageClock()
    typer.echo(f"Segmenting {SAMPLE.name}, fluorescent nuclei, 696 x 520 pixels.")
    report = follow(segment_many([SAMPLE], out, Recipe(outputs=("overlay",)), overwrite=True), clock)
    times = clock.stop()
    code = show(report, out)
    for stage, seconds in times.items():
        typer.echo(f"  {stage:<30} {seconds:6.2f} s")
    typer.echo(f"  {'in all':<30} {sum(times.values()):6.2f} s")
    for path in (*report.outcomes[0].outputs, *report.tables):
        typer.echo(f"Wrote {path}")
    if view and code == 0:
        open_result(SAMPLE, report.outcomes[0].outputs[0])
    raise typer.Exit(code)


def check_window() -> None:
    """Make sure that napari can open a window.

    Raises
    ------
    LightSamError
        There is no Qt binding or no display.
    """
    try:
        from qtpy import QtWidgets  # noqa: F401
    except ImportError as error:  # qtpy's own errors derive from it
        raise LightSamError(
            "--view opens napari, which needs a Qt binding: install one with "
            f'`python -m pip install "napari[all]"`, or leave --view out ({error}).'
        ) from None
    named = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in named):
        raise LightSamError("--view opens a window, and there is no display here. Leave --view out.")


def open_result(image: Path, labels: Path) -> None:
    """Show an image with its labels in napari until its window is closed."""
    import napari

    from napari_lightsam.formats.images import read_image

    viewer = napari.Viewer(title="LightSAM demo")
    viewer.add_image(read_image(image).data, name=image.stem)
    viewer.add_labels(read_image(labels).data, name=labels.stem)
    napari.run()
