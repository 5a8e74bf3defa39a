"""The model chooser: what each model was trained on, and an explicit download."""

from __future__ import annotations

import html
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QFileDialog, QPushButton, QVBoxLayout, QWidget

from napari_lightsam.engine.download import list_models
from napari_lightsam.engine.registry import ALIASES, find_model, known_models
from napari_lightsam.plugin.widget.parts import show_if, wide
from napari_lightsam.plugin.widget.progress import ProgressRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_lightsam.plugin.controller import Controller

_FILE = "\0file"  # no path and no model has this name


class ModelChooser(QWidget):
    """Chooses the model; one that is not on this computer is downloaded by a click, never by itself."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self.available = True
        self._offered: set[str] = set()
        self.combo = wide(QComboBox())
        self.combo.setAccessibleName("Model")
        self.download_button = QPushButton("Download")
        self.download_button.clicked.connect(self._download)
        self.row = ProgressRow(
            "LightSAM download", controller.downloads.cancel, tip="Stop now. Nothing is kept."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for part in (self.combo, self.download_button, self.row):
            layout.addWidget(part)
        self._fill()
        self.combo.activated.connect(self._choose)
        controller.downloads.progress.connect(self._show_download)
        controller.teaching.taught.connect(self._show_taught)

    def _fill(self) -> None:
        self.combo.addItem("from a file ...", _FILE)
        self.combo.setItemData(
            self.combo.count() - 1,
            "A checkpoint of your own: a .pt, .pth or .safetensors file of this family of models.",
            Qt.ItemDataRole.ToolTipRole,
        )
        self.refresh()

    def refresh(self) -> None:
        """Show which models there are, and which are on this computer."""
        name = self._controller.shown.settings.model
        self._offer_file(name)
        status = {model.name: model for model in list_models()}
        self._offer(status)
        for i in range(self.combo.count()):
            model = status.get(self.combo.itemData(i)) if isinstance(self.combo.itemData(i), str) else None
            if model is not None:
                there = "" if model.available else f"  (download {_megabytes(model.size)})"
                self.combo.setItemText(i, model.title + there)
                self.combo.setItemData(i, describe(model.name), Qt.ItemDataRole.ToolTipRole)
        held = [self.combo.itemData(i) for i in range(self.combo.count())]
        self.combo.setCurrentIndex(held.index(name) if name in held else 0)
        self.combo.setToolTip(describe(name) if name in status else name)
        chosen = status.get(name)
        self.available = chosen is None or chosen.available
        show_if(self.download_button, not self.available and not self.row.isVisibleTo(self))
        if chosen is not None and not chosen.available:
            self.download_button.setText(f"Download ({_megabytes(chosen.size)})")
            self.download_button.setToolTip(_terms(chosen))

    def _offer_file(self, name: str) -> None:
        """Add a checkpoint that is in use."""
        if name not in {*known_models(), *ALIASES} and self.combo.findData(name) < 0:
            self.combo.insertItem(self.combo.count() - 1, Path(name).name, name)

    def _offer(self, names: Iterable[str]) -> None:
        """Add models that are new, such as one that was taught a moment ago; drop those that are gone."""
        entries = known_models()
        for i in reversed(range(self.combo.count())):
            held = self.combo.itemData(i)
            if held in self._offered and held not in entries:
                self.combo.removeItem(i)
        for position, name in enumerate(names):
            if self.combo.findData(name) < 0:
                self.combo.insertItem(position, entries[name].spec.title, name)
        self._offered = set(names)

    def _choose(self) -> None:
        choice = self.combo.currentData()
        if choice == _FILE:
            path, _ = QFileDialog.getOpenFileName(
                self, "Choose a checkpoint", "", "Checkpoints (*.pt *.pth *.safetensors)"
            )
            choice = path or self._controller.shown.settings.model
        self._controller.shown.use_settings(replace(self._controller.shown.settings, model=choice))
        self.refresh()

    def _download(self) -> None:
        # Button and tooltip said what comes: where no hash is published, the click is the consent
        self._controller.downloads.start(self._controller.shown.settings.model, consent=True)

    def _show_download(self, progress: Any) -> None:
        self.row.show_progress(progress)
        self.refresh()

    def _show_taught(self, _name: str) -> None:
        self.refresh()

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()


def describe(name: str) -> str:
    """Say in a tooltip what a model was trained on, and what not."""
    spec = find_model(name).spec
    sentences = (
        f"Trained on {spec.trained_on}.",
        f"Not trained on {spec.not_trained_on}.",
        f"Licence: {spec.licence}.",
        f"Cite: {spec.citation}.",
    )
    # the words of an own model come from its file, which somebody else may have made
    return "<br>".join([f"<b>{html.escape(spec.title)}</b>", *map(html.escape, sentences)])


def _terms(model: Any) -> str:
    text = f"Fetch it once from {model.source}; licence {model.licence}."
    if model.needs_consent:
        text += (
            " Its authors publish no hash to verify the file by: clicking accepts what comes, and pins it."
        )
    return text


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size else "size unknown"
