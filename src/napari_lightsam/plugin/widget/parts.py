"""Small parts of the dock widget: icons, and the choosers that appear only when needed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QPointF, QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QSizePolicy,
    QWidget,
)

from napari_lightsam.plugin.prompting.prompts import COLOURS, NEGATIVE, POSITIVE
from napari_lightsam.plugin.viewer.axes import AxisRole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_lightsam.plugin.request import Source


class MainThread(QObject):
    """Calls functions on the thread it was made on, in the order they were given."""

    _call = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = False
        self._call.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def deliver(self, call: Callable[[], None]) -> None:
        """Call a function later on the main thread; may be called from any thread."""
        self._call.emit(call)

    def _run(self, call: Callable[[], None]) -> None:
        # napari's activity dock handles events while it repaints, so this may be entered within a call
        self._waiting.append(call)
        if self._running:
            return
        self._running = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._running = False
            if self._waiting:  # one failed: those that came in meanwhile are called all the same
                self._call.emit(lambda: None)


def draw_icon(kind: str) -> QIcon:
    """Draw the marker of a tool as it looks on the image: "positive", "negative" or "box"."""
    pixmap = QPixmap(QSize(40, 40))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor("white"), 3))
    if kind == POSITIVE:
        painter.setBrush(QColor(COLOURS[POSITIVE]))
        painter.drawEllipse(QRectF(6, 6, 28, 28))
    elif kind == NEGATIVE:
        painter.setBrush(QColor(COLOURS[NEGATIVE]))
        a, b, c, d = 4, 15, 25, 36
        corners = [
            (b, a),
            (c, a),
            (c, b),
            (d, b),
            (d, c),
            (c, c),
            (c, d),
            (b, d),
            (b, c),
            (a, c),
            (a, b),
            (b, b),
        ]
        painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in corners]))
    else:
        for colour, width in (("white", 9), (COLOURS[POSITIVE], 5)):
            painter.setPen(QPen(QColor(colour), width))
            painter.drawRect(QRectF(6, 9, 28, 22))
    painter.end()
    return QIcon(pixmap)


def wide(combo: QComboBox) -> QComboBox:
    """Let a combo box shrink with its dock; long layer names would widen it otherwise."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(6)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def fill(combo: QComboBox, items: Sequence[tuple[str, Any]], chosen: Any) -> None:
    """Offer (text, data) pairs; an open list is only disturbed when something has changed."""
    now = [(combo.itemText(i), combo.itemData(i)) for i in range(combo.count())]
    if now != list(items):
        combo.clear()
        for text, data in items:
            combo.addItem(text, data)
    index = next((i for i, (_, data) in enumerate(items) if data == chosen), 0)
    if combo.currentIndex() != index:
        combo.setCurrentIndex(index)


def enable(button: QWidget, why_not: str, tip: str) -> None:
    """Let a control be used, or have its tooltip say why it cannot be."""
    if why_not:
        rest_focus(button)
    button.setEnabled(not why_not)
    button.setToolTip(why_not or tip)


def show_if(widget: QWidget, wanted: bool) -> None:
    """Show or hide a part of the dock."""
    if not wanted:
        rest_focus(widget)
    widget.setVisible(wanted)


def rest_focus(leaving: QWidget) -> None:
    """Take the keyboard's focus from a control that is about to be disabled or hidden.

    Qt would pass it on to whatever control comes next, where the next key may do harm. It goes to what the
    part of the dock around names as its focus proxy, such as a table, else to that part itself, where keys
    do nothing and Tab goes on from.
    """
    window, around = leaving.window(), leaving.parentWidget()
    focused = None if window is None else window.focusWidget()
    if focused is None or around is None or not (focused is leaving or leaving.isAncestorOf(focused)):
        return
    part: QWidget | None = around
    while part is not None and (proxy := part.focusProxy()) is None:
        part = part.parentWidget()
    if part is not None and proxy is not None and proxy.isVisible() and not leaving.isAncestorOf(proxy):
        around = proxy
    around.setFocus()


