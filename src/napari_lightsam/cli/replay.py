"""`lightsam replay`: make the objects of a saved session again, and say how well that went."""

from pathlib import Path
from typing import Annotated

import typer

from napari_lightsam.cli.report import follow, reported, warn


@reported
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A *.lightsam file of saved work.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Write the labels that were made again; the ending says the format (.tif, ...).",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Use these weights, a name or a file, in place of the recorded ones.")
    ] = None,
    device: Annotated[str, typer.Option(help="As in `lightsam segment`; recorded: as it was.")] = "recorded",
    precision: Annotated[
        str, typer.Option(help="As in `lightsam segment`; recorded: as it was.")
    ] = "recorded",
    runtime: Annotated[str, typer.Option(help="As in `lightsam segment`; recorded: as it was.")] = "recorded",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")] = False,
) -> None:
    """Make the objects of a saved session again, from its prompts and settings.

    What was edited or painted by hand is kept as pixels and listed. On the same device, runtime and precision
    the result is the same pixel by pixel; elsewhere objects are compared by intersection over union.

    Exit code: 0 bit-identical or every object at IoU >= 0.98, 1 some objects differ, 2 the file, its image
    or the output is wrong.
    """
    from napari_lightsam.engine.segmenter import Segmenter, load_segmenter
    from napari_lightsam.errors import ConfigError, DeviceError, WeightsError
    from napari_lightsam.formats.export import find_format, write_objects
    from napari_lightsam.formats.guard import protect_inputs, refuse_existing
    from napari_lightsam.plugin.series.results import objects_of
    from napari_lightsam.plugin.sessions.replay import replay as run
    from napari_lightsam.plugin.sessions.replay import with_labels
    from napari_lightsam.session import read_document
    from napari_lightsam.session.recipe import is_known_model

    document = read_document(file)
    if out is not None:
        find_format(out)
        protect_inputs([file, *(image.path for image in document.images if image.path is not None)], [out])
        if not overwrite:
            refuse_existing([out])
    given = {"device": device, "precision": precision, "runtime": runtime}
    asked = {
        name: (getattr(document.run, name) or "auto") if value == "recorded" else value
        for name, value in given.items()
    }

    def load(name: str) -> Segmenter:
        if model is None and not is_known_model(name):
            raise WeightsError(
                f"{file} was made with the model {name!r}, which is none of `lightsam models list`. Give its "
                "weights with --model."
            )
        name = model or name
        try:
            return load_segmenter(name, **asked)  # type: ignore[arg-type]  # checked there
        except (ConfigError, DeviceError) as error:
            if "recorded" not in given.values():
                raise
            warn(f"note: {error} The recorded computation is not possible here; another one is used.")
            chosen = {key: value for key, value in given.items() if value != "recorded"}
            return load_segmenter(name, **chosen)  # type: ignore[arg-type]  # checked there

    result = follow(run(document, file, load))
    for line in result.describe():
        typer.echo(line)
    if out is not None:
        write_objects(out, objects_of(with_labels(document, result)))
        typer.echo(f"Wrote {out}")
    raise typer.Exit(1 if result.missed else 0)
