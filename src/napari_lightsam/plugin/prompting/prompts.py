"""Prompt layers: points with a sign and boxes, and the objects they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.viewer.axes import METADATA_KEY, AxisRole, Plane, level0
from napari_lightsam.plugin.viewer.colours import BLUE, ORANGE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points, Shapes
    from numpy.typing import ArrayLike, NDArray

    from napari_lightsam.engine.masks import Mask

POSITIVE, NEGATIVE = "positive", "negative"

COLOURS = {POSITIVE: BLUE, NEGATIVE: ORANGE}
SYMBOLS = {POSITIVE: "disc", NEGATIVE: "cross"}

STRETCH = 1000.0  # makes the one pixel of a channel axis so long that a point shows in every channel
_MARKER_PIXELS = 14  # on the screen


@dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """What the user said about one object.

    Attributes
    ----------
    points
        (row, column, positive) of each point, in pixels of the plane.
    box
        (y0, x0, y1, x1), half-open, or None.
    mask
        What is to be corrected, or None. Masks are compared by identity.
    """

    points: tuple[tuple[float, float, bool], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Mask | None = None

    @property
    def first_positive(self) -> tuple[float, float] | None:
        """Where the user certainly means the object: its first positive point."""
        return next(((y, x) for y, x, positive in self.points if positive), None)

    @property
    def rounded(self) -> ObjectPrompt:
        """Points and box to a thousandth of a pixel: what is left equal by the transforms of layers."""
        points = tuple((round(y, 3), round(x, 3), positive) for y, x, positive in self.points)
        return ObjectPrompt(points, self.box and tuple(round(side, 3) for side in self.box))  # type: ignore[arg-type]

    @property
    def place(self) -> tuple[float, float] | None:
        """The first positive point, or the middle of the box; None where only the rest is told."""
        if self.box is None or self.first_positive is not None:
            return self.first_positive
        y0, x0, y1, x1 = self.box
        return (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2


def add_points(viewer: ViewerModel, image: Image, plane: Plane, owner: str, signs: Signs) -> Points:
    """Add our Points layer on an image; Shift while clicking makes a point negative."""
    import pandas as pd
    from napari.layers import Points

    points = Points(
        np.zeros((0, image.ndim)),
        name="LightSAM points",
        features=pd.DataFrame({"sign": pd.Series([], dtype=object)}),
        feature_defaults={"sign": POSITIVE},
        symbol="disc",
        face_color=COLOURS[POSITIVE],
        border_color="white",
        border_width=0.12,
        metadata={METADATA_KEY: {"role": "points", "owner": owner, "version": 1}},
        **layers.on_image(image, plane, stretch=STRETCH),
    )
    signs.follow(points)
    points.mode = "add"
    return layers.add(viewer, points, keep_active=True, below=())


def resize_markers(points: Points, zoom: float) -> None:
    """Size the markers for a zoom in screen pixels an image pixel."""
    size = _MARKER_PIXELS / max(zoom, 1e-6)
    points.current_size = size
    if len(points.data):
        points.size = size


class Signs:
    """Keeps the sign of every point in the layer's features, and shape and colour in step with it.

    napari holds event listeners weakly: whoever makes this object keeps it.

    Attributes
    ----------
    always_negative
        Clicks without Shift are negative too.
    """

    def __init__(self, on_edit: Callable[[], object]) -> None:
        self.always_negative = False
        self._shift = False
        self._on_edit = on_edit
        self._styling = False
        self._known: list[str] = []

    def follow(self, points: Points) -> None:
        """Watch a Points layer."""
        points.mouse_drag_callbacks.insert(0, self.notice_shift)
        points.events.data.connect(self.after_edit)
        points.events.features.connect(self.after_relabel)

    def add(self, points: Points, at: Any, *, negative: bool) -> None:
        """Add a point as a click would, at a position in the layer's data."""
        self._shift = negative
        points.add(at)

    def notice_shift(self, layer: Points, event: Any) -> Generator[None, None, None]:
        """Remember at press time whether Shift was held; napari adds the point on release."""
        self._shift = "Shift" in event.modifiers
        yield

    def after_edit(self, event: Any) -> None:
        """Give new points their sign, and tell about every finished edit."""
        if self._styling or event.action not in ("added", "removed", "changed"):
            return
        layer = event.source
        if event.action == "added":
            # said for positive points too: napari gives a new point the features of the one last selected
            sign = NEGATIVE if self._shift or self.always_negative else POSITIVE
            self._shift = False
            given = signs_of(layer)
            signs = list(given)
            for i in event.data_indices:
                signs[i] = sign
            if signs != given:
                self._styling = True
                layer.features = layer.features.assign(sign=signs)
                self._styling = False
        self._style(layer)
        self._on_edit()

    def after_relabel(self, event: Any) -> None:
        """Follow a sign that was changed in the features table."""
        # napari tells about the features after each new point too
        if not self._styling and signs_of(event.source) != self._known:
            self._style(event.source)
            self._on_edit()

    def restore(self, layer: Points, positions: Any, signs: Sequence[str]) -> None:
        """Put points with their signs in the place of all that are there, without telling anybody."""
        self._styling = True
        try:
            layer.selected_data = set()
            # the viewer would go through all layers twice: it hears of the extent as well
            with layer.events.data.blocker():
                layer.data = positions
            layer.features = layer.features.assign(sign=list(signs))
        finally:
            self._styling = False
        self._style(layer)

    def _style(self, layer: Points) -> None:
        signs = self._known = signs_of(layer)
        symbols = [SYMBOLS[sign] for sign in signs]
        if not signs or symbols == [str(symbol) for symbol in layer.symbol]:
            return  # colours go with symbols; each of the two would draw all points anew
        self._styling = True
        try:
            layer.symbol = symbols
            layer.face_color = _colours(signs)
        finally:
            self._styling = False


