"""What is seen while everything is being segmented: outlines of what was found so far, then the result."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Labels
from scipy import ndimage

from napari_lightsam.engine.candidates import collect
from napari_lightsam.engine.found import Found
from napari_lightsam.engine.level import Level
from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin import inference
from napari_lightsam.plugin.everything import preview as everything_preview
from napari_lightsam.plugin.everything.outlines import Outlined, outlined
from napari_lightsam.plugin.scope import Scope, add_region

RUNNING = "Everything (running) in image"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Show everything as soon as it is found."""
    monkeypatch.setattr(everything_preview, "SOON", 0.0)
    monkeypatch.setattr(everything_preview, "PAUSE", 0.0)


def squares(shape, config, *centres):
    """What a step found: squares of 16 pixels around some places, multiples of 4."""
    padded = tuple(-(-side // 16) * 16 for side in shape)
    logits = np.full((len(centres), 1, padded[0] // 4, padded[1] // 4), -9, np.float32)
    for one, (row, column) in zip(logits, centres, strict=True):
        one[0, row // 4 - 2 : row // 4 + 2, column // 4 - 2 : column // 4 + 2] = 9
    several = len(centres)
    return Found(
        collect(
            Level(tuple(shape), tuple(shape), padded, fixed=False),
            logits,
            np.full((several, 1), 0.9, np.float32),
            np.zeros((several, 2), np.intp),
            np.arange(several),
            np.array(centres, np.float32),
            stability_offset=1.0,
        ),
        config,
    )


@pytest.fixture
def found(tiny, monkeypatch):
    """Let the tiny model tell twice what it found, then hold it until this is set."""
    gate = threading.Event()
    plain, stack = tiny.everything, tiny.stack

    def held(work, stop):
        while not gate.wait(0.005) and not stop():
            yield Progress("segmenting", 0, 4)
        return (yield from work)

    def everything(image, config, *, stop, **keywords):
        shape = image.shape[:2]
        yield Progress("segmenting", 0, 4, squares(shape, config, (12, 12)))
        yield Progress("segmenting", 0, 4, squares(shape, config, (12, 12), (32, 16)))
        return (yield from held(plain(image, config, stop=stop, **keywords), stop))

    def planes(array, *, axis, config, stop, **keywords):
        shape = np.delete(array.shape, axis)
        yield Progress("plane 1", 0, 3, squares(shape, config, (12, 12)))
        yield Progress("plane 2", 1, 3, squares(shape, config, (12, 12), (32, 16)))
        return (yield from held(stack(array, axis=axis, config=config, stop=stop, **keywords), stop))

    monkeypatch.setattr(tiny, "everything", everything)
    monkeypatch.setattr(inference, "segment_planes", planes)
    yield gate
    gate.set()


def start(desk, count=2, **choices):
    """Start a run and return the layer of outlines once this many objects are in it."""
    everything = desk.control.everything
    everything.choose(replace(everything.choices, **choices))
    assert desk.control.segment_everything()
    desk.run_until(
        lambda: RUNNING in desk.viewer.layers and len(places(desk.viewer.layers[RUNNING])) == count
    )
    return desk.viewer.layers[RUNNING]


def places(layer):
    """The world coordinates of the middle of each outline."""
    parts, count = ndimage.label(layer.data, np.ones((3,) * layer.ndim))
    return [layer.data_to_world(at) for at in ndimage.center_of_mass(parts > 0, parts, range(1, count + 1))]


def names(desk):
    return [layer.name for layer in desk.viewer.layers]


TURNED = {"scale": (0.5, 2), "translate": (7, -3), "rotate": 30}
DEEP = {"scale": (4, 0.5, 2), "translate": (1, 7, -3), "axis_labels": ("z", "y", "x")}
FLAT = {"axis_labels": ("y", "x", "z")}


@pytest.mark.parametrize(
    ("shape", "keywords", "order", "index", "offset"),
    [
        pytest.param((60, 80), {}, (0, 1), (None, None), (0, 0), id="a plane"),
        pytest.param((60, 80), TURNED, (0, 1), (None, None), (0, 0), id="scaled, moved and turned"),
        pytest.param((60, 80), TURNED, (0, 1), (None, None), (10, 20), id="a drawn region of it"),
        pytest.param((3, 60, 80), DEEP, (0, 1, 2), (1, None, None), (0, 0), id="of a stack"),
        pytest.param((60, 80, 5), FLAT, (2, 0, 1), (None, None, 1), (0, 0), id="depth last"),
    ],
)
def test_outlines_lie_on_the_image_until_the_result_takes_their_place(
    desk, found, shape, keywords, order, index, offset
):
    image = desk.open(np.zeros(shape), **keywords)
    desk.viewer.dims.order = order
    if len(shape) == 3:
        desk.viewer.dims.set_current_step(index.index(1), 1)
    choices = {}
    if any(offset):
        (y, x), corners = offset, [[0, 0], [0, 44], [44, 44], [44, 0]]
        region = add_region(desk.viewer, image, desk.control.annotator.plane())
        region.add_polygons(np.add(corners, (y, x)))
        choices = {"scope": Scope.REGION, "region_from": region.unique_id}
    before = names(desk)
    desk.viewer.layers.selection.active = image
    preview = start(desk, **choices)
    assert names(desk) == [*before, RUNNING]
    assert desk.viewer.layers.selection.active.unique_id == image.unique_id
    assert not preview.editable
    assert desk.control.everything.so_far == 2
    assert desk.control.targets() == []  # nothing is saved into it
    for at, (row, column) in zip(places(preview), [(11.5, 11.5), (31.5, 15.5)], strict=True):
        pixel = iter((row + offset[0], column + offset[1]))
        np.testing.assert_allclose(
            at, image.data_to_world([next(pixel) if i is None else i for i in index]), atol=1e-9
        )
    found.set()
    desk.finish()
    assert names(desk) == [*before, "Everything in image"]
    assert desk.control.everything.so_far is None
    assert desk.control.everything.last.count == 4 if not any(offset) else 3


def test_each_outline_is_drawn_once_and_only_where_it_is(desk, found, monkeypatch):
    drawn, refreshed = [], []
    plain = Labels.data_setitem

    def watch(self, index, value, **keywords):
        drawn.append(len(index[0]))
        return plain(self, index, value, **keywords)

    monkeypatch.setattr(Labels, "data_setitem", watch)
    desk.open(np.zeros((60, 80)))
    preview = start(desk, count=1)
    preview.events.set_data.connect(lambda event: refreshed.append(event))
    desk.run_until(lambda: len(places(preview)) == 2)
    assert drawn == [56, 56]  # the edge of a square of 16 pixels without its corners
    assert not refreshed  # the whole layer never is


def test_outlines_that_come_fast_are_drawn_together(desk, found, monkeypatch):
    monkeypatch.setattr(everything_preview, "PAUSE", 1000.0)
    desk.open(np.zeros((60, 80)))
    preview = start(desk, count=1)
    desk.run_until(lambda: desk.control.everything.so_far == 2)
    assert len(places(preview)) == 1


def test_a_short_run_shows_its_result_alone(desk, found, monkeypatch):
    monkeypatch.setattr(everything_preview, "SOON", 1000.0)
    desk.open(np.zeros((60, 80)))
    seen = []
    desk.viewer.layers.events.inserted.connect(lambda event: seen.append(event.value.name))
    found.set()
    assert desk.control.segment_everything()
    desk.finish()
    assert seen == ["Everything in image"]


@pytest.mark.parametrize("shown", [0, 1, "other axes"])
def test_a_stack_shows_outlines_in_every_plane_under_way(desk, found, shown):
    """Whichever plane the slider shows, and whatever it does meanwhile."""
    image = desk.open(np.zeros((3, 60, 80)), scale=(4, 1, 1), axis_labels=("z", "y", "x"))
    everything = desk.control.everything
    everything.choose(replace(everything.choices, scope=Scope.STACK))
    assert desk.control.segment_everything()
    if shown == "other axes":
        desk.viewer.dims.order = (1, 0, 2)
    else:
        desk.viewer.dims.set_current_step(0, shown)
    desk.run_until(
        lambda: RUNNING in desk.viewer.layers and len(desk.viewer.layers[RUNNING].data.any((1, 2)))
    )
    preview = desk.viewer.layers[RUNNING]
    desk.run_until(lambda: preview.data[1].any())
    counts = [ndimage.label(plane, np.ones((3, 3)))[1] for plane in preview.data]
    np.testing.assert_array_equal(counts, [1, 2, 0])
    np.testing.assert_array_equal(preview.scale, image.scale)
    assert everything.so_far is None  # linked, they are fewer
    desk.viewer.dims.order = (0, 1, 2)
    found.set()
    desk.finish()
    assert names(desk) == ["image", "Everything in image"]


def test_a_hidden_or_passed_plane_of_outlines_is_filled_all_the_same(desk, found):
    desk.open(np.zeros((3, 60, 80)), axis_labels=("z", "y", "x"))
    preview = start(desk, count=1)
    preview.visible = False
    desk.viewer.dims.set_current_step(0, 2)
    desk.run_until(lambda: len(places(preview)) == 2)


def test_objects_outside_of_a_drawn_area_are_not_outlined(desk, found):
    image = desk.open(np.zeros((60, 80)))
    region = add_region(desk.viewer, image, desk.control.annotator.plane())
    region.add_polygons([[0, 0], [0, 40], [44, 40], [44, 30], [22, 30], [22, 0]])
    preview = start(desk, count=1, scope=Scope.REGION, region_from=region.unique_id)
    np.testing.assert_allclose(places(preview), [(11.5, 11.5)])
    assert desk.control.everything.so_far == 1


@pytest.mark.parametrize("victim", ["image", "outlines", "everything"])
def test_what_is_deleted_during_a_run_is_not_brought_back(desk, found, notes, victim):
    image = desk.open(np.zeros((60, 80)))
    preview = start(desk, count=1)
    if victim == "everything":
        desk.viewer.layers.clear()
    else:
        desk.viewer.layers.remove(image if victim == "image" else preview)
    desk.run_until(lambda: sum(isinstance(step, Outlined) for step in desk.progress) == 2)
    assert names(desk) == (["image"] if victim == "outlines" else [])
    found.set()
    desk.finish()
    assert names(desk) == (["image", "Everything in image"] if victim == "outlines" else [])


def test_cancelling_takes_the_outlines_away_and_keeps_what_was_found(desk, found):
    desk.open(np.zeros((60, 80)))
    start(desk)
    desk.control.everything.stop()
    found.set()
    desk.finish()
    assert RUNNING not in names(desk)
    assert desk.control.everything.so_far is None


def test_a_run_started_while_another_one_is_stopping_has_its_own_outlines(desk, found):
    desk.open(np.zeros((60, 80)))
    former = start(desk)
    desk.control.everything.stop()
    assert start(desk).unique_id != former.unique_id
    assert names(desk) == ["image", RUNNING]
    found.set()
    desk.finish()
    assert names(desk) == ["image", "Everything in image"]


def test_the_result_is_on_the_screen_before_the_outlines_are_removed(desk, found):
    """Removing a layer takes napari longer than adding the result."""
    desk.open(np.zeros((60, 80)))
    preview, waiting = start(desk), []
    desk.control.everything.later = waiting.append
    found.set()
    desk.finish()
    assert not preview.visible
    assert "Everything in image" in names(desk)
    waiting.pop()()
    assert names(desk) == ["image", "Everything in image"]
    assert desk.control.segment_everything()
    desk.run_until(lambda: RUNNING in desk.viewer.layers)
    desk.finish()
    assert waiting
    desk.control.close()  # before it was time
    assert RUNNING not in names(desk)


def test_the_outlines_go_with_the_tool_and_stay_in_their_own_viewer(new_desk, found):
    one, other = new_desk(), new_desk()
    for desk in (one, other):
        desk.open(np.zeros((60, 80)))
        start(desk)
    one.control.close()
    assert names(one) == ["image"]
    assert names(other) == ["image", RUNNING]
    found.set()
    other.finish()
    assert names(other) == ["image", "Everything in image"]


def test_the_embedded_model_outlines_almost_what_it_finds_in_the_end(segmenter, nuclei):
    from napari_lightsam import EverythingConfig, drain

    image = nuclei[0][:192, :192]
    steps = []
    work = segmenter.everything(image, EverythingConfig(object_size=26, batch=2))
    result = drain(outlined(work, (0, 0, *image.shape)), steps.append)
    assert all(step.found is None for step in steps)  # nothing large goes to the window
    shown = [step for step in steps if isinstance(step, Outlined)]
    assert len(shown) > 1
    edges = np.zeros(image.shape, bool)
    for step in shown:
        edges[step.rows, step.columns] = True
    inner = result.labels * ndimage.grey_erosion(result.labels > 0, 3)
    assert abs(shown[-1].count - len(result.scores)) <= 2
    assert len(np.unique(result.labels[edges])) >= len(result.scores) - 1
    assert np.count_nonzero(edges & (inner > 0)) < 0.3 * np.count_nonzero(edges)


def test_the_widget_counts_what_was_found_so_far(qtbot, desk, found):
    from napari_lightsam.plugin.widget.everything import EverythingSection

    desk.open(np.zeros((60, 80)))
    section = EverythingSection(desk.control)
    qtbot.addWidget(section)
    start(desk)
    assert section.count.text() == "2 objects so far"
    found.set()
    desk.finish()
    assert section.count.text() == "4 objects"
    qtbot.waitUntil(lambda: names(desk) == ["image", "Everything in image"], timeout=10_000)
    section.finish()
