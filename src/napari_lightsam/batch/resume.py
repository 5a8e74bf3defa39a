"""What earlier runs left: finished results to skip, others that must not be lost, and parts to clear away."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.sidecar import Record, hash_file, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from napari_lightsam.batch.inputs import Job
    from napari_lightsam.engine.progress import Work

_SHOWN = 5
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.(part|old)")  # as `formats.atomic` calls them


@dataclass(frozen=True, slots=True)
class Identity:
    """What a result must agree in to count as finished.

    Attributes
    ----------
    version, settings, model, model_sha256
        As in `formats.sidecar.Record`.
    """

    version: str
    settings: Mapping[str, Any]
    model: str
    model_sha256: str


def find_finished(
    jobs: Sequence[Job], identity: Identity, *, overlay: bool, exports: tuple[str, ...] = ()
) -> Work[dict[Job, Record]]:
    """Find the jobs that are done already; a generator of `Progress`, as all their files are hashed.

    Returns
    -------
    finished
        Their records.

    Raises
    ------
    ConfigError
        An output is there that was made otherwise, was changed since, or has no readable record.
    """
    finished: dict[Job, Record] = {}
    problems: list[str] = []
    for i, job in enumerate(jobs):
        yield Progress("looking for finished results", i, len(jobs))
        wanted = job.wanted(overlay, exports)
        present = [path for path in wanted if os.path.exists(path)]
        if not present:
            continue
        try:
            record = read_record(job.record)
            problem = _difference(job, record, identity) or _change(job, record, present)
        except FileError as error:
            problem = f"{present[0]} has no usable record: {error}"
        if problem and os.path.exists(job.pending) and _is_interrupted(job, present):
            continue
        if problem:
            problems.append(problem)
        elif len(present) == len(wanted):
            finished[job] = replace(record, preview="")  # read again when it is shown
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more."] if len(problems) > _SHOWN else []
        raise ConfigError(
            "Results are there that this run would replace:\n  "
            + "\n  ".join(problems[:_SHOWN] + more)
            + "\nNothing was done. Use --overwrite to make them again, or another output folder."
        )
    return finished


def clear_parts(jobs: Iterable[Job]) -> None:
    """Remove the parts of results that a killed run left in the output folders."""
    names: dict[Path, set[str]] = {}
    for job in jobs:
        named = names.setdefault(job.base.parent, set())
        named.update(path.name for path in (*job.outputs, job.pending))
    for folder, known in names.items():
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue  # not there yet
        for entry in entries:
            part = _PART.fullmatch(entry.name)
            if part and part[1] in known:
                remove(Path(entry.path))


def remove(path: Path) -> None:
    """Remove an output, as far as the file system allows it; of a link the link alone."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def find_former(job: Job, outputs: Iterable[str]) -> dict[Path, str]:
    """Find what an earlier run made for an image, by its record; files changed since then are none of it.

    Parameters
    ----------
    job
        The image; files that no run would write for it do not count, whatever the record names.
    outputs
        Names that are about to be replaced; these are not looked at.

    Returns
    -------
    former
        Hashes of the files, as the record tells them.
    """
    told, about_to_go = _outputs(job.record), set(outputs)
    return {
        path: told[path.name]
        for path in job.outputs
        if path.name in told and os.path.exists(path)
        and (path.name in about_to_go or hash_file(path) == told[path.name])
    }  # fmt: skip


def _outputs(record: Path) -> Mapping[str, str]:
    """Names and hashes of the files that a record says belong to it; none where there is no usable one."""
    try:
        return read_record(record).outputs
    except FileError:
        return {}


def _is_interrupted(job: Job, present: Iterable[Path]) -> bool:
    """Whether a run was killed while outputs took their names: each is a new one of it or an old one."""
    known: dict[str, set[str]] = {}
    for path in (job.pending, job.record):
        for name, digest in _outputs(path).items():
            known.setdefault(name, set()).add(digest)
    return all(path == job.record or hash_file(path) in known.get(path.name, ()) for path in present)


def _difference(job: Job, record: Record, identity: Identity) -> str:
    now = Record(
        version=identity.version, input=job.name, input_sha256=_input_hash(job, record),
        settings=dict(identity.settings), model=identity.model, model_sha256=identity.model_sha256,
        device="", precision="", runtime="", object_size=None, object_size_estimated=False, pixel_size=None,
        pixel_size_source="", n_objects=0, outputs={},
    )  # fmt: skip
    # A record from before a setting was added is one of its default.
    then = replace(record, settings={**BatchSettings().to_plain(), **record.settings})
    differences = then.differences(now)
    if differences:
        return f"{job.labels} was made with {'; '.join(differences)}."
    return ""


def _change(job: Job, record: Record, present: Iterable[Path]) -> str:
    for path in present:
        if path != job.record and record.outputs.get(path.name) != hash_file(path):
            return f"{path} was changed since it was written, or does not belong to the record beside it."
    return ""


def _input_hash(job: Job, record: Record) -> str:
    """Hash of the input; one that cannot be read fails by itself later, not as a difference."""
    try:
        return job.hash()
    except FileError:
        return record.input_sha256
