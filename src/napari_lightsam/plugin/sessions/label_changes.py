"""Hears of every change of the pixels of Labels layers, and keeps copies of them while nothing changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.plugin.sessions.document import copy_of
from napari_lightsam.plugin.viewer import layers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.components import ViewerModel
    from napari.layers import Labels
    from numpy.typing import NDArray


@dataclass(slots=True)
class _Seen:
    """What decides how napari cuts a Labels layer; while it is the same, only pixels have changed."""

    cut: tuple[Any, ...] = ()
    version: int = 0
    copy: tuple[int, Any] | None = None


class LabelChanges:
    """Watches the Labels layers of one viewer that hold somebody's objects.

    napari tells of strokes of the brush, and of nothing when a step is taken back or repeated, or an array is
    filled and refreshed. It cuts the layer anew then, as it does when a slider moves: what decides the cut is
    compared.

    Parameters
    ----------
    viewer
        Where the layers are.

    Attributes
    ----------
    changed
        Signal(object): the Labels layer of which pixels have changed.
    """

    changed = Signal(object)

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._seen: dict[Hashable, _Seen] = {}

    def __contains__(self, layer: Any) -> bool:
        return layer.unique_id in self._seen

    def watch(self, layer: Any) -> None:
        """Watch a layer, if it is such a Labels layer."""
        from napari.layers import Labels

        if isinstance(layer, Labels) and not layers.is_tool(layer):
            self._seen[layer.unique_id] = _Seen(self._cut(layer))
            layer.events.paint.connect(self._on_paint)
            layer.events.set_data.connect(self._on_set_data)
            layer.events.visible.connect(self._on_visible)

    def forget(self, layer: Labels) -> None:
        """Watch a layer no more."""
        del self._seen[layer.unique_id]

    def close(self) -> None:
        """Let go of the viewer."""
        for layer in self._viewer.layers:
            if layer in self:
                layer.events.paint.disconnect(self._on_paint)
                layer.events.set_data.disconnect(self._on_set_data)
                layer.events.visible.disconnect(self._on_visible)

    def note(self, layer: Labels) -> None:
        """Take note of a change, and tell of it."""
        if layer in self:
            self._seen[layer.unique_id].version += 1
        self.changed.emit(layer)

    def copy_of(self, layer: Labels) -> NDArray[Any]:
        """Return a copy of the labels: the former one where nothing has changed since."""
        seen = self._seen.setdefault(layer.unique_id, _Seen())
        if seen.copy is None or seen.copy[0] != seen.version:
            seen.copy = (seen.version, copy_of(layer))
        copy: NDArray[Any] = seen.copy[1]
        return copy

    def drop_copies(self) -> None:
        """Give up all copies."""
        for seen in self._seen.values():
            seen.copy = None

    def _on_paint(self, event: Any) -> None:
        self.note(event.source)

    def _on_set_data(self, event: Any) -> None:
        seen, cut = self._seen.get(event.source.unique_id), self._cut(event.source)
        if seen is not None and seen.cut == cut:
            self.note(event.source)
        elif seen is not None:
            seen.cut = cut

    def _on_visible(self, event: Any) -> None:
        seen = self._seen.get(event.source.unique_id)
        if seen is not None and not event.source.visible:
            seen.cut = ()  # napari cuts it when it is shown again

    def _cut(self, layer: Labels) -> tuple[Any, ...]:
        dims = self._viewer.dims
        shown = layer.selected_label if layer.show_selected_label else None
        return tuple(dims.point), dims.order, dims.ndisplay, layer.contour, shown
