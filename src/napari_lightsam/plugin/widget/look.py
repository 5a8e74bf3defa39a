"""What napari's style lacks for a dock that is used by keyboard: a frame around what has the focus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.utils.theme import get_theme

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QPushButton, QWidget

# The frame is always there and as a rule not seen, so that nothing moves when it is; paddings make room.
# Later rules win. napari's own rules for buttons in other states (pressed, checked, disabled) stay.
_SHEET = """
QPushButton:enabled {{ border: 2px solid transparent; padding: 2px; }}
QComboBox:enabled {{ border: 1px solid transparent; padding: 2px 9px 2px 7px; }}
QAbstractSpinBox {{ border: 1px solid transparent; padding: 0px 9px; }}
QLineEdit {{ border: 1px solid transparent; }}
QAbstractSpinBox > QLineEdit {{ border: 0px; }}
QCheckBox::indicator {{ border: 1px solid transparent; padding: 0px; }}
QTableView {{ border: 1px solid transparent; }}
QPushButton[heading="true"] {{
  text-align: left; background-color: transparent; border: 2px solid transparent; padding: 0px;
}}
QPushButton:focus, QComboBox:focus, QAbstractSpinBox:focus, QLineEdit:focus, QTableView:focus,
QCheckBox::indicator:focus {{ border-color: {text}; }}
QAbstractSpinBox > QLineEdit:focus {{ border: 0px; }}
QSlider::handle:horizontal:focus {{ border: 2px solid {text}; width: 12px; }}
"""


def as_heading(button: QPushButton) -> QPushButton:
    """Have a button look like the headline of what it folds away."""
    button.setProperty("heading", "true")
    return button


class Look:
    """Shows which control has the keyboard's focus, in the colour of the text: readable in any theme.

    Parameters
    ----------
    viewer
        Its theme is followed.
    widget
        In whose controls the focus is shown.
    """

    def __init__(self, viewer: napari.viewer.Viewer, widget: QWidget) -> None:
        self._viewer, self._widget = viewer, widget
        viewer.events.theme.connect(self._follow)
        self._follow()

    def _follow(self, event: Any = None) -> None:
        text = get_theme(self._viewer.theme).text
        self._widget.setStyleSheet(_SHEET.format(text=text.as_hex()))

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.events.theme.disconnect(self._follow)
