"""Segment many files with one model, one runtime and one object size."""

from __future__ import annotations

import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import napari_lightsam
from napari_lightsam.batch.inputs import Job, find_jobs
from napari_lightsam.batch.resume import Identity, find_finished
from napari_lightsam.batch.settings import BatchReport, BatchSettings, FileOutcome
from napari_lightsam.batch.subject import Subject, hear
from napari_lightsam.engine.image import LightSamWarning
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.formats.atomic import WriteError, check_writable, written_whole
from napari_lightsam.formats.export import FORMATS, check_formats
from napari_lightsam.formats.images import read_image, read_info
from napari_lightsam.formats.labels import save_labels
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.overlay import save_overlay
from napari_lightsam.formats.sidecar import Record, hash_file, save_record

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from napari_lightsam.batch.subject import Result
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.formats.images import ImageFile

SAMPLED = 8
"""The object size of a batch is estimated from at most this many of its images."""

DEVIATION = 1.6
"""Images whose objects differ by more than this factor from the size of the batch are flagged."""

_ALWAYS = ("tiff", "csv")  # formats that every batch writes

_FEW = 5  # the median of fewer objects says little about an image


@dataclass(frozen=True, slots=True)
class _Size:
    """The object size of a batch."""

    value: float | None
    source: str
    estimates: Mapping[Path, float]


