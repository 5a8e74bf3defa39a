"""Names with accents, which systems write in one sign or in two: `é`, or `e` and an accent."""

from __future__ import annotations

import os
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 4096  # of a path that any system takes


def as_on_disk(path: Path) -> Path:
    r"""Return the path of a file or folder as its disk spells it; as it is given where it is not there.

    macOS takes both spellings for the same and writes the one with two signs, others keep them apart: a name
    that was written down on one system would not be found on another.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "e\u0301.tif").touch()
    ...     as_on_disk(Path(folder, "\xe9.tif")).exists()
    True
    """
    if str(path).isascii() or len(str(path)) > _LONGEST:
        return path
    place, missing = path, list[str]()
    while not os.path.lexists(place) and place != place.parent:
        missing.append(unicodedata.normalize("NFC", place.name))
        place = place.parent
    for wanted in reversed(missing):
        try:
            names = os.listdir(place)
        except OSError:
            return path
        name = next((name for name in names if unicodedata.normalize("NFC", name) == wanted), None)
        if name is None:
            return path
        place = place / name
    return place
