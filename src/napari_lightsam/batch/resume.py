"""What earlier runs left: finished results to skip, and others that must not be lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.sidecar import Record, hash_file, read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from napari_lightsam.batch.inputs import Job

_SHOWN = 5


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
    jobs: Iterable[Job], identity: Identity, *, overlay: bool, exports: tuple[str, ...] = ()
) -> dict[Job, Record]:
    """Find the jobs that are done already.

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
    for job in jobs:
        wanted = job.wanted(overlay, exports)
        present = [path for path in wanted if path.exists()]
        if not present:
            continue
        try:
            record = read_record(job.record)
            problem = _difference(job, record, identity) or _change(job, record, present)
        except FileError as error:
            problem = f"{present[0]} has no usable record: {error}"
        if problem:
            problems.append(problem)
        elif len(present) == len(wanted):
            finished[job] = record
    if problems:
        more = [f"... and {len(problems) - _SHOWN} more."] if len(problems) > _SHOWN else []
        raise ConfigError(
            "Results are there that this run would replace:\n  "
            + "\n  ".join(problems[:_SHOWN] + more)
            + "\nNothing was done. Use --overwrite to make them again, or another output folder."
        )
    return finished


def _difference(job: Job, record: Record, identity: Identity) -> str:
    now = Record(
        version=identity.version, input=job.source.name, input_sha256=_input_hash(job, record),
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
        return hash_file(job.source)
    except FileError:
        return record.input_sha256
