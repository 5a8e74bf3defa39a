"""What a run has found so far: handed out with its progress, and chosen from without waiting for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_lightsam.engine.assemble import passing, settle
from napari_lightsam.engine.merge import Pile

if TYPE_CHECKING:
    from napari_lightsam.engine.candidates import Candidates
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.merge import Piece


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What one step of a run found; it is there anyway, so that handing it out costs nothing.

    Attributes
    ----------
    candidates
        Of the step's prompts, at the scale they were asked at.
    config
        Of the run, with thresholds and sizes filled in.
    """

    candidates: Candidates
    config: EverythingConfig


class FirstChoice:
    """Chooses objects as they come: each passes what the run asks for, and most of it is still free.

    The run itself compares all candidates in the end. Where a better one comes later, where tiles meet, and
    where an object is asked for again in a larger window, its result differs.

    Examples
    --------
    >>> from napari_lightsam import EverythingConfig, drain, load_segmenter
    >>> from napari_lightsam.samples import read_sample
    >>> image, steps = read_sample("nuclei_fluorescence")[:128, :128], []
    >>> result = drain(load_segmenter().everything(image, EverythingConfig(object_size=26)), steps.append)
    >>> choice = FirstChoice()
    >>> pieces = [piece for step in steps if step.found is not None for piece in choice.add(step.found)]
    >>> 0 < len(pieces) < 2 * len(result.scores)
    True
    """

    def __init__(self) -> None:
        self._pile = Pile()

    def add(self, found: Found) -> tuple[Piece, ...]:
        """Return the objects that a step adds; the run uses again what is drawn of them here."""
        candidates, config = found.candidates, found.config
        passed = passing(candidates, config)
        passed = passed[~candidates.cut[passed]]  # asked for again, to be shown whole
        before = len(self._pile.pieces)
        settle(self._pile, candidates, config, passed)
        return tuple(self._pile.pieces[before:])
