"""The images of a batch on a scheduler: one task each, the model loaded once in each worker process."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.batch.scale import (
    Cancelled,
    Pool,
    SchedulerLostError,
    WorkerLostError,
    constant,
    delay,
)
from napari_lightsam.batch.settings import FileOutcome
from napari_lightsam.batch.single import Batch
from napari_lightsam.batch.worker_model import WorkerModel
from napari_lightsam.engine.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from napari_lightsam.batch.inputs import Job
    from napari_lightsam.batch.recipe import Recipe
    from napari_lightsam.batch.resume import Identity
    from napari_lightsam.engine.progress import Work

    Attempt = Callable[[Batch, Job], Work[tuple[FileOutcome, str]]]
    Where = tuple[Any, int | None, int | None]


@dataclass(frozen=True, slots=True)
class RemoteBatch:
    """A batch as it travels to workers: what to load, instead of what is loaded.

    Attributes
    ----------
    model
        Loaded by each worker once.
    recipe, identity, size, overwrite
        As in `Batch`.
    attempt
        Segments one image; returns what became of it, and why others would fail alike, or nothing.
    cancelled
        Tells workers to stop.
    """

    model: WorkerModel
    recipe: Recipe
    identity: Identity
    size: float | None
    overwrite: bool
    attempt: Attempt
    cancelled: Cancelled


def segment_remotely(batch: RemoteBatch, job: Job) -> tuple[FileOutcome, str] | None:
    """Segment one image in a worker; None when the run was cancelled before it was done."""
    if batch.cancelled():
        return None
    here = Batch(batch.model.load(), batch.recipe, batch.identity, batch.size, batch.overwrite)
    with closing(batch.attempt(here, job)) as work:
        while not batch.cancelled():
            try:
                next(work)
            except StopIteration as stop:
                done: tuple[FileOutcome, str] = stop.value
                return done
    return None


def run_jobs(
    batch: Batch, jobs: Mapping[int, Job], attempt: Attempt, folder: Path, where: Where
) -> Work[dict[int, FileOutcome]]:
    """Segment the images of a batch on a scheduler; a generator of `Progress`.

    Parameters
    ----------
    batch
        What is fixed for all images.
    jobs
        By their place in the batch.
    attempt
        As in `RemoteBatch`; a function of a module, since it travels by name.
    folder
        That all workers can write to; nothing stays there.
    where
        Scheduler, workers and threads, as in `batch.slide.segment_slide`.

    Returns
    -------
    dict
        What became of each, by its place. Images that were not begun when a run had become hopeless (a full
        disk) are missing. Those that a lost cluster did not do have failed.

    Raises
    ------
    ConfigError
        As `batch.scale.Pool`.
    """
    scheduler, workers, threads = where
    pool = Pool(scheduler, workers)
    try:
        told = None if pool.name == "threads" else threads or pool.threads_each()
        model = WorkerModel.of(batch.segmenter, told)
        try:
            return (yield from _run(pool, batch, model, jobs, attempt, folder))
        finally:
            model.forget()
    finally:
        pool.close()


def _run(
    pool: Pool, batch: Batch, model: WorkerModel, jobs: Mapping[int, Job], attempt: Attempt, folder: Path
) -> Work[dict[int, FileOutcome]]:
    # Workers that are still at a cancelled run see by the folder, too, that it is over.
    place = Path(tempfile.mkdtemp(prefix="lightsam-")) if pool.local else folder
    cancelled = Cancelled.inside(place)
    mark = secrets.token_hex(4)
    remote = RemoteBatch(model, batch.recipe, batch.identity, batch.size, batch.overwrite, attempt, cancelled)
    shared = constant(remote, f"batch-{mark}")
    tasks: dict[str, Any] = {
        str(i): delay(segment_remotely, f"image-{mark}-{i}", shared, job) for i, job in jobs.items()
    }
    outcomes: dict[int, FileOutcome] = {}
    done, stage = 0, "segmenting images"
    try:
        yield Progress(stage, 0, len(jobs))
        with closing(pool.run(tasks, cancelled)) as events:
            for event in events:
                if event is not None:
                    job, outcome = jobs[int(event[0])], event[1]
                    stage = f"{job.image}: ended"
                    yield Progress(stage, done, len(jobs))
                    done += 1
                    if isinstance(outcome, WorkerLostError):
                        lost = FileOutcome(job.source, "failed", message=str(outcome), image=job.image)
                        outcome = lost, ""
                    if outcome is not None:
                        outcomes[int(event[0])] = outcome[0]
                        if outcome[1]:
                            cancelled.announce()
                yield Progress(stage, done, len(jobs))
    except SchedulerLostError as error:
        for i, job in jobs.items():
            if i not in outcomes:
                outcomes[i] = FileOutcome(job.source, "failed", message=str(error), image=job.image)
    finally:
        if pool.local:
            shutil.rmtree(place, ignore_errors=True)
        else:
            cancelled.path.unlink(missing_ok=True)
    return outcomes
