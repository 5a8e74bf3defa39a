"""Whatever is done to the work on an image is on the disk soon after, and nothing that was found is lost."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import tifffile

from napari_lightsam.formats.atomic import WriteError
from napari_lightsam.plugin.objects import quality, results
from napari_lightsam.plugin.objects.made import Made, note_made
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.sessions import document as sessions_document
from napari_lightsam.plugin.sessions import writing as sessions_writing
from napari_lightsam.plugin.sessions.hashes import Hashes
from napari_lightsam.plugin.sessions.shelf import KEPT, Shelf, beside, never_saved, prune_never_saved
from napari_lightsam.plugin.viewer.layers import ours
from napari_lightsam.session import read_document
from napari_lightsam.session.picture import hash_pixels


def settle(desk):
    desk.finish()
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    desk.finish()


def annotate(desk, *clicks):
    for at in clicks:
        desk.click(*at)
        desk.commit()
        settle(desk)


def pixels(number=0):
    return np.arange(3600.0).reshape(60, 60) + number


def kept(number=0):
    """The newest file that autosaving wrote of an image."""
    return read_document(never_saved("image", hash_pixels(pixels(number))).newest())


def labels(number=0):
    return np.unique(kept(number).labels[0].data).tolist()


def test_undo_and_redo_are_saved_by_themselves(desk):
    desk.open(pixels())
    annotate(desk, (10, 10), (40, 40))
    desk.control.single.undo()
    settle(desk)
    assert labels() == [0, 1]
    desk.control.single.redo()
    settle(desk)
    assert labels() == [0, 1, 2]


def test_an_undo_in_a_hidden_layer_is_saved_when_the_window_is_closed(new_desk):
    desk = new_desk()
    desk.open(pixels())
    annotate(desk, (10, 10), (40, 40))
    desk.target().visible = False
    desk.target().undo()
    desk.control.close()
    assert labels() == [0, 1]


def test_a_slider_alone_writes_nothing(desk):
    desk.open(np.zeros((3, 60, 60)), axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 0)
    annotate(desk, (0, 10, 10))
    version = desk.control.sessions.version(desk.control.annotator.image_id)
    desk.viewer.dims.set_point(0, 2)
    desk.target().visible = False
    desk.target().visible = True
    settle(desk)
    assert desk.control.sessions.version(desk.control.annotator.image_id) == version


def test_another_choice_among_what_a_run_found_is_saved(desk):
    desk.open(pixels())
    desk.control.segment_everything()
    settle(desk)
    assert labels() == [0, 1, 2, 3, 4]
    everything = desk.control.everything
    everything.choose(replace(everything.choices, config=replace(everything.choices.config, balance=-0.5)))
    settle(desk)
    assert labels() == np.unique(desk.target().data).tolist() == [0, 1, 2]


def test_a_large_object_in_a_layer_of_its_own_is_saved(desk, monkeypatch):
    monkeypatch.setattr(results, "LARGEST_STEP", 40)
    desk.open(pixels())
    annotate(desk, (30, 30))
    assert kept().labels[0].name == "Large object in image"


def test_verdicts_and_accepted_objects_are_saved(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    curating, checking = desk.control.curating, desk.control.checking
    curating.use_layer(desk.target())
    curating.measure()
    desk.finish()
    curating.accept([1])
    settle(desk)
    assert kept().labels[0].note["accepted"] == [1]
    checking.start(1)
    checking.judge(quality.Verdict.CORRECT)
    settle(desk)
    assert kept().labels[0].quality["verdicts"] == {"1": "correct"}


def test_open_prompts_are_saved_when_the_window_is_closed(new_desk):
    desk = new_desk()
    desk.open(pixels())
    desk.click(30, 20)
    desk.control.close()
    assert [prompt["points"] for prompt in kept().prompts] == [[[30.0, 20.0, True]]]


def test_work_on_an_image_that_is_left_is_saved_whenever_that_is(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    desk.click(40, 40)
    desk.commit()
    following = desk.viewer.add_image(pixels(1), name="image")
    desk.control.shown.use_image(following)  # before anything could be written
    settle(desk)
    assert labels() == [0, 1, 2]


def test_a_brush_on_labels_of_another_image_is_saved_with_that_image(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    of_first = desk.target()
    desk.click(50, 50)
    desk.open(pixels(1))
    of_first.paint((40, 40), 2)
    settle(desk)
    assert labels() == [0, 1, 2]
    assert len(kept().prompts) == 1  # they were open when the image was left
    assert never_saved("image", hash_pixels(pixels(1))).newest() is None


def test_layers_that_are_removed_do_not_take_their_work_along(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    desk.click(40, 40)
    desk.commit()
    desk.viewer.layers.clear()
    settle(desk)
    assert labels() == [0, 1, 2]


def test_work_after_a_layer_was_removed_does_not_take_the_place_of_its_file(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    desk.click(40, 40)
    desk.commit()
    gone = desk.target()
    desk.viewer.layers.remove(gone)  # before the last object was written
    annotate(desk, (10, 40))
    newest, former = never_saved("image", hash_pixels(pixels())).files()[:2]
    assert [np.unique(read_document(file).labels[0].data).tolist() for file in (newest, former)] == [
        [0, 1], [0, 1, 2],
    ]  # fmt: skip


def test_work_of_an_earlier_window_is_set_aside_and_offered_once(desk, new_desk, monkeypatch, notes):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    desk.open(pixels())
    annotate(desk, (10, 10), (10, 30), (10, 50))
    found = desk.target().data.copy()

    other = new_desk()  # the first window was killed
    image = other.open(pixels())
    settle(other)
    assert len([text for _, text in notes if "never saved" in text]) == 1
    for at in ((40, 10), (40, 30), (40, 50), (50, 20)):
        now[0] += 6
        annotate(other, at)
    aside = other.control.sessions.unsaved
    assert aside.parent.parent.name == "set aside"
    assert len([text for _, text in notes if str(aside) in text]) == 1
    assert other.control.status.startswith("Object 4 saved.")  # what was done last
    np.testing.assert_array_equal(read_document(aside).labels[0].data, found)
    other.open(pixels(1))
    other.control.shown.use_image(image)
    settle(other)
    assert other.control.sessions.unsaved == aside
    assert len([text for _, text in notes if "never saved" in text]) == 1
    assert other.control.sessions.restore()
    assert other.control.status == "The work that was not saved is back."
    settle(other)
    assert other.control.sessions.unsaved is None
    assert {len(record.objects) for record in kept().labels} == {3, 4}  # both are in the newest file


def test_work_that_is_open_here_is_never_offered(desk):
    image = desk.open(pixels())
    annotate(desk, (10, 10))
    desk.open(pixels(1))
    desk.control.shown.use_image(image)
    settle(desk)
    assert desk.control.sessions.unsaved is None


def test_what_was_taken_up_again_is_gone_on_with(desk, new_desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    other = new_desk()
    other.open(pixels())
    settle(other)
    assert other.control.sessions.restore()
    annotate(other, (40, 40))
    assert labels() == [0, 1, 2]
    assert other.control.sessions.unsaved is None


def test_thousands_of_objects_are_taken_down_in_a_few_milliseconds(desk):
    image = desk.open(np.zeros((200, 200)))
    annotate(desk, (10, 10))
    prompt = ObjectPrompt(((1.0, 2.0, True), (3.0, 4.0, False)))
    for value in range(2, 3000):
        note_made(desk.target(), value, Made("prompt", 0.9, prompt, area=5, plane=(None, None), model="tiny"))
    seconds = []
    for _ in range(5):
        begun = time.thread_time()
        sessions_document.take_snapshot(desk.control, image, Hashes())
        seconds.append(time.thread_time() - begun)
    assert min(seconds) < 0.02


def test_large_labels_are_copied_before_they_are_written(desk, monkeypatch):
    monkeypatch.setattr(sessions_document, "LARGEST_COPY", 0)
    desk.open(pixels())
    annotate(desk, (10, 10))
    gate, painted = threading.Event(), threading.Event()
    write = sessions_writing.write_document

    def slowly(path, document):
        painted.wait(10)
        gate.set()
        write(path, document)

    monkeypatch.setattr(sessions_writing, "write_document", slowly)
    desk.click(40, 40)
    desk.commit()
    desk.run_until(lambda: not desk.control.sessions.autosave._soon)
    desk.target().data[0, 0] = 70_000  # without a word
    painted.set()
    settle(desk)
    assert labels() in ([0, 1, 2], [0, 1, 2, 70_000])


def test_only_the_newest_images_are_kept_unsaved(tmp_path):
    for number in range(25):
        shelf = never_saved(f"image {number}", f"xxh3-128:{number:016}")
        shelf.folder.mkdir(parents=True, exist_ok=True)
        for kept_one in range(1, KEPT + 1):
            shelf.file(kept_one).write_bytes(b"")
    prune_never_saved()
    left = {path.name.rpartition("~")[0] for path in shelf.folder.iterdir()}
    assert len(left) == 20
    assert Shelf(shelf.folder, shelf.stem).files()


def test_an_image_that_is_edited_in_place_gets_another_hash(desk):
    image = desk.open(np.zeros((512, 512), "uint8"))
    annotate(desk, (10, 10))
    image.data[300, 301] = 7
    assert desk.control.sessions.document().image.pixels_hash == hash_pixels(image.data)


def test_marks_of_labels_without_an_image_are_no_error(desk):
    layer = desk.viewer.add_labels(np.eye(60, dtype=np.int32))
    desk.control.curating.use_layer(layer)
    desk.control.curating.accept([1])
    assert ours(layer)["accepted"] == [1]


def test_what_could_not_be_written_is_written_when_the_window_is_closed(new_desk, monkeypatch):
    desk = new_desk()
    desk.open(pixels())
    annotate(desk, (10, 10))
    write = sessions_writing.write_document

    def full(path, document):
        raise WriteError(f"{path} cannot be written: no space left on the disk.")

    monkeypatch.setattr(sessions_writing, "write_document", full)
    annotate(desk, (40, 40))
    assert "no space left" in desk.control.status
    assert labels() == [0, 1]
    monkeypatch.setattr(sessions_writing, "write_document", write)  # some was freed, and nothing done since
    desk.control.close()
    assert labels() == [0, 1, 2]


def test_a_disk_that_stays_full_keeps_no_window_from_closing(new_desk, monkeypatch, notes):
    desk = new_desk()
    desk.open(pixels())
    annotate(desk, (10, 10))

    def refuse(shelf):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Shelf, "make_room", refuse)
    monkeypatch.setattr(sessions_writing, "SPACING", 0.0)
    annotate(desk, (40, 40))
    assert "read-only" in desk.control.status
    desk.control.close()
    assert desk.control.worker.join(10)
    assert any("read-only" in text for _, text in notes)


def test_what_failed_of_one_image_is_tried_again_with_the_next_change_of_another(desk, monkeypatch):
    first = desk.open(pixels())
    annotate(desk, (10, 10))
    write, here = sessions_writing.write_document, never_saved("image", hash_pixels(pixels())).file()

    def refuse(path, document):
        if path == here:
            raise WriteError(f"{path} cannot be written.")
        write(path, document)

    monkeypatch.setattr(sessions_writing, "write_document", refuse)
    annotate(desk, (40, 40))
    desk.viewer.layers.remove(first)
    settle(desk)
    monkeypatch.setattr(sessions_writing, "write_document", write)
    desk.open(pixels(1))
    annotate(desk, (20, 20))
    assert labels() == [0, 1, 2]


def test_two_windows_on_one_image_do_not_write_over_each_other(desk, new_desk):
    other, later = new_desk(), new_desk()
    for window in (desk, other):
        window.open(pixels())
        settle(window)
    annotate(desk, (10, 10))
    annotate(other, (20, 20), (20, 40))
    annotate(desk, (10, 40), (40, 10))
    shelf = never_saved("image", hash_pixels(pixels()))
    kept_here = [np.unique(read_document(one.newest()).labels[0].data).tolist() for one in shelf.family()]
    assert kept_here == [[0, 1, 2], [0, 1, 2, 3]]
    annotate(other, (40, 40))
    assert labels() == [0, 1, 2, 3]

    later.open(pixels())  # both were killed
    settle(later)
    assert later.control.sessions.unsaved == shelf.newest()  # where something was done last
    assert later.control.sessions.restore()
    annotate(later, (50, 20))
    assert labels() == [0, 1, 2, 3, 4]


def test_saving_in_one_window_leaves_what_another_one_keeps(desk, new_desk, tmp_path):
    other = new_desk()
    for window in (desk, other):
        window.open(pixels())
        settle(window)
    annotate(desk, (10, 10))
    annotate(other, (20, 20), (20, 40))
    assert desk.control.sessions.save(tmp_path / "work.lightsam")
    settle(desk)
    assert labels() == [0, 1, 2]
    annotate(other, (40, 40))
    assert labels() == [0, 1, 2, 3]


def test_work_on_an_image_that_was_renamed_is_found_by_its_first_name(desk, new_desk):
    image = desk.open(pixels())
    annotate(desk, (10, 10))
    image.name = "control, day 3"
    annotate(desk, (40, 40))
    assert labels() == [0, 1, 2]
    other = new_desk()
    other.open(pixels())
    settle(other)
    assert other.control.sessions.restore()
    assert np.unique(other.target().data).tolist() == [0, 1, 2]


@pytest.mark.parametrize("has_file", [True, False])
def test_work_on_a_lazy_image_is_kept_too(desk, new_desk, tmp_path, has_file):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, pixels())
    note = {"role": "image", **({"image_file": str(path)} if has_file else {})}
    other = new_desk()
    for window in (desk, other):
        window.open(da.from_array(pixels()), metadata={"napari-lightsam": dict(note)})
        if window is desk:
            annotate(desk, (10, 10), (40, 40))
    settle(other)
    assert other.control.sessions.restore()
    assert np.unique(other.target().data).tolist() == [0, 1, 2]


def test_a_file_that_was_asked_for_is_written_although_the_window_is_closed(new_desk, tmp_path, monkeypatch):
    desk = new_desk()
    desk.open(pixels())
    annotate(desk, (10, 10))
    write = sessions_writing.write_document

    def slowly(path, document):
        time.sleep(0.1)
        write(path, document)

    monkeypatch.setattr(sessions_writing, "write_document", slowly)
    desk.click(40, 40)
    desk.commit()
    desk.run_until(lambda: not desk.control.sessions.autosave._soon)  # it is being kept by itself
    assert desk.control.sessions.save(tmp_path / "work.lightsam")
    desk.control.close()
    assert np.unique(read_document(tmp_path / "work.lightsam").labels[0].data).tolist() == [0, 1, 2]
    assert never_saved("image", hash_pixels(pixels())).newest() is None  # it is in that file


def test_reading_the_work_does_not_count_as_keeping_it(new_desk):
    desk = new_desk()
    desk.open(pixels())
    desk.control.start("points")
    desk.control.annotator.points.add([30, 20])
    desk.control.sessions.methods_text()
    desk.control.sessions.as_python()
    desk.control.close()
    assert [prompt["points"] for prompt in kept().prompts] == [[[30.0, 20.0, True]]]


def test_the_3d_view_takes_neither_clicks_nor_layers_of_others_out_of_the_work(new_desk, tmp_path):
    desk = new_desk()
    stack = np.arange(10800.0).reshape(3, 60, 60)
    desk.open(stack, axis_labels=("z", "y", "x"))
    desk.viewer.dims.set_point(0, 1)
    theirs = desk.viewer.add_labels(np.zeros(stack.shape, np.int32), name="theirs")
    desk.control.results.target = theirs.unique_id
    annotate(desk, (1, 10, 10))
    desk.click(1, 30, 20)
    settle(desk)
    desk.viewer.dims.ndisplay = 3
    desk.finish()
    assert desk.control.sessions.save(tmp_path / "work.lightsam")
    settle(desk)
    desk.click(1, 30, 20)
    desk.control.close()
    never = never_saved("image", hash_pixels(stack))
    for path in (tmp_path / "work.lightsam", beside(tmp_path / "work.lightsam").newest() or never.newest()):
        document = read_document(path)
        assert document.main.name == "theirs"
        assert document.prompts[0]["points"][0] == [30.0, 20.0, True]
        assert document.prompts[0]["plane"] == [1, None, None]


def test_work_goes_on_when_the_tool_is_closed_and_opened_again(new_desk, tmp_path, notes):
    desk = new_desk()
    image = desk.open(pixels())
    annotate(desk, (10, 10))
    objects = desk.target()
    desk.click(40, 40)
    settle(desk)
    desk.control.close()
    desk.control.annotator.remove_prompts()  # as the widget does
    again = new_desk(desk.viewer)
    again.control.shown.use_image(image)
    settle(again)
    assert again.control.sessions.unsaved is None
    assert not [text for _, text in notes if "never saved" in text]
    assert again.commit().layer == objects.unique_id  # of the click that was open
    settle(again)
    assert labels() == [0, 1, 2]
    assert not (never_saved("image", hash_pixels(pixels())).folder / "set aside").exists()
    assert again.control.sessions.save(tmp_path / "work.lightsam")
    settle(again)
    again.control.close()
    third = new_desk(desk.viewer)
    third.control.shown.use_image(image)
    settle(third)
    assert third.control.sessions.path == tmp_path / "work.lightsam"


def saved_with_a_click(new_desk, path):
    """Save one object and an open click to a file, and open that in another window."""
    desk = new_desk()
    desk.open(pixels())
    annotate(desk, (10, 10))
    desk.click(40, 40)
    assert desk.control.sessions.save(path)
    settle(desk)
    desk.control.close()
    return open_saved(new_desk, path)


def open_saved(new_desk, path):
    desk = new_desk()
    image, *_ = desk.viewer.open(str(path), plugin="napari-lightsam")
    desk.control.shown.use_image(image)
    settle(desk)
    return desk


def open_points(desk):
    return [at for prompt in desk.control.annotator.read_prompts() for at in prompt.points]


def test_clicks_that_are_in_the_saved_file_come_back_when_the_tool_is_opened_again(new_desk, tmp_path):
    desk = saved_with_a_click(new_desk, tmp_path / "work.lightsam")
    objects, image = desk.target(), desk.control.annotator.image
    desk.control.close()
    desk.control.annotator.remove_prompts()  # as the widget does
    again = new_desk(desk.viewer)
    again.control.shown.use_image(image)
    settle(again)
    assert open_points(again) == [(40, 40, True)]
    assert again.control.sessions.unsaved is None
    assert again.commit().layer == objects.unique_id


def test_objects_go_on_into_the_layer_that_was_chosen_when_the_tool_is_opened_again(new_desk):
    desk = new_desk()
    image = desk.open(pixels())
    annotate(desk, (10, 10))
    lower = desk.control.results.target
    desk.control.results.target = None
    annotate(desk, (40, 40))
    assert desk.control.results.target != lower
    desk.control.results.target = lower
    annotate(desk, (10, 40))
    desk.control.close()
    again = new_desk(desk.viewer)
    again.control.shown.use_image(image)
    settle(again)
    assert again.control.results.target == lower


def test_a_click_on_an_image_that_was_renamed_comes_back_when_the_tool_is_opened_again(new_desk):
    desk = new_desk()
    image = desk.open(pixels())
    annotate(desk, (10, 10))
    image.name = "control, day 3"
    desk.click(40, 40)
    desk.control.close()
    desk.control.annotator.remove_prompts()  # as the widget does
    again = new_desk(desk.viewer)
    again.control.shown.use_image(image)
    settle(again)
    assert open_points(again) == [(40, 40, True)]


@pytest.mark.parametrize("commits", [False, True], ids=["clicks alone", "objects too"])
def test_clicks_after_saving_take_the_place_of_those_in_the_file(new_desk, tmp_path, commits):
    path = tmp_path / "work.lightsam"
    desk = saved_with_a_click(new_desk, path)
    if commits:
        desk.commit()
    desk.click(20, 50)
    wanted = open_points(desk)
    desk.control.close()
    again = open_saved(new_desk, path)
    if commits:
        assert again.control.sessions.restore()
        settle(again)
    assert again.control.sessions.unsaved is None
    assert open_points(again) == wanted


def test_two_images_that_cannot_be_told_apart_do_not_share_their_files(desk):
    first = desk.open(pixels())
    annotate(desk, (10, 10), (40, 40))
    first.name = "control, day 3"
    labels_of_first = desk.target()
    desk.open(pixels())
    labels_of_first.visible = False
    labels_of_first.translate = (1000, 1000)  # else they lie on both
    annotate(desk, (10, 40))
    shelf = never_saved("image", hash_pixels(pixels()))
    kept_here = [np.unique(read_document(one.newest()).main.data).tolist() for one in shelf.family()]
    assert kept_here == [[0, 1, 2], [0, 1]]


def test_a_correction_that_is_left_open_names_its_layer_whatever_is_moved(desk):
    desk.open(pixels())
    annotate(desk, (10, 10))
    objects = desk.target()
    assert desk.control.suggested.correct(objects, 1)
    desk.finish()
    desk.open(pixels(1))
    below = desk.viewer.add_labels(np.zeros((60, 60), np.int32), name="below")
    desk.viewer.layers.move(desk.viewer.layers.index(below), 0)
    objects.paint((50, 50), 7)
    settle(desk)
    document = kept()
    (prompt,) = document.prompts
    assert document.labels[prompt["corrects"]["labels"]].name == objects.name
