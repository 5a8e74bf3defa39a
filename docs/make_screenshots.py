"""Make the pictures of the documentation from the real widget in a real window.

Run it where there is a display: `python docs/make_screenshots.py`, on a machine without one
`xvfb-run -a -s "-screen 0 1600x1000x24" python docs/make_screenshots.py`. It writes `docs/images/*.png`.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = Path(__file__).with_name("images")
SIZE = (1366, 768)  # a small laptop, where everything must still be seen


def wait(until: Callable[[], Any], seconds: float = 300) -> None:
    """Let the window live until a condition holds."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError("the picture did not come about in time")
        QApplication.instance().processEvents()
        time.sleep(0.01)


def settle(seconds: float = 0.7) -> None:
    """Let the window finish painting."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def save(viewer: napari.Viewer, name: str) -> None:
    """Write a picture of the whole window."""
    settle()
    viewer.window.screenshot(str(IMAGES / f"{name}.png"), canvas_only=False, flash=False)


def main() -> None:
    """Click a nucleus, correct it, save it, then segment everything."""
    IMAGES.mkdir(exist_ok=True)
    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-lightsam", "nuclei_fluorescence")
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    widget.size_box.setValue(26)
    wait(lambda: control.settings.object_size == 26 and control.ready)
    settle()
    viewer.scene.camera.center, viewer.scene.camera.zoom = (275, 370), viewer.scene.camera.zoom * 2.5

    widget.object_button.click()
    points = control.annotator.points
    for place in ((275, 390), (302, 281), (264, 437)):
        points.add(place)
        wait(lambda: control.answer.masks())
        widget.commit_button.click()
    points.add((283, 413))
    wait(lambda: control.answer.masks())
    control.annotator.always_negative = True
    points.add((303, 425))
    control.annotator.always_negative = False
    wait(lambda: control.answer.prompts and len(control.answer.prompts[0].points) == 2)
    points.selected_data = set()
    save(viewer, "clicking")

    widget.clear_button.click()
    widget.everything_button.click()
    wait(lambda: widget.run_row.bar.value() > 0)
    save(viewer, "running")
    wait(lambda: any(layer.name.endswith("everything") for layer in viewer.layers))
    viewer.fit_to_view()
    save(viewer, "everything")
    viewer.close()


if __name__ == "__main__":
    main()
