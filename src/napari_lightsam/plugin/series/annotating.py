"""Annotating the images of a folder one after the other; what is done is done. Knows napari but no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.plugin.messages import report_error, report_info, report_warning
from napari_lightsam.plugin.request import own_sources
from napari_lightsam.plugin.series.items import Item, find_items, move_aside, newest_of
from napari_lightsam.plugin.series.results import CHECKS, files_of, write_item
from napari_lightsam.plugin.sessions.document import labels_of
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import pixel_size
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from napari.layers import Image

    from napari_lightsam.plugin.controller import Controller


@dataclass(frozen=True, slots=True)
class _Manner:
    """How the user works, which is the same on the next image.

    Attributes
    ----------
    tool
        "points", "boxes" or empty.
    channels
        That were chosen as the model's inputs; None of an image that has one.
    pixel_size
        Micrometres a pixel that were typed, or None.
    """

    tool: str = ""
    channels: tuple[int | None, ...] = ()
    pixel_size: float | None = None


class Series:
    """The images of a folder: which are annotated, which is next, and saving on the way.

    Parameters
    ----------
    control
        Of the viewer.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: another image is open, or another one is done.
    opened
        Signal(object): the Image layer of the image that was opened, or is gone back to.
    items
        All images, by name; empty before a folder is opened.
    current
        The one that is open; None before.
    out
        Where results go.
    """

    changed = Signal()
    opened = Signal(object)

    def __init__(self, control: Controller, say: Callable[[str], object]) -> None:
        self._control, self._say = control, say
        self.items: tuple[Item, ...] = ()
        self.current: Item | None = None
        self.out: Path | None = None
        self._image: Hashable | None = None
        self._manner = _Manner()
        self._refused: set[Path] = set()
        self._seen: object = None
        self._bound: set[Hashable] = set()  # layers with our key
        control.viewer.layers.events.inserted.connect(self._on_inserted)

    def close(self) -> None:
        """Let go of the viewer; an image that is being saved is followed by no other one."""
        self.changed.block()
        self.current = None
        viewer = self._control.viewer
        viewer.layers.events.inserted.disconnect(self._on_inserted)
        for layer in viewer.layers:
            if layer.unique_id in self._bound:
                layer.bind_key("N", None)  # it would keep all of the tool, with its models

    def _on_inserted(self, event: Any) -> None:
        """Let N go on with a layer of results selected, too: *Segment everything* makes it the active one."""
        if self.items and layers.ours(event.value).get("role") in (Role.OBJECTS, Role.EVERYTHING):
            event.value.bind_key("N", lambda _: self.next(), overwrite=True)  # it may have been here before
            self._bound.add(event.value.unique_id)

    @property
    def done(self) -> int:
        """How many images are annotated."""
        return sum(item.is_done for item in self.items)

    @property
    def total(self) -> int:
        """How many images there are."""
        return len(self.items)

    # --- opening -------------------------------------------------------------------------------------

    def open(self, folder: Path, out: Path | None = None) -> bool:
        """Open a folder at its first image that is not annotated; tells whether there are images.

        Parameters
        ----------
        folder
            Its images are annotated by name; subfolders and results are passed over.
        out
            Where results go; None: a folder beside it, called as it is and `_annotated`.
        """
        out = out or folder.absolute().with_name(folder.absolute().name + "_annotated")
        try:
            items = find_items(folder, out)
        except LightSamError as error:
            report_error(error)
            return False
        if self._is_open():
            self._keep()
            self._leave()
        self.current = self._image = None
        self.items, self.out, self._manner = items, out, _Manner()
        self._refused.clear()
        self._open_next()
        return True

    def show(self, item: Item) -> bool:
        """Open an image, also one that is done, with its work; tells whether it could be opened."""
        if item is self.current and self._is_open():
            self._go_back()
            return True
        self._keep()
        return self._open(item)

    def _open_next(self) -> None:
        """Open the next image that is not annotated, after the one that is open and then from the start."""
        start = 0 if self.current is None else self.items.index(self.current) + 1
        ahead = [*self.items[start:], *self.items[:start]]
        for item in ahead:
            waiting = not item.is_done and item.source not in self._refused
            if waiting and item is not self.current and self._open(item):
                return
        left = self.total - self.done
        self._say(
            f"All {self.total} images are annotated. The results are in {self.out}."
            if not left
            else f"{left} of {self.total} images are left: those that were passed over, or cannot be opened."
        )
        self.changed.emit()

    def _open(self, item: Item) -> bool:
        control = self._control
        self._note_manner()
        try:
            # napari's own reader, as for any image that is dropped into the window
            found = control.viewer.open(str(item.source), plugin="napari")
            image = next((layer for layer in found if type(layer).__name__ == "Image"), None)
            if image is None:
                raise FileError(f"{item.source} holds no image.")
        except Exception as error:  # readers raise of all kinds
            self._refused.add(item.source)
            sentence = f"{item.source} cannot be opened as an image and is passed over: {error}"
            report_error(error if isinstance(error, LightSamError) else FileError(sentence))
            return False
        control.sessions.keep_on(image.unique_id, item.shelf)
        self._leave(image)
        self.current, self._image = item, image.unique_id
        self.opened.emit(image)
        saved = newest_of(item)
        resumed = saved is not None and control.sessions.restore(saved)
        if saved is not None and not resumed:  # why not, was said: nothing must be written over it
            aside = self._move_aside([item])
            report_info(f"The work on {item.source.name} was moved to {aside}, and the image is not done.")
        self._seen = item.stamp
        self._go_on(image, resumed=resumed)
        number = self.items.index(item) + 1
        self._say(f"Image {number} of {self.total}: {item.source.name}. {self.done} done.")
        self._prepare_ahead(item)
        self.changed.emit()
        return True

    def _is_open(self) -> bool:
        return layers.by_id(self._control.viewer, self._image) is not None

    def _go_back(self) -> bool:
        """Choose the image of the series again; tells whether another one was chosen."""
        image = layers.by_id(self._control.viewer, self._image)
        if image is None or self._control.annotator.image_id == self._image:
            return False
        self._control.shown.use_image(image)
        self.opened.emit(image)
        return True

    def _keep(self) -> None:
        """Keep unfinished work of the image that is left before it was saved."""
        if self.current is not None and self._is_open():
            self._control.sessions.autosave.flush()

    def _leave(self, following: Image | None = None) -> None:
        """Go over to another image, and remove the layers of the one before; its work was saved or kept."""
        control, viewer = self._control, self._control.viewer
        image = layers.by_id(viewer, self._image)
        former = [] if image is None else [*labels_of(control, image), image]
        self.current = self._image = None
        # first, or else whoever follows the layers would choose another image
        control.shown.use_image(following)
        for layer in former:
            layers.remove(viewer, layer)

    # --- the next image as the one before ------------------------------------------------------------

    def _note_manner(self) -> None:
        """Take note of how the user works on the open image, while it is the chosen one."""
        control, annotator = self._control, self._control.annotator
        image = layers.by_id(control.viewer, self._image)
        if image is None or annotator.image_id != self._image:
            return
        active = layers.active_id(control.viewer)
        made = {"points": annotator.points, "boxes": annotator.boxes}
        in_use = [name for name, layer in made.items() if layer is not None and layer.unique_id == active]
        tool = in_use[0] if in_use else ""
        own = all(source.layer == image.unique_id for source in control.shown.sources)
        channels = tuple(source.channel for source in control.shown.sources) if own else ()
        typed = control.pixel_size_um if control.pixel_size_um != pixel_size(image)[0] else None
        self._manner = _Manner(tool, channels, typed)

    def _go_on(self, image: Image, *, resumed: bool) -> None:
        """Work on an image as on the one before; what came back with its work goes first."""
        control, manner = self._control, self._manner
        chosen = own_sources(control.viewer, image, manner.channels)
        if chosen and not resumed:
            control.shown.use_sources(chosen)
        if manner.pixel_size and not (resumed and control.pixel_size_um):
            control.pixel_size_um = manner.pixel_size
            control.settings_taken.emit()
        if manner.tool:
            control.start(manner.tool, negative=control.annotator.always_negative)

    def _prepare_ahead(self, item: Item) -> None:
        """Embed the next image in the background while this one is annotated."""
        following = self.items[self.items.index(item) + 1 :]
        coming = next((one for one in following if not one.is_done and one.source not in self._refused), None)
        if coming is None:
            return
        settings = self._control.shown.settings
        work = self._control.inference.prepare_ahead(lambda: _read(coming.source), settings)
        self._control.worker.submit(Lane.AHEAD, work, _ignore, _ignore)

    # --- saving --------------------------------------------------------------------------------------

    def next(self) -> None:
        """Save the labels, prompts and measurements of the open image, then open the next one."""
        item, image = self.current, self._image
        if item is None:
            report_info("Open a folder of images first.")
            return
        if image is None or not self._is_open():
            self._open_next()
            return
        if self._go_back():
            report_info(f"{item.source.name} of the series is chosen again: press N once more to save it.")
            return
        sessions = self._control.sessions
        version, snapshot = sessions.version(image), sessions.snapshot(image)
        if snapshot is None:
            return

        def saved(aside: Path | None) -> None:
            self.changed.emit()
            if aside is not None:
                report_warning(
                    f"{item.source.name} was annotated elsewhere, too, while it was open here. What is here "
                    f"was saved, and the other results were moved to {aside}."
                )
            if self.current is not item:
                return
            self._seen = item.stamp
            if sessions.version(image) != version:
                self.next()  # what was done meanwhile is in no file yet
                return
            sessions.autosave.forget(image)
            item.shelf.remove()
            self._open_next()

        sessions.write(write_item(item, snapshot, self._seen), saved)

    def skip(self) -> None:
        """Open the next image without finishing this one; its work is kept for later."""
        if self.current is not None:
            self._keep()
            self._open_next()

    def reset(self) -> Path | None:
        """Begin the whole series anew, as a class does with an exercise.

        Results are not deleted: they are moved into a folder of their own.

        Returns
        -------
        path
            Where they are now; None where there were none, or while they are being written.
        """
        if self.out is None:
            return None
        sessions = self._control.sessions
        if sessions.is_saving:
            report_info("The work is still being saved; try again in a moment.")
            return None
        if self._image is not None:
            sessions.autosave.forget(self._image)
        self._note_manner()
        aside = self._move_aside(self.items)
        self._leave()
        self._refused.clear()
        self._open_next()
        return aside

    def _move_aside(self, items: Sequence[Item]) -> Path | None:
        """Move what was written of some images, of all of them with the table, to where it is kept."""
        assert self.out is not None  # there are images
        written = [self.out / CHECKS] if len(items) == len(self.items) else []
        for item in items:
            written += [*files_of(item), *item.shelf.files()]
        return move_aside(written, self.out)


def _read(path: Path) -> tuple[Any, bool] | None:
    """Read the plane that will be on display; None where the file does not say which that is."""
    from napari_lightsam.formats.images import read_image

    try:
        return read_image(path).plane()
    except FileError:
        return None


def _ignore(_: Any) -> None:
    """Do nothing: what is prepared ahead is missed by nobody."""
