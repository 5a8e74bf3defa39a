"""Annotating the images of a folder one after the other; what is done is done. Knows napari but no Qt."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.formats.images import SUFFIXES
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import AxisRole
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.sessions_document import labels_of
from napari_lightsam.plugin.sessions_place import KEPT, Place
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari.layers import Image

    from napari_lightsam.engine.progress import Work
    from napari_lightsam.formats.objects import Objects
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.sessions_document import Snapshot
    from napari_lightsam.session import Document, ImageRecord

FORMATS = ("tiff", "csv")
CHECKS = "checks.csv"
"""What is written of every image, besides the session."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a series.

    Attributes
    ----------
    source
        The image file.
    base
        Output folder and stem; the outputs append to it.
    """

    source: Path
    base: Path

    @property
    def session(self) -> Path:
        """The saved work; it is written last, so that where it is, all is."""
        return self.base.with_name(self.base.name + ".lightsam")

    @property
    def place(self) -> Place:
        """Where unfinished work is kept."""
        return Place(self.base.parent / "autosave", self.base.name)

    @property
    def is_done(self) -> bool:
        """The image was annotated."""
        return self.session.is_file()


class Series:
    """The images of a folder: which are annotated, which is next, and saving on the way.

    Parameters
    ----------
    control
        Of the viewer.

    Attributes
    ----------
    changed
        Signal: another image is open, or another one is done.
    opened
        Signal(object): the Image layer of the image that was opened.
    items
        All images, by name; empty before a folder is opened.
    current
        The one that is open; None before.
    out
        Where results go.
    """

    changed = Signal()
    opened = Signal(object)

    def __init__(self, control: Controller) -> None:
        self._control = control
        self.items: tuple[Item, ...] = ()
        self.current: Item | None = None
        self.out: Path | None = None
        self._image: Any = None
        self._refused: set[Path] = set()

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
        self.items, self.out = items, out
        self._refused.clear()
        self._open_next()
        return True

    def show(self, item: Item) -> bool:
        """Open an image, also one that is done, with its work; tells whether it could be opened."""
        if item is self.current and self._is_open():
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
        try:
            # napari's own reader, as for any image that is dropped into the window
            found = control.viewer.open(str(item.source), plugin="napari")
            image = next((layer for layer in found if type(layer).__name__ == "Image"), None)
            if image is None:
                raise FileError(f"{item.source} holds no image.")
        except Exception as error:  # readers raise of all kinds
            self._refused.add(item.source)
            report_error(error)
            return False
        self._leave(image, item.place)
        self.current, self._image = item, image.unique_id
        self.opened.emit(image)
        saved = newest_of(item)
        if saved is not None:
            control.sessions.restore(saved)
        number = self.items.index(item) + 1
        self._say(f"Image {number} of {self.total}: {item.source.name}. {self.done} done.")
        self._prepare_ahead(item)
        self.changed.emit()
        return True

    def _is_open(self) -> bool:
        return layers.by_id(self._control.viewer, self._image) is not None

    def _keep(self) -> None:
        """Keep unfinished work of the image that is left before it was saved."""
        if self.current is not None and self._is_open():
            self._control.sessions.autosave_now()

    def _leave(self, following: Image | None = None, place: Place | None = None) -> None:
        """Go over to another image, and remove the layers of the one before; its work was saved or kept."""
        control, viewer = self._control, self._control.viewer
        image = layers.by_id(viewer, self._image)
        former = [] if image is None else [*labels_of(control, image), image]
        self.current = self._image = None
        control.sessions.place = place
        # first, or else whoever follows the layers would choose another image
        control.shown.use_image(following)
        for layer in former:
            layers.remove(viewer, layer)

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
        item = self.current
        if item is None:
            report_info("Open a folder of images first.")
            return
        if not self._is_open():
            self._open_next()
            return
        snapshot = self._control.sessions.snapshot()
        if snapshot is None:
            return

        def saved(_: None) -> None:
            if self.current is item:
                self._open_next()

        self._control.sessions.write(_write(item, snapshot), saved)

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
            Where they are now; None where there were none.
        """
        if self.out is None:
            return None
        kept = self._control.sessions
        kept.forget_changes()
        aside = self.out / f"before {time.strftime('%Y-%m-%d %H.%M.%S')}"
        moved = False
        for item in self.items:
            outputs = [item.session, *(item.base.with_name(item.base.name + end) for end in _endings())]
            outputs += [self.out / CHECKS, *(item.place.file(number) for number in range(1, KEPT + 1))]
            for output in outputs:
                if output.is_file():
                    aside.mkdir(parents=True, exist_ok=True)
                    shutil.move(output, aside / output.name)
                    moved = True
        self._leave()
        self._refused.clear()
        self._open_next()
        return aside if moved else None

    def _say(self, sentence: str) -> None:
        self._control.status = sentence
        self._control.changed.emit()


