"""Curves of an evaluation: average precision over IoU, clicks and boxes, calibration.

Needs matplotlib, which is imported when a figure is drawn. No window is opened and no global state of
matplotlib is touched.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import ConfigError
from napari_lightsam.train.metrics import THRESHOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from napari_lightsam.train.calibration import Calibration
    from napari_lightsam.train.scores import Evaluation, Summary

# Okabe and Ito's colours, told apart by most people who see colours differently.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
_STYLES = ("-", "--", ":")  # a further round of the same colours
_BLACK = "#222222"
_DPI = 120


def check_plotting() -> None:
    """Make sure that figures can be drawn, before hours are spent on what they would show.

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "The figures of an evaluation are drawn by matplotlib, which is not installed. Install it with "
            '`python -m pip install matplotlib` or `python -m pip install "napari-lightsam[plots]"`, or ask '
            "for the JSON only."
        )


def draw_ap_curve(evaluation: Evaluation) -> Figure | None:
    """Draw average precision over the IoU threshold, averaged over images and pooled; `None` without any."""
    rows = [(name, row) for name, row in evaluation.rows if row.ap_curve]
    if not rows:
        return None
    figure, (left, right) = _figure(2)
    _draw_lines(left, rows, lambda row: (THRESHOLDS, row.ap_curve))
    _draw_lines(right, rows, lambda row: (THRESHOLDS, row.ap_curve_pooled))
    for axes, title in ((left, "mean over images"), (right, "pooled over images")):
        _label(axes, title, "IoU threshold", "average precision")
        axes.set_xlim(min(THRESHOLDS), max(THRESHOLDS))
    _legend(figure, left)
    return figure


def draw_prompts(evaluation: Evaluation) -> Figure | None:
    """Draw mean IoU over the number of clicks and over the carelessness of boxes; `None` without any."""
    rows = [(name, row) for name, row in evaluation.rows if row.click_curve or row.box_curve]
    if not rows:
        return None
    clicks = any(row.click_curve for _, row in rows)
    boxes = any(row.box_curve for _, row in rows)
    figure, panels = _figure(clicks + boxes)
    if clicks:
        most = max(len(row.click_curve) for _, row in rows)
        _draw_lines(panels[0], rows, lambda row: (range(1, len(row.click_curve) + 1), row.click_curve))
        _label(panels[0], "clicks", "clicks per object (the first, then corrections)", "mean IoU")
        panels[0].set_xticks(range(1, most + 1))
    if boxes:
        percent = [100 * degree for degree in evaluation.box_jitter]
        _draw_lines(panels[-1], rows, lambda row: (percent[: len(row.box_curve)], row.box_curve))
        _label(panels[-1], "boxes", "sides off by up to (% of the box's height and width)", "mean IoU")
        panels[-1].set_xticks(percent)
    _legend(figure, panels[0])
    return figure


def draw_calibration(evaluation: Evaluation) -> Figure | None:
    """Draw true over predicted IoU, and how many masks there are of each; `None` without any."""
    overall = evaluation.overall
    parts = [
        (title, found)
        for title, found in (
            ("prompted objects", overall.prompted_calibration),
            ("objects of everything mode", overall.everything_calibration),
        )
        if found is not None
    ]
    if not parts:
        return None
    figure, panels = _figure(len(parts))
    for axes, (title, found) in zip(panels, parts, strict=True):
        _draw_reliability(axes, found)
        words = f"{title}: mean error {found.mean_absolute_error:.3f}, bias {found.bias:+.3f}"
        _label(axes, words, "predicted IoU", "true IoU")
    return figure


FIGURES: dict[str, Callable[[Evaluation], Figure | None]] = {
    "ap_curve.png": draw_ap_curve,
    "clicks.png": draw_prompts,
    "calibration.png": draw_calibration,
}
"""By file name."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, without the date or the version of a program in it."""
    figure.savefig(path, format="png", dpi=_DPI, metadata={"Software": None})


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    check_plotting()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)
    return figure, list(axes[0])


def _draw_lines(
    axes: Axes,
    rows: Sequence[tuple[str, Summary]],
    values: Callable[[Summary], tuple[Sequence[float], Sequence[float]]],
) -> None:
    for index, (name, row) in enumerate(rows):
        together = len(rows) > 1 and index == len(rows) - 1
        style: dict[str, Any] = {"color": _COLOURS[index % len(_COLOURS)], "marker": "o", "markersize": 4}
        style["linestyle"] = _STYLES[index // len(_COLOURS) % len(_STYLES)]
        if together:
            style |= {"color": _BLACK, "linewidth": 2.5, "linestyle": "-", "zorder": 3}
        axes.plot(*values(row), label=name, **style)


def _draw_reliability(axes: Axes, found: Calibration) -> None:
    filled = [row for row in found.bins if row.count]
    axes.plot((0, 1), (0, 1), color=_BLACK, linestyle=":", linewidth=1)
    axes.bar(
        [row.low for row in found.bins],
        [row.count / found.count for row in found.bins],
        width=[row.high - row.low for row in found.bins],
        align="edge",
        color="#CCCCCC",
        edgecolor="white",
        label="part of the masks",
    )
    axes.plot(
        [row.predicted or 0.0 for row in filled],
        [row.reached or 0.0 for row in filled],
        color=_COLOURS[0],
        marker="o",
        label="mean true IoU",
    )
    axes.set_xlim(0, 1)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_ylim(0, 1)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = min(len(names), 4)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
