"""Writing into a Labels layer as one step on napari's own undo timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.layers import Labels
    from numpy.typing import NDArray


def write_step(labels: Labels, index: tuple[NDArray[Any], ...], values: NDArray[Any] | int) -> None:
    """Write pixels of a layer as one undoable step.

    Parameters
    ----------
    labels
        A layer whose array is in memory.
    index
        Whole numbers (N,) along every axis of its array.
    values
        (N,) what is written there, or one value for all.
    """
    show(labels)
    with labels.block_history():
        labels.data_setitem(index, values)


def show(labels: Labels) -> None:
    """Show a layer that is about to be written: napari cannot update one that it never sliced."""
    if not labels.visible:  # napari draws all of a layer anew whenever this is set
        labels.visible = True
