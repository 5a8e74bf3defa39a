"""The switch for outlines under the mouse, with the clock that says when the mouse rests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox

from napari_lightsam.plugin.prompting.hover import REST_MS

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller


class HoverBox(QCheckBox):
    """Switches outlines under the mouse on and off.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__("Outline under the mouse")
        self._hover = controller.hover
        self.setToolTip(
            "On: with the tool Object, the outline that a click would give is shown faintly while the mouse "
            "rests; click to take it. Only before the first click of an object."
        )
        self._clock = QTimer(self)
        self._clock.setSingleShot(True)
        self._clock.setInterval(REST_MS)
        self._clock.timeout.connect(self._hover.rest)
        self._hover.moved.connect(self._begin_again)
        self.toggled.connect(self._switch)

    def _begin_again(self) -> None:
        self._clock.start()

    def _switch(self, on: bool) -> None:
        self._hover.on = on
