"""Saving work by itself, after every change, and before an image is left. Knows napari but no Qt."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import NoPlane, displayed_plane
from napari_lightsam.plugin.label_changes import LabelChanges
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.sessions_document import copy_of, labels_of, take_snapshot
from napari_lightsam.plugin.sessions_shelf import SPACING, Shelf, beside, never_saved, prune_never_saved
from napari_lightsam.plugin.worker import Lane
from napari_lightsam.session import write_document
from napari_lightsam.session.fields import plain
from napari_lightsam.session.picture import hash_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions_document import Former, Snapshot
    from napari_lightsam.plugin.sessions_hashes import Hashes
    from napari_lightsam.plugin.worker import Worker
    from napari_lightsam.session import Document

_QUICK = 16 * 2**20
"""Bytes of labels up to which the work is written after every click; more would slow the outlines down."""


@dataclass(slots=True, eq=False)
class Kept:
    """What is known of the work on one image.

    Attributes
    ----------
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
    """

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

    @property
    def is_changed(self) -> bool:
        """Something may have changed since the work was written, or taken down to be."""
        return self.version > self.taken or (bool(self.content) and not self.settled)


@dataclass(slots=True, eq=False)
class _Queue:
    """Snapshots that wait to be written: one of each image, and of its work before a layer was removed."""

    waiting: list[tuple[tuple[Hashable, int], Kept, Snapshot]] = field(default_factory=list)

    def put(self, image: Hashable, kept: Kept, snapshot: Snapshot) -> None:
        """Add one in the place of an older one."""
        key = image, kept.removed
        self.waiting = [*(one for one in self.waiting if one[0] != key), (key, kept, snapshot)]

    def forget(self, image: Hashable) -> None:
        """Drop what waits of an image."""
        self.waiting = [one for one in self.waiting if one[0][0] != image]


class Autosave:
    """Hears of every change of the work on any image, and writes it.

    Parameters
    ----------
    control
        Of the viewer.
    deliver
        Calls a function on the main thread, later.
    worker
        Writes.
    say
        Shows a sentence in the status line.
    hashes
        Of images; used by the thread that writes.
    """

    def __init__(
        self,
        control: Controller,
        deliver: Callable[[Callable[[], None]], object],
        worker: Worker,
        say: Callable[[str], object],
        hashes: Hashes,
    ) -> None:
        self._control, self._deliver, self._worker, self._say = control, deliver, worker, say
        self._hashes = hashes
        self._kept: dict[Hashable, Kept] = {}
        self._changes = LabelChanges(control.viewer)
        self._changes.changed.connect(self._note_layer)
        self._due: dict[Hashable, None] = {}
        self._queue = _Queue()
        self._begun: dict[Shelf, float] = {}
        self._versions: Counter[Hashable] = Counter()
        self.writing = threading.Lock()  # the main thread writes too, when an image is left
        self._soon = self._closed = self._quiet = self._pruned = False
        events = control.viewer.layers.events
        events.inserted.connect(self._on_inserted)
        events.removing.connect(self._on_removing)
        control.annotator.edited.connect(self._on_prompts)
        control.curating.marked.connect(self._note_layer)
        for layer in control.viewer.layers:
            self._changes.watch(layer)

    @property
    def is_busy(self) -> bool:
        """Something waits to be written, or is."""
        return self._soon or bool(self._queue.waiting) or self._worker.is_busy(Lane.AUTOSAVE)

    def of(self, image: Hashable) -> Kept:
        """Return what is known of the work on an image."""
        return self._kept.setdefault(image, Kept())

    def is_mine(self, shelf: Shelf) -> bool:
        """Tell whether the work on a shelf is open here."""
        return shelf in self._begun

    def take_over(self, shelf: Shelf) -> None:
        """Go on with the work on a shelf: it is open here now."""
        self._begun.setdefault(shelf, -SPACING)

    # --- changes -------------------------------------------------------------------------------------

    def note_change(self, image: Hashable | None = None) -> None:
        """Take note that the work on an image has changed; it is written soon.

        Parameters
        ----------
        image
            `unique_id` of the image; None: the chosen one.
        """
        if self._count(image) and not self._soon:
            self._soon = True
            # later, when whoever paints has also noted how the object was made
            self._deliver(self._take)

    def _on_prompts(self) -> None:
        """Hear of open prompts; the outline that answers them goes first, and is painted first."""
        if self._count(None) and not self._soon:
            self._deliver(self._paint_first)

    def _paint_first(self) -> None:
        self._deliver(self._take_prompts)

    def _count(self, image: Hashable | None) -> bool:
        image = self._control.annotator.image_id if image is None else image
        if image is None or self._closed or self._quiet:
            return False
        kept = self.of(image)
        kept.version, kept.settled = kept.version + 1, False
        self._due[image] = None
        return True

    def _take_prompts(self) -> None:
        if not self._soon and self._is_quick():
            self._take()

    def _is_quick(self) -> bool:
        image = self._control.annotator.image
        return image is None or sum(x.data.nbytes for x in labels_of(self._control, image)) <= _QUICK

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Take note of nothing meanwhile: what was just read need not be written."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _on_inserted(self, event: Any) -> None:
        self._changes.watch(event.value)
        note = layers.ours(event.value)
        filled = note.get("role") in ("objects", "everything") and int(note.get("largest") or 0) > 0
        if filled and "resume" not in note and event.value in self._changes:
            self._changes.note(event.value)

    def _note_layer(self, layer: Labels) -> None:
        for image in self._images_of(layer):
            self.note_change(image)

    def _images_of(self, layer: Labels) -> list[Hashable]:
        """Return the images that a Labels layer belongs to: its own, and the one that is worked on in it."""
        noted, chosen = layers.ours(layer).get("image"), self._control.annotator.image
        found = [x.unique_id for x in layers.images(self._control.viewer) if str(x.unique_id) == noted]
        worked_on = not found or layer.unique_id == self._control.results.target
        if chosen is not None and chosen.unique_id not in found and worked_on and self._lies(layer, chosen):
            found.append(chosen.unique_id)
        return found

    def _lies(self, layer: Labels, image: Image) -> bool:
        try:
            plane = displayed_plane(image, self._control.viewer)
        except NoPlane:
            return False
        return layers.place_in(layer, image, plane) is not None

    def _on_removing(self, event: Any) -> None:
        """Write work before a layer of it goes; that it went is not written over the work."""
        layer = self._control.viewer.layers[event.index]
        if layer.unique_id in self._kept:
            self.leave(layer)
        if layer not in self._changes:
            return
        for image in self._images_of(layer):
            kept = self.of(image)
            if kept.version > kept.taken:
                self._put(image, fresh=True)
            kept.content, kept.settled = "", True
            kept.removed += 1
        self._changes.forget(layer)
        self._start()

    # --- taking down ---------------------------------------------------------------------------------

    def _take(self) -> None:
        self._soon = False
        if self._closed or self._worker.is_busy(Lane.AUTOSAVE):
            return  # when the one under way is written, the next one is looked after
        for image in list(self._due):
            self._put(image)
        self._start()

    def _put(self, image: Hashable, *, fresh: bool = False) -> None:
        """Take the work on an image down, to be written."""
        snapshot = self.snapshot(image, fresh=fresh)
        if snapshot is not None:
            self._queue.put(image, self.of(image), snapshot)

    def snapshot(self, image: Hashable, *, fresh: bool = True) -> Snapshot | None:
        """Take the work on an image down as it is now; None where the image is gone.

        Parameters
        ----------
        image
            Its `unique_id`.
        fresh
            Copy all labels, also those that nothing was heard from since.
        """
        self._due.pop(image, None)
        layer, kept = layers.by_id(self._control.viewer, image), self.of(image)
        if layer is None:
            return None
        copied = copy_of if fresh else self._changes.copy_of
        found = take_snapshot(self._control, layer, self._hashes, former=kept.former, copied=copied)
        kept.taken, kept.former = kept.version, found.former
        return found

    def leave(self, image: Image | None) -> None:
        """Write what is left to write of an image that is not worked on any more, in the background."""
        if image is None or self._closed:
            return
        if self.of(image.unique_id).is_changed:
            self._put(image.unique_id, fresh=True)
            self._start()
        self._changes.drop_copies()

    def flush(self) -> None:
        """Write what is left to write, and wait for it."""
        chosen = self._control.annotator.image_id
        for image in {*self._due, *([] if chosen is None else [chosen])}:
            if self.of(image).is_changed:
                self._put(image, fresh=True)
        self._worker.cancel(Lane.AUTOSAVE)
        try:
            self._write_waiting()
        except LightSamError as error:
            report_error(error)

    def forget(self, image: Hashable) -> None:
        """Write nothing of what was changed until now: it is not wanted, or it is in another file."""
        kept = self.of(image)
        self._queue.forget(image)
        self._due.pop(image, None)
        with self.writing:  # waits for what is being written
            kept.taken, kept.content = kept.version, ""

    # --- writing -------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._queue.waiting and not self._closed and not self._worker.is_busy(Lane.AUTOSAVE):
            self._worker.submit(Lane.AUTOSAVE, self._write(), self._on_done, self._on_error)

    def _on_done(self, _: None) -> None:
        self._take()

    def _on_error(self, error: BaseException) -> None:
        self._say(f"The work could not be saved by itself: {error}")
        self._take()

    def _write(self) -> Work[None]:
        yield Progress("saving", 0, 1)
        self._write_waiting()

    def _write_waiting(self) -> None:
        with self.writing:
            while self._queue.waiting:
                (_, removed), kept, snapshot = self._queue.waiting.pop(0)
                self._write_one(kept, snapshot, removed)

    def _write_one(self, kept: Kept, snapshot: Snapshot, removed: int) -> None:
        document = snapshot.finished(briefly=True)
        shelf, content = self.shelf_of(kept, document), content_of(document)
        empty = not (document.labels or document.prompts)
        if shelf is None or content == kept.content or (empty and not kept.content):
            return
        if shelf not in self._begun and kept.shelf is None:
            self._set_aside(kept, shelf)
        now = time.monotonic()
        if removed != kept.newest or now - self._begun.get(shelf, -SPACING) >= SPACING:
            self._begun[shelf], kept.newest = now, removed
            shelf.make_room()
        kept.content = ""  # should it fail, the next one is written even if it is the same
        write_document(shelf.file(), document)
        kept.content = content
        if not self._pruned and kept.shelf is None and kept.path is None:
            self._pruned = True
            prune_never_saved()

    @staticmethod
    def shelf_of(kept: Kept, document: Document) -> Shelf | None:
        """Return where autosaving writes: as a series says, beside the saved file, else the cache folder.

        None for an image that neither file nor pixels tell from others.
        """
        if kept.shelf is not None:
            return kept.shelf
        if kept.path is not None:
            return beside(kept.path)
        pixels = document.image.pixels_hash
        return never_saved(document.image.name, pixels) if pixels else None

    def _set_aside(self, kept: Kept, shelf: Shelf) -> None:
        """Move work that was found, and not gone on with, out of the way of new work."""
        aside = shelf.set_aside()
        if aside is None:
            return

        def tell() -> None:
            kept.unsaved = aside
            # not in the status line, where it would hide what to do next
            report_info(f"Earlier work on this image was set aside, and can still be added: {aside}")
            self._control.changed.emit()

        self._deliver(tell)

    def close(self) -> None:
        """Let go of the viewer; whoever closes it calls `flush` afterwards, when nothing else writes."""
        self._closed = True
        events = self._control.viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removing.disconnect(self._on_removing)
        self._control.annotator.edited.disconnect(self._on_prompts)
        self._control.curating.marked.disconnect(self._note_layer)


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
