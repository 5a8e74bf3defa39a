"""Steps on the undo timeline that napari keeps of each Labels layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

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


def go(labels: Labels, act: Callable[[], object]) -> bool:
    """Take a step of a layer back, or repeat one, and tell whether there was one.

    Parameters
    ----------
    labels
        The layer.
    act
        Its `undo` or `redo`: napari has it drawn anew where there is a step, and does nothing where not.
    """
    was_visible, was_step = labels.visible, False

    def note(event: Any) -> None:
        nonlocal was_step
        was_step = True

    show(labels)
    emitters = labels.events.set_data, labels.events.reload  # the latter where napari draws later
    for emitter in emitters:
        emitter.connect(note)
    try:
        act()
    finally:
        for emitter in emitters:
            emitter.disconnect(note)
    if not was_step and not was_visible:
        labels.visible = False
    return was_step


def show(labels: Labels) -> None:
    """Show a layer that is about to be written: napari cannot update one that it never sliced."""
    if not labels.visible:  # napari draws all of a layer anew whenever this is set
        labels.visible = True
