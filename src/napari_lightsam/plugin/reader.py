"""Opens `*.lightsam` files, and outlines of objects from ImageJ and QuPath as Labels layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_lightsam.session import Session

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Return the reader of a `*.lightsam` file, of ImageJ ROIs or of GeoJSON, or None for everything else.

    Several files are offered together only when they are to be stacked, which has no meaning here. A zip file
    without ROIs is left to others.
    """
    if not isinstance(path, str) or os.path.isdir(path):
        return None
    suffix = Path(path).suffix.casefold()
    if suffix == ".lightsam":
        return read_lightsam
    if suffix in (".roi", ".geojson"):
        return read_outlines
    if suffix == ".zip":
        from napari_lightsam.formats.roi import holds_rois

        return read_outlines if holds_rois(path) else None
    return None


def read_outlines(path: str) -> list[LayerData]:
    """Read ImageJ ROIs or GeoJSON as Labels layers.

    Parameters
    ----------
    path
        A `.zip` or `.roi` of ImageJ, or `.geojson` as QuPath writes it.

    Returns
    -------
    list of LayerData
        An integer Labels layer with scale, units and axis labels, as far as the file tells them; where cells
        have nuclei, another one of these, with the ids of their cells.

    Raises
    ------
    FileError
        The file cannot be read or holds no areas.
    """
    from napari_lightsam.formats.convert import find_stem, read_objects

    objects = read_objects(path)
    stem = find_stem(Path(path))
    layers = [(objects.labels, stem)]
    if objects.nuclei is not None:
        layers.append((objects.nuclei, f"{stem} nuclei"))
    return [(labels, {"name": name, **_spatial(objects)}, "labels") for labels, name in layers]


def read_lightsam(path: str) -> list[LayerData]:
    """Read a `*.lightsam` file: saved work as it was, or settings by which the image is segmented now.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of LayerData
        An Image layer and Labels layers with scale, units and axis labels.

    Raises
    ------
    FileError
        The file or its image cannot be read, the image is another one than was annotated, or a plane of it
        must be chosen in the file.
    """
    from napari_lightsam.session import Document, read_lightsam

    found = read_lightsam(path)
    if isinstance(found, Document):
        from napari_lightsam.plugin.sessions.layers import opened_layers

        return opened_layers(found, Path(path))
    return layers_of(found, origin=str(path))


def layers_of(session: Session, *, origin: str = "") -> list[LayerData]:
    """Segment the image of a session and describe both layers.

    Parameters
    ----------
    session
        Image and settings.
    origin
        The file the session came from, noted in the layers' metadata.
    """
    import dask.array as da
    import numpy as np

    from napari_lightsam.formats.images import read_image
    from napari_lightsam.plugin.viewer.names import name_of

    image = read_image(session.image)
    choice = session.selection
    selection = image.select(choice.channel, choice.z, choice.time)
    plane, rgb = image.plane(choice.channel, choice.z, choice.time)
    labels, note = _segment(plane, rgb, session)
    spatial = _spatial(image)
    note |= {"version": 1, "file": origin, "image_file": str(session.image)}
    name = Path(session.image).stem
    colour = "S" in image.axes
    picture = image.data
    if not isinstance(picture, np.ndarray):
        picture = da.from_array(picture)  # of a zarr folder, which is read as it is looked at
    if colour and picture.shape[-1] == 4:
        picture = picture[..., :3]
    roles = _answers(selection.roles, image.axes)
    image_layer = (
        picture,
        {
            "name": name,
            "rgb": colour,
            "metadata": {"napari-lightsam": {"role": "image", "version": 1, "axes": roles}},
            **spatial,
        },
        "image",
    )
    full, place = _whole(labels, selection, image.shape[: len(image.axes) - colour], spatial)
    labels_layer = (
        full,
        {
            "name": name_of("Everything", name),
            "metadata": {
                "napari-lightsam": {"role": "everything", "largest": int(labels.max(initial=0)), **note}
            },
            **place,
        },
        "labels",
    )
    return [image_layer, labels_layer]


def _segment(plane: Any, rgb: bool, session: Session) -> tuple[Any, dict[str, Any]]:
    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.progress import drain
    from napari_lightsam.plugin.loading import load
    from napari_lightsam.plugin.messages import report_warning

    segmenter = load(session.model)
    config = EverythingConfig(mode=session.mode, object_size=session.object_size)
    result = drain(segmenter.everything(plane, config, rgb=rgb))
    if result.advice:
        report_warning(result.advice)
    note = {
        "model": segmenter.spec.name,
        "weights_hash": segmenter.weights_hash,
        "mode": session.mode,
        "object_size": result.object_size,
        "object_size_estimated": result.object_size_estimated,
    }
    return result.labels, note


def _spatial(image: Any) -> dict[str, Any]:
    """Return scale, units and axis labels of an image file or of objects, in micrometres where calibrated."""
    letters = [a for a in image.axes if a != "S"]
    names = {"Z": "z", "Y": "y", "X": "x", "T": "t", "C": "c"}
    labels = tuple(names.get(a, f"axis {i}") for i, a in enumerate(letters))
    if image.pixel_size is None:
        return {"axis_labels": labels}
    y, x = image.pixel_size
    sizes = {"Y": y, "X": x, "Z": image.z_step or 1.0}
    lengths = {"Y", "X"} | ({"Z"} if image.z_step else set())
    return {
        "axis_labels": labels,
        "scale": tuple(sizes.get(a, 1.0) for a in letters),
        "units": tuple("um" if a in lengths else "pixel" for a in letters),
    }


def _answers(roles: Sequence[str], axes: str) -> dict[int, str]:
    """Keep what the file's settings said about axes of unknown meaning."""
    words = {"C": "channel", "Z": "depth", "T": "time"}
    return {
        i: words[role]
        for i, (role, axis) in enumerate(zip(roles, axes, strict=True))
        if axis == "Q" and role in words
    }


def _whole(
    labels: Any, selection: Any, shape: Sequence[int], spatial: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Put the labels of a plane into an array that lies on the whole image.

    Channel axes and depth maxima get length one and are stretched over all of their steps, so that the
    objects show wherever the slider stands.
    """
    import numpy as np

    scale = list(spatial.get("scale", (1.0,) * len(shape)))
    translate = [0.0] * len(shape)
    size, index = list(shape), list(selection.index[: len(shape)])
    for axis, (role, step) in enumerate(zip(selection.roles, selection.index, strict=False)):
        if role in ("C", "1") or (role == "Z" and isinstance(step, slice)):
            translate[axis] = scale[axis] * (shape[axis] - 1) / 2
            scale[axis] *= shape[axis]
            size[axis], index[axis] = 1, 0
    full = np.zeros(size, np.int32)
    if selection.roles.index("Y") > selection.roles.index("X"):
        labels = labels.T  # the plane was turned upright to be segmented
    full[tuple(index)] = labels
    return full, {**spatial, "scale": tuple(scale), "translate": tuple(translate)}
