"""What of a file a batch segments: one plane, or all planes of a stack, linked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.warned import hearing
from napari_lightsam.formats.objects import Position
from napari_lightsam.formats.tables import measure_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from napari_lightsam.batch.settings import BatchSettings
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.everything import Segmentation
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.engine.stack import StackSegmentation
    from napari_lightsam.formats.images import ImageFile, PlaneSelection

    Result = Segmentation | StackSegmentation


_ANYWHERE = Position()


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The pixels of a file that are segmented.

    Attributes
    ----------
    pixels
        (H, W), or (Z, H, W) for a stack; channels or colours last.
    rgb
        Whether the last axis is colour.
    channels
        Every raw channel of the file by its name, (H, W) or (Z, H, W), segmented or not.
    stacked
        A stack, not a plane.
    z_step
        Distance of a stack's planes in micrometres, or None.
    flags
        What a user should know about the choice.
    position
        Channel, plane and time point, as far as one of the image's was chosen.
    plane
        Number of the plane, "max" for the maximum over all, "all" for a stack.
    """

    pixels: NDArray[Any]
    rgb: bool
    channels: Mapping[str, NDArray[Any]]
    stacked: bool = False
    z_step: float | None = None
    flags: tuple[str, ...] = ()
    position: Position = _ANYWHERE
    plane: str = "0"

    @classmethod
    def of(cls, image: ImageFile, settings: BatchSettings) -> Subject:
        """Take what the settings choose of an image.

        Raises
        ------
        FileError
            As `ImageFile.plane` and `ImageFile.stack`.
        """
        image = image.with_axes(settings.axes)
        channel, z, time = settings.channel, settings.z, settings.time
        if settings.link and image.count_planes(channel, time) > 1:
            selection = image.select(channel, "max", time)
            stack, rgb = image.stack(channel, time)
            channels = image.channels(selection, depth=True)
            at = _position(selection)
            return cls(stack, rgb, channels, stacked=True, z_step=image.z_step, position=at, plane="all")
        selection = image.select(channel, z, time)
        at = _position(selection)
        flags = ("it has a single plane: there is nothing to link",) if settings.link else ()
        several = "Z" in selection.roles and at.z is None
        plane = "max" if several else str(at.z or 0)
        pixels, rgb = image.plane(channel, z, time)
        return cls(pixels, rgb, image.channels(selection), flags=flags, position=at, plane=plane)

    @property
    def middle(self) -> int | slice:
        """Where the plane is that stands for all in a picture."""
        return len(self.pixels) // 2 if self.stacked else slice(None)

    def estimate_size(self, segmenter: Segmenter) -> float | None:
        """Estimate the object size in pixels; None where nothing was found or the model needs none."""
        if not self.stacked:
            return segmenter.estimate_object_size(self.pixels, rgb=self.rgb)
        from napari_lightsam.engine.stack import estimate_stack_size

        return estimate_stack_size(self.pixels, segmenter, rgb=self.rgb)

    def segment(self, segmenter: Segmenter, config: EverythingConfig) -> Work[Result]:
        """Segment the plane, or all planes and link them."""
        if not self.stacked:
            return (yield from segmenter.everything(self.pixels, config, rgb=self.rgb))
        from napari_lightsam.engine.stack import segment_stack

        return (yield from segment_stack(self.pixels, config=config, model=segmenter, rgb=self.rgb))

    def measure(self, result: Result, pixel_size: tuple[float, float] | None) -> pd.DataFrame:
        """Measure the objects.

        Returns
        -------
        table
            As `measure_objects`. Of a stack a row per object and plane, the plane's number as `z`, and behind
            the measurements what `PlaneLinker.table` says of the whole object.
        """
        import pandas as pd

        from napari_lightsam.engine.stack import StackSegmentation

        if not isinstance(result, StackSegmentation):
            return measure_objects(result.labels, self.channels, pixel_size, result.scores)

        planes = []
        for z, labels in enumerate(result.labels):
            raw = {name: stack[z] for name, stack in self.channels.items()}
            table = measure_objects(labels, raw, pixel_size)
            table.insert(1, "z", z)
            planes.append(table)
        found = [table for table in planes if len(table)] or planes[:1]
        return pd.concat(found, ignore_index=True).merge(result.table, on="label", how="left")


def _position(selection: PlaneSelection) -> Position:
    """Read off which single channel, plane and time point were chosen."""
    steps = {
        role: step
        for role, step in zip(selection.roles, selection.index, strict=True)
        if isinstance(step, int)
    }
    channels = selection.channels if "C" in selection.roles else None
    channel = channels[0] if channels and len(channels) == 1 else None
    return Position(channel, steps.get("Z"), steps.get("T"))


def hear(work: Work[Result], heard: list[str]) -> Work[Result]:
    """Pass work on, noting its warnings."""
    try:
        while True:
            with hearing(heard.append):  # not while others are asked for their next step
                try:
                    step = next(work)
                except StopIteration as stop:
                    result: Result = stop.value
                    return result
            yield step
    finally:
        work.close()
