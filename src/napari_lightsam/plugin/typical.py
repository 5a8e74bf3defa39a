"""Measuring the object size by drawing around one typical object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.plugin.prompting import prompts
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, Plane
from napari_lightsam.plugin.viewer.colours import PURPLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Image, Shapes


class TypicalObject:
    """A Shapes layer that exists until one box or ellipse was drawn on it.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    owner
        Tells the layers of several viewers apart.
    deliver
        Calls a function on the main thread, later.

    Attributes
    ----------
    measured
        Signal(float): diameter in pixels of the object that was drawn.
    """

    measured = Signal(float)

    def __init__(
        self, viewer: ViewerModel, owner: str, deliver: Callable[[Callable[[], None]], object]
    ) -> None:
        self._viewer, self._owner, self._deliver = viewer, owner, deliver
        self._plane: Plane | None = None
        self._former: Any = None

    @property
    def layer(self) -> Shapes | None:
        """The layer to draw on, if it exists."""
        return layers.find(self._viewer, "typical", self._owner)

    def start(self, image: Image, plane: Plane) -> None:
        """Let the user drag a box around one object."""
        self.stop()
        self._plane = plane
        self._former = layers.active_id(self._viewer)
        shapes = self._viewer.add_shapes(
            None,
            ndim=image.ndim,
            name="one typical object",
            edge_color=PURPLE,
            face_color=[0, 0, 0, 0],
            edge_width=max(1.0, max(plane.shape) / 250),
            metadata={METADATA_KEY: {"role": "typical", "owner": self._owner, "version": 1}},
            **layers.on_image(image, plane, stretch=prompts.STRETCH),
        )
        shapes.events.data.connect(self._on_drawn)
        shapes.mode = "add_rectangle"
        self._viewer.layers.selection.active = shapes

    def stop(self) -> None:
        """Remove the layer; the layer that was active before is active again."""
        layer = self.layer
        if layer is None:
            return
        layers.remove(self._viewer, layer)
        layers.activate(self._viewer, self._former)

    def _on_drawn(self, event: Any) -> None:
        if event.action == "added":
            # napari is still busy with this layer, which is about to be removed
            self._deliver(self._measure)

    def _measure(self) -> None:
        layer, plane = self.layer, self._plane
        image = None if plane is None else layers.by_id(self._viewer, plane.layer)
        if layer is None or image is None or plane is None or not len(layer.data):
            return
        corners = [prompts.to_plane(layer, vertex, image, plane) for vertex in layer.data[-1]]
        self.stop()
        if any(corner is None for corner in corners):
            return
        sides = np.ptp(np.array(corners), axis=0)
        # of the ellipse that fits into the frame of what was drawn: pi / 4 * height * width
        size = float(np.sqrt(sides[0] * sides[1]))
        if size >= 1:
            self.measured.emit(size)
