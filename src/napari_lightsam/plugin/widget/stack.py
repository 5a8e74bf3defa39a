"""Parts of the dock widget that only some images need: stacks, and images too large to work on as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.widget.parts import enable, fill, heading, show_if, wide
from napari_lightsam.plugin.widget.progress import ProgressRow

if TYPE_CHECKING:
    from napari_lightsam.engine.propagate import Direction
    from napari_lightsam.plugin.controller import Controller

_BUTTONS: tuple[tuple[Direction, str, str], ...] = (
    ("backward", "◀ Back", "to lower plane numbers"),
    ("both", "◀ Both ▶", "to both sides"),
    ("forward", "Forward ▶", "to higher plane numbers"),
)


class StackSection(QWidget):
    """Follows the selected object through the planes of a stack.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control, self._propagation = controller, controller.propagation
        self._why_not = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(heading("Through the stack"))
        which = QLabel("Follow the selected object from this plane:")
        which.setWordWrap(True)
        column.addWidget(which)
        self.buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout()
        for direction, text, where in _BUTTONS:
            button = QPushButton(text)
            button.setAccessibleName(f"Follow the object {where}")
            button.clicked.connect(lambda _=False, direction=direction: self._control.propagate(direction))
            row.addWidget(button)
            self.buttons[direction] = button
        column.addLayout(row)
        self.row = ProgressRow(
            "Following", self._propagation.stop, tip="Stop now. The planes until then are saved."
        )
        column.addWidget(self.row)
        self._propagation.progress.connect(self._show_run)
        self._propagation.changed.connect(self._show)
        self.setVisible(False)

    def refresh(self, why_not: str) -> None:
        """Bring everything in step with the layers; `why_not` says why no run can be started."""
        self._why_not = why_not
        show_if(self, self._propagation.has_depth())
        self._show()

    def _show(self) -> None:
        reason = "An object is being followed." if self._propagation.is_running else self._why_not
        for direction, _, where in _BUTTONS:
            tip = (
                f"Follow the selected object {where} until it ends. One undo step; planes that you edited "
                "stay as they are."
            )
            enable(self.buttons[direction], reason, tip)

    def _show_run(self, progress: Any) -> None:
        self.row.show_progress(progress)

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()


class RegionSection(QWidget):
    """Chooses which part of a large image is worked on, and segments all of it into a file.

    Parameters
    ----------
    controller
        Of the widget.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._control, self._region = controller, controller.region
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.where = QLabel()
        self.where.setWordWrap(True)
        column.addWidget(self.where)
        self.visible = QPushButton("Work here")
        self.visible.setToolTip("Work on what the window shows: 2048 to 4096 pixels around its middle.")
        self.visible.clicked.connect(lambda: self._region.use_visible())
        self.drawn = wide(QComboBox())
        self.drawn.setAccessibleName("Work in an area")
        self.drawn.setToolTip("Work in an area that you drew on a Shapes layer, or in one that has labels.")
        self.drawn.activated.connect(self._use_layer)
        self.whole = QPushButton("Segment whole image ...")
        self.whole.clicked.connect(self._segment_whole)
        row = QHBoxLayout()
        for part in (self.visible, self.drawn):
            row.addWidget(part, 1)
        column.addLayout(row)
        column.addWidget(self.whole)
        self.row = ProgressRow(
            "Whole image", self._region.stop, tip="Stop now. What is done is kept, and can be gone on with."
        )
        column.addWidget(self.row)
        self._region.progress.connect(self.row.show_progress)
        self.setVisible(False)

    def refresh(self, why_not: str) -> None:
        """Bring everything in step with the layers; `why_not` says why no run can be started."""
        box = self._region.box
        needed = self._region.is_needed()
        show_if(self, needed or self._region.is_running)
        if not needed or box is None:
            return
        y0, x0, y1, x1 = box
        self.where.setText(f"Work region (green outline): rows {y0} to {y1}, columns {x0} to {x1}.")
        unfinished = self._region.unfinished
        self.whole.setText(
            "Segment whole image ..." if unfinished is None else f"Go on with {unfinished.name}"
        )
        enable(
            self.whole,
            why_not or ("The whole image is being segmented." if self._region.is_running else ""),
            "Segment all of the image into an OME-Zarr folder, in the background; the labels are then shown."
            if unfinished is None
            else f"Segment what is left of the image into {unfinished}.",
        )
        items: list[tuple[str, Any]] = [("Work in ...", None)]
        items += [(layer.name, layer.unique_id) for layer in self._places()]
        fill(self.drawn, items, None)

    def _places(self) -> list[Any]:
        """Return the layers that tell a region: drawn areas, and our labels of other regions."""
        from napari.layers import Shapes

        return [
            layer
            for layer in self._control.viewer.layers
            if "region" in layers.ours(layer) or (isinstance(layer, Shapes) and not layers.is_tool(layer))
        ]

    def _use_layer(self) -> None:
        layer = layers.by_id(self._control.viewer, self.drawn.currentData())
        self.drawn.setCurrentIndex(0)
        if layer is None:
            return
        if "region" in layers.ours(layer):
            if self._region.use_labels(layer):
                self._control.results.target = layer.unique_id
        else:
            self._region.use_drawn(layer)

    def _segment_whole(self) -> None:
        if self._region.unfinished is not None:
            self._control.segment_whole(self._region.unfinished)
            return
        path, _ = QFileDialog.getSaveFileName(
            self, "Labels of the whole image", str(self._region.suggested()), "zarr folder (*.zarr)"
        )
        if path:
            target = Path(path) if path.casefold().endswith(".zarr") else Path(path + ".zarr")
            self._control.segment_whole(target)

    def finish(self) -> None:
        """Leave the activity dock."""
        self.row.finish()
