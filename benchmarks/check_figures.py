"""Compare every figure quoted in Markdown with the committed result that it comes from.

A quoted figure stands between two comments that do not show::

    AP <!-- figure: evaluation.sets.dsb2018.ap50 -->0.66<!-- /figure -->

The name is the stem of a JSON file in `benchmarks/results`, then the keys down to one value. The figure is
right when the value, rounded to as many decimals as are written, gives the same text. Code blocks, such as
the one that explains this, are left alone.

    python benchmarks/check_figures.py            fail on a wrong, unknown or unreadable figure
    python benchmarks/check_figures.py --write    put the committed values into the documents
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("*.md", "docs/**/*.md", "src/napari_lightsam/**/*.md")

_FIGURE = re.compile(r"<!-- figure: (?P<name>[^\s>]+) -->(?P<text>.*?)<!-- /figure -->", re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_OPENED = re.compile(r"<!--\s*/?\s*figure\b")


def read_results(folder: Path) -> dict[str, Any]:
    """Read all result files, by stem."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def find_value(name: str, results: dict[str, Any]) -> Any:
    """Look a dotted name up; raises KeyError with the part that is missing."""
    value: Any = results
    for key in name.split("."):
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            raise KeyError(key)
    return value


def as_written(value: Any, like: str) -> str:
    """Format a value as a document writes it: with the decimals, and thousands commas, of `like`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    decimals = len(like.partition(".")[2])
    return format(value, f"{',' if ',' in like or value >= 10_000 else ''}.{decimals}f")


def check_document(text: str, results: dict[str, Any]) -> list[str]:
    """Name everything that is wrong with the figures of one document."""
    problems = []
    text = _FENCED.sub("", text)
    figures = list(_FIGURE.finditer(text))
    if len(_OPENED.findall(text)) != 2 * len(figures):
        problems.append(
            "a figure comment is not closed, or is written in another way than <!-- figure: NAME -->"
        )
    for figure in figures:
        name, written = figure["name"], figure["text"]
        try:
            value = find_value(name, results)
        except KeyError as missing:
            problems.append(f"{name}: no such result ({missing} is missing)")
            continue
        if isinstance(value, dict | list) or value is None:
            problems.append(f"{name}: not one value but {json.dumps(value)[:40]}")
        elif written.replace(",", "") != as_written(value, written).replace(",", ""):
            problems.append(f"{name}: the document says {written!r}, the result is {value}")
    return problems


def update_document(text: str, results: dict[str, Any]) -> str:
    """Put the committed values into a document, with as many decimals as were written."""

    def replaced(figure: re.Match[str]) -> str:
        if figure["name"] is None:
            return figure[0]
        value = as_written(find_value(figure["name"], results), figure["text"])
        return f"<!-- figure: {figure['name']} -->{value}<!-- /figure -->"

    return re.sub(f"{_FENCED.pattern}|{_FIGURE.pattern}", replaced, text, flags=re.DOTALL | re.MULTILINE)


def main(arguments: list[str] | None = None) -> int:
    """Run the check over a repository; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="update the documents")
    parser.add_argument("--root", type=Path, default=ROOT, help="repository root")
    options = parser.parse_args(arguments)
    results = read_results(options.root / "benchmarks" / "results")
    documents = sorted({path for pattern in DOCUMENTS for path in options.root.glob(pattern)})
    failed = checked = 0
    for path in documents:
        text = path.read_text(encoding="utf-8")
        if options.write:
            updated = update_document(text, results)
            if updated != text:
                path.write_text(updated, encoding="utf-8")
            text = updated
        checked += len(_FIGURE.findall(_FENCED.sub("", text)))
        for problem in check_document(text, results):
            print(f"{path.relative_to(options.root)}: {problem}", file=sys.stderr)
            failed += 1
    print(f"{checked} figures in {len(documents)} documents, {failed} problems")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
