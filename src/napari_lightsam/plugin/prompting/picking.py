"""The tool that takes a saved object up again: one click on it in the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lightsam.plugin.messages import report_info
from napari_lightsam.plugin.viewer.clicks import clicked

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from napari.components import ViewerModel
    from napari.layers import Image, Labels

    from napari_lightsam.plugin.prompting.annotator import Annotator


class Picking:
    """Waits for a click on an object of a Labels layer, while that layer is the active one.

    Parameters
    ----------
    annotator
        Knows image and plane.
    targets
        Returns the Labels layers whose objects can be picked, lowest first.
    preferred
        Returns the `unique_id` of the one that is made active, if it is among them.
    on_pick
        Called with layer, label, and where it was clicked as (row, column) of the plane.
    """

    def __init__(
        self,
        annotator: Annotator,
        targets: Callable[[], list[Labels]],
        preferred: Callable[[], Hashable | None],
        on_pick: Callable[[Labels, int, tuple[float, float]], object],
    ) -> None:
        self._annotator, self._viewer = annotator, annotator.viewer
        self._targets, self._preferred, self._on_pick = targets, preferred, on_pick
        self._layer: Hashable | None = None

    @property
    def is_active(self) -> bool:
        """The next click picks an object."""
        return self._layer is not None

    def start(self) -> bool:
        """Let the next click pick an object; tells whether there is a layer of objects."""
        found = self._targets()
        if not found:
            report_info("There are no objects to correct on this plane yet: save one, or segment everything.")
            return False
        preferred = self._preferred()
        shown = [layer for layer in found if layer.visible] or found
        labels = next((layer for layer in found if layer.unique_id == preferred), shown[-1])
        labels.visible = True
        labels.mode = "pan_zoom"
        self.stop()
        self._viewer.layers.selection.active = labels
        self._layer = labels.unique_id
        self._viewer.mouse_drag_callbacks.append(self._on_click)
        self._viewer.layers.selection.events.active.connect(self._on_active)
        return True

    def stop(self) -> None:
        """Leave the mouse alone."""
        if self._layer is not None:
            self._layer = None
            self._viewer.layers.selection.events.active.disconnect(self._on_active)
            self._viewer.mouse_drag_callbacks.remove(self._on_click)

    def _on_active(self, event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        if active is None or active.unique_id != self._layer:
            self.stop()

    def _on_click(self, viewer: ViewerModel, event: Any) -> Generator[None, None, None]:
        still = yield from clicked(event)
        image = self._annotator.image
        if image is not None and still:
            self._pick(image, event)

    def _pick(self, image: Image, event: Any) -> None:
        under = [layer for layer in reversed(self._targets()) if layer.visible]
        first = [layer for layer in under if layer.unique_id == self._layer]
        for labels in (*first, *under):
            value = labels.get_value(
                event.position,
                view_direction=event.view_direction,
                dims_displayed=list(event.dims_displayed),
                world=True,
            )
            if value:
                at = image.world_to_data(event.position)
                plane = self._annotator.plane()
                (rows, columns), (y0, x0) = plane.axes, plane.origin
                self._on_pick(labels, int(value), (float(at[rows] - y0), float(at[columns] - x0)))
                return
        report_info("There is no object here: click inside of one.")
