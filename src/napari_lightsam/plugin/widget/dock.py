"""The dock widget: sections around a `Controller`, and nothing that decides anything."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin import request
from napari_lightsam.plugin.controller import Controller
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import (
    AxisRole,
    NoPlane,
    answer_role,
    answered_axes,
    level0,
    pixel_size,
    unknown_axes,
)
from napari_lightsam.plugin.viewer.warming import warm_up
from napari_lightsam.plugin.widget.batch import BatchSection
from napari_lightsam.plugin.widget.canvas import NO_OPENGL, CanvasContext, has_opengl
from napari_lightsam.plugin.widget.click import ClickSection
from napari_lightsam.plugin.widget.everything import EverythingSection
from napari_lightsam.plugin.widget.look import Look
from napari_lightsam.plugin.widget.models import ModelChooser
from napari_lightsam.plugin.widget.objects import ObjectsSection
from napari_lightsam.plugin.widget.parts import (
    AxisQuestions,
    InputChoosers,
    MainThread,
    fill,
    heading,
    wide,
)
from napari_lightsam.plugin.widget.series import SeriesSection, SessionRow
from napari_lightsam.plugin.widget.size import SizeRow
from napari_lightsam.plugin.widget.stack import RegionSection, StackSection
from napari_lightsam.plugin.widget.teach import TeachSection

if TYPE_CHECKING:
    import napari

_SOON = 120  # milliseconds, in which what was done is answered and painted; the dock follows then
_SAID = 3  # lines
_WIDGETS: weakref.WeakSet[LightSamWidget] = weakref.WeakSet()


class LightSamWidget(QWidget):
    """Outlines all objects in microscopy images at once, or single ones from clicks and boxes.

    Parameters
    ----------
    napari_viewer
        The viewer it works on.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._canvas_context = CanvasContext(napari_viewer, self)
        self._main_thread = MainThread(self)
        self.controller = Controller(napari_viewer, self._main_thread.deliver)
        in_window = getattr(napari_viewer, "window", None) is not None
        self._no_canvas = [NO_OPENGL] if in_window and not has_opengl() else []
        self._docked = False
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._refresh)
        self._build()
        self._connect()
        self._look = Look(napari_viewer, self)
        self.setMinimumWidth(300)
        _WIDGETS.add(self)
        self.reset_choices()
        warm_up()

    @classmethod
    def of(cls, viewer: Any) -> LightSamWidget | None:
        """Return the open widget of a viewer, if there is one."""
        wanted = getattr(viewer, "__wrapped__", viewer)
        return next(
            (w for w in _WIDGETS if w.is_open and getattr(w.viewer, "__wrapped__", w.viewer) is wanted), None
        )

    def sizeHint(self) -> QSize:
        """Ask for a comfortable dock; it works down to 300 x 400 by scrolling."""
        return QSize(310, 640)

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
        self.region = RegionSection(self.controller)
        column.addWidget(self.region)
        self.everything = EverythingSection(self.controller)
        self.click = ClickSection(self.controller)
        self.everything.advanced_form.addRow("Pixel size", self._build_pixel_size())
        self.answers = AxisQuestions(self._answer_axis)  # to be given anew
        self.everything.advanced_form.addRow(self.answers)
        column.addWidget(self.everything)
        column.addWidget(heading("Single objects"))
        column.addWidget(self.click)
        self.stack = StackSection(self.controller)
        column.addWidget(self.stack)
        self.objects = ObjectsSection(self.controller)
        column.addWidget(self.objects)
        self.teach = TeachSection(self.controller)
        column.addWidget(self.teach)
        self.series = SeriesSection(self.controller)
        self.session = SessionRow(self.controller)
        column.addWidget(self.series)
        self.batch = BatchSection(self.controller)
        column.addWidget(self.batch)
        column.addSpacing(6)
        column.addWidget(self.session)
        column.addStretch(1)
        area = self.area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        area.setWidget(inner)
        self.notes = QLabel()
        self.notes.setWordWrap(True)
        self.notes.setContentsMargins(6, 2, 6, 2)
        self.notes.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setContentsMargins(6, 2, 6, 4)
        # most of what is said fits: with every change of its height, all of the dock is laid out and painted
        self.status.setMinimumHeight(_SAID * self.status.fontMetrics().lineSpacing() + 6)
        self.status.setAlignment(Qt.AlignmentFlag.AlignTop)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(area, 1)
        outer.addWidget(self.notes)
        offer = QHBoxLayout()  # beside the line that tells of it, and always in sight
        offer.setContentsMargins(6, 2, 6, 2)
        offer.addWidget(self.session.restore_button)
        outer.addLayout(offer)
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
        self.size_row = SizeRow(self.controller)
        form.addRow("Object size", self.size_row)
        return form

    def _build_pixel_size(self) -> QDoubleSpinBox:
        self.pixel_box = QDoubleSpinBox()
        self.pixel_box.setRange(0, 10_000)
        self.pixel_box.setDecimals(4)
        self.pixel_box.setSuffix(" µm")
        self.pixel_box.setSpecialValueText("unknown")
        self.pixel_box.setKeyboardTracking(False)
        return self.pixel_box

    def _connect(self) -> None:
        control = self.controller
        control.changed.connect(self._refresh_soon)
        control.mentioned.connect(self.status.setText, check_nargs=False)
        self.image_combo.activated.connect(self._choose_image)
        self.size_row.chosen.connect(self._apply_size)
        for button in self.findChildren(QAbstractButton):
            button.pressed.connect(self._settle)
        self.size_row.unit_changed.connect(self._show_unit)
        self.teach.used.connect(self.models.refresh)
        control.series.opened.connect(self.choose_image)
        control.batch.opened.connect(self.choose_image)
        control.settings_taken.connect(self._show_taken)
        self.pixel_box.valueChanged.connect(self._use_pixel_size)
        events = self.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            emitter.connect(self.reset_choices)
        self.viewer.layers.selection.events.active.connect(self._refresh_soon)
        self.viewer.dims.events.ndisplay.connect(self._refresh_soon)
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
        self._refresh_soon()
        self._soon.start(0)  # other layers to choose from: as soon as napari is done with them

    def choose_image(self, image: Any) -> None:
        """Work on an Image layer."""
        if image is not None:
            items = [(layer.name, layer.unique_id) for layer in layers.images(self.viewer)]
            fill(self.image_combo, items, image.unique_id)
        self._fill_pixel_size(image)  # before work is taken up that knows better
        self.controller.shown.use_image(image)
        self._offer_inputs()
        self._refresh()

    def _choose_image(self) -> None:
        self.choose_image(layers.by_id(self.viewer, self.image_combo.currentData()))

    def _offer_inputs(self) -> None:
        image = self.controller.annotator.image
        if image is None:
            self.questions.ask(())
            self.answers.ask(())
            self.inputs.setVisible(False)
            return
        shape = level0(image).shape
        self.questions.ask([(axis, shape[axis]) for axis in unknown_axes(image, self.viewer)])
        answers = answered_axes(image, self.viewer)
        self.answers.ask([(axis, shape[axis]) for axis in sorted(answers)], answers)
        default = request.default_sources(self.viewer, image)
        title = default[0].title if len(default) == 1 else "the first three channels"
        self.inputs.offer(request.sources(self.viewer, image), title, self.controller.shown.sources)

    def _answer_axis(self, axis: int, role: AxisRole) -> None:
        image = self.controller.annotator.image
        if image is not None:
            answer_role(image, axis, role)
            self._offer_inputs()
            self.controller.shown.look()
            self._refresh()

    def _use_sources(self, chosen: list[request.Source]) -> None:
        self.controller.shown.use_sources(chosen)

    def _fill_pixel_size(self, image: Any) -> None:
        size, source = (None, "") if image is None else pixel_size(image)
        self.pixel_box.blockSignals(True)
        self.pixel_box.setValue(size or 0)
        self.pixel_box.blockSignals(False)
        self.pixel_box.setToolTip(
            f"Micrometres a pixel, {source}. Change it where it is wrong; only sizes that are shown and "
            "noted with results depend on it."
        )
        self._use_pixel_size(size or 0)

    def _use_pixel_size(self, value: float) -> None:
        self.controller.pixel_size_um = value or None
        self.size_row.set_pixel_size(value or None)

    def _show_unit(self) -> None:
        self.everything.set_pixel_size(self.size_row.shown_pixel_size)

    def _apply_size(self) -> None:
        shown = self.controller.shown
        shown.use_settings(replace(shown.settings, object_size=self.size_row.pixels))
        self._refresh()

    def _settle(self) -> None:
        """Let what was typed a moment ago count for what a button is about to start."""
        focused = self.focusWidget()
        if isinstance(focused, QAbstractSpinBox):
            focused.interpretText()  # where buttons take no focus by a click, as on macOS
        self.size_row.settle()

    def _show_taken(self) -> None:
        self.models.refresh()
        self.pixel_box.setValue(self.controller.pixel_size_um or 0)
        self.everything.show_choices()
        self.size_row.box.set_pixels(self.controller.shown.settings.object_size)

    # --- what is shown -------------------------------------------------------------------------------

    def _refresh_soon(self, event: Any = None) -> None:
        """Bring everything in step once what was done is painted: one new layer is told of many times.

        The status too: where nothing but the canvas has changed, Qt composes the window in half the time.
        """
        if self.is_open and not self._soon.isActive():  # else edits without end would put it off
            self._soon.start(_SOON)

    def _refresh(self) -> None:
        """Bring every section in step with the controller; what cannot be used says why."""
        if not self.is_open:
            return
        self._soon.stop()
        control = self.controller
        self.status.setText(control.status)
        notes = [*self._no_canvas, *control.notes]
        self.notes.setText("\n".join(f"⚠ {note}" for note in notes))
        self.notes.setVisible(bool(notes))
        self._offer_inputs()
        why_not = self._why_not()
        self.size_row.refresh(why_not)
        self.everything.refresh(why_not)
        self.click.refresh(why_not)
        self.stack.refresh(why_not)
        self.region.refresh(why_not)
        self.objects.refresh()
        self.teach.refresh(why_not)
        self.session.refresh()

    def _why_not(self) -> str:
        try:
            self.controller.shown.request()
        except NoPlane as reason:
            return str(reason)
        if not self.models.available:
            return "This model is not on your computer: press Download, or choose another one."
        return ""

    # --- end -----------------------------------------------------------------------------------------

    def event(self, event: QEvent | None) -> bool:
        """Notice that napari took the widget out of its dock, which is how it closes one."""
        if event is not None and event.type() == QEvent.Type.Show:
            self._canvas_context.remember()
        if event is not None and event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()
        return bool(super().event(event))

    def shut_down(self) -> None:
        """End all work; prompts are removed, results stay."""
        if self.is_open:
            self.everything.finish()
            self.stack.finish()
            self.region.finish()
            self.models.finish()
            self.objects.finish()
            self.teach.finish()
            self.batch.finish()
            self.controller.typical.stop()
            self.controller.close()  # first: open prompts are kept with the work
            self.controller.annotator.remove_prompts()
            self._canvas_context.close()
            self._look.close()
