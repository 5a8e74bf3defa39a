"""The images of a batch on a scheduler: one task each, the model loaded once in each worker process."""

from __future__ import annotations

import secrets
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.batch.scale import (
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
from napari_lightsam.engine.stopping import Stopped, stoppable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from napari_lightsam.batch.inputs import Job
    from napari_lightsam.batch.lock import Hold
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
    hold
        Tells workers when to stop.
    """

    model: WorkerModel
    recipe: Recipe
    identity: Identity
    size: float | None
    overwrite: bool
    attempt: Attempt
    hold: Hold


def segment_remotely(batch: RemoteBatch, job: Job) -> tuple[FileOutcome, str] | None:
    """Segment one image in a worker; None when the run was cancelled before it was done."""
    lost = batch.hold.lost
    if lost():
        return None
    here = Batch(batch.model.load(), batch.recipe, batch.identity, batch.size, batch.overwrite, lost)
    with suppress(Stopped), stoppable(lost), closing(batch.attempt(here, job)) as work:
        while not lost():
            try:
                next(work)
            except StopIteration as stop:
                done: tuple[FileOutcome, str] = stop.value
                return done
    return None


def run_jobs(
    batch: Batch, jobs: Mapping[int, Job], attempt: Attempt, hold: Hold, where: Where
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
    hold
        Of this run on its output.
    where
        Scheduler, workers and threads, as in `batch.slide.segment_slide`.

    Returns
    -------
    dict
        What became of each, by its place. Images that were not begun when a run had become hopeless (a full
        disk) are missing. Those that a lost cluster, or a worker that does not see the output, did not do
        have failed.

    Raises
    ------
    ConfigError
        As `batch.scale.Pool`.
    FileError
        Another run has taken the output.
    """
    scheduler, workers, threads = where
    pool = Pool(scheduler, workers)
    try:
        told = None if pool.name == "threads" else threads or pool.threads_each()
        model = WorkerModel.of(batch.segmenter, told)
        try:
            return (yield from _run(pool, batch, model, jobs, attempt, hold))
        finally:
            model.forget()
    finally:
        pool.close()


def _run(
    pool: Pool, batch: Batch, model: WorkerModel, jobs: Mapping[int, Job], attempt: Attempt, hold: Hold
) -> Work[dict[int, FileOutcome]]:
    mark = secrets.token_hex(4)
    remote = RemoteBatch(model, batch.recipe, batch.identity, batch.size, batch.overwrite, attempt, hold)
    shared = constant(remote, f"batch-{mark}")
    tasks: dict[str, Any] = {
        str(i): delay(segment_remotely, f"image-{mark}-{i}", shared, _absolute(job))
        for i, job in jobs.items()
    }
    outcomes: dict[int, FileOutcome] = {}
    done, hopeless, stage = 0, False, "segmenting images"
    try:
        yield Progress(stage, 0, len(jobs))
        with closing(pool.run(tasks, hold)) as events:
            for event in events:
                if event is not None:
                    job, outcome = jobs[int(event[0])], event[1]
                    stage = f"{job.image}: ended"
                    yield Progress(stage, done, len(jobs))
                    done += 1
                    if isinstance(outcome, WorkerLostError):
                        outcome = _failed(job, outcome), ""
                    if outcome is not None:
                        outcomes[int(event[0])] = _at_home(outcome[0], batch, job)
                        if outcome[1]:
                            hopeless = True
                            hold.give_up()
                yield Progress(stage, done, len(jobs))
        if hopeless:
            return outcomes
        hold.check(hold.path.parent)
        missing: Exception = hold.unseen()
    except SchedulerLostError as error:
        missing = error
    return {i: _failed(job, missing) for i, job in jobs.items()} | outcomes


def _absolute(job: Job) -> Job:
    """Name the files of a job so that they are the same in whatever folder a worker was started."""
    source = job.source.absolute() if isinstance(job.source, Path) else job.source
    return replace(job, source=source, base=job.base.absolute())


def _at_home(outcome: FileOutcome, batch: Batch, job: Job) -> FileOutcome:
    """Name the files of an outcome as they were given."""
    return replace(outcome, source=job.source, outputs=batch.outputs(job) if outcome.outputs else ())


def _failed(job: Job, error: Exception) -> FileOutcome:
    return FileOutcome(job.source, "failed", message=str(error), image=job.image)
