"""A part of the dock widget that is folded away until it is asked for."""

from __future__ import annotations

from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_lightsam.plugin.widget_look import as_heading


class FoldedSection(QWidget):
    """A bold heading, and under it what a press on the heading shows.

    Parameters
    ----------
    title
        The heading.
    tip
        Its tooltip.

    Attributes
    ----------
    toggle
        The heading.
    inner
        What is shown and hidden; `column` lays it out.
    """

    def __init__(self, title: str, tip: str) -> None:
        super().__init__()
        self._title = title
        self.toggle = as_heading(QPushButton())
        self.toggle.setCheckable(True)
        font = self.toggle.font()
        font.setBold(True)
        self.toggle.setFont(font)
        self.toggle.setToolTip(tip)
        self.toggle.setAccessibleName(title)
        self.inner = QWidget()
        self.column = QVBoxLayout(self.inner)
        self.column.setContentsMargins(0, 0, 0, 0)
        self.column.setSpacing(4)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(2)
        outer.addWidget(self.toggle)
        outer.addWidget(self.inner)
        self._fold(False)
        self.toggle.toggled.connect(self.expand)

    @property
    def is_expanded(self) -> bool:
        """The section is shown."""
        return bool(self.toggle.isChecked())

    def expand(self, wanted: bool = True) -> None:
        """Show or hide the section."""
        self._fold(wanted)

    def _fold(self, wanted: bool) -> None:
        self.toggle.setChecked(wanted)
        self.toggle.setText(f"{'▾' if wanted else '▸'}  {self._title}")
        self.inner.setVisible(wanted)
