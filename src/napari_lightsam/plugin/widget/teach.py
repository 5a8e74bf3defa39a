"""The part of the dock widget that teaches a model with the user's own labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QRectF, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QImage, QPainter, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin.objects.targets import Follower
from napari_lightsam.plugin.viewer.axes import NoPlane
from napari_lightsam.plugin.widget.folded import FoldedSection
from napari_lightsam.plugin.widget.parts import enable, fill, show_if, wide
from napari_lightsam.plugin.widget.progress import ProgressRow, in_words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qtpy.QtGui import QPaintEvent, QResizeEvent

    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.teaching import Taught

_HINT = (
    "In one part of the image, correct every object in a Labels layer: at least a dozen, better 50. The "
    "model learns from most of them and is tested on the others; it is saved only if it got better."
)
_TITLE = "Teach the model your images"


class TeachSection(FoldedSection):
    """Teaches the chosen model with a Labels layer, and shows what was gained; collapsed until asked for.

    Parameters
    ----------
    controller
        Of the widget.

    Attributes
    ----------
    used
        Signal: the new model was chosen.
    """

    used = Signal()

    def __init__(self, controller: Controller) -> None:
        super().__init__(_TITLE, "Let the model learn from objects that you corrected, on this computer.")
        self._control = controller
        self._teaching = controller.teaching
        self._why_no_image = ""
        self._follower = Follower()
        self._shown: Taught | None = None
        column = self.column
        hint = QLabel(_HINT)
        hint.setWordWrap(True)
        column.addWidget(hint)
        column.addLayout(self._build_form())
        self.button = QPushButton("Teach")
        self.row = ProgressRow("LightSAM lesson", self._teaching.cancel, tip="Stop now. Nothing is kept.")
        self.question = QLabel()
        self.question.setWordWrap(True)
        self.question.setVisible(False)
        column.addWidget(self.question)
        column.addWidget(self.button)
        column.addWidget(self.row)
        column.addWidget(self._build_result())
        self._connect()
        self._show_time()

    # --- layout --------------------------------------------------------------------------------------

    def _build_form(self) -> QFormLayout:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setVerticalSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.labels = wide(QComboBox())
        self.labels.setToolTip(
            "The Labels layer that you corrected: at first the one that objects are saved into. Only the "
            "plane on display counts."
        )
        form.addRow("Learn from", self.labels)
        self.regions = wide(QComboBox())
        self.regions.setToolTip(
            "Where every object has its label. 'around the labels' takes the rectangle around all of them; "
            "or draw rectangles on a Shapes layer and choose it here. What lies outside does not count."
        )
        form.addRow("Where", self.regions)
        self.name = QLineEdit(self._teaching.lesson.name)
        self.name.setToolTip("What the new model is called: letters, digits, - and _.")
        form.addRow("Name", self.name)
        self.replace = QCheckBox("Replace it")
        self.replace.setToolTip("You have a model of this name. Tick to replace it by the new one.")
        form.addRow("", self.replace)
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.5, 600)
        self.minutes.setDecimals(1)
        self.minutes.setSuffix(" min")
        self.minutes.setValue(self._teaching.lesson.minutes)
        self.minutes.setToolTip("How long it learns. Five minutes are a good start; you can go on working.")
        form.addRow("Time", self.minutes)
        self.in_all = QLabel()
        self.in_all.setWordWrap(True)
        form.addRow(self.in_all)
        self._form = form
        return form

    def _build_result(self) -> QWidget:
        self.result = QWidget()
        column = QVBoxLayout(self.result)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(4)
        self.gained = QLabel()
        self.gained.setWordWrap(True)
        self.gained.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.picture = Picture()
        self.picture.setToolTip("Everything that was found in the held-out part: left before, right after.")
        self.use_button = QPushButton("Use it")
        self.show_button = QPushButton("Show on image")
        self.show_button.setToolTip("Add both as Labels layers, to be looked at over the image.")
        buttons = QHBoxLayout()
        buttons.addWidget(self.use_button, 1)
        buttons.addWidget(self.show_button, 1)
        for part in (self.gained, self.picture):
            column.addWidget(part)
        column.addLayout(buttons)
        self.result.setVisible(False)
        return self.result

    def _connect(self) -> None:
        for combo in (self.labels, self.regions):
            combo.activated.connect(self._choose)
        self.labels.activated.connect(lambda _: self.question.setVisible(False))
        self.name.textChanged.connect(self._choose)
        self.replace.toggled.connect(self._choose)
        self.minutes.valueChanged.connect(self._choose)
        self.button.clicked.connect(lambda: self._control.teach())
        self.use_button.clicked.connect(self._use)
        self.show_button.clicked.connect(lambda: self._teaching.show_on_image())
        self._teaching.progress.connect(self._show_progress)
        for told in (self._teaching.asked, self._teaching.ended):
            told.connect(self._tell)

    @property
    def is_at_work(self) -> bool:
        """A lesson is under way."""
        return self._teaching.is_running

    # --- choices -------------------------------------------------------------------------------------

    def _choose(self, _: Any = None) -> None:
        self._teaching.lesson = replace(
            self._teaching.lesson,
            labels=self.labels.currentData(),
            regions=self.regions.currentData(),
            name=self.name.text().strip(),
            minutes=self.minutes.value(),
            replace_model=self.replace.isChecked(),
        )
        self._show_whether()

    def _use(self) -> None:
        if self._teaching.last is not None:
            model = self._teaching.last.result.name
            self._control.shown.use_settings(replace(self._control.shown.settings, model=model))
            self._show_result()
            self.used.emit()

    # --- what is shown -------------------------------------------------------------------------------

    def refresh(self, why_not: str) -> None:
        """Bring everything in step with the layers; `why_not` says why the image cannot be used."""
        self._offer_layers()
        self._why_no_image = why_not
        self._choose()
        self._show_result()

    def _offer_layers(self) -> None:
        annotator = self._control.annotator
        image = annotator.image
        try:
            plane = annotator.plane()
        except NoPlane:
            image = None
        labels = [] if image is None else list(self._teaching.corrected_layers(image, plane))
        shapes = [] if image is None else list(self._teaching.region_layers(image))
        items: list[tuple[str, Any]] = [(layer.name, layer.unique_id) for layer in reversed(labels)]
        target, chosen = self._control.results.target, self._teaching.lesson.labels
        if self._follower.should_go_to(target) and any(target == layer.unique_id for layer in labels):
            chosen = target
        fill(self.labels, items or [("no Labels layer yet", None)], chosen)
        items = [("around the labels", None), *((layer.name, layer.unique_id) for layer in shapes)]
        fill(self.regions, items, self._teaching.lesson.regions)

    def _show_whether(self) -> None:
        taken = self._teaching.name_is_own
        self._form.setRowVisible(self.replace, taken)
        if not taken and self.replace.isChecked():
            self.replace.setChecked(False)
        why_not = self._why_no_image or self._teaching.why_not(self._control.shown.settings.model)
        enable(self.button, why_not, "Start to learn, in the background. Nothing of yours is changed.")

    def _show_result(self) -> None:
        taught = self._teaching.last
        if taught is None:
            return
        result = taught.result
        in_use = "This model is in use." if self._control.shown.settings.model == result.name else ""
        enable(self.use_button, in_use, f"Choose {result.name} as the model from now on.")
        if taught is self._shown:
            return
        self._shown = taught
        learned, tested = result.objects
        self.gained.setText(
            f"<b>{result.name}</b> learned from {learned} objects. On {tested} others: {result.in_words()}."
        )
        self.picture.show_array(result.picture.draw())
        self.result.setVisible(True)

    def _tell(self, what: str) -> None:
        self.question.setText(f"⚠ {what}")
        self.question.setVisible(True)
        self.bring_into_view(self.button, self.question)

    def _show_time(self) -> None:
        """Say before the start what comes on top of the time to learn."""
        took = self._teaching.took
        text = "It learns for so long; looking at the image and two tests on the held-out part come on top."
        last = "" if took is None else f" The last lesson took {in_words(took)} in all."
        self.in_all.setText(text + last)

    def _show_progress(self, progress: Any) -> None:
        self.row.show_progress(progress)
        show_if(self.button, progress is None)
        if progress is not None:
            self.question.setVisible(False)
        self._show_time()
        if progress is None:
            self.replace.setChecked(self._teaching.lesson.replace_model)  # to be ticked anew for each lesson
            self._show_result()
            self._show_whether()

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()


class Picture(QWidget):
    """A picture that is as wide as the dock, whatever its own size."""

    def __init__(self) -> None:
        super().__init__()
        self._pixmap = QPixmap()
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def show_array(self, picture: NDArray[Any]) -> None:
        """Show a (H, W, 3) uint8 picture."""
        height, width = picture.shape[:2]
        data = picture.tobytes()  # QImage refers to it until it is copied into the pixmap
        self._pixmap = QPixmap.fromImage(QImage(data, width, height, 3 * width, QImage.Format.Format_RGB888))
        self._fit()

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(200, self.height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep the proportions."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if not self._pixmap.isNull():
            wanted = round(self._pixmap.height() * self.width() / self._pixmap.width())
            self.setFixedHeight(max(1, min(wanted, 400)))
            self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw the picture, smoothly reduced."""
        if self._pixmap.isNull():
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        size = self._pixmap.size().scaled(self.size(), Qt.AspectRatioMode.KeepAspectRatio)
        left = (self.width() - size.width()) / 2
        painter.drawPixmap(
            QRectF(left, 0, size.width(), size.height()), self._pixmap, QRectF(self._pixmap.rect())
        )
        painter.end()
