"""Make the pictures of the documentation from the real widget in a real window.

Run it where there is a display: `python docs/make_screenshots.py`, on a machine without one
`QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1920x1200x24" python docs/make_screenshots.py`. It writes
`docs/images/*.png`, the animated `docs/images/annotating.gif`, and `docs/images/stories/*.png` by the tests
that play them. Names of scenes choose some of them, for instance `tutorial stories`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from PIL import Image
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

TESTS = Path(__file__).parents[1] / "tests" / "plugin"
sys.path.insert(0, str(TESTS))  # real clicks and keys, and small pictures, are shared with the tests

from real_window import key, mouse, palette_of, press, pump, save_window  # noqa: E402

import napari_lightsam  # noqa: E402
from napari_lightsam.plugin.everything import preview  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGES = Path(__file__).with_name("images")
SIZE = (1366, 768)  # a small laptop, where everything must still be seen
FILM = (960, 540)
STORIES = ("cells", "curating", "neurite", "series")


def wait(until: Callable[[], Any], seconds: float = 300) -> None:
    """Let the window live until a condition holds."""
    pump(QApplication.instance(), until, seconds)


def settle(seconds: float = 0.7) -> None:
    """Let the window finish painting."""
    QTest.qWait(round(1000 * seconds))


def save(viewer: napari.Viewer, name: str) -> None:
    """Write a picture of the whole window."""
    save_window(viewer, IMAGES / f"{name}.png", width=1100)


def open_sample(viewer: napari.Viewer, name: str, size: float | None) -> Any:
    """Open a sample and the widget beside it, ready for a click."""
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-lightsam", name)
    _, widget = viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
    control = widget.controller
    if size is not None:
        widget.size_row.box.set_pixels(size)
        wait(lambda: control.shown.settings.object_size == size)
    wait(lambda: control.shown.ready)
    settle()
    return widget


def everything(viewer: napari.Viewer) -> None:
    """Segment everything in one press, stop on the way, then move the slider."""
    widget = open_sample(viewer, "nuclei_fluorescence", 26)
    section = widget.everything
    preview.SOON = 0.0  # a quick machine is done before outlines are shown
    section.button.click()
    wait(lambda: any("(running)" in layer.name for layer in viewer.layers))
    save(viewer, "running")
    wait(lambda: section.count.text() and not widget.controller.everything.is_running)
    wait(lambda: not any("(running)" in layer.name for layer in viewer.layers))
    viewer.fit_to_view()
    save(viewer, "everything")
    found = section.count.text()
    section.slider.setValue(-60)
    section.advanced.expand()
    wait(lambda: section.count.text() != found)
    save(viewer, "fewer")


def clicking(viewer: napari.Viewer) -> None:
    """Click a nucleus, correct it, save it."""
    widget = open_sample(viewer, "nuclei_fluorescence", 26)
    control = widget.controller
    viewer.scene.camera.center, viewer.scene.camera.zoom = (275, 370), viewer.scene.camera.zoom * 2.5
    widget.click.object_button.click()
    points = control.annotator.points
    for place in ((275, 390), (302, 281), (264, 437)):
        points.add(place)
        wait(lambda: control.single.answer.masks())
        settle()
        widget.click.commit_button.click()
        control.annotator.clear()  # nothing is left, unless two places turned out to be one object
        settle()
    points.add((283, 413))
    wait(lambda: control.single.answer.masks())
    control.annotator.always_negative = True
    points.add((303, 425))
    control.annotator.always_negative = False
    wait(lambda: control.single.answer.prompts and len(control.single.answer.prompts[0].points) == 2)
    points.selected_data = set()
    widget.area.ensureWidgetVisible(widget.click)
    save(viewer, "clicking")


def stack(viewer: napari.Viewer) -> None:
    """Draw one typical object of a calibrated stack, and have all planes offered."""
    widget = open_sample(viewer, "neurites_fibsem_3d", None)
    widget.controller.draw_typical()
    save(viewer, "stack")


def annotating(viewer: napari.Viewer) -> None:
    """Film a short session: click, correct, save, undo, and everything at one press."""
    widget = open_sample(viewer, "nuclei_fluorescence", 26)
    control, film = widget.controller, Film(viewer)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (275, 370), viewer.scene.camera.zoom * 2
    film.take(1200)
    widget.click.object_button.click()
    points = control.annotator.points
    for place in ((275, 390), (302, 281), (264, 437)):
        points.add(place)
        points.selected_data = set()
        wait(lambda: control.single.answer.masks())
        film.take(700)
        widget.click.commit_button.click()
        control.annotator.clear()
        film.take(500)
    points.add((283, 413))
    wait(lambda: control.single.answer.masks())
    film.take(900)
    control.annotator.always_negative = True
    points.add((303, 425))
    points.selected_data = set()
    control.annotator.always_negative = False
    wait(lambda: control.single.answer.prompts and len(control.single.answer.prompts[0].points) == 2)
    film.take(1000)
    widget.click.commit_button.click()
    film.take(900)
    control.single.undo()
    film.take(900)
    viewer.fit_to_view()
    section = widget.everything
    section.button.click()
    wait(lambda: section.row.bar.value() > 0)
    film.take(400)
    wait(lambda: section.count.text() and not widget.controller.everything.is_running)
    film.take(2500)
    film.save("annotating")


def tutorial(viewer: napari.Viewer) -> None:
    """Go through the tutorial: click, correct, save, everything, review, series."""
    widget = open_sample(viewer, "nuclei_fluorescence", None)
    control = widget.controller
    save(viewer, "tutorial_open")
    widget.size_row.box.set_pixels(26)
    wait(lambda: control.shown.settings.object_size == 26 and control.shown.ready)
    viewer.scene.camera.center, viewer.scene.camera.zoom = (330, 520), viewer.scene.camera.zoom * 2.5
    press(widget.area, widget.click.object_button)
    mouse(viewer, 315, 529)
    wait(lambda: control.single.answer.masks())
    save(viewer, "tutorial_click")
    mouse(viewer, 330, 535, shift=True)
    wait(lambda: control.single.answer.prompts and len(control.single.answer.prompts[0].points) == 2)
    save(viewer, "tutorial_correct")
    key(viewer, "C")
    viewer.fit_to_view()
    section = widget.everything
    press(widget.area, section.button)
    wait(lambda: section.count.text() and not widget.controller.everything.is_running)
    save(viewer, "tutorial_everything")
    objects = widget.objects
    press(widget.area, objects.toggle)
    wait(lambda: objects.model.rowCount() > 10)
    objects.view.sortByColumn(2, objects.view.horizontalHeader().sortIndicatorOrder().AscendingOrder)
    objects.view.setCurrentIndex(objects.model.index(0, 0))
    widget.area.ensureWidgetVisible(objects.check)
    save(viewer, "tutorial_review")
    objects.toggle.click()
    viewer.layers.clear()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "plate 1")
        folder.mkdir()
        for number in range(1, 6):
            sample = Path(napari_lightsam.__file__).parent / "samples" / "nuclei_fluorescence.tif"
            shutil.copy(sample, folder / f"well {number}.tif")
        press(widget.area, widget.series.toggle)
        control.series.open(folder, Path(place, "plate 1_annotated"))
        for done in (1, 2):
            wait(lambda: control.shown.ready and not control.sessions.is_busy)
            press(widget.area, widget.click.object_button)
            mouse(viewer, 275, 390)
            wait(lambda: control.single.answer.masks())
            key(viewer, "C")
            key(viewer, "N")
            wait(partial(lambda done: control.series.done == done, done))
        wait(lambda: control.shown.ready and not control.sessions.is_busy)
        widget.area.verticalScrollBar().setValue(widget.area.verticalScrollBar().maximum())
        save(viewer, "tutorial_series")


def stories() -> None:
    """Have the tests that play whole stories keep their pictures."""
    tests = [str(TESTS / f"test_{name}_window.py") for name in STORIES]
    subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gl", *tests],
        env=os.environ | {"LIGHTSAM_PICTURES": str(IMAGES / "stories")},
        check=True,
    )


class Film:
    """Pictures of a window, one after another, in one animated GIF."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._pictures: list[Image.Image] = []
        self._milliseconds: list[int] = []

    def take(self, milliseconds: int) -> None:
        """Take a picture that is shown for so long."""
        settle(0.4)
        shown = Image.fromarray(self._viewer.window.screenshot(canvas_only=False, flash=False)[..., :3])
        shown.thumbnail(FILM, Image.Resampling.LANCZOS)
        self._pictures.append(shown)
        self._milliseconds.append(milliseconds)

    def save(self, name: str) -> None:
        """Write all pictures with colours that they share, so that nothing flickers."""
        width, height = self._pictures[0].size
        joined = Image.new("RGB", (width, height * len(self._pictures)))
        for i, picture in enumerate(self._pictures):
            joined.paste(picture, (0, i * height))
        palette = palette_of(joined, 256)
        frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in self._pictures]
        frames[0].save(
            IMAGES / f"{name}.gif",
            save_all=True,
            append_images=frames[1:],
            duration=self._milliseconds,
            loop=0,
            optimize=True,
        )


def main(chosen: list[str]) -> None:
    """Make the chosen pictures, or all of them."""
    IMAGES.mkdir(exist_ok=True)
    for scene in (everything, clicking, stack, annotating, tutorial):
        if not chosen or scene.__name__ in chosen:
            with tempfile.TemporaryDirectory() as cache:
                os.environ["LIGHTSAM_CACHE"] = cache  # no work of before is offered
                viewer = napari.Viewer(show=True)
                scene(viewer)
                viewer.close()
    if not chosen or "stories" in chosen:
        stories()


if __name__ == "__main__":
    main(sys.argv[1:])
