"""The tables of a batch, one of all objects and one of all images, put together from those of each image."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.histogram import Histogram
from napari_lightsam.batch.inputs import BATCH_OUTPUTS, BATCH_RECORD, printable
from napari_lightsam.batch.report import write_report
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import WriteError, explain, put_in_place, written_whole
from napari_lightsam.formats.sidecar import APPLICATION, Record, hash_file, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_lightsam.batch.inputs import Found, Job
    from napari_lightsam.batch.settings import BatchReport, FileOutcome
    from napari_lightsam.batch.single import Batch
    from napari_lightsam.engine.progress import Work

_SHAPE = (
    "label", "centroid_y", "centroid_x", "bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1", "area_px", "area_um2",
    "equivalent_diameter_px", "equivalent_diameter_um", "axis_major_px", "axis_major_um", "axis_minor_px",
    "axis_minor_um", "perimeter_px", "perimeter_um", "eccentricity", "solidity",
)  # fmt: skip
_LAST = ("touches_border", "score", "source", "pixel_size_um", "pixel_size_source")
_IMAGE = (
    "status", "n_objects", "flags", "message", "plane", "height", "width", "channels", "object_size_px",
    "object_size_estimated", "median_diameter_px", "median_diameter_um", "pixel_size_um", "pixel_size_y_um",
    "pixel_size_x_um", "pixel_size_source", "labels", "input_sha256", "model", "version",
)  # fmt: skip

COLUMNS = ("image", "plane", *_SHAPE, *_LAST, *_IMAGE)
"""Columns of the two tables that do not depend on the images."""

_STACK = (
    "z", "first_plane", "last_plane", "n_planes", "volume_px", "area_ratio", "single_plane", "area_jump",
    "gap_bridged",
)  # fmt: skip

RESERVED = (*COLUMNS, *_STACK)
"""Names that columns of a list must not have; nor do any that begin with `intensity_`."""

SOURCE = "auto"
"""How the objects of a batch came about: found by the model, not drawn by hand."""

_STAGING = ".lightsam-"
_KEPT_HASHES = 4  # of each file: the one that is there, and the one about to replace it


@dataclass(slots=True)
class Gathered:
    """What the report shows of the tables.

    Attributes
    ----------
    n_objects
        In all images.
    diameters_px, diameters_um
        Equivalent diameters; in micrometres of calibrated images only.
    median_px, records
        Median diameter, and path of the record, of every image that has a result, by its name.
    problems
        Results that could not be read again.
    """

    n_objects: int = 0
    diameters_px: Histogram = field(default_factory=Histogram)
    diameters_um: Histogram = field(default_factory=Histogram)
    median_px: dict[str, float] = field(default_factory=dict)
    records: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def write_summary(
    out: Path, found: Found, batch: Batch, report: BatchReport, *, overwrite: bool = False
) -> Work[BatchReport]:
    """Write `objects.csv`, `images.csv` and `report.html`; returns the report with their paths.

    They are put together from the files of the images, row by row, whatever run made these. A file of such a
    name that is not ours, was changed, or is open in another program stays; ours then gets a number.
    """
    try:
        with _staging(out) as folder:
            gathered = yield from _write_tables(folder, out, found, report)
            report = replace(report, problems=(*report.problems, *gathered.problems))
            write_report(folder / "report.html", batch, report, gathered)
            tables = _publish(folder, out, overwrite=overwrite)
    except (WriteError, ConfigError) as error:
        return replace(report, problems=(*report.problems, str(error)))
    except OSError as error:
        return replace(report, problems=(*report.problems, str(explain(out, error))))
    moved = [
        f"{wanted} is open in another program, or was changed or made by another one: it was left, and the "
        f"new one is {path.name}"
        for wanted, path in zip(BATCH_OUTPUTS, tables, strict=True)
        if path.name != wanted
    ]
    return replace(report, tables=tables, notes=(*report.notes, *moved))


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    for old in out.glob(f"{_STAGING}*"):  # of a run that was killed
        shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_STAGING, dir=out))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path, *, overwrite: bool) -> tuple[Path, ...]:
    """Move the finished files to their names; written down first, for the case that the run is killed."""
    record = out / BATCH_RECORD
    ours = _read_hashes(record)
    new = {name: hash_file(folder / name) for name in BATCH_OUTPUTS}
    _write_hashes(record, {**ours, **{name: [new[name], *ours.get(name, [])] for name in new}})

    def may_replace(path: Path) -> bool:
        known = [*ours.get(path.name, []), *new.values()]
        return os.path.isfile(path) and (overwrite or hash_file(path) in known)

    tables = tuple(put_in_place(folder / name, out / name, may_replace) for name in BATCH_OUTPUTS)
    for name, path in zip(BATCH_OUTPUTS, tables, strict=True):
        ours[path.name] = [new[name], *ours.get(path.name, [])]
    _write_hashes(record, ours)
    return tables


def check_record(out: Path) -> None:
    """Refuse an output folder whose `batch.json` is another program's: it would be replaced.

    Raises
    ------
    ConfigError
        It is there, and no record of a batch.
    """
    _read_hashes(out / BATCH_RECORD)


def _read_hashes(path: Path) -> dict[str, list[str]]:
    if not os.path.lexists(path):
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["application"] == APPLICATION:
            return {str(name): [str(one) for one in hashes] for name, hashes in content["outputs"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # nor is it one of ours: those take their name only when they are whole
    raise ConfigError(
        f"{path} is no record of a batch, and is not replaced. Choose another output folder, or move it away."
    )


def _write_hashes(path: Path, hashes: dict[str, list[str]]) -> None:
    kept = {name: list(dict.fromkeys(known))[:_KEPT_HASHES] for name, known in sorted(hashes.items())}
    with written_whole(path) as part:
        content = {"application": APPLICATION, "outputs": kept}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_tables(folder: Path, out: Path, found: Found, report: BatchReport) -> Work[Gathered]:
    gathered = Gathered()
    done = [(job, outcome) for job, outcome in zip(found.jobs, report.outcomes, strict=True)]
    columns = ["image", "plane", *found.fact_names, *_SHAPE, *_further_columns(done), *_LAST]
    with (
        (folder / "objects.csv").open("w", encoding="utf-8", newline="") as objects,
        (folder / "images.csv").open("w", encoding="utf-8", newline="") as images,
    ):
        rows = csv.DictWriter(objects, columns, restval="", extrasaction="ignore", lineterminator="\n")
        image_columns = ["image", *found.fact_names, *_IMAGE]
        image_rows = csv.DictWriter(images, image_columns, restval="", lineterminator="\n")
        rows.writeheader()
        image_rows.writeheader()
        for i, (job, outcome) in enumerate(done):
            yield Progress("collecting the tables", i, len(done))
            row: dict[str, Any] = {"image": job.image, "status": outcome.status, **dict(job.facts)}
            row |= {"flags": "; ".join(outcome.flags), "message": outcome.message}
            if outcome.status != "failed":
                row["status"] = "done"  # whichever run it was
                try:
                    record = read_record(job.record)
                    row |= _about(record, job, out)
                    row |= _copy_objects(job, record, rows, gathered)
                except (FileError, OSError, csv.Error) as error:
                    gathered.problems.append(
                        printable(f"the result of {job.source} cannot be read again: {error}")
                    )
            image_rows.writerow(row)
    return gathered


def _further_columns(done: list[tuple[Job, FileOutcome]]) -> list[str]:
    """Names of all columns beyond those of every table: intensities first, then those of linked stacks."""
    names: dict[str, None] = {}
    for job, outcome in done:
        if outcome.status != "failed":
            with (
                suppress(OSError, StopIteration, csv.Error),
                job.objects.open(encoding="utf-8", newline="") as file,
            ):
                names.update(dict.fromkeys(next(csv.reader(file))))
    more = [name for name in names if name not in COLUMNS and name != "z"]
    return sorted(more, key=lambda name: not name.startswith("intensity_"))


def _about(record: Record, job: Job, out: Path) -> dict[str, Any]:
    """Give the columns of an image that its record tells."""
    row, column = record.pixel_size or ("", "")
    height, width = record.shape or ("", "")
    return {
        "n_objects": record.n_objects,
        "plane": record.plane,
        "height": height,
        "width": width,
        "channels": "; ".join(name or "(unnamed)" for name in record.channels),
        "object_size_px": "" if record.object_size is None else record.object_size,
        "object_size_estimated": record.object_size_estimated,
        "pixel_size_um": _side(record),
        "pixel_size_y_um": row,
        "pixel_size_x_um": column,
        "pixel_size_source": record.pixel_size_source,
        "labels": printable(job.labels.relative_to(out).as_posix()),
        "input_sha256": record.input_sha256,
        "model": record.model,
        "version": record.version,
    }


def _side(record: Record) -> float | str:
    """Side of the square that has a pixel's area, in micrometres."""
    if record.pixel_size is None:
        return ""
    row, column = record.pixel_size
    return row if row == column else math.sqrt(row * column)


def _copy_objects(job: Job, record: Record, rows: csv.DictWriter[str], gathered: Gathered) -> dict[str, Any]:
    """Copy the rows of an image as they are; returns what they tell of the image."""
    own: dict[str, Any] = {"image": job.image, **dict(job.facts), "source": SOURCE}
    own |= {"pixel_size_um": _side(record), "pixel_size_source": record.pixel_size_source}
    diameters: dict[str, list[float]] = {"px": [], "um": []}
    with job.objects.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            rows.writerow({**row, **own, "plane": row.get("z", record.plane)})
            for unit, values in diameters.items():
                with suppress(KeyError, ValueError, TypeError):
                    values.append(float(row[f"equivalent_diameter_{unit}"]))
    gathered.diameters_px.add(diameters["px"])
    gathered.diameters_um.add(diameters["um"])
    gathered.n_objects += record.n_objects
    gathered.records[job.image] = job.record
    medians = {unit: median(values) if values else math.nan for unit, values in diameters.items()}
    gathered.median_px[job.image] = medians["px"]
    return {f"median_diameter_{unit}": "" if math.isnan(m) else m for unit, m in medians.items()}
