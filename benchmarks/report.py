"""Rows of measurements as one Markdown table and one JSON file."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .timing import Timing

COLUMNS = ("best", "float32")
_FOOTER = (
    "In brackets: CPU seconds. Ratio: plain baseline / ours, from the same run. The float32 column stands "
    "for CPUs without bfloat16; it was measured on this one, with all its vector units. The published times "
    "of micro-sam are for the same architecture on another machine."
)
_PACKAGES = ("torch", "timm", "openvino", "numpy", "scipy", "scikit-image")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value: seconds with CPU seconds, or MiB."""

    value: float
    cpu: float | None = None

    @classmethod
    def of(cls, timing: Timing) -> Figure:
        """Take the medians of a timing."""
        return cls(timing.wall, timing.cpu)


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed at: at least so many times better than the baseline, at most this value."""

    ratio: float | None = None
    most: float | None = None

    def words(self, row: Row) -> str:
        """State the target and whether the best precision meets it."""
        parts, met = [], True
        ratio, found = row.ratio("best"), row.figures.get("best")
        if self.ratio is not None:
            parts.append(f">= {self.ratio:g}x")
            met &= ratio is not None and ratio >= self.ratio
        if self.most is not None:
            parts.append(f"<= {written(self.most, row.unit)}")
            met &= found is not None and found.value <= self.most
        return ", ".join(parts) + (": met" if met else ": not met")


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a result is against the ground truth."""

    ap50: float
    msa: float
    found: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    key, title
        Name in the JSON file, name for people.
    figures
        `baseline`, `best` and `float32`, as far as they were measured.
    unit
        `s` or `MiB`.
    quality
        By column.
    target, elsewhere, note
        What is aimed at; the published value of another program; what must be known to read the row.
    extra
        More values for the JSON file.
    """

    key: str
    title: str
    figures: dict[str, Figure]
    unit: str = "s"
    quality: dict[str, Quality] = field(default_factory=dict)
    target: Target | None = None
    elsewhere: str = ""
    note: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    def ratio(self, column: str) -> float | None:
        """Return how many times less a column needs than the plain baseline."""
        ours, plain = self.figures.get(column), self.figures.get("baseline")
        return None if ours is None or plain is None else plain.value / ours.value


def written(value: float, unit: str) -> str:
    """Write a value with three digits and a fitting unit."""
    if unit == "MiB":
        return f"{value:.0f} MiB"
    if value < 0.0995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 99.5 else f"{value:.0f} s"


def machine() -> dict[str, Any]:
    """Describe the computer and the libraries, without naming it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version()}
    for package in ("napari-lightsam", *_PACKAGES):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": _cpu_name(), "cores": cores, "system": platform.system(), "versions": versions}


def load() -> float | None:
    """Return how many processes wanted a core during the last minute; None where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def where(about: dict[str, Any]) -> str:
    """Write what `machine` describes as one line, without a full stop."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['cpu']}, {about['cores']} cores, {about['system']}; {versions}"


def save_results(path: Path, figures: dict[str, Any], table: str) -> None:
    """Write the figures as JSON, and what was printed as Markdown beside them."""
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(table, encoding="utf-8")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def as_json(rows: Iterable[Row], header: dict[str, Any]) -> dict[str, Any]:
    """Return everything measured, under names that documents can quote."""
    return header | {"rows": {row.key: _row_json(row) for row in rows}}


def _row_json(row: Row) -> dict[str, Any]:
    out: dict[str, Any] = {"title": row.title}
    for column, figure in row.figures.items():
        if row.unit == "MiB":
            out[column] = {"mib": round(figure.value, 1)}
            continue
        out[column] = {"seconds": _digits(figure.value), "ms": _digits(figure.value * 1e3)}
        if figure.cpu is not None:
            out[column]["cpu_seconds"] = _digits(figure.cpu)
    for column in COLUMNS:
        ratio = row.ratio(column)
        if ratio is not None:
            out[column]["ratio"] = _digits(ratio)
        if column in row.quality:
            found = row.quality[column]
            out[column] |= {"ap50": round(found.ap50, 4), "msa": round(found.msa, 4), "found": found.found}
    return out | {name: _digits(value) for name, value in row.extra.items()}


def _digits(value: float) -> float:
    return float(f"{value:.4g}")


def as_markdown(rows: Sequence[Row], header: dict[str, Any]) -> str:
    """Return the table, what it was measured on above it, its notes below it."""
    best = header["precision"]["best"]
    names = [f"{name} {version}" for name, version in header["versions"].items()]
    lines = [
        f"{header['cpu']}, {header['cores']} cores, {header['threads']} threads, {header['system']}; "
        f"{', '.join(names)}; runtime {header['runtime']}; medians of {header['repeat']}, taken in turns; "
        f"load {header['load']}.",
        "",
        f"| | plain baseline | {best} | float32 | ratio, {best} | ratio, float32 | AP .5 | mSA "
        "| micro-sam, published | target |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    for row in rows:
        title = row.title
        if row.note:
            if row.note not in notes:
                notes.append(row.note)
            title += f" [{notes.index(row.note) + 1}]"
        lines.append("| " + " | ".join([title, *_cells(row)]) + " |")
    lines += ["", _FOOTER, ""]
    lines += [f"{number}. {note}" for number, note in enumerate(notes, start=1)]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    cells = []
    for column in ("baseline", *COLUMNS):
        figure = row.figures.get(column)
        if figure is None:
            cells.append("")
            continue
        cpu = "" if figure.cpu is None else f" ({written(figure.cpu, row.unit)})"
        cells.append(written(figure.value, row.unit) + cpu)
    for column in COLUMNS:
        ratio = row.ratio(column)
        cells.append("" if ratio is None else f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:.0f}x")
    for name in ("ap50", "msa"):
        values = [f"{getattr(row.quality[c], name):.3f}" for c in COLUMNS if c in row.quality]
        cells.append(values[0] if len(set(values)) == 1 else " / ".join(values))
    return [*cells, row.elsewhere, row.target.words(row) if row.target else ""]
