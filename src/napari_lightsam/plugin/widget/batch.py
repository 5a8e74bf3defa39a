"""The part of the dock widget that segments a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_lightsam.plugin.widget.folded import FoldedSection
from napari_lightsam.plugin.widget.parts import enable, fill, show_if, wide
from napari_lightsam.plugin.widget.progress import ProgressRow

if TYPE_CHECKING:
    from napari_lightsam.plugin.controller import Controller

_REPORT = "Look at the results: outlines, sizes, and what failed, in the browser."
_TITLE = "Segment a folder"


class BatchSection(FoldedSection):
    """Segments all images of a folder with the settings above; collapsed until asked for.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(_TITLE, "Segment a folder of images with the settings above.")
        self._batch = controller.batch
        column = self.column
        column.addLayout(self._build_choices())
        self.button = QPushButton("Segment the folder")
        self.row = ProgressRow(
            "LightSAM batch", self._batch.cancel, tip="Stop now. Finished results are kept."
        )
        column.addWidget(self.button)
        column.addWidget(self.row)
        column.addWidget(self._build_result())
        self._connect()
        self._show()

    def _build_choices(self) -> QGridLayout:
        self.folder_button = QPushButton("Folder ...")
        self.folder_button.setToolTip(
            "Choose the folder of the images; those in its subfolders are taken too."
        )
        self.list_button = QPushButton("List ...")
        self.list_button.setToolTip(
            "Choose a list of images instead: a CSV file with a column 'image'. Further columns, such as "
            "condition or well, are copied into the tables."
        )
        self.out_button = QPushButton("Save into ...")
        self.out_button.setToolTip(
            "Choose where results go; else into a folder beside that of the images (or the list), with "
            "'_segmented' added to its name. Images are never written."
        )
        self.recipe_button = QPushButton("Save recipe ...")
        self.recipe_button.setToolTip(
            "Write model, settings and the plane on display as a file that `lightsam segment --recipe` takes."
        )
        self.load_button = QPushButton("Load recipe ...")
        self.load_button.setToolTip(
            "Choose model and settings as a file says that was saved here, or written for `lightsam segment`."
        )
        self.overlay = QCheckBox("Pictures of the outlines")
        self.overlay.setToolTip("Also write a picture of every image with its objects outlined.")
        self.where = QLabel()
        self.where.setWordWrap(True)
        self.where.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        grid = QGridLayout()
        grid.addWidget(self.folder_button, 0, 0)
        grid.addWidget(self.list_button, 0, 1)
        grid.addWidget(self.out_button, 1, 0, 1, 2)
        grid.addWidget(self.where, 2, 0, 1, 2)
        grid.addWidget(self.load_button, 3, 0)
        grid.addWidget(self.recipe_button, 3, 1)
        grid.addWidget(self.overlay, 4, 0, 1, 2)
        return grid

    def _build_result(self) -> QWidget:
        self.result = QWidget()
        column = QVBoxLayout(self.result)
        column.setContentsMargins(0, 0, 0, 0)
        self.report_button = QPushButton("Open report")
        self.report_button.setToolTip(_REPORT)
        self.show_combo = wide(QComboBox())
        self.show_combo.setAccessibleName("Image of the results")
        self.show_combo.setToolTip(
            "Look at an image and its objects; other layers are hidden. ⚠ marks what to look at first."
        )
        column.addWidget(self.report_button)
        column.addWidget(self.show_combo)
        self.result.setVisible(False)
        return self.result

    def _connect(self) -> None:
        batch = self._batch
        self.folder_button.clicked.connect(self._choose_folder)
        self.list_button.clicked.connect(self._choose_list)
        self.out_button.clicked.connect(self._choose_out)
        self.load_button.clicked.connect(self._load_recipe)
        self.recipe_button.clicked.connect(self._save_recipe)
        self.overlay.toggled.connect(lambda wanted: batch.choose(overlay=wanted))
        self.button.clicked.connect(lambda: batch.start())
        self.report_button.clicked.connect(self._open_report)
        self.show_combo.activated.connect(self._show_image)
        batch.progress.connect(self._show_progress)
        batch.changed.connect(self._show)

    @property
    def is_at_work(self) -> bool:
        """A folder is being segmented."""
        return self._batch.is_running

    # --- choices -------------------------------------------------------------------------------------

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of images")
        if folder:
            self._batch.choose(source=Path(folder))

    def _choose_list(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "List of images", "", "Lists of images (*.csv *.tsv)")
        if path:
            self._batch.choose(source=Path(path))

    def _choose_out(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the results")
        if folder:
            self._batch.choose(out=Path(folder))

    def _save_recipe(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save recipe", "recipe.yaml", "Recipe (*.yaml *.yml)")
        if path:
            self._batch.save_recipe(Path(path))

    def _load_recipe(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load recipe", "", "Recipe (*.yaml *.yml)")
        if path:
            self._batch.load_recipe(Path(path))

    def _open_report(self) -> None:
        report = self._batch.report
        if report is not None and report.tables:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(report.tables[-1])))

    def _show_image(self) -> None:
        outcome = self.show_combo.currentData()
        if outcome is not None:
            self._batch.show(outcome)

    # --- what is shown -------------------------------------------------------------------------------

    def _show(self) -> None:
        """Bring the section in step with the batch."""
        batch, report = self._batch, self._batch.report
        folder = batch.folder
        self.overlay.setChecked(folder.overlay)
        self.where.setText("" if folder.source is None else f"{folder.source}\nResults: {folder.results}")
        self.where.setVisible(folder.source is not None)
        why_not = "" if folder.source is not None else "Choose the folder of images first."
        enable(self.button, why_not, "Segment all images, in the background. What is finished is skipped.")
        show_if(self.result, report is not None)
        if report is None:
            return
        enable(self.report_button, "" if report.tables else "There is none.", _REPORT)
        done = [outcome for outcome in report.outcomes if outcome.status != "failed"]
        done.sort(key=lambda outcome: not outcome.flags)
        items: list[tuple[str, Any]] = [("show an image ...", None)]
        items += [(f"{'⚠ ' if o.flags else ''}{o.image}: {o.n_objects}", o) for o in done]
        fill(self.show_combo, items, None)

    def _show_progress(self, progress: Any) -> None:
        self.row.show_progress(progress)
        show_if(self.button, progress is None)

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()
