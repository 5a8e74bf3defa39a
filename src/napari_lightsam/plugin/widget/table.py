"""The table of objects: what it shows, how it is sorted, and the keys for going through it."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import (  # type: ignore[attr-defined]
    QAbstractTableModel,
    QEvent,
    QModelIndex,
    Qt,
    Signal,
)
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableView

from napari_lightsam.plugin.messages import shortcut
from napari_lightsam.plugin.objects.table import empty_table

if TYPE_CHECKING:
    from napari_lightsam.plugin.objects.table import ObjectTable

# what they do alone, and with Shift
_PROMPT_KEYS = {Qt.Key.Key_C: ("commit", "clear"), Qt.Key.Key_Q: ("next", "previous")}
_COLUMNS = ("id", "area", "score", "source", "✓")
_TIPS = (
    "Label of the object.",
    "Area on this plane; in all planes, the volume.",
    "How sure the model is, from 0 to 1. Sort by it to look at doubtful objects first.",
    "auto: by Segment everything. prompt: from clicks or a box. propagated: followed from another plane. "
    "other: painted, or from elsewhere. edited: its pixels changed since.",
    "Accepted by you.",
)


class ObjectModel(QAbstractTableModel):
    """An `ObjectTable` for Qt, sorted by one of its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.table: ObjectTable = empty_table()
        self._accepted: frozenset[int] = frozenset()
        self._pixel_area: float | None = None
        self._order = np.zeros(0, np.intp)
        self._sorted_by, self._descending = 0, False

    def show(self, table: ObjectTable, accepted: frozenset[int], pixel_area: float | None) -> bool:
        """Show a table; tells whether it is another one than before."""
        if (table, accepted, pixel_area) == (self.table, self._accepted, self._pixel_area):
            return False
        self.beginResetModel()
        self.table, self._accepted, self._pixel_area = table, accepted, pixel_area
        self._arrange()
        self.endResetModel()
        return True

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of objects."""
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return len(_COLUMNS)

    def label(self, row: int) -> int:
        """Return the label in a row as sorted."""
        return int(self.table.labels[self._order[row]])

    def row_of(self, label: int) -> int | None:
        """Return the row, as sorted, of a label."""
        found = np.flatnonzero(self.table.labels[self._order] == label)
        return int(found[0]) if len(found) else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        if not index.isValid():
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(int(self._order[index.row()]), index.column())
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() in (0, 1, 2):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def _text(self, at: int, column: int) -> str:
        table = self.table
        if column == 0:
            return str(table.labels[at])
        if column == 1:
            area = int(table.areas[at])
            return str(area) if self._pixel_area is None else f"{area * self._pixel_area:.3g}"
        if column == 2:
            return "" if math.isnan(table.scores[at]) else f"{table.scores[at]:.2f}"
        if column == 3:
            return "other" if table.sources[at] == "manual" else table.sources[at]
        return "✓" if int(table.labels[at]) in self._accepted else ""

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return what a column is called."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return _TIPS[section]
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        if section != 1:
            return _COLUMNS[section]
        stack = self.table.place.count(None) > 2
        unit = "px" if self._pixel_area is None else "µm³" if stack else "µm²"
        return f"{'volume' if stack else 'area'} {unit}"

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; equal ones by label."""
        self.layoutAboutToBeChanged.emit()
        self._sorted_by, self._descending = column, order == Qt.SortOrder.DescendingOrder
        self._arrange()
        self.layoutChanged.emit()

    def _arrange(self) -> None:
        table = self.table
        if self._sorted_by in (0, 1, 2):
            values = (table.labels, table.areas, table.scores)[self._sorted_by].astype(float)
            self._order = np.argsort(-values if self._descending else values, kind="stable")
            return  # objects without a score are last either way
        if self._sorted_by == 3:
            _, keys = np.unique(np.array(table.sources, str), return_inverse=True)
        else:
            keys = np.isin(table.labels, list(self._accepted)).astype(int)
        self._order = np.argsort(-keys if self._descending else keys, kind="stable")


class ObjectView(QTableView):
    """The table with the keys for reviewing; they act here only and never reach a layer.

    Attributes
    ----------
    accepted, redone, deleted, undone, repeated
        Signals: a key was pressed.
    prompted
        Signal(str): a key of the prompt layers was pressed, by what it does: "commit", "clear", "next" or
        "previous".
    """

    accepted, redone, deleted = Signal(), Signal(), Signal()
    undone, repeated = Signal(), Signal()
    prompted = Signal(str)

    def __init__(self, model: ObjectModel) -> None:
        super().__init__()
        self.setModel(model)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setWordWrap(False)
        self.setAccessibleName("Objects")
        self.setToolTip(f"Click a row to go to its object; {shortcut('click')} selects several.")
        self.setMinimumHeight(150)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        vertical, horizontal = self.verticalHeader(), self.horizontalHeader()
        assert vertical is not None  # every table view has both
        assert horizontal is not None
        vertical.setVisible(False)
        vertical.setDefaultSectionSize(self.fontMetrics().lineSpacing() + 6)
        horizontal.setMinimumSectionSize(20)
        horizontal.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        horizontal.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        character = self.fontMetrics().horizontalAdvance("0")
        for column, characters in ((0, 6), (2, 7), (4, 3)):
            horizontal.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            self.setColumnWidth(column, characters * character)

    def event(self, event: QEvent | None) -> bool:
        """Keep napari's shortcuts from taking the keys of the table."""
        if event is not None and event.type() == QEvent.Type.ShortcutOverride and self._action(event):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Act on a key of ours; letters that mean nothing here are swallowed."""
        if event is None:
            return
        action = self._action(event)
        if action is not None:
            action()
            event.accept()
        elif event.text().isdigit():
            event.ignore()  # the section around may be asking for a verdict
        elif event.text().isprintable() and event.text().strip() and not event.modifiers():
            event.accept()
        else:
            super().keyPressEvent(event)

    def _action(self, event: Any) -> Any:
        if event.matches(QKeySequence.StandardKey.Undo):
            return self.undone.emit
        if event.matches(QKeySequence.StandardKey.Redo):
            return self.repeated.emit
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        shift = held == Qt.KeyboardModifier.ShiftModifier
        if held and not shift:
            return None
        if event.key() in _PROMPT_KEYS:
            return partial(self.prompted.emit, _PROMPT_KEYS[event.key()][shift])
        actions = {
            Qt.Key.Key_A: self.accepted.emit,
            Qt.Key.Key_R: self.redone.emit,
            Qt.Key.Key_D: self.deleted.emit,
            Qt.Key.Key_Delete: self.deleted.emit,
            Qt.Key.Key_Backspace: self.deleted.emit,
        }
        return None if shift else actions.get(event.key())
