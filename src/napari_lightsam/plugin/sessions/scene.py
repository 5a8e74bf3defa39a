"""What a model saw when saved objects were made: planes of the image, as they were chosen then."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.plugin.viewer.axes import AxisRole
from napari_lightsam.session import Run
from napari_lightsam.session.picture import read_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.plugin.objects.made import Made
    from napari_lightsam.session import Document, LabelRecord

_PACKAGES = ("torch", "timm", "openvino", "numpy", "napari")


class Scene:
    """The image of a document, its models, and embeddings of its planes.

    Parameters
    ----------
    document
        From `read_document`.
    path
        Its file, for messages.
    load
        Gives the model of a name; called once for each.

    Attributes
    ----------
    differences
        In what the computation differs from the recorded one.

    Raises
    ------
    FileError
        The image is not there, or is another one.
    """

    def __init__(self, document: Document, path: Path, load: Callable[[str], Segmenter]) -> None:
        self.document, self._load = document, load
        self._arrays = [read_pixels(image, path) for image in document.images]
        self._models: dict[str, Segmenter] = {}
        self._kept: tuple[Any, Embedding] | None = None
        self.differences: tuple[str, ...] = ()

    @property
    def roles(self) -> list[str]:
        """What every axis of the image is."""
        image = self.document.image
        ndim = len(image.shape) - bool(image.layer.get("rgb"))
        return [image.axes.get(str(i), AxisRole.UNKNOWN) for i in range(ndim)]

    def model(self, name: str) -> Segmenter:
        """Return a model, loaded once."""
        if name not in self._models:
            self._models[name] = segmenter = self._load(name)
            if name == self.document.settings.get("model", name):
                self._differ(differences(self.document.run, segmenter))
        return self._models[name]

    def model_of(self, how: Made) -> Segmenter:
        """Return the model that an object was made with, and note where its weights are others."""
        segmenter = self.model(how.model)
        then, now = how.weights_hash[:12], segmenter.weights_hash[:12]
        if then and then != now:
            self._differ((f"weights: {then} then, {now} now",))
        return segmenter

    def _differ(self, found: Sequence[str]) -> None:
        self.differences = tuple(dict.fromkeys((*self.differences, *found)))

    def inputs_of(self, how: Made) -> tuple[tuple[int, int | None], ...]:
        """Return the (image, channel) of each input that an object was made with.

        Raises
        ------
        FileError
            The file does not hold them.
        """
        if how.inputs is None:
            return self.document.inputs
        numbers = [image for image, _ in how.inputs]
        if not numbers or not all(isinstance(n, int) and 0 <= n < len(self._arrays) for n in numbers):
            raise FileError("An object was made from an image that the file does not hold.")
        return tuple((int(image), channel) for image, channel in how.inputs)

    def embedding(self, how: Made, record: LabelRecord) -> tuple[Segmenter, Embedding]:
        """Return the model and the embedded plane of an object; the last one is kept."""
        segmenter, inputs = self.model_of(how), self.inputs_of(how)
        key = (how.model, how.object_size, how.plane, inputs, id(record))
        if self._kept is None or self._kept[0] != key:
            plane, rgb = self.plane(inputs, how.plane, record)
            self._kept = (key, segmenter.embed(plane, object_size=how.object_size, rgb=rgb))
        return segmenter, self._kept[1]

    def plane(
        self,
        inputs: Sequence[tuple[int, int | None]],
        place: Sequence[int | None],
        record: LabelRecord,
        axis: int | None = None,
    ) -> tuple[Any, bool]:
        """Return the pixels that the model saw, as `PlaneRequest` does, and whether they are colour.

        Parameters
        ----------
        inputs
            (image, channel) of each.
        place
            Where the plane lies in the Labels array.
        record
            The Labels layer.
        axis
            Data axis of which all planes are wanted, or None.
        """
        document = self.document
        parts = [
            np.asarray(self._arrays[source[0]][image_index(document, source, place, record, axis)])
            for source in inputs
        ]
        return (parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)), is_colour(document, inputs)


def is_colour(document: Document, inputs: Sequence[tuple[int, int | None]]) -> bool:
    """Tell whether the model saw the colours of one image."""
    number, channel = inputs[0]
    colours = bool(document.images[number].layer.get("rgb")) and channel is None
    return len(inputs) == 1 and colours


def region_of(record: LabelRecord) -> list[int] | None:
    """Return the (y0, x0, y1, x1) of the image that labels of a work region cover; None for all of it.

    Raises
    ------
    FileError
        It is none.
    """
    region = record.note.get("region")
    if region is None:
        return None
    y0, x0, y1, x1 = _four(region)
    if record.role == "everything" and record.data.shape[-2:] != (y1 - y0, x1 - x0):
        return None  # what its run was about, on a plane that the labels cover
    return [y0, x0, y1, x1]


def part_of(record: LabelRecord) -> list[int]:
    """Return the (y0, x0, y1, x1) that a run of everything mode was about, in pixels of the labels.

    Raises
    ------
    FileError
        It is none.
    """
    part = record.note.get("part", record.note.get("region"))  # early files: of runs on whole planes
    return _four(part)


def _four(region: Any) -> list[int]:
    if not (isinstance(region, list) and len(region) == 4 and all(type(side) is int for side in region)):
        raise FileError(f"The region of a Labels layer must be four whole numbers; it is {region!r}.")
    return region


def image_index(
    document: Document,
    source: tuple[int, int | None],
    place: Sequence[int | None],
    record: LabelRecord,
    axis: int | None = None,
) -> tuple[int | slice, ...]:
    """Return which part of an image array the model saw, for a plane of a Labels array.

    Parameters
    ----------
    document
        What the file holds.
    source
        One of the inputs: number of the image, and channel.
    place
        Where the plane lies in the Labels array.
    record
        The Labels layer.
    axis
        Data axis of which all planes are wanted, or None.
    """
    number, channel = source
    image = document.images[number]
    rgb = bool(image.layer.get("rgb"))
    ndim = len(image.shape) - rgb
    offsets = _offsets(image.layer, record, ndim)
    index: list[int | slice] = []
    sides = _sides(record)
    for i in range(ndim):
        at = i - (ndim - record.data.ndim)
        step = place[at] if at >= 0 else 0
        if i == axis:
            index.append(slice(None))
        elif step is None:
            index.append(next(sides))
        elif image.axes.get(str(i)) == AxisRole.CHANNEL:
            index.append(channel or 0)
        else:
            index.append(step + offsets[i])
    if rgb:
        index.append(slice(None) if channel is None else channel)
    return tuple(index)


def _sides(record: LabelRecord) -> Iterator[slice]:
    """Yield the rows, then the columns that labels cover."""
    region = region_of(record)
    if region is None:
        return iter((slice(None), slice(None)))
    y0, x0, y1, x1 = region
    return iter((slice(y0, y1), slice(x0, x1)))


def _offsets(layer: Mapping[str, Any], record: LabelRecord, ndim: int) -> list[int]:
    """Return where a Labels layer of one plane begins, in pixels of the image."""
    skipped = ndim - record.data.ndim
    scale = layer.get("scale") or [1.0] * ndim
    start = layer.get("translate") or [0.0] * ndim
    begun = [*start[:skipped], *(record.layer.get("translate") or start[skipped:])]
    return [round((b - a) / s) if s else 0 for a, b, s in zip(start, begun, scale, strict=True)]


def differences(run: Run, segmenter: Segmenter) -> tuple[str, ...]:
    """Say in what a loaded model differs from the one that the work was made with."""
    here = here_and_now()
    now = {
        "device": segmenter.device,
        "precision": segmenter.precision,
        "runtime": segmenter.runtime_name,
        "weights": segmenter.weights_hash[:12],
    }
    then = {
        "device": run.device,
        "precision": run.precision,
        "runtime": run.runtime,
        "weights": run.weights_hash[:12],
    }
    computing = {"torch", run.runtime} & set(run.packages)
    now |= {name: here.packages.get(name, "none") for name in sorted(computing)}
    then |= {name: run.packages[name] for name in sorted(computing)}
    if run.device == "cpu":
        now |= {"threads": str(here.threads), "processor": here.processor}
        then |= {"threads": str(run.threads or ""), "processor": run.processor}
    return tuple(
        f"{key}: {then[key]} then, {now[key]} now" for key in now if then[key] and then[key] != now[key]
    )


def here_and_now() -> Run:
    """Return what computes here: versions, threads and the kind of processor; no model is named."""
    import sys

    from napari_lightsam import __version__

    packages = dict(_versions())
    torch = sys.modules.get("torch")  # never imported here: it takes seconds
    if torch is None:
        return Run(version=__version__, packages=packages)
    return Run(
        version=__version__,
        packages=packages,
        threads=int(torch.get_num_threads()),
        processor=str(torch.backends.cpu.get_cpu_capability()),
    )


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
