"""The part of the dock widget that segments everything: one button, one slider, and what is seldom needed."""

from __future__ import annotations

from dataclasses import Field, fields, replace
from typing import TYPE_CHECKING, Any, get_args

from napari.layers import Shapes
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.engine.config import EverythingConfig, Mode
from napari_lightsam.plugin.everything import proposals
from napari_lightsam.plugin.prompting import sources as prompt_sources
from napari_lightsam.plugin.scope import Scope, add_region, name_of_plane, stack_axis
from napari_lightsam.plugin.viewer.axes import AxisRole, NoPlane, level0, resting_plane, roles_of
from napari_lightsam.plugin.widget.folded import FoldedSection
from napari_lightsam.plugin.widget.lengths import LengthBox
from napari_lightsam.plugin.widget.parts import fill, heading, rest_focus, wide
from napari_lightsam.plugin.widget.progress import ProgressRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtGui import QShowEvent

    from napari_lightsam.plugin.controller import Controller

_DRAW = "draw"
_PAINTED = 500  # milliseconds, in which what has changed is on the screen
_START = "Segment everything"
_AGAIN = "Settings changed: segment again"
_STEPS = 100  # of the slider, to either side
_FIELDS: dict[str, Field[Any]] = {setting.name: setting for setting in fields(EverythingConfig)}
_SCORES = ("iou_threshold", "stability_threshold", "overlap")
_TITLES = {
    "iou_threshold": "Least quality (IoU)",
    "stability_threshold": "Least stability",
    "overlap": "Most overlap",
}


def tip(name: str) -> str:
    """Say what a setting of the engine does, in the words that stand at its field."""
    return f"{_FIELDS[name].metadata['help']}."


