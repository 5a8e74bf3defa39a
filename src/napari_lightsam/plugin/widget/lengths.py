"""Lengths in a form: kept in pixels, shown in micrometres where the image is calibrated."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QDoubleSpinBox, QSizePolicy


class LengthBox(QDoubleSpinBox):
    """A length that may be left open.

    Parameters
    ----------
    nothing
        Shown when no length is given.
    tip
        Tooltip.

    Attributes
    ----------
    changed
        Signal: the user, or `set_pixels`, gave another length.
    """

    changed = Signal()

    def __init__(self, nothing: str, tip: str) -> None:
        super().__init__()
        self._pixels: float | None = None
        self._pixel_size: float | None = None
        self.setRange(0, 100_000)
        self.setSpecialValueText(nothing)
        self.setKeyboardTracking(False)
        self.setToolTip(tip)
        self.setMinimumWidth(60)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._show()
        self.valueChanged.connect(self._take)

    @property
    def pixels(self) -> float | None:
        """The length in pixels; None when it is left open."""
        return self._pixels

    def set_pixels(self, pixels: float | None) -> None:
        """Give a length in pixels."""
        if pixels != self._pixels:
            self._pixels = pixels
            self._show()
            self.changed.emit()

    def set_pixel_size(self, micrometres: float | None) -> None:
        """Show micrometres of this many a pixel; None: show pixels. The length stays the same."""
        if micrometres != self._pixel_size:
            self._pixel_size = micrometres
            self._show()

    def _show(self) -> None:
        self.blockSignals(True)
        size = self._pixel_size
        # three digits, whatever the magnification
        self.setDecimals(0 if size is None else 3 if size < 0.01 else 2 if size < 0.1 else 1)
        self.setSuffix(" px" if size is None else " µm")
        self.setSingleStep(1 if size is None else max(10.0 ** -self.decimals(), round(size, self.decimals())))
        self.setValue((self._pixels or 0) * (size or 1))
        self.blockSignals(False)

    def _take(self, value: float) -> None:
        pixels = value / (self._pixel_size or 1)
        self._pixels = pixels or None
        self.changed.emit()
