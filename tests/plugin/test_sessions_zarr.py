"""Work on OME-Zarr images is saved and opened again like any other; their pixels stay where they are."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
import zarr

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import read_image
from napari_lightsam.plugin.reader import read_lightsam
from napari_lightsam.plugin.viewer.axes import level0
from napari_lightsam.session import read_document
from napari_lightsam.session.picture import hash_sample, is_same

PIXELS = np.arange(2 * 60 * 80, dtype="uint16").reshape(2, 60, 80)


def write_ome(folder, pixels, axes):
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for level in range(2):
        step = 2**level
        part = pixels[..., ::step, ::step]
        group.create_array(
            str(level), shape=part.shape, dtype=part.dtype, chunks=(1,) * (part.ndim - 2) + (32, 32)
        )[:] = part
    datasets = [{"path": "0"}, {"path": "1"}]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": [{"name": axis} for axis in axes], "datasets": datasets}
    ]
    return folder


def save(desk, path):
    assert desk.control.sessions.save(path)
    desk.run_until(lambda: not desk.control.sessions.is_busy)
    return path


def test_work_on_an_ome_zarr_image_is_dropped_into_another_window_and_goes_on(desk, new_desk, tmp_path, tiny):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS[0], "yx")
    (image,) = desk.viewer.open(str(folder), plugin="napari")
    assert image.multiscale
    desk.control.shown.use_image(image)
    desk.finish()
    desk.click(30, 20)
    desk.commit()
    desk.click(40, 60)
    path = save(desk, tmp_path / "work.lightsam")
    record = read_document(path).image
    line = next(one for one in desk.control.sessions.as_python().splitlines() if one.startswith("image = "))
    np.testing.assert_array_equal(eval(line.partition("=")[2], {"read_image": read_image}), PIXELS[0])
    assert (record.path, record.pixels) == (folder, None)

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(folder, moved)
    path = shutil.move(path, moved)
    other = new_desk()
    picture, labels = other.viewer.open(str(path), plugin="napari-lightsam")
    assert picture.multiscale
    assert [level.shape for level in picture.data] == [(60, 80), (30, 40)]
    assert not isinstance(level0(picture), np.ndarray)  # and is read as it is looked at
    np.testing.assert_array_equal(level0(picture), PIXELS[0])
    np.testing.assert_array_equal(labels.data, desk.target().data)
    other.control.shown.use_image(picture)
    other.finish()
    assert len(other.control.single.answer.masks()) == 1  # of the open click
    assert other.commit().ids == (2,)
    again = read_document(save(other, moved / "again.lightsam"))
    assert (again.image.path, again.image.pixels_hash) == (moved / folder.name, record.pixels_hash)


def test_another_zarr_folder_of_the_same_name_is_refused(desk, tmp_path):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS[0], "yx")
    (image,) = desk.viewer.open(str(folder), plugin="napari")
    desk.control.shown.use_image(image)
    path = save(desk, tmp_path / "work.lightsam")
    write_ome(folder, PIXELS[1], "yx")
    with pytest.raises(FileError, match=r"belongs to another image than .*cells\.ome\.zarr"):
        read_lightsam(str(path))
    shutil.rmtree(folder)
    with pytest.raises(FileError, match=r"which is not at"):
        read_lightsam(str(path))


def test_a_channel_that_was_a_layer_of_its_own_is_found_again(desk, tmp_path):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS[None], "tcyx")
    levels = [zarr.open(folder, mode="r")[str(level)][:, 1] for level in range(2)]  # as OME-Zarr readers do
    note = {"napari-lightsam": {"role": "image", "version": 1, "image_file": str(folder)}}
    desk.control.shown.use_image(desk.viewer.add_image(levels, name="second channel", metadata=note))
    (layer, *_) = read_lightsam(str(save(desk, tmp_path / "work.lightsam")))
    data, keywords, _ = layer
    assert keywords["multiscale"]
    assert [level.shape for level in data] == [(1, 60, 80), (1, 30, 40)]
    np.testing.assert_array_equal(data[0][0], PIXELS[1])
    np.testing.assert_array_equal(data[1][0], PIXELS[1, ::2, ::2])


def test_the_script_reads_the_channel_that_was_a_layer_of_its_own(desk, tiny, tmp_path, monkeypatch):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS, "cyx")
    levels = [zarr.open(folder, mode="r")[str(level)][1] for level in range(2)]
    note = {"napari-lightsam": {"role": "image", "version": 1, "image_file": str(folder)}}
    desk.control.shown.use_image(desk.viewer.add_image(levels, name="second channel", metadata=note))
    desk.finish()
    desk.click(30, 20)
    desk.commit()
    labels = desk.target()
    labels.paint((50, 50), 7)
    save(desk, tmp_path / "work.lightsam")
    script = desk.control.sessions.as_python()
    tiny.embedded.clear()
    monkeypatch.setattr("napari_lightsam.load_segmenter", lambda name, **_: tiny)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "script", "exec"), {})
    np.testing.assert_array_equal(tiny.embedded[0][0], PIXELS[1])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "cells.ome_labels.tif"), labels.data)


def test_unsaved_work_on_a_zarr_folder_is_found_again(desk, new_desk, tmp_path):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS[0], "yx")
    for table in (desk, other := new_desk()):
        (image,) = table.viewer.open(str(folder), plugin="napari")
        table.control.shown.use_image(image)
        table.finish()
        if table is desk:
            desk.click(30, 20)
            desk.commit()
        table.run_until(lambda table=table: not table.control.sessions.is_busy)
    assert other.control.sessions.restore()
    np.testing.assert_array_equal(other.target().data, desk.target().data)


def test_settings_written_by_hand_may_name_a_zarr_folder(tmp_path, monkeypatch):
    write_ome(tmp_path / "cells.ome.zarr", PIXELS[0], "yx")
    path = tmp_path / "cells.lightsam"
    path.write_text('{"format": "napari-lightsam", "version": 1, "image": "cells.ome.zarr"}')
    found = np.zeros((60, 80), np.int32)
    monkeypatch.setattr("napari_lightsam.plugin.reader._segment", lambda plane, rgb, session: (found, {}))
    (picture, _, _), (labels, _, _) = read_lightsam(str(path))
    np.testing.assert_array_equal(picture, PIXELS[0])
    assert labels.shape == (60, 80)


def test_a_hash_of_some_blocks_tells_shape_type_and_values():
    image = np.arange(3 * 200 * 300, dtype="uint16").reshape(3, 200, 300)
    changed = image.copy()
    changed[0, 0, 0] += 1
    assert is_same(image, hash_sample(image))
    for other in (changed, image.astype("int16"), image[:2], image[:, :, ::-1]):
        assert not is_same(other, hash_sample(image))


def test_a_zarr_folder_that_was_damaged_meanwhile_is_refused_in_words(desk, tmp_path):
    folder = write_ome(tmp_path / "cells.ome.zarr", PIXELS[0], "yx")
    (image,) = desk.viewer.open(str(folder), plugin="napari")
    desk.control.shown.use_image(image)
    path = save(desk, tmp_path / "work.lightsam")
    (folder / "0" / "0.0").write_bytes(b"no chunk")
    with pytest.raises(FileError, match="cannot be read"):
        read_lightsam(str(path))
    assert save(desk, tmp_path / "again.lightsam").is_file()
