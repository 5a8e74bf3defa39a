"""Sample data: real images that come with the package and that no model was trained on."""

from __future__ import annotations

from typing import Any

LayerDataList = list[tuple[Any, dict[str, Any], str]]

# Isotropic 10 nm, as its source says; the other images come without a calibration.
_NEURITES = {"scale": (0.01, 0.01, 0.01), "units": ("um", "um", "um"), "axis_labels": ("z", "y", "x")}


def _layer(name: str, **keywords: Any) -> LayerDataList:
    from napari_lightsam.samples import SAMPLES, read_sample

    plane = {} if "axis_labels" in keywords else {"axis_labels": ("y", "x")}
    metadata = {"napari-lightsam": {"role": "image", "version": 1, "sample": name}}
    return [(read_sample(name), {"name": SAMPLES[name], "metadata": metadata, **plane, **keywords}, "image")]


def nuclei_fluorescence() -> LayerDataList:
    """Nuclei in fluorescence, 520 x 696, 8 bit."""
    return _layer("nuclei_fluorescence")


def nuclei_tissue_16bit() -> LayerDataList:
    """Nuclei in a tissue section, 512 x 512, 16 bit."""
    return _layer("nuclei_tissue_16bit")


def nuclei_histology() -> LayerDataList:
    """Nuclei in a stained section, 256 x 320, RGB."""
    return _layer("nuclei_histology", rgb=True)


def nuclei_brightfield() -> LayerDataList:
    """Nuclei in bright field, 1024 x 1024, 8 bit."""
    return _layer("nuclei_brightfield")


def cells_phase_contrast() -> LayerDataList:
    """Adherent cells in phase contrast, 1022 x 1024, 16 bit."""
    return _layer("cells_phase_contrast")


def axons_tem() -> LayerDataList:
    """Myelinated axons in transmission electron microscopy, 600 x 600, 8 bit."""
    return _layer("axons_tem")


def neurites_fibsem_3d() -> LayerDataList:
    """Neurites in a focused-ion-beam electron microscopy volume, 25 x 250 x 250 at 10 nm, 8 bit."""
    return _layer("neurites_fibsem_3d", **_NEURITES)
