"""Real microscopy images that come with the package; no model was trained on them."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = {
    "nuclei_fluorescence": "Nuclei, fluorescence",
    "cells_phase_contrast": "Cells, phase contrast, 16 bit",
    "nuclei_tissue_16bit": "Nuclei in tissue, fluorescence, 16 bit",
    "nuclei_histology": "Nuclei, stained histology, RGB",
    "nuclei_brightfield": "Nuclei, bright field",
    "axons_tem": "Axons, electron microscopy",
    "neurites_fibsem_3d": "Neurites, FIB-SEM, 3-D",
}
"""Names and titles, in the order they are shown."""


def read_sample(name: str) -> NDArray[Any]:
    """Return a bundled image: (H, W), (H, W, 3) for colour, (Z, H, W) for the 3-D one.

    Parameters
    ----------
    name
        A key of `SAMPLES`.

    Raises
    ------
    KeyError
        If there is no such sample.

    Examples
    --------
    >>> read_sample("nuclei_fluorescence").shape
    (520, 696)
    """
    import tifffile

    if name not in SAMPLES:
        raise KeyError(f"There is no sample {name!r}; choose one of {', '.join(SAMPLES)}.")
    with resources.as_file(resources.files(__name__) / f"{name}.tif") as path:
        return tifffile.imread(path)
