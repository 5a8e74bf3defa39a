"""The images of a folder that are annotated one after the other, and the files of each."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.errors import FileError
from napari_lightsam.formats.images import SUFFIXES
from napari_lightsam.plugin.sessions.shelf import Shelf, unused

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a series.

    Attributes
    ----------
    source
        The image file.
    base
        Output folder and stem; the outputs append to it.
    """

    source: Path
    base: Path

    @property
    def session(self) -> Path:
        """The saved work; it is written last, so that where it is, all is."""
        return self.base.with_name(self.base.name + ".lightsam")

    @property
    def shelf(self) -> Shelf:
        """Where unfinished work is kept."""
        return Shelf(self.base.parent / "autosave", self.base.name)

    @property
    def stamp(self) -> object:
        """What the saved work has another one of when it is written again; None where there is none."""
        try:
            status = self.session.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size

    @property
    def is_done(self) -> bool:
        """The image was annotated."""
        return self.session.is_file()


def find_items(folder: Path, out: Path) -> tuple[Item, ...]:
    """Find the images of a folder, in the order in which people count: image 2 before image 10.

    Raises
    ------
    FileError
        The folder does not exist, or holds no images.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a10.tif", "a2.tif", "a2_labels.tif", "notes.txt"):
    ...         _ = Path(folder, name).write_bytes(b"")
    ...     [item.base.name for item in find_items(Path(folder), Path(folder))]
    ['a2', 'a10']
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder. Choose the folder that holds the images.")
    names = sorted(
        (e.name for e in os.scandir(folder) if e.is_file() and e.name.casefold().endswith(SUFFIXES)),
        key=_order,
    )
    stems = {_stem(name) for name in names}
    images = [
        name
        for name in names
        if not name.startswith(".")
        and not any(
            name.endswith(end) and name.removesuffix(end) in stems for end in ("_labels.tif", "_overlay.png")
        )
    ]
    if not images:
        raise FileError(f"No images were found in the folder {folder} ({', '.join(SUFFIXES)}).")
    clashing = {
        stem for stem in stems if sum(_stem(name).casefold() == stem.casefold() for name in images) > 1
    }
    return tuple(
        Item(folder / name, out / (name.replace(".", "_") if _stem(name) in clashing else _stem(name)))
        for name in images
    )


def _order(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())
    ]


def _stem(name: str) -> str:
    stem = Path(name).stem
    return stem[:-4] if stem.casefold().endswith(".ome") else stem


def newest_of(item: Item) -> Path | None:
    """Return the newest file with work on an image: finished, or kept while it was done; None without any."""
    kept = item.shelf.newest()
    if not item.is_done:
        return kept
    newer = kept is not None and kept.stat().st_mtime_ns > item.session.stat().st_mtime_ns
    return kept if newer else item.session


def move_aside(files: Iterable[Path], out: Path) -> Path | None:
    """Move files into a folder of their own, where nothing is written over them.

    Parameters
    ----------
    files
        Those that there are of them are moved.
    out
        Where the results go, and the folder.

    Returns
    -------
    path
        The folder; None where there was no file.
    """
    there = [file for file in files if file.is_file()]
    if not there:
        return None
    aside = unused(out / f"before {time.strftime('%Y-%m-%d %H.%M.%S')}")
    aside.mkdir(parents=True)
    for file in there:
        shutil.move(file, aside / file.name)
    return aside
