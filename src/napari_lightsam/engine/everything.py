"""Everything mode: prompts on a lattice, filtered and merged into one label image.

References
----------
Kirillov et al., *Segment Anything*, arXiv 2304.02643, appendix B (grid mode). Shu et al., *TinySAM*, arXiv
2312.13789, section 3.3 (hierarchical mode). Zhang et al., *MobileSAMv2*, arXiv 2312.09579 (object-aware
prompts; the proposals here are our own).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.engine.candidates import Candidates, concatenate
from napari_lightsam.engine.config import EverythingConfig, Mode, config_from
from napari_lightsam.engine.merge import paint
from napari_lightsam.engine.points import decode_points, lattice
from napari_lightsam.engine.progress import Progress, drain
from napari_lightsam.engine.seeds import propose_points
from napari_lightsam.engine.select import plausible, suppress
from napari_lightsam.engine.size import estimate_size
from napari_lightsam.model.spec import LOGIT_STRIDE, ObjectFrame

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray

    from napari_lightsam.engine.image import ArrayLike
    from napari_lightsam.engine.level import Embedding, Level
    from napari_lightsam.engine.segmenter import Segmenter

__all__ = ["EverythingConfig", "Segmentation", "estimate_size", "run_everything", "segment_everything"]

MANY_OBJECTS = 5000
"""More objects than this in one plane are probably texture."""

_COARSE = 4  # TinySAM: a quarter of the points per side


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """The result of everything mode.

    Attributes
    ----------
    labels
        int32 (H, W), ids 1..n, 0 for background.
    scores
        float32 (n,), predicted IoU of label i + 1.
    object_size
        Diameter in pixels that decided the scale; None for models with a fixed frame.
    object_size_estimated
        The size was estimated from the image rather than given.
    config
        The settings with the model's defaults filled in.
    candidates
        All candidates that passed the thresholds, for other choices without a new run.
    advice
        Empty, or a likely cause of a strange result and what to change.
    """

    labels: NDArray[np.int32]
    scores: NDArray[np.float32]
    object_size: float | None
    object_size_estimated: bool
    config: EverythingConfig
    candidates: Candidates
    advice: str = ""


def segment_everything(
    image: ArrayLike,
    *,
    mode: Mode = "auto",
    model: str | Segmenter = "lightsam",
    object_size: float | None = None,
    rgb: bool | None = None,
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
        A name, or a loaded `Segmenter`, which saves loading it again.
    object_size
        Typical diameter `2 * sqrt(area / pi)` in pixels; estimated when not given.
    rgb
        The last axis is colour. None: only for uint8 with 3 or 4 samples.
    **settings
        Other fields of `EverythingConfig`.

    Returns
    -------
    int32 (H, W)
        0 is background, objects are 1..n. Blank images give no objects.

    Raises
    ------
    ImageError
        If the image is empty, complex, of objects, or not one plane.
    ConfigError
        If a setting is unknown or out of range.

    Examples
    --------
    >>> from napari_lightsam.samples import read_sample
    >>> labels = segment_everything(read_sample("nuclei_fluorescence")[:256, :256], object_size=26)
    >>> labels.shape, labels.dtype
    ((256, 256), dtype('int32'))
    """
    from napari_lightsam.engine.segmenter import load_segmenter

    config = config_from({"mode": mode, "object_size": object_size, **settings})
    segmenter = load_segmenter(model) if isinstance(model, str) else model
    return drain(segmenter.everything(image, config, rgb=rgb)).labels


def run_everything(
    segmenter: Segmenter, embedding: Embedding, config: EverythingConfig
) -> Generator[Progress, None, Segmentation]:
    """Segment everything in an embedding; see `Segmenter.everything`."""
    given = config.object_size or embedding.object_size
    size = given
    if isinstance(segmenter.spec.frame, ObjectFrame):
        if size is None:
            yield Progress("estimating the object size", 0, 1)
            size = estimate_size(segmenter, embedding)
        embedding = replace(embedding, object_size=size)
    else:
        size = None
    config = _filled(config, segmenter, size)
    level = segmenter.level(embedding)
    if config.published:
        from napari_lightsam.engine.published import run_published

        return (yield from run_published(segmenter, embedding, level, config))
    parts: list[Candidates] = []
    if not embedding.plane.blank and (size is not None or level.fixed):
        parts = yield from _SAMPLERS[config.mode](segmenter, embedding, level, config)
    candidates = concatenate(parts, level)
    yield Progress("drawing the masks", 0, 1)
    labels, scores = to_labels(candidates, config)
    advice = _advice(len(scores), embedding, segmenter, size)
    return Segmentation(labels, scores, size, size is not None and given is None, config, candidates, advice)


def _filled(config: EverythingConfig, segmenter: Segmenter, size: float | None) -> EverythingConfig:
    """Fill in the model's own defaults."""
    own = segmenter.spec.everything
    names = ("iou_threshold", "stability_threshold", "point_spacing", "points_per_side", "confident_logit")
    missing: dict[str, Any] = {name: getattr(own, name) for name in names if getattr(config, name) is None}
    if config.mode == "auto":
        missing["mode"] = "object-aware" if isinstance(segmenter.spec.frame, ObjectFrame) else "hierarchical"
    least = config.min_size if config.min_size is not None else (size or 0) / 3
    return replace(config, object_size=size, min_size=least, **missing)


