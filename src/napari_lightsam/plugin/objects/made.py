"""How the objects of a Labels layer came to be, kept with the layer: prompts, score, model."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from napari_lightsam.engine.masks import Mask
from napari_lightsam.errors import FileError
from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
from napari_lightsam.plugin.viewer.layers import note_of, ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Labels
    from numpy.typing import NDArray

Origin = Literal["prompt", "auto", "manual", "propagated"]
"""Clicked or boxed, found by everything mode, painted or imported, followed from another plane."""

_LARGEST_MASK = 2**31  # pixels around one object, of a file that may hold anything
_FORMER = 3  # records kept of what an object was before: undo brings those pixels back


@dataclass(frozen=True, slots=True)
class Made:
    """How one object came into a Labels layer.

    Attributes
    ----------
    source
        Where its pixels come from.
    score
        Calibrated predicted IoU, or None where no model judged it.
    prompt
        What the user said about it, in pixels of the plane; None for objects that nobody clicked.
    candidate
        Which of the model's outlines was chosen, from 0.
    area
        Pixels when it was written; another area now means that it was edited since.
    plane
        Index in the Labels array, None on the two axes of the plane; empty for objects of many planes.
    model
        Name of the model; empty where none was used.
    object_size
        Typical diameter in pixels that was set, or None.
    weights_hash
        SHA-256 of the model's weights; empty where none was used, or of early versions.
    inputs
        (image, channel) of each input that the model saw. An image is called as `layers.input_key` says in a
        viewer, and by its number in a file. None: not told, those of the file; empty: not known any more.
    cut
        Part of the model's outline that was not written, as it belonged to other objects; None: none of it.
    shaped
        The outline was changed before it was written, so that prompt and cut do not tell it.

    Examples
    --------
    >>> made = Made("prompt", 0.9, ObjectPrompt(((3.0, 4.0, True),)), area=50, plane=(2, None, None))
    >>> Made.from_plain(made.to_plain()) == made
    True
    """

    source: Origin
    score: float | None = None
    prompt: ObjectPrompt | None = None
    candidate: int = 0
    area: int = 0
    plane: tuple[int | None, ...] = ()
    model: str = ""
    object_size: float | None = None
    weights_hash: str = ""
    inputs: tuple[tuple[str | int, int | None], ...] | None = None
    cut: Mask | None = None
    shaped: bool = False

    def drawn(self, mask: Mask, written: NDArray[np.bool_]) -> Made:
        """Return the same with what became of its outline: `written` pixels of its box are its own."""
        left = mask.crop & ~written
        cut = Mask(mask.offset, left) if left.any() else None
        return replace(self, area=int(np.count_nonzero(written)), cut=cut)

    def with_inputs(self, names: Mapping[Any, str | int]) -> Made:
        """Return the same with other names of images; unknown ones make all inputs unknown."""
        if not self.inputs:
            return self
        known = all(image in names for image, _ in self.inputs)
        return replace(self, inputs=tuple((names[i], c) for i, c in self.inputs) if known else ())

    def to_plain(self) -> dict[str, Any]:
        """Return the same as lists, numbers and strings, which JSON can hold."""
        return {
            "source": self.source,
            "score": self.score,
            "prompt": None if self.prompt is None else _plain_prompt(self.prompt),
            "candidate": self.candidate,
            "area": self.area,
            "plane": list(self.plane),
            "model": self.model,
            "object_size": self.object_size,
            "weights_hash": self.weights_hash,
            "inputs": None if self.inputs is None else [list(one) for one in self.inputs],
            "cut": None if self.cut is None else plain_mask(self.cut),
            "shaped": self.shaped,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Made:
        """Read what `to_plain` wrote.

        Raises
        ------
        FileError
            A value is missing or of the wrong kind.
        """
        try:
            source = plain["source"]
            if source not in get_args(Origin):
                raise ValueError(f"source {source!r}")
            return cls(
                source=source,
                score=_number(plain.get("score")),
                prompt=_prompt(plain.get("prompt")),
                candidate=int(plain.get("candidate", 0)),
                area=int(plain.get("area", 0)),
                plane=tuple(None if step is None else int(step) for step in plain.get("plane", ())),
                model=str(plain.get("model", "")),
                object_size=_number(plain.get("object_size")),
                weights_hash=str(plain.get("weights_hash") or ""),
                inputs=_inputs(plain.get("inputs")),
                cut=None if plain.get("cut") is None else mask_from(plain["cut"]),
                shaped=bool(plain.get("shaped", False)),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise FileError(f"The record of how an object was made is damaged: {error}.") from error


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no finite number")
    return number


def _inputs(plain: Any) -> tuple[tuple[str | int, int | None], ...] | None:
    if plain is None:
        return None
    found = tuple((image, channel) for image, channel in plain)
    for image, channel in found:
        if not isinstance(image, str | int) or not (channel is None or isinstance(channel, int)):
            raise ValueError(f"input {(image, channel)!r}")
    return found


def _plain_prompt(prompt: ObjectPrompt) -> dict[str, Any]:
    return {
        "points": [[float(y), float(x), bool(positive)] for y, x, positive in prompt.points],
        "box": None if prompt.box is None else [float(v) for v in prompt.box],
        "mask": None if prompt.mask is None else plain_mask(prompt.mask),
    }


def _prompt(plain: Mapping[str, Any] | None) -> ObjectPrompt | None:
    if plain is None:
        return None
    points = tuple((float(y), float(x), bool(positive)) for y, x, positive in plain["points"])
    box, mask = plain.get("box"), plain.get("mask")
    if box is not None:
        y0, x0, y1, x1 = (float(v) for v in box)
        box = (y0, x0, y1, x1)
    return ObjectPrompt(points, box, None if mask is None else mask_from(mask))


def overlay(mask: Mask, other: Mask) -> NDArray[np.bool_]:
    """Return which pixels of the box of another mask belong to a mask.

    Examples
    --------
    >>> overlay(Mask((0, 1), np.ones((2, 2), bool)), Mask((1, 0), np.ones((2, 3), bool))).tolist()
    [[False, True, True], [False, False, False]]
    """
    found = np.zeros(other.crop.shape, bool)
    (y0, x0, y1, x1), (top, left, bottom, right) = mask.box, other.box
    rows, columns = (max(y0, top), min(y1, bottom)), (max(x0, left), min(x1, right))
    if rows[0] < rows[1] and columns[0] < columns[1]:
        part = mask.crop[rows[0] - y0 : rows[1] - y0, columns[0] - x0 : columns[1] - x0]
        found[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = part
    return found


def plain_mask(mask: Mask) -> dict[str, Any]:
    """Return a mask as the lengths of its runs in row order, of background first."""
    flat = np.concatenate([[False], mask.crop.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(changes, prepend=0, append=mask.crop.size)
    return {"offset": list(mask.offset), "shape": list(mask.crop.shape), "runs": runs.tolist()}


def mask_from(plain: Mapping[str, Any]) -> Mask:
    """Return the mask that `plain_mask` wrote down.

    Raises
    ------
    ValueError
        It is none.
    """
    height, width = (int(n) for n in plain["shape"])
    runs = np.array(plain["runs"], np.intp)
    if (runs < 0).any() or height * width > _LARGEST_MASK or runs.sum() != height * width:
        raise ValueError("the runs of a mask do not fill its box")
    crop = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    row, column = plain["offset"]
    return Mask((int(row), int(column)), crop)


def note_made(labels: Labels, value: int, made: Made) -> None:
    """Note how an object came to be; what was noted of the same label before is kept behind it.

    Parameters
    ----------
    labels
        The layer that holds the object.
    value
        Its label.
    made
        What to note.
    """
    records = _records(labels)
    former = records.get(str(value)) or [old.to_plain() for old in _of_run(labels, value)]
    records[str(value)] = [made.to_plain(), *former][:_FORMER]


def note_run(
    labels: Labels, ids: NDArray[Any], scores: NDArray[Any] | None, areas: NDArray[Any], made: Made
) -> None:
    """Note how all objects of a layer that one run filled came to be; whatever was noted before is forgotten.

    Parameters
    ----------
    labels
        The layer.
    ids, areas
        Label, rising, and area in pixels of each object.
    scores
        One for each object, or None.
    made
        What all have in common.
    """
    note = note_of(labels)
    note["made"] = {}
    # columns, since records of ten thousand objects would take longer than the run's other bookkeeping
    note["run"] = {
        **made.to_plain(),
        "ids": ids.tolist(),
        "scores": [] if scores is None else np.asarray(scores, float).tolist(),
        "areas": areas.tolist(),
    }


def made_objects(labels: Labels) -> dict[int, Made]:
    """Return how the objects of a layer came to be, by label.

    Labels that were undone, erased or merged away since are still listed; objects that were painted, or came
    with the layer, are not.
    """
    found = dict(zip(_run(labels).get("ids", ()), _all_of_run(labels), strict=True))
    return found | {int(value): Made.from_plain(past[0]) for value, past in _records(labels).items()}


def made_with_area(labels: Labels, value: int, area: int) -> Made | None:
    """Return how the pixels that an object has now came to be.

    Parameters
    ----------
    labels, value
        The object.
    area
        Its area now: after an undo it is that of an earlier record.

    Returns
    -------
    Made or None
        The newest record of that area, else the newest; None where nothing is noted.
    """
    past = [Made.from_plain(plain) for plain in _records(labels).get(str(value), ())]
    past = past or _of_run(labels, value)
    return next((made for made in past if made.area == area), past[0] if past else None)


def _all_of_run(labels: Labels) -> list[Made]:
    run = _run(labels)
    if not run:
        return []
    common = Made.from_plain(run)
    scores = run["scores"] or [None] * len(run["ids"])
    return [replace(common, score=score, area=area) for score, area in zip(scores, run["areas"], strict=True)]


def _of_run(labels: Labels, value: int) -> list[Made]:
    run = _run(labels)
    i = bisect_left(run.get("ids", ()), value)
    if not run or run["ids"][i : i + 1] != [value]:
        return []
    score = run["scores"][i] if run["scores"] else None
    return [replace(Made.from_plain(run), score=score, area=run["areas"][i])]


def _run(labels: Labels) -> dict[str, Any]:
    run: dict[str, Any] = ours(labels).get("run", {})
    return run


def _records(labels: Labels) -> dict[str, list[dict[str, Any]]]:
    records: dict[str, list[dict[str, Any]]] = note_of(labels).setdefault("made", {})
    return records
