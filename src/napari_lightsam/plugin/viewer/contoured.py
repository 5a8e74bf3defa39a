"""A Labels layer whose objects are shown as outlines while they are judged: fills hide what is beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lightsam.plugin.viewer import layers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.components import ViewerModel
    from napari.layers import Labels

_THICK = 2  # screen pixels that an outline must have to be seen


class Contoured:
    """Shows the objects of one layer as outlines, and then again as they were.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Hashable | None = None
        self._former = self._ours = 0

    def show(self, labels: Labels) -> None:
        """Show outlines of a layer whose objects are filled; another one is shown as before."""
        if self._layer == labels.unique_id:
            return
        self.hide()
        if labels.contour:  # outlines already, as thick as the user wants them
            return
        self._layer, self._former = labels.unique_id, labels.contour
        self._ours = labels.contour = self._width(labels)

    def _width(self, labels: Labels) -> int:
        pixel = self._viewer.scene.camera.zoom * float(min(abs(side) for side in labels.scale[-2:]))
        return 1 if pixel >= _THICK else 2

    def follow_zoom(self) -> None:
        """Draw thinner outlines from near, where they would hide the edge, and thicker ones from afar."""
        labels: Labels | None = layers.by_id(self._viewer, self._layer)
        if labels is not None and labels.contour == self._ours != self._width(labels):
            self._ours = labels.contour = self._width(labels)

    def hide(self) -> None:
        """Show the layer as it was before, unless the user changed that meanwhile."""
        labels: Labels | None = layers.by_id(self._viewer, self._layer)
        self._layer = None
        if labels is not None and labels.contour == self._ours:
            labels.contour = self._former
