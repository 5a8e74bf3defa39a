"""Saving the work of a viewer, when asked and by itself, and going on with it. Knows napari but no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.sessions.autosave import Autosave
from napari_lightsam.plugin.sessions.hashes import Hashes
from napari_lightsam.plugin.sessions.resume import Resuming
from napari_lightsam.plugin.sessions.writing import Kept
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.worker import Lane, Worker
from napari_lightsam.session import write_document

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from napari.layers import Image

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions.document import Snapshot
    from napari_lightsam.plugin.sessions.shelf import Shelf
    from napari_lightsam.session import Document


_PATIENCE = 60.0
"""Seconds that closing waits for a file that was asked for."""


class Sessions:
    """Saves the work on every image, by itself after each change, and takes it up again.

    Parameters
    ----------
    control
        Of the viewer.
    deliver
        Calls a function on the main thread, later.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: `path` or `unsaved` has changed.
    autosave
        Saves by itself.
    """

    changed = Signal()

    def __init__(
        self,
        control: Controller,
        deliver: Callable[[Callable[[], None]], object],
        say: Callable[[str], object],
    ) -> None:
        self._control, self._say = control, say
        self._worker = Worker(deliver)
        self._closed = self._saving = False
        self.autosave = Autosave(control, deliver, self._worker, self._tell, Hashes())
        self._resuming = Resuming(control, self._worker, deliver, self.autosave, say)

    @property
    def is_busy(self) -> bool:
        """Something is being written, or waits for it."""
        return self._saving or self.autosave.is_busy or any(self._worker.is_busy(lane) for lane in Lane)

    @property
    def is_saving(self) -> bool:
        """Something is being written that was asked for."""
        return self._saving

    @property
    def _kept(self) -> Kept:
        image = self._control.annotator.image_id
        return Kept() if image is None else self.autosave.of(image)

    @property
    def path(self) -> Path | None:
        """Where the work on the chosen image was saved, or opened from; None before."""
        return self._kept.path

    @property
    def unsaved(self) -> Path | None:
        """A file with work on this image that was never saved, as after a crash; None where there is none."""
        return self._kept.unsaved

    def _tell(self, sentence: str) -> None:
        self._say(sentence)
        self.changed.emit()

    # --- saving --------------------------------------------------------------------------------------

    def document(self) -> Document | None:
        """Return the work as it is now; None, with a message, where no image is chosen."""
        snapshot = self.snapshot()
        return None if snapshot is None else snapshot.finished()

    def snapshot(self, image: Hashable | None = None) -> Snapshot | None:
        """Take down the work as it is now, to be finished in the background; None, with a message.

        Parameters
        ----------
        image
            `unique_id` of the image; None: the chosen one.
        """
        image = self._control.annotator.image_id if image is None else image
        found = None if image is None else self.autosave.snapshot(image)
        if found is None:
            report_info("There is nothing to save yet: open an image first.")
        return found

    def version(self, image: Hashable) -> int:
        """Return a number that grows with every change of the work on an image."""
        return self.autosave.of(image).version

    def save(self, path: Path) -> bool:
        """Save the work in the background; tells whether it was begun.

        Parameters
        ----------
        path
            A `*.lightsam` file; an existing one is replaced when the new one is whole.
        """
        image = self._control.annotator.image_id
        snapshot = self.snapshot()
        if snapshot is None or image is None:
            return False
        kept = self.autosave.of(image)
        if path.suffix.casefold() != ".lightsam":
            path = path.with_name(path.name + ".lightsam")
            if path.exists() and path != kept.path:  # nobody was asked about this name
                report_error(
                    FileError(f"{path} is there already. To replace it, choose it by its whole name.")
                )
                return False
        version = kept.version

        def write() -> Work[Document]:
            yield Progress("saving", 0, 1)
            document = snapshot.finished()
            write_document(path, document)
            return document

        def done(document: Document) -> None:
            self._saved(image, document, version, path)
            self._say(f"Saved as {path.name}. Drag the file into napari to go on with it.")
            self.changed.emit()

        return self.write(write(), done)

    def _saved(self, image: Hashable, document: Document, version: int, path: Path) -> None:
        """Take note of a saved file, which takes the place of what was kept by itself."""
        kept = self.autosave.of(image)
        writing, layer = self.autosave.writing, layers.by_id(self._control.viewer, image)
        if layer is not None:  # for whoever closes the tool and opens it again
            layers.note_of_image(layer)["session_file"] = str(path.absolute())
        former = writing.where(kept, document)
        with writing.lock:
            kept.path, kept.saved = path, version
            here = writing.where(kept, document)
            if kept.shelf is None and not writing.is_mine(here):
                here.set_aside()
                writing.take_over(kept, here)
        if kept.shelf is not None:
            return  # a series keeps its own files, whatever is saved elsewhere
        if kept.version == version:
            self.autosave.forget(image)
            writing.remove(kept, here)
        else:  # something was done meanwhile: that is not in the file
            kept.content, kept.taken = "", version
            self.autosave.note_change(image)
            self.autosave.flush()
        if former != here:
            writing.remove(kept, former)

    def as_python(self) -> str | None:
        """Return the work as a script that gives the same labels; None, with a message, without any."""
        from napari_lightsam.plugin.sessions.script import as_python

        document, kept = self.document(), self._kept
        return None if document is None else as_python(document, self.path if kept.is_as_saved else None)

    def methods_text(self) -> str | None:
        """Return what to write in a paper about the work; None, with a message, where there is none."""
        from napari_lightsam.session.methods import methods_text

        document = self.document()
        return None if document is None else methods_text(document)

    def write(self, work: Work[Any], done: Callable[[Any], object]) -> bool:
        """Write something in the background, one at a time; tells whether it was begun.

        Parameters
        ----------
        work
            Writes.
        done
            Called with its result; an error is shown instead, and nothing is changed.
        """
        if self._saving:
            work.close()
            report_info("The work is still being saved; try again in a moment.")
            return False

        def finish(result: Any) -> None:
            self._saving = False
            done(result)

        self._saving = True
        self._say("Saving ...")
        self._worker.submit(Lane.SAVE, work, finish, self._on_error)
        return True

    def _on_error(self, error: BaseException) -> None:
        self._saving = False
        self._say("The work was not saved: see the message.")
        report_error(error)

    # --- by itself -----------------------------------------------------------------------------------

    def note_change(self, image: Hashable | None = None) -> None:
        """Take note that the work on an image has changed, the chosen one by default; it is written soon."""
        self.autosave.note_change(image)

    def keep_on(self, image: Hashable, shelf: Shelf) -> None:
        """Write the work on an image by itself onto a shelf, as an image series wants it."""
        kept = self.autosave.of(image)
        kept.shelf, kept.unsaved = shelf, None
        self.changed.emit()

    # --- going on ------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Write what is left to write of the chosen image, before another one is chosen."""
        self.autosave.leave(self._control.annotator.image)
        self._resuming.leave()

    def use_image(self, image: Image | None) -> None:
        """Follow the choice of an image: take up what was opened with it, or look for work never saved."""
        if image is not None:
            kept = self.autosave.of(image.unique_id)
            note = layers.ours(image)
            opened = note.pop("resume", None)
            if kept.path is None and note.get("session_file"):
                kept.path = Path(note["session_file"])
            if opened is not None:
                self._resuming.take_up(image, opened, kept)
            self._resuming.come_back(image)
            if not kept.looked and kept.shelf is None:
                self._resuming.look(image, kept, self.changed.emit, opened=opened is not None)
            kept.looked = True
        self.changed.emit()

    def restore(self, path: Path | None = None) -> bool:
        """Add the Labels layers of saved work to the chosen image, and go on with them.

        Parameters
        ----------
        path
            The file; None: the one in `unsaved`.

        Returns
        -------
        bool
            Whether it was done; a message says why not.
        """
        path, image = path or self.unsaved, self._control.annotator.image
        if path is None or image is None:
            return False
        done = self._resuming.restore(image, path, self._kept)
        if done:
            self._say("The work that was not saved is back.")
        self.changed.emit()
        return done

    # --- end -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is due and what was asked for, and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self.changed.block()  # who shows it may be gone already
        if self._saving:
            for lane in set(Lane) - {Lane.SAVE}:  # what autosaving has left to write is written below
                self._worker.cancel(lane)
            self._worker.answer_now(Lane.SAVE, _PATIENCE)
        self.autosave.close()
        self._resuming.close()
        self._worker.close()
        self._worker.join(10)  # two at a time would write into each other's files
        self.autosave.flush()
