"""What is measured: one function a row, in the order of the table."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_lightsam.engine.everything import to_labels
from napari_lightsam.train.metrics import innermost_point

from . import fresh, scenes
from .bench import Bench, judge, segment
from .report import COLUMNS, Figure, Row, Target, written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .scenes import Scene
    from .timing import Measured, Timing

_EXTRAPOLATED = (
    "Plain baseline: the encoder and one of its {n} equal batches of 64 points were timed; the figure is "
    "encoder + {n} batches, without the final suppression."
)
_NO_PLAIN = (
    "Not run by the plain baseline: its frame of 1024 pixels and its 1,024 points cannot show such an image."
)
_MICRO_SAM = {"encoder": "0.27 s", "point": "28 ms", "grid": "18.8 s", "object-aware": "1.23 s (AIS)"}


def _figures(measured: Mapping[str, Measured], plain: Timing | None = None) -> dict[str, Figure]:
    figures = {} if plain is None else {"baseline": Figure.of(plain)}
    return figures | {name: Figure.of(measured[name].timing) for name in COLUMNS}


def encoder_1024(bench: Bench) -> Row:
    """Encode one frame of 1024 x 1024."""
    frame = bench.generator.prepare(scenes.cells_1024().image)[0].numpy()
    plain = {k: v for k, v in bench.plain_jobs(scenes.cells_1024()).items() if k == "encoder"}
    measured = bench.measure(bench.both(lambda s: s.runtime.encode(frame)), plain)
    return Row(
        "encoder_1024",
        "encoder, 1024 x 1024",
        _figures(measured, bench.plain["encoder"]),
        target=Target(ratio=8),
        elsewhere=_MICRO_SAM["encoder"],
    )


def _prompt_row(bench: Bench, key: str, title: str, n: int, *, boxes: bool, **texts: Any) -> Row:
    scene = scenes.cells_1024()
    points, corners = pick_prompts(scene, n)
    ours = {"boxes": corners} if boxes else {"points": points[:, None]}
    embeddings = {
        name: segmenter.embed(scene.image, object_size=scene.object_size)
        for name, segmenter in bench.segmenters.items()
    }
    jobs = {
        name: partial(segmenter.predict, embeddings[name], **ours)
        for name, segmenter in bench.segmenters.items()
    }
    xy = torch.from_numpy(points[:, ::-1].copy())
    xyxy = torch.from_numpy(corners[:, [1, 0, 3, 2]].astype(float))
    shape = (scene.image.shape[0], scene.image.shape[1])
    tokens, generator = bench.plain_tokens, bench.generator
    theirs = {"boxes": xyxy} if boxes else {"points": xy}
    measured = bench.measure(jobs, {key: lambda: generator.predict(tokens, shape, **theirs)[0] > 0})
    return Row(key, title, _figures(measured, bench.plain[key]), **texts)


def pick_prompts(scene: Scene, n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the innermost points (n, 2) and boxes (n, 4) of n objects spread over a scene."""
    ids = np.unique(scene.labels[scene.labels > 0])
    points, boxes = [], []
    for label in ids[np.linspace(0, len(ids) - 1, n).astype(int)]:
        inside = scene.labels == label
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        boxes.append((rows[0], columns[0], rows[-1] + 1, columns[-1] + 1))
        row, column = innermost_point(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        points.append((row + rows[0], column + columns[0]))
    return np.array(points, float), np.array(boxes)


def one_point(bench: Bench) -> Row:
    """Answer a click on a cached embedding, masks drawn."""
    texts: dict[str, Any] = {"target": Target(20, 0.01), "elsewhere": _MICRO_SAM["point"]}
    return _prompt_row(bench, "one_point", "one point, cached embedding", 1, boxes=False, **texts)


def one_box(bench: Bench) -> Row:
    """Answer a box on a cached embedding, mask drawn."""
    return _prompt_row(bench, "one_box", "one box, cached embedding", 1, boxes=True)


def points_64(bench: Bench) -> Row:
    """Answer 64 objects' clicks in one call."""
    return _prompt_row(bench, "points_64", "64 points, cached embedding", 64, boxes=False)


def _everything_row(
    bench: Bench, key: str, title: str, scene: Scene, *, plain: bool = True, **options: Any
) -> Row:
    settings = options.pop("settings", {})
    steps = bench.plain_jobs(scene) if plain else {}
    measured = bench.measure(bench.both(lambda s: segment(s, scene, **settings)), steps)
    quality = {name: judge(scene, measured[name].result.labels) for name in COLUMNS}
    note = _EXTRAPOLATED.format(n=bench.generator.settings.batches) if plain else _NO_PLAIN
    figures = _figures(measured, bench.plain_everything(scene) if plain else None)
    title = f"{title}: {scene.describe()}"
    return Row(key, title, figures, quality=quality, note=note, **options)


def everything_1024(bench: Bench) -> Row:
    """Segment everything, object-aware, the default."""
    return _everything_row(
        bench,
        "everything_1024",
        "everything, object-aware",
        scenes.cells_1024(),
        settings={"mode": "object-aware"},
        target=Target(200, 0.6),
        elsewhere=_MICRO_SAM["object-aware"],
    )


def everything_1024_hierarchical(bench: Bench) -> Row:
    """Segment everything, coarse to fine."""
    key, mode = "everything_1024_hierarchical", "hierarchical"
    scene = scenes.cells_1024()
    return _everything_row(bench, key, "everything, hierarchical", scene, settings={"mode": mode})


def everything_1024_grid(bench: Bench) -> Row:
    """Segment everything from a full lattice."""
    key, scene = "everything_1024_grid", scenes.cells_1024()
    options: dict[str, Any] = {"settings": {"mode": "grid"}, "elsewhere": _MICRO_SAM["grid"]}
    return _everything_row(bench, key, "everything, grid", scene, **options)


def everything_1024_estimated(bench: Bench) -> Row:
    """Segment everything when nobody gives the object size."""
    key, scene = "everything_1024_estimated", scenes.cells_1024()
    title = "everything, object-aware, size estimated"
    return _everything_row(bench, key, title, scene, settings={"estimate": True})


def everything_256(bench: Bench) -> Row:
    """Segment a small, crowded image."""
    return _everything_row(
        bench, "everything_256", "everything, small image", scenes.crowd_256(), target=Target(most=0.15)
    )


def refilter(bench: Bench) -> Row:
    """Move a threshold: labels from stored candidates."""
    scene, jobs, counts = scenes.cells_1024(), {}, {}
    for name, segmenter in bench.segmenters.items():
        usual = segment(segmenter, scene).config
        kept = segment(segmenter, scene, iou_threshold=0.0, stability_threshold=0.0).candidates
        counts[name] = len(kept)
        jobs[name] = partial(to_labels, kept, usual)
    measured = bench.measure(jobs)
    return Row(
        "refilter",
        f"new thresholds on {counts['best']} stored candidates",
        _figures(measured),
        target=Target(most=0.05),
        extra={"candidates": counts["best"]},
    )


def field_2048(bench: Bench) -> Row:
    """Segment a large field of small nuclei."""
    scene = scenes.field_2048()
    target = Target(most=4)
    return _everything_row(bench, "field_2048", "everything, field", scene, plain=False, target=target)


def _large(bench: Bench, side: int) -> Row:
    scene = scenes.large(side)
    row = _everything_row(_repeating(bench, 1), f"large_{side}", "everything, tiled", scene, plain=False)
    per_mpx = row.figures["best"].value / (side**2 / 2**20)
    return replace(row, title=f"{row.title}, {per_mpx:.3g} s per Mpx", extra={"seconds_per_mpx": per_mpx})


def _repeating(bench: Bench, repeat: int) -> Bench:
    """Return a bench with the same contestants that takes another number of samples."""
    other = Bench(repeat, bench.runtime)
    other.__dict__ |= {k: v for k, v in bench.__dict__.items() if k != "repeat"}
    return other


def large_4096(bench: Bench) -> Row:
    """Segment a plane of 4096 x 4096, once."""
    return _large(bench, 4096)


def large_8192(bench: Bench) -> Row:
    """Segment a plane of 8192 x 8192, once."""
    return _large(bench, 8192)


def memory_everything(bench: Bench) -> Row:
    """Peak memory of everything mode, each in a process of its own."""
    values = {
        "baseline": fresh.memory_of("plain", "float32", None),
        "best": fresh.memory_of("everything", "auto", bench.runtime),
        "float32": fresh.memory_of("everything", "float32", bench.runtime),
    }
    loaded = fresh.memory_of("load", "auto", bench.runtime)
    figures = {name: Figure(value) for name, value in values.items() if value is not None}
    note, extra = "Whole processes, libraries and model included.", {}
    if loaded is not None and len(figures) == 3:
        plain, ours = (figures[name].value - loaded for name in ("baseline", "best"))
        extra = {"only_loaded_mib": loaded, "above_loaded_ratio": plain / max(ours, 1.0)}
        note = (
            f"Whole processes. Libraries and model alone take {written(loaded, 'MiB')}; above that, the "
            f"baseline takes {extra['above_loaded_ratio']:.3g} times as much."
        )
    title = "peak memory, everything, 1024 x 1024"
    return Row(
        "memory_everything", title, figures, unit="MiB", target=Target(ratio=4), note=note, extra=extra
    )


def startup_import(bench: Bench) -> Row:
    """Import the package in a new process."""
    timing = fresh.time_fresh({"ours": fresh.IMPORT, "bare": ("-c", "pass")}, bench.repeat)
    figures = dict.fromkeys(COLUMNS, Figure.of(timing["ours"]))
    bare = written(timing["bare"].wall, "s")
    note = f"Whole processes, files in the disk cache; a bare Python takes {bare}."
    return Row("startup_import", "`import napari_lightsam`", figures, note=note)


def startup_help(bench: Bench) -> Row:
    """Ask the command for help in a new process."""
    timing = fresh.time_fresh({"ours": fresh.HELP}, bench.repeat)
    return Row("startup_help", "`lightsam --help`", dict.fromkeys(COLUMNS, Figure.of(timing["ours"])))


def first_mask(bench: Bench) -> Row:
    """Import, load, embed and click in a new process."""
    jobs = {
        name: ("-m", "benchmarks.fresh", "first-mask", precision, bench.runtime or "")
        for name, precision in (("best", "auto"), ("float32", "float32"))
    }
    timing = fresh.time_fresh(jobs, bench.repeat)
    title = "first mask of a new process (import, load, embed 520 x 696, click)"
    return Row("first_mask", title, {name: Figure.of(timing[name]) for name in COLUMNS})


ROWS: dict[str, Callable[[Bench], Row]] = {
    row.__name__: row
    for row in (
        encoder_1024,
        one_point,
        one_box,
        points_64,
        everything_1024,
        everything_1024_hierarchical,
        everything_1024_grid,
        everything_1024_estimated,
        everything_256,
        refilter,
        field_2048,
        large_4096,
        large_8192,
        memory_everything,
        startup_import,
        startup_help,
        first_mask,
    )
}
SLOW = ("everything_1024_grid", "field_2048", "large_4096", "large_8192")
"""Rows that a quick look leaves out."""
