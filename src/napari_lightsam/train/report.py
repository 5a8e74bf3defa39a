"""A folder that tells how good a model is: figures as JSON, tables as Markdown, curves, the worst images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.overlay import draw_outlines
from napari_lightsam.train.metrics import THRESHOLDS, mean_segmentation_accuracy
from napari_lightsam.train.plots import FIGURES, check_plotting, save
from napari_lightsam.train.scores import as_cell, draw_table

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from napari_lightsam.train.calibration import Calibration
    from napari_lightsam.train.scores import Evaluation, Example

TRUTH_COLOUR = (0, 255, 0)
FOUND_COLOUR = (255, 0, 255)
"""Complementary: what agrees is white."""

_ALT = {
    "ap_curve.png": "Average precision over the IoU threshold",
    "clicks.png": "Mean IoU over clicks and over careless boxes",
    "calibration.png": "True over predicted IoU",
}


def write_report(evaluation: Evaluation, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Write everything that an evaluation measured into a folder.

    Parameters
    ----------
    evaluation
        From `napari_lightsam.train.evaluate.evaluate`; its worst images, if it kept some, are drawn.
    folder
        Made where it is missing. Files of the same names are replaced.

    Returns
    -------
    tuple of Path
        ``evaluation.json``, ``evaluation.md``, of ``ap_curve.png``, ``clicks.png`` and ``calibration.png``
        those for which something was measured, and ``worst_01.png`` ...

    Raises
    ------
    ConfigError
        matplotlib is not installed.
    FileError
        A file cannot be written.

    Examples
    --------
    >>> from napari_lightsam import drain, load_segmenter
    >>> from napari_lightsam.train.evaluate import evaluate
    >>> result = drain(evaluate("my_images", load_segmenter(), worst=6))  # doctest: +SKIP
    >>> write_report(result, "report")  # doctest: +SKIP
    """
    check_plotting()
    root = Path(folder)
    # First what cannot be had again without running the model.
    with written_whole(root / "evaluation.json") as part:
        part.write_text(evaluation.to_json(), encoding="utf-8")
    written = []
    for name, draw in FIGURES.items():
        figure = draw(evaluation)
        if figure is not None:
            with written_whole(root / name) as part:
                save(figure, part)
            written.append(root / name)
    for rank, example in enumerate(evaluation.worst, start=1):
        path = root / worst_name(rank)
        with written_whole(path) as part:
            _save_example(part, example)
        written.append(path)
    with written_whole(root / "evaluation.md") as part:
        part.write_text(to_report(evaluation, [path.name for path in written]), encoding="utf-8")
    return root / "evaluation.json", root / "evaluation.md", *written


def worst_name(rank: int) -> str:
    """Return the file name of the picture of the worst, second worst ... image."""
    return f"worst_{rank:02}.png"


def to_report(evaluation: Evaluation, pictures: Sequence[str] = ()) -> str:
    """Draw all tables of an evaluation as one Markdown page.

    Parameters
    ----------
    evaluation
        What was measured.
    pictures
        File names, beside the page, that it shows.
    """
    measured = {
        "Average precision over IoU": (_ap_tables(evaluation), "ap_curve.png"),
        "Clicks and boxes": (_prompt_tables(evaluation), "clicks.png"),
        "Predicted against true IoU": (_calibration_tables(evaluation), "calibration.png"),
        "Proposals": (_proposal_lines(evaluation), ""),
        "Times": (_time_table(evaluation), ""),
        "Worst images": (_worst_lines(evaluation, pictures), ""),
    }
    title, _, table = evaluation.to_markdown().partition("\n\n")
    lines = [f"# {title}", "", table.rstrip(), ""]
    for heading, (content, picture) in measured.items():
        if content:
            shown = [f"![{_ALT[picture]}]({picture})", ""] if picture in pictures else []
            lines += [f"## {heading}", "", *content, "", *shown]
    return "\n".join(lines).rstrip() + "\n"


def _ap_tables(evaluation: Evaluation) -> list[str]:
    rows = [(name, row) for name, row in evaluation.rows if row.ap_curve]
    if not rows:
        return []
    titles = ["set", *(f"{threshold:.2f}" for threshold in THRESHOLDS)]
    return [
        "Mean over images:",
        "",
        *draw_table(titles, [[name, *map(as_cell, row.ap_curve)] for name, row in rows]),
        "",
        "From the counts of all images together:",
        "",
        *draw_table(titles, [[name, *map(as_cell, row.ap_curve_pooled)] for name, row in rows]),
    ]


