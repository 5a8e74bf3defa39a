"""The work region of a large image: what is looked at and labelled at once. Knows napari but no Qt."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError, FileError, LightSamError
from napari_lightsam.formats.guard import protect_inputs
from napari_lightsam.plugin.messages import report_error, report_info, reworded
from napari_lightsam.plugin.prompting.prompts import STRETCH, Placing
from napari_lightsam.plugin.scope import drawn_polygons, is_box, region_of, visible_region
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, NoPlane, full_plane, level0
from napari_lightsam.plugin.viewer.colours import GREEN
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.whole import WholePlane, begun, open_read_only
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes
    from numpy.typing import NDArray

    from napari_lightsam.batch import SlideReport
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.prompting.annotator import Annotator
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.viewer.axes import Plane
    from napari_lightsam.plugin.worker import Worker

LARGEST_PLANE = 64_000_000
"""Pixels up to which a plane in memory is worked on as a whole; also the largest work region."""

LARGEST_LAZY_PLANE = 16_000_000
"""The same for planes that must be read or computed first."""

SIDE = 4096
"""Pixels a side of a work region that nobody drew, at most: the middle of what the window shows."""

LEAST_SIDE = 2048
"""The same at least, as far as the image goes: who looks closely wants to look beside as well."""


def needs_region(image: Image, plane: Plane) -> bool:
    """Tell whether an image is too large to be worked on as a whole.

    Parameters
    ----------
    image
        Any Image layer.
    plane
        Its whole plane, as `full_plane` returns it.
    """
    lazy = image.multiscale or not isinstance(level0(image), np.ndarray)
    return plane.shape[0] * plane.shape[1] > (LARGEST_LAZY_PLANE if lazy else LARGEST_PLANE)


class WorkRegion:
    """Keeps the work region of one viewer's image.

    The region is noted in the image's metadata; `displayed_plane` reads it there, so that everything else
    works on the region as on an image of its size.

    Parameters
    ----------
    viewer, annotator, worker, inference
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: the region is another one.
    progress
        Signal(object): `Progress` of a run on the whole image, or None when it ended.
    """

    changed = Signal()
    progress = Signal(object)

    def __init__(
        self,
        viewer: ViewerModel,
        annotator: Annotator,
        worker: Worker,
        inference: Inference,
        say: Callable[[str], object],
    ) -> None:
        self._viewer, self._annotator = viewer, annotator
        self._worker, self._inference, self._say = worker, inference, say
        self._stop: threading.Event | None = None
        self._shown: Progress | None = None
        self._unfinished: dict[Hashable, Path | None] = {}  # of the images that were looked at
        self._outlined: Hashable | None = None  # image whose region was shown last

    # --- which region --------------------------------------------------------------------------------

    @property
    def box(self) -> Region | None:
        """The region (y0, x0, y1, x1) in pixels of the whole plane; None: all of it."""
        image = self._annotator.image
        note = None if image is None else layers.ours(image).get("work_region")
        return None if note is None else tuple(note["box"])

    @property
    def polygons(self) -> list[list[list[float]]]:
        """Corners of what the region was drawn as, in pixels of the whole plane; empty for a rectangle."""
        image = self._annotator.image
        note = None if image is None else layers.ours(image).get("work_region")
        return [] if note is None else note.get("polygons", [])

    def is_needed(self) -> bool:
        """Tell whether the image is worked on in a region."""
        try:
            image, plane = self._whole()
        except NoPlane:
            return False
        return needs_region(image, plane)

    def _whole(self) -> tuple[Image, Plane]:
        image = self._annotator.image
        if image is None:
            raise NoPlane("Open an image first: drag a file into the window.")
        return image, full_plane(image, self._viewer)

    def ensure(self) -> None:
        """Make sure that a large image has a region on the displayed axes: the middle of what is visible."""
        try:
            image, plane = self._whole()
        except NoPlane:
            return
        note = layers.ours(image).get("work_region")
        if not needs_region(image, plane):
            return
        if note is None or tuple(note["axes"]) != plane.axes:
            self._set(image, plane, _around(visible_region(self._viewer, image, plane), plane))
        elif self._outlined != image.unique_id:
            # chosen before another image was, or in a tool that was closed
            self._show(image, plane, tuple(note["box"]), note.get("polygons", []))

    def use_visible(self) -> bool:
        """Work on what the window shows, and around it where that is little; tells whether it was possible.

        A message says why not.
        """
        try:
            image, plane = self._whole()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        shown = visible_region(self._viewer, image, plane)
        region = _around(shown, plane)
        self._set(image, plane, region)
        if max(shown[2] - shown[0], shown[3] - shown[1]) > SIDE:
            report_info(f"The window shows more than {SIDE} pixels a side: its middle is the work region.")
        return True

    def use_drawn(self, shapes: Shapes) -> bool:
        """Work on what was drawn on a Shapes layer; tells whether that was possible.

        Of other shapes than one upright rectangle, the rectangle around them is read, and what counts is
        their inside: prompts belong to the region where the first positive point, or the middle of the box,
        lies in them, and everything mode keeps the objects that lie in them by half or more.
        """
        try:
            image, plane = self._whole()
            polygons = drawn_polygons(shapes, image, plane)
            region = region_of(polygons, plane)
        except NoPlane as reason:
            report_info(str(reason))
            return False
        y0, x0, y1, x1 = region
        if (y1 - y0) * (x1 - x0) > LARGEST_PLANE:
            report_info(
                "That area is larger than 64 megapixels: draw less, or use 'Segment whole image ...'."
            )
            return False
        upright = len(polygons) == 1 and is_box(polygons[0])
        self._set(image, plane, region, [] if upright else [p.round(3).tolist() for p in polygons])
        return True

    def use_labels(self, labels: Labels) -> bool:
        """Go back to the region that a Labels layer of ours covers; tells whether it has one."""
        box, polygons = layers.ours(labels).get("region"), layers.ours(labels).get("region_polygons", [])
        return box is not None and self.use(tuple(box), polygons)

    def use(self, box: Region, polygons: Sequence[list[list[float]]] = ()) -> bool:
        """Work on a region of a large image; tells whether there is need of one, and it is another one."""
        try:
            image, plane = self._whole()
        except NoPlane:
            return False
        if not needs_region(image, plane) or (box, list(polygons)) == (self.box, self.polygons):
            return False
        self._set(image, plane, box, polygons)
        return True

    def _set(
        self, image: Image, plane: Plane, box: Region, polygons: Sequence[list[list[float]]] = ()
    ) -> None:
        note = layers.note_of_image(image)
        note["work_region"] = {"axes": list(plane.axes), "box": [int(side) for side in box]}
        if polygons:
            note["work_region"]["polygons"] = list(polygons)
        self._show(image, plane, box, polygons)
        self.changed.emit()

    def _show(self, image: Image, plane: Plane, box: Region, polygons: Sequence[list[list[float]]]) -> None:
        """Draw the outline of the region on the image, on a layer that nobody works on."""
        from napari.layers import Shapes

        self._outlined = image.unique_id
        y0, x0, y1, x1 = (side - 0.5 for side in box)
        owner = self._annotator.owner
        former = layers.find(self._viewer, Role.REGION, owner)
        active = self._viewer.layers.selection.active
        if former is not None:
            layers.remove(self._viewer, former)
            active = None if active is not None and active.unique_id == former.unique_id else active
        outline = Shapes(
            None,
            ndim=image.ndim,
            name="work region",
            metadata={
                METADATA_KEY: {
                    "role": Role.REGION,
                    "owner": owner,
                    "version": 1,
                    "image": str(image.unique_id),
                }
            },
            **layers.on_image(image, plane, stretch=STRETCH, on_all_planes=True),
        )
        placing = Placing(outline, image)
        outline.add(
            [placing.from_plane(p, plane) for p in polygons or [[[y0, x0], [y0, x1], [y1, x1], [y1, x0]]]],
            shape_type="polygon",
            edge_color=GREEN,
            face_color=[0, 0, 0, 0],
            edge_width=max(1.0, max(y1 - y0, x1 - x0) / 300),
        )
        outline.editable = False
        layers.add(self._viewer, outline)
        self._viewer.layers.selection.active = image if active is None else active

    def on_removed(self, gone: Layer) -> None:
        """Take the outline away with its image: alone it would make the view as large as that was."""
        outline = layers.find(self._viewer, Role.REGION, self._annotator.owner)
        if outline is not None and layers.ours(outline)["image"] == str(gone.unique_id):
            layers.remove(self._viewer, outline)

    def close(self) -> None:
        """Take the outline out of the viewer; the region stays noted with its image."""
        outline = layers.find(self._viewer, Role.REGION, self._annotator.owner)
        if outline is not None:
            layers.remove(self._viewer, outline)

    # --- the whole image -----------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """The whole image is being segmented, and that was not stopped."""
        return self._stop is not None and not self._stop.is_set()

    @property
    def unfinished(self) -> Path | None:
        """The file that a run on the whole of this image began and did not finish.

        One of this window, or of an earlier one where `suggested` says.
        """
        image = self._annotator.image
        if image is None:
            return None
        if image.unique_id not in self._unfinished:
            path = self.suggested()
            self._unfinished[image.unique_id] = path if image.source.path and begun(path) else None
        return self._unfinished[image.unique_id]

    def suggested(self) -> Path:
        """Return where labels of the whole image may go: beside its file, called like the image."""
        image = self._annotator.image
        name = "image" if image is None else Path(image.name).name
        source = None if image is None else image.source.path
        for ending in (".tiff", ".tif", ".svs", ".zarr", ".ome"):
            name = name.removesuffix(ending)
        safe = "".join("_" if letter in '<>:"/\\|?*' else letter for letter in name) or "image"
        folder = Path(source).parent if source and Path(source).parent.is_dir() else Path()
        return folder / f"{safe}_labels.ome.zarr"

    def segment_whole(
        self, request: PlaneRequest, settings: Settings, config: EverythingConfig, path: Path
    ) -> bool:
        """Segment the whole plane in the background, block by block, into a label image on disk.

        Parameters
        ----------
        request
            The plane on display.
        settings, config
            Model and settings.
        path
            A new `*.zarr` folder, or one that an earlier run on the same plane did not finish: it goes on.

        Returns
        -------
        bool
            Whether it was begun. At the end the labels are opened as a layer that is only shown.
        """
        if self._stop is not None:  # another run would drop this one and what it found
            stopping = "still being stopped; press again in a moment" if self._stop.is_set() else "under way"
            report_info(f"A run on the whole image is {stopping}.")
            return False
        image = layers.by_id(self._viewer, request.plane.layer)
        if image is None:
            return False
        try:
            protect_inputs([Path(image.source.path)] if image.source.path else [], [path])
            if path.exists() and not begun(path):
                raise FileError(f"{path} exists already: choose another name, or remove it first.")
        except LightSamError as error:
            report_error(error)
            return False
        stop = self._stop = threading.Event()
        whole = _Whole(image.unique_id, request.whole().plane, path, stop)
        self._worker.submit(
            Lane.WHOLE,
            self._inference.whole(WholePlane.of(request, image), settings, config, path, stop.is_set),
            lambda done: self._on_whole(whole, *done),
            lambda error: self._on_error(whole, error),
            self._on_progress,
        )
        self._say("Segmenting the whole image; you can go on working ...")
        self.progress.emit(Progress("starting", 0, 0))
        return True

    def stop(self) -> None:
        """End the run on the whole image."""
        if self._stop is not None:
            self._stop.set()
            self._say("Stopping; the parts that are done are kept ...")

    def _on_progress(self, step: Progress) -> None:
        if step is not self._shown:  # the same is told again and again while a block is computed
            self._shown = step
            self.progress.emit(step)

    def _end(self, whole: _Whole, *, goes_on: bool) -> None:
        self._stop = self._shown = None
        self._unfinished[whole.image] = whole.path if goes_on and begun(whole.path) else None
        self.progress.emit(None)

    def _on_error(self, whole: _Whole, error: BaseException) -> None:
        # one that was begun with other settings would be refused again
        self._end(whole, goes_on=not isinstance(error, ConfigError))
        self._say("The whole image could not be segmented: see the message.")
        report_error(reworded(error, f"Choose another name, or remove {whole.path.name} first."))

    def _on_whole(self, whole: _Whole, report: SlideReport | None, small: NDArray[Any] | None) -> None:
        complete = report is not None and not report.failed
        self._end(whole, goes_on=not complete)
        name, image = whole.path.name, layers.by_id(self._viewer, whole.image)
        if report is None:
            found = f"Stopped. What is done is kept in {name}, and the next run goes on there"
        else:
            count = report.n_objects
            found = f"{'1 object' if count == 1 else f'{count} objects'} in {name}"
            if report.failed:
                found += f"; {len(report.failed)} parts could not be segmented ({report.failed[0].message})"
        if image is None:
            self._say(f"{found}; the image was closed meanwhile.")
            return
        if report is not None or small is not None:  # else it was stopped before there was anything
            try:
                open_read_only(self._viewer, image, whole.plane, whole.path, small=small)
            except LightSamError as error:
                report_error(error)
                return
        self._say(f"{found}. The layer is read from disk and only shown.")


@dataclass(frozen=True, slots=True, eq=False)
class _Whole:
    """A run on a whole image: of which, where its labels go, and what ends it."""

    image: Hashable
    plane: Plane
    path: Path
    stop: threading.Event


def _around(box: Region, plane: Plane) -> Region:
    """Return a region of a plane, of `LEAST_SIDE` to `SIDE` pixels a side, around the centre of a box."""
    sides = []
    for low, high, extent in zip(box[:2], box[2:], plane.shape, strict=True):
        length = min(max(high - low, LEAST_SIDE), SIDE, extent)
        start = min(max(0, (low + high - length) // 2), extent - length)
        sides.append((start, start + length))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]
