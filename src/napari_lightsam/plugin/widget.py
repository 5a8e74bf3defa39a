"""The dock widget: buttons and fields around a `Controller`, and nothing that decides anything."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin import layers, request
from napari_lightsam.plugin.axes import AxisRole, NoPlane, answer_role, level0, pixel_size, unknown_axes
from napari_lightsam.plugin.controller import Controller
from napari_lightsam.plugin.prompts import NEGATIVE, POSITIVE
from napari_lightsam.plugin.widget_models import ModelChooser
from napari_lightsam.plugin.widget_parts import (
    AxisQuestions,
    InputChoosers,
    MainThread,
    ProgressRow,
    draw_icon,
    fill,
    heading,
    wide,
)
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    import napari

_WIDGETS: weakref.WeakSet[LightSamWidget] = weakref.WeakSet()
_NEW_LAYER = "new layer"


class LightSamWidget(QWidget):
    """Outlines objects in microscopy images from clicks and boxes, or all of them at once.

    Parameters
    ----------
    napari_viewer
        The viewer it works on.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._main_thread = MainThread(self)
        self.controller = Controller(napari_viewer, self._main_thread.deliver)
        self._docked = False
        self._size_timer = QTimer(self)
        self._size_timer.setSingleShot(True)
        self._size_timer.setInterval(400)
        self._size_timer.timeout.connect(self._apply_size)
        self._build()
        self._connect()
        self.setMinimumWidth(220)
        _WIDGETS.add(self)
        self.reset_choices()

    @classmethod
    def of(cls, viewer: Any) -> LightSamWidget | None:
        """Return the open widget of a viewer, if there is one."""
        wanted = getattr(viewer, "__wrapped__", viewer)
        return next(
            (w for w in _WIDGETS if w.is_open and getattr(w.viewer, "__wrapped__", w.viewer) is wanted), None
        )

    def sizeHint(self) -> QSize:
        """Ask for a comfortable dock; it works down to 300 x 400 by scrolling."""
        return QSize(310, 600)

    @property
    def is_open(self) -> bool:
        """The widget was not closed."""
        return not self.controller.closed

    # --- layout --------------------------------------------------------------------------------------

    def _build(self) -> None:
        inner = QWidget()
        column = QVBoxLayout(inner)
        column.setContentsMargins(6, 4, 6, 4)
        column.setSpacing(5)
        column.addLayout(self._build_image())
        column.addWidget(heading("Click objects"))
        column.addLayout(self._build_tools())
        column.addLayout(self._build_saving())
        column.addWidget(heading("Or all at once"))
        column.addWidget(self._build_everything())
        column.addWidget(self.run_row)
        column.addStretch(1)
        area = self.area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setContentsMargins(6, 2, 6, 4)
        self.status.setMinimumHeight(2 * self.status.fontMetrics().lineSpacing() + 6)
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(area, 1)
        outer.addWidget(self.status)

    def _build_image(self) -> QFormLayout:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.image_combo = wide(QComboBox())
        self.image_combo.setToolTip("The Image layer to segment.")
        form.addRow("Image", self.image_combo)
        self.models = ModelChooser(self.controller)
        form.addRow("Model", self.models)
        self.questions = AxisQuestions(self._answer_axis)
        form.addRow(self.questions)
        self.inputs = InputChoosers(self._use_sources)
        form.addRow(self.inputs)
        self.size_box = QDoubleSpinBox()
        self.size_box.setRange(0, 10_000)
        self.size_box.setDecimals(0)
        self.size_box.setSuffix(" px")
        self.size_box.setSpecialValueText("auto")
        self.size_box.setKeyboardTracking(False)
        self.size_box.setToolTip(
            "Typical diameter of an object in pixels (of a circle of the same area). Optional: auto tries "
            "several sizes. Faster and often better when given."
        )
        self.measure_button = QPushButton("Measure")
        row = QHBoxLayout()
        row.addWidget(self.size_box, 1)
        row.addWidget(self.measure_button)
        form.addRow("Object size", row)
        self.pixel_box = QDoubleSpinBox()
        self.pixel_box.setRange(0, 10_000)
        self.pixel_box.setDecimals(4)
        self.pixel_box.setSuffix(" µm")
        self.pixel_box.setSpecialValueText("unknown")
        self.pixel_box.setKeyboardTracking(False)
        self.micrometres = QLabel()
        self.micrometres.setVisible(False)
        form.addRow("Pixel size", self.pixel_box)
        form.addRow("", self.micrometres)
        return form

    def _build_tools(self) -> QVBoxLayout:
        self.object_button = self._tool("Object", POSITIVE)
        self.not_button = self._tool("Not object", NEGATIVE)
        self.box_button = self._tool("Box", "box")
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

    @staticmethod
    def _tool(text: str, kind: str) -> QPushButton:
        button = QPushButton(draw_icon(kind), text)
        button.setCheckable(True)
        return button

    def _build_saving(self) -> QVBoxLayout:
        self.commit_button = QPushButton("Save object (C)")
        self.clear_button = QPushButton("Clear (Shift+C)")
        self.next_button = QPushButton("Other outline (Q)")
        first, second = QHBoxLayout(), QHBoxLayout()
        first.addWidget(self.commit_button, 1)
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
        column.addLayout(first)
        column.addLayout(second)
        column.addLayout(form)
        column.addWidget(self.replace_box)
        return column

    def _build_everything(self) -> QPushButton:
        self.everything_button = QPushButton("Segment everything")
        self.run_row = ProgressRow("LightSAM", self.controller.cancel)
        return self.everything_button

    def _connect(self) -> None:
        control = self.controller
        control.changed.connect(self._refresh)
        control.progress.connect(self._show_run)
        self.image_combo.activated.connect(self._choose_image)
        self.size_box.valueChanged.connect(lambda _: self._size_timer.start())
        self.pixel_box.valueChanged.connect(self._use_pixel_size)
        self.measure_button.clicked.connect(self._measure)
        self.object_button.clicked.connect(lambda: self._start("points"))
        self.not_button.clicked.connect(lambda: self._start("points", negative=True))
        self.box_button.clicked.connect(lambda: self._start("boxes"))
        self.commit_button.clicked.connect(lambda: control.commit())
        self.clear_button.clicked.connect(lambda: control.clear())
        self.next_button.clicked.connect(lambda: control.cycle(1))
        self.target_combo.activated.connect(self._choose_target)
        self.replace_box.toggled.connect(lambda on: setattr(control, "replace_others", on))
        self.everything_button.clicked.connect(lambda: control.segment_everything())
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            emitter.connect(self.reset_choices)
        self.viewer.layers.selection.events.active.connect(self._on_active)
        self.viewer.dims.events.ndisplay.connect(self._refresh)
        self.destroyed.connect(control.close)

    # --- choices -------------------------------------------------------------------------------------

    def reset_choices(self, event: Any = None) -> None:
        """Offer the layers that exist now; napari calls this whenever the layer list changes."""
        if not self.is_open:
            return
        found = list(layers.images(self.viewer))
        current = self.controller.annotator.image_id
        ids = [layer.unique_id for layer in found]
        items = [(layer.name, layer.unique_id) for layer in found] or [("open an image first", None)]
        fill(self.image_combo, items, current)
        if current not in ids:
            active = self.viewer.layers.selection.active
            chosen = next((x for x in found if active is not None and x.unique_id == active.unique_id), None)
            self.choose_image(chosen or (found[-1] if found else None))
        self._refresh()

    def choose_image(self, image: Any) -> None:
        """Work on an Image layer."""
        if image is not None:
            items = [(layer.name, layer.unique_id) for layer in layers.images(self.viewer)]
            fill(self.image_combo, items, image.unique_id)
        self.controller.use_image(image)
        self._offer_inputs()
        self._fill_pixel_size()
        self._refresh()

    def _choose_image(self) -> None:
        self.choose_image(layers.by_id(self.viewer, self.image_combo.currentData()))

    def _offer_inputs(self) -> None:
        image = self.controller.annotator.image
        if image is None:
            self.questions.ask(())
            self.inputs.setVisible(False)
            return
        shape = level0(image).shape
        self.questions.ask([(axis, shape[axis]) for axis in unknown_axes(image, self.viewer)])
        default = request.default_sources(self.viewer, image)
        title = default[0].title if len(default) == 1 else "the first three channels"
        self.inputs.offer(request.sources(self.viewer, image), title, self.controller.sources)

    def _answer_axis(self, axis: int, role: AxisRole) -> None:
        image = self.controller.annotator.image
        if image is not None:
            answer_role(image, axis, role)
            self._offer_inputs()
            self.controller.prepare()
            self._refresh()

    def _use_sources(self, chosen: list[request.Source]) -> None:
        self.controller.use_sources(chosen)

    def _fill_pixel_size(self) -> None:
        image = self.controller.annotator.image
        size, source = (None, "") if image is None else pixel_size(image)
        self.pixel_box.blockSignals(True)
        self.pixel_box.setValue(size or 0)
        self.pixel_box.blockSignals(False)
        self.pixel_box.setToolTip(
            f"Micrometres a pixel, {source}. Change it where it is wrong; only sizes that are shown and "
            "noted with results depend on it."
        )
        self.controller.pixel_size_um = size

    def _use_pixel_size(self, value: float) -> None:
        self.controller.pixel_size_um = value or None
        self._refresh()

    def _apply_size(self) -> None:
        size = self.size_box.value() or None
        self.controller.use_settings(replace(self.controller.settings, object_size=size))
        self._refresh()

    def _measure(self) -> None:
        size = self.controller.measured_size()
        if size is not None:
            self.size_box.setValue(round(size))

    def _start(self, tool: str, *, negative: bool = False) -> None:
        self.controller.start(tool, negative=negative)
        self._refresh()

    def _choose_target(self) -> None:
        self.controller.results.target = self.target_combo.currentData()

    def _on_active(self, event: Any = None) -> None:
        self._refresh()

    # --- what is shown -------------------------------------------------------------------------------

    def _show_run(self, progress: Any) -> None:
        self.run_row.show_progress(progress)
        self.everything_button.setVisible(progress is None)

    def _refresh(self, event: Any = None) -> None:
        """Bring every control in step with the controller; those that cannot be used say why."""
        if not self.is_open:
            return
        self.status.setText(self.controller.status)
        self._offer_inputs()
        self._offer_targets()
        why_not = self._why_not()
        for button, tip in self._tips().items():
            button.setEnabled(not why_not)
            button.setToolTip(why_not or tip)
        has_outline = bool(self.controller.answer.masks())
        nothing = "" if has_outline else "Outline an object first: click it, or draw a box around it."
        self._enable(self.commit_button, nothing, "Save the outlined objects into the Labels layer below.")
        self._enable(
            self.next_button, nothing, "Show another outline of the same click: part, object or cluster."
        )
        self._enable(
            self.measure_button,
            nothing,
            "Take the size of the outlined object: click one typical object first.",
        )
        prompted = any(
            x is not None and len(x.data)
            for x in (self.controller.annotator.points, self.controller.annotator.boxes)
        )
        self._enable(
            self.clear_button,
            "" if prompted else "There are no clicks or boxes to remove.",
            "Remove clicks and boxes without saving.",
        )
        self._show_tool()
        size, pixel = self.size_box.value(), self.controller.pixel_size_um
        self.micrometres.setText(f"an object is {size * (pixel or 0):.3g} µm")
        self.micrometres.setVisible(bool(size and pixel))

    @staticmethod
    def _enable(button: QWidget, why_not: str, tip: str) -> None:
        button.setEnabled(not why_not)
        button.setToolTip(why_not or tip)

    def _tips(self) -> dict[QWidget, str]:
        return {
            self.object_button: "Click an object to outline it. Blue discs mark objects.",
            self.not_button: "Click what does not belong to the object: orange crosses. Or Shift+click.",
            self.box_button: "Drag a box around an object. Every box is one object.",
            self.everything_button: "Find all objects of the plane on display; they become a new layer.",
        }

    def _why_not(self) -> str:
        try:
            self.controller.request()
        except NoPlane as reason:
            return str(reason)
        if not self.models.available:
            return "This model is not on your computer: press Download, or choose another one."
        return ""

    def _offer_targets(self) -> None:
        control = self.controller
        items = [(_NEW_LAYER, None), *((layer.name, layer.unique_id) for layer in control.targets())]
        fill(self.target_combo, items, control.results.target)

    def _show_tool(self) -> None:
        active = self.viewer.layers.selection.active
        note = layers.ours(active) if active is not None else {}
        mine = note.get("owner") == self.controller.annotator.owner
        negative = self.controller.annotator.always_negative
        role = note.get("role") if mine else None
        self.object_button.setChecked(role == "points" and not negative)
        self.not_button.setChecked(role == "points" and negative)
        self.box_button.setChecked(role == "boxes")

    # --- end -----------------------------------------------------------------------------------------

    def event(self, event: QEvent | None) -> bool:
        """Notice that napari took the widget out of its dock, which is how it closes one."""
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()
        return bool(super().event(event))

    def shut_down(self) -> None:
        """End all work; prompts are removed, results stay."""
        if self.is_open:
            self.run_row.finish()
            self.models.finish()
            self.controller.annotator.remove_prompts()
            self.controller.close()

    def is_running(self) -> bool:
        """Tell whether everything is being segmented right now."""
        return self.controller.worker.is_busy(Lane.RUN)
