"""Everything mode: prompts placed by a sampler or given, their masks filtered and merged into labels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.assemble import (
    Segmentation,
    fill_defaults,
    fix_thresholds,
    to_hierarchy,
    to_labels,
    usual_thresholds,
)
from napari_lightsam.engine.candidates import Candidates, concatenate
from napari_lightsam.engine.config import EverythingConfig, Mode, config_from
from napari_lightsam.engine.given import as_segmenter
from napari_lightsam.engine.kept import keep_ids
from napari_lightsam.engine.larger import ask_larger, ask_proposals
from napari_lightsam.engine.merge import check_out
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.engine.proposals import Proposals, as_proposals
from napari_lightsam.engine.samplers import SAMPLERS, level_of
from napari_lightsam.engine.size import estimate_size
from napari_lightsam.engine.walk import Walk
from napari_lightsam.model.spec import ObjectFrame

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator

    import numpy as np
    from numpy.typing import NDArray

    from napari_lightsam.engine.image import ArrayLike
    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.merge import LabelArray
    from napari_lightsam.engine.proposals import Source
    from napari_lightsam.engine.segmenter import Segmenter
    from napari_lightsam.engine.walk import Steps

__all__ = [
    "EverythingConfig",
    "Segmentation",
    "estimate_size",
    "run_everything",
    "segment_everything",
    "to_hierarchy",
    "to_labels",
]

MANY_OBJECTS = 5000
"""More objects than this in one plane are probably texture."""


def segment_everything(
    image: ArrayLike,
    *,
    mode: Mode = "auto",
    model: str | os.PathLike[str] | Segmenter = "lightsam",
    object_size: float | None = None,
    rgb: bool | None = None,
    proposals: Source | None = None,
    out: LabelArray | None = None,
    **settings: Any,
) -> NDArray[np.int32]:
    """Segment every object of an image plane.

    Parameters
    ----------
    image
        (H, W), or (H, W, C) with one to four samples; any real dtype.
    mode
        `object-aware` (prompts where objects probably are), `hierarchical` (fewer prompts where objects
        were found already), `grid`, or `auto`: object-aware for models that follow object size, else
        hierarchical.
    model
        A name, the path of a checkpoint, or a loaded `Segmenter`, which saves loading it again.
    object_size
        Typical diameter `2 * sqrt(area / pi)` in pixels; estimated when not given.
    rgb
        The last axis is colour. None: only for uint8 with 3 or 4 samples.
    proposals
        Where objects are, instead of a mode: points (N, 2), boxes (N, 4), a label image whose objects are
        refined and keep their ids, `Proposals`, or a function of the plane that returns one of these.
    out
        Integer array (H, W) to write the labels into, such as a zarr array or memory map larger than memory.
    **settings
        Other fields of `EverythingConfig`.

    Returns
    -------
    int32 (H, W)
        Or `out`. 0 is background, objects are 1..n, or have the ids of their proposals. Blank images give
        no objects.

    Raises
    ------
    ImageError
        If the image is empty, complex, of objects, or not one plane.
    ConfigError
        If a setting is unknown or out of range, or `out` does not fit.
    PromptError
        If proposals are of no accepted form or do not fit the image.

    Examples
    --------
    >>> from napari_lightsam.samples import read_sample
    >>> labels = segment_everything(read_sample("nuclei_fluorescence")[:256, :256], object_size=26)
    >>> labels.shape, labels.dtype
    ((256, 256), dtype('int32'))
    """
    config = config_from({"mode": mode, "object_size": object_size, **settings})
    segmenter = as_segmenter(model)
    return drain(segmenter.everything(image, config, rgb=rgb, proposals=proposals, out=out)).labels


def run_everything(
    segmenter: Segmenter,
    embedding: Embedding,
    config: EverythingConfig,
    *,
    proposals: Source | None = None,
    stop: Callable[[], bool] | None = None,
    out: LabelArray | None = None,
) -> Generator[Progress, None, Segmentation]:
    """Segment everything in an embedding; see `Segmenter.everything`."""
    check_out(out, embedding.shape)
    asked = None if proposals is None else as_proposals(proposals, embedding.plane.data)
    given = config.object_size or embedding.object_size
    size = given
    if isinstance(segmenter.spec.frame, ObjectFrame):
        if size is None and asked is not None:
            size = asked.object_size
        if size is None:
            yield Progress("estimating the object size", 0, 1)
            size = estimate_size(segmenter, embedding)
        embedding = replace(embedding, object_size=size)
    else:
        size = None
    ids = None if asked is None else asked.ids
    config = fill_defaults(config if ids is None else _lenient(config), segmenter.spec, size)
    usual = usual_thresholds(segmenter.spec)
    fixed = fix_thresholds(config, usual)
    level = segmenter.level(embedding)
    if asked is None:
        level = level_of(config.mode, level, segmenter.spec)
    if config.published and asked is None:
        from napari_lightsam.engine.published import run_published

        return (yield from run_published(segmenter, embedding, level, fixed, out))
    walk = Walk(segmenter, embedding, fixed, stop)
    parts: list[Candidates] = []
    if not embedding.plane.blank and (size is not None or level.fixed):
        parts = yield from _ask(walk, level, asked)
    candidates = concatenate(parts, level, usual)
    yield Progress("drawing the masks", 0, 1)
    missing: tuple[int, ...] = ()
    if ids is None:
        labels, scores = to_labels(candidates, config, out=out)
    else:
        labels, scores, ids, missing = keep_ids(candidates, config, ids, out)
    return Segmentation(
        labels,
        scores,
        size,
        size is not None and given is None,
        config,
        candidates,
        _advice(len(scores), embedding, segmenter, size) or _missing_advice(missing),
        complete=not walk.stopped,
        ids=ids,
        missing=missing,
    )


def _ask(walk: Walk, level: Level, proposals: Proposals | None) -> Steps:
    """Ask for given proposals, or where the mode's sampler says; then for what windows cut."""
    if proposals is not None:
        parts = yield from ask_proposals(walk, level, proposals)
    else:
        parts = yield from walk.through(level, level.block_list(), SAMPLERS[walk.config.mode])
    parts = yield from ask_larger(walk, level, parts)
    yield Progress("segmenting", walk.asked, walk.asked)
    return parts


