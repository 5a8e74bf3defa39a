"""`python -m benchmarks.latency`: how long the window takes to answer, and how long it is ever blocked.

Opens a real napari window, so it needs a display (`xvfb-run` will do, though its frames are drawn by the
processor). A step counts until its frame is painted. Prints a Markdown table, and writes it and its figures
to benchmarks/results/latency.md and latency.json.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import napari
import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from qtpy.QtCore import QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QWidget
from scipy import ndimage

from napari_lightsam import EverythingConfig, drain, load_segmenter
from napari_lightsam.plugin.everything.preview import SOON

from .report import machine, save_results, where, written
from .scenes import cells_1024, large

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_lightsam import Progress

    from .scenes import Scene

RESULTS = Path(__file__).resolve().parent / "results" / "latency.json"
_SIZE = 50.0  # pixels across, of the scenes' nuclei
_DOCK = 310  # pixels, as wide as the widget asks for
_LARGE = 4096
_LONG = 2560  # pixels of an image that takes some seconds
_BEFORE = 0.2  # s before the outlines would be shown, when a bare layer is added
_PATIENCE = 300.0  # s
_LONG_RUNS = 3  # of each kind
_STROKES = 10  # as often as a long run draws


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes
    ----------
    name
        Of its figures.
    title
        What was measured.
    seconds
        Median, or of a run the longest.
    beside
        The same step without this plugin, or None.
    most
        What is aimed at: at most this.
    beyond
        `most` counts beyond `beside`.
    """

    name: str
    title: str
    seconds: float
    beside: float | None
    most: float
    beyond: bool = True

    @property
    def is_met(self) -> bool:
        """The target is reached."""
        return self.seconds - ((self.beside or 0.0) if self.beyond else 0.0) <= self.most


class Taken(NamedTuple):
    """What a step took until its frame was painted: seconds, and of the window's thread processor seconds."""

    wall: float
    busy: float


class Blocks(NamedTuple):
    """Seconds that a run kept the window from being served, at most.

    Without a layer added, and how much of such a block the window's thread itself worked; the layer of
    outlines added, or a bare one before it, until that was painted; and the result. Then the whole run.
    """

    longest: float
    busy: float
    outlines: float
    result: float
    run: float


class Heartbeat(QTimer):
    """Beats whenever events are served, be it within a call of napari's, and so tells of blocks.

    Attributes
    ----------
    blocks
        From when to when nothing was served, and how much of it the window's thread worked; in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[float, float, float]] = []
        self._last = time.perf_counter(), time.thread_time()
        self.timeout.connect(self._beat)
        self.start(0)

    def _beat(self) -> None:
        (begun, worked), self._last = self._last, (time.perf_counter(), time.thread_time())
        self.blocks.append((begun, self._last[0], self._last[1] - worked))


class Bare:
    """A napari window, driven from this thread.

    Parameters
    ----------
    scene
        Its image is opened.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.viewer = napari.Viewer(show=True)
        app = QApplication.instance()
        assert isinstance(app, QApplication)  # napari made it
        self.app = app
        self.viewer.window.resize(1280, 900)
        self.image = self.viewer.add_image(scene.image, name=scene.name)
        self.frames: list[float] = []  # when each was painted
        self._awaited: Callable[[], Any] | None = None
        self._seen: Taken | None = None
        for canvas in self.app.topLevelWidgets():
            for surface in canvas.findChildren(QOpenGLWidget):
                surface.frameSwapped.connect(self._count)

    def _count(self) -> None:
        self.frames.append(time.perf_counter())
        if self._awaited is not None and self._seen is None and self._awaited():
            self._seen = Taken(self.frames[-1], time.thread_time())

    def wait(self, until: Callable[[], Any]) -> None:
        """Serve the window until something holds."""
        end = time.monotonic() + _PATIENCE
        while not until():
            self.app.processEvents()
            if time.monotonic() > end:
                raise TimeoutError(f"The window of {self.scene.name} did not get there")
            time.sleep(0.0005)

    def settle(self) -> None:
        """Let everything that waits be done and painted."""
        end = time.monotonic() + 0.3
        self.wait(lambda: time.monotonic() > end)

    def painted(self, step: Callable[[], Any], until: Callable[[], Any] = lambda: True) -> float:
        """Return the seconds from a step to the first frame after it has taken effect."""
        return self.taken(step, until).wall

    def taken(self, step: Callable[[], Any], until: Callable[[], Any] = lambda: True) -> Taken:
        """Return what a step took until the first frame after it has taken effect."""
        self.settle()
        gc.collect()
        begun = Taken(time.perf_counter(), time.thread_time())
        step()
        self._seen, self._awaited = None, until
        self.wait(lambda: self._seen is not None)
        seen, self._awaited = self._seen, None
        assert seen is not None  # just waited for
        return Taken(seen.wall - begun.wall, seen.busy - begun.busy)

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        self.app.processEvents()


class Alone(Bare):
    """A napari window with layers like those of the widget, and nothing else."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        dock = QWidget()
        dock.setMinimumWidth(_DOCK)  # so that the canvas is as large as beside the widget
        self.viewer.window.add_dock_widget(dock, name="nothing")
        self.labels = self.viewer.add_layer(_bare_layer(scene.image.shape[:2]))
        self.points = self.viewer.add_points(np.zeros((0, 2)), symbol="disc", size=_SIZE / 4)
        self.points.mode = "add"
        self.settle()

    def click(self, at: tuple[float, float]) -> Taken:
        """Add a point and paint a disc around it, both at once, as the answer to a click would."""
        rows, columns = _disc(at, self.labels.data.shape)

        def both() -> None:
            self.points.add(list(at))
            self.labels.data_setitem((rows, columns), 1)

        return self.taken(both)

    def clear(self) -> None:
        """Take point and disc away."""
        self.points.selected_data = set()
        self.points.data = np.zeros((0, 2))
        self.labels.undo()


class Window(Bare):
    """A napari window with the widget.

    Parameters
    ----------
    scene
        Its image is opened.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        _, self.widget = self.viewer.window.add_plugin_dock_widget("napari-lightsam", "LightSAM")
        self.control = self.widget.controller
        self.widget.size_row.box.setValue(_SIZE)
        shown = self.control.shown
        self.wait(lambda: shown.settings.object_size == _SIZE and shown.ready is not None)
        self.control.start("points")
        self.settle()

    def show(self, image: NDArray[Any]) -> None:
        """Put another image in the place of the one on display, and wait until it can be clicked."""
        self.image.data = image
        self.settle()  # the widget looks at it a moment later
        self.wait(lambda: self.control.shown.ready is not None)
        self.settle()

    def click(self, at: tuple[float, float]) -> Taken:
        """Click an object, until its outline is on the screen."""
        points = self.control.annotator.points
        return self.taken(lambda: points.add(list(at)), lambda: bool(self.control.single.answer.masks()))

    def run_everything(self, *, bare: bool = False) -> Blocks:
        """Segment everything, and measure how long the window is not served meanwhile.

        Parameters
        ----------
        bare
            A bare layer is added in its course, before the outlines.
        """
        added: list[float] = []
        started, before = time.perf_counter(), self.control.results.target

        def add_bare(step: Progress | None) -> None:
            if bare and not added and step is not None and time.perf_counter() - started > SOON - _BEFORE:
                self.viewer.layers.insert(1, _bare_layer(self.scene.image.shape[:2]))

        self.control.everything.progress.connect(add_bare)
        noted = self.viewer.layers.events.inserting.connect(lambda _: added.append(time.perf_counter()))
        heart = Heartbeat()
        self.control.segment_everything()
        self.wait(lambda: self.control.results.target != before and self.frames[-1] > added[-1])
        heart.stop()
        # napari takes longer to remove a layer than to add one
        self.wait(lambda: not any("(running)" in layer.name for layer in self.viewer.layers))
        self.viewer.layers.events.inserting.disconnect(noted)
        self.control.everything.progress.disconnect(add_bare)
        painted = [next(frame for frame in self.frames if frame > at) for at in added]
        spans = list(zip(added, painted, strict=True))
        others = [x for x in heart.blocks if not any(x[0] < end and begun < x[1] for begun, end in spans)]
        first = spans[0] if len(spans) > 1 else (0.0, 0.0)  # of a short run, nothing but its result
        return Blocks(
            longest=max(end - begun for begun, end, _ in others),
            busy=max(worked for _, _, worked in others),
            outlines=first[1] - first[0],
            result=spans[-1][1] - spans[-1][0],
            run=painted[-1] - started,
        )

    def stroke(self, count: int) -> float:
        """Draw in a bare layer some times while nothing else goes on; returns the longest block of one."""
        layer = self.viewer.add_layer(_bare_layer(self.scene.image.shape[:2]))
        longest = []
        for at in centres(self.scene, (_LONG / 2, _LONG / 2), count):
            pixels = _disc(at, layer.data.shape)
            self.settle()
            heart = Heartbeat()
            layer.data_setitem(pixels, 1)
            self.settle()
            heart.stop()
            longest.append(max(end - begun for begun, end, _ in heart.blocks))
        self.viewer.layers.remove(layer)
        self.settle()
        return statistics.median(longest)

    def target(self) -> Labels:
        """Return the layer that objects are saved into."""
        return next(x for x in self.viewer.layers if x.unique_id == self.control.results.target)


