"""A part of the dock widget that is folded away until it is asked for."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton, QScrollArea, QVBoxLayout, QWidget

from napari_lightsam.plugin.widget.look import as_heading


class FoldedSection(QWidget):
    """A bold heading, and under it what a press on the heading shows.

    A section that is opened by a press comes into view, and folds those beside it in which nothing goes on:
    on a small screen the dock holds hardly more than one.

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
        self.toggle.clicked.connect(self._on_press)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._come_into_view)
        self._wanted: tuple[QWidget, ...] = ()

    @property
    def is_expanded(self) -> bool:
        """The section is shown."""
        return bool(self.toggle.isChecked())

    @property
    def is_at_work(self) -> bool:
        """Something goes on in the section that the user may want to watch."""
        return False

    def expand(self, wanted: bool = True) -> None:
        """Show or hide the section."""
        self._fold(wanted)

    def _fold(self, wanted: bool) -> None:
        self.toggle.setChecked(wanted)
        self.toggle.setText(f"{'▾' if wanted else '▸'}  {self._title}")
        self.inner.setVisible(wanted)

    def _on_press(self, opened: bool) -> None:
        if not opened:
            return
        around = self.parentWidget()
        for other in [] if around is None else around.children():
            if not isinstance(other, FoldedSection) or other is self:
                continue
            if other.is_expanded and not other.is_at_work:
                other.expand(False)
        self.bring_into_view(self.inner, self.toggle)

    def bring_into_view(self, *parts: QWidget) -> None:
        """Scroll, once the section is laid out, as little as shows parts of it.

        Parameters
        ----------
        *parts
            The last one is the most important.
        """
        self._wanted = parts
        self._soon.start()

    def _come_into_view(self) -> None:
        area = self.parentWidget()
        while area is not None and not isinstance(area, QScrollArea):
            area = area.parentWidget()
        if area is not None and self.is_expanded:
            for part in self._wanted:
                area.ensureWidgetVisible(part, 0, 0)
