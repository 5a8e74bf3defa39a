"""Where autosaving writes, and which files it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lightsam.engine.cache import cache_folder

if TYPE_CHECKING:
    from pathlib import Path

KEPT = 3
"""Files that autosaving keeps."""
SPACING = 5.0
"""Seconds by which the kept files are apart at least; within them the newest is brought up to date."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where autosaving writes.

    Attributes
    ----------
    folder
        Made when it is needed.
    stem
        Begin of the files' names; empty: of the image's name and content.
    """

    folder: Path
    stem: str = ""

    def file(self, number: int = 1) -> Path:
        """Return the path of a kept file; 1 is the newest."""
        return self.folder / f"{self.stem}~{number}.lightsam"

    def newest(self) -> Path | None:
        """Return the newest file that is there, or None."""
        return next((f for n in range(1, KEPT + 1) if (f := self.file(n)).is_file()), None)

    def remove(self) -> None:
        """Remove what was kept: the work was saved, or is not wanted."""
        for number in range(1, KEPT + 1):
            self.file(number).unlink(missing_ok=True)


def beside(path: Path) -> Place:
    """Return the place that belongs to a saved file."""
    return Place(path.parent / "autosave", path.stem)


def never_saved(name: str = "", pixels: str = "") -> Place:
    """Return the place of an image whose work was never saved: in the cache folder, by name and content."""
    folder = cache_folder() / "unsaved"
    if not pixels:
        return Place(folder)
    plainly = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name)[:40]
    return Place(folder, f"{plainly}-{pixels.rpartition(':')[2][:16]}")
