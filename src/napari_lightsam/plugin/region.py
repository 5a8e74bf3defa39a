"""The work region of a large image: what is looked at and labelled at once. Knows napari but no Qt."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError, LightSamError
from napari_lightsam.plugin import layers
from napari_lightsam.plugin.axes import METADATA_KEY, NoPlane, full_plane, level0
from napari_lightsam.plugin.layers import Role
from napari_lightsam.plugin.messages import report_error, report_info
from napari_lightsam.plugin.prompts import STRETCH, Placing
from napari_lightsam.plugin.scope import drawn_polygons, is_box, region_of, visible_region
from napari_lightsam.plugin.worker import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer, Shapes

    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.annotator import Annotator
    from napari_lightsam.plugin.axes import Plane
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.worker import Worker

LARGEST_PLANE = 64_000_000
"""Pixels up to which a plane in memory is worked on as a whole; also the largest work region."""

LARGEST_LAZY_PLANE = 16_000_000
"""The same for planes that must be read or computed first."""

SIDE = 4096
"""Pixels a side of a work region that nobody drew, at most: the middle of what the window shows."""

_COLOUR = "#009E73"  # the Okabe-Ito palette's green, as areas that are drawn


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
        if needs_region(image, plane) and (note is None or tuple(note["axes"]) != plane.axes):
            self._set(image, plane, _middle(visible_region(image, plane)))

    def use_visible(self) -> bool:
        """Work on what the window shows; tells whether that was possible, and a message says why not."""
        try:
            image, plane = self._whole()
        except NoPlane as reason:
            report_info(str(reason))
            return False
        shown = visible_region(image, plane)
        region = _middle(shown)
        self._set(image, plane, region)
        if region != shown:
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
            report_info("That area is larger than 64 megapixels: draw a smaller one, or use 'Whole image'.")
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
        note = image.metadata.setdefault(METADATA_KEY, {"role": Role.IMAGE, "version": 1})
        note["work_region"] = {"axes": list(plane.axes), "box": [int(side) for side in box]}
        if polygons:
            note["work_region"]["polygons"] = list(polygons)
        self._show(image, plane, box, polygons)
        self.changed.emit()

    def _show(self, image: Image, plane: Plane, box: Region, polygons: Sequence[list[list[float]]]) -> None:
        """Draw the outline of the region on the image, on a layer that nobody works on."""
        from napari.layers import Shapes

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
            edge_color=_COLOUR,
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

    # --- the whole image -----------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """The whole image is being segmented, and that was not stopped."""
        return self._stop is not None and not self._stop.is_set()

    def segment_whole(
        self, request: PlaneRequest, settings: Settings, config: EverythingConfig, path: Path
    ) -> bool:
        """Segment the whole plane in the background, tile by tile, into a zarr array on disk.

        Parameters
        ----------
        request
            The plane on display.
        settings, config
            Model and settings.
        path
            A new `*.zarr` folder.

        Returns
        -------
        bool
            Whether it was begun. At the end the labels are opened as a layer that is only shown.
        """
        if self._stop is not None:  # another run would drop this one and what it found
            stopping = "still being stopped; press again in a moment" if self._stop.is_set() else "under way"
            report_info(f"A run on the whole image is {stopping}.")
            return False
        if path.exists():
            report_error(FileError(f"{path} exists already: choose another name, or remove it first."))
            return False
        stop = self._stop = threading.Event()
        whole = request.whole()
        self._worker.submit(
            Lane.WHOLE,
            self._inference.whole(whole, settings, config, path, stop.is_set),
            lambda done: self._on_whole(whole, path, *done),
            self._on_error,
            self.progress.emit,
        )
        self._say("Segmenting the whole image; you can go on working ...")
        self.progress.emit(Progress("starting", 0, 0))
        return True

    def stop(self) -> None:
        """End the run on the whole image."""
        if self._stop is not None:
            self._stop.set()
            self._say("Stopping; what was found until now is kept ...")

    def _on_error(self, error: BaseException) -> None:
        self._stop = None
        self.progress.emit(None)
        self._say("The whole image could not be segmented: see the message.")
        report_error(error)

    def _on_whole(self, request: PlaneRequest, path: Path, count: int, complete: bool) -> None:
        self._stop = None
        self.progress.emit(None)
        image = layers.by_id(self._viewer, request.plane.layer)
        found = f"{'1 object' if count == 1 else f'{count} objects'} in {path.name}" + (
            "" if complete else " (stopped before the end)"
        )
        if image is None:
            self._say(f"{found}; the image was closed meanwhile.")
            return
        try:
            open_read_only(self._viewer, image, request.plane, path)
        except LightSamError as error:
            report_error(error)
            return
        self._say(f"{found}. The layer is read from disk and only shown.")


def open_read_only(viewer: ViewerModel, image: Image, plane: Plane, path: Path) -> Labels:
    """Show the labels of a whole plane that lie on disk, as a layer that cannot be edited.

    Parameters
    ----------
    viewer, image, plane
        Where the labels belong.
    path
        A zarr array (H, W) of whole numbers.

    Raises
    ------
    FileError
        It cannot be read, or is of another size.
    """
    import dask.array as da
    import zarr
    from napari.layers import Labels

    try:
        stored = zarr.open_array(str(path), mode="r")
    except Exception as error:
        raise FileError(f"{path} cannot be read as a zarr array: {error}.") from error
    if stored.shape != plane.shape:
        raise FileError(f"{path} is {stored.shape}, but {image.name!r} is {plane.shape}.")
    read: Callable[..., Any] = da.from_zarr
    full = read(stored).reshape(layers.plane_shape(plane, *plane.shape))
    levels = [full]
    thinned = tuple(slice(None, None, 2 if axis in plane.axes else 1) for axis in range(image.ndim))
    while max(levels[-1].shape) > SIDE:  # napari shows no picture that is larger than the screen bears
        levels.append(levels[-1][thinned])
    labels = Labels(
        levels if len(levels) > 1 else full,
        multiscale=len(levels) > 1,
        name=f"{image.name} whole image",
        metadata={
            METADATA_KEY: {
                "role": Role.WHOLE,
                "version": 1,
                "image": str(image.unique_id),
                "file": str(path),
            }
        },
        **layers.on_plane(image, plane),
    )
    labels.editable = False
    return layers.add(viewer, labels)


def _middle(box: Region) -> Region:
    """Return a region of at most `SIDE` pixels a side around the same centre."""
    sides = []
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        length = min(high - low, SIDE)
        start = low + (high - low - length) // 2
        sides.append((start, start + length))
    return sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def write_whole(
    segmenter: Any,
    request: PlaneRequest,
    settings: Settings,
    config: EverythingConfig,
    path: Path,
    stop: Callable[[], bool],
) -> Work[tuple[int, bool]]:
    """Segment a whole plane into a zarr array; returns the number of objects, and whether it is complete."""
    from dataclasses import replace

    import zarr

    region = (0, 0, *request.plane.shape)
    out = zarr.create_array(
        str(path), shape=request.plane.shape, chunks=(1024, 1024), dtype="int32", fill_value=0
    )
    found = yield from segmenter.everything(
        request.refer_lazily(region),
        replace(config, object_size=settings.object_size or config.object_size),
        rgb=request.rgb,
        stop=stop,
        out=out,
    )
    return len(found.scores), bool(found.complete)