def _lenient(config: EverythingConfig) -> EverythingConfig:
    """Keep the best mask of each object that is known to be there, unless thresholds are asked for."""
    names = ("iou_threshold", "stability_threshold", "min_size")
    lenient: dict[str, Any] = {name: 0.0 for name in names if getattr(config, name) is None}
    return replace(config, **lenient)


def _advice(count: int, embedding: Embedding, segmenter: Segmenter, size: float | None) -> str:
    """Name the likely cause of no or very many objects, and what to change."""
    if 0 < count <= MANY_OBJECTS:
        return ""
    spec = segmenter.spec
    if count > MANY_OBJECTS:
        return (
            f"{count} objects were found, more than is likely. Give a larger object size"
            + (f" than {size:.0f} px" if size else "")
            + ", or choose another channel: texture and noise are taken for objects."
        )
    if embedding.plane.blank:
        what = "the plane is constant" if embedding.plane.std == 0 else "nothing stands out from the noise"
        return f"No objects were found: {what}. Choose another channel or plane, or check exposure and focus."
    seen = f" {spec.title} was trained on {spec.trained_on}." if spec.trained_on else ""
    return (
        "No objects were found. Give the object size in pixels, check the channel and the focus, outline "
        f"objects by clicks, or try a copy of the image with its contrast inverted.{seen}"
    )


def _missing_advice(missing: tuple[int, ...]) -> str:
    """Name the objects that were proposed but not found."""
    if not missing:
        return ""
    some = ", ".join(str(i) for i in missing[:10]) + (", ..." if len(missing) > 10 else "")
    return (
        f"No mask was found for {len(missing)} of the given objects ({some}). Look at them in the image, "
        "lower the thresholds, or prompt them by clicks."
    )
