"""From checked prompts to ranked masks: scales are chosen, windows decoded, readings compared."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.candidates import Candidates, collect
from napari_lightsam.engine.decode import decode, window_size
from napari_lightsam.engine.masks import Mask
from napari_lightsam.engine.prompts import PAD, POSITIVE, Prompts
from napari_lightsam.engine.scales import escape_scale, scales_for
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.segmenter import Segmenter

_SAME_OBJECT = 0.85  # two candidates of one prompt above this IoU are one reading of it
_MOST_CANDIDATES = 6

Answers = tuple[tuple[Mask, ...], ...]


def answer(segmenter: Segmenter, embedding: Embedding, prompts: Prompts, multimask: bool | None) -> Answers:
    """Return the candidates of each object, best first; see `Segmenter.predict`.

    Several points are taken as corrections of the answer to the first one inside the object, as our own
    models learned them: those objects are asked twice.
    """
    asked = _Question(segmenter, embedding, prompts)
    corrected = asked.corrected(multimask)
    if not corrected.any():
        return asked.answers(multimask)
    found = list(_Question(segmenter, embedding, _first_alone(prompts, corrected)).answers(None))
    again = [int(i) for i in np.flatnonzero(corrected) if found[i][0].area]
    if again:
        given = replace(prompts.take(again), masks=tuple(found[i][0] for i in again))
        answers = _Question(segmenter, embedding, given).answers(None)
        for i, better in zip(again, answers, strict=True):
            found[i] = better
    return tuple(found)


def _first_alone(prompts: Prompts, corrected: NDArray[np.bool_]) -> Prompts:
    """Keep the first positive point of the objects that are corrected, and all of the others."""
    inside = prompts.labels == POSITIVE
    first = inside & (np.cumsum(inside, axis=1) == 1)
    labels = np.where(corrected[:, None] & ~first, PAD, prompts.labels)
    # Padding is not nothing to the decoder: what is kept moves to the front, and columns of it are dropped.
    order = np.argsort(labels == PAD, axis=1, kind="stable")
    labels = np.take_along_axis(labels, order, axis=1)
    points = np.take_along_axis(prompts.points, order[..., None], axis=1)
    used = (labels != PAD).any(axis=0)
    return replace(prompts, points=points[:, used], labels=labels[:, used])


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """Prompts of N objects about one plane."""

    segmenter: Segmenter
    embedding: Embedding
    prompts: Prompts

    def corrected(self, multimask: bool | None) -> NDArray[np.bool_]:
        """Tell which objects have several points, one of them inside, and nothing else."""
        prompts = self.prompts
        if multimask is not None or prompts.boxes is not None or prompts.masks is not None:
            return np.zeros(len(prompts), bool)
        several = (prompts.labels != PAD).sum(axis=1) > 1
        inside = (prompts.labels == POSITIVE).any(axis=1)
        return np.asarray(several & inside & isinstance(self.segmenter.spec.frame, ObjectFrame))

    def answers(self, multimask: bool | None) -> Answers:
        """Decode every object at the scales that suit it, and rank what comes."""
        prompts = self.prompts
        several = prompts.single_clicks() if multimask is None else np.full(len(prompts), multimask)
        if self.segmenter.spec.always_multimask and multimask is None:
            several[:] = True
        found = self._decode_at(range(len(prompts)), several, self._first_scales())
        self._escape_windows(several, found)
        return tuple(self._rank(found[i]) for i in range(len(prompts)))

    def _first_scales(self) -> list[tuple[float | None, ...]]:
        spec = self.segmenter.spec
        if not isinstance(spec.frame, ObjectFrame):
            return [(None,)] * len(self.prompts)
        return scales_for(self.embedding, self.prompts, spec.frame, spec.window or 0)

    def _decode_at(
        self, members: Iterable[int], several: NDArray[np.bool_], scales: Iterable[tuple[float | None, ...]]
    ) -> dict[int, list[Candidates]]:
        """Decode some objects, each at its scales; returns the candidates of each object."""
        jobs: dict[tuple[float | None, bool], list[int]] = defaultdict(list)
        for i, chosen in zip(members, scales, strict=True):
            for scale in chosen:
                jobs[scale, bool(several[i])].append(i)
        segmenter, found = self.segmenter, defaultdict[int, list[Candidates]](list)
        for (scale, multimask), asked in jobs.items():
            level = segmenter.level(self.embedding, scale)
            part = self.prompts.take(asked)
            for batch in decode(
                segmenter.runtime, self.embedding, level, part, segmenter.spec, multimask=multimask
            ):
                owners = np.array(asked)[batch.index]
                candidates = collect(
                    level,
                    batch.logits,
                    batch.iou,
                    batch.origins,
                    owners,
                    self.prompts.first_points()[owners],
                    stability_offset=segmenter.spec.everything.stability_offset,
                )
                for i in owners:
                    found[int(i)].append(candidates.take(candidates.prompts == i))
        return found

    def _escape_windows(self, several: NDArray[np.bool_], found: dict[int, list[Candidates]]) -> None:
        """Decode objects again at half the scale while their best mask is cut by its window."""
        spec = self.segmenter.spec
        if not isinstance(spec.frame, ObjectFrame):
            return
        waiting = {i: parts[-1] for i, parts in found.items() if len(parts) == 1}
        while True:
            scales: dict[int, float] = {}
            for i, candidates in waiting.items():
                scale = escape_scale(candidates, spec.frame, window_size(candidates.level, spec))
                if scale is not None:
                    scales[i] = scale
            if not scales:
                return
            more = self._decode_at(scales, several, [(scale,) for scale in scales.values()])
            waiting = {i: more[i][-1] for i in scales if i in more}
            for i, candidates in waiting.items():
                found[i].append(candidates)

    def _rank(self, parts: list[Candidates]) -> tuple[Mask, ...]:
        """Order the candidates of one object and drop repeated readings."""
        ordered: list[tuple[float, Candidates, int]] = []
        for part in parts:
            doubt = self._misfit(part)
            ordered += [(float(part.iou[k] - doubt[k]), part, k) for k in range(len(part))]
        ordered.sort(key=lambda item: -item[0])
        kept: list[Mask] = []
        for _, part, k in ordered:
            mask = part.mask(k)
            if mask.area and all(mask.iou_with(other) < _SAME_OBJECT for other in kept):
                kept.append(mask)
            if len(kept) == _MOST_CANDIDATES:
                break
        return tuple(kept) or (Mask((0, 0), np.zeros((0, 0), bool), iou=0.0, stability=0.0),)

    def _misfit(self, part: Candidates) -> NDArray[np.float32]:
        """Penalty for candidates that a model cannot judge at this scale: cut, too small or too large."""
        frame = self.segmenter.spec.frame
        if not isinstance(frame, ObjectFrame):
            return np.zeros(len(part), np.float32)
        diameter = part.diameters * np.sqrt(part.level.scale[0] * part.level.scale[1])
        octaves = np.maximum(np.log2(frame.smallest / diameter), np.log2(diameter / frame.largest))
        return np.asarray(0.5 * part.cut + 0.25 * np.maximum(octaves, 0), np.float32)