def heading(text: str) -> QLabel:
    """Make the headline of a section."""
    label = QLabel(text)
    font = label.font()
    font.setBold(True)
    label.setFont(font)
    label.setContentsMargins(0, 6, 0, 0)
    return label


class AxisQuestions(QWidget):
    """Asks what a slider of unknown meaning is, one combo box each; empty and hidden otherwise.

    Parameters
    ----------
    on_answer
        Called with the axis and its role.
    """

    _ANSWERS = (
        ("depth (z)", AxisRole.DEPTH),
        ("time", AxisRole.TIME),
        ("channel", AxisRole.CHANNEL),
    )

    def __init__(self, on_answer: Callable[[int, AxisRole], object]) -> None:
        super().__init__()
        self._on_answer = on_answer
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._asked: tuple[tuple[int, int], ...] = ()
        self.combos: dict[int, QComboBox] = {}

    def ask(self, axes: Sequence[tuple[int, int]], answers: Mapping[int, AxisRole] | None = None) -> None:
        """Ask about axes, given as (axis, length); those with an answer show it."""
        answers = answers or {}
        self.setVisible(bool(axes))
        if tuple(axes) != self._asked:
            self._asked = tuple(axes)
            self._build(answers)
        for axis, combo in self.combos.items():
            combo.setCurrentIndex(max(0, combo.findData(answers.get(axis))))

    def _build(self, answers: Mapping[int, AxisRole]) -> None:
        while self._form.rowCount():
            row = self._form.takeRow(0)
            for item in (row.labelItem, row.fieldItem):
                part = item.widget()
                assert part is not None  # a label, or a combo box
                part.hide()
                part.deleteLater()  # one of them may just be telling what was chosen in it
        self.combos = {}
        for axis, length in self._asked:
            combo = wide(QComboBox())
            if axis not in answers:
                combo.addItem("choose ...", None)
            for text, role in self._ANSWERS:
                combo.addItem(text, role)
            combo.setToolTip(
                "Neither the layer nor its file says what this slider moves through. Objects are outlined "
                "in one plane; channels of one plane may be used together."
            )
            combo.activated.connect(lambda _i, axis=axis, combo=combo: self._answered(axis, combo))
            self._form.addRow(f"Slider {axis} ({length} steps) is", combo)
            self.combos[axis] = combo

    def _answered(self, axis: int, combo: QComboBox) -> None:
        role = combo.currentData()
        if role is not None:
            self._on_answer(axis, AxisRole(role))


class InputChoosers(QWidget):
    """Maps one to three channels or images to the model's inputs; hidden when there is nothing to choose.

    Parameters
    ----------
    on_change
        Called with the chosen sources; empty for the default.
    """

    def __init__(self, on_change: Callable[[list[Source]], object]) -> None:
        super().__init__()
        self._on_change = on_change
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        self.combos = [wide(QComboBox()) for _ in range(3)]
        for label, combo in zip(("Segment", "with", "and"), self.combos, strict=True):
            combo.setToolTip(
                "The model looks at up to three channels at once, for instance membranes and nuclei."
            )
            combo.activated.connect(self._changed)
            form.addRow(label, combo)
        self._form = form

    def offer(self, options: Sequence[Source], default: str, chosen: Sequence[Source]) -> None:
        """Fill the choosers, keeping what is chosen."""
        self.setVisible(len(options) > 1)
        for number, combo in enumerate(self.combos):
            nothing = default if number == 0 else "nothing more"
            items = [(nothing, None), *((source.title, source) for source in options)]
            fill(combo, items, chosen[number] if number < len(chosen) else None)
        self._show_needed()

    def _show_needed(self) -> None:
        first = self.combos[0].currentData() is not None
        second = first and self.combos[1].currentData() is not None
        for number, shown in ((1, first), (2, second)):
            self._form.setRowVisible(self.combos[number], shown)

    def _changed(self) -> None:
        self._show_needed()
        chosen: list[Source] = []
        for combo in self.combos:
            source = combo.currentData()
            if source is None:
                break
            if source not in chosen:
                chosen.append(source)
        self._on_change(chosen)
