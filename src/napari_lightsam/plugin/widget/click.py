"""The part of the dock widget that outlines single objects: tools, and saving what is outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin.messages import shortcut
from napari_lightsam.plugin.objects.refused import refused_labels
from napari_lightsam.plugin.prompting import sources as prompt_sources
from napari_lightsam.plugin.prompting.prompts import NEGATIVE, POSITIVE
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.widget.hover import HoverBox
from napari_lightsam.plugin.widget.parts import draw_icon, enable, fill, wide

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
        hint = QLabel("Click: object. Shift+click: not. Drag: box.")
        hint.setWordWrap(True)
        self.correct_button = QPushButton("Correct one")
        self.correct_button.setCheckable(True)
        self.similar_button = QPushButton("Find similar")
        self.from_button = QPushButton("Take prompts from")
        self.from_menu = QMenu(self.from_button)
        self.from_button.setMenu(self.from_menu)
        second = QHBoxLayout()
        second.setSpacing(3)
        second.addWidget(self.correct_button, 1)
        second.addWidget(self.similar_button, 1)
        self.each_box = QCheckBox("Each point is its own object")
        self.each_box.setToolTip(
            "Off: all points say something about one object. On: every positive point is an object, and a "
            "negative one belongs to the nearest. Every box is an object either way."
        )
        self.hover_box = HoverBox(self._control)
        column = QVBoxLayout()
        column.setSpacing(2)
        column.addLayout(row)
        column.addWidget(hint)
        column.addLayout(second)
        column.addWidget(self.from_button)
        column.addWidget(self.each_box)
        column.addWidget(self.hover_box)
        return column

    def _build_saving(self) -> QVBoxLayout:
        self.same_box = QCheckBox()
        self.same_box.setChecked(True)
        keeps_place = self.same_box.sizePolicy()  # what is below must not jump when it comes up
        keeps_place.setRetainSizeWhenHidden(True)
        self.same_box.setSizePolicy(keeps_place)
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
            f"Either way one {shortcut('Z')} takes it back."
        )
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Save into", self.target_combo)
        column = QVBoxLayout()
        column.setSpacing(4)
        column.addWidget(self.same_box)
        column.addWidget(self.commit_button)
        column.addLayout(second)
        self.refused = QLabel()
        self.refused.setWordWrap(True)
        self.refused.setVisible(False)
        column.addLayout(form)
        column.addWidget(self.refused)
        column.addWidget(self.replace_box)
        return column

    def _connect(self) -> None:
        control = self._control
        self.object_button.clicked.connect(lambda: self._start("points"))
        self.not_button.clicked.connect(lambda: self._start("points", negative=True))
        self.box_button.clicked.connect(lambda: self._start("boxes"))
        self.correct_button.clicked.connect(lambda: self._start("correct"))
        self.similar_button.clicked.connect(lambda: control.find_similar())
        self.from_menu.aboutToShow.connect(self._offer_prompts)
        self.each_box.toggled.connect(control.annotator.use_each)
        self.same_box.toggled.connect(self._choose_same)
        self.commit_button.clicked.connect(lambda: control.single.commit())
        self.clear_button.clicked.connect(lambda: control.annotator.clear())
        self.next_button.clicked.connect(lambda: control.single.cycle(1))
        self.target_combo.activated.connect(self._choose_target)
        self.replace_box.toggled.connect(self._choose_others)

    def _start(self, tool: str, *, negative: bool = False) -> None:
        self._control.start(tool, negative=negative)
        self.show_tool()

    def _choose_same(self, replace: bool) -> None:
        self._control.single.replace_same = replace
        self._name_commit()

    def _choose_others(self, replace: bool) -> None:
        self._control.single.replace_others = replace

    def _offer_prompts(self) -> None:
        """List what holds points or boxes now."""
        control, menu = self._control, self.from_menu
        menu.clear()
        image = control.annotator.image
        for layer in () if image is None else prompt_sources.sources(control.viewer, image):
            action = menu.addAction(layer.name)
            assert action is not None
            action.triggered.connect(lambda _=False, layer=layer: control.suggested.take_from(layer))
        action = menu.addAction("a CSV file ...")
        assert action is not None
        action.triggered.connect(self._open_table)

    def _open_table(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Points or shapes saved by napari", "", "Tables (*.csv)")
        if path:
            self._control.suggested.take_from(path)

    def _choose_target(self) -> None:
        self._control.results.target = self.target_combo.currentData()
        self._control.single.look_again()

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
            ""
            if control.single.answer.masks()
            else "Outline an object first: click it, or draw a box around it."
        )
        enable(
            self.correct_button,
            why_not,
            "Click a saved object to take it up again: its clicks come back, or its outline becomes the "
            "prompt. C then replaces it.",
        )
        enable(
            self.similar_button,
            why_not,
            "Outline every object that looks like the outlined one, or like the one saved last. C saves them "
            "all, Shift+C rejects them; delete the point of one that is wrong.",
        )
        enable(self.from_button, why_not, "Take points or boxes from another layer, or a CSV file.")
        _set_quietly(self.each_box, control.annotator.each)
        self._ask_whether_same()
        enable(self.commit_button, nothing, "Save the outlined objects into the Labels layer below.")
        several = len(control.single.answer.mine) > 1
        alone = "" if several else "There is one outline only; a click changes it."
        enable(
            self.next_button,
            nothing or alone,
            "Show another outline of the same click: part, object or cluster.",
        )
        annotator = control.annotator
        prompted = any(x is not None and len(x.data) for x in (annotator.points, annotator.boxes))
        enable(
            self.clear_button,
            "" if prompted else "There are no clicks or boxes to remove.",
            "Remove clicks and boxes without saving.",
        )
        _set_quietly(self.replace_box, control.single.replace_others)
        items = [(_NEW_LAYER, None), *((layer.name, layer.unique_id) for layer in control.targets())]
        fill(self.target_combo, items, control.results.target)
        self._show_refused()
        self.show_tool()

    def _ask_whether_same(self) -> None:
        """Ask whether the outline replaces the object that it is a version of."""
        control = self._control
        same = control.single.answer.same
        self.same_box.setVisible(same is not None)
        if same is not None:
            self.same_box.setText(f"Replace object {same}?")
            self.same_box.setToolTip(
                f"The outline covers object {same} by half or more. On: it takes its place and keeps its "
                "number. Off: it becomes a new object on the background beside it."
            )
        _set_quietly(self.same_box, control.single.replace_same)
        self._name_commit()

    def _name_commit(self) -> None:
        control = self._control
        correction, same = control.annotator.correction, control.single.answer.same
        value = correction.value if correction is not None else same if control.single.replace_same else None
        self.commit_button.setText("Save object (C)" if value is None else f"Replace object {value} (C)")

    def _show_refused(self) -> None:
        """Name the Labels layers that one may look for in the list in vain; the tooltips say why."""
        annotator = self._control.annotator
        try:
            plane, image = annotator.plane(), annotator.image
        except NoPlane:
            image = None
        refused = [] if image is None else refused_labels(self._control.viewer, image, plane)
        self.refused.setText(f"Not in the list: {', '.join(name for name, _ in refused)}")
        reasons = "\n".join(why for _, why in refused)
        self.refused.setToolTip(reasons)
        self.refused.setVisible(bool(refused))
        self.target_combo.setToolTip(f"The Labels layer that objects are saved into.\n{reasons}".strip())

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
        self.correct_button.setChecked(self._control.picking.is_active or annotator.correction is not None)


def _set_quietly(box: QCheckBox, on: bool) -> None:
    """Show a state without telling anybody."""
    box.blockSignals(True)
    box.setChecked(on)
    box.blockSignals(False)


def _tool(text: str, kind: str) -> QPushButton:
    button = QPushButton(draw_icon(kind), text)
    button.setCheckable(True)
    return button
