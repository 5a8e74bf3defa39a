"""Work on an image: its objects as pixels, how each was made, and all that is needed to make them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.session.picture import ImageRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Document", "ImageRecord", "LabelRecord", "Run", "areas_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the model ran on when the work was saved.

    Attributes
    ----------
    version
        Of napari-lightsam.
    model, weights_hash
        Name in the registry, and SHA-256 of the weights; empty where no model was used.
    device, precision, runtime
        As in `load_segmenter`; empty where no model was used.
    threads
        Of the processor; 0 where no model was used.
    processor
        Instructions that PyTorch uses, as "AVX2"; results may differ from those of others. Empty: not told.
    packages
        Versions of what computes: torch, openvino, numpy.
    """

    version: str = ""
    model: str = ""
    weights_hash: str = ""
    device: str = ""
    precision: str = ""
    runtime: str = ""
    threads: int = 0
    processor: str = ""
    packages: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelRecord:
    """One Labels layer.

    Attributes
    ----------
    name
        Of the layer.
    data
        Labels; 0 is background.
    layer
        Where it lies: scale, translate, units and so on.
    note
        What was noted with it: role, largest label ever used, model, settings of a run.
    objects
        By label, how each was made (`Made.to_plain`); `edited` says that its pixels were changed since.
        Labels without an entry were painted or came from elsewhere.
    features
        Columns of the layer's table.
    quality
        Result of a quality check, or None.
    """

    name: str
    data: NDArray[Any]
    layer: dict[str, Any] = field(default_factory=dict)
    note: dict[str, Any] = field(default_factory=dict)
    objects: dict[int, dict[str, Any]] = field(default_factory=dict)
    features: dict[str, list[Any]] = field(default_factory=dict)
    quality: dict[str, Any] | None = None

    @property
    def role(self) -> str:
        """What the layer is for: "objects", "everything", or empty for layers of others."""
        return str(self.note.get("role", ""))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """Saved work; see `docs/sessions.md`.

    Attributes
    ----------
    images
        The image that was annotated, then other images that were mapped to the model's inputs.
    inputs
        (image, channel) of each of the model's inputs; no channel means all colours, or the only channel.
    settings
        `model` and `object_size` (pixels, or None) that were chosen when the work was saved.
    pixel_size_um
        Micrometres a pixel, or None.
    run
        What the model ran on.
    normalization
        How values became the model's input: "data" (by the model's own rule, from the data of each plane).
    labels
        The Labels layers, from bottom to top.
    target
        Which of them objects were saved into, or None.
    prompts
        Points and boxes that were not saved as objects yet, by object.
    created
        When the work was saved, ISO 8601 with time zone.

    Examples
    --------
    >>> import numpy as np
    >>> image = ImageRecord(name="cells", shape=(4, 5), dtype="uint8", pixels=np.zeros((4, 5), "uint8"))
    >>> labels = LabelRecord(name="objects", data=np.eye(4, 5, dtype="int32"))
    >>> document = Document(images=(image,), labels=(labels,))
    >>> document.image.name, int(document.labels[0].data.max())
    ('cells', 1)
    """

    images: tuple[ImageRecord, ...]
    inputs: tuple[tuple[int, int | None], ...] = ((0, None),)
    settings: dict[str, Any] = field(default_factory=dict)
    pixel_size_um: float | None = None
    run: Run = field(default_factory=Run)
    normalization: str = "data"
    labels: tuple[LabelRecord, ...] = ()
    target: int | None = None
    prompts: tuple[dict[str, Any], ...] = ()
    created: str = ""

    @property
    def image(self) -> ImageRecord:
        """The image that was annotated."""
        return self.images[0]

    @property
    def main(self) -> LabelRecord | None:
        """The Labels layer that objects were saved into, else the topmost one; None without any."""
        if not self.labels:
            return None
        return self.labels[-1 if self.target is None else self.target]


def areas_of(labels: NDArray[Any]) -> dict[int, int]:
    """Return the number of pixels of every label.

    Examples
    --------
    >>> areas_of(np.array([[0, 3], [3, 900_000_000]])), areas_of(np.array([[-1, 2]]))
    ({3: 2, 900000000: 1}, {-1: 1, 2: 1})
    """
    flat = labels.reshape(-1)
    if flat.size and int(flat.min()) >= 0 and int(flat.max()) <= max(flat.size, 1_000_000):
        counts = np.bincount(flat.astype(np.intp, copy=False))
        values = np.flatnonzero(counts)
        return {int(value): int(counts[value]) for value in values if value}
    values, found = np.unique(flat, return_counts=True)  # a few ids that are huge, or below zero
    return {int(value): int(count) for value, count in zip(values, found, strict=True) if value}
