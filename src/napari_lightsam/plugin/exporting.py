"""Objects written for other programs at one press of a button. Knows napari but no Qt."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.export import find_format
from napari_lightsam.formats.guard import protect_inputs
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.writer import WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller

USES = {
    "roi": "ImageJ ROIs, for Fiji",
    "tiff": "Label image, for Fiji",
    "geojson": "Outlines, for QuPath",
    "csv": "Table of measurements",
    "ome-tiff": "OME-TIFF",
    "ome-zarr": "OME-Zarr",
    "coco": "COCO JSON",
}
"""What is offered, by name of the format; what is asked for most comes first."""


class Exporting:
    """Writes the objects of one Labels layer for other programs.

    Parameters
    ----------
    control
        Of the viewer.
    say
        Shows a sentence in the status line.
    """

    def __init__(self, control: Controller, say: Callable[[str], object]) -> None:
        self._control, self._say = control, say

    @property
    def layer(self) -> Labels | None:
        """The Labels layer that is selected in napari, else that of *Save into*, else the topmost."""
        viewer = self._control.viewer
        found = {layer.unique_id: layer for layer in layers.user_labels(viewer)}
        wanted = (layers.active_id(viewer), self._control.results.target, *reversed(found))
        return next((found[layer] for layer in wanted if layer in found), None)

    def why_not(self) -> str:
        """Say why nothing can be exported, or ""."""
        none = "There are no objects yet: segment everything, or click some."
        return none if self.layer is None else ""

    def suggested(self) -> Path:
        """Return where the file may go: beside that of the image, called like it, without an ending."""
        image = self._control.annotator.image
        source = None if image is None else image.source.path
        if source and Path(source).parent.is_dir():
            return Path(source).with_name(Path(source).stem)
        return Path("objects")

    def start(self, path: Path, form: str) -> bool:
        """Write the objects in the background; tells whether that was begun.

        Parameters
        ----------
        path
            The file. An ending that stands for a format decides; any other name gets the ending of `form`.
        form
            Name of a format, in `USES`.
        """
        labels, image = self.layer, self._control.annotator.image
        if labels is None:
            report_info(self.why_not())
            return False
        with suppress(ConfigError):  # else the writer adds the ending, and replaces nothing
            form = find_format(path).name
        try:
            source = None if image is None else image.source.path
            protect_inputs([Path(source)] if source else [], [path])
        except ConfigError as error:
            report_error(error)
            return False
        data, meta, _ = labels.as_layer_data_tuple()
        data = data.copy() if isinstance(data, np.ndarray) else data  # edits go on meanwhile
        name = labels.name
        return self._control.sessions.write(
            _written(form, path, data, meta), lambda done: self._say(f"{name} was written to {done}.")
        )


def _written(form: str, path: Path, data: Any, meta: dict[str, Any]) -> Work[str]:
    yield Progress("exporting", 0, 1)
    (done,) = WRITERS[form](str(path), data, meta)
    return done
