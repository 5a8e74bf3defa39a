"""Segment many images with one model, one runtime and one object size."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeVar

import napari_lightsam
from napari_lightsam.batch.inputs import Job, find_jobs, printable
from napari_lightsam.batch.lock import locked
from napari_lightsam.batch.recipe import Recipe, read_recipe
from napari_lightsam.batch.resume import Identity, clear_parts, find_finished
from napari_lightsam.batch.scale import check_scheduler
from napari_lightsam.batch.scale_images import run_jobs
from napari_lightsam.batch.settings import BatchReport, BatchSettings, FileOutcome, load_model
from napari_lightsam.batch.single import Batch, segment_job
from napari_lightsam.batch.subject import Subject
from napari_lightsam.batch.summary import RESERVED, check_record, write_summary
from napari_lightsam.engine.progress import Progress, relay
from napari_lightsam.engine.warned import hearing
from napari_lightsam.errors import ConfigError, FileError, LightSamError
from napari_lightsam.formats.atomic import WriteError, check_writable
from napari_lightsam.formats.axes import OpenChoiceError
from napari_lightsam.formats.images import read_image, read_info

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_lightsam.batch.inputs import Found
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.formats.sidecar import Record

SAMPLED = 8
"""The object size of a batch is estimated from at most this many of its images."""

_LEFT = "not tried: another image could not be written"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Size:
    """The object size of a batch, and how it came about."""

    value: float | None
    source: str


def segment_many(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    recipe: Recipe | str | os.PathLike[str] | None = None,
    *,
    segmenter: Segmenter | None = None,
    overwrite: bool = False,
    scheduler: Any = None,
    workers: int | None = None,
    threads: int | None = None,
) -> Work[BatchReport]:
    """Segment many images; a generator of `Progress` that returns a `BatchReport`.

    For each image `<stem>_labels.tif`, `<stem>_objects.csv` and, written last, `<stem>_labels.json` appear in
    `out`, subfolders mirrored; for all of them `objects.csv`, `images.csv` and `report.html`. Inputs are
    never written. Results that are finished with the same input, settings, model and version are skipped, so
    that a run that was stopped or killed goes on where it was. A bad file does not stop the others.

    Parameters
    ----------
    sources
        Files, folders, patterns, lists as CSV, zarr folders and addresses, or one of them; see
        `batch.inputs.find_jobs`.
    out
        Output folder; made where missing. One run at a time may use it.
    recipe
        Model, settings and outputs: a `Recipe`, or the path of one; None means the defaults.
    segmenter
        A loaded model, instead of that of the recipe.
    overwrite
        Make results again, whatever is there; pictures and exports that an earlier run made for these images
        and this one does not are removed. Inputs stay safe.
    scheduler, workers, threads
        Where images are segmented, each by one worker, as in `batch.slide.segment_slide`; None: one after the
        other in this process.

    Raises
    ------
    FileError
        Before any work: an input is missing, has several channels, planes or time points of which none is
        chosen, no input has what is chosen, or the output folder cannot be written or is in use.
    ConfigError
        Before any work: the recipe is wrong, or outputs clash with each other, with inputs, with other
        results, or with files of others.
    WeightsError, DeviceError
        Before any work: the model or the device cannot be used.

    Examples
    --------
    >>> import numpy as np, tempfile, tifffile
    >>> from napari_lightsam import drain
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/blank.tif", np.zeros((32, 32), "uint8"))
    ...     report = drain(segment_many([f"{folder}/blank.tif"], f"{folder}/results"))
    >>> report.exit_code, report.outcomes[0].n_objects, report.outcomes[0].flags[0][:21]
    (0, 0, 'No objects were found')
    """
    if scheduler is not None:
        check_scheduler(scheduler)
    recipe = _recipe(recipe)
    settings, out = recipe.settings, Path(out)
    yield Progress("looking for images", 0, 0)
    found = find_jobs(sources, out, settings.series, reserved=RESERVED)
    check_record(out)
    unfit = yield from _check_selections(found.jobs, settings)
    yield Progress("loading the model", 0, 1)
    segmenter = segmenter or load_model(recipe.model, settings)
    version, plain = napari_lightsam.__version__, settings.to_plain()
    identity = Identity(version, plain, segmenter.spec.name, segmenter.weights_hash)
    check_writable(out)
    with locked(out) as hold:
        clear_parts(found.jobs)
        finished: Mapping[Job, Record] = {}
        if not overwrite:
            finished = yield from find_finished(
                found.jobs, identity, overlay=recipe.overlay, exports=recipe.exports
            )
        for job in finished:
            job.pending.unlink(missing_ok=True)
        readable = [job for job in found.jobs if job not in unfit]
        size = yield from _fix_size(segmenter, settings, readable, finished)
        batch = Batch(segmenter, recipe, identity, size.value, overwrite)
        if scheduler is None:
            outcomes = yield from _run_all(batch, found.jobs, finished)
        else:
            left = {i: job for i, job in enumerate(found.jobs) if job not in finished}
            try:
                done = yield from run_jobs(batch, left, attempt_job, hold, (scheduler, workers, threads))
            finally:
                clear_parts(found.jobs)  # of workers that were ended
            outcomes = tuple(
                _skipped(batch, job, finished[job]) if job in finished else done.get(i) or _failed(job, _LEFT)
                for i, job in enumerate(found.jobs)
            )
        report = BatchReport(
            outcomes, size.value, size.source, segmenter.spec.name, segmenter.device, segmenter.precision,
            segmenter.device_reason, _notes(found),
        )  # fmt: skip
        return (yield from write_summary(out, found, batch, report, overwrite=overwrite))


def _recipe(given: Recipe | str | os.PathLike[str] | None) -> Recipe:
    if given is None:
        return Recipe()
    if not isinstance(given, Recipe | str | os.PathLike):
        raise ConfigError(
            "recipe is a Recipe, such as Recipe(BatchSettings(EverythingConfig(object_size=26))), or the "
            f"path of one; got {type(given).__name__}."
        )
    return given if isinstance(given, Recipe) else read_recipe(given)


def _notes(found: Found) -> tuple[str, ...]:
    n = len(found.ignored)
    passed = (f"{n} results of earlier runs among the inputs were passed over",) if n else ()
    return (*passed, *map(printable, found.unreadable))


def _check_selections(jobs: Sequence[Job], settings: BatchSettings) -> Work[set[Job]]:
    """Refuse open choices of channel or plane before any work, and choices that fit no file at all.

    Returns
    -------
    unfit
        The files that cannot be read, or have not what was chosen; each fails when its turn comes.
    """
    unfit: set[Job] = set()
    misfit: FileError | None = None
    z = "max" if settings.link else settings.z
    fits = False
    for i, job in enumerate(jobs):
        yield Progress("looking at the images", i, len(jobs))
        try:
            info = read_info(job.source, job.series)
        except FileError:
            unfit.add(job)
            continue
        try:
            info.with_axes(settings.axes).select(settings.channel, z, settings.time)
            fits = True
        except OpenChoiceError:
            raise
        except FileError as error:
            unfit.add(job)
            misfit = misfit or error
    if misfit is not None and not fits:
        raise misfit
    return unfit


def _fix_size(
    segmenter: Segmenter, settings: BatchSettings, jobs: list[Job], finished: Mapping[Job, Record]
) -> Work[_Size]:
    """One object size for all images: as given, as in the finished part, or the median of estimates."""
    given = settings.config.object_size
    if given is not None:
        return _Size(given, "given")
    earlier = {record.object_size for record in finished.values()}
    if len(earlier) == 1 and (used := earlier.pop()) is not None:
        return _Size(used, "as in the results that are finished")
    if all(job in finished for job in jobs):
        return _Size(None, "nothing to segment")
    n = min(SAMPLED, len(jobs))
    sample = [jobs[i * len(jobs) // n] for i in range(n)]
    estimates: list[float] = []
    for i, job in enumerate(sample):
        yield Progress("estimating the object size", i, n)
        try:
            with hearing(lambda _: None):  # told when their turn comes
                subject = Subject.of(read_image(job.source, job.series, lazily=True), settings)
                estimate = subject.estimate_size(segmenter)
        except Exception:
            continue  # of any kind, as in `attempt_job`, which reports it when its turn comes
        if estimate is not None:
            estimates.append(estimate)
    if not estimates:
        return _Size(None, "not estimated")
    files = "1 image" if len(estimates) == 1 else f"{len(estimates)} images"
    return _Size(float(median(estimates)), f"estimated from {files}")


def _run_all(
    batch: Batch, jobs: tuple[Job, ...], finished: Mapping[Job, Record]
) -> Work[tuple[FileOutcome, ...]]:
    outcomes: list[FileOutcome] = []
    hopeless = ""
    for i, job in enumerate(jobs):
        if job in finished:
            outcomes.append(_skipped(batch, job, finished[job]))
        elif hopeless:
            outcomes.append(_failed(job, f"not tried: {hopeless}"))
        else:
            outcome, hopeless = yield from _numbered(attempt_job(batch, job), job, i, len(jobs))
            outcomes.append(outcome)
    return tuple(outcomes)


def attempt_job(batch: Batch, job: Job) -> Work[tuple[FileOutcome, str]]:
    """Segment one image; returns what became of it, and why all others would fail alike, or nothing."""
    start, hopeless = time.perf_counter(), ""
    try:
        outcome = yield from segment_job(batch, job)
    except WriteError as error:
        outcome = _failed(job, str(error))
        hopeless = str(error) if error.everywhere else ""
    except LightSamError as error:
        outcome = _failed(job, str(error))
    except MemoryError:
        outcome = _failed(job, "the memory of this machine does not suffice")
    except Exception as error:  # a fault of ours in one image must not cost the other results
        outcome = _failed(job, f"unexpected {type(error).__name__}: {error}")
    return replace(outcome, seconds=time.perf_counter() - start), hopeless


def _skipped(batch: Batch, job: Job, record: Record) -> FileOutcome:
    outputs = batch.outputs(job)
    return FileOutcome(job.source, "skipped", outputs, record.n_objects, flags=record.flags, image=job.image)


def _failed(job: Job, message: str) -> FileOutcome:
    return FileOutcome(job.source, "failed", message=printable(message), image=job.image)


def _numbered(work: Work[T], job: Job, index: int, total: int) -> Work[T]:
    """Pass progress on: that of the file where there is one, else that of the batch."""
    return relay(
        work, lambda step: step if total == 1 else Progress(f"{job.image}: {step.stage}", index, total)
    )
