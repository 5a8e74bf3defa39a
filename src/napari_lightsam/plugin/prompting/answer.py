"""What the preview shows: candidates of every prompted object, and which of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_lightsam.plugin.objects.made import Made

if TYPE_CHECKING:
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.inference import Settings
    from napari_lightsam.plugin.prompting.prompts import ObjectPrompt
    from napari_lightsam.plugin.viewer.axes import Plane


@dataclass(slots=True)
class Answer:
    """What the preview shows: the candidates of every prompted object, and which of them is chosen.

    Attributes
    ----------
    plane
        Where; None while there is nothing.
    prompts
        What the user said about each object.
    candidates
        Of each object, best first; none where nothing was found.
    chosen
        Which candidate of each object is shown.
    active
        The object that was prompted last.
    settings
        What the model was asked with.
    seen
        What the model saw; see `Made.inputs`.
    weights_hash
        SHA-256 of the model's weights.
    same
        The saved object that the only outline is another version of, or None.
    """

    plane: Plane | None = None
    prompts: tuple[ObjectPrompt, ...] = ()
    candidates: tuple[tuple[Mask, ...], ...] = ()
    chosen: list[int] = field(default_factory=list)
    active: int = 0
    settings: Settings | None = None
    seen: tuple[tuple[str, int | None], ...] | None = None
    weights_hash: str = ""
    same: int | None = None

    @property
    def mine(self) -> tuple[Mask, ...]:
        """Candidates of the object that was prompted last."""
        return self.candidates[self.active] if self.candidates else ()

    @property
    def current(self) -> Mask | None:
        """The outline on display of the object that was prompted last."""
        mine = self.mine
        return mine[self.chosen[self.active]] if mine else None

    def masks(self) -> list[Mask]:
        """Return the chosen candidate of every object."""
        return [c[i] for c, i in zip(self.candidates, self.chosen, strict=True) if c]

    def made(self) -> list[Made]:
        """Return how the objects of `masks` came to be."""
        asked = self.settings
        return [
            Made(
                "prompt",
                score=float(found[i].iou),
                prompt=prompt,
                candidate=i,
                model="" if asked is None else asked.model,
                object_size=None if asked is None else asked.object_size,
                weights_hash=self.weights_hash,
                inputs=self.seen,
            )
            for prompt, found, i in zip(self.prompts, self.candidates, self.chosen, strict=True)
            if found
        ]
