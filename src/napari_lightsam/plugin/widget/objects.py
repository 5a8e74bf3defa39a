"""The part of the dock widget that lists the objects of a Labels layer and repairs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QItemSelectionModel, QModelIndex, Qt, QTimer
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
)

from napari_lightsam.plugin.everything.choices import counted
from napari_lightsam.plugin.messages import shortcut
from napari_lightsam.plugin.objects.targets import Follower
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.widget.check import CheckBox
from napari_lightsam.plugin.widget.folded import FoldedSection
from napari_lightsam.plugin.widget.parts import enable, fill, wide
from napari_lightsam.plugin.widget.table import ObjectModel, ObjectView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_lightsam.plugin.controller import Controller

_TITLE = "Review and correct"
_PAUSE = 250  # milliseconds without an edit, after which objects are measured again


class ObjectsSection(FoldedSection):
    """Lists the objects of a Labels layer, repairs them and checks how good they are; collapsed at first.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(
            _TITLE, "Go through the objects of a Labels layer, repair them, and check how good it is."
        )
        self._control = controller
        self._curating, self._splitting = controller.curating, controller.splitting
        self._filling = False
        self._follower = Follower()
        self._build()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self._curating.measure)
        self._connect()

    # --- layout --------------------------------------------------------------------------------------

    def _build(self) -> None:
        column = self.column
        column.addLayout(self._build_source())
        self.model = ObjectModel()
        self.view = ObjectView(self.model)
        column.addWidget(self.view)
        self.inner.setFocusProxy(self.view)
        column.addLayout(self._build_buttons())
        self.check = CheckBox(self._control)
        column.addWidget(self.check)

    def _build_source(self) -> QHBoxLayout:
        self.labels = wide(QComboBox())
        self.labels.setToolTip(
            "The Labels layer to look through. It goes along with the one that objects are saved into, and "
            "with the one selected in napari's list."
        )
        self.labels.setAccessibleName("Labels layer to review")
        self.scope = QComboBox()
        self.scope.addItem("this plane", False)
        self.scope.addItem("all planes", True)
        self.scope.setToolTip("What table and edits are of: the plane on display, or the whole stack.")
        self.scope.setAccessibleName("Planes to review")
        row = QHBoxLayout()
        row.addWidget(self.labels, 1)
        row.addWidget(self.scope)
        return row

    def _build_buttons(self) -> QVBoxLayout:
        self.accept_button = QPushButton("Accept (A)")
        self.redo_button = QPushButton("Re-outline (R)")
        self.delete_button = QPushButton("Delete (D)")
        self.merge_button = QPushButton("Merge")
        self.split_button = QPushButton("Split")
        self.fill_button = QPushButton("Fill holes")
        self.smooth_button = QPushButton("Smooth")
        self.small_button = QPushButton("Remove small")
        self.least = QSpinBox()
        self.least.setRange(1, 99_999)
        self.least.setValue(10)
        self.least.setPrefix("< ")
        self.least.setSuffix(" px")
        self.least.setToolTip("Objects of fewer pixels are removed by the button beside.")
        self.least.setAccessibleName("Least size in pixels")
        column = QVBoxLayout()
        column.setSpacing(3)
        repairs = (self.merge_button, self.split_button, self.fill_button, self.smooth_button)
        for buttons in ((self.accept_button, self.redo_button, self.delete_button), repairs):
            row = QHBoxLayout()
            row.setSpacing(3)
            for button in buttons:
                button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
                words = "Split now" if button is self.split_button else button.text()
                row.addWidget(button, 4 + len(words))  # the dock is narrow
            column.addLayout(row)
        line = QHBoxLayout()
        self.small_button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        line.addWidget(self.small_button, 1)
        line.addWidget(self.least)
        column.addLayout(line)
        return column

    def _connect(self) -> None:
        curating, splitting = self._curating, self._splitting
        self.labels.activated.connect(self._choose_labels)
        self.scope.activated.connect(lambda: curating.use_all_planes(bool(self.scope.currentData())))
        curating.outdated.connect(self._wait)
        curating.changed.connect(self._show)
        splitting.changed.connect(self._show)
        selection = self.view.selectionModel()
        assert selection is not None  # it has a model
        selection.selectionChanged.connect(self._on_selection)
        self.view.clicked.connect(self._on_click)
        self.view.accepted.connect(self.accept)
        self.view.redone.connect(self.redo)
        self.view.deleted.connect(self.delete)
        self.view.undone.connect(curating.undo)
        self.view.repeated.connect(curating.redo)
        self.view.prompted.connect(self._prompt)
        for button in (self.check.start_button, self.check.field_button):
            button.clicked.connect(lambda: self.bring_into_view(self.check))
        repairs = curating.repairs
        for button, repair in (
            (self.accept_button, self.accept),
            (self.merge_button, repairs.merge),
            (self.delete_button, self.delete),
            (self.fill_button, repairs.fill_holes),
            (self.smooth_button, repairs.smooth),
            (self.small_button, lambda: repairs.remove_small(self.least.value())),
        ):
            button.clicked.connect(lambda _=False, repair=repair: self._repair(repair))
        self.split_button.clicked.connect(self.split)
        self.redo_button.clicked.connect(self.redo)
        self.least.valueChanged.connect(self._show)
        self._control.viewer.layers.selection.events.active.connect(self._on_active)

    @property
    def is_at_work(self) -> bool:
        """An object is being split or judged, or missed ones are counted."""
        checking = self._control.checking
        return self._splitting.is_active or checking.current is not None or checking.field is not None

    def expand(self, wanted: bool = True) -> None:
        """Show or hide the section; hidden, nothing is measured."""
        super().expand(wanted)
        if wanted:
            self._follow_target()
            self._on_active()  # whoever selects a layer wants that one
            self.refresh()
            self._curating.begin()
            self._curating.measure()
        else:
            self._splitting.give_up()
            self._control.checking.pause()
            self._curating.hide()

    # --- what is looked through ----------------------------------------------------------------------

    def _wait(self) -> None:
        if self.is_expanded:
            self._timer.start()

    def _choose_labels(self) -> None:
        self._curating.use_layer(layers.by_id(self._control.viewer, self.labels.currentData()))

    def _on_active(self, event: Any = None) -> None:
        """Follow the Labels layer that is selected in napari."""
        active = self._control.viewer.layers.selection.active
        ids = [layer.unique_id for layer in self._curating.choices()]
        if self.is_expanded and active is not None and active.unique_id in ids:
            self._curating.use_layer(active)

    def _follow_target(self) -> None:
        """Look through the layer that objects are saved into now, unless another one is being worked on."""
        target = self._control.results.target
        chosen = next((layer for layer in self._curating.choices() if layer.unique_id == target), None)
        if self._follower.should_go_to(target) and chosen is not None and not self.is_at_work:
            self._curating.use_layer(chosen)

    def refresh(self) -> None:
        """Bring the section in step with the viewer."""
        if not self.is_expanded:
            return
        self._follow_target()
        found = list(self._curating.choices())
        if self._curating.layer_id not in [layer.unique_id for layer in found]:
            target = self._control.results.target
            other = found[-1] if found else None
            self._curating.use_layer(next((layer for layer in found if layer.unique_id == target), other))
        items = [(layer.name, layer.unique_id) for layer in found] or [("no Labels layer yet", None)]
        fill(self.labels, items, self._curating.layer_id)
        self._show()

    # --- what is shown -------------------------------------------------------------------------------

    def _show(self, event: Any = None) -> None:
        if not self.is_expanded:
            return
        curating = self._curating
        self.scope.setVisible(curating.has_stack)
        self.scope.setCurrentIndex(self.scope.findData(curating.all_planes))
        self._filling = True
        try:
            self.model.show(curating.table, curating.accepted, self._pixel_area())
            self._select(curating.selected)
        finally:
            self._filling = False
        self._enable()
        self.check.refresh()

    def _pixel_area(self) -> float | None:
        """Return the size of a pixel: as the layer has it, else as the widget's pixel size of the image."""
        curating, side = self._curating, self._control.pixel_size_um
        if curating.pixel_area is not None or side is None or curating.table.place.count(None) != 2:
            return curating.pixel_area
        on_image = any(layer.unique_id == curating.layer_id for layer in self._control.targets())
        return side * side if on_image else None

    def _select(self, ids: Iterable[int]) -> None:
        selection = self.view.selectionModel()
        assert selection is not None  # it has a model
        rows = [row for label in ids if (row := self.model.row_of(label)) is not None]
        if sorted(index.row() for index in selection.selectedRows()) == sorted(rows):
            return
        selection.clear()
        flags = QItemSelectionModel.SelectionFlag
        for row in rows:
            selection.select(self.model.index(row, 0), flags.Select | flags.Rows)
        if rows:
            at = self.model.index(rows[0], 0)
            selection.setCurrentIndex(at, flags.NoUpdate)
            self.view.scrollTo(at)

    def _enable(self) -> None:
        curating, splitting = self._curating, self._splitting
        chosen, reason = curating.selected, curating.why_not()
        nothing = "" if chosen else "Select an object first: click its row, or the object itself."
        none = reason or nothing
        two = reason or (
            ""
            if len(chosen) > 1
            else f"Select at least two objects: click one, {shortcut('click')} others; "
            "in the image with Shift."
        )
        one = none or ("" if len(chosen) == 1 else "Select one object only.")
        enable(self.merge_button, two, "Make one object of those selected; it keeps the smallest id.")
        self.split_button.setText("Split now" if splitting.is_active else "Split")
        enable(
            self.split_button,
            reason if splitting.is_active else one,
            "Cut at the clicks (C). Shift+C: do not."
            if splitting.is_active
            else "Click once in each part; the parts get new ids. On the plane on display.",
        )
        enable(self.accept_button, nothing, "Mark the selected objects as right (✓), and go to the next.")
        enable(self.delete_button, none, "Turn the selected objects into background, and go to the next.")
        enable(self.fill_button, none, "Fill the background enclosed by the selected objects.")
        enable(self.smooth_button, none, "Round off ragged outlines of the selected objects.")
        enable(
            self.redo_button,
            one,
            "Outline it anew: click what is missing, Shift+click what is too much; C saves it.",
        )
        count = len(curating.repairs.small(self.least.value()))
        enable(
            self.small_button,
            reason or ("" if count else f"No object has less than {self.least.value()} px."),
            f"Delete {counted(count)} of less than {self.least.value()} px, in one step.",
        )

    # --- what the user does --------------------------------------------------------------------------

    def _repair(self, repair: Callable[[], object]) -> None:
        """Act by a button; the keys are those of the table afterwards, whatever button is beside."""
        window = self.window()
        focused = None if window is None else window.focusWidget()
        if focused is not None and self.isAncestorOf(focused):
            self.view.setFocus()
        repair()

    def _on_selection(self, *_: object) -> None:
        if self._filling:
            return
        selection = self.view.selectionModel()
        assert selection is not None  # it has a model
        rows = [index.row() for index in selection.selectedRows()]
        current = selection.currentIndex().row()
        rows.sort(key=lambda row: row != current)
        ids = [self.model.label(row) for row in rows]
        if len(ids) == 1:
            self._curating.go_to(ids[0])
        else:
            self._curating.select(ids)

    def _on_click(self, index: QModelIndex) -> None:
        label = self.model.label(index.row())
        if self._curating.selected == (label,):
            self._curating.go_to(label)  # again, after the view was moved

    def _next_after(self, ids: Iterable[int]) -> int | None:
        """Return the object in the row after those of some objects; the one before them at the end."""
        rows = sorted(row for label in ids if (row := self.model.row_of(label)) is not None)
        if not rows:
            return None
        following = rows[-1] + 1 if rows[-1] + 1 < self.model.rowCount() else rows[0] - 1
        return self.model.label(following) if following >= 0 else None

    def event(self, event: QEvent | None) -> bool:
        """Keep napari's shortcuts from taking the keys of a check."""
        if (
            isinstance(event, QKeyEvent)
            and event.type() == QEvent.Type.ShortcutOverride
            and _digit(event) is not None
            and self._control.checking.current is not None
        ):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        """Take 1 to 4 as verdicts while objects are judged; other digits never reach a layer from here."""
        digit = None if event is None else _digit(event)
        if event is None or digit is None:
            super().keyPressEvent(event)
            return
        self.check.judge_by(digit)
        event.accept()

    def accept(self) -> None:
        """Accept the selected objects, and go to the next."""
        ids = self._curating.selected
        following = self._next_after(ids)
        self._curating.accept(ids)
        if following is not None:
            self._curating.go_to(following)

    def delete(self) -> None:
        """Delete the selected objects, and go to the next."""
        ids = self._curating.selected
        if not ids or self._curating.why_not():
            return
        following = self._next_after(ids)
        self._curating.repairs.delete()
        if following is not None:
            self._curating.go_to(following)

    def redo(self) -> None:
        """Outline the current object anew."""
        labels, ids = self._curating.layer, self._curating.selected
        if labels is not None and len(ids) == 1:
            self._curating.go_to(ids[0])
            self._control.suggested.correct(labels, ids[0])

    def _prompt(self, name: str) -> None:
        """Do what a key does on the layer of clicks, where the hand need not go for it."""
        control, splitting = self._control, self._splitting
        if splitting.is_active:
            {"commit": splitting.apply, "clear": splitting.give_up}.get(name, splitting.changed.emit)()
        elif control.single.answer.candidates or control.annotator.has_prompts:
            control.annotator.prompt_layers.keys.emit(name)

    def split(self) -> None:
        """Begin to split the current object, or split it at what was clicked."""
        if self._splitting.is_active:
            self._splitting.apply()
        else:
            self._splitting.start()

    def finish(self) -> None:
        """Let go of the viewer."""
        self._timer.stop()
        self._control.viewer.layers.selection.events.active.disconnect(self._on_active)


def _digit(event: QKeyEvent) -> int | None:
    """Return the digit of a key that is pressed alone."""
    plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
    return int(event.text()) if plain and event.text() in tuple("0123456789") else None
