"""Saving work by itself, after every change, and before an image is left. Knows napari but no Qt."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.sessions.document import copy_of, labels_of, take_snapshot
from napari_lightsam.plugin.sessions.label_changes import LabelChanges
from napari_lightsam.plugin.sessions.writing import Kept, Writing
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import resting_plane
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions.document import Snapshot
    from napari_lightsam.plugin.sessions.hashes import Hashes
    from napari_lightsam.plugin.worker import Worker
_QUICK = 16 * 2**20
"""Bytes of labels up to which the work is written after every click; more would slow the outlines down."""


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

    Attributes
    ----------
    writing
        What waits to be written, and where it goes.
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
        self.writing = Writing(self._tell_aside)
        self._soon = self._closed = self._quiet = False
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
        return self._soon or self.writing.is_waiting or self._worker.is_busy(Lane.AUTOSAVE)

    def of(self, image: Hashable) -> Kept:
        """Return what is known of the work on an image."""
        if image not in self._kept:
            layer = layers.by_id(self._control.viewer, image)
            name = "" if layer is None else layers.ours(layer).get("first_name", layer.name)
            self._kept[image] = Kept(name=name)
        return self._kept[image]

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
        kept, layer = self.of(image), layers.by_id(self._control.viewer, image)
        if layer is not None:  # for whoever closes the tool and opens it again
            layers.note_of_image(layer)["first_name"] = kept.name
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
        return layers.place_in(layer, image, resting_plane(image, self._control.viewer)) is not None

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
        self._due.pop(image, None)
        snapshot, kept = self.snapshot(image, fresh=fresh), self.of(image)
        if snapshot is not None:
            kept.taken = kept.version
            self.writing.put(image, kept, snapshot)

    def snapshot(self, image: Hashable, *, fresh: bool = True) -> Snapshot | None:
        """Return the work on an image as it is now; None where the image is gone.

        Parameters
        ----------
        image
            Its `unique_id`.
        fresh
            Copy all labels, also those that nothing was heard from since.
        """
        layer, kept = layers.by_id(self._control.viewer, image), self.of(image)
        if layer is None:
            return None
        copied = copy_of if fresh else self._changes.copy_of
        found = take_snapshot(self._control, layer, self._hashes, former=kept.former, copied=copied)
        kept.former = found.former
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
        self.writing.try_again()
        try:
            self.writing.write()
        except Exception as error:  # a window that is being closed must get to its end
            report_error(error)

    def forget(self, image: Hashable) -> None:
        """Write nothing of what was changed until now: it is not wanted, or it is in another file."""
        kept = self.of(image)
        self.writing.forget(image)
        self._due.pop(image, None)
        with self.writing.lock:  # waits for what is being written
            self.writing.forget(image)  # that may have failed
            kept.taken, kept.content = kept.version, ""

    # --- writing -------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self.writing.is_waiting and not self._closed and not self._worker.is_busy(Lane.AUTOSAVE):
            self._worker.submit(Lane.AUTOSAVE, self._write(), self._on_done, self._on_error)

    def _on_done(self, _: None) -> None:
        self._take()

    def _on_error(self, error: BaseException) -> None:
        self._say(f"The work could not be saved by itself: {error}")
        self._take()

    def _write(self) -> Work[None]:
        yield Progress("saving", 0, 1)
        self.writing.write()

    def _tell_aside(self, kept: Kept, aside: Path) -> None:
        def tell() -> None:
            kept.unsaved = aside
            # not in the status line, where it would hide what to do next
            report_info(f"Earlier work on this image was set aside, and can still be added: {aside}")
            self._control.changed.emit()

        self._deliver(tell)

    def close(self) -> None:
        """Let go of the viewer; whoever closes it calls `flush` afterwards, when nothing else writes."""
        self._closed = True
        self._changes.close()
        events = self._control.viewer.layers.events
        events.inserted.disconnect(self._on_inserted)
        events.removing.disconnect(self._on_removing)
        self._control.annotator.edited.disconnect(self._on_prompts)
        self._control.curating.marked.disconnect(self._note_layer)
