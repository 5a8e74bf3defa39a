"""The whole plane of a large image, handed over to the batch engine, and its labels on disk as a layer."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import FileError
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, micrometres
from napari_lightsam.plugin.viewer.layers import Role
from napari_lightsam.plugin.viewer.names import unused_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari.components import ViewerModel
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_lightsam.batch import SlideReport
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.plugin.request import PlaneRequest
    from napari_lightsam.plugin.viewer.axes import Plane

Result = TypeVar("Result")

_LARGEST_LEVEL = 4096  # pixels a side: napari shows no picture that is larger than the screen bears
_PATIENCE = 0.02  # seconds between two looks at what goes on beside
_FAREWELL = 5.0  # seconds that work which was given up may take to notice


@dataclass(frozen=True, slots=True, eq=False)
class WholePlane:
    """A plane of layers as the batch engine takes an image.

    Attributes
    ----------
    data
        (H, W) or (H, W, C), read in parts.
    path
        What it is of: a run is only gone on with on the same.
    rgb
        The last axis is colour.
    pixel_size
        (row, column) in micrometres, or None.
    """

    data: Any
    path: str
    rgb: bool
    pixel_size: tuple[float, float] | None
    _arrays: tuple[Any, ...]

    @classmethod
    def of(cls, request: PlaneRequest, image: Image) -> WholePlane:
        """Describe the whole plane of an image that a request is about."""
        whole = request.whole()
        sides = [micrometres(image.units[axis], abs(float(image.scale[axis]))) for axis in whole.plane.axes]
        size = None if sides[0] is None or sides[1] is None else (sides[0], sides[1])
        told = [f"{type(one.data).__name__}{list(one.data.shape)} {one.index}" for one in whole.inputs]
        data = whole.refer_lazily((0, 0, *whole.plane.shape))
        arrays = (data,) if isinstance(data, np.ndarray) else tuple(one.data for one in whole.inputs)
        return cls(data, f"{image.name}: {'; '.join(told)}", whole.rgb, size, arrays)

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) or (H, W, C)."""
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        kind: np.dtype[Any] = np.dtype(self.data.dtype)
        return kind

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self.data[key])

    def state(self) -> str:
        """Say what tells these pixels from others that may take their place."""
        from napari_lightsam.batch.slide_source import describe_state

        return "; ".join(describe_state(array) for array in self._arrays)


def segment_whole(
    segmenter: Any, plane: WholePlane, config: EverythingConfig, path: Path, stop: Callable[[], bool]
) -> Work[SlideReport | None]:
    """Segment a plane on disk as `lightsam slide` does, going on with what an earlier run left there.

    Returns
    -------
    SlideReport or None
        None when it was stopped.
    """
    from napari_lightsam.batch import BatchSettings

    settings = BatchSettings(config=config, pixel_size=plane.pixel_size)
    return (yield from beside(segment_slide(plane, path, settings, model=segmenter, workers=1), stop))


def segment_slide(*args: Any, **keywords: Any) -> Work[SlideReport]:
    """Call `batch.segment_slide`, importing it in the worker."""
    from napari_lightsam.batch.slide import segment_slide

    return segment_slide(*args, scheduler="threads", **keywords)


def begun(path: Path) -> bool:
    """Tell whether a run on a whole image ended before all of it was done, so that it can go on."""
    from napari_lightsam.batch.slide_place import SlidePlace

    try:
        return SlidePlace(path).is_begun
    except FileError:  # what is there was not written by a run
        return False


