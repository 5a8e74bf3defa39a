"""A command that is stopped or killed: soon over, and nobody writes once its output is free again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_lightsam.batch.lock import LOCK
from napari_lightsam.samples import read_sample

SOON = 12  # seconds on a machine where others work too; an image here takes minutes there
COMMAND = (
    # whoever starts the tests in the background may have SIGINT ignored in all of them
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from napari_lightsam.cli import main; main()"
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of which two are done soon, whatever end is first, and the others take very long."""
    folder = tmp_path_factory.mktemp("images")
    nuclei = read_sample("nuclei_fluorescence")
    for name in "abyz":
        tifffile.imwrite(folder / f"{name}.tif", nuclei[120:184, 240:304])
    for name in "mnop":
        tifffile.imwrite(folder / f"{name}.tif", np.tile(nuclei[:512, :512], (6, 6)))
    return folder


def start(folder: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, "segment", str(folder), "-o", str(out), "--object-size", "26"]
    running = subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    until = time.monotonic() + 240
    while len(list(out.glob("?_labels.json"))) < 2:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(1)
    return running


def workers(running: subprocess.Popen[str]) -> list[int]:
    """Processes that a command began and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
            what = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        ours = int(fields[3]) == running.pid and int(path.parent.name) != running.pid
        # one that has no memory any more has ended, though the system is not done with it
        if ours and what and fields[0] != "Z" and b"resource_tracker" not in what:
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("scheduler", ["", "threads", "processes"])
def test_ctrl_c_ends_a_batch_soon_and_keeps_its_lock_until_nobody_writes(
    folder: Path, tmp_path: Path, scheduler: str
) -> None:
    options = ["--scheduler", scheduler, "--workers", "2"] if scheduler else []
    running = start(folder, tmp_path, *options)
    assert len(workers(running)) == (2 if scheduler == "processes" else 0)
    begun = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    while running.poll() is None and time.monotonic() < begun + 10 * SOON:
        free = not (tmp_path / LOCK).exists()
        assert not (free and workers(running)), "others may write before this run has ended"
        time.sleep(0.02)
    took = time.monotonic() - begun
    _, said = running.communicate(timeout=60)

    assert took < SOON
    assert running.returncode == 130, said
    assert "Stopped. What is finished is in" in said
    assert "Traceback" not in said
    assert "leaked" not in said
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_workers_of_a_command_that_was_killed_end_with_it(folder: Path, tmp_path: Path) -> None:
    running = start(folder, tmp_path, "--scheduler", "processes", "--workers", "2")
    assert len(workers(running)) == 2
    running.kill()
    running.communicate(timeout=60)
    until = time.monotonic() + SOON
    while workers(running) and time.monotonic() < until:
        time.sleep(0.02)
    left = workers(running)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
