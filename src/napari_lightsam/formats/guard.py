"""Outputs that would replace an input, or each other: one answer for everything that writes files."""

from __future__ import annotations

import os
import secrets
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.zarrs import is_zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ADVICE = "Inputs are never written: choose another output folder."


def protect_inputs(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuse outputs that are an input under any name, be it a link, that hold one, or lie inside a zarr one.

    Parameters
    ----------
    inputs
        Files and folders that must stay as they are; those that are not there do not count.
    outputs
        Files and folders that will be written.

    Raises
    ------
    ConfigError
        An input would be written.
    """
    guarded = [path for path in inputs if os.path.exists(path)]
    known = {_identity(path): path for path in guarded}
    above = {place: path for path in guarded for place in Path(os.path.realpath(path)).parents}
    folders = {_outermost(path): path for path in guarded if is_zarr(path)}
    places: dict[Path, Path] = {}
    for output in outputs:
        if folders:
            if output.parent not in places:
                places[output.parent] = Path(os.path.realpath(output.parent))
            place = places[output.parent] / output.name
            inside = next((folders[one] for one in place.parents if one in folders), None)
            if inside is not None:
                raise ConfigError(f"{output} would be written inside the input {inside}. {_ADVICE}")
        if not os.path.exists(output):
            continue
        if (victim := known.get(_identity(output))) is not None:
            raise ConfigError(f"{output} would be written, which is the input {victim}. {_ADVICE}")
        if os.path.isdir(output) and (victim := above.get(Path(os.path.realpath(output)))) is not None:
            raise ConfigError(f"{output} would be replaced, which holds the input {victim}. {_ADVICE}")


def refuse_existing(outputs: Iterable[Path]) -> None:
    """Refuse outputs that are there.

    Raises
    ------
    ConfigError
        One is.
    """
    for output in outputs:
        if os.path.lexists(output):
            raise ConfigError(f"{output} is there already. Use --overwrite to replace it, or another folder.")


def refuse_clashes(outputs: Iterable[tuple[object, Path]], advice: str) -> None:
    """Refuse two outputs of one name, as the disk that they go to compares names.

    Parameters
    ----------
    outputs
        What each is made from, and its path.
    advice
        What to do about a clash.

    Raises
    ------
    ConfigError
        Two outputs are one.
    """
    folders: dict[Path, str] = {}
    alike: dict[str, list[tuple[object, Path, str]]] = {}
    for source, output in outputs:
        if output.parent not in folders:
            folders[output.parent] = os.path.realpath(output.parent)  # it may be written in several ways
        place = os.path.normcase(os.path.join(folders[output.parent], output.name))
        alike.setdefault(_folded(place), []).append((source, output, place))
    for group in alike.values():
        if len(group) == 1:
            continue
        as_disk = _find_rule(group[0][1].parent)
        first: dict[str, object] = {}
        for source, output, place in group:
            key = as_disk(place)
            if key in first:
                raise ConfigError(f"{first[key]} and {source} would both be written to {output}. {advice}")
            first[key] = source


def _find_rule(folder: Path) -> Callable[[str], str]:
    """Find out by a file of a moment how the disk of a folder compares names."""
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    probe = folder / f".lightsam-{secrets.token_hex(4)}-é"
    try:
        probe.touch()
        case = os.path.lexists(folder / probe.name.upper())
        form = os.path.lexists(folder / unicodedata.normalize("NFD", probe.name))
    except (OSError, ValueError):  # nothing can be written there, which is told later
        case = form = False
    finally:
        with suppress(OSError, ValueError):
            probe.unlink()
    if case:
        return _folded
    return (lambda name: unicodedata.normalize("NFC", name)) if form else str


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _outermost(path: Path) -> Path:
    """Give the zarr group that holds all others around an array."""
    path = Path(os.path.realpath(path))
    while is_zarr(path.parent):
        path = path.parent
    return path


def _identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino
