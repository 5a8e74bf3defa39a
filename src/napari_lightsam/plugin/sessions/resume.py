"""Going on with saved work: what a reader opened, and what was never saved. Knows napari but no Qt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.config import config_from
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.plugin.downloads import is_here
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.request import Source, sources
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.sessions.document import image_path, labels_of
from napari_lightsam.plugin.sessions.hashes import identity, told_by
from napari_lightsam.plugin.sessions.here import Found, Here, open_here
from napari_lightsam.plugin.sessions.layers import labels_keywords
from napari_lightsam.plugin.sessions.prompts import bring_back, open_prompts
from napari_lightsam.plugin.sessions.shelf import Shelf, beside, never_saved
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import level0
from napari_lightsam.plugin.worker import Lane
from napari_lightsam.session import read_document
from napari_lightsam.session.picture import is_same
from napari_lightsam.session.recipe import is_known_model

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions.autosave import Autosave
    from napari_lightsam.plugin.sessions.writing import Kept
    from napari_lightsam.plugin.worker import Worker
    from napari_lightsam.session import Document, ImageRecord


@dataclass(slots=True)
class _Opened:
    """Layers that our reader opened together."""

    token: str = ""
    adopted: dict[int, Hashable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Left:
    """Open prompts of an image that another one was chosen after, and the Labels layers that they count."""

    prompts: tuple[dict[str, Any], ...]
    labels: tuple[Hashable, ...]


class Resuming:
    """Takes saved work up again, with its settings and open prompts.

    Parameters
    ----------
    control, worker
        Of the viewer, and of the sessions.
    deliver
        Calls a function on the main thread, later.
    autosave
        Is told what need not be written, and what is open here.
    say
        Shows a sentence in the status line.
    """

    def __init__(
        self,
        control: Controller,
        worker: Worker,
        deliver: Callable[[Callable[[], None]], object],
        autosave: Autosave,
        say: Callable[[str], object],
    ) -> None:
        self._control, self._worker, self._deliver = control, worker, deliver
        self._autosave, self._say = autosave, say
        self._opened = _Opened()
        self._left: dict[Hashable, _Left] = {}
        self._closed = False
        control.viewer.layers.events.inserted.connect(self._on_inserted)
        control.viewer.layers.events.removed.connect(self._on_removed)

    # --- what a reader opened ------------------------------------------------------------------------

    def leave(self) -> None:
        """Adopt no further layers, and keep the open prompts: another image is chosen."""
        self._opened = _Opened()
        control = self._control
        image = control.annotator.image
        if image is None:
            return
        labels = tuple(layer.unique_id for layer in labels_of(control, image))
        prompts = open_prompts(control.annotator, control.single.answer, labels)
        if prompts:
            self._left[image.unique_id] = _Left(prompts, labels)

    def come_back(self, image: Image) -> None:
        """Bring the open prompts back that an image was left with."""
        mine = self._opened
        if image.unique_id not in self._left:
            return

        def bring() -> None:
            if self._opened is not mine or self._closed:
                return  # another image was chosen meanwhile
            left = self._left.pop(image.unique_id, None)
            if left is None:
                return
            here = {layer.unique_id for layer in self._control.viewer.layers}
            numbered = {number: layer for number, layer in enumerate(left.labels) if layer in here}
            with self._autosave.quiet():
                bring_back(self._control, left.prompts, numbered, show=False)

        self._deliver(bring)  # when all follow the image

    def _on_removed(self, event: Any) -> None:
        self._left.pop(event.value.unique_id, None)

    def take_up(self, image: Image, opened: dict[str, Any], kept: Kept) -> None:
        """Go on with layers that our reader opened together with the image."""
        mine = self._opened = _Opened(opened["token"])
        for layer in self._control.viewer.layers:
            self._adopt(layer)
        self._take_settings(opened["settings"], opened.get("pixel_size_um"))

        def bring() -> None:
            if self._opened is not mine or self._closed:
                return
            found = dict(enumerate(self._pictures(mine.token, len(opened["inputs"]))))
            with self._autosave.quiet():
                self._take_inputs(image, opened["settings"], opened["inputs"], found)
                bring_back(self._control, opened["prompts"], mine.adopted)

        kept.saved = kept.version
        self._deliver(bring)  # when napari has added all layers: clicks stay on top of them

    def _pictures(self, token: str, most: int) -> list[Any]:
        """Return the images that were opened together, by their number in the file."""
        by_key = {layers.ours(layer).get("input_key"): layer for layer in layers.images(self._control.viewer)}
        return [by_key.get(f"{token}:{number}") for number in range(most + 1)]

    def _on_inserted(self, event: Any) -> None:
        self._adopt(event.value)

    def _adopt(self, layer: Any) -> None:
        """Take over a Labels layer that was opened with the chosen image; it may come after the image."""
        note = layers.ours(layer)
        if note.get("resume", {}).get("token") != self._opened.token or note.get("role") == "image":
            return
        resumed = note.pop("resume")
        note["image"] = str(self._control.annotator.image_id)
        self._opened.adopted[resumed["number"]] = layer.unique_id
        if resumed["target"]:
            self._control.results.target = layer.unique_id
            self._control.changed.emit()

    # --- settings ------------------------------------------------------------------------------------

    def _take_settings(self, settings: Mapping[str, Any], pixel_size: float | None) -> None:
        model, size = settings.get("model"), settings.get("object_size")
        now = self._control.shown.settings
        known = is_known_model(model) and is_here(str(model))
        self._control.shown.use_settings(Settings(str(model) if known else now.model, size))
        if pixel_size:
            self._control.pixel_size_um = pixel_size
        self._take_choices(settings.get("everything"))
        self._control.settings_taken.emit()

    def _take_choices(self, saved: Any) -> None:
        """Choose for everything mode what was chosen; early files do not say."""
        everything = self._control.everything
        try:
            config, scope = config_from(saved["config"]), Scope(saved["scope"])
        except (KeyError, TypeError, ValueError, LightSamError):
            return
        everything.choose(replace(everything.choices, config=config, scope=scope))

    def _take_inputs(
        self, image: Image, settings: Mapping[str, Any], inputs: Any, pictures: Mapping[int, Any]
    ) -> None:
        """Map images and channels to the model's inputs again, where the user had chosen them."""
        if not settings.get("inputs_chosen", len(inputs) > 1):
            return
        offered = {(one.layer, one.channel): one for one in sources(self._control.viewer, image)}
        wanted = [(pictures.get(number), channel) for number, channel in inputs]
        found = [
            offered.get((layer.unique_id, channel), Source(layer.unique_id, channel, layer.name))
            for layer, channel in wanted
            if layer is not None
        ]
        if len(found) == len(wanted):
            self._control.shown.use_sources(found)
        else:
            report_info("An image that was an input of the model is not open: choose the inputs again.")

    # --- what was never saved ------------------------------------------------------------------------

    def look(self, image: Image, kept: Kept, tell: Callable[[], object], *, opened: bool) -> None:
        """Look in the background whether there is work on an image that was never saved.

        Work whose layers are open, as when the tool was closed and opened again, is gone on with.

        Parameters
        ----------
        image
            The chosen one.
        kept
            Of the image; takes what is found.
        tell
            Called when something was found.
        opened
            A reader of ours has just opened it with the work that was saved.
        """
        array, path, name, saved = level0(image), image_path(image), kept.name or image.name, kept.path
        here = [Here.of(layer) for layer in labels_of(self._control, image)]

        def work() -> Work[Found | None]:
            yield Progress("looking for unsaved work", 0, 1)
            if saved is not None:
                shelf = beside(saved)
            else:
                told = told_by(identity(array, path), path, array.shape, np.dtype(array.dtype).name)
                shelf = never_saved(name, told)
            newest = self._newest(shelf, saved)
            if newest is not None:
                return Found(*newest, *open_here(newest[1], here, known=saved is not None))
            if saved is None or opened:
                return None
            document, numbered = open_here(saved, here, known=True)  # its clicks went with the closed tool
            return None if document is None else Found(None, saved, document, numbered)

        def done(found: Found | None) -> None:
            if found is None or kept.shelf is not None:
                return
            chosen = self._control.annotator.image_id == image.unique_id
            if (chosen and self._go_on_here(kept, found)) or found.shelf is None:
                return
            kept.unsaved = found.file
            said = f"There is work on {name!r} that was never saved: 'Go on with unsaved work' adds it."
            self._say(said)
            report_info(said)
            tell()

        self._worker.submit(Lane.PREPARE, work(), done, report_error)

    def _newest(self, shelf: Shelf, saved: Path | None) -> tuple[Shelf, Path] | None:
        """Return the newest file on the shelves of an image that are not open here, and its shelf."""
        found = [
            (newest.stat().st_mtime_ns, newest, one)
            for one in shelf.family()
            if not self._autosave.writing.is_mine(one) and (newest := one.newest()) is not None
        ]
        if saved is not None and saved.is_file():  # older work is in that file
            found = [one for one in found if one[0] > saved.stat().st_mtime_ns]
        if not found:
            return None
        _, newest, one = max(found, key=lambda one: one[:2])
        return one, newest

    def _go_on_here(self, kept: Kept, found: Found) -> bool:
        """Go on with work whose layers are open: only the clicks are missing, and where objects are saved.

        Tells whether that was possible.
        """
        control, document = self._control, found.document
        if document is None or (control.annotator.has_prompts and not kept.is_as_saved):
            return False
        if found.shelf is not None:
            self._autosave.writing.take_over(kept, found.shelf)
        else:
            kept.saved = kept.version
        if document.target is not None:
            control.results.target = found.numbered[document.target]
        with self._autosave.quiet():
            self._bring(kept, document, found.numbered)
        control.changed.emit()
        return True

    def _bring(self, kept: Kept, document: Document, numbered: Mapping[int, Hashable]) -> None:
        """Bring open prompts back, in the place of older ones that came with the saved file."""
        if kept.is_as_saved and self._control.annotator.has_prompts:
            self._control.annotator.clear()
        bring_back(self._control, document.prompts, numbered)

    def restore(self, image: Image, path: Path, kept: Kept) -> bool:
        """Add the Labels layers of saved work to the chosen image, and go on with them.

        Parameters
        ----------
        image
            The chosen one.
        path
            The file.
        kept
            Of the image.

        Returns
        -------
        bool
            Whether it was done; a message says why not.
        """
        try:
            document = read_document(path)
            _check(image, document, path)
        except LightSamError as error:
            report_error(error)
            return False
        pictures = {0: image} | {
            number: layer
            for number, record in enumerate(document.images)
            if number and (layer := self._open_layer(record)) is not None
        }
        self._autosave.writing.take_over(kept, Shelf(path.parent, path.name.rpartition("~")[0]))
        with self._autosave.quiet():
            keys = {number: layers.input_key(layer) for number, layer in pictures.items()}
            added = self._add_layers(image, document, keys)
            if document.target is not None:
                self._control.results.target = added[document.target].unique_id
            self._take_settings(document.settings, document.pixel_size_um)
            self._take_inputs(image, document.settings, document.inputs, pictures)
            numbered = {number: layer.unique_id for number, layer in enumerate(added)}
            self._bring(kept, document, numbered)
        kept.unsaved = None
        if kept.shelf is None:
            self._autosave.note_change(image.unique_id)  # the file may be one that was set aside
        return True

    def _open_layer(self, record: ImageRecord) -> Image | None:
        """Return the open layer of an image that was an input of the model."""
        for layer in layers.images(self._control.viewer):
            data = level0(layer)
            alike = tuple(data.shape) == record.shape and np.dtype(data.dtype).name == record.dtype
            path = image_path(layer)
            named = layer.name == record.name if record.path is None else path == record.path
            if alike and named:
                return layer
        return None

    def _add_layers(self, image: Image, document: Document, keys: Mapping[int, str]) -> list[Labels]:
        from napari.layers import Labels

        added = []
        for record in document.labels:
            layer = Labels(record.data, **labels_keywords(record, keys, image=str(image.unique_id)))
            added.append(layers.add(self._control.viewer, layer, keep_active=True))
        return added

    def close(self) -> None:
        """Let go of the viewer."""
        self._closed = True
        self._control.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self._control.viewer.layers.events.removed.disconnect(self._on_removed)


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
