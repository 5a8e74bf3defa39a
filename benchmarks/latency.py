"""`python -m benchmarks.latency`: how long the window takes to answer, and how long it is ever blocked.

Opens a real napari window, so it needs a display (`xvfb-run` will do, though its frames are drawn by the
processor). A step counts until its frame is painted. Prints a Markdown table, and writes it and its figures
to benchmarks/results/latency.md and latency.json.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication
from scipy import ndimage

from .report import machine, save_results, where, written
from .scenes import cells_1024, large

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from .scenes import Scene

RESULTS = Path(__file__).resolve().parent / "results" / "latency.json"
_SIZE = 50.0  # pixels across, of the scenes' nuclei
_LARGE = 4096
_PATIENCE = 300.0  # s


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    title
        What was measured.
    seconds
        Median, or of a run the longest.
    beside
        The same step without this plugin, or None.
    most
        What is aimed at: at most this, or this beyond `beside`.
    """

    title: str
    seconds: float
    beside: float | None
    most: float

    @property
    def is_met(self) -> bool:
        """The target is reached."""
        return self.seconds - (self.beside or 0.0) <= self.most


class Window:
    """A napari window with the widget, driven from this thread.

    Parameters
    ----------
    scene
        Its image is opened.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.viewer = napari.Viewer(show=True)
        self.app = QApplication.instance()
        self.viewer.window.resize(1280, 900)
        self.viewer.add_image(scene.image, name=scene.name)
        _, self.widget = self.viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
        self.control = self.widget.controller
        self.widget.size_row.box.setValue(_SIZE)
        self.wait(lambda: self.control.settings.object_size == _SIZE and self.control.ready is not None)
        self.frames = 0
        for canvas in self.app.topLevelWidgets():
            for surface in canvas.findChildren(QOpenGLWidget):
                surface.frameSwapped.connect(self._count)
        self.control.start("points")
        self.settle()

    def _count(self) -> None:
        self.frames += 1

    def wait(self, until: Callable[[], Any]) -> float:
        """Serve the window until something holds; returns the longest time that it was not served."""
        end, longest = time.monotonic() + _PATIENCE, 0.0
        while not until():
            begun = time.perf_counter()
            self.app.processEvents()
            longest = max(longest, time.perf_counter() - begun)
            if time.monotonic() > end:
                raise TimeoutError(f"The window did not get there: {self.control.status}")
            time.sleep(0.0005)
        return longest

    def settle(self) -> None:
        """Let everything that waits be done and painted."""
        end = time.monotonic() + 0.3
        self.wait(lambda: time.monotonic() > end)

    def painted(self, step: Callable[[], Any], until: Callable[[], Any] = lambda: True) -> float:
        """Return the seconds from a step to the first frame after it has taken effect."""
        self.settle()
        gc.collect()
        begun = time.perf_counter()
        step()
        self.wait(until)
        seen = self.frames
        self.wait(lambda: self.frames > seen)
        return time.perf_counter() - begun

    def click(self, at: tuple[float, float]) -> float:
        """Click an object; returns the seconds until its outline is on the screen."""
        points = self.control.annotator.points
        return self.painted(lambda: points.add(list(at)), lambda: bool(self.control.answer.masks()))

    def run_everything(self) -> tuple[float, float]:
        """Segment everything; returns the longest block before the result came, and how long that blocked."""
        served = [time.perf_counter()]
        begun: list[float] = []
        longest = 0.0
        self.viewer.layers.events.inserting.connect(lambda event: begun.append(served[-1]))
        self.control.segment_everything()
        while not begun:
            served.append(time.perf_counter())
            self.app.processEvents()
            if not begun:
                longest = max(longest, time.perf_counter() - served[-1])
            time.sleep(0.0005)
        seen = self.frames
        self.wait(lambda: self.frames > seen)
        return longest, time.perf_counter() - begun[0]

    def target(self) -> Labels:
        """Return the layer that objects are saved into."""
        return next(x for x in self.viewer.layers if x.unique_id == self.control.results.target)

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        self.app.processEvents()


def centres(scene: Scene, near: tuple[float, float], count: int) -> list[tuple[float, float]]:
    """Return where the nuclei nearest to a place are, their innermost pixels."""
    found = []
    for value, place in enumerate(ndimage.find_objects(scene.labels), start=1):
        if place is None:
            continue
        depth = ndimage.distance_transform_edt(np.pad(scene.labels[place] == value, 1))
        row, column = np.unravel_index(int(depth.argmax()), depth.shape)
        found.append((float(row - 1 + place[0].start), float(column - 1 + place[1].start)))
    return sorted(found, key=lambda at: float(np.hypot(at[0] - near[0], at[1] - near[1])))[:count]


def measure_clicks(repeat: int) -> list[Line]:
    """Measure a click on a prepared image, and an everything run."""
    scene = cells_1024()
    window = Window(scene)
    taken = []
    for at in centres(scene, (512, 512), repeat + 1):
        taken.append(window.click(at))
        window.control.clear()
        window.wait(lambda: not window.control.answer.masks())
    window.settle()
    blocked, arrived = window.run_everything()
    labels = window.target().data
    plain = window.painted(lambda: window.viewer.add_labels(labels.copy()))
    window.close()
    return [
        Line("click to painted preview, 1024 x 1024", statistics.median(taken[1:]), None, 0.060),
        Line("longest block in an everything run, 1024 x 1024, until it ends", blocked, None, 0.050),
        Line("its result on the screen, beside adding a bare layer", arrived, plain, 0.050),
    ]


def measure_commits(repeat: int) -> list[Line]:
    """Measure commits and undo in a large Labels layer, each beside what napari alone takes for it."""
    scene = large(_LARGE)
    window = Window(scene)
    saved, bare, undone, alone = [], [], [], []
    for at in centres(scene, (_LARGE / 2, _LARGE / 2), repeat + 1):
        window.click(at)
        saved.append(window.painted(window.control.commit))
        labels = window.target()
        undone.append(window.painted(window.control.single.undo))
        window.painted(labels.redo)
        alone.append(window.painted(labels.undo))
        window.painted(labels.redo)
        where_ = np.nonzero(labels.data == labels.selected_label)
        window.painted(labels.undo)
        value = int(labels.selected_label)
        bare.append(window.painted(lambda: labels.data_setitem(where_, value)))  # noqa: B023  # at once
    window.close()
    size = f"{_LARGE} x {_LARGE}"
    own, plain, back, plain_back = (statistics.median(part[1:]) for part in (saved, bare, undone, alone))
    return [
        Line(f"commit into {size}, beside the bare write", own, plain, 0.030),
        Line(f"undo in {size}, beside a bare `layer.undo()`", back, plain_back, 0.2 * plain_back),
    ]


def as_markdown(lines: list[Line], about: dict[str, Any], repeat: int) -> str:
    """Write the table."""
    text = [
        f"{where(about)}; napari {napari.__version__}; medians of {repeat}, until the frame is painted.",
        "",
        "| step | LightSAM | napari alone | at most | |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        beside = "" if line.beside is None else written(line.beside, "s")
        most = written(line.most, "s") + (" beyond" if line.beside is not None else "")
        verdict = "met" if line.is_met else "not met"
        text.append(f"| {line.title} | {written(line.seconds, 's')} | {beside} | {most} | {verdict} |")
    return "\n".join(text) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, help="samples of each step")
    options = parser.parse_args()
    about = machine()
    lines = [*measure_clicks(options.repeat), *measure_commits(options.repeat)]
    table = as_markdown(lines, about, options.repeat)
    print(table, end="")
    rows = [
        {"title": x.title, "ms": 1e3 * x.seconds, "beside_ms": None if x.beside is None else 1e3 * x.beside}
        for x in lines
    ]
    save_results(RESULTS, {"machine": about, "repeat": options.repeat, "rows": rows}, table)


if __name__ == "__main__":
    main()
