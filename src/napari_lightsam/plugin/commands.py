"""Menu commands, and opening an image with its objects from a script."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import napari
    from napari.components import ViewerModel

_FILTER = "Images (*.tif *.tiff *.lsm *.png *.jpg *.jpeg *.bmp);;All files (*)"


def open_and_segment(
    viewer: ViewerModel,
    path: str | os.PathLike[str],
    *,
    model: str = "lightsam",
    object_size: float | None = None,
    channel: int | str | tuple[int | str, ...] | None = None,
    z: int | Literal["max"] | None = None,
    time: int | None = None,
) -> list[Any]:
    """Open an image file and add a Labels layer of everything in it.

    Parameters
    ----------
    viewer
        A `napari.Viewer`, or a `napari.components.ViewerModel` in a script without a window.
    path
        A TIFF, PNG, JPEG or BMP file, or a `*.lightsam` file.
    model
        Name in the registry.
    object_size
        Typical diameter in pixels; estimated when not given.
    channel, z, time
        The plane to segment, where the file holds several; see `ImageInfo.select`.

    Returns
    -------
    list of Layer
        The Image and the Labels layer.

    Raises
    ------
    FileError
        The file cannot be read, or it holds several planes and none was chosen.

    Examples
    --------
    >>> from napari.components import ViewerModel
    >>> from napari_lightsam import open_and_segment
    >>> from importlib.resources import files
    >>> viewer = ViewerModel()
    >>> path = files("napari_lightsam") / "samples/nuclei_histology.tif"
    >>> layers = open_and_segment(viewer, path, object_size=14)
    >>> [type(layer).__name__ for layer in layers]
    ['Image', 'Labels']
    """
    from napari_lightsam.plugin.reader import layers_of, read_lightsam
    from napari_lightsam.session import Selection, Session

    path = Path(path)
    if path.suffix.lower() == ".lightsam":
        found = read_lightsam(str(path))
    else:
        session = Session(
            path.absolute(), model=model, object_size=object_size, selection=Selection(channel, z, time)
        )
        found = layers_of(session, origin=str(path))
    added: list[Any] = []
    for data, keywords, kind in found:
        added.append(getattr(viewer, f"add_{kind}")(data, **keywords))
    return added


def ask_and_segment(viewer: napari.viewer.Viewer) -> None:
    """Ask for an image file, open it, and segment it in the background."""
    from qtpy.QtWidgets import QFileDialog

    path, _ = QFileDialog.getOpenFileName(None, "Open and segment an image", "", _FILTER)
    if path:
        open_in_window(viewer, path)


def open_in_window(viewer: napari.viewer.Viewer, path: str | os.PathLike[str]) -> None:
    """Open an image in a window with napari's own reader and start segmenting it in the background."""
    opened = viewer.open(os.fspath(path), plugin="napari")
    images = [layer for layer in opened if type(layer).__name__ == "Image"]
    if images:
        viewer.layers.selection.active = images[0]
        segment_everything(viewer)


def segment_everything(viewer: napari.viewer.Viewer) -> None:
    """Open the LightSAM widget and start segmenting the active Image layer."""
    from napari.layers import Image

    from napari_lightsam.plugin.messages import report_info
    from napari_lightsam.plugin.widget.dock import LightSamWidget

    active = viewer.layers.selection.active
    widget = LightSamWidget.of(viewer)
    if widget is None:
        _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    if active is None or not isinstance(getattr(active, "__wrapped__", active), Image):
        report_info("Select one Image layer first, then choose 'Segment everything' again.")
        return
    widget.choose_image(active)
    widget.controller.segment_everything()
