"""The part of the dock widget that outlines single objects: tools, and saving what is outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin import layers
from napari_lightsam.plugin.prompts import NEGATIVE, POSITIVE
from napari_lightsam.plugin.widget_parts import draw_icon, enable, fill, wide

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller

_NEW_LAYER = "new layer"


class ClickSection(QWidget):
    """Clicks and boxes, and the Labels layer that objects are saved into.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control = controller
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(self._build_tools())
        column.addLayout(self._build_saving())
        self._connect()

    def _build_tools(self) -> QVBoxLayout:
        self.object_button = _tool("Object", POSITIVE)
        self.not_button = _tool("Not object", NEGATIVE)
        self.box_button = _tool("Box", "box")
        row = QHBoxLayout()
        row.setSpacing(3)
        for button, share in ((self.object_button, 3), (self.not_button, 4), (self.box_button, 2)):
            row.addWidget(button, share)
        hint = QLabel("Click: object. Shift+click: not object.")
        hint.setWordWrap(True)
        column = QVBoxLayout()
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(hint)
        return column

    def _build_saving(self) -> QVBoxLayout:
        self.commit_button = QPushButton("Save object (C)")
        self.clear_button = QPushButton("Clear (Shift+C)")
        self.next_button = QPushButton("Other outline (Q)")
        second = QHBoxLayout()
        second.addWidget(self.next_button, 1)
        second.addWidget(self.clear_button, 1)
        self.target_combo = wide(QComboBox())
        self.target_combo.setToolTip("The Labels layer that objects are saved into.")
        self.replace_box = QCheckBox("Replace other objects")
        self.replace_box.setToolTip(
            "Off: only background pixels are written. On: pixels of other objects are taken over. "
            "Either way one Ctrl+Z takes it back."
        )
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Save into", self.target_combo)
        column = QVBoxLayout()
        column.setSpacing(4)
        column.addWidget(self.commit_button)
        column.addLayout(second)
        column.addLayout(form)
        column.addWidget(self.replace_box)
        return column

    def _connect(self) -> None:
        control = self._control
        self.object_button.clicked.connect(lambda: self._start("points"))
        self.not_button.clicked.connect(lambda: self._start("points", negative=True))
        self.box_button.clicked.connect(lambda: self._start("boxes"))
        self.commit_button.clicked.connect(lambda: control.commit())
        self.clear_button.clicked.connect(lambda: control.clear())
        self.next_button.clicked.connect(lambda: control.cycle(1))
        self.target_combo.activated.connect(self._choose_target)
        self.replace_box.toggled.connect(lambda on: setattr(control, "replace_others", on))

    def _start(self, tool: str, *, negative: bool = False) -> None:
        self._control.start(tool, negative=negative)
        self.show_tool()

    def _choose_target(self) -> None:
        self._control.results.target = self.target_combo.currentData()

    def refresh(self, why_not: str) -> None:
        """Bring every button in step with the controller; those that cannot be used say why."""
        control = self._control
        enable(self.object_button, why_not, "Click an object to outline it. Blue discs mark objects.")
        enable(
            self.not_button,
            why_not,
            "Click what does not belong to the object: orange crosses. Or Shift+click.",
        )
        enable(self.box_button, why_not, "Drag a box around an object. Every box is one object.")
        nothing = (
            "" if control.answer.masks() else "Outline an object first: click it, or draw a box around it."
        )
        enable(self.commit_button, nothing, "Save the outlined objects into the Labels layer below.")
        enable(self.next_button, nothing, "Show another outline of the same click: part, object or cluster.")
        annotator = control.annotator
        prompted = any(x is not None and len(x.data) for x in (annotator.points, annotator.boxes))
        enable(
            self.clear_button,
            "" if prompted else "There are no clicks or boxes to remove.",
            "Remove clicks and boxes without saving.",
        )
        items = [(_NEW_LAYER, None), *((layer.name, layer.unique_id) for layer in control.targets())]
        fill(self.target_combo, items, control.results.target)
        self.show_tool()

    def show_tool(self) -> None:
        """Show which tool the mouse holds."""
        annotator = self._control.annotator
        active = self._control.viewer.layers.selection.active
        note = layers.ours(active) if active is not None else {}
        role = note.get("role") if note.get("owner") == annotator.owner else None
        negative = annotator.always_negative
        self.object_button.setChecked(role == "points" and not negative)
        self.not_button.setChecked(role == "points" and negative)
        self.box_button.setChecked(role == "boxes")


def _tool(text: str, kind: str) -> QPushButton:
    button = QPushButton(draw_icon(kind), text)
    button.setCheckable(True)
    return button