def segment_files(
    inputs: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    settings: BatchSettings | None = None,
    *,
    model: str | Segmenter = "lightsam",
    overwrite: bool = False,
    overlay: bool = False,
    exports: Iterable[str] = (),
) -> Work[BatchReport]:
    """Segment files, folders and patterns; a generator of `Progress` that returns a `BatchReport`.

    For each input `<stem>_labels.tif`, `<stem>_objects.csv` and, written last, `<stem>_labels.json`
    appear in `out`, subfolders mirrored. Inputs are never written. Results that are finished with the
    same input, settings, model and version are skipped. A bad file does not stop the others.

    With `settings.link` a stack gives labels (Z, H, W) with an id per object in all planes, and a row per
    object and plane.

    Parameters
    ----------
    inputs
        As in `batch.inputs.find_jobs`.
    out
        Output folder; made where missing.
    settings
        How images are read and segmented; None means the defaults.
    model
        Name, path of a checkpoint, or a loaded `Segmenter`; loaded once.
    overwrite
        Make results again, whatever is there. Inputs stay safe.
    overlay
        Also write `<stem>_overlay.png`; of a stack that is linked, its middle plane.
    exports
        Also write these formats, by their names in `formats.export.FORMATS`.

    Raises
    ------
    FileError
        Before any work: an input is missing, has several channels, planes or time points of which none is
        chosen, or the output folder cannot be written.
    ConfigError
        Before any work: outputs clash with each other, with inputs, or with other results, or a format is
        not known.
    WeightsError, DeviceError
        Before any work: the model or the device cannot be used.
    """
    settings = settings or BatchSettings()
    out = Path(out)
    exports = tuple(name for name in exports if name not in _ALWAYS)
    exports = check_formats(exports) if exports else ()
    yield Progress("looking for images", 0, 0)
    found = find_jobs(inputs, out)
    damaged = _check_selections(found.jobs, settings)
    yield Progress("loading the model", 0, 1)
    segmenter = _load(model, settings)
    version, plain = napari_lightsam.__version__, settings.to_plain()
    identity = Identity(version, plain, segmenter.spec.name, segmenter.weights_hash)
    finished = {} if overwrite else find_finished(found.jobs, identity, overlay=overlay, exports=exports)
    check_writable(out)
    readable = [job for job in found.jobs if job not in damaged]
    size = yield from _fix_size(segmenter, settings, readable, finished)
    batch = _Batch(segmenter, settings, identity, size, overlay, exports)
    outcomes = yield from _run_all(batch, found.jobs, finished)
    notes = (f"{len(found.ignored)} results of earlier runs among the inputs were passed over",)
    return BatchReport(
        outcomes, size.value, size.source, segmenter.spec.name, segmenter.device, segmenter.precision,
        segmenter.device_reason, notes if found.ignored else (),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is fixed before the first image."""

    segmenter: Segmenter
    settings: BatchSettings
    identity: Identity
    size: _Size
    overlay: bool
    exports: tuple[str, ...]

    def outputs(self, job: Job) -> tuple[Path, ...]:
        """List what is written for a file."""
        return job.wanted(self.overlay, self.exports)


def _load(model: str | Segmenter, settings: BatchSettings) -> Segmenter:
    if not isinstance(model, str):
        return model
    from napari_lightsam.engine.segmenter import load_segmenter

    return load_segmenter(
        model, device=settings.device, precision=settings.precision, runtime=settings.runtime
    )


def _check_selections(jobs: Iterable[Job], settings: BatchSettings) -> set[Job]:
    """Refuse open choices of channel or plane before any work; return the files that cannot be read."""
    damaged = set()
    for job in jobs:
        try:
            info = read_info(job.source)
        except FileError:
            damaged.add(job)  # reported when its turn comes
            continue
        info.select(settings.channel, "max" if settings.link else settings.z, settings.time)
    return damaged


def _fix_size(
    segmenter: Segmenter, settings: BatchSettings, jobs: list[Job], finished: Mapping[Job, Record]
) -> Work[_Size]:
    """One object size for all images: as given, as in the finished part, or the median of estimates."""
    given = settings.config.object_size
    if given is not None:
        return _Size(given, "given", {})
    earlier = {record.object_size for record in finished.values()}
    if len(earlier) == 1 and (used := earlier.pop()) is not None:
        return _Size(used, "as in the results that are finished", {})
    if all(job in finished for job in jobs):
        return _Size(None, "nothing to segment", {})
    n = min(SAMPLED, len(jobs))
    sample = [jobs[i * len(jobs) // n] for i in range(n)]
    estimates: dict[Path, float] = {}
    for i, job in enumerate(sample):
        yield Progress("estimating the object size", i, n)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", LightSamWarning)
                subject = Subject.of(read_image(job.source), settings)
                estimate = subject.estimate_size(segmenter)
        except (LightSamError, MemoryError):
            continue  # reported when its turn comes
        if estimate is not None:
            estimates[job.source] = estimate
    if not estimates:
        return _Size(None, "not estimated", {})
    files = "1 image" if len(estimates) == 1 else f"{len(estimates)} images"
    return _Size(float(median(estimates.values())), f"estimated from {files}", estimates)


def _run_all(
    batch: _Batch, jobs: tuple[Job, ...], finished: Mapping[Job, Record]
) -> Work[tuple[FileOutcome, ...]]:
    outcomes: list[FileOutcome] = []
    hopeless = ""
    for i, job in enumerate(jobs):
        if job in finished:
            done = finished[job].n_objects
            outcomes.append(FileOutcome(job.source, "skipped", batch.outputs(job), done))
            continue
        if hopeless:
            outcomes.append(FileOutcome(job.source, "failed", message=f"not tried: {hopeless}"))
            continue
        start = time.perf_counter()
        try:
            outcome = yield from _numbered(_segment_file(batch, job), job, i, len(jobs))
        except WriteError as error:
            outcome = FileOutcome(job.source, "failed", message=str(error))
            hopeless = str(error) if error.everywhere else ""
        except LightSamError as error:
            outcome = FileOutcome(job.source, "failed", message=str(error))
        except MemoryError:
            outcome = FileOutcome(job.source, "failed", message="the memory of this machine does not suffice")
        except Exception as error:  # a fault of ours in one image must not cost the other results
            outcome = FileOutcome(job.source, "failed", message=f"unexpected {type(error).__name__}: {error}")
        outcomes.append(replace(outcome, seconds=time.perf_counter() - start))
    return tuple(outcomes)


def _numbered(work: Work[FileOutcome], job: Job, index: int, total: int) -> Work[FileOutcome]:
    """Pass progress on: that of the file where there is one, else that of the batch."""
    while True:
        try:
            step = next(work)
        except StopIteration as stop:
            outcome: FileOutcome = stop.value
            return outcome
        yield step if total == 1 else Progress(f"{job.source.name}: {step.stage}", index, total)


def _segment_file(batch: _Batch, job: Job) -> Work[FileOutcome]:
    settings = batch.settings
    yield Progress("reading", 0, 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", LightSamWarning)
        image = read_image(job.source)
    subject = Subject.of(image, settings)
    heard = [str(w.message).removeprefix(f"{job.source}: ") for w in caught if w.category is LightSamWarning]
    input_hash = hash_file(job.source)
    config = replace(settings.config, object_size=batch.size.value)
    result = yield from hear(subject.segment(batch.segmenter, config), heard)
    flags = [*subject.flags, *dict.fromkeys(heard)]
    yield Progress("measuring the objects", 0, 0)
    pixel_size = settings.pixel_size or image.pixel_size
    table = subject.measure(result, pixel_size)
    flags += [result.advice] if result.advice else []
    flags += _deviation(batch.size, job, table)
    yield Progress("writing", 0, 0)
    record = _record(batch, job, image, input_hash, result.object_size, int(table["label"].nunique()))
    _write(batch, job, record, result, table, subject)
    return FileOutcome(job.source, "written", batch.outputs(job), record.n_objects, flags=tuple(flags))


def _deviation(size: _Size, job: Job, table: pd.DataFrame) -> list[str]:
    """Say when an image's own object size is far from that of the batch."""
    own = size.estimates.get(job.source)
    if own is None and len(table) >= _FEW:
        own = float(table["equivalent_diameter_px"].median())
    if own is None or size.value is None or max(own / size.value, size.value / own) <= DEVIATION:
        return []
    return [
        f"its objects measure about {own:.0f} px, the batch was run at {size.value:.0f} px: "
        f"segment it alone with --object-size {own:.0f}"
    ]


def _record(
    batch: _Batch, job: Job, image: ImageFile, input_hash: str, object_size: float | None, n_objects: int
) -> Record:
    given = batch.settings.pixel_size
    identity, segmenter = batch.identity, batch.segmenter
    return Record(
        version=identity.version,
        input=job.source.name,
        input_sha256=input_hash,
        settings=dict(identity.settings),
        model=identity.model,
        model_sha256=identity.model_sha256,
        device=segmenter.device,
        precision=segmenter.precision,
        runtime=segmenter.runtime_name,
        object_size=object_size,
        object_size_estimated=object_size is not None and batch.settings.config.object_size is None,
        pixel_size=given or image.pixel_size,
        pixel_size_source="given" if given else image.pixel_size_source if image.pixel_size else "",
        n_objects=n_objects,
        outputs={},
    )


def _write(
    batch: _Batch, job: Job, record: Record, result: Result, table: pd.DataFrame, subject: Subject
) -> None:
    """Write all outputs of a file; they take their names together, the record last."""
    with ExitStack() as stack:
        # Leaving runs backwards: what is entered first is renamed last.
        parts = {path: stack.enter_context(written_whole(path)) for path in (job.record, job.objects)}
        labels = stack.enter_context(written_whole(job.labels))
        save_labels(labels, result.labels, pixel_size=record.pixel_size, z_step=subject.z_step)
        table.to_csv(parts[job.objects], index=False, lineterminator="\n")
        outputs = {job.labels.name: hash_file(labels), job.objects.name: hash_file(parts[job.objects])}
        if batch.overlay:
            picture = stack.enter_context(written_whole(job.overlay))
            save_overlay(picture, subject.pixels[subject.middle], result.labels[subject.middle])
            outputs[job.overlay.name] = hash_file(picture)
        objects = Objects(
            result.labels, pixel_size=record.pixel_size, z_step=subject.z_step, position=subject.position,
            table=table, name=job.source.name,
        )  # fmt: skip
        for name, output in zip(batch.exports, job.exported(batch.exports), strict=True):
            outputs[output.name] = hash_file(stack.enter_context(FORMATS[name].written(output, objects)))
        save_record(parts[job.record], replace(record, outputs=outputs))
