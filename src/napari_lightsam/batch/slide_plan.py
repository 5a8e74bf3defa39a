"""What is fixed for a whole slide before its first block, and what tells it from any other slide."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import napari_lightsam
from napari_lightsam.batch.scale import delay
from napari_lightsam.batch.slide_blocks import SlidePlan
from napari_lightsam.batch.slide_record import NORMALISED, recall_plane, recall_size
from napari_lightsam.batch.slide_source import Forgiving, describe_state
from napari_lightsam.batch.worker_model import WorkerModel
from napari_lightsam.engine.folders import expanded
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.engine.registry import find_model
from napari_lightsam.engine.stopping import Stopped, stoppable
from napari_lightsam.errors import ConfigError, LightSamError, WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lightsam.batch.lock import Hold
    from napari_lightsam.batch.scale import Pool
    from napari_lightsam.batch.settings import BatchSettings
    from napari_lightsam.batch.slide_place import SlidePlace
    from napari_lightsam.engine.image import ArrayLike, Plane
    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.progress import Work

Planned = tuple[SlidePlan, "Level", tuple[str, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """What is to be segmented, and how.

    Attributes
    ----------
    settings, block
        Settings and layout.
    place
        Where the slide is written; absolute, for workers may be in another folder.
    plane
        The image.
    earlier
        What earlier runs noted: normalisation and object size are measured once a slide.
    hold
        Of this run on its output.
    """

    settings: BatchSettings
    block: int
    place: SlidePlace
    plane: ArrayLike
    earlier: Mapping[str, Any]
    hold: Hold


def make_plan(worker: WorkerModel, order: Order) -> Work[Planned]:
    """Fix what holds for the whole slide; a generator of `Progress`.

    Returns
    -------
    plan
        For the workers.
    level
        The image as the model looks at it.
    notes
        What a user should know.
    about
        All that decides the result, by name, and what else is worth recording.

    Raises
    ------
    ConfigError
        The model looks at whole images alone.
    ImageError
        Nothing of the image can be read, or it is no plane.
    """
    from napari_lightsam.engine.assemble import fill_defaults, fix_thresholds, usual_thresholds
    from napari_lightsam.engine.image import prepare_plane
    from napari_lightsam.engine.level import Embedding
    from napari_lightsam.engine.size import estimate_size
    from napari_lightsam.model.spec import ObjectFrame

    segmenter, plane, place = worker.load(), order.plane, order.place
    spec = segmenter.spec
    if not isinstance(spec.frame, ObjectFrame):
        raise ConfigError(
            f"{spec.title} looks at whole images in a frame of fixed size, so that blocks of one mean "
            "nothing to it. Use a model that follows object size, such as lightsam."
        )
    forgiving = Forgiving(plane)
    prepared = recall_plane(forgiving, order.earlier)
    if prepared is None:
        yield Progress("measuring brightness", 0, 0)
        prepared = prepare_plane(forgiving, rgb=getattr(plane, "rgb", None))
    size = order.settings.config.object_size or recall_size(order.earlier)
    if size is None:
        yield Progress("estimating the object size", 0, 1)
        size = estimate_size(segmenter, Embedding(prepared, None, worker.weights_hash))
    config = fill_defaults(order.settings.config, spec, size)
    config = fix_thresholds(config, usual_thresholds(spec))
    about = _describe(worker, order, prepared, size, spec.name)
    identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    notes = getattr(plane, "notes", ())
    if forgiving.missing:
        notes = (*notes, "brightness was measured without parts that cannot be read")
    plan = SlidePlan(
        replace(prepared, data=plane), config, worker, order.block, place.out, place.parts, identity,
        order.hold,
    )  # fmt: skip
    return plan, plan.look(segmenter)[1], notes, about


def make_plan_elsewhere(pool: Pool, model: str, threads: int | None, order: Order) -> Work[Planned]:
    """Let a worker make the plan, so that the process that starts a run never holds a model.

    Parameters
    ----------
    pool
        Of worker processes.
    model, threads
        Name or path, and with how many threads it computes there.
    order
        As for `make_plan`.

    Raises
    ------
    LightSamError
        As `make_plan`; or the model cannot be loaded there; or each worker that was at it died.
    """
    task = delay(_plan_here, f"layout-{order.hold.token}", _absolute(model), threads, order)
    outcome: Any = None
    with closing(pool.run({"layout": task}, order.hold)) as events:
        for event in events:
            outcome = outcome if event is None else event[1]
            yield Progress("laying out the blocks", 0, 0)
    if isinstance(outcome, LightSamError):
        raise outcome
    order.hold.check(order.place.out)
    if outcome is None:
        raise order.hold.unseen()
    planned: Planned = outcome
    return planned


def _absolute(model: str) -> str:
    """Name a model so that it is the same in whatever folder a worker was started."""
    try:
        find_model(model)
    except WeightsError:  # a file, or nothing, which the worker says
        path = expanded(model).absolute()
        return str(path) if os.path.exists(path) else model
    return model


def _plan_here(model: str, threads: int | None, order: Order) -> Planned | LightSamError | None:
    """Make a plan; returns errors, whose messages schedulers would change. None when the run was stopped."""
    try:
        with stoppable(order.hold.lost):
            return drain(make_plan(WorkerModel.find(model, order.settings, threads), order))
    except LightSamError as error:
        return error
    except Stopped:
        return None


def _describe(
    worker: WorkerModel, order: Order, prepared: Plane, size: float | None, model: str
) -> dict[str, Any]:
    """All that decides the labels of a slide, in values that JSON knows."""
    settings, plane = order.settings, order.plane
    return {
        "version": napari_lightsam.__version__,
        "image": str(getattr(plane, "path", type(plane).__name__)),
        "source": describe_state(plane),
        "pixel_size": settings.pixel_size or getattr(plane, "pixel_size", None),
        "shape": list(plane.shape),
        "dtype": str(plane.dtype),
        **{name: getattr(prepared, name) for name in NORMALISED},
        "limits": [list(pair) for pair in prepared.limits],
        "settings": settings.to_plain(),
        "object_size": size,
        "model": model,
        "model_sha256": worker.weights_hash,
        "precision": worker.precision,
        "runtime": worker.runtime,
        "block": order.block,
    }
