"""A controller without Qt whose main thread is the test, and a tiny model for plumbing."""

from __future__ import annotations

import os
import queue
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import npe2
import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel

from napari_lightsam.engine.config import Thresholds
from napari_lightsam.engine.masks import Mask, Masks
from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.controller import Controller
from napari_lightsam.plugin.sessions import shelf as sessions_shelf
from napari_lightsam.plugin.worker import Lane


@pytest.fixture(scope="session", autouse=True)
def plugins():
    """Make this plugin and napari's own readers known, as a script without a window does."""
    npe2.PluginManager.instance().discover()


def disc(centre, radius, shape):
    """A round mask; pixels beside a plane of this shape are cut off."""
    y, x = (round(float(v)) for v in centre)
    grid = np.hypot(*np.ogrid[-radius : radius + 1, -radius : radius + 1]) <= radius + 0.3
    top, left = max(0, radius - y), max(0, radius - x)
    bottom, right = (radius + length - at for length, at in zip(shape, (y, x), strict=True))
    return Mask((y - radius + top, x - radius + left), grid[top:bottom, left:right], iou=0.9, stability=0.9)


SCORES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
"""Of the four squares that the tiny model finds."""


class TinySegmenter:
    """Answers a click with three discs, a box with the box itself, and everything with four squares."""

    def __init__(self) -> None:
        self.spec = SimpleNamespace(name="tiny", title="Tiny model")
        self.device, self.precision, self.device_reason = "cpu", "float32", "it is a test"
        self.weights_hash, self.source = "0" * 64, "tiny"
        self.embedded: list[tuple] = []
        self.predicted: list[tuple] = []
        self.runs: list[tuple] = []
        self.stacks: list[tuple] = []
        self.threads: set[int] = set()
        self.error: Exception | None = None
        self.gate: threading.Event | None = None
        self.closed = threading.Event()

    def embed(self, image, *, object_size=None, rgb=None):
        self.threads.add(threading.get_ident())
        self.embedded.append((image, object_size, rgb))
        return SimpleNamespace(shape=image.shape[:2])

    def predict(self, embedding, points=None, point_labels=None, boxes=None, mask=None):
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        self.predicted.append((points, point_labels, boxes, mask))
        if boxes is not None:
            corners = np.round(boxes).astype(int)
            found = [
                (Mask((y0, x0), np.ones((y1 - y0, x1 - x0), bool)),)
                for y0, x0, y1, x1 in np.atleast_2d(corners)
            ]
            return Masks(embedding.shape, tuple(found))
        firsts = np.array(points, float).reshape(-1, *np.shape(points)[-2:])[:, 0]
        shape = embedding.shape
        return Masks(shape, tuple(tuple(disc(at, radius, shape) for radius in (4, 6, 9)) for at in firsts))

    def everything(self, image, config, *, rgb=None, proposals=None, stop=None, out=None):
        self.runs.append((image, config, proposals))
        labels = np.zeros(image.shape[:2], np.int32)
        found = 0
        try:
            while found < 4 and not (stop is not None and stop()):
                if self.error is not None:
                    raise self.error
                if self.gate is None or self.gate.wait(0.01):
                    labels[10 * found + 1 : 10 * found + 8, 2:9] = found + 1
                    found += 1
                yield Progress("decoding", found, 4)
        finally:
            self.closed.set()
        return SimpleNamespace(
            labels=labels,
            scores=SCORES[:found],
            config=replace(config, min_size=2.0 if config.min_size is None else config.min_size),
            candidates=SimpleNamespace(usual=Thresholds(0.5, 0.5)),
            object_size=7.0,
            object_size_estimated=config.object_size is None,
            advice="",
            complete=found == 4,
            ids=None,
        )

    def stack(self, array, *, axis, config, model, link, rgb=None, stop):
        """Find two squares a plane."""
        self.stacks.append((array, axis, link))
        labels = np.zeros(array.shape[:3], np.int32)
        done = 0
        while done < array.shape[axis] and not stop():
            if self.gate is None or self.gate.wait(0.01):
                plane = np.moveaxis(labels, axis, 0)[done]
                plane[1:8, 2:9], plane[11:18, 2:9] = (1, 2) if link else (1 + 2 * done, 2 + 2 * done)
                done += 1
            yield Progress(f"plane {done} of {array.shape[axis]}", done, array.shape[axis])
        return SimpleNamespace(
            labels=labels,
            table=pd.DataFrame(
                {
                    "label": np.arange(1, 3) if link else np.tile([1, 2], done),
                    "score": 0.9,
                    "single_plane": False,
                    "area_jump": np.arange(2 if link else 2 * done) == 1,
                }
            ),
            config=config,
            object_size=7.0,
            object_size_estimated=True,
            complete=done == array.shape[axis],
            advice="",
        )

    @staticmethod
    def choose_again(segmentation, config):
        """Keep the squares whose score is high enough: all in the middle, fewer to the left."""
        kept = 0.6 - 0.4 * min(config.balance, 0) <= SCORES
        labels = np.concatenate([[0], np.cumsum(kept) * kept])[segmentation.labels]
        return inference.measured(labels.astype(np.int32), np.arange(1, kept.sum() + 1), SCORES[kept])


