"""The OpenGL of napari's canvas: whether there is any, and removing layers without crashing some drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtGui import QOpenGLContext
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QMainWindow

if TYPE_CHECKING:
    import napari
    from qtpy.QtWidgets import QWidget

NO_OPENGL = (
    "There is no OpenGL here, as on some remote desktops: napari cannot show images. The command line works "
    "without it: `lightsam segment`."
)

_LEAST = 2  # of the version of OpenGL; that of Windows alone is 1.1


def has_opengl() -> bool:
    """Tell whether napari's canvas can be drawn here, by a context that is thrown away."""
    context = QOpenGLContext()
    return bool(context.create()) and context.format().majorVersion() >= _LEAST


class CanvasContext:
    """Makes the OpenGL context of napari's canvas current whenever a layer is removed.

    napari 0.9 deletes the shaders of a removed layer at once, in whichever context is current, which often
    is the one by which Qt puts the whole window together. Mesa's drivers that draw on the CPU, as used on
    remote desktops and virtual machines, then end the process by a segmentation fault at the next repaint.
    Make one before other callbacks for removed layers are connected: napari calls the newest first.

    Parameters
    ----------
    viewer
        A `napari.Viewer` or a `ViewerModel`.
    widget
        Widget in a dock of the viewer's window.
    """

    def __init__(self, viewer: napari.viewer.Viewer, widget: QWidget) -> None:
        self._widget = widget
        self._canvas: QOpenGLWidget | None = None
        # When several layers are removed at once, napari deletes their shaders after the last one; what
        # others do about a removal, such as ending a run, may repaint before that.
        self._emitters = (viewer.layers.events.removing, viewer.layers.events.removed)
        for emitter in self._emitters:
            emitter.connect(self._make_current)

    def remember(self) -> None:
        """Look for the canvas while the widget is in a window; it is needed once more after that."""
        ancestor = self._widget.parentWidget()
        while ancestor is not None and not isinstance(ancestor, QMainWindow):
            ancestor = ancestor.parentWidget()
        centre = None if ancestor is None else ancestor.centralWidget()
        if centre is not None:
            self._canvas = centre.findChild(QOpenGLWidget)

    def close(self) -> None:
        """Let go of the viewer."""
        for emitter in self._emitters:
            emitter.disconnect(self._make_current)
        self._canvas = None

    def _make_current(self, event: Any = None) -> None:
        if self._canvas is None:
            return
        try:
            if self._canvas.isValid():
                self._canvas.makeCurrent()
        except RuntimeError:  # Qt destroyed the window meanwhile
            self._canvas = None
