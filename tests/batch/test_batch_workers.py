"""A batch on several workers gives what one after the other gives, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from napari_lightsam.batch import BatchSettings, Recipe, segment_many, worker_model
from napari_lightsam.batch.lock import LOCK, locked
from napari_lightsam.batch.run import attempt_job
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.download import find_weights
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.engine.segmenter import load_segmenter
from napari_lightsam.engine.stopping import check_stopped, stoppable
from napari_lightsam.engine.warned import LightSamWarning, Warned, hearing, tell
from napari_lightsam.errors import FileError
from thresholder import Thresholder, discs, write

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

SETTINGS = BatchSettings(config=EverythingConfig(object_size=26), precision="float32", runtime="torch")


@dataclass
class Talkative(Thresholder):
    """Says something of each image while the other one is being segmented."""

    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))

    def everything(self, plane: np.ndarray, *rest: object, **more: object) -> Generator:
        self.together.wait()
        tell(f"the brightest is {plane.max()}")
        self.together.wait()
        return (yield from super().everything(plane, *rest, **more))


def test_what_is_said_of_an_image_stays_with_it_where_threads_work_at_once(tmp_path: Path) -> None:
    for value in (100, 200):
        write(tmp_path / f"{value}.tif", (discs() > 0).astype(np.uint8) * value)
    before = list(warnings.filters)
    work = segment_many(
        [tmp_path / "100.tif", tmp_path / "200.tif"], tmp_path / "out", Recipe(SETTINGS),
        segmenter=Talkative(), scheduler="threads", workers=2,
    )  # fmt: skip
    said = [outcome.flags[0] for outcome in drain(work).outcomes]
    assert said == ["the brightest is 100", "the brightest is 200"]
    # libraries that filter their own warnings in several threads leave some of these filters behind
    assert not [one for one in warnings.filters if one not in before and one[2] is LightSamWarning]
    assert not worker_model._loaded  # the model is not kept when the run is over


def test_the_nearest_listener_hears_and_without_any_python_warns() -> None:
    here, everywhere = [], []
    listening = Warned(everywhere.append)
    with hearing(here.append):
        tell("one")
        other = threading.Thread(target=tell, args=("two",))
        other.start()
        other.join()
        tell("three")
    tell("four")
    listening.close()
    assert (here, everywhere) == (["one", "three"], ["two", "four"])
    with pytest.warns(LightSamWarning, match="five") as caught:
        tell("five")
    assert caught[0].filename == __file__


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of one's own: those of the package, a little changed."""
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    with safe_open(find_weights("lightsam")[0], "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        about = file.metadata()
    name = next(name for name in tensors if name.endswith("bias"))
    tensors[name] += 1e-4
    save_file(tensors, path, metadata=about)
    return path


def test_workers_load_the_model_that_was_given_and_not_that_of_the_recipe(
    checkpoint: Path, nuclei, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    segmenter = load_segmenter("./mine.safetensors", precision="float32", runtime="torch")
    assert segmenter.source == str(checkpoint)
    assert load_segmenter("lightsam").source == "lightsam"
    source = write(tmp_path / "a.tif", nuclei[0][:64, :64])
    work = segment_many(
        [source], tmp_path / "out", Recipe(SETTINGS), segmenter=segmenter, scheduler="processes", workers=1
    )
    (outcome,) = drain(work).outcomes
    assert (outcome.status, outcome.message) == ("written", "")


@pytest.mark.parametrize("end", ["cancelled", "fails"])
def test_nothing_stays_of_a_batch_on_threads_that_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    sources = [write(tmp_path / f"{i}.tif") for i in range(6)]
    model = Slow()
    work = segment_many(
        sources, tmp_path / "out", Recipe(SETTINGS), segmenter=model, scheduler="threads", workers=1
    )
    if end == "cancelled":
        while next(work).stage != "segmenting images":
            pass
        assert (tmp_path / "out" / LOCK).exists()
        next(work)
        begun = time.monotonic()
        work.close()
        assert time.monotonic() - begun < 5  # an image takes half a minute
    else:
        monkeypatch.setattr("napari_lightsam.batch.run.attempt_job", fail)
        with pytest.raises(ZeroDivisionError):
            drain(work)
    assert not list((tmp_path / "tmp").iterdir())
    assert not (tmp_path / "out" / LOCK).exists()
    model.go_on.set()
    time.sleep(0.3)
    assert model.calls <= 2  # the one that was under way, not all that waited


@dataclass
class Slow(Thresholder):
    """Waits until it is told to go on."""

    go_on: threading.Event = field(default_factory=threading.Event)

    def everything(self, plane: np.ndarray, *rest: object, **more: object) -> Generator:
        until = time.monotonic() + 30
        while not self.go_on.wait(0.05) and time.monotonic() < until:
            check_stopped()  # as every network does
        return (yield from super().everything(plane, *rest, **more))


def fail(batch: object, job: object) -> Generator:
    yield Progress("failing", 0, 0)
    raise ZeroDivisionError


class LostCluster:
    """A client whose scheduler ends after the first task."""

    scheduler = SimpleNamespace(address="tcp://host:8786")

    def scheduler_info(self, **_: object) -> dict:
        return {"workers": {}}

    def compute(self, tasks: list, **_: object) -> list:
        return [LostFuture(task, number) for number, task in enumerate(tasks)]

    def cancel(self, *_: object, **__: object) -> None:
        raise OSError("nobody is there")


class LostFuture:
    def __init__(self, task: Any, number: int) -> None:
        self.task, self.key, self.status = task, task.key, "cancelled" if number else "finished"

    def add_done_callback(self, call: Any) -> None:
        call(self)

    def result(self) -> Any:
        if self.status == "cancelled":
            raise CancelledError
        return self.task.compute(scheduler="sync")


def test_of_a_batch_whose_cluster_is_lost_the_summary_is_written(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    sources = [write(tmp_path / f"{i}.tif") for i in range(3)]
    work = segment_many(
        sources, tmp_path / "out", Recipe(SETTINGS), segmenter=Thresholder(), scheduler=LostCluster()
    )
    report = drain(work)
    assert [outcome.status for outcome in report.outcomes] == ["written", "failed", "failed"]
    assert "the same command goes on from what is finished" in report.outcomes[1].message
    assert report.exit_code == 1
    assert (tmp_path / "out" / "images.csv").exists()


def test_a_script_without_its_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from napari_lightsam.batch.lock import locked\n"
        "from napari_lightsam.batch.scale import Pool, delay\n"
        "pool = Pool('processes', 1)\n"
        "tasks = {'a': delay(len, 'a', 'abc')}\n"
        "with locked(Path('.')) as hold:\n"
        "    print([event for event in pool.run(tasks, hold) if event])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert 'If all do: Put what the script does under `if __name__ == "__main__":`' in done.stdout
    assert "A worker process was about to begin the run anew" in done.stderr


def dawdle(batch: Any, job: Any) -> Generator:
    """Segment an image by a worker that hears of nothing until it is told to write."""
    folder = job.source.parent
    (folder / "begun").touch()
    while not (folder / "go on").exists():
        time.sleep(0.02)
    try:
        with stoppable(lambda: False):
            return drain(attempt_job(batch, job))
    finally:
        (folder / "ended").touch()
    yield


@pytest.fixture(scope="module")
def cluster() -> Generator:
    distributed = pytest.importorskip("distributed")
    here = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**here) as running, distributed.Client(running) as client:
        yield client


@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_what_a_worker_comes_to_after_its_run_is_dropped(
    end: str, cluster: Any, nuclei, segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = write(tmp_path / "a.tif", nuclei[0][:64, :64]), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("napari_lightsam.batch.run.attempt_job", dawdle)
        work = segment_many([image], out, Recipe(SETTINGS), segmenter=segmenter, scheduler=cluster)
        while not (tmp_path / "begun").exists():
            next(work)
        held = (out / LOCK).read_bytes()
        begun = time.monotonic()
        work.close()
        assert time.monotonic() - begun < 5
        assert not (out / LOCK).exists()
    if end == "killed":  # what such a run leaves is taken over by the next one
        (out / LOCK).write_bytes(held)
    other = Recipe(replace(SETTINGS, config=EverythingConfig(object_size=20)))
    drain(segment_many([image], out, other, segmenter=segmenter))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "go on").touch()
    until = time.monotonic() + 60
    while not (tmp_path / "ended").exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert (tmp_path / "ended").exists()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_loses_its_hold_by_giving_up_by_ending_and_to_the_next_run(tmp_path: Path) -> None:
    with locked(tmp_path) as hold:
        assert not hold.lost()
        killed = (tmp_path / LOCK).read_bytes()
        hold.give_up()
        assert hold.lost()
        with pytest.raises(FileError, match=r"in use by another run .process \d+ on"), locked(tmp_path):
            pass
    assert hold.lost()
    (tmp_path / LOCK).write_bytes(killed)
    assert not hold.lost()  # nobody else is there, and what is finished is of use
    with locked(tmp_path) as other:
        assert (hold.lost(), other.lost()) == (True, False)
        hold.give_up()
        assert not other.lost()


def test_a_batch_whose_folder_was_taken_by_another_run_ends(tmp_path: Path) -> None:
    sources = [write(tmp_path / f"{i}.tif") for i in range(3)]
    work = segment_many(
        sources, tmp_path / "out", Recipe(SETTINGS), segmenter=Thresholder(), scheduler="threads", workers=1
    )
    while next(work).stage != "segmenting images":
        pass
    (tmp_path / "out" / LOCK).unlink()
    with pytest.raises(FileError, match="out is not this run's any more"):
        drain(work)
    assert not (tmp_path / "out" / "objects.csv").exists()