def beside(work: Work[Result], stop: Callable[[], bool]) -> Work[Result | None]:
    """Do work on a thread of its own: its steps wait for others, for which whoever has the thread must not.

    Parameters
    ----------
    work
        Closed when `stop` says so, or when this generator is closed.
    stop
        Asked between its steps.

    Returns
    -------
    object
        What the work returns; None when it was stopped.
    """
    latest = [Progress("starting", 0, 0)]
    ended: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
    given_up = threading.Event()

    def do() -> None:
        try:
            while not (given_up.is_set() or stop()):
                latest[0] = next(work)
            work.close()
            ended.put((None, None))
        except StopIteration as end:
            ended.put((end.value, None))
        except BaseException as error:
            ended.put((None, error))

    thread = threading.Thread(target=do, name="lightsam-beside", daemon=True)
    thread.start()
    try:
        while True:
            try:
                result, error = ended.get(timeout=_PATIENCE)
            except queue.Empty:
                yield latest[0]
                continue
            if error is not None:
                raise error
            return result
    finally:
        given_up.set()
        thread.join(_FAREWELL)


def thinned(path: Path) -> Work[NDArray[Any]]:
    """Read every second, fourth or further pixel of labels on disk, as many as napari shows at once.

    The labels of a run that was stopped have no smaller copies yet. If napari made them, it would read all of
    the file whenever the view moves, and the window would wait for it.

    Parameters
    ----------
    path
        OME-Zarr label image.
    """
    import zarr

    full: Any = zarr.open_group(str(path), mode="r")["0"]
    step = 1
    while max(full.shape) > step * _LARGEST_LEVEL:
        step *= 2
    height, rows = full.shape[0], full.chunks[0]
    small = np.zeros([-(-side // step) for side in full.shape], full.dtype)
    for top in range(0, height, rows):
        first = -top % step
        part = full[top : top + rows][first::step, ::step]
        begin = (top + first) // step
        small[begin : begin + len(part)] = part
        yield Progress("reading what is done", min(top + rows, height), height)
    return small


def open_read_only(
    viewer: ViewerModel, image: Image, plane: Plane, path: Path, *, small: NDArray[Any] | None = None
) -> Labels:
    """Show the labels of a whole plane that lie on disk, as a layer that cannot be edited.

    Parameters
    ----------
    viewer, image, plane
        Where the labels belong.
    path
        OME-Zarr label image of the size of the plane. A layer that shows it already is replaced.
    small
        The labels `thinned`, where their smaller copies were not made yet; None: they are on disk.

    Raises
    ------
    FileError
        It cannot be read, or is of another size.
    """
    import dask.array as da
    import zarr
    from napari.layers import Labels

    try:
        group = zarr.open_group(str(path), mode="r")
        stored: list[Any] = [group[str(number)] for number in range(len(list(group.array_keys())))]
        shape = stored[0].shape
    except Exception as error:
        raise FileError(f"{path} cannot be read as a label image in OME-Zarr: {error}.") from error
    if shape != plane.shape:
        raise FileError(f"{path} is {shape}, but {image.name!r} is {plane.shape}.")
    read: Callable[..., Any] = da.from_zarr
    levels = [read(array).reshape(layers.plane_shape(plane, *array.shape)) for array in stored]
    if small is not None:
        levels = _levels(levels[0], small, plane)
    for former in list(viewer.layers):
        if layers.ours(former).get("role") == Role.WHOLE and layers.ours(former).get("file") == str(path):
            layers.remove(viewer, former)
    labels = Labels(
        levels if len(levels) > 1 else levels[0],
        multiscale=len(levels) > 1,
        name=unused_name(viewer, "Whole image", image.name, "of"),
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


def _levels(full: Any, small: NDArray[Any], plane: Plane) -> list[Any]:
    """Return an array, smaller copies that are read where they are looked at, and the smallest as it is."""
    levels = [full]
    every_second = tuple(slice(None, None, 2 if axis in plane.axes else 1) for axis in range(full.ndim))
    while levels[-1].size > small.size:
        levels.append(levels[-1][every_second])
    return levels if len(levels) == 1 else [*levels[:-1], small.reshape(levels[-1].shape)]


def sized(config: EverythingConfig, object_size: float | None) -> EverythingConfig:
    """Return settings with the object size that the user set, where there is one."""
    return replace(config, object_size=object_size or config.object_size)
