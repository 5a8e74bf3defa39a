"""Shows what a run over all planes has found so far, plane by plane, before it becomes a layer to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lightsam.plugin import layers

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_lightsam.engine.progress import Progress
    from napari_lightsam.plugin.axes import Plane


class StackPreview:
    """A Labels layer over all planes, which the worker fills and nobody edits.

    Parameters
    ----------
    viewer, image, plane
        Where it lies.
    axis
        Data axis of the planes.

    Attributes
    ----------
    labels
        int32 (planes, H, W) in the order of the image's axes: the run writes its planes here.
    """

    def __init__(self, viewer: ViewerModel, image: Image, plane: Plane, axis: int) -> None:
        self._viewer = viewer
        active = viewer.layers.selection.active
        layer = layers.add_labels(
            viewer, image, plane, f"{image.name} everything (running)", {"role": "preview"}
        )
        layer.editable = False
        layers.below_prompts(viewer, layer)
        if active is not None:
            viewer.layers.selection.active = active
        self._layer, self._done = layer.unique_id, 0
        place = layers.place_in(layer, image, plane)
        assert place is not None  # a layer that we just made lies on the image
        self.labels: NDArray[Any] = layer.data[
            tuple(slice(None) if step is None or i == axis else step for i, step in enumerate(place))
        ]

    def follow(self, step: Progress) -> None:
        """Draw again when one more plane is done; the slider shows any of them meanwhile."""
        layer = layers.by_id(self._viewer, self._layer)
        if layer is not None and step.done != self._done:
            self._done = step.done
            layer.refresh()

    def remove(self) -> None:
        """Take the layer away."""
        layer = layers.by_id(self._viewer, self._layer)
        if layer is not None:
            layers.remove(self._viewer, layer)
