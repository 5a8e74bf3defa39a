"""The parts of the dock widget that save work and go through a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.export import FORMATS, find_format
from napari_lightsam.plugin.exporting import USES
from napari_lightsam.plugin.messages import report_info
from napari_lightsam.plugin.widget.folded import FoldedSection
from napari_lightsam.plugin.widget.parts import enable, fill, show_if, wide

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.series.items import Item

_TITLE = "Annotate a folder"
_SAVE = (
    "Save image, objects, prompts and settings as a *.lightsam file. Dragged into napari it opens as it was."
)


class SessionRow(QWidget):
    """Saves the work, and offers work that was never saved.

    Parameters
    ----------
    controller
        Of the widget.

    Attributes
    ----------
    restore_button
        Offers that work; has no place in the row, as it must be seen without scrolling.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control = controller
        self.save_button = QPushButton("Save session ...")
        self.export_button = QPushButton("Export objects ...")
        self.restore_button = QPushButton("Go on with unsaved work")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self.python_button = QPushButton("Copy as Python")
        self.methods_button = QPushButton("Copy methods text")
        for pair in ((self.save_button, self.export_button), (self.python_button, self.methods_button)):
            row = QHBoxLayout()
            for button in pair:
                row.addWidget(button, 1)
            column.addLayout(row)
        self.python_button.clicked.connect(lambda: self._copy(controller.sessions.as_python(), "The script"))
        self.methods_button.clicked.connect(
            lambda: self._copy(controller.sessions.methods_text(), "The methods text")
        )
        self.save_button.clicked.connect(self._save)
        self.export_button.clicked.connect(self._export)
        self.restore_button.clicked.connect(lambda: controller.sessions.restore())
        controller.sessions.changed.connect(self.refresh)
        self.refresh()

    def _save(self) -> None:
        sessions, image = self._control.sessions, self._control.annotator.image
        start = sessions.path or Path(f"{'work' if image is None else image.name}.lightsam")
        path, _ = QFileDialog.getSaveFileName(
            self, "Save session", str(start), "LightSAM session (*.lightsam)"
        )
        if path:
            sessions.save(Path(path))

    def _export(self) -> None:
        exporting = self._control.exporting
        labels = exporting.layer
        if labels is None:
            return
        kinds = {f"{title} (*{FORMATS[name].suffixes[0]})": name for name, title in USES.items()}
        path, kind = QFileDialog.getSaveFileName(
            self, f"Export {labels.name}", str(exporting.suggested()), ";;".join(kinds)
        )
        if path:
            exporting.start(Path(path), kinds.get(kind) or _kind_of(path))  # some desktops tell none

    def _copy(self, text: str | None, what: str) -> None:
        clipboard = QGuiApplication.clipboard()
        if text is not None and clipboard is not None:
            clipboard.setText(text)
            report_info(f"{what} is on the clipboard.")

    def refresh(self) -> None:
        """Bring the buttons in step with the controller."""
        missing = "" if self._control.annotator.image is not None else "Open an image first."
        enable(self.save_button, missing, _SAVE)
        enable(self.python_button, missing, "Copy a script that makes the same labels, outside of napari.")
        enable(
            self.methods_button,
            missing,
            "Copy a paragraph for a paper, with versions, settings and references.",
        )
        exporting = self._control.exporting
        labels = exporting.layer
        enable(
            self.export_button,
            exporting.why_not(),
            "" if labels is None else f"Write the objects of {labels.name!r} for Fiji, QuPath or a table.",
        )
        unsaved = self._control.sessions.unsaved
        where = "" if unsaved is None else f"\n{unsaved}"
        self.restore_button.setToolTip(
            f"Objects were outlined in this image before and never saved: add them again.{where}"
        )
        show_if(self.restore_button, unsaved is not None)


class SeriesSection(FoldedSection):
    """Goes through the images of a folder; collapsed until asked for.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(_TITLE, "Annotate the images of a folder one after the other.")
        self._control = controller
        self._series = controller.series
        self._out: Path | None = None
        column = self.column
        column.addLayout(self._build_folder())
        self.bar = QProgressBar()
        self.bar.setFormat("%v of %m done")
        self.bar.setAccessibleName("Annotated images")
        column.addWidget(self.bar)
        column.addLayout(self._build_steps())
        self._series.changed.connect(self.refresh)
        self.refresh()

    def _build_folder(self) -> QVBoxLayout:
        self.folder_button = QPushButton("Open folder ...")
        self.folder_button.setToolTip(
            "Choose the folder of the images; the first that is not annotated opens."
        )
        self.out_button = QPushButton("Save into ...")
        self.out_button.setToolTip(
            "Choose where results go, before the folder is opened. Else they go into a folder beside it, "
            "with '_annotated' added to its name; nothing is written among the images."
        )
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.where.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        row = QHBoxLayout()
        row.addWidget(self.folder_button, 1)
        row.addWidget(self.out_button, 1)
        column = QVBoxLayout()
        column.addLayout(row)
        column.addWidget(self.where)
        self.folder_button.clicked.connect(self._open_folder)
        self.out_button.clicked.connect(self._choose_out)
        return column

    def _build_steps(self) -> QGridLayout:
        self.next_button = QPushButton("Save and next (N)")
        self.skip_button = QPushButton("Skip")
        self.reset_button = QPushButton("Start over")
        self.show_combo = wide(QComboBox())
        self.show_combo.setAccessibleName("Image of the series")
        self.show_combo.setToolTip("Open another image; those with a tick are annotated.")
        grid = QGridLayout()
        grid.addWidget(self.next_button, 0, 0, 1, 2)
        grid.addWidget(self.show_combo, 1, 0, 1, 2)
        grid.addWidget(self.skip_button, 2, 0)
        grid.addWidget(self.reset_button, 2, 1)
        self.next_button.clicked.connect(self._series.next)
        self.skip_button.clicked.connect(self._series.skip)
        self.reset_button.clicked.connect(lambda: self._series.reset())
        self.show_combo.activated.connect(self._show)
        return grid

    @property
    def is_at_work(self) -> bool:
        """A series is being annotated."""
        return bool(self._series.items)

    def _open_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of images")
        if folder:
            self._series.open(Path(folder), self._out)

    def _choose_out(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self._out = Path(folder)
            self.refresh()

    def _show(self) -> None:
        item: Item | None = self.show_combo.currentData()
        if item is not None:
            self._series.show(item)

    def refresh(self) -> None:
        """Bring the section in step with the series; what cannot be used says why."""
        series = self._series
        none = "" if series.items else "Open a folder of images first."
        out = series.out or self._out
        self.where.setText("" if out is None else f"Results: {out}")
        self.where.setVisible(out is not None)
        self.bar.setVisible(not none)
        self.bar.setMaximum(max(series.total, 1))
        self.bar.setValue(series.done)
        enable(self.next_button, none, "Save labels, prompts and measurements, and open the next image.")
        enable(self.skip_button, none, "Open the next image; what was done here is kept for later.")
        enable(
            self.reset_button, none, "Begin anew. Results are moved into a folder of their own, not deleted."
        )
        self.show_combo.setVisible(not none)
        items = [(f"{'✓' if item.is_done else '·'}  {item.source.name}", item) for item in series.items]
        fill(self.show_combo, items, series.current)


def _kind_of(path: str) -> str:
    """Return the format that a name stands for, else the one that is asked for most."""
    try:
        return find_format(path).name
    except ConfigError:
        return next(iter(USES))
