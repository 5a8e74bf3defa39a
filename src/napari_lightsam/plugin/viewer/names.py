"""What our layers are called: what tells them apart comes first, as lists and choices cut long names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari.components import ViewerModel


def name_of(what: str, layer: str, word: str = "in") -> str:
    """Return the name of a layer that was made from another one.

    No sign in it stops a name from being that of a file, as napari saves several layers under theirs.

    Examples
    --------
    >>> name_of("Everything", "cells")
    'Everything in cells'
    >>> name_of("Int32 copy", "cells", "of")
    'Int32 copy of cells'
    """
    return f"{what} {word} {layer}"


def unused_name(viewer: ViewerModel, what: str, layer: str, word: str = "in") -> str:
    """Return such a name that no layer has; napari would put its number at the end, where it is cut off.

    Parameters
    ----------
    viewer
        Where the layer goes.
    what
        Is in the layer.
    layer
        Name of the image that it lies on, or of what it was made from.
    word
        Between the two.
    """
    taken = {layer.name for layer in viewer.layers}
    name, number = name_of(what, layer, word), 2
    while name in taken:
        name, number = name_of(f"{what} {number}", layer, word), number + 1
    return name
