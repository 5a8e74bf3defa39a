"""One image of a batch: read, segmented, measured and written."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.batch.inputs import Job, printable
from napari_lightsam.batch.preview import draw_preview
from napari_lightsam.batch.resume import find_former, remove
from napari_lightsam.batch.settings import BatchSettings, FileOutcome
from napari_lightsam.batch.subject import Subject, hear
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.stopping import Stopped
from napari_lightsam.engine.warned import hearing
from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.export import FORMATS
from napari_lightsam.formats.images import read_image
from napari_lightsam.formats.labels import save_labels
from napari_lightsam.formats.objects import Objects
from napari_lightsam.formats.overlay import save_overlay
from napari_lightsam.formats.sidecar import Record, hash_file, save_record, write_record

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from napari_lightsam.batch.recipe import Recipe
    from napari_lightsam.batch.resume import Identity
    from napari_lightsam.batch.subject import Result
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.formats.images import ImageFile

DEVIATION = 1.6
"""Images whose objects differ by more than this factor from the size of the batch are flagged."""

_FEW = 5  # the median of fewer objects says little about an image


@dataclass(frozen=True, slots=True)
class Batch:
    """What is fixed before the first image.

    Attributes
    ----------
    segmenter
        The loaded model.
    recipe
        Settings and outputs.
    identity
        What every result is recorded with.
    size
        Object size of the batch in pixels, or None: each image's own.
    overwrite
        Of results that are there nothing is kept, not even what this run makes none of.
    stop
        Asked before results take their names; when it says True they are dropped.
    """

    segmenter: Segmenter
    recipe: Recipe
    identity: Identity
    size: float | None
    overwrite: bool = False
    stop: Callable[[], bool] | None = None

    @property
    def settings(self) -> BatchSettings:
        """How images are read and segmented."""
        return self.recipe.settings

    def outputs(self, job: Job) -> tuple[Path, ...]:
        """List what is written for an image."""
        return job.wanted(self.recipe.overlay, self.recipe.exports)


def segment_job(batch: Batch, job: Job) -> Work[FileOutcome]:
    """Segment one image and write its results, all or none.

    Raises
    ------
    LightSamError
        The image cannot be read or segmented, or a result cannot be written.
    Stopped
        The results are not wanted any more.
    """
    settings = batch.settings
    yield Progress("reading", 0, 0)
    heard: list[str] = []
    with hearing(lambda text: heard.append(text.removeprefix(f"{job.source}: "))):
        image, subject, input_hash = _read(job, settings)
    config = replace(settings.config, object_size=batch.size)
    result = yield from hear(subject.segment(batch.segmenter, config), heard)
    yield Progress("measuring the objects", 0, 0)
    table = subject.measure(result, settings.pixel_size or image.pixel_size)
    flags = [*subject.flags, *dict.fromkeys(heard), *([result.advice] if result.advice else [])]
    flags += _look_at(batch.size, table, told=bool(flags))
    flags = [printable(flag) for flag in flags]
    yield Progress("writing", 0, 0)
    record = _record(batch, job, image, input_hash, result.object_size, int(table["label"].nunique()))
    plane, labels = subject.pixels[subject.middle], result.labels[subject.middle]
    record = replace(
        record, shape=labels.shape, channels=tuple(subject.channels), plane=subject.plane, flags=tuple(flags),
        preview=draw_preview(plane, labels),
    )  # fmt: skip
    _write(batch, job, record, result, table, subject)
    outputs = batch.outputs(job)
    return FileOutcome(job.source, "written", outputs, record.n_objects, flags=record.flags, image=job.image)


def _read(job: Job, settings: BatchSettings) -> tuple[ImageFile, Subject, str]:
    """Read an image and the hash of exactly these bytes: a file may change while it is read."""
    for _ in range(2):
        before = _state(job)
        image = read_image(job.source, job.series, lazily=True)
        subject = Subject.of(image, settings)
        found = before if isinstance(before, str) else job.hash()
        if _state(job) == before:
            return image, subject, found
    raise FileError(f"{job.source} changes while it is read. Wait until it is complete, and run again.")


def _state(job: Job) -> str | tuple[int, ...]:
    """Tell whether an image is what it was: the hash of folders and addresses, quicker signs of a file."""
    if not isinstance(job.source, Path) or os.path.isdir(job.source):
        return job.hash()
    try:
        stat = job.source.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise FileError(f"{job.source} does not exist. Check the name and the folder.") from None
        raise FileError(f"{job.source} cannot be read: {error.strerror or error}.") from error
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _look_at(size: float | None, table: pd.DataFrame, *, told: bool) -> list[str]:
    """Say what is odd about a result: nothing found, or objects far from the object size of the batch."""
    if table.empty:
        return [] if told else ["nothing was found in it"]
    own = float(table["equivalent_diameter_px"].median())
    if len(table) < _FEW or size is None or max(own / size, size / own) <= DEVIATION:
        return []
    return [
        f"its objects measure about {own:.0f} px, the batch was run at {size:.0f} px: "
        f"segment it alone with --object-size {own:.0f}"
    ]


def _record(
    batch: Batch, job: Job, image: ImageFile, input_hash: str, object_size: float | None, n_objects: int
) -> Record:
    given = batch.settings.pixel_size
    identity, segmenter = batch.identity, batch.segmenter
    return Record(
        version=identity.version,
        input=job.name,
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
    batch: Batch, job: Job, record: Record, result: Result, table: pd.DataFrame, subject: Subject
) -> None:
    """Write all outputs of an image; they take their names together, the record last."""
    with ExitStack() as stack:
        # Leaving runs backwards: what is entered first is renamed or removed last.
        parts = {path: stack.enter_context(written_whole(path)) for path in (job.record, job.objects)}
        labels = stack.enter_context(written_whole(job.labels))
        save_labels(labels, result.labels, pixel_size=record.pixel_size, z_step=subject.z_step)
        table.to_csv(parts[job.objects], index=False, lineterminator="\n")
        outputs = {job.labels.name: hash_file(labels), job.objects.name: hash_file(parts[job.objects])}
        if batch.recipe.overlay:
            picture = stack.enter_context(written_whole(job.overlay))
            save_overlay(picture, subject.pixels[subject.middle], result.labels[subject.middle])
            outputs[job.overlay.name] = hash_file(picture)
        objects = Objects(
            result.labels, pixel_size=record.pixel_size, z_step=subject.z_step, position=subject.position,
            table=table, name=job.image,
        )  # fmt: skip
        exports = batch.recipe.exports
        for name, output in zip(exports, job.exported(exports), strict=True):
            outputs[output.name] = hash_file(stack.enter_context(FORMATS[name].written(output, objects)))
        former = find_former(job, outputs)
        if not batch.overwrite and former.get(job.labels) == outputs[job.labels.name]:
            outputs |= {path.name: digest for path, digest in former.items() if path.name not in outputs}
        record = replace(record, outputs=outputs)
        save_record(parts[job.record], record)
        if batch.stop is not None and batch.stop():
            raise Stopped
        # A run that ends between the renamings, killed or refused one, is known by this as ours, made again.
        write_record(job.pending, record)
        for path in former:
            if path.name not in outputs:
                remove(path)
    job.pending.unlink(missing_ok=True)
