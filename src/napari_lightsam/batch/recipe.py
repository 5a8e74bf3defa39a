"""The recipe of a batch: model, settings and outputs, as YAML that a person can read, write and pass on."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.export import FORMATS

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1
"""Of the format; files of a newer one are refused."""

OVERLAY = "overlay"
"""Output: a picture of every image with its objects outlined."""

NORMALISATION = "data"
"""What recipes record: sliders of a viewer have no part in a batch."""

ALWAYS = ("tiff", "csv")
"""Formats that every batch writes."""

_LARGEST_FILE = 64_000  # bytes; a recipe has a few hundred
_MOST_PARTS = 1000  # names and values
_LONGEST = 4096  # characters of a value; the path of a checkpoint takes most
_SHOWN = 10  # names in a message
_MOST_BITS = 64
_DEEPEST = 3  # values in lists in the recipe, and one more for what says better what is wrong
_SETTINGS = {
    one.name: (cls, one)
    for cls in (EverythingConfig, BatchSettings)
    for one in dataclasses.fields(cls)
    if one.name != "config"
}
_OWN = {
    "recipe": "Version of this format",
    "model": "Name of a model, or the path of a checkpoint",
    "normalisation": "Where the range of brightness comes from: data, the values of each image",
    "outputs": f"Further outputs: {', '.join(f for f in FORMATS if f not in ALWAYS)}, {OVERLAY}",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a batch but its images and where results go.

    Attributes
    ----------
    settings
        How images are read and segmented.
    model
        Name in the registry, or path of a checkpoint.
    outputs
        Beyond label image, table and record: names of `formats.export.FORMATS`, and "overlay" for pictures.

    Raises
    ------
    ConfigError
        An output is not known, or a value is of another kind.

    Examples
    --------
    >>> Recipe(outputs=("csv", "roi", "overlay")).exports
    ('roi',)
    """

    settings: BatchSettings = field(default_factory=BatchSettings)
    model: str = "lightsam"
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.settings, BatchSettings):
            raise ConfigError(
                "settings is a BatchSettings, such as BatchSettings(EverythingConfig(object_size=26)); got "
                f"{type(self.settings).__name__}."
            )
        given = self.outputs
        if isinstance(given, str) or not all(isinstance(name, str) for name in given):
            raise ConfigError(f"outputs is a list of names; got {given!r}.")
        known = (*FORMATS, OVERLAY)
        unknown = list(dict.fromkeys(name for name in given if name not in known))
        if unknown:
            more = " ..." if len(unknown) > _SHOWN else ""
            raise ConfigError(
                f"No output is called {', '.join(map(repr, unknown[:_SHOWN]))}{more}; known are "
                f"{', '.join(known)}."
            )
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigError(
                f"model is the name of a model or the path of a checkpoint; got {self.model!r}."
            )
        wanted = tuple(dict.fromkeys(name for name in given if name not in ALWAYS))
        object.__setattr__(self, "outputs", wanted)

    @property
    def exports(self) -> tuple[str, ...]:
        """Further formats."""
        return tuple(name for name in self.outputs if name != OVERLAY)

    @property
    def overlay(self) -> bool:
        """Pictures are wanted."""
        return OVERLAY in self.outputs


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    r"""Read a recipe.

    Parameters
    ----------
    path
        YAML file of names and values: those of `EverythingConfig` and `BatchSettings`, `model`, `outputs` and
        `normalisation`, which is "data".
        A checkpoint may be given relative to it.

    Raises
    ------
    FileError
        The file cannot be read.
    ConfigError
        It is no YAML, or holds an unknown name or a value that is not accepted; the message tells the line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "nuclei.yaml"
    ...     _ = path.write_text("object_size: 26\nchannel: DAPI\noutputs: [roi]\n")
    ...     recipe = read_recipe(path)
    >>> recipe.settings.config.object_size, recipe.settings.channel, recipe.outputs
    (26, 'DAPI', ('roi',))
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise FileError(f"{path} is too large for a recipe, which holds a few settings.")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileError(f"{path} is no recipe: it is not text.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    recipe = parse_recipe(text, str(path))
    beside = path.parent / recipe.model
    return dataclasses.replace(recipe, model=str(beside)) if os.path.isfile(beside) else recipe


def parse_recipe(text: str, where: str = "The recipe") -> Recipe:
    """Read a recipe from its text.

    Parameters
    ----------
    text
        YAML.
    where
        What errors call it.

    Raises
    ------
    ConfigError
        As `read_recipe`.
    """
    found = _read_yaml(text, where)
    for name, (value, line) in found.items():
        try:
            _build({name: value})
        except ConfigError as error:
            raise ConfigError(f"{where}, line {line}: {error}") from None
    try:
        return _build({name: value for name, (value, _) in found.items()})
    except ConfigError as error:  # values that are fine alone and contradict each other
        lines = [str(line) for name, (_, line) in found.items() if name in str(error)]
        at = f", line {' and '.join(lines)}" if lines else ""
        raise ConfigError(f"{where}{at}: {error}") from None


def format_recipe(recipe: Recipe) -> str:
    """Write a recipe as text; what is not told is as by default."""
    values = {"model": recipe.model, "normalisation": NORMALISATION, **changed(recipe.settings)}
    if recipe.outputs:
        values["outputs"] = list(recipe.outputs)
    lines = ["# How to segment a batch: lightsam segment IMAGES --out FOLDER --recipe THIS_FILE", "recipe: 1"]
    for name, value in values.items():
        unit = _SETTINGS[name][1].metadata["unit"] if name in _SETTINGS else ""
        written = yaml.safe_dump(value, allow_unicode=True, default_flow_style=True, width=10_000)
        written = written.removesuffix("...\n").rstrip("\n")
        lines.append(f"{name}: {written}" + (f"  # {unit}" if unit else ""))
    return "\n".join(lines) + "\n"


def write_recipe(path: str | os.PathLike[str], recipe: Recipe) -> None:
    """Write a recipe, never half.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    with written_whole(Path(path)) as part:
        part.write_text(format_recipe(recipe), encoding="utf-8")


