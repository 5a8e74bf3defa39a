"""A run that follows an object through a stack: what it starts from, and what it changes in the end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.progress import Progress
from napari_lightsam.plugin.objects.planes_step import PlanesStep, on_plane_number, plane_key
from napari_lightsam.plugin.viewer.places import view

if TYPE_CHECKING:
    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.propagate import Propagation as Followed
    from napari_lightsam.plugin.inference import Settings
    from napari_lightsam.plugin.viewer.axes import Plane
    from napari_lightsam.plugin.viewer.places import Place


@dataclass(frozen=True, slots=True, eq=False)
class Followable:
    """An object that can be followed from the plane on display.

    Attributes
    ----------
    labels
        The Labels layer that holds it.
    value
        Its label.
    place
        Where the plane is in that layer.
    mask
        Its pixels on the plane.
    axis
        Data axis of the image that counts the planes.
    """

    labels: Labels
    value: int
    place: Place
    mask: Mask
    axis: int


@dataclass(slots=True, eq=False)
class Run:
    """A run under way.

    Attributes
    ----------
    of
        What is followed.
    data
        Array of the Labels layer.
    at
        Its axis that counts the planes.
    start
        Where the run started.
    settings
        Model and object size.
    written
        Planes that earlier runs wrote, with the pixels on each.
    replace_others
        Also write on pixels that belong to other objects.
    areas, total
        Pixels of the object on every plane before the run, and wherever it is.
    limits
        Planes at most, by direction.
    found
        The object on the planes until now, by number.
    stop
        Set to end the run.
    """

    of: Followable
    data: NDArray[Any]
    at: int
    start: Plane
    settings: Settings
    written: dict[str, int]
    replace_others: bool
    areas: list[int] = field(default_factory=list)
    total: int = 0
    limits: dict[int, int] = field(default_factory=dict)
    found: dict[int, Mask] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def plane(self, number: int) -> tuple[NDArray[Any], Place]:
        """Return a plane of the Labels array, and where it is."""
        place = on_plane_number(self.of.place, self.at, number)
        return view(self.data, place), place

    @property
    def holds_start(self) -> bool:
        """The object is still on the plane that the run started from."""
        return bool((view(self.data, self.of.place) == self.of.value).any())

    @property
    def here(self) -> int:
        """Number of the plane that the run starts from, in the Labels array."""
        number = self.of.place[self.at]
        assert number is not None  # the axis is not on display
        return number


def survey(run: Run) -> Work[None]:
    """Count the object on every plane, and find the next ones on which it was drawn or edited by hand."""
    value, count = run.of.value, run.data.shape[run.at]
    run.areas, run.total = [], 0
    for number in range(count):
        yield Progress("looking at the planes", number, count)
        run.areas.append(int(np.count_nonzero(run.plane(number)[0] == value)))
        # where there are more axes, it may be elsewhere too
        slab = run.data[(slice(None),) * run.at + (number,)]
        run.total += run.areas[-1] if slab.ndim == 2 else int(np.count_nonzero(slab == value))
    for way in (1, -1):
        free = 0
        while 0 <= (number := run.here + way * (free + 1)) < count:
            area = run.areas[number]
            if area and area != run.written.get(plane_key(run.plane(number)[1])):
                break
            free += 1
        run.limits[way] = free


def plan(run: Run, result: Followed) -> Work[PlanesStep]:
    """Find what changes: the object's new pixels, and those of an earlier run that it gives up.

    Planes that were drawn on since the run began end it there, as those that were before.
    """
    from napari_lightsam.engine.propagate import Ending

    yield from survey(run)
    step = PlanesStep()
    for way, (end, why) in result.endings.items():
        reach = run.limits[way]
        found = abs(end - result.start)
        if reach + 1 < found:  # somebody drew there while the object was followed
            end, why = result.start + way * (reach + 1), Ending.LIMIT
        step.endings[way] = end, why
        if why in (Ending.STOPPED, Ending.LIMIT):  # what was not looked at stays
            reach = min(reach, found - 1)
        for distance in range(1, reach + 1):
            plane, place = run.plane(run.here + way * distance)
            mask = result.masks.get(result.start + way * distance)
            if mask is None and plane_key(place) not in run.written:
                continue
            yield Progress("placing the object", 0, 0)
            area = step.add(plane, place, mask, run.of.value, replace_others=run.replace_others)
            if area:
                step.areas[plane_key(place)] = area
            else:
                step.gone.append(plane_key(place))
    yield Progress("placing the object", 0, 0)
    step.pack()
    return step
