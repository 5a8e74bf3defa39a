"""What the preview shows: candidates of every prompted object, and which of them is chosen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_lightsam.engine.masks import Mask
    from napari_lightsam.plugin.axes import Plane
    from napari_lightsam.plugin.prompts import ObjectPrompt


@dataclass(slots=True)
class Answer:
    """What the preview shows: the candidates of every prompted object, and which of them is chosen."""

    plane: Plane | None = None
    prompts: tuple[ObjectPrompt, ...] = ()
    candidates: tuple[tuple[Mask, ...], ...] = ()
    chosen: list[int] = field(default_factory=list)
    active: int = 0

    @property
    def mine(self) -> tuple[Mask, ...]:
        """Candidates of the object that was prompted last."""
        return self.candidates[self.active] if self.candidates else ()

    def masks(self) -> list[Mask]:
        """Return the chosen candidate of every object."""
        return [c[i] for c, i in zip(self.candidates, self.chosen, strict=True) if c]
