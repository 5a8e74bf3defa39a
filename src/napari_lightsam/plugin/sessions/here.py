"""Work in a file whose layers are open already, as when the tool was closed and opened again. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.session import read_document

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from napari.layers import Labels

    from napari_lightsam.plugin.sessions.shelf import Shelf
    from napari_lightsam.session import Document, LabelRecord


@dataclass(frozen=True, slots=True, eq=False)
class Here:
    """A Labels layer that is open: its pixels, and whether it is noted how its objects were made."""

    layer: Hashable
    data: Any
    is_noted: bool

    @classmethod
    def of(cls, layer: Labels) -> Here:
        """Describe a layer."""
        note = layers.ours(layer)
        return cls(layer.unique_id, layer.data, bool(note.get("made") or note.get("run")))

    def holds(self, record: LabelRecord) -> bool:
        """Tell whether all that a file says of a layer is in this one; looks at all pixels."""
        return (self.is_noted or not record.objects) and np.array_equal(self.data, record.data)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Work on an image that is not known here.

    Attributes
    ----------
    shelf
        Where it was kept by itself; None: it is in the file that was asked for.
    file
        The file.
    document, numbered
        What it holds, and the open layers by their number in it, where all of them are open.
    """

    shelf: Shelf | None
    file: Path
    document: Document | None
    numbered: dict[int, Hashable]


def open_here(
    path: Path, here: Sequence[Here], *, known: bool
) -> tuple[Document | None, dict[int, Hashable]]:
    """Read work whose layers are all open, and tell which they are; None where one is not.

    Work without layers is that of this viewer where the image is `known` to be worked on in its file.
    """
    try:
        document = read_document(path)
    except FileError:  # whoever goes on with it is told
        return None, {}
    numbered: dict[int, Hashable] = {}
    for number, record in enumerate(document.labels):
        same = (one.layer for one in here if one.holds(record) and one.layer not in numbered.values())
        found = next(same, None)
        if found is None:
            return None, {}
        numbered[number] = found
    return (document if numbered or known else None), numbered