class EverythingSection(QWidget):
    """Everything at once, and choosing among what was found without a new run.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control = controller
        self._everything = controller.everything
        self._showing = False
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(self._build_heading())
        column.addWidget(self._build_start())
        column.addLayout(self._build_slider())
        column.addLayout(self._build_form())
        column.addWidget(self._build_advanced())
        self._connect()

    # --- layout --------------------------------------------------------------------------------------

    def _build_heading(self) -> QHBoxLayout:
        self.count = heading("")
        row = QHBoxLayout()
        row.addWidget(heading("All objects"))
        row.addStretch(1)
        row.addWidget(self.count)
        return row

    def _build_start(self) -> QWidget:
        """Build the button, and what takes its place during a run: nothing else of the dock moves then."""
        self.button = QPushButton(_START)
        self.button.setMinimumHeight(36)
        self.button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)  # of a narrow dock
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.row = ProgressRow(
            "LightSAM", self._everything.stop, tip="Stop now. What was found until then is kept."
        )
        self._start = _Pages()
        self._start.addWidget(self.button)
        self._start.addWidget(self.row)
        return self._start

    def _build_slider(self) -> QHBoxLayout:
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(-_STEPS, _STEPS)
        self.slider.setPageStep(_STEPS // 5)
        self.slider.setTickInterval(_STEPS)
        self.slider.setAccessibleName("Fewer or more objects")
        self.slider.setTickPosition(QSlider.TickPosition.TicksBelow)
        row = QHBoxLayout()
        row.addWidget(QLabel("fewer"))
        row.addWidget(self.slider, 1)
        row.addWidget(QLabel("more objects"))
        return row

    def _build_form(self) -> QFormLayout:
        form = _form()
        self.scope = wide(QComboBox())
        form.addRow("Where", self.scope)
        self.min_size = LengthBox("auto", tip("min_size") + " After a run the result follows at once.")
        self.max_size = LengthBox("any", tip("max_size") + " After a run the result follows at once.")
        self.min_size.setAccessibleName("Least size")
        self.max_size.setAccessibleName("Largest size")
        sizes = QHBoxLayout()
        sizes.addWidget(self.min_size, 1)
        sizes.addWidget(QLabel("to"))
        sizes.addWidget(self.max_size, 1)
        form.addRow("Sizes", sizes)
        self.border = QCheckBox("Keep objects at the border")
        self.border.setChecked(True)
        self.border.setToolTip(tip("keep_border") + " After a run the result follows at once.")
        form.addRow(self.border)
        return form

    def _build_advanced(self) -> FoldedSection:
        inner = QWidget()
        form = _form(inner)
        self.mode = wide(QComboBox())
        for mode in get_args(Mode):
            self.mode.addItem(mode, mode)
        self.mode.setToolTip(tip("mode"))
        form.addRow("Mode", self.mode)
        self.prompts = wide(QComboBox())
        self.prompts.setToolTip(
            "A layer that says where objects are: a point in each, a box or shape around each, or labels "
            "(of Cellpose or StarDist, say), whose objects are outlined anew and keep their ids."
        )
        form.addRow("Objects from", self.prompts)
        self.scores = {name: _score_box(_FIELDS[name]) for name in _SCORES}
        for name, box in self.scores.items():
            form.addRow(_TITLES[name], box)
        self.advanced = FoldedSection(
            "Advanced", "What is seldom needed: mode, objects of a layer, thresholds."
        )
        self.advanced.column.addWidget(inner)
        self.advanced_form = form
        return self.advanced

    def _later(self, act: Callable[[], None]) -> None:
        timer = QTimer(self)  # ends with the widget
        timer.setSingleShot(True)
        timer.timeout.connect(act)
        timer.timeout.connect(timer.deleteLater)
        timer.start(_PAINTED)

    def _connect(self) -> None:
        self._everything.later = self._later
        self.button.clicked.connect(lambda: self._control.segment_everything())
        self._everything.progress.connect(self._show_run)
        self._everything.changed.connect(self._show_count)
        self.slider.valueChanged.connect(self._choose_balance)
        for box in (self.min_size, self.max_size):
            box.changed.connect(self._choose)
        self.border.toggled.connect(self._choose)
        for score in self.scores.values():
            score.valueChanged.connect(self._choose)
        for combo in (self.scope, self.mode, self.prompts):
            combo.activated.connect(self._choose)

    # --- choices -------------------------------------------------------------------------------------

    def show_choices(self) -> None:
        """Bring the fields in step with choices that were taken up from saved work."""
        config = self._everything.choices.config
        self._showing = True
        try:
            self._show_balance()
            self.min_size.set_pixels(config.min_size)
            self.max_size.set_pixels(config.max_size)
            self.border.setChecked(config.keep_border)
            self.mode.setCurrentIndex(self.mode.findData(config.mode))
            for name, box in self.scores.items():
                value = getattr(config, name)
                box.setValue(box.minimum() if value is None else value)
        finally:
            self._showing = False

    def _choose_balance(self) -> None:
        choices = self._everything.choices
        config = replace(choices.config, balance=self._balance_here())
        self._everything.choose(replace(choices, config=config))

    def _balance_here(self) -> float:
        return self._everything.last.scale.balance((self.slider.value() + _STEPS) / (2 * _STEPS))

    def _choose(self, _: Any = None) -> None:
        if self._showing:
            return
        least, most = self.min_size.pixels, self.max_size.pixels
        if least is not None and most is not None and least > most:
            # the limit that was moved pushes the other one along, whose signal brings us here again
            if least != self._everything.choices.config.min_size:
                self.max_size.set_pixels(least)
            else:
                self.min_size.set_pixels(most)
            return
        values = {
            "min_size": least,
            "max_size": most,
            "keep_border": self.border.isChecked(),
            "mode": self.mode.currentData(),
            **{name: _score(box) for name, box in self.scores.items()},
        }
        where = self.scope.currentData()
        drawing = where == _DRAW
        if drawing:
            where = self._draw_region()
        drawn = where is not None and not isinstance(where, Scope)
        self._everything.choose(
            replace(
                self._everything.choices,
                scope=Scope.REGION if drawn else where or Scope.PLANE,
                region_from=where if drawn else None,
                prompts_from=self.prompts.currentData(),
                config=replace(self._everything.choices.config, **values),
            )
        )
        if drawing:
            self._offer_scopes()

    def _draw_region(self) -> Any:
        """Add a layer to draw the region on; returns its id, or None without an image."""
        annotator = self._control.annotator
        image = annotator.image
        try:
            return (
                None
                if image is None
                else add_region(self._control.viewer, image, annotator.plane()).unique_id
            )
        except NoPlane:
            return None

    def set_pixel_size(self, micrometres: float | None) -> None:
        """Show sizes in micrometres of this many a pixel; None: in pixels."""
        for box in (self.min_size, self.max_size):
            box.set_pixel_size(micrometres)

    # --- what is shown -------------------------------------------------------------------------------

    def refresh(self, why_not: str) -> None:
        """Bring everything in step with the layers; `why_not` says why no run can be started."""
        self.button.setEnabled(not why_not)
        self.button.setToolTip(
            why_not or "Find all objects. They become a new Labels layer; what is there stays."
        )
        self._offer_scopes()
        self._offer_prompts()
        self._show_count()

    def _offer_scopes(self) -> None:
        image, axis, here = self._control.annotator.image, None, "this plane"
        tips = (
            "How much is segmented. Of a large image, what the window shows is a quick trial. All planes are "
            "segmented slice by slice; this is no 3-D model."
        )
        if image is not None:
            plane = resting_plane(image, self._control.viewer)  # a look at it in 3-D changes no choice
            axis, here = stack_axis(image, plane), name_of_plane(image, plane)
        items: list[tuple[str, Any]] = [(here, Scope.PLANE), ("what the window shows", Scope.VIEW)]
        if axis is not None and image is not None:
            depth = roles_of(image)[axis] is AxisRole.DEPTH
            kind = "planes, linked" if depth else "time points"
            items.append((f"all {level0(image).shape[axis]} {kind}", Scope.STACK))
        if image is not None:
            shapes = [
                layer
                for layer in prompt_sources.sources(self._control.viewer, image)
                if isinstance(layer, Shapes)
            ]
            items += [(f"inside {layer.name!r}", layer.unique_id) for layer in shapes]
            items.append(("a region that I draw ...", _DRAW))
        choices = self._everything.choices
        chosen = choices.region_from if choices.scope is Scope.REGION else choices.scope
        fill(self.scope, items, chosen)
        self.scope.setToolTip(tips)
        if self.scope.currentData() != chosen:
            self._choose()

    def _offer_prompts(self) -> None:
        image, viewer = self._control.annotator.image, self._control.viewer
        items: list[tuple[str, Any]] = [("no layer", None)]
        if image is not None:
            found = proposals.sources(viewer, image, resting_plane(image, viewer))
            items += [(layer.name, layer.unique_id) for layer in found]
        chosen = self._everything.choices.prompts_from
        fill(self.prompts, items, chosen)
        if self.prompts.currentData() != chosen:
            self._choose()

    def _show_balance(self) -> None:
        """Put the slider where the balance stands; where it is there, it stays, as it may be dragged."""
        scale, balance = self._everything.last.scale, self._everything.choices.config.balance
        if self._balance_here() != balance:
            self.slider.blockSignals(True)
            self.slider.setValue(round(2 * _STEPS * scale.position(balance)) - _STEPS)
            self.slider.blockSignals(False)
        ends = "" if scale.counts is None else " Of this run: from {} to {} objects.".format(*scale.counts)
        self.slider.setToolTip(
            f"Left: only sure objects. Right: doubtful ones too.{ends} "
            "After a run the result follows at once."
        )

    def _show_run(self, progress: Any) -> None:
        if progress is not None:
            rest_focus(self.button)
        self.row.show_progress(progress)
        self._start.setCurrentWidget(self.button if progress is None else self.row)
        self._show_count()

    def _show_count(self) -> None:
        everything, so_far = self._everything, self._everything.so_far
        count = everything.last.count if so_far is None else so_far
        text = "" if count is None else "1 object" if count == 1 else f"{count} objects"
        self.count.setText(text if so_far is None else f"{text} so far")
        stale = text and not everything.is_running and everything.needs_a_run(self._control.shown.settings)
        self.button.setText(_AGAIN if stale else _START)
        self._show_balance()

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()


class _Pages(QStackedWidget):
    """Parts of which one is shown in the place of another, none higher than it was when all were hidden."""

    def showEvent(self, event: QShowEvent | None) -> None:
        """Show each for no time: what was never shown has no style yet, and grows when it gets one."""
        here = self.currentIndex()
        for page in (*range(self.count()), here):
            self.setCurrentIndex(page)
        super().showEvent(event)


def _form(parent: QWidget | None = None) -> QFormLayout:
    form = QFormLayout(parent)
    form.setContentsMargins(0, 0, 0, 0)
    form.setVerticalSpacing(4)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    return form


def _score_box(setting: Field[Any]) -> QDoubleSpinBox:
    """Make the field of a setting from 0 to 1; below 0 it is left to the model."""
    box = QDoubleSpinBox()
    low, high = setting.metadata["range"]
    box.setSingleStep(0.05)
    box.setDecimals(2)
    if setting.default is None:
        box.setRange(low - box.singleStep(), high)
        box.setSpecialValueText("auto")
        box.setValue(box.minimum())
    else:
        box.setRange(low, high)
        box.setValue(float(setting.default))  # type: ignore[arg-type]  # it has one
    box.setKeyboardTracking(False)
    box.setToolTip(f"{setting.metadata['help']}. After a run the result follows at once.")
    return box


def _score(box: QDoubleSpinBox) -> float | None:
    return None if box.specialValueText() and box.value() == box.minimum() else box.value()
