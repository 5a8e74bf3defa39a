"""Save a taught model as one of the user's own: weights, card and picture, all or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.local import check_name
from napari_lightsam.engine.registry import ALIASES, MODELS
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.train.export import export_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

_TITLES = {
    "made_from": "Made from",
    "made_from_sha256": "sha256 of that model's weights",
    "date": "Date",
    "steps": "Steps",
    "objects_learned": "Objects learned from",
    "objects_held_out": "Objects held out",
    "object_size": "Typical diameter, pixels",
    "before": "Held-out part, before",
    "after": "Held-out part, after",
    "licence": "Licence",
    "citation": "To cite",
}


def save_local(
    checkpoint: Path,
    name: str,
    base: str,
    facts: Mapping[str, str],
    picture: npt.NDArray[np.uint8],
    *,
    replace_model: bool = False,
) -> Path:
    """Save weights as `NAME.safetensors` with `NAME.md` and `NAME.png` beside it.

    Parameters
    ----------
    checkpoint
        Weights that `export_weights` reads.
    name
        Of the model.
    base
        The published model that it is used like.
    facts
        Kept in the file's header, and told by the card.
    picture
        (H, W, 3), before and after.
    replace_model
        An own model of this name may be replaced.

    Returns
    -------
    Path
        The weights.

    Raises
    ------
    ConfigError
        The name is not allowed, or taken.
    WriteError
        A file cannot be written; none is then left half-written.
    """
    path = check_name(name, [*MODELS, *ALIASES], replace=replace_model)
    card, drawing = path.with_suffix(".md"), path.with_suffix(".png")
    # the weights take their name last: whoever finds the model finds its card
    with written_whole(path) as weights, written_whole(drawing) as image, written_whole(card) as text:
        export_weights(checkpoint, weights, spec=base, metadata={**facts, "title": name})
        _save_picture(image, picture)
        text.write_text(_write_card(name, drawing.name, facts), encoding="utf-8")
    return path


def _save_picture(path: Path, picture: npt.NDArray[Any]) -> None:
    from PIL import Image

    Image.fromarray(picture).save(path, format="PNG")


def _write_card(name: str, drawing: str, facts: Mapping[str, str]) -> str:
    rows = [f"| {title} | {facts[key]} |" for key, title in _TITLES.items() if key in facts]
    return "\n".join(
        [
            f"# Model card: `{name}`",
            "",
            f"Trained on {facts['trained_on']}. Not trained on {facts['not_trained_on']}.",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "The held-out part was not learned from. `click` and `box` are mean IoU over its objects, "
            "`everything` is the average precision at IoU .5. It is a small sample: small "
            "differences mean little. Check results before they are counted.",
            "",
            f"![The held-out part: found before (left) and after (right)]({drawing})",
            "",
        ]
    )
