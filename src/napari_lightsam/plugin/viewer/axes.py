"""What the sliders of an image mean, which plane is on display, and how large its pixels are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

METADATA_KEY = "napari-lightsam"
"""Key of `layer.metadata` under which everything of ours is kept."""


class AxisRole(StrEnum):
    """What moving along an axis changes."""

    DEPTH = "depth"
    TIME = "time"
    CHANNEL = "channel"
    PLANE = "plane"
    """Rows and columns of the image itself."""
    UNKNOWN = "unknown"


_WORDS: Mapping[str, AxisRole] = {
    "z": AxisRole.DEPTH,
    "depth": AxisRole.DEPTH,
    "slice": AxisRole.DEPTH,
    "plane": AxisRole.DEPTH,
    "section": AxisRole.DEPTH,
    "t": AxisRole.TIME,
    "time": AxisRole.TIME,
    "frame": AxisRole.TIME,
    "timepoint": AxisRole.TIME,
    "c": AxisRole.CHANNEL,
    "ch": AxisRole.CHANNEL,
    "channel": AxisRole.CHANNEL,
    "channels": AxisRole.CHANNEL,
    "y": AxisRole.PLANE,
    "x": AxisRole.PLANE,
    "row": AxisRole.PLANE,
    "column": AxisRole.PLANE,
}


@dataclass(frozen=True, slots=True)
class Plane:
    """One plane of a layer.

    Attributes
    ----------
    layer
        `unique_id` of the Image layer.
    axes
        Data axes of the plane's rows and columns, in rising order.
    index
        Position along every data axis; `None` on the two axes of the plane.
    roles
        Role of every data axis.
    shape
        (H, W) in pixels: of the whole plane, or of the work region that it was narrowed to.
    origin
        (row, column) of the image where the plane begins: (0, 0), or the corner of the work region. All
        coordinates "in pixels of the plane" count from there.
    """

    layer: Hashable
    axes: tuple[int, int]
    index: tuple[int | None, ...]
    roles: tuple[AxisRole, ...]
    shape: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @property
    def key(self) -> Hashable:
        """What tells two planes apart; the shown channel does not, objects are the same in all."""
        steps = tuple(
            -1 if role is AxisRole.CHANNEL else step
            for step, role in zip(self.index, self.roles, strict=True)
        )
        return self.layer, self.axes, steps, self.origin, self.shape

    def corner(self) -> tuple[int, ...]:
        """Return the data position of the plane's first pixel."""
        of_plane = iter(self.origin)
        return tuple(next(of_plane) if step is None else step for step in self.index)

    def narrowed(self, region: Sequence[int]) -> Plane:
        """Return the part (y0, x0, y1, x1) of a whole plane as a plane; what lies outside is left out."""
        y0, x0 = (min(max(0, int(low)), size - 1) for low, size in zip(region[:2], self.shape, strict=True))
        y1 = min(max(y0 + 1, int(region[2])), self.shape[0])
        x1 = min(max(x0 + 1, int(region[3])), self.shape[1])
        return replace(self, origin=(y0, x0), shape=(y1 - y0, x1 - x0))


class NoPlane(Exception):
    """There is no plane to work on right now; the message says why, to be shown to the user."""


def role_from_label(label: str) -> AxisRole:
    """Read a role from an axis label.

    Examples
    --------
    >>> role_from_label("Z").value, role_from_label("-3").value
    ('depth', 'unknown')
    """
    return _WORDS.get(label.strip().casefold(), AxisRole.UNKNOWN)


def level0(layer: Image | Labels) -> Any:
    """Return the full-resolution array of an Image or Labels layer, lazily."""
    return layer.data[0] if layer.multiscale else layer.data


def guess_roles(
    labels: Sequence[str],
    shape: Sequence[int],
    file_axes: str = "",
    file_shape: Sequence[int] = (),
    answers: Mapping[int, AxisRole] | None = None,
) -> tuple[AxisRole, ...]:
    """Guess the role of every axis from what the user said, else the layer's axis labels, else the file's.

    Parameters
    ----------
    labels
        One label per data axis; napari's own defaults, "-3", "-2", ..., say nothing.
    shape
        Length of every data axis, without colour samples.
    file_axes, file_shape
        Letters and lengths of the source file's axes (`ImageInfo.axes`); used where they fit `shape`.
        napari squeezes axes of length one and may have split the channels into layers.
    answers
        What the user said, by axis.

    Notes
    -----
    The last two axes without another meaning are rows and columns. An axis of length one needs no role;
    it counts as depth.
    """
    said = answers or {}
    roles = [said.get(i, role_from_label(label)) for i, label in enumerate(labels)]
    letters = _matching_letters(shape, file_axes, file_shape)
    for i, letter in enumerate(letters):
        if roles[i] is AxisRole.UNKNOWN:
            roles[i] = role_from_label(letter)
    if AxisRole.PLANE not in roles:
        for i in [i for i, role in enumerate(roles) if role is AxisRole.UNKNOWN][-2:]:
            roles[i] = AxisRole.PLANE
    return tuple(
        AxisRole.DEPTH if role is AxisRole.UNKNOWN and length == 1 else role
        for role, length in zip(roles, shape, strict=True)
    )