def to_labels(
    candidates: Candidates, config: EverythingConfig
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Filter and merge candidates; milliseconds, so that thresholds can be moved without a new run.

    Parameters
    ----------
    candidates
        Of one run.
    config
        With thresholds filled in, as in `Segmentation.config`.

    Returns
    -------
    labels, scores
        int32 (H, W) and float32 (n,).
    """
    min_size = config.min_size or 0.0
    passed = plausible(
        candidates,
        iou_threshold=config.iou_threshold or 0.0,
        stability_threshold=config.stability_threshold or 0.0,
        min_size=min_size,
        max_size=np.inf if config.max_size is None else config.max_size,
        keep_border=config.keep_border,
    )
    good = candidates.take(passed)
    chosen = suppress(good, good.iou * good.stability, config.overlap)
    masks = (good.mask(int(i)) for i in chosen)
    return paint(masks, candidates.level.shape, min_area=np.pi / 4 * min_size**2 / 2)


def _lattice(level: Level, config: EverythingConfig) -> NDArray[np.float64]:
    """Return the prompt lattice (rows, columns, 2) in image pixels."""
    if level.fixed:
        return lattice(level, max(level.frame) / float(config.points_per_side or 1))
    return lattice(level, float(config.point_spacing or 1))


def _grid(
    segmenter: Segmenter, embedding: Embedding, level: Level, config: EverythingConfig
) -> Generator[Progress, None, list[Candidates]]:
    points = _lattice(level, config).reshape(-1, 2)
    return (yield from _ask(segmenter, embedding, level, config, points, 0, len(points)))


def _hierarchical(
    segmenter: Segmenter, embedding: Embedding, level: Level, config: EverythingConfig
) -> Generator[Progress, None, list[Candidates]]:
    points = _lattice(level, config)
    height, width = int(points.shape[0]), int(points.shape[1])
    coarse = np.zeros((height, width), bool)
    y, x = min(_COARSE // 2, (height - 1) // 2), min(_COARSE // 2, (width - 1) // 2)
    coarse[y::_COARSE, x::_COARSE] = True
    total = points[..., 0].size
    found = yield from _ask(segmenter, embedding, level, config, points[coarse], 0, total)
    settled = np.zeros(level.logit_shape, bool)
    for part in found:
        good = plausible(
            part,
            iou_threshold=config.iou_threshold or 0.0,
            stability_threshold=config.stability_threshold or 0.0,
            max_size=np.inf if config.max_size is None else config.max_size,
        )
        mark_settled(settled, part.take(good), float(config.confident_logit or 0.0))
    rest = points[~coarse]
    at = np.floor((rest + 0.5) * np.array(level.scale) / LOGIT_STRIDE).astype(int)
    at = np.minimum(at, np.array(settled.shape) - 1)
    rest = rest[~settled[at[:, 0], at[:, 1]]]
    done = int(coarse.sum())
    found += yield from _ask(segmenter, embedding, level, config, rest, done, done + len(rest))
    return found


def _object_aware(
    segmenter: Segmenter, embedding: Embedding, level: Level, config: EverythingConfig
) -> Generator[Progress, None, list[Candidates]]:
    yield Progress("looking for objects", 0, 0)
    points = propose_points(embedding, level, segmenter.spec.frame)
    return (yield from _ask(segmenter, embedding, level, config, points, 0, len(points)))


_SAMPLERS = {"object-aware": _object_aware, "hierarchical": _hierarchical, "grid": _grid}


def mark_settled(settled: NDArray[np.bool_], candidates: Candidates, confident: float) -> None:
    """Mark logits that need no further prompt, in place.

    TinySAM takes logits above one threshold; dim objects never reach it, so each mask's threshold is
    at most the median of its own positive logits.
    """
    for origin, crop in zip(candidates.origins, candidates.logits, strict=True):
        positive = crop[crop > 0]
        if len(positive):
            y, x = origin
            target = settled[y : y + crop.shape[0], x : x + crop.shape[1]]
            sure = crop >= min(confident, float(np.median(positive)))
            target |= sure[: target.shape[0], : target.shape[1]]


def _ask(
    segmenter: Segmenter,
    embedding: Embedding,
    level: Level,
    config: EverythingConfig,
    points: NDArray[np.float64],
    done: int,
    total: int,
) -> Generator[Progress, None, list[Candidates]]:
    """Decode points, reporting progress, and keep what passes the thresholds."""
    parts: list[Candidates] = []
    yield Progress("encoding the image" if done == 0 else "looking closer", done, total)
    for asked, found in decode_points(
        segmenter,
        embedding,
        level,
        points,
        min_iou=config.iou_threshold or 0.0,
        min_stability=config.stability_threshold or 0.0,
        batch=config.batch,
    ):
        parts.append(found)
        done += asked
        yield Progress("segmenting", done, total)
    return parts


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
        "No objects were found. Give the object size in pixels (draw a box around one object or measure it), "
        "check the channel and the focus, try the image with inverted contrast, or prompt objects by "
        f"clicks.{seen}"
    )
