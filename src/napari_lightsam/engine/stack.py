"""A stack segmented slice by slice, objects linked: one normalisation and one object size for all planes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.engine.given import as_array, as_segmenter
from napari_lightsam.engine.image import ArrayLike, Limits, Plane, prepare_plane
from napari_lightsam.engine.level import BlockCache, Embedding
from napari_lightsam.engine.linking import PlaneLinker
from napari_lightsam.engine.progress import Progress, relay
from napari_lightsam.engine.size import estimate_size
from napari_lightsam.errors import ConfigError, ImageError
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    import pandas as pd
    from numpy.typing import NDArray

    from napari_lightsam.engine.everything import Segmentation
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter

SAMPLED = 8
"""Normalisation is measured on at most this many planes."""

_SIZED = 3  # planes, those with most structure, on which the object size is estimated
_HELD = 2**26  # bytes of a plane that is read once and held; of larger ones parts are read when needed


@dataclass(frozen=True, slots=True, eq=False)
class StackSegmentation:
    """The result of a stack.

    Attributes
    ----------
    labels
        int32 of the stack's shape without colours, or the `out` that was given; 0 for background. Linked:
        ids 1..n over all planes; else 1..n in each plane.
    table
        Linked: a row per object, as `PlaneLinker.table` says. Else a row per object and plane: `plane`,
        `label`, `area_px`, `score`.
    linked
        Objects go on from plane to plane.
    object_size
        Diameter in pixels that decided the scale; None for models with a fixed frame, or in a blank stack.
    object_size_estimated
        The size was estimated from the stack rather than given.
    config
        The settings.
    planes_done
        Planes that were segmented to their end.
    complete
        False when the run was stopped: the planes until then are here, the others are background, or as
        they were in `out`.
    advice
        Empty, or a likely cause of a strange result and what to change.
    """

    labels: Any
    table: pd.DataFrame
    linked: bool
    object_size: float | None
    object_size_estimated: bool
    config: EverythingConfig
    planes_done: int
    complete: bool = True
    advice: str = ""


def segment_stack(
    stack: ArrayLike,
    *,
    axis: int = 0,
    config: EverythingConfig | None = None,
    model: str | os.PathLike[str] | Segmenter = "lightsam",
    link: bool = True,
    rgb: bool | None = None,
    out: Any = None,
    stop: Callable[[], bool] | None = None,
) -> Generator[Progress, None, StackSegmentation]:
    """Segment a stack slice by slice and link its objects; a generator that returns a `StackSegmentation`.

    This is no 3-D model: each plane is segmented by itself, and objects of neighbouring planes that overlap
    become one.

    Parameters
    ----------
    stack
        (Z, H, W), or (Z, H, W, C); any real dtype. Read plane by plane, lazily.
    axis
        The axis of the planes.
    config
        Settings of everything mode; None means the defaults. Without an object size, one is estimated for
        all planes.
    model
        A name, the path of a checkpoint, or a loaded `Segmenter`.
    link
        Along depth. False for time frames, whose objects move: each is then numbered by itself.
    rgb
        The last axis is colour. None: only for uint8 with 3 or 4 samples.
    out
        Array-like of whole numbers with the stack's shape without colours, on disk for instance, that each
        plane's labels are written to when they are done; None: a new array.
    stop
        Asked before each plane and each batch of prompts; once it says True, the run ends with what it has.

    Returns
    -------
    StackSegmentation

    Raises
    ------
    ImageError
        If the array is no stack of planes, or a plane cannot be read; the message names it.
    ConfigError
        If `out` does not fit, or its dtype cannot hold the number of objects.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_lightsam.engine.progress import drain
    >>> from napari_lightsam.samples import read_sample
    >>> plane = read_sample("nuclei_fluorescence")[200:328, 300:428]
    >>> result = drain(segment_stack(np.stack([plane] * 2), config=EverythingConfig(object_size=26)))
    >>> result.labels.shape, bool((result.table["n_planes"] == 2).all())
    ((2, 128, 128), True)
    """
    config = config or EverythingConfig()
    planes = Planes.of(stack, axis, rgb)
    _check_out(out, planes.shape)
    segmenter = as_segmenter(model)
    yield Progress("looking at the stack", 0, len(planes))
    shared = _Shared.of(planes)
    size = config.object_size
    if not isinstance(segmenter.spec.frame, ObjectFrame):
        size = None
    elif size is None:
        yield Progress("estimating the object size", 0, 1)
        size = shared.estimate_size(segmenter)
    labels = np.zeros(planes.shape, np.int32) if out is None else out
    settings = replace(config, object_size=size or config.object_size)
    run = _Run(segmenter, planes, shared, settings, stop, PlaneLinker() if link else None, labels)
    complete = yield from run.through()
    size = run.config.object_size if isinstance(segmenter.spec.frame, ObjectFrame) else None
    return StackSegmentation(
        labels,
        run.table(),
        link,
        size,
        size is not None and config.object_size is None,
        run.config,
        run.done,
        complete,
        "" if run.found else run.advice,
    )


def estimate_stack_size(
    stack: ArrayLike, segmenter: Segmenter, *, axis: int = 0, rgb: bool | None = None
) -> float | None:
    """Estimate the object size of a stack as `segment_stack` does where none is given.

    Parameters
    ----------
    stack, axis, rgb
        As in `segment_stack`.
    segmenter
        The model.

    Returns
    -------
    diameter
        In pixels; None for models with a fixed frame, or where nothing was found.

    Raises
    ------
    ImageError
        As in `segment_stack`.
    """
    return _Shared.of(Planes.of(stack, axis, rgb)).estimate_size(segmenter)


class _PlaneView:
    """A plane of which only the parts asked for are read; `stack[0]` of a zarr array reads all of it."""

    def __init__(self, stack: ArrayLike, axis: int, number: int) -> None:
        self._stack, self._axis, self._number = stack, axis, number
        self.shape = tuple(int(n) for k, n in enumerate(stack.shape) if k != axis)
        self.dtype = np.dtype(stack.dtype)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key += (slice(None),) * (2 - len(key))
        return np.asanyarray(self._stack[(*key[: self._axis], self._number, *key[self._axis :])])


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """The planes of a stack, read one at a time."""

    stack: ArrayLike
    axis: int
    rgb: bool | None
    shape: tuple[int, ...]

    @classmethod
    def of(cls, stack: ArrayLike, axis: int, rgb: bool | None) -> Planes:
        """Check that an array is a stack."""
        stack = as_array(stack)
        shape = tuple(int(n) for n in stack.shape)
        if len(shape) not in (3, 4) or (rgb and len(shape) == 3):
            raise ImageError(
                "A stack has three axes, (planes, height, width), and a fourth where it has channels or "
                f"colours; this array is {shape}. Choose a channel and a time point of it first."
            )
        if not -len(shape) <= axis < len(shape) or axis % len(shape) > 2:
            raise ImageError(
                f"Axis {axis} of an array of shape {shape} does not count planes; give 0, 1 or 2."
            )
        if min(shape) == 0:
            raise ImageError(f"The stack is empty: its shape is {shape}.")
        return cls(stack, axis % len(shape), rgb, shape[:3])

    def __len__(self) -> int:
        return self.shape[self.axis]

    def index(self, number: int) -> tuple[int | slice, ...]:
        """Return where a plane is."""
        return (*(slice(None),) * self.axis, number)

    def read(self, number: int, limits: Limits | None = None) -> Plane:
        """Return a plane with its own normalisation, or with given limits."""
        view: ArrayLike = _PlaneView(self.stack, self.axis, number)
        try:
            if math.prod(view.shape) * view.dtype.itemsize <= _HELD:
                view = view[:, :]
            plane = prepare_plane(view, rgb=self.rgb, limits=limits)
        except ImageError as error:
            raise self.named(number, error) from error
        except Exception as error:
            raise ImageError(
                f"Plane {number} along axis {self.axis} could not be read ({type(error).__name__}: {error}). "
                "Check the file or array that it comes from."
            ) from error
        return replace(plane, chosen=False)

    def named(self, number: int, error: ImageError) -> ImageError:
        """Say which plane an error is about."""
        return ImageError(f"Plane {number} along axis {self.axis}: {error}")


@dataclass(frozen=True, slots=True, eq=False)
class _Shared:
    """The normalisation of all planes, and the planes that it was measured on."""

    limits: Limits
    mean: float
    std: float
    sample: tuple[Plane, ...]

    @classmethod
    def of(cls, planes: Planes) -> _Shared:
        """Take the median plane's limits, as a plane takes those of its median tile with signal."""
        n = min(SAMPLED, len(planes))
        chosen = [int((k + 0.5) * len(planes) / n) for k in range(n)]
        own = [planes.read(number) for number in chosen]
        seen = [plane.limits for plane in own if not plane.blank] or [plane.limits for plane in own]
        limits = tuple((float(low), float(high)) for low, high in np.median(seen, axis=0))
        if any(low >= high for low, high in limits):  # nothing but one value everywhere
            return cls(limits, own[0].mean, own[0].std, tuple(own))
        sample = [planes.read(number, limits) for number in chosen]
        told = [plane for plane in sample if not plane.blank] or sample
        mean = float(np.mean([plane.mean for plane in told]))
        square = float(np.mean([plane.std**2 + plane.mean**2 for plane in told]))
        std = told[0].std if len(told) == 1 else math.sqrt(max(0.0, square - mean**2))
        return cls(limits, mean, std, tuple(sample))

    def normalise(self, planes: Planes, number: int) -> Plane:
        """Read a plane with the normalisation of the stack."""
        if any(low >= high for low, high in self.limits):
            return planes.read(number)
        return replace(planes.read(number, self.limits), mean=self.mean, std=self.std)

    def estimate_size(self, segmenter: Segmenter) -> float | None:
        """Estimate the object size on the planes with most structure."""
        plain = [plane for plane in self.sample if not plane.blank]
        richest = sorted(plain, key=lambda plane: -plane.contrast())[:_SIZED]
        found = [
            size
            for plane in richest
            if (size := estimate_size(segmenter, Embedding(plane, None, segmenter.weights_hash))) is not None
        ]
        return float(median(found)) if found else None