def changed(settings: BatchSettings) -> dict[str, Any]:
    """Return, in the values of YAML and by name, what is not as by default."""
    usual, plain = BatchSettings().to_plain(), settings.to_plain()
    return {name: plain[name] for name in _SETTINGS if plain[name] != usual[name]}


def _build(values: Mapping[str, Any]) -> Recipe:
    unknown = [name for name in values if name not in _SETTINGS and name not in _OWN]
    if unknown:
        raise ConfigError(f"Unknown name {unknown[0]!r}; known are {', '.join(sorted([*_SETTINGS, *_OWN]))}.")
    version = values.get("recipe", VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION:
        raise ConfigError(
            f"This is version {version!r} of the format; versions up to {VERSION} are read. "
            "Upgrade napari-lightsam to read it."
        )
    normalisation = values.get("normalisation", NORMALISATION)
    if normalisation != NORMALISATION:
        raise ConfigError(
            f"normalisation is {NORMALISATION}: the range of brightness comes from each image; "
            f"got {normalisation!r}."
        )
    given = {name: _value(name, value) for name, value in values.items()}
    config, settings = (
        {name: given[name] for name in given if name in _SETTINGS and _SETTINGS[name][0] is cls}
        for cls in (EverythingConfig, BatchSettings)
    )
    rest = {name: given[name] for name in ("model", "outputs") if name in given}
    return Recipe(BatchSettings(config=EverythingConfig(**config), **settings), **rest)


def _value(name: str, value: Any) -> Any:
    """Bring a value of YAML into the form that the settings have in Python."""
    if name == "pixel_size" and isinstance(value, int | float):
        return (value, value)
    if name == "outputs":
        if value is not None and not isinstance(value, str | list):
            raise ConfigError(f"outputs is a list of names; got {value!r}.")
        return tuple(value) if isinstance(value, list) else value or ()
    if isinstance(value, list):
        if name not in ("channel", "pixel_size"):
            raise ConfigError(f"{name.replace('_', ' ')} is one value, not a list; got {value!r}.")
        return tuple(value)
    if name == "pixel_size" and value is not None:
        raise ConfigError(f"pixel size is one or two positive numbers of micrometres; got {value!r}.")
    return value


def _read_yaml(text: str, where: str) -> dict[str, tuple[Any, int]]:
    """Values and their lines by name."""
    depth = 0
    try:
        for n, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
            if n > _MOST_PARTS:
                raise ConfigError(f"{where}, line {_line(event)}: a recipe holds a few settings.")
            # Aliases can unfold to more than any memory, and settings have no use for them.
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ConfigError(f"{where}, line {_line(event)}: references (& and *) are not accepted.")
            if getattr(event, "tag", None) is not None:
                raise ConfigError(f"{where}, line {_line(event)}: tags (!) are not accepted.")
            if isinstance(event, yaml.ScalarEvent) and len(event.value) > _LONGEST:
                raise ConfigError(f"{where}, line {_line(event)}: the value is too long.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:  # before time goes into what cannot be a recipe
                raise ConfigError(f"{where}, line {_line(event)}: a recipe holds no lists within lists.")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{where}, line {_line(root)}: a recipe is a list of lines `name: value`.")
        found: dict[str, tuple[Any, int]] = {}
        for key, node in root.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{where}, line {line}: a name is text.")
            if key.value in found:
                raise ConfigError(f"{where}, line {line}: {key.value!r} was given in line "
                                  f"{found[key.value][1]} already.")  # fmt: skip
            found[key.value] = (_plain(node, where), line)
        return found
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = "" if mark is None else f", line {mark.line + 1}"
        raise ConfigError(f"{where}{at}: this is no YAML: {error.problem or error}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise ConfigError(f"{where} is no YAML: {reason}.") from None


def _plain(node: yaml.Node, where: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_scalar(one, where) for one in node.value]
    return _scalar(node, where)


def _scalar(node: yaml.Node, where: str) -> Any:
    try:
        value = yaml.SafeLoader("").construct_object(node) if isinstance(node, yaml.ScalarNode) else node
    except (ValueError, OverflowError):  # a date that is none, a number of a million digits
        value = node
    endless = isinstance(value, int) and value.bit_length() > _MOST_BITS  # which cannot even be shown
    if endless or not isinstance(value, str | int | float | bool | None):
        given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a list, or names and values"
        raise ConfigError(
            f"{where}, line {_line(node)}: values are numbers, names, true, false or lists; got {given}."
        )
    return value


def _line(place: yaml.Node | yaml.Event) -> int:
    return int(place.start_mark.line) + 1