def _bare_layer(shape: tuple[int, ...]) -> Labels:
    colours = CyclicLabelColormap(colors=[(0, 0, 0, 0), (1, 1, 0, 0.2), (1, 1, 0, 1)])
    return napari.layers.Labels(np.zeros(shape, np.uint8), colormap=colours)


def _disc(at: tuple[float, float], shape: tuple[int, int]) -> tuple[Any, Any]:
    """Return the pixels of a disc of the scenes' nuclei."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = np.nonzero(np.hypot(rows - at[0], columns - at[1]) <= _SIZE / 2)
    return inside[0], inside[1]


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
    """Measure a click on a prepared image, beside the same point and paint in bare layers."""
    scene = cells_1024()
    taken, alone, places = [], [], centres(scene, (512, 512), repeat + 1)
    plain_window = Alone(scene)
    for at in places:
        alone.append(plain_window.click(at))
        plain_window.clear()
    plain_window.close()
    window = Window(scene)
    first = window.click(places[0])
    window.control.annotator.clear()
    for at in places:
        taken.append(window.click(at))
        window.control.annotator.clear()
        window.wait(lambda: not window.control.single.answer.masks())
    window.close()
    (wall, busy), (wall_alone, busy_alone) = (
        [statistics.median(part) for part in zip(*given[1:], strict=True)] for given in (taken, alone)
    )
    return [
        Line("click", "click to painted preview, 1024 x 1024", wall, wall_alone, 0.060, beyond=False),
        Line("click_thread", "processor time of the window's thread for it", busy, busy_alone, 0.010),
        Line("first_click", "the first click of all, which adds the preview layer", first.wall, None, 0.250),
    ]


def measure_runs(repeat: int) -> list[Line]:
    """Measure runs of everything mode: short ones of new images, and long ones that show outlines."""
    scene, segmenter = cells_1024(), load_segmenter()
    window = Window(scene)
    runs, plain, alone = [], [], []
    for turn in range(repeat // 4 + 1):  # the first of each loads and compiles what the others have
        image = np.roll(scene.image, 37 * turn, axis=1)
        begun = time.perf_counter()
        drain(segmenter.everything(image, EverythingConfig(object_size=_SIZE)))
        alone.append(time.perf_counter() - begun)
        window.show(image)
        runs.append(window.run_everything())
        labels = window.target().data
        window.viewer.layers.remove(window.target())
        plain.append(window.painted(lambda: window.viewer.add_labels(labels.copy())))  # noqa: B023  # at once
        window.viewer.layers.pop()
    window.close()
    window = Window(large(_LONG))
    window.stroke(1)  # the first layer of a window takes napari longer than all others
    long = [window.run_everything(bare=turn % 2 == 1) for turn in range(2 * _LONG_RUNS + 1)]
    stroke = window.stroke(_STROKES)
    window.close()
    size, side = f"{scene.image.shape[0]} x {scene.image.shape[1]}", f"{_LONG} x {_LONG}"
    result, plain_result = statistics.median(x.result for x in runs[1:]), statistics.median(plain[1:])
    run, script = statistics.median(x.run for x in runs[1:]), statistics.median(alone[1:])
    longest, shown = (statistics.median(x.longest for x in given) for given in (runs[1:], long[1:]))
    busy = statistics.median(x.busy for x in [*runs[1:], *long[1:]])
    outlines, usual = (statistics.median(x.outlines for x in long[1:][first::2]) for first in (1, 0))
    return [
        Line("block", f"longest block in a run, {size}, no layer added", longest, None, 0.050),
        Line("block_thread", "processor time of the window's thread in a block, at most", busy, None, 0.050),
        Line("block_long", f"longest block in a run that draws outlines, {side}", shown, stroke, 0.050),
        Line("outlines", f"the layer of outlines added, {side}", outlines, usual, 0.050),
        Line("result", f"the result of a run on the screen, {size}", result, plain_result, 0.050),
        Line("run", f"everything, {size}, until it is painted, beside Python", run, script, 0.2 * script),
    ]


def measure_commits(repeat: int) -> list[Line]:
    """Measure commits and undo in a large Labels layer, each beside what napari alone takes for it."""
    scene = large(_LARGE)
    window = Window(scene)
    saved, bare, undone, alone = [], [], [], []
    for at in centres(scene, (_LARGE / 2, _LARGE / 2), repeat + 1):
        window.click(at)
        saved.append(window.painted(window.control.single.commit))
        labels = window.target()
        ways = [(undone, window.control.single.undo), (alone, labels.undo)]
        for taken, undo in ways if len(saved) % 2 else ways[::-1]:  # neither has the warmer caches
            taken.append(window.painted(undo))
            window.painted(labels.redo)
        where_ = np.nonzero(labels.data == labels.selected_label)
        window.painted(labels.undo)
        value = int(labels.selected_label)
        bare.append(window.painted(lambda: labels.data_setitem(where_, value)))  # noqa: B023  # at once
    window.close()
    size = f"{_LARGE} x {_LARGE}"
    own, plain, back, plain_back = (statistics.median(part[1:]) for part in (saved, bare, undone, alone))
    return [
        Line("commit", f"commit into {size}, beside the bare write", own, plain, 0.030),
        Line("undo", f"undo in {size}, beside a bare `layer.undo()`", back, plain_back, 0.2 * plain_back),
    ]


def as_markdown(lines: list[Line], about: dict[str, Any], repeat: int) -> str:
    """Write the table."""
    counts = f"{repeat} steps and {repeat // 4} runs"
    text = [
        f"{where(about)}; napari {napari.__version__}; medians of {counts}, until the frame is painted.",
        "",
        "| step | LightSAM | napari alone | at most | |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        beside = "" if line.beside is None else written(line.beside, "s")
        most = written(line.most, "s") + (" beyond" if line.beyond and line.beside is not None else "")
        verdict = "met" if line.is_met else "not met"
        text.append(f"| {line.title} | {written(line.seconds, 's')} | {beside} | {most} | {verdict} |")
    return "\n".join(text) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--repeat", type=int, default=20, help="samples of each step")
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(prefix="lightsam-latency-") as folder:
        os.environ["LIGHTSAM_CACHE"] = folder  # nothing of a user's own is gone on with, or left behind
        measures = measure_clicks, measure_runs, measure_commits
        lines = [line for measure in measures for line in measure(options.repeat)]
    table = as_markdown(lines, about, options.repeat)
    print(table, end="")
    rows = {
        x.name: {
            "title": x.title,
            "ms": 1e3 * x.seconds,
            "beside_ms": None if x.beside is None else 1e3 * x.beside,
        }
        for x in lines
    }
    save_results(RESULTS, {"machine": about, "repeat": options.repeat, "rows": rows}, table)


if __name__ == "__main__":
    main()
