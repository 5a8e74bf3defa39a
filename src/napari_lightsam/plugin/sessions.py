"""Saving the work of a viewer, when asked and by itself, and going on with it. Knows napari but no Qt."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import level0
from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.request import Source
from napari_lightsam.plugin.sessions_document import identity, image_path, labels_keywords, take_snapshot
from napari_lightsam.plugin.sessions_place import KEPT, SPACING, Place, beside, never_saved
from napari_lightsam.plugin.sessions_prompts import bring_back
from napari_lightsam.plugin.worker import Lane, Worker
from napari_lightsam.session import read_document, write_document
from napari_lightsam.session.picture import is_same
from napari_lightsam.session.recipe import is_known_model

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from napari.layers import Image, Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions_document import Snapshot
    from napari_lightsam.session import Document


class Sessions:
    """Saves the work on one image, by itself after every change of its objects, and takes it up again.

    Parameters
    ----------
    control
        Of the viewer.
    deliver
        Calls a function on the main thread, later.

    Attributes
    ----------
    changed
        Signal: `path` or `unsaved` has changed.
    resumed
        Signal(object): saved work was taken up; its object size.
    path
        Where the work was saved, or opened from; None before.
    unsaved
        A file with work on this image that was never saved, as after a crash; None where there is none.
    place
        Where autosaving writes instead of beside `path`; set by an image series.
    """

    changed = Signal()
    resumed = Signal(object)

    def __init__(self, control: Controller, deliver: Callable[[Callable[[], None]], object]) -> None:
        self._control, self._deliver = control, deliver
        self._worker = Worker(deliver)
        self._hashes: dict[Hashable, str] = {}
        self._begun: dict[Path, float] = {}
        self._writing = threading.Lock()
        self._token = ""
        self._adopted: dict[int, Hashable] = {}
        self._due = self._closed = self._saving = False
        self._changed = True
        self.path: Path | None = None
        self.unsaved: Path | None = None
        self.place: Place | None = None
        control.viewer.layers.events.inserted.connect(self._on_inserted)
        for layer in control.viewer.layers:
            self._watch(layer)

    @property
    def is_busy(self) -> bool:
        """Something is being written, or waits for it."""
        return self._due or self._saving or any(self._worker.is_busy(lane) for lane in Lane)

    # --- saving --------------------------------------------------------------------------------------

    def document(self) -> Document | None:
        """Return the work as it is now; None, with a message, where no image is chosen."""
        snapshot = self.snapshot()
        return None if snapshot is None else snapshot.finished()

    def snapshot(self) -> Snapshot | None:
        """Take down the work as it is now, to be finished in the background; None, with a message."""
        found = take_snapshot(self._control, self._hashes)
        if found is None:
            report_info("There is nothing to save yet: open an image first.")
        return found

    def save(self, path: Path) -> bool:
        """Save the work in the background; tells whether it was begun.

        Parameters
        ----------
        path
            A `*.lightsam` file; an existing one is replaced when the new one is whole.
        """
        snapshot = self.snapshot()
        if snapshot is None:
            return False
        path = path if path.suffix.casefold() == ".lightsam" else path.with_name(path.name + ".lightsam")
        place = beside(path)
        former = self._place()
        self._changed = False

        def write() -> Work[str]:
            yield Progress("saving", 0, 1)
            document = snapshot.finished()
            write_document(path, document)
            return document.image.pixels_hash

        def done(pixels: str) -> None:
            self.path = path
            self.unsaved = None
            if former.stem:
                former.remove()
            elif pixels:
                never_saved(snapshot.document.image.name, pixels).remove()
            place.remove()
            self._say(f"Saved as {path.name}. Drag the file into napari to go on with it.")
            self.changed.emit()

        return self.write(write(), done)

    def as_python(self) -> str | None:
        """Return the work as a script that gives the same labels; None, with a message, without any."""
        from napari_lightsam.plugin.sessions_script import as_python

        document = self.document()
        return None if document is None else as_python(document, None if self._changed else self.path)

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
        self._saving, self._changed = False, True
        self._say("The work was not saved: see the message.")
        report_error(error)

    # --- by itself -----------------------------------------------------------------------------------

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)
        self._adopt(event.value)

    def _watch(self, layer: Any) -> None:
        from napari.layers import Labels

        if isinstance(layer, Labels) and not layers.is_tool(layer):
            layer.events.paint.connect(self._on_paint)
            if layers.ours(layer).get("role") == "everything":
                self._schedule()

    def _on_paint(self, event: Any = None) -> None:
        self._schedule()

    def _schedule(self) -> None:
        self._changed = True
        if not self._due and not self._closed:
            self._due = True
            # later, when whoever paints has also noted how the object was made
            self._deliver(self._autosave)

    def _autosave(self) -> None:
        if self._closed or not self._due or self._worker.is_busy(Lane.AUTOSAVE):
            return  # when the one under way is written, the next one is looked after
        self._due = False
        snapshot = take_snapshot(self._control, self._hashes)
        if snapshot is not None and snapshot.document.labels:
            work = self._write_autosave(snapshot, self._place())
            self._worker.submit(Lane.AUTOSAVE, work, self._on_autosaved, self._on_autosave_error)

    def autosave_now(self) -> None:
        """Write work that is due, before the image is left; waits for it."""
        due = self._worker.cancel(Lane.AUTOSAVE) or self._due
        self._due = False
        snapshot = take_snapshot(self._control, self._hashes) if due else None
        if snapshot is None or not snapshot.document.labels:
            return
        try:
            drain(self._write_autosave(snapshot, self._place()))
        except LightSamError as error:
            report_error(error)

    def forget_changes(self) -> None:
        """Write nothing of what was changed until now: it is not wanted any more."""
        self._due = False
        self._worker.cancel(Lane.AUTOSAVE)

    def _write_autosave(self, snapshot: Snapshot, place: Place) -> Work[None]:
        yield Progress("saving", 0, 1)
        document = snapshot.finished(keep_pixels=False)
        if not place.stem:
            if not document.image.pixels_hash:
                return  # neither file nor pixels tell this image from others
            place = never_saved(document.image.name, document.image.pixels_hash)
        with self._writing:  # the main thread writes too, when an image is left
            now = time.monotonic()
            if now - self._begun.get(place.file(), -SPACING) >= SPACING:
                self._begun[place.file()] = now
                for number in range(KEPT, 1, -1):
                    if place.file(number - 1).is_file():
                        place.file(number - 1).replace(place.file(number))
            write_document(place.file(), document)

    def _on_autosaved(self, _: None) -> None:
        self._autosave()

    def _on_autosave_error(self, error: BaseException) -> None:
        self._say(f"The work could not be saved by itself: {error}")
        self._autosave()

    def _place(self) -> Place:
        """Return where autosaving writes: as a series says, beside the saved file, else the cache folder."""
        if self.place is not None:
            return self.place
        return never_saved() if self.path is None else beside(self.path)

    # --- going on ------------------------------------------------------------------------------------

    def use_image(self, image: Image | None) -> None:
        """Follow the choice of an image: take up what was opened with it, or look for work never saved."""
        self.unsaved, self._token = None, ""
        if image is None:
            return
        note = layers.ours(image)
        opened = note.pop("resume", None)
        self.path = Path(note["session_file"]) if note.get("session_file") else None
        self._changed = opened is None
        if opened is not None:
            self._resume(image, opened)
        elif self.place is None:
            self._look(image)
        self.changed.emit()

    def _resume(self, image: Image, opened: dict[str, Any]) -> None:
        """Go on with layers that our reader opened together with the image."""
        token = self._token = opened["token"]
        self._adopted = {}
        for layer in self._control.viewer.layers:
            self._adopt(layer)
        self._take_settings(image, opened["settings"], opened["inputs"])

        def bring() -> None:
            if self._token == token and not self._closed:
                bring_back(self._control, opened["prompts"], self._adopted)

        self._deliver(bring)  # when napari has added all layers: clicks stay on top of them

    def _adopt(self, layer: Any) -> None:
        """Take over a Labels layer that was opened with the chosen image; it may come after the image."""
        note = layers.ours(layer)
        if note.get("resume", {}).get("token") != self._token or note.get("role") == "image":
            return
        resumed = note.pop("resume")
        note["image"] = str(self._control.annotator.image_id)
        self._adopted[resumed["number"]] = layer.unique_id
        if resumed["target"]:
            self._control.results.target = layer.unique_id
            self._control.changed.emit()

    def _take_settings(self, image: Image, settings: dict[str, Any], inputs: Any) -> None:
        model, size = settings.get("model"), settings.get("object_size")
        now = self._control.shown.settings
        known = is_known_model(model) and is_here(str(model))
        self._control.shown.use_settings(Settings(str(model) if known else now.model, size))
        channels = [channel for number, channel in inputs if number == 0]
        if len(inputs) > 1 and len(channels) == len(inputs):
            self._control.shown.use_sources([Source(image.unique_id, c, f"channel {c}") for c in channels])
        self.resumed.emit(size)

    def _look(self, image: Image) -> None:
        """Look in the background whether there is work on this image that was never saved."""
        array, path, name, chosen = level0(image), image_path(image), image.name, image.unique_id

        def work() -> Work[Path | None]:
            yield Progress("looking for unsaved work", 0, 1)
            pixels = identity(array, path)
            return never_saved(name, pixels).newest() if pixels else None

        def done(found: Path | None) -> None:
            if self._control.annotator.image_id == chosen:
                self.unsaved = found
                self.changed.emit()

        self._worker.submit(Lane.PREPARE, work(), done, report_error)

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
        path = path or self.unsaved
        image = self._control.annotator.image
        if path is None or image is None:
            return False
        try:
            document = read_document(path)
            self._check(image, document, path)
        except LightSamError as error:
            report_error(error)
            return False
        due = self._due
        added = self._add_layers(image, document)
        self._due = due  # what was just read need not be written
        if document.target is not None:
            self._control.results.target = added[document.target].unique_id
        self._take_settings(image, document.settings, document.inputs)
        bring_back(self._control, document.prompts, {i: layer.unique_id for i, layer in enumerate(added)})
        self.unsaved = None
        self.changed.emit()
        return True

    def _add_layers(self, image: Image, document: Document) -> list[Labels]:
        from napari.layers import Labels

        added = []
        for record in document.labels:
            layer = Labels(record.data, **labels_keywords(record, image=str(image.unique_id)))
            added.append(layers.add(self._control.viewer, layer, keep_active=True))
        return added

    @staticmethod
    def _check(image: Image, document: Document, path: Path) -> None:
        """Refuse work that belongs to another image than the one that is open."""
        record, data = document.image, level0(image)
        same = tuple(data.shape) == record.shape and np.dtype(data.dtype).name == record.dtype
        shown = image_path(image)
        told = isinstance(data, np.ndarray) or (shown is not None and shown.is_dir())
        known = is_same(data, record.pixels_hash) if same and told and record.pixels_hash else None
        if known is not None:
            same = known
        elif same and record.path is not None and shown is not None:
            same = shown.name == record.path.name
        if not same:
            raise FileError(f"{path} belongs to another image than {image.name!r}: {record.name!r}.")

    # --- end -----------------------------------------------------------------------------------------

    def _say(self, sentence: str) -> None:
        self._control.status = sentence
        self._control.changed.emit()

    def close(self) -> None:
        """Write what is due, and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self._control.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._due = self._due or self._saving or self._worker.is_busy(Lane.AUTOSAVE)
        self._worker.close()
        self._worker.join(10)  # two at a time would write into each other's files
        self.autosave_now()
