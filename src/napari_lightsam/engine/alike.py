"""Many objects asked about at once: those with the same kinds of prompts together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from napari_lightsam.engine.masks import Mask, Masks, by_size

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.segmenter import Segmenter

_BATCH = 32  # objects asked about between two looks at what else waits


class Prompted(Protocol):
    """What is told about one object, all in pixels of the plane."""

    @property
    def points(self) -> tuple[tuple[float, float, bool], ...]:
        """(row, column, positive) of each point."""

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """(y0, x0, y1, x1), half-open, or None."""

    @property
    def mask(self) -> Mask | None:
        """What is to be corrected, or None."""

    @property
    def first_positive(self) -> tuple[float, float] | None:
        """The first positive point, or None."""


P = TypeVar("P", bound=Prompted)


def batches(objects: Sequence[P]) -> list[list[P]]:
    """Put objects together that the model can be asked about at once, all with the same kinds of prompts."""
    alike: dict[Hashable, list[P]] = {}
    for prompt in objects:
        kind = (len(prompt.points), prompt.box is None, prompt.mask is None)
        alike.setdefault(kind, []).append(prompt)
    return [same[start : start + _BATCH] for same in alike.values() for start in range(0, len(same), _BATCH)]


def predict_alike(
    segmenter: Segmenter, embedding: Embedding, objects: Sequence[Prompted], size: float | None
) -> list[tuple[Mask, ...]]:
    """Return the candidates of objects that have the same kinds of prompts, best first."""
    first = objects[0]
    given: dict[str, Any] = {}
    if first.points:
        given["points"] = [[(y, x) for y, x, _ in prompt.points] for prompt in objects]
        given["point_labels"] = [[int(positive) for *_, positive in prompt.points] for prompt in objects]
    if first.box is not None:
        given["boxes"] = [prompt.box for prompt in objects]
    if not given:  # an object under correction, and nothing said about it yet
        return [() if prompt.mask is None else (prompt.mask,) for prompt in objects]
    if first.mask is not None:
        given["mask"] = Masks(embedding.shape, tuple((p.mask,) for p in objects if p.mask is not None))
    masks = segmenter.predict(embedding, **given)
    found = []
    for i, prompt in enumerate(objects):
        cleaned = (mask.cleaned(keep=prompt.first_positive) for mask in masks.candidates(i))
        # the logits would keep the whole decoder answer in memory
        ranked = by_size([replace(mask, logits=None) for mask in cleaned if mask.area], size)
        # what is corrected is the last candidate, so that it can be kept as it is
        found.append((*ranked, prompt.mask) if prompt.mask is not None else tuple(ranked))
    return found
