"""The object size in the dock widget: typed, drawn or measured, in pixels or micrometres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_lightsam.plugin.widget.lengths import LengthBox
from napari_lightsam.plugin.widget.parts import enable

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller

_TYPING = 400  # milliseconds, after which a size counts as typed


class SizeRow(QWidget):
    """Asks for the typical diameter of an object.

    Parameters
    ----------
    controller
        Of the widget.

    Attributes
    ----------
    chosen
        Signal: another size was chosen; see `pixels`.
    unit_changed
        Signal: lengths are to be shown in the other unit; see `shown_pixel_size`.
    """

    chosen = Signal()
    unit_changed = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control = controller
        self._pixel_size: float | None = None
        self.box = LengthBox(
            "auto",
            "Typical diameter of an object (of a circle of the same area). Optional: auto tries several "
            "sizes. Faster and often better when given.",
        )
        self.box.setAccessibleName("Object size")
        self.unit = QComboBox()
        self.unit.setAccessibleName("Unit of sizes")
        self.unit.addItems(["µm", "px"])
        self.unit.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.unit.setToolTip("Show sizes in micrometres or in pixels.")
        self.draw_button = QPushButton("Draw one")
        self.measure_button = QPushButton("Measure outline")
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_TYPING)
        self._build()
        self.box.changed.connect(self._timer.start)
        self._timer.timeout.connect(self.chosen)
        self.unit.activated.connect(self._show_unit)
        self.draw_button.clicked.connect(lambda: controller.draw_typical())
        self.measure_button.clicked.connect(self._measure)
        controller.typical.measured.connect(lambda size: self.box.set_pixels(round(size)))
        self._show_unit()

    def _build(self) -> None:
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.box, 1)
        first.addWidget(self.unit)
        second.addWidget(self.draw_button, 1)
        second.addWidget(self.measure_button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        column.addLayout(first)
        column.addLayout(second)

    @property
    def pixels(self) -> float | None:
        """The object size in pixels; None: not given."""
        return self.box.pixels

    @property
    def shown_pixel_size(self) -> float | None:
        """Micrometres a pixel, when lengths are shown in micrometres."""
        return self._pixel_size if self.unit.currentText() == "µm" else None

    def set_pixel_size(self, micrometres: float | None) -> None:
        """Say how large a pixel is; None: not known, all sizes are in pixels."""
        self._pixel_size = micrometres
        self._show_unit()

    def _show_unit(self) -> None:
        self.unit.setVisible(self._pixel_size is not None)
        self.box.set_pixel_size(self.shown_pixel_size)
        self.unit_changed.emit()

    def _measure(self) -> None:
        size = self._control.single.measured_size()
        if size is not None:
            self.box.set_pixels(round(size))

    def settle(self) -> None:
        """Take the size as it is, without waiting for more to be typed."""
        if self._timer.isActive():
            self._timer.stop()
            self.chosen.emit()

    def refresh(self, why_not: str) -> None:
        """Bring the buttons in step with the controller."""
        enable(self.draw_button, why_not, "Drag a box around one typical object: its size is taken.")
        nothing = "" if self._control.single.answer.masks() else "Outline one typical object first: click it."
        enable(self.measure_button, nothing, "Take the size of the object that is outlined.")
