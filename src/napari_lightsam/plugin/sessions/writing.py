"""Writes what autosaving took down: where to, over what, and once more where it failed. No Qt."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from napari_lightsam.formats.atomic import explain
from napari_lightsam.plugin.sessions.hashes import told_by
from napari_lightsam.plugin.sessions.shelf import SPACING, Shelf, beside, never_saved, prune_never_saved
from napari_lightsam.session import write_document
from napari_lightsam.session.fields import plain
from napari_lightsam.session.picture import hash_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from pathlib import Path

    from napari_lightsam.plugin.sessions.document import Former, Snapshot
    from napari_lightsam.session import Document


@dataclass(slots=True, eq=False)
class Kept:
    """What is known of the work on one image.

    Attributes
    ----------
    name
        Of the image when it was first seen: the next window finds unsaved work by it, whatever it is now.
    path
        Where it was saved, or opened from; None before.
    shelf
        Where autosaving writes instead of beside `path`; set by an image series.
    unsaved
        A file with work on the image that was never saved, as after a crash; None where there is none.
    looked
        `unsaved` was looked for.
    version
        Number of changes.
    taken
        Of them, those that were taken down.
    saved
        Of them, those that the file at `path` holds; -1: it does not.
    content
        Tells what was written last by itself; empty where nothing was.
    former
        The work when it was taken down last.
    removed
        How many layers of it were removed.
    newest
        As many had been removed of what the newest file holds; work after that does not take its place.
    settled
        Nothing has changed since one was removed: that it went is not written over the work.
    elsewhere
        Shelves that are written on instead of the usual ones, where somebody else's work is.
    """

    name: str = ""
    path: Path | None = None
    shelf: Shelf | None = None
    unsaved: Path | None = None
    looked: bool = False
    version: int = 0
    taken: int = 0
    saved: int = -1
    content: str = ""
    former: Former | None = None
    removed: int = 0
    newest: int = 0
    settled: bool = False
    elsewhere: dict[Shelf, Shelf] = field(default_factory=dict)

    @property
    def is_changed(self) -> bool:
        """Something may have changed since the work was written, or taken down to be."""
        return self.version > self.taken or (bool(self.content) and not self.settled)

    @property
    def is_as_saved(self) -> bool:
        """Nothing has changed since the work was saved to the file at `path`, or opened from it."""
        return self.saved == self.version


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """Work on an image that waits to be written, and how many layers of it had been removed by then."""

    image: Hashable
    removed: int
    kept: Kept
    snapshot: Snapshot

    @property
    def key(self) -> tuple[Hashable, int]:
        """Of two that have it, the later one is enough."""
        return self.image, self.removed


@dataclass(slots=True)
class _Begun:
    """A shelf that this window writes on: whose work, since when the newest file, and what tells it."""

    owner: Kept
    at: float = -SPACING
    newest: tuple[int, ...] | None = None


class Writing:
    """What waits to be written by itself, and the shelves that it goes onto.

    Parameters
    ----------
    tell_aside
        Called, on the thread that writes, with an image's work and where earlier work on it was moved to.

    Attributes
    ----------
    lock
        Held while something is written: the main thread writes too, when an image is left.
    """

    def __init__(self, tell_aside: Callable[[Kept, Path], object]) -> None:
        self.lock = threading.Lock()
        self._tell_aside = tell_aside
        self._lists = threading.Lock()  # held for a moment only
        self._queue: list[_Waiting] = []
        self._failed: list[_Waiting] = []
        self._begun: dict[Shelf, _Begun] = {}
        self._pruned = False

    # --- what waits ----------------------------------------------------------------------------------

    @property
    def is_waiting(self) -> bool:
        """Something waits to be written; what failed does so only when it is tried again."""
        return bool(self._queue)

    def put(self, image: Hashable, kept: Kept, snapshot: Snapshot) -> None:
        """Add work in the place of an older state of it; what failed before is tried once more as well."""
        new = _Waiting(image, kept.removed, kept, snapshot)
        with self._lists:
            others = [one for one in (*self._failed, *self._queue) if one.key != new.key]
            self._queue, self._failed = [*others, new], []

    def try_again(self) -> None:
        """Let what failed be written with the rest."""
        with self._lists:
            self._queue, self._failed = [*self._failed, *self._queue], []

    def forget(self, image: Hashable) -> None:
        """Drop what waits of an image."""
        with self._lists:
            self._queue = [one for one in self._queue if one.image != image]
            self._failed = [one for one in self._failed if one.image != image]

    def _next(self) -> _Waiting | None:
        with self._lists:
            return self._queue.pop(0) if self._queue else None

    def _keep(self, failed: _Waiting) -> None:
        with self._lists:
            if failed.key not in {one.key for one in self._queue}:
                self._failed.append(failed)

    # --- where to ------------------------------------------------------------------------------------

    def where(self, kept: Kept, document: Document) -> Shelf:
        """Return where work is written: as a series says, beside the saved file, else in the cache folder."""
        if kept.shelf is not None:
            return kept.shelf
        usual = beside(kept.path) if kept.path is not None else self._never_saved(kept, document)
        return kept.elsewhere.get(usual, usual)

    @staticmethod
    def _never_saved(kept: Kept, document: Document) -> Shelf:
        image = document.image
        told = told_by(image.pixels_hash, image.path, image.shape, image.dtype)
        return never_saved(kept.name or image.name, told)

    def is_mine(self, shelf: Shelf) -> bool:
        """Tell whether the work on a shelf is open here."""
        return shelf in self._begun

    def take_over(self, kept: Kept, shelf: Shelf) -> None:
        """Go on with the work on a shelf: it is open here now."""
        if shelf.usual not in self._begun:
            kept.elsewhere[shelf.usual] = shelf
        self._begun.setdefault(shelf, _Begun(kept))

    def remove(self, kept: Kept, shelf: Shelf) -> None:
        """Remove what was written onto a shelf: it is not wanted, or in another file."""
        if self.is_mine(shelf) and not self._is_taken(kept, shelf):
            shelf.remove()

    def _is_taken(self, kept: Kept, shelf: Shelf) -> bool:
        """Tell whether work on another image is on a shelf, or another window has written there meanwhile."""
        begun, there = self._begun[shelf], shelf.state()
        meanwhile = begun.newest is not None and there is not None and begun.newest != there
        return begun.owner is not kept or meanwhile

    def _place(self, kept: Kept, document: Document) -> Shelf:
        """Return where to write, with nothing there that is not this work."""
        shelf = self.where(kept, document)
        if kept.shelf is not None:
            return shelf
        if shelf not in self._begun:
            aside = shelf.set_aside()  # work that was found, and not gone on with
            if aside is not None:
                self._tell_aside(kept, aside)
        elif self._is_taken(kept, shelf):
            usual, shelf = shelf.usual, shelf.another()
            kept.elsewhere[usual] = shelf
        return shelf

    # --- writing -------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write all that waits. What fails is kept, to be tried again.

        Raises
        ------
        FileError
            The first that failed cannot be written.
        """
        failed: Exception | None = None
        with self.lock:
            while (one := self._next()) is not None:
                try:
                    self._write_one(one)
                except Exception as error:  # whatever it is, the work must not be lost by it
                    self._keep(one)
                    failed = failed or error
        if failed is not None:
            raise failed

    def _write_one(self, one: _Waiting) -> None:
        document, kept = one.snapshot.finished(briefly=True), one.kept
        content = content_of(document)
        empty = not (document.labels or document.prompts)
        if content == kept.content or (empty and not kept.content and kept.path is None):
            return
        try:
            shelf = self._place(kept, document)
            begun, now = self._begun.setdefault(shelf, _Begun(kept)), time.monotonic()
            if one.removed != kept.newest or now - begun.at >= SPACING:
                begun.at, kept.newest = now, one.removed
                shelf.make_room()
            kept.content = ""  # should it fail, the next one is written even if it is the same
            write_document(shelf.file(), document)
            begun.newest = shelf.state()
        except OSError as error:
            raise explain(self.where(kept, document).file(), error) from error
        kept.content = content
        if not self._pruned and kept.shelf is None and kept.path is None:
            self._pruned = True
            prune_never_saved()


def content_of(document: Document) -> str:
    """Return what tells work from other work on the same image; not when it was written, nor on what."""
    parts: list[Any] = [
        plain((document.settings, document.inputs, document.pixel_size_um)),
        plain((document.target, document.prompts)),
    ]
    for record in document.labels:
        told = (record.name, record.layer, record.note, record.objects, record.features, record.quality)
        parts += [hash_pixels(record.data), plain(told)]
    return xxhash.xxh3_128(json.dumps(parts).encode()).hexdigest()
