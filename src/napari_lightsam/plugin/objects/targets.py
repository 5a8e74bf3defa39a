"""Which Labels layer the objects of each image go into, for as long as both exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_lightsam.plugin.viewer import layers

if TYPE_CHECKING:
    from collections.abc import Hashable

    from napari.layers import Image

    from napari_lightsam.plugin.objects.results import Results


class Follower:
    """Tells when another choice of a Labels layer should go along with where objects are saved.

    That is when objects are saved somewhere else than before; what the user chose meanwhile stays until then.
    """

    def __init__(self) -> None:
        self._seen: Hashable | None = None

    def should_go_to(self, target: Hashable | None) -> bool:
        """Tell whether the target is a new one; asked once, it is not new any more."""
        new = target is not None and target != self._seen
        self._seen = target
        return new


class Targets:
    """Remembers the target of every image by ids alone, so that no layer is kept alive.

    Parameters
    ----------
    results
        Their target is that of the image that is used.

    Attributes
    ----------
    results
        As given.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._image: Hashable | None = None
        self._others: dict[Hashable, Hashable | None] = {}

    def use_image(self, image: Image | None) -> None:
        """Keep the target of the former image, and bring that of another one back."""
        if self._image is not None:
            self._others[self._image] = self.results.target
        self._image = None if image is None else image.unique_id
        known = image is None or self._image in self._others
        self.results.target = self._others.pop(self._image, None) if known else self._made_before(image)

    def _made_before(self, image: Image) -> Hashable | None:
        """Return the uppermost Labels layer that was made of an image before anybody took note of it."""
        found = [
            labels.unique_id
            for labels in layers.user_labels(self.results.viewer)
            if layers.ours(labels).get("image") == str(image.unique_id)
        ]
        return found[-1] if found else None

    def set(self, image: Hashable, labels: Hashable) -> None:
        """Let the objects of an image go into a layer, now or when the image is used again."""
        if image == self._image:
            self.results.target = labels
        else:
            self._others[image] = labels

    def forget(self, layer: Hashable) -> None:
        """Forget a layer that was deleted, image or labels."""
        if layer == self.results.target:
            self.results.target = None
        self._others = {key: value for key, value in self._others.items() if layer not in (key, value)}