def _colours(signs: Sequence[str]) -> NDArray[np.float64]:
    """Return RGBA (N, 4): napari would look every name up by itself."""
    hexadecimal = {sign: colour.removeprefix("#") for sign, colour in COLOURS.items()}
    rgb = {sign: [int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for sign, h in hexadecimal.items()}
    return np.array([[*rgb[sign], 1.0] for sign in signs])


def signs_of(points: Points) -> list[str]:
    """Return the sign of every point; one without a valid sign counts as positive."""
    table = points.features
    given = list(table["sign"]) if "sign" in table else []
    return [NEGATIVE if sign == NEGATIVE else POSITIVE for sign in given] or [POSITIVE] * len(points.data)


def add_boxes(viewer: ViewerModel, image: Image, plane: Plane, owner: str) -> Shapes:
    """Add our Shapes layer on an image."""
    from napari.layers import Shapes

    boxes = Shapes(
        None,
        ndim=image.ndim,
        name="LightSAM boxes",
        edge_color=COLOURS[POSITIVE],
        face_color=[0, 0, 0, 0],
        edge_width=max(1.0, max(plane.shape) / 250),
        metadata={METADATA_KEY: {"role": "boxes", "owner": owner, "version": 1}},
        **layers.on_image(image, plane, stretch=STRETCH),
    )
    return layers.add(viewer, boxes, keep_active=True, below=())


def read_points(points: Points | None, image: Image, plane: Plane) -> list[tuple[float, float, bool]]:
    """Return (row, column, positive) of the points on a plane; points beside the image are left out."""
    if points is None or not len(points.data):
        return []
    at, here = Placing(points, image).to_plane(points.data, plane)
    inside = here & _lie_in(at, plane.shape)
    signs = signs_of(points)
    return [(*at[i].tolist(), signs[i] == POSITIVE) for i in np.flatnonzero(inside)]


def _lie_in(at: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which rows and columns (N, 2) lie in a plane; pixel centres are whole numbers."""
    return np.asarray(((at >= -0.5) & (at <= np.array(shape) - 0.5)).all(axis=1))


def read_boxes(boxes: Shapes | None, image: Image, plane: Plane) -> list[tuple[float, float, float, float]]:
    """Return the boxes (y0, x0, y1, x1) around all shapes on a plane, half-open and inside of it."""
    shapes = [] if boxes is None else boxes.data
    if boxes is None or not len(shapes):
        return []
    at, here = Placing(boxes, image).to_plane(np.concatenate(shapes), plane)
    starts = np.cumsum([0, *map(len, shapes[:-1])])
    # napari's pixel centres are whole numbers, a half-open box counts from the pixels' edges
    low = np.clip(np.minimum.reduceat(at, starts) + 0.5, 0, plane.shape)
    high = np.clip(np.maximum.reduceat(at, starts) + 0.5, 0, plane.shape)
    kept = np.logical_and.reduceat(here, starts) & (high - low >= 1).all(axis=1)
    return [tuple(box) for box in np.concatenate([low, high], axis=1)[kept].tolist()]


def belong_to(
    positions: ArrayLike, starts: NDArray[np.intp], placing: Placing, image: Image, plane: Plane
) -> NDArray[np.bool_]:
    """Tell which prompts belong to a plane: those of other planes do not, nor those beside the work region.

    What lies beside the image, where it is ignored, belongs to the plane.

    Parameters
    ----------
    positions
        (N, D) of points, or the corners of shapes.
    starts
        Number of the first position of each prompt.
    placing, image, plane
        Where they lie.
    """
    at, here = placing.to_plane(positions, plane)
    size = level0(image).shape
    whole = size[plane.axes[0]], size[plane.axes[1]]
    low, high = np.minimum.reduceat(at, starts), np.maximum.reduceat(at, starts)
    inside = _meet(low, high, plane.shape)
    beside = ~_meet(low + plane.origin, high + plane.origin, whole)
    return np.asarray(np.logical_and.reduceat(here, starts) & (inside | beside))


def _meet(low: NDArray[np.float64], high: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which points, and which boxes by a pixel at least, lie in a plane; as they are read."""
    seen = np.clip(high + 0.5, 0, shape) - np.clip(low + 0.5, 0, shape)
    is_point = (low == high).all(axis=1)
    return np.where(is_point, _lie_in(low, shape), (seen >= 1).all(axis=1))


_FAR = 2.0**16  # pixels between two positions that tell a transform, so that rounding does not count


class Placing:
    """Turns positions in a layer's data into pixels of an image and back, many at once.

    Parameters
    ----------
    layer, image
        Of as many axes. Their transforms are looked at once, by asking napari for a few positions.
    """

    def __init__(self, layer: Layer, image: Image) -> None:
        self._layer, self._image = layer, image

    def to_plane(self, positions: ArrayLike, plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Turn positions (N, D) into rows and columns (N, 2) of a plane, and tell which lie on it."""
        at = _affine(positions, lambda one: self._image.world_to_data(self._layer.data_to_world(one)))
        here = np.ones(len(at), bool)
        for axis, step in enumerate(plane.index):
            if step is not None and plane.roles[axis] is not AxisRole.CHANNEL:
                here &= np.abs(at[:, axis] - step) <= 0.5
        return at[:, list(plane.axes)] - plane.origin, here

    def from_plane(self, at: ArrayLike, plane: Plane) -> NDArray[np.float64]:
        """Turn rows and columns (N, 2) of a plane into positions (N, D) in the layer's data."""
        pixels = np.asarray(at, float).reshape(-1, 2)
        positions = np.tile(np.array(plane.corner(), float), (len(pixels), 1))
        positions[:, list(plane.axes)] += pixels  # which count from the plane's first pixel
        return _affine(positions, lambda one: self._layer.world_to_data(self._image.data_to_world(one)))

    def corners(self, boxes: ArrayLike, plane: Plane) -> NDArray[np.float64]:
        """Return the corners (N, 4, D) of half-open boxes (N, 4) of a plane, in a Shapes layer's data."""
        sides = np.asarray(boxes, float).reshape(-1, 4) - 0.5
        at = sides[:, [[0, 1], [0, 3], [2, 3], [2, 1]]]
        return self.from_plane(at, plane).reshape(len(sides), 4, len(plane.index))


def _affine(positions: ArrayLike, transform: Callable[[Any], Any]) -> NDArray[np.float64]:
    """Apply a transform of one position, known to be affine, to many (N, D)."""
    given = np.asarray(positions, float)
    start = np.asarray(transform(np.zeros(given.shape[1])), float)
    out = np.tile(start, (len(given), 1))
    for axis, unit in enumerate(np.eye(given.shape[1])):
        # one axis after the other: equal positions give the same digits, however many there are
        out += given[:, axis : axis + 1] * ((np.asarray(transform(_FAR * unit), float) - start) / _FAR)
    return out


def to_plane(layer: Layer, position: Any, image: Image, plane: Plane) -> tuple[float, float] | None:
    """Turn a position in a layer's data into (row, column) of a plane; None when it is on another plane."""
    at, here = Placing(layer, image).to_plane([position], plane)
    return (float(at[0, 0]), float(at[0, 1])) if here[0] else None


def group_prompts(
    points: Sequence[tuple[float, float, bool]],
    boxes: Sequence[tuple[float, float, float, float]],
    *,
    each: bool = False,
) -> tuple[ObjectPrompt, ...]:
    """Tell which prompts belong together: every box is one object, all points outside of boxes another.

    A point belongs to the smallest box that holds it. Negative points outside of all boxes belong to the
    object of the positive points outside, or to the nearest box when there is none. With `each`, every
    positive point outside is an object, and a negative one belongs to the nearest of them.

    Examples
    --------
    >>> groups = group_prompts([(5, 5, True), (50, 50, True)], [(0, 0, 10, 10)])
    >>> [(len(group.points), group.box) for group in groups]
    [(1, (0, 0, 10, 10)), (1, None)]
    """
    if not boxes:
        told = any(positive for *_, positive in points)
        return () if not told else _one_each(points) if each else (ObjectPrompt(tuple(points)),)
    inside: list[list[tuple[float, float, bool]]] = [[] for _ in boxes]
    free = []
    sides = np.array(boxes, float).reshape(-1, 4)
    area = (sides[:, 2] - sides[:, 0]) * (sides[:, 3] - sides[:, 1])
    for point in points:
        holders = np.flatnonzero(_distances(point, sides) == 0)
        if len(holders):
            inside[holders[area[holders].argmin()]].append(point)
        else:
            free.append(point)
    if not any(positive for _, _, positive in free):
        for point in free:
            inside[int(_distances(point, sides).argmin())].append(point)
        free = []
    objects = [ObjectPrompt(tuple(held), tuple(box)) for held, box in zip(inside, boxes, strict=True)]  # type: ignore[arg-type]
    return tuple(objects) + (_one_each(free) if each else (ObjectPrompt(tuple(free)),) if free else ())


def _one_each(points: Sequence[tuple[float, float, bool]]) -> tuple[ObjectPrompt, ...]:
    from scipy.spatial import KDTree

    held = [[point] for point in points if point[2]]
    others = [point for point in points if not point[2]]
    if held and others:
        tree = KDTree([part[0][:2] for part in held])
        for point, nearest in zip(others, tree.query([point[:2] for point in others])[1], strict=True):
            held[nearest].append(point)
    return tuple(ObjectPrompt(tuple(part)) for part in held)


def _distances(point: tuple[float, float, bool], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far a point lies from each box, down and across together; 0 inside."""
    # pixel centres against pixel edges
    y, x = point[0] + 0.5, point[1] + 0.5
    down = np.maximum(np.maximum(boxes[:, 0] - y, y - boxes[:, 2]), 0)
    return down + np.maximum(np.maximum(boxes[:, 1] - x, x - boxes[:, 3]), 0)
