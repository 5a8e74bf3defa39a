"""The files in which autosaving keeps work: the newest of each image, and what was found and set aside."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lightsam.engine.cache import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 3
"""Files that autosaving keeps."""
SPACING = 5.0
"""Seconds by which the kept files are apart at least; within them the newest is brought up to date."""
MOST_UNSAVED = 20
"""Images whose never saved work is kept."""

_ASIDE = "set aside"
_WINDOW = "~window "  # before the number of a further window that works on the same image


@dataclass(frozen=True, slots=True)
class Shelf:
    """The files that autosaving keeps of the work on one image.

    Attributes
    ----------
    folder
        Made when it is needed.
    stem
        Begin of the files' names.
    """

    folder: Path
    stem: str

    def file(self, number: int = 1) -> Path:
        """Return the path of a kept file; 1 is the newest."""
        return self.folder / f"{self.stem}~{number}.lightsam"

    def files(self) -> list[Path]:
        """Return the files that are there, the newest first."""
        return [file for number in range(1, KEPT + 1) if (file := self.file(number)).is_file()]

    def newest(self) -> Path | None:
        """Return the newest file that is there, or None."""
        return next(iter(self.files()), None)

    @property
    def usual(self) -> Shelf:
        """The shelf of the first window that worked on the image."""
        return Shelf(self.folder, self.stem.partition(_WINDOW)[0])

    def another(self) -> Shelf:
        """Return a shelf for a further window, with nothing on it."""
        number, usual = 2, self.usual
        while (found := Shelf(self.folder, f"{usual.stem}{_WINDOW}{number}")).files():
            number += 1
        return found

    def family(self) -> list[Shelf]:
        """Return this shelf, and those of further windows that hold something."""
        begin = f"{self.stem}{_WINDOW}"
        files = [] if not self.folder.is_dir() else self.folder.glob("*~*.lightsam")
        others = {file.name.rpartition("~")[0] for file in files if file.name.startswith(begin)}
        return [self, *(Shelf(self.folder, stem) for stem in sorted(others))]

    def state(self) -> tuple[int, ...] | None:
        """Return what tells the newest file from others that take its place; None where there is none."""
        try:
            found = self.file().stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def make_room(self) -> None:
        """Move every file one place on; the oldest goes."""
        for number in range(KEPT, 1, -1):
            if self.file(number - 1).is_file():
                self.file(number - 1).replace(self.file(number))

    def set_aside(self) -> Path | None:
        """Move what is there into a folder of its own, where nothing is written over it.

        Returns
        -------
        path
            Where the newest file is now; None where there was none.
        """
        files = self.files()
        if not files:
            return None
        folder = unused(self.folder / _ASIDE / f"{self.stem} {time.strftime('%Y-%m-%d %H.%M.%S')}")
        folder.mkdir(parents=True)
        for file in files:
            file.replace(folder / file.name)
        return folder / files[0].name

    def remove(self) -> None:
        """Remove what was kept: the work was saved, or is not wanted."""
        for file in self.files():
            file.unlink(missing_ok=True)


def unused(folder: Path) -> Path:
    """Return a folder's path, with a number behind it where that is taken."""
    number, found = 1, folder
    while found.exists():
        number += 1
        found = folder.with_name(f"{folder.name} {number}")
    return found


def beside(path: Path) -> Shelf:
    """Return the shelf that belongs to a saved file."""
    return Shelf(path.parent / "autosave", path.stem)


def never_saved(name: str, pixels: str) -> Shelf:
    """Return the shelf of an image whose work was never saved: in the cache folder, by name and content."""
    plainly = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)[:40]
    return Shelf(_unsaved(), f"{plainly}-{pixels.rpartition(':')[2][:16]}")


def _unsaved() -> Path:
    return cache_folder() / "unsaved"


def prune_never_saved() -> None:
    """Remove never saved work of all but the images that were worked on last."""
    folder = _unsaved()
    _prune({file: file.name.rpartition("~")[0] for file in folder.glob("*~*.lightsam")})
    _prune({file: file.parent.name for file in (folder / _ASIDE).glob("*/*.lightsam")})


def _prune(groups: dict[Path, str]) -> None:
    newest: dict[str, float] = {}
    for file, group in groups.items():
        newest[group] = max(newest.get(group, 0.0), file.stat().st_mtime)
    kept = sorted(newest, key=lambda group: -newest[group])[:MOST_UNSAVED]
    for file, group in groups.items():
        if group not in kept:
            file.unlink(missing_ok=True)
            if file.parent.name == group and not any(file.parent.iterdir()):
                file.parent.rmdir()
