"""What a quality check says that is kept with labels, and whether it is still of the objects as they are."""

from __future__ import annotations

import csv
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import explain, written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_lightsam.session.document import LabelRecord

COLUMNS = (
    "image", "precision", "precision_low", "precision_high", "judged", "recall", "recall_low", "recall_high",
    "searched", "seed", "changed_since",
)  # fmt: skip
"""Of the table of checks: `judged` and `searched` count objects, `low` and `high` are the 95% interval by
Wilson."""


def fingerprint(labels: NDArray[Any], areas: NDArray[Any], centroids: NDArray[Any]) -> int:
    """Return a number that changes when an object comes, goes, moves or changes its area.

    Parameters
    ----------
    labels, areas
        (N,) by rising label.
    centroids
        (N, D) in pixels along every axis of the label array.
    """
    rounded = np.rint(np.asarray(centroids) * 8).astype(np.int64)
    columns = [np.asarray(labels, np.int64), np.asarray(areas, np.int64), rounded]
    return zlib.crc32(np.column_stack(columns).tobytes())


def fingerprint_of(data: NDArray[Any], place: tuple[int | None, ...]) -> int:
    """Return the fingerprint of the objects at a place of a label array.

    Parameters
    ----------
    data
        Whole numbers, 0 is background.
    place
        Position along every axis, None on those that are looked at as a whole.

    Examples
    --------
    >>> data = np.zeros((2, 6, 6), int)
    >>> data[1, 2:4, 2:4] = 1
    >>> before = fingerprint_of(data, (1, None, None))
    >>> data[0] = 7
    >>> fingerprint_of(data, (1, None, None)) == before
    True
    """
    part = np.asarray(data[tuple(slice(None) if step is None else step for step in place)])
    at = np.nonzero(part > 0)
    found, object_of, areas = np.unique(part[at], return_inverse=True, return_counts=True)
    centroids = np.tile(np.array([step or 0 for step in place], float), (len(found), 1))
    free = [axis for axis, step in enumerate(place) if step is None]
    for axis, positions in zip(free, at, strict=True):
        centroids[:, axis] = np.bincount(object_of, weights=positions, minlength=len(found)) / areas
    return fingerprint(found, areas, centroids)


def is_outdated(record: LabelRecord) -> bool:
    """Tell whether objects were changed since the quality check that is kept with them."""
    quality = record.quality or {}
    if quality.get("fingerprint") is None or quality.get("place") is None:
        return False  # nobody can tell
    place = tuple(None if step is None else int(step) for step in quality["place"])
    inside = len(place) == record.data.ndim and all(
        step is None or 0 <= step < length for step, length in zip(place, record.data.shape, strict=True)
    )
    return not inside or fingerprint_of(record.data, place) != int(quality["fingerprint"])


def note_check(path: Path, image: str, record: LabelRecord | None) -> None:
    """Keep what the check of one image says as a row of a table of many images.

    Parameters
    ----------
    path
        A CSV file with the columns `COLUMNS`; it is made for the first image that was checked.
    image
        Name of the image; its former row is replaced.
    record
        Its labels; where nothing of them was judged or counted, the image has no row.

    Raises
    ------
    WriteError
        The file system refuses.
    FileError
        The file is no table.
    """
    rows = [row for row in _rows(path) if row.get("image") != image]
    own = None if record is None else _row(image, record)
    if own is not None:
        rows.append(own)
    if own is None and not path.is_file():
        return
    # names of files on Linux may hold bytes that are no UTF-8: they stay as they are
    how: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
    with written_whole(path) as part, part.open("w", **how) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _row(image: str, record: LabelRecord) -> dict[str, Any] | None:
    quality: Mapping[str, Any] = record.quality or {}
    row: dict[str, Any] = {"image": image}
    for name, counted in (("precision", "judged"), ("recall", "searched")):
        share = quality.get(name) or {}
        if share.get("total"):
            row |= {name: f"{share['value']:.4f}", counted: share["total"]}
            row |= {f"{name}_{end}": f"{share[end]:.4f}" for end in ("low", "high")}
    if len(row) == 1:
        return None
    return row | {"seed": quality.get("seed"), "changed_since": "yes" if is_outdated(record) else "no"}


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain(path, error) from error
    except csv.Error as error:
        raise FileError(f"{path} is no table of checks ({error}). Move it away.") from error