@dataclass(slots=True, eq=False)
class _Run:
    """A stack on its way through a model."""

    segmenter: Segmenter
    planes: Planes
    shared: _Shared
    config: EverythingConfig
    stop: Callable[[], bool] | None
    linker: PlaneLinker | None
    labels: Any
    rows: list[pd.DataFrame] = field(default_factory=list)
    advice: str = ""
    found: int = 0
    done: int = 0

    def through(self) -> Work[bool]:
        """Segment plane by plane; returns whether all were."""
        for number in range(len(self.planes)):
            if self.stop is not None and self.stop():
                return False
            result = yield from self._segment(number)
            self._keep(number, result)
            if not result.complete:
                return False
            self.done += 1
        return True

    def _segment(self, number: int) -> Work[Segmentation]:
        """Segment one plane; progress counts planes."""
        stage, total = f"plane {number + 1} of {len(self.planes)}", len(self.planes)
        yield Progress(stage, number, total)
        plane = self.shared.normalise(self.planes, number)
        # Each plane is asked once: blocks need not be kept.
        embedding = Embedding(
            plane, self.config.object_size, self.segmenter.weights_hash, cache=BlockCache(kept=1)
        )
        work = self.segmenter.everything(embedding, self.config, stop=self.stop)
        try:
            return (yield from relay(work, lambda step: Progress(stage, number, total, step.found)))
        except ImageError as error:
            raise self.planes.named(number, error) from error

    def _keep(self, number: int, result: Segmentation) -> None:
        """Write a plane's labels and remember what they are."""
        labels = result.labels
        self.found += len(result.scores)
        if self.config.object_size is None:  # the sampled planes showed nothing: this one decides
            self.config = replace(self.config, object_size=result.object_size)
        self.advice = self.advice or result.advice
        if self.linker is not None:
            labels = self.linker.add(labels, result.scores)
        else:
            self.rows.append(_describe(number, labels, result.scores))
        dtype = np.dtype(self.labels.dtype)
        if labels.max(initial=0) > np.iinfo(dtype).max:
            raise ConfigError(
                f"`out` is {dtype} and cannot hold object {labels.max()}; give an array of int32 or uint32."
            )
        self.labels[self.planes.index(number)] = labels.astype(dtype, copy=False)

    def table(self) -> pd.DataFrame:
        """Describe what was found."""
        import pandas as pd

        if self.linker is not None:
            return self.linker.table()
        return pd.concat(
            self.rows or [_describe(0, np.zeros((1, 1), np.int32), np.zeros(0))], ignore_index=True
        )


def _describe(number: int, labels: NDArray[np.int32], scores: NDArray[Any]) -> pd.DataFrame:
    import pandas as pd

    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    return pd.DataFrame({"plane": number, "label": ids, "area_px": areas, "score": scores[ids - 1]})


def _check_out(out: Any, shape: tuple[int, ...]) -> None:
    if out is None:
        return
    given = tuple(getattr(out, "shape", ()))
    kind = np.dtype(getattr(out, "dtype", object)).kind
    if given != shape or kind not in "iu":
        raise ConfigError(
            f"`out` takes the labels of the stack: an array of whole numbers of shape {shape}; got "
            f"{type(out).__name__} of shape {given}."
        )