def _prompt_tables(evaluation: Evaluation) -> list[str]:
    clicked = [(name, row) for name, row in evaluation.rows if row.click_curve]
    boxed = [(name, row) for name, row in evaluation.rows if row.box_curve]
    lines: list[str] = []
    if clicked:
        titles = ["set", "1 click", *(f"+{n + 1}" for n in range(evaluation.corrective_clicks))]
        cells = [[name, *map(as_cell, row.click_curve)] for name, row in clicked]
        words = "Mean IoU after one click and after each corrective one:"
        lines += ["", words, "", *draw_table(titles, cells)]
    if boxed:
        titles = ["set", *(f"{degree:.0%}" if degree else "exact" for degree in evaluation.box_jitter)]
        cells = [[name, *map(as_cell, row.box_curve)] for name, row in boxed]
        words = "Mean IoU in a box whose sides are off by up to so much of its height and width:"
        lines += ["", words, "", *draw_table(titles, cells)]
    return lines[1:]


def _calibration_tables(evaluation: Evaluation) -> list[str]:
    overall = evaluation.overall
    lines: list[str] = []
    for what, found in (
        ("One click and one exact box", overall.prompted_calibration),
        ("Everything mode", overall.everything_calibration),
    ):
        if found is not None:
            lines += ["", *_reliability(what, found)]
    return lines[1:]


def _reliability(what: str, found: Calibration) -> list[str]:
    cells = [
        [f"{row.low:.1f} to {row.high:.1f}", str(row.count), as_cell(row.predicted), as_cell(row.reached)]
        for row in found.bins
        if row.count
    ]
    return [
        f"{what}: mean absolute error {found.mean_absolute_error:.3f}, bias {found.bias:+.3f}, "
        f"{found.count} masks.",
        "",
        *draw_table(["predicted IoU", "masks", "mean predicted", "mean true"], cells),
    ]


def _proposal_lines(evaluation: Evaluation) -> list[str]:
    if not evaluation.overall.ap_curve:
        return []
    rows = [(name, row) for name, row in evaluation.rows if row.proposals_per_object is not None]
    if not rows:
        return ["Not available: the model has no proposal head."]
    cells = [
        [name, as_cell(row.proposal_recall), as_cell(row.proposals_per_object, ".2f")] for name, row in rows
    ]
    return draw_table(["set", "objects with a box of IoU .5", "proposals per object"], cells)


def _time_table(evaluation: Evaluation) -> list[str]:
    layout = (
        ("everything, s/image", "everything_seconds", 1.0, ".2f"),
        ("encoding, s/image", "embed_seconds", 1.0, ".2f"),
        ("click, ms/object", "click_seconds", 1e3, ".1f"),
        ("box, ms/object", "box_seconds", 1e3, ".1f"),
    )
    cells = []
    for name, row in evaluation.rows:
        values = [(getattr(row, field), factor, form) for _, field, factor, form in layout]
        cells.append([name, *("-" if v is None else as_cell(v * factor, form) for v, factor, form in values)])
    return draw_table(["set", *(title for title, *_ in layout)], cells)


def _worst_lines(evaluation: Evaluation, pictures: Sequence[str]) -> list[str]:
    if not evaluation.worst:
        return []
    lines = ["Truth in green, what was found in magenta, white where they agree."]
    for rank, example in enumerate(evaluation.worst, start=1):
        score = example.score
        words = (
            f"{score.dataset}/{score.name}: mSA {mean_segmentation_accuracy(score.matchings):.3f}, "
            f"{score.objects} true objects, {score.found} found"
        )
        shown = [f"![{words}]({worst_name(rank)})", ""] if worst_name(rank) in pictures else []
        lines += ["", *shown, f"{rank}. {words}" if not shown else f"*{words}*"]
    return lines


def _save_example(path: Path, example: Example) -> None:
    from PIL import Image

    drawn = draw_outlines(example.image, [(example.truth, TRUTH_COLOUR), (example.predicted, FOUND_COLOUR)])
    Image.fromarray(drawn).save(path, format="PNG")
