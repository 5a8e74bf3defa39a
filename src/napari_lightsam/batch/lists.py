"""Lists of images as CSV files, with what is known of each image: condition, well, replicate ..."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.spelling import as_on_disk
from napari_lightsam.formats.zarrs import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUFFIXES = (".csv", ".tsv")
"""File name endings by which a list is recognised."""

COLUMNS = ("image", "path")
"""The column that holds the images is called one of these."""

_SEPARATOR = re.compile(r'"?sep=([,;\t])"?[\r\n]', re.IGNORECASE)  # the first line of files for Excel
_LARGEST_FILE = 100_000_000  # bytes; a row takes about a hundred


@dataclass(frozen=True, slots=True)
class Listed:
    """One row of a list.

    Attributes
    ----------
    source
        The image: a path, or text where it is an address.
    place
        Subfolder that its results go to.
    facts
        Name and value of every further column.
    line
        In the file.
    """

    source: Path | str
    place: Path
    facts: tuple[tuple[str, str], ...]
    line: int


def read_list(path: Path, reserved: Iterable[str] = ()) -> tuple[Listed, ...]:
    r"""Read a list of images.

    Parameters
    ----------
    path
        Text with a line of column names, separated by commas, semicolons or tabs; a line such as `sep=;` may
        stand before it. One column is called `image` or `path`: files relative to the list, absolute ones, or
        addresses. Columns with neither name nor value, as spreadsheets leave them at the end, do not count.
    reserved
        Names that further columns must not have.

    Raises
    ------
    FileError
        The file cannot be read.
    ConfigError
        It is no such list; the message tells the line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "plate.csv"
    ...     _ = path.write_text("image;condition\nA/1.tif;control\n")
    ...     rows = read_list(path)
    >>> rows[0].source.name, rows[0].place.name, rows[0].facts
    ('1.tif', 'A', (('condition', 'control'),))
    """
    rows = _read_rows(path)
    if not rows:
        raise ConfigError(f"{path} is empty. Its first line names the columns, one of them {COLUMNS[0]}.")
    header = [name.strip() for name in rows[0][1]]
    width = _named(header, rows)
    header = header[:width]
    at = _image_column(path, header)
    _check_names(path, [name for i, name in enumerate(header) if i != at], reserved)
    found: dict[str, Listed] = {}
    for line, cells in rows[1:]:
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            raise ConfigError(f"{path}, line {line}: {len(cells)} values for {len(header)} columns.")
        listed = _listed(path, header, at, line, cells)
        first = found.setdefault(str(listed.source), listed)
        if first is not listed:
            raise ConfigError(f"{path}, line {line}: {cells[at]!r} was listed in line {first.line} already.")
    if not found:
        raise ConfigError(f"{path} lists no image.")
    return tuple(found.values())


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileError(f"{path} is too large for a list of images.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(
            f"{path} is no list of images: save it as CSV in UTF-8 (Excel calls it CSV UTF-8)."
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    told = _SEPARATOR.match(text)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = told[1] if told else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        return rows[1:] if told else rows
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: {error}.") from None


def _named(header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]) -> int:
    """Count the columns, without those at the end that hold nothing at all."""
    used = (k for _, row in rows for k, cell in enumerate(row, 1) if cell.strip())
    return min(max(used, default=0), len(header))


def _image_column(path: Path, header: Sequence[str]) -> int:
    fitting = [i for i, name in enumerate(header) if name.casefold() in COLUMNS]
    if len(fitting) != 1:
        raise ConfigError(
            f"{path}, line 1: one column is called {' or '.join(COLUMNS)}; given: {', '.join(header)[:200]}."
        )
    return fitting[0]


def _check_names(path: Path, names: Sequence[str], reserved: Iterable[str]) -> None:
    taken = {name.casefold() for name in reserved}
    for name in names:
        clash = name.casefold() in taken or name.casefold().startswith("intensity_")
        if not name or names.count(name) > 1 or clash:
            why = "has no name" if not name else "is a column of the results" if clash else "is there twice"
            raise ConfigError(f"{path}, line 1: a column {name!r} {why}. Rename it.")


def _listed(path: Path, header: Sequence[str], at: int, line: int, cells: Sequence[str]) -> Listed:
    given = cells[at].strip()
    if not given or "\0" in given:
        raise ConfigError(f"{path}, line {line}: no image is named.")
    facts = tuple((name, cells[i].strip()) for i, name in enumerate(header) if i != at)
    if is_url(given):
        return Listed(given.rstrip("/"), Path(), facts, line)
    windows = "\\" in given and "/" not in given
    source = as_on_disk(path.parent / (Path(*PureWindowsPath(given).parts) if windows else Path(given)))
    inside = source.parent.is_relative_to(path.parent)
    place = source.parent.relative_to(path.parent) if inside else Path()
    return Listed(source, Path() if ".." in place.parts else place, facts, line)
