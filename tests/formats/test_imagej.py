"""ImageJ itself opens what is exported for it: labels, outlines, calibration and planes are the same."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_lightsam.formats.export import write_objects
from napari_lightsam.formats.objects import Objects, Position

if TYPE_CHECKING:
    from pathlib import Path

IMAGEJ, DISPLAY = shutil.which("imagej"), shutil.which("xvfb-run")

pytestmark = pytest.mark.skipif(
    not (IMAGEJ and DISPLAY), reason="needs ImageJ and a display of its own: Debian's imagej and xvfb"
)

MACRO = """
setBatchMode(true);
open("LABELS");
getVoxelSize(width, height, depth, unit);
getDimensions(columns, rows, channels, slices, frames);
print("image", columns, rows, channels, slices, frames, width, height, depth, unit);
run("ROI Manager...");
roiManager("open", "ROIS");
for (i = 0; i < roiManager("count"); i++) {
  roiManager("select", i);
  Roi.getPosition(channel, slice, frame);
  getSelectionBounds(x, y, across, down);
  getStatistics(calibrated);
  getRawStatistics(pixels, mean, low, high);
  print("roi", Roi.getName, pixels, calibrated, y, x, y + down, x + across, channel, slice, frame, low, high);
}
"""


def plane(number: int) -> np.ndarray:
    """Objects with a hole, in two parts, at all borders, of one pixel; ids that repeat on every plane."""
    labels, (y, x) = np.zeros((60, 80), np.int32), np.mgrid[:60, :80]
    away = (y - 20) ** 2 + (x - 30) ** 2
    labels[(away < 120) & (away >= 20 + number)] = 1
    labels[away < 5] = 2  # in the hole
    labels[:9, : 5 + number] = labels[55:, 70:] = 300
    labels[10 : 14 + number, 10:15] = labels[14 + number : 20, 15:19] = 7  # which meet at a corner
    labels[5, 60] = 9
    labels[59, 0] = 10 + number
    return labels


def ask(folder: Path, objects: Objects) -> tuple[list[str], list[list[str]]]:
    """Open the exports of some objects in ImageJ; returns what it says of the image and of each ROI."""
    labels, rois, macro = (folder / name for name in ("a_labels.tif", "a_rois.zip", "ask.ijm"))
    write_objects(labels, objects)
    write_objects(rois, objects)
    macro.write_text(MACRO.replace("LABELS", str(labels)).replace("ROIS", str(rois)))
    command = [str(DISPLAY), "-a", str(IMAGEJ), "-b", str(macro)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = running.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):  # a wrong macro waits for somebody to read what is wrong
            os.killpg(running.pid, signal.SIGKILL)
    said = [line.split() for line in output.splitlines()]
    images = [words[1:] for words in said if words[:1] == ["image"]]
    assert len(images) == 1, output
    return images[0], [words[1:] for words in said if words[:1] == ["roi"]]


@pytest.mark.parametrize(
    ("axes", "shape"), [("YX", ()), ("ZYX", (3,)), ("TYX", (3,)), ("TZYX", (2, 3))], ids=lambda v: str(v)
)
def test_imagej_measures_the_objects_that_were_exported(tmp_path: Path, axes: str, shape: tuple) -> None:
    n = int(np.prod(shape, dtype=int))
    stack = np.stack([plane(number) for number in range(n)]).reshape(*shape, 60, 80)
    size, step = (0.5, 0.25), 2.0 if "Z" in axes else None
    image, rois = ask(tmp_path, Objects(stack, axes=axes, pixel_size=size, z_step=step))

    sizes = dict(zip(axes, stack.shape, strict=True))
    assert [int(value) for value in image[:5]] == [80, 60, 1, sizes.get("Z", 1), sizes.get("T", 1)]
    assert [float(value) for value in image[5:8]] == [0.25, 0.5, step or 1.0]
    assert image[8] in ("µm", "micron")
    found, wanted = {}, {}
    for name, pixels, area, *rest in rois:
        box, (channel, z, t), values = rest[:4], rest[4:7], rest[7:]
        assert channel in ("0", "1")
        assert {float(value) for value in values} == {float(name)}  # of that plane, all of them
        assert float(area) == pytest.approx(int(pixels) * 0.125, abs=1e-3)
        if axes == "TYX":  # no hyperstack to ImageJ, where the slices of a plain stack are its time points
            z, t = t, z
        found[int(name), max(1, int(z)), max(1, int(t))] = int(pixels), [int(value) for value in box]
    for at in np.ndindex(*shape):
        step_of = dict(zip(axes, at, strict=False))
        for label in np.unique(stack[at])[1:].tolist():
            y, x = np.nonzero(stack[at] == label)
            key = label, 1 + step_of.get("Z", 0), 1 + step_of.get("T", 0)
            wanted[key] = len(y), [y.min(), x.min(), y.max() + 1, x.max() + 1]
    assert len(rois) == len(wanted)
    assert found == wanted


def test_outlines_of_one_plane_lie_on_that_plane_of_the_image(tmp_path: Path) -> None:
    _, rois = ask(tmp_path, Objects(plane(0), position=Position(c=1, z=2, t=3)))
    assert {tuple(words[7:10]) for words in rois} == {("2", "3", "4")}


def test_outlines_far_from_the_corner_are_exact(tmp_path: Path) -> None:
    labels = np.zeros((4, 40_000), np.int32)
    labels[1:3, 39_990:39_999], labels[:, 32_760:32_770] = 5, 6
    _, rois = ask(tmp_path, Objects(labels))
    assert [words[:1] + words[3:7] for words in rois] == [
        ["5", "1", "39990", "3", "39999"],
        ["6", "0", "32760", "4", "32770"],
    ]
    assert [int(words[1]) for words in rois] == [18, 40]