class Desk:
    """A viewer with a controller, and the test as its main thread."""

    def __init__(self, viewer=None):
        self.calls: queue.Queue = queue.Queue()
        self.viewer = ViewerModel() if viewer is None else viewer
        self.control = Controller(self.viewer, self.calls.put)
        self.progress: list = []
        self.control.everything.progress.connect(self.progress.append)

    def run_until(self, condition, timeout=60.0):
        """Do the main thread's work until a condition holds."""
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"timed out: {self.control.status}"
            try:
                self.calls.get(timeout=0.01)()
            except queue.Empty:
                continue

    def finish(self, *lanes, timeout=120.0):
        """Let the work of some lanes end."""
        wanted = lanes or tuple(Lane)
        self.run_until(
            lambda: not any(self.control.worker.is_busy(lane) for lane in wanted) and self.calls.empty(),
            timeout,
        )

    def open(self, data, **keywords):
        """Add an image and make it the one to be segmented."""
        image = self.viewer.add_image(data, **{"name": "image", **keywords})
        self.control.shown.use_image(image)
        self.finish()
        return image

    def click(self, *at):
        """Add a point and wait for the answer."""
        self.control.start("points")
        self.control.annotator.points.add(list(at))
        self.finish(Lane.PROMPT)

    def commit(self):
        """Save what is outlined."""
        return self.control.single.commit()

    def target(self):
        """Return the Labels layer that objects are saved into."""
        return next(x for x in self.viewer.layers if x.unique_id == self.control.results.target)


@pytest.fixture(scope="session")
def make_desk():
    """Make desks in fixtures that last longer than a test; who makes one closes it."""
    return Desk


@pytest.fixture(autouse=True)
def own_unsaved_work(tmp_path_factory, monkeypatch):
    """Keep the work that a test leaves unsaved from being offered to the next one."""
    folder = tmp_path_factory.mktemp("unsaved")
    monkeypatch.setattr(sessions_shelf, "cache_folder", lambda: folder)
    return folder


@pytest.fixture
def unsaved_here(own_unsaved_work):
    """Environment of another process that leaves its unsaved work where this test finds it."""
    return {**os.environ, "LIGHTSAM_CACHE": str(own_unsaved_work)}


@pytest.fixture
def tiny(monkeypatch):
    """A tiny model in place of the real one."""
    segmenter = TinySegmenter()
    monkeypatch.setattr(inference, "load", lambda name: segmenter)
    monkeypatch.setattr(inference, "choose_again", segmenter.choose_again)
    monkeypatch.setattr(inference, "known_balances", lambda *_: np.zeros(0))
    monkeypatch.setattr(inference, "segment_planes", segmenter.stack)
    return segmenter


@pytest.fixture
def desk(tiny):
    """A viewer and a controller with the tiny model."""
    table = Desk()
    yield table
    table.control.close()
    assert table.control.worker.join(10)


@pytest.fixture
def new_desk(tiny):
    """Make further viewers with controllers; all are closed at the end."""
    made = []

    def make(viewer=None):
        made.append(Desk(viewer))
        return made[-1]

    yield make
    for table in made:
        table.control.close()


@pytest.fixture
def dock_of_stack(tiny, qtbot):
    """The dock widget of a viewer with a stack, as long as the test looks at it."""
    from napari_lightsam.plugin.widget.dock import LightSamWidget

    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 40, 40)), name="cells", axis_labels=("z", "y", "x"))
    widget = LightSamWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.controller.shown.ready is not None, timeout=10_000)
    yield widget
    widget.shut_down()
    assert widget.controller.worker.join(10)


@pytest.fixture
def notes():
    """napari's notifications during the test, as (severity, message)."""
    from napari.utils.notifications import notification_manager

    found: list[tuple[str, str]] = []

    def keep(notification):
        found.append((str(notification.severity), notification.message))

    notification_manager.notification_ready.connect(keep)
    yield found
    notification_manager.notification_ready.disconnect(keep)


@pytest.fixture
def open_window(qapp, segmenter, monkeypatch):
    """Open shown windows of a small laptop's size; the model is the one in float32 that all tests share."""
    import napari

    monkeypatch.setattr(inference, "load", lambda name, **_: segmenter)

    def make():
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1366, 768)
        return viewer

    yield make
    napari.Viewer.close_all()


@pytest.fixture
def window(open_window):
    """A shown window of a small laptop's size."""
    return open_window()