def _matching_letters(shape: Sequence[int], axes: str, file_shape: Sequence[int]) -> str:
    pairs = [(a, n) for a, n in zip(axes, file_shape, strict=False) if a != "S"]
    for drop in ("", "1", "C", "C1"):
        kept = [(a, n) for a, n in pairs if not (("C" in drop and a == "C") or ("1" in drop and n == 1))]
        if [n for _, n in kept] == list(shape):
            return "".join(a for a, _ in kept)
    return ""


def roles_of(layer: Image) -> tuple[AxisRole, ...]:
    """Return the role of every data axis: the user's answers first, then labels, then the source file."""
    noted: Mapping[int, str] = layer.metadata.get(METADATA_KEY, {}).get("axes", {})
    answers = {axis: AxisRole(role) for axis, role in noted.items()}
    shape = level0(layer).shape[: layer.ndim]
    return guess_roles(layer.axis_labels, shape, *_file_axes(layer), answers)


def answer_role(layer: Image, axis: int, role: AxisRole) -> None:
    """Keep what the user said an axis is, in the layer's metadata."""
    ours = layer.metadata.setdefault(METADATA_KEY, {"role": "image"})
    ours.setdefault("axes", {})[axis] = str(role)


def answered_axes(layer: Image, viewer: ViewerModel) -> dict[int, AxisRole]:
    """Return what the user said that the axes are which sliders move through."""
    shown = _displayed(layer, viewer)
    noted: Mapping[Any, str] = layer.metadata.get(METADATA_KEY, {}).get("axes", {})
    answers = {int(axis): AxisRole(role) for axis, role in noted.items()}
    return {axis: role for axis, role in answers.items() if axis not in shown and role is not AxisRole.PLANE}


def unknown_axes(layer: Image, viewer: ViewerModel) -> tuple[int, ...]:
    """Return the data axes that a slider moves through and of which nobody said what they are.

    As long as an axis is of unknown meaning, rows and columns are a guess: that the last two axes are these
    is wrong where depth comes last, and whoever shows others knows better.
    """
    shown, roles = _displayed(layer, viewer), roles_of(layer)
    guessed = AxisRole.UNKNOWN in roles
    return tuple(
        i
        for i, role in enumerate(roles)
        if i not in shown
        and (
            role is AxisRole.UNKNOWN
            or (guessed and role is AxisRole.PLANE and role_from_label(layer.axis_labels[i]) is not role)
        )
    )


def _displayed(layer: Layer, viewer: ViewerModel) -> tuple[int, ...]:
    extra = viewer.dims.ndim - layer.ndim
    return tuple(axis - extra for axis in viewer.dims.displayed)


def displayed_plane(layer: Image, viewer: ViewerModel) -> Plane:
    """Return the plane of an Image layer that the viewer shows, or the work region in it.

    Raises
    ------
    NoPlane
        As `full_plane`.
    """
    return _in_region(layer, full_plane(layer, viewer))


def _in_region(layer: Image, plane: Plane) -> Plane:
    region = layer.metadata.get(METADATA_KEY, {}).get("work_region")
    return plane if region is None or tuple(region["axes"]) != plane.axes else plane.narrowed(region["box"])


def resting_plane(layer: Image, viewer: ViewerModel) -> Plane:
    """Return the plane of an Image layer that the viewer shows, or would show if it could.

    In the 3-D view it is the one that the 2-D view comes back to. Sliders that stand outside of the image
    count as at its end, and where the viewer shows axes that the image has not, the last two of the image
    count. For what is saved and brought back, which must not depend on what is on display just now.
    """
    try:
        return displayed_plane(layer, viewer)
    except NoPlane:
        roles, shape = roles_of(layer), level0(layer).shape
    skipped = viewer.dims.ndim - layer.ndim
    own = [axis for axis in range(layer.ndim) if roles[axis] is not AxisRole.CHANNEL]
    axes = sorted(axis - skipped for axis in viewer.dims.order[-2:])
    rows, columns = axes if set(axes) <= set(own) else own[-2:]
    at = np.rint(layer.world_to_data(viewer.dims.point)).astype(int)
    index: list[int | None] = [
        int(np.clip(step, 0, length - 1)) for step, length in zip(at, shape, strict=False)
    ]
    index[rows] = index[columns] = None
    plane = Plane(layer.unique_id, (rows, columns), tuple(index), roles, (shape[rows], shape[columns]))
    return _in_region(layer, plane)


