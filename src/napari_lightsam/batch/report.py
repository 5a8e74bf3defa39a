"""The report of a batch: one HTML file that needs nothing else, so that people look at their results."""

from __future__ import annotations

import platform
import re
from datetime import datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from napari_lightsam.batch.recipe import format_recipe
from napari_lightsam.errors import FileError
from napari_lightsam.formats.sidecar import read_record
from napari_lightsam.session.citations import cite, spell_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from napari_lightsam.batch.settings import BatchReport, FileOutcome
    from napari_lightsam.batch.single import Batch
    from napari_lightsam.batch.summary import Gathered

MOST_PICTURES = 120
"""Images with a picture; flagged ones first, others evenly spread."""

MOST_ROWS = 2000
"""Images in a list; the table of images has all."""

_PACKAGES = ("napari-lightsam", "torch", "openvino", "timm", "numpy", "scikit-image", "tifffile")
_OPTION, _WHOLE = re.compile(r"--[a-z][a-z-]*( [0-9.]+)?"), r"<code>\g<0></code>"  # is not broken at a hyphen
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; margin: 2rem auto; max-width: 74rem;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .3rem } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
.quiet { color: #5b6169 } .bad { color: #a11 } .good { color: #17683a }
.figures { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0 }
.figures div { background: #f2f4f6; border-radius: 6px; padding: .5rem .9rem; min-width: 6rem }
.figures b { display: block; font-size: 1.35rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 1rem }
figure { margin: 0 } figure img { max-width: 100%; background: #000; display: block }
figcaption { font-size: .82rem; overflow-wrap: anywhere; margin-top: .35rem }
code { font: inherit; white-space: nowrap }
table { border-collapse: collapse; width: 100%; font-size: .88rem; margin-top: 1rem }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #e3e6e9;
  vertical-align: top; overflow-wrap: anywhere }
td:first-child { min-width: 14rem }
td.n, th.n { text-align: right; white-space: nowrap }
pre { background: #f2f4f6; padding: .8rem; border-radius: 6px; overflow-x: auto; font-size: .85rem }
svg text { font: 11px system-ui, sans-serif; fill: #5b6169 }
"""


def write_report(path: Path, batch: Batch, report: BatchReport, gathered: Gathered) -> None:
    """Write the report of a batch.

    Parameters
    ----------
    path
        HTML file to write.
    batch
        What was fixed before the first image.
    report
        What became of each image.
    gathered
        What the tables hold.
    """
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for part in _parts(batch, report, gathered):
            file.write(part + "\n")


def _parts(batch: Batch, report: BatchReport, gathered: Gathered) -> Iterator[str]:
    done = [o for o in report.outcomes if o.status != "failed"]
    failed = [o for o in report.outcomes if o.status == "failed"]
    flagged = [o for o in done if o.flags]
    others = [o for o in done if not o.flags]
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is fetched and nothing runs, whatever the names of files may hold.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\"><title>Batch report</title><style>{_STYLE}</style></head><body>"
    )
    yield "<h1>Batch report</h1>"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    yield f'<p class="quiet">napari-lightsam {escape(batch.identity.version)}, {escape(now)}</p>'
    yield _figures(report, gathered, len(done), len(failed), len(flagged))
    notes = [*((text, "bad") for text in report.problems), *((text, "quiet") for text in report.notes)]
    yield from (f'<p class="{kind}">{escape(text)}.</p>' for text, kind in notes)
    if failed:
        yield f"<h2>Failed: {len(failed)}</h2>"
        yield _table(["image", "reason"], ([_name(o), o.message] for o in failed[:MOST_ROWS]))
        yield _more(len(failed))
    if flagged:
        yield f"<h2>Look at these first: {len(flagged)}</h2>"
        yield from _cards(flagged[:MOST_PICTURES], gathered)
        rest = flagged[MOST_PICTURES:]
        yield _table(["image", "why"], ([_name(o), "; ".join(o.flags)] for o in rest[:MOST_ROWS]))
        yield _more(len(rest))
    yield from _sizes(gathered)
    yield "<h2>Images</h2>"
    room = max(0, MOST_PICTURES - len(flagged))
    shown = [others[i * len(others) // room] for i in range(room)] if len(others) > room else others
    if len(shown) < len(others) and shown:
        yield f'<p class="quiet">{len(shown)} of {len(others)} images without flags, evenly chosen.</p>'
    yield from _cards(shown, gathered)
    yield _table(["image", "objects", "median diameter (px)"], _rows(done[:MOST_ROWS], gathered), numbers=2)
    yield _more(len(done))
    yield from _about(batch, report)
    yield "</body></html>"


def _figures(report: BatchReport, gathered: Gathered, done: int, failed: int, flagged: int) -> str:
    size = "-" if report.object_size is None else f"{report.object_size:.1f} px"
    figures = [
        ("images done", f"{done:,}", ""),
        ("failed", f"{failed:,}", "bad" if failed else "good"),
        ("to look at", f"{flagged:,}", ""),
        ("objects", f"{gathered.n_objects:,}", ""),
        (f"object size, {report.object_size_source}", size, ""),
    ]
    inner = "".join(
        f'<div><b class="{kind}">{value}</b>{escape(name)}</div>' for name, value, kind in figures
    )
    return f'<div class="figures">{inner}</div>'


def _name(outcome: FileOutcome) -> str:
    return outcome.image or str(outcome.source)


def _cards(outcomes: Sequence[FileOutcome], gathered: Gathered) -> Iterator[str]:
    if not outcomes:
        return
    yield '<div class="cards">'
    for outcome in outcomes:
        picture = _preview(gathered.records.get(_name(outcome)), f"{_name(outcome)}, outlined")
        objects = "1 object" if outcome.n_objects == 1 else f"{outcome.n_objects} objects"
        flags = "".join(f"<br>{_OPTION.sub(_WHOLE, escape(flag))}" for flag in outcome.flags)
        caption = f'<b>{escape(_name(outcome))}</b><br>{objects}<span class="bad">{flags}</span>'
        yield f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
    yield "</div>"


def _preview(path: Path | None, title: str) -> str:
    """Picture of an image, as its record keeps it."""
    try:
        preview = "" if path is None else read_record(path).preview
    except FileError:
        preview = ""
    if not preview:
        return ""
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{escape(preview)}">'


def _sizes(gathered: Gathered) -> Iterator[str]:
    calibrated = gathered.diameters_um.total == gathered.diameters_px.total
    histogram, unit = (gathered.diameters_um, "µm") if calibrated else (gathered.diameters_px, "px")
    edges, counts = histogram.bins(most=int(min(30, max(8, 2 * histogram.total**0.5))))
    if not len(counts):
        return
    yield f"<h2>Sizes of {histogram.total:,} objects</h2>"
    if not calibrated and gathered.diameters_um.total:
        yield '<p class="quiet">In pixels, as not all images are calibrated.</p>'
    width, height, left, bottom = 640, 180, 50, 34
    step, top = width / len(counts), int(counts.max())
    bars = "".join(
        f'<rect x="{left + i * step + 0.5:.1f}" y="{8 + height * (1 - n / top):.1f}" width="{step - 1:.1f}" '
        f'height="{height * n / top:.1f}" fill="#3b7dbd"><title>{a:.4g} to {b:.4g} {unit}: {n:,}</title>'
        "</rect>"
        for i, (n, a, b) in enumerate(zip(counts.tolist(), edges, edges[1:], strict=False))
    )
    ticks = "".join(
        f'<text x="{left + width * i / 4:.0f}" y="{height + 22}" text-anchor="middle">'
        f"{edges[-1] * i / 4:.3g}</text>"
        for i in range(5)
    )
    yield (
        f'<svg viewBox="0 0 {left + width + 20} {height + bottom + 12}" width="{left + width + 20}" '
        f'style="max-width:100%" role="img" aria-label="Histogram of diameters">{bars}'
        f'<line x1="{left}" x2="{left + width}" y1="{height + 8}" y2="{height + 8}" stroke="#5b6169"/>{ticks}'
        f'<text x="{left - 6}" y="16" text-anchor="end">{top:,}</text>'
        f'<text x="{left + width / 2:.0f}" y="{height + 40}" text-anchor="middle">'
        f"equivalent diameter ({unit})</text></svg>"
    )


def _rows(outcomes: Iterable[FileOutcome], gathered: Gathered) -> Iterator[list[str]]:
    for outcome in outcomes:
        size = gathered.median_px.get(_name(outcome), float("nan"))
        yield [_name(outcome), str(outcome.n_objects), "" if size != size else f"{size:.1f}"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> str:
    first = len(header) - numbers
    kinds = ["" if i < first else ' class="n"' for i in range(len(header))]
    lines = [
        "<tr>"
        + "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    ]
    if not lines:
        return ""
    top = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, header, strict=True))
    return f"<table><tr>{top}</tr>{''.join(lines)}</table>"


def _more(n: int) -> str:
    return f'<p class="quiet">{n - MOST_ROWS:,} more are in images.csv.</p>' if n > MOST_ROWS else ""


def _about(batch: Batch, report: BatchReport) -> Iterator[str]:
    yield f"<h2>Settings</h2><pre>{escape(format_recipe(batch.recipe))}</pre>"
    yield "<h2>Made with</h2>"
    rows = [
        ["model", f"{report.model}, sha256 {batch.identity.model_sha256}"],
        [
            "ran on",
            f"{report.device}, {report.precision}, {batch.segmenter.runtime_name}: {report.device_reason}",
        ],
        ["Python", f"{platform.python_version()} on {platform.platform()}"],
        *([name, found] for name in _PACKAGES if (found := _version(name))),
    ]
    yield _table(["what", "which"], rows)
    entries = cite(batch.identity.version, [str(getattr(batch.segmenter.spec, "citation", ""))])
    listed = "".join(f"<li>{escape(spell_out(entry))}</li>" for entry in entries)
    yield f"<h2>Please cite</h2><ul>{listed}</ul><pre>{escape(chr(10).join(entries))}</pre>"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
