"""Prompt layers: points with a sign and boxes, and the objects they describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.plugin.axes import METADATA_KEY, AxisRole, Plane
from napari_lightsam.plugin.layers import on_image

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer, Points, Shapes

    from napari_lightsam.engine.masks import Mask

POSITIVE, NEGATIVE = "positive", "negative"

# Blue and orange of the Okabe-Ito palette: told apart with every kind of colour vision.
COLOURS = {POSITIVE: "#0072B2", NEGATIVE: "#E69F00"}
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


def add_points(viewer: ViewerModel, image: Image, plane: Plane, owner: str, signs: Signs) -> Points:
    """Add our Points layer on an image; Shift while clicking makes a point negative."""
    import pandas as pd

    points = viewer.add_points(
        np.zeros((0, image.ndim)),
        name="LightSAM points",
        features=pd.DataFrame({"sign": pd.Series([], dtype=object)}),
        feature_defaults={"sign": POSITIVE},
        symbol="disc",
        face_color=COLOURS[POSITIVE],
        border_color="white",
        border_width=0.12,
        metadata={METADATA_KEY: {"role": "points", "owner": owner, "version": 1}},
        **on_image(image, plane, stretch=STRETCH),
    )
    signs.follow(points)
    points.mode = "add"
    return points


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
            layer.face_color = [COLOURS[sign] for sign in signs]
        finally:
            self._styling = False


def signs_of(points: Points) -> list[str]:
    """Return the sign of every point; one without a valid sign counts as positive."""
    table = points.features
    given = list(table["sign"]) if "sign" in table else []
    return [NEGATIVE if sign == NEGATIVE else POSITIVE for sign in given] or [POSITIVE] * len(points.data)


def add_boxes(viewer: ViewerModel, image: Image, plane: Plane, owner: str) -> Shapes:
    """Add our Shapes layer on an image, ready to draw rectangles."""
    boxes = viewer.add_shapes(
        None,
        ndim=image.ndim,
        name="LightSAM boxes",
        edge_color=COLOURS[POSITIVE],
        face_color=[0, 0, 0, 0],
        edge_width=max(1.0, max(plane.shape) / 250),
        metadata={METADATA_KEY: {"role": "boxes", "owner": owner, "version": 1}},
        **on_image(image, plane, stretch=STRETCH),
    )
    boxes.mode = "add_rectangle"
    return boxes


def read_points(points: Points | None, image: Image, plane: Plane) -> list[tuple[float, float, bool]]:
    """Return (row, column, positive) of the points on a plane; points beside the image are left out."""
    if points is None:
        return []
    found = []
    for position, sign in zip(points.data, signs_of(points), strict=True):
        at = to_plane(points, position, image, plane)
        if at is not None and -0.5 <= at[0] <= plane.shape[0] - 0.5 and -0.5 <= at[1] <= plane.shape[1] - 0.5:
            found.append((*at, sign == POSITIVE))
    return found


def read_boxes(boxes: Shapes | None, image: Image, plane: Plane) -> list[tuple[float, float, float, float]]:
    """Return the boxes (y0, x0, y1, x1) around all shapes on a plane, half-open and inside of it."""
    if boxes is None:
        return []
    found = []
    for shape in boxes.data:
        corners = [to_plane(boxes, vertex, image, plane) for vertex in shape]
        if any(corner is None for corner in corners):
            continue
        # napari's pixel centres are whole numbers, a half-open box counts from the pixels' edges
        vertices = np.array(corners) + 0.5
        y0, x0 = np.clip(vertices.min(axis=0), 0, plane.shape)
        y1, x1 = np.clip(vertices.max(axis=0), 0, plane.shape)
        if y1 - y0 >= 1 and x1 - x0 >= 1:
            found.append((float(y0), float(x0), float(y1), float(x1)))
    return found


def to_plane(layer: Layer, position: Any, image: Image, plane: Plane) -> tuple[float, float] | None:
    """Turn a position in a layer's data into (row, column) of a plane; None when it is on another plane."""
    at = image.world_to_data(layer.data_to_world(position))
    for axis, step in enumerate(plane.index):
        if step is None or plane.roles[axis] is AxisRole.CHANNEL:
            continue
        if abs(at[axis] - step) > 0.5:
            return None
    return float(at[plane.axes[0]] - plane.origin[0]), float(at[plane.axes[1]] - plane.origin[1])


def from_plane(layer: Layer, at: tuple[float, float], image: Image, plane: Plane) -> Any:
    """Turn (row, column) of a plane into a position in a layer's data."""
    position = np.array(plane.corner(), float)
    position[list(plane.axes)] += at  # which counts from the plane's first pixel
    return layer.world_to_data(image.data_to_world(position))


def box_corners(layer: Layer, box: tuple[float, float, float, float], image: Image, plane: Plane) -> Any:
    """Return the corners (4, D) of a half-open box of a plane, in a Shapes layer's data."""
    y0, x0, y1, x1 = (side - 0.5 for side in box)
    corners = ((y0, x0), (y0, x1), (y1, x1), (y1, x0))
    return np.array([from_plane(layer, corner, image, plane) for corner in corners])


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
    inside: list[list[tuple[float, float, bool]]] = [[] for _ in boxes]
    free = []
    for point in points:
        holders = [i for i, box in enumerate(boxes) if _distance(point, box) == 0]
        if holders:
            inside[min(holders, key=lambda i: _area(boxes[i]))].append(point)
        else:
            free.append(point)
    if not any(positive for _, _, positive in free):
        for point in free if boxes else ():
            nearest = min(range(len(boxes)), key=lambda i: _distance(point, boxes[i]))
            inside[nearest].append(point)
        free = []
    objects = [ObjectPrompt(tuple(held), tuple(box)) for held, box in zip(inside, boxes, strict=True)]  # type: ignore[arg-type]
    return tuple(objects) + (_one_each(free) if each else (ObjectPrompt(tuple(free)),) if free else ())


def _one_each(points: Sequence[tuple[float, float, bool]]) -> tuple[ObjectPrompt, ...]:
    held = [[point] for point in points if point[2]]
    if not held:
        return ()
    centres = np.array([[part[0][0], part[0][1]] for part in held])
    for y, x, positive in points:
        if not positive:
            held[int(np.argmin(((centres - (y, x)) ** 2).sum(axis=1)))].append((y, x, positive))
    return tuple(ObjectPrompt(tuple(part)) for part in held)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _distance(point: tuple[float, float, bool], box: tuple[float, float, float, float]) -> float:
    # pixel centres against pixel edges
    y, x = point[0] + 0.5, point[1] + 0.5
    return max(box[0] - y, y - box[2], 0.0) + max(box[1] - x, x - box[3], 0.0)