def full_plane(layer: Image, viewer: ViewerModel) -> Plane:
    """Return the plane of an Image layer that the viewer shows, all of it.

    Raises
    ------
    NoPlane
        Three axes are shown at once, an axis of unknown meaning or a channel axis is in the way, or the
        sliders stand outside of the image.
    """
    if viewer.dims.ndisplay == 3:
        raise NoPlane("Switch napari to the 2-D view (the square button below the layer list).")
    if layer.ndim < 2:
        raise NoPlane("This image has less than two axes.")
    axes = _displayed(layer, viewer)
    if min(axes) < 0:
        raise NoPlane("The viewer shows an axis that this image does not have.")
    rows, columns = sorted(axes)
    roles = roles_of(layer)
    if AxisRole.CHANNEL in (roles[rows], roles[columns]):
        raise NoPlane("The viewer shows the channels as rows or columns; swap the axes back.")
    unknown = unknown_axes(layer, viewer)
    if unknown:
        raise NoPlane("Say first what the slider is: depth, time or channel.")
    shape = level0(layer).shape
    at = np.rint(layer.world_to_data(viewer.dims.point)).astype(int)
    index: list[int | None] = [int(step) for step in at]
    index[rows] = index[columns] = None
    for axis, step in enumerate(index):
        if step is not None and not 0 <= step < shape[axis]:
            raise NoPlane(f"The slider of axis {axis} stands outside of this image.")
    return Plane(layer.unique_id, (rows, columns), tuple(index), roles, (shape[rows], shape[columns]))


def _file_axes(layer: Image) -> tuple[str, tuple[int, ...]]:
    info = _file_info(layer.source.path)
    return ("", ()) if info is None else (info.axes, info.shape)


_INFO: dict[str, Any] = {}


def _file_info(path: str | None) -> Any | None:
    """Read the header of a layer's source file once; None where there is none of a known type."""
    if path is None:
        return None
    if path not in _INFO:
        from napari_lightsam.errors import FileError
        from napari_lightsam.formats.images import SUFFIXES, read_info

        try:
            _INFO[path] = read_info(path) if path.lower().endswith(SUFFIXES) else None
        except FileError:
            # napari opened it another way; its pixels count, and the header only helps where it can
            _INFO[path] = None
    return _INFO[path]


def channel_names(layer: Image, count: int) -> tuple[str, ...]:
    """Return what the channels of a layer are called: as in its file, else by number.

    Parameters
    ----------
    layer
        An Image layer that holds several channels.
    count
        How many.
    """
    info = _file_info(layer.source.path)
    known = () if info is None else info.channel_names
    names = known if len(known) == count else ("",) * count
    return tuple(name.strip() or f"channel {i}" for i, name in enumerate(names))


def in_unit(pixels: float, micrometres: float | None) -> str:
    """Say how long something is: in micrometres where the size of a pixel is known.

    Examples
    --------
    >>> in_unit(25.8, None), in_unit(25.8, 0.5)
    ('26 px', '12.9 µm')
    """
    return f"{pixels:.0f} px" if micrometres is None else f"{pixels * micrometres:.3g} µm"


def pixel_size(layer: Image, axes: tuple[int, int] | None = None) -> tuple[float | None, str]:
    """Find the size of a pixel.

    Parameters
    ----------
    layer
        An Image layer.
    axes
        Data axes of the plane; the last two by default.

    Returns
    -------
    size
        Micrometres a pixel (the geometric mean of rows and columns), or None: pixels everywhere.
    source
        Where it is from, in words for a tooltip.
    """
    rows, columns = axes or (layer.ndim - 2, layer.ndim - 1)
    sides = [micrometres(layer.units[axis], float(layer.scale[axis])) for axis in (rows, columns)]
    if sides[0] is not None and sides[1] is not None:
        return float(np.sqrt(sides[0] * sides[1])), "from the layer's units and scale"
    info = _file_info(layer.source.path)
    if (
        info is not None
        and info.pixel_size is not None
        and (rows, columns) == (layer.ndim - 2, layer.ndim - 1)
    ):
        y, x = info.pixel_size
        return float(np.sqrt(y * x)), f"from the file's {info.pixel_size_source} metadata"
    return None, "neither the layer nor its file says it"


def micrometres(unit: Any, length: float) -> float | None:
    """Convert to micrometres; None for pixels and everything else that is no length."""
    if not unit.is_compatible_with("micrometer"):
        return None
    return float((length * unit).to("micrometer").magnitude)