def find_items(folder: Path, out: Path) -> tuple[Item, ...]:
    """Find the images of a folder, in the order in which people count: image 2 before image 10.

    Raises
    ------
    FileError
        The folder does not exist, or holds no images.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a10.tif", "a2.tif", "a2_labels.tif", "notes.txt"):
    ...         _ = Path(folder, name).write_bytes(b"")
    ...     [item.base.name for item in find_items(Path(folder), Path(folder))]
    ['a2', 'a10']
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder. Choose the folder that holds the images.")
    names = sorted(
        (e.name for e in os.scandir(folder) if e.is_file() and e.name.casefold().endswith(SUFFIXES)),
        key=_order,
    )
    stems = {_stem(name) for name in names}
    images = [
        name
        for name in names
        if not name.startswith(".")
        and not any(
            name.endswith(end) and name.removesuffix(end) in stems for end in ("_labels.tif", "_overlay.png")
        )
    ]
    if not images:
        raise FileError(f"No images were found in the folder {folder} ({', '.join(SUFFIXES)}).")
    clashing = {
        stem for stem in stems if sum(_stem(name).casefold() == stem.casefold() for name in images) > 1
    }
    return tuple(
        Item(folder / name, out / (name.replace(".", "_") if _stem(name) in clashing else _stem(name)))
        for name in images
    )


def _order(name: str) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())
    ]


def _stem(name: str) -> str:
    stem = Path(name).stem
    return stem[:-4] if stem.casefold().endswith(".ome") else stem


def newest_of(item: Item) -> Path | None:
    """Return the newest file with work on an image: finished, or kept while it was done; None without any."""
    kept = item.place.newest()
    if not item.is_done:
        return kept
    newer = kept is not None and kept.stat().st_mtime_ns > item.session.stat().st_mtime_ns
    return kept if newer else item.session


def _endings() -> Iterable[str]:
    from napari_lightsam.formats.export import FORMATS as ALL

    return tuple(ALL[name].ending for name in FORMATS)


def _write(item: Item, snapshot: Snapshot) -> Work[None]:
    """Write the outputs of an image, the session last: where it is, the image counts as done."""
    from napari_lightsam.formats.export import export_objects
    from napari_lightsam.session import write_document
    from napari_lightsam.session.checks import note_check

    yield Progress("saving", 0, 1)
    document = snapshot.finished()
    export_objects(item.base, objects_of(document), FORMATS)
    note_check(item.session.with_name(CHECKS), item.source.name, document.main)
    write_document(item.session, document)
    item.place.remove()


def objects_of(document: Document) -> Objects:
    """Return the objects that files hold: those of the layer that was worked on, else of the topmost one."""
    from napari_lightsam.plugin.writer import layer_objects

    record = None if document.target is None else document.labels[document.target]
    if record is None and document.labels:
        record = document.labels[-1]
    if record is None:
        data, place = _nothing_found(document.image), document.image.layer
    else:
        data, place = record.data, record.layer
    meta = {key: place.get(key) for key in ("axis_labels", "units", "scale")}
    return layer_objects(data, meta | {"name": document.image.name})


def _nothing_found(image: ImageRecord) -> Any:
    """Return empty labels of an image's size: one that holds no object is annotated as well."""
    shape = image.shape[:-1] if image.layer.get("rgb") else image.shape
    channels = [int(axis) for axis, role in image.axes.items() if role == AxisRole.CHANNEL]
    return np.zeros([1 if axis in channels else n for axis, n in enumerate(shape)], np.int32)


def _read(path: Path) -> tuple[Any, bool] | None:
    """Read the plane that will be on display; None where the file does not say which that is."""
    from napari_lightsam.formats.images import read_image

    try:
        return read_image(path).plane()
    except FileError:
        return None


def _ignore(_: Any) -> None:
    """Do nothing: what is prepared ahead is missed by nobody."""
