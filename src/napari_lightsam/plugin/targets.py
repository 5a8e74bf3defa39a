"""Which Labels layer the objects of each image go into, for as long as both exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Targets:
    """Remembers a choice for every image by ids alone, so that no layer is kept alive.

    Examples
    --------
    >>> chosen = Targets()
    >>> chosen.keep("image", "labels")
    >>> chosen.of("image"), chosen.of("another image")
    ('labels', None)
    >>> chosen.forget("labels")
    >>> chosen.of("image") is None
    True
    """

    def __init__(self) -> None:
        self._chosen: dict[Hashable, Hashable] = {}

    def keep(self, image: Hashable | None, labels: Hashable | None) -> None:
        """Note what was chosen for an image; None for either means that nothing was."""
        if image is not None and labels is not None:
            self._chosen[image] = labels
        else:
            self._chosen.pop(image, None)

    def of(self, image: Hashable | None) -> Hashable | None:
        """Return what was chosen for an image; None where nothing was."""
        return self._chosen.get(image)

    def forget(self, layer: Hashable) -> None:
        """Forget a layer that was deleted, image or labels."""
        self._chosen = {key: value for key, value in self._chosen.items() if layer not in (key, value)}
