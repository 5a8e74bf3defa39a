"""Labels layers that lie on an image but that nothing can be saved into, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lightsam.plugin.objects.results import refusal
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.layers import Role

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_lightsam.plugin.viewer.axes import Plane


def refused_labels(viewer: ViewerModel, image: Image, plane: Plane) -> list[tuple[str, str]]:
    """Return the Labels layers that a user may look for among the targets of a plane in vain.

    Parameters
    ----------
    viewer, image, plane
        What is annotated.

    Returns
    -------
    list of (name, why)
        `why` says what to do instead. Layers that lie elsewhere are not among them, nor is the result of a
        run on the whole image, which is only shown.
    """
    found = []
    for labels in layers.user_labels(viewer):
        why = "" if layers.ours(labels).get("role") == Role.WHOLE else refusal(labels)
        if why and layers.lies_at(labels, image, plane) is not None:
            found.append((labels.name, why))
    return found
