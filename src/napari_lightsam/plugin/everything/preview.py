"""The layer that shows, while a run of everything mode goes on, the outlines of what it has found so far."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.everything.outlines import Outlined
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, level0
from napari_lightsam.plugin.viewer.colours import YELLOW
from napari_lightsam.plugin.viewer.names import unused_name

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.viewer.axes import Plane

SOON = 1.5
"""Seconds from the start of a run before which nothing is shown: a short one has its result by then."""

PAUSE = 0.3
"""Seconds between two drawings, at least."""

_SHARE = 5  # drawing takes at most this part of the window's time


class RunPreview:
    """Outlines of a run under way: added to as it finds objects, edited by nobody, gone in the end.

    Parameters
    ----------
    viewer, plane, region
        Where they lie.
    axis
        Data axis of the planes of a stack; None for one plane.

    Notes
    -----
    Each drawing sends only the part of the layer that changed to the screen, as napari's brush does.
    """

    def __init__(self, viewer: ViewerModel, plane: Plane, region: Region, axis: int | None) -> None:
        self._viewer, self._region, self._axis = viewer, region, axis
        first = tuple(0 if i == axis else step for i, step in enumerate(plane.index))
        self._plane = replace(plane, index=first)
        self._layer: Hashable | None = None
        self._waiting: list[Outlined] = []
        self._due = time.monotonic() + SOON
        self._ended = False

    def follow(self, step: Progress) -> None:
        """Take a step of the run, and draw what came since the last drawing when it is time."""
        if self._ended:
            return
        image = layers.by_id(self._viewer, self._plane.layer)
        layer = layers.by_id(self._viewer, self._layer)
        if image is None or (layer is None and self._layer is not None):
            self.remove()  # the user deleted one of them, and wants no such layer
            return
        if isinstance(step, Outlined):
            self._waiting.append(step)
        if not self._waiting or time.monotonic() < self._due:
            return
        layer = self._add(image) if layer is None else layer
        begun = time.monotonic()
        self._draw(layer)
        now = time.monotonic()
        self._due = now + max(PAUSE, (_SHARE - 1) * (now - begun))

    def _draw(self, layer: Labels) -> None:
        steps, self._waiting = self._waiting, []
        usual, at = self._display(layer)
        for plane in sorted({step.plane for step in steps}):
            here = [step for step in steps if step.plane == plane]
            place = [0 if i != self._axis else plane for i in range(layer.ndim)]
            index: list[Any] = [np.full(sum(len(step.rows) for step in here), i) for i in place]
            index[self._plane.axes[0]] = np.concatenate([step.rows for step in here])
            index[self._plane.axes[1]] = np.concatenate([step.columns for step in here])
            seen = all(at[i] == place[i] for i in range(layer.ndim) if i not in self._plane.axes)
            if usual and seen and layer.visible:
                layer.data_setitem(tuple(index), 1)
            else:  # the slider shows it when it comes there
                layer.data[tuple(index)] = 1
        if not usual:
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _display(self, layer: Labels) -> tuple[bool, NDArray[np.intp]]:
        """Tell whether planes are on display as they lie in the run, and where the sliders are."""
        dims = self._viewer.dims
        displayed = sorted(axis - dims.ndim + layer.ndim for axis in dims.displayed)
        at = np.rint(layer.world_to_data(dims.point[-layer.ndim :])).astype(np.intp)
        return tuple(displayed) == self._plane.axes, at

    def _add(self, image: Image) -> Labels:
        from napari.layers import Labels
        from napari.utils.colormaps import CyclicLabelColormap

        y0, x0, y1, x1 = self._region
        shape = list(layers.plane_shape(self._plane, y1 - y0, x1 - x0))
        if self._axis is not None:
            shape[self._axis] = level0(image).shape[self._axis]
        layer = Labels(
            np.zeros(shape, np.uint8),
            name=unused_name(self._viewer, "Everything (running)", image.name),
            # one that lists its labels would be compiled when it is first used, for seconds
            colormap=CyclicLabelColormap(colors=[(0, 0, 0, 0), YELLOW], background_value=0),
            opacity=1.0,
            metadata={METADATA_KEY: {"role": "preview", "version": 1, "image": str(image.unique_id)}},
            **layers.on_plane(image, self._plane, (y0, x0)),
        )
        layer.editable = False
        self._layer = layer.unique_id
        return layers.add(self._viewer, layer, keep_active=True)

    def hide(self) -> None:
        """Show nothing any more; cheap, as opposed to removing the layer."""
        self._ended = True
        self._waiting.clear()
        layer = layers.by_id(self._viewer, self._layer)
        if layer is not None:
            layer.visible = False

    def remove(self) -> None:
        """Take the layer away, for good."""
        self._ended = True
        self._waiting.clear()
        layer = layers.by_id(self._viewer, self._layer)
        if layer is not None:
            layers.remove(self._viewer, layer)
