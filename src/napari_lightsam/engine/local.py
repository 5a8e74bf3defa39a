"""The user's own models: files with a name in one folder, made by teaching a model.

The folder is `LIGHTSAM_LOCAL_MODELS`, else one in the user's data folder. A model is `NAME.safetensors`,
whose header says how it is used and what it was made of, and its card `NAME.md`. Free of torch, so that
lists and choosers open at once.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.folders import user_folder
from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LocalModel", "check_name", "local_folder", "local_models", "read_header"]

SUFFIX = ".safetensors"
FORMAT = "napari-lightsam"
"""Entry `format` in the header of every file of ours."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])", re.IGNORECASE)  # of Windows
_LARGEST_HEADER = 16 * 2**20


@dataclass(frozen=True, slots=True)
class LocalModel:
    """One of the user's own models.

    Attributes
    ----------
    name
        The file's name without its suffix.
    path
        The weights.
    metadata
        Entries of the file's header: `spec`, `title`, `trained_on` and others.
    """

    name: str
    path: Path
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def card(self) -> Path:
        """The model card, which a user may have deleted."""
        return self.path.with_suffix(".md")


def local_folder() -> Path:
    """Folder of the user's own models: `LIGHTSAM_LOCAL_MODELS`, else in the user's data; it need not exist.

    Raises
    ------
    ConfigError
        There is none: the account has no home folder.

    Examples
    --------
    >>> local_folder().is_absolute()
    True
    """
    import platformdirs

    return user_folder(
        "LIGHTSAM_LOCAL_MODELS",
        lambda: Path(platformdirs.user_data_dir("napari-lightsam", appauthor=False)) / "models",
    )


def local_models() -> tuple[LocalModel, ...]:
    """List the user's own models, sorted by name; files that are none of ours are left out."""
    found = []
    try:
        files = sorted(local_folder().glob(f"*{SUFFIX}"))
    except (OSError, ConfigError):
        return ()
    for path in files:
        if not _NAME.fullmatch(path.stem):
            continue
        try:
            facts = path.stat()
            metadata = _remembered_header(path, facts.st_mtime_ns, facts.st_size)
        except (OSError, ValueError, RecursionError):  # the last one from JSON that is nested to no end
            continue
        if metadata.get("format") == FORMAT:
            found.append(LocalModel(path.stem, path, dict(metadata)))
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _remembered_header(path: Path, _changed: int, _size: int) -> dict[str, str]:
    return read_header(path)


def read_header(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file without its tensors.

    Raises
    ------
    ValueError
        It is no such file.
    OSError
        It cannot be read.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            raise ValueError(f"{path} has no safetensors header.")
        header = json.loads(stream.read(length))
    found = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{path} has a header that no safetensors file has.")
    return {str(key): str(value) for key, value in found.items()}


def check_name(name: str, taken: Iterable[str], *, replace: bool = False) -> Path:
    """Make sure that a model of the user's own may have a name; return where its weights go.

    Parameters
    ----------
    name
        Letters, digits, `-` and `_`, at most 48, the first one a letter or digit.
    taken
        Names of published models and their aliases, which are never given away.
    replace
        An own model of this name may be replaced.

    Raises
    ------
    ConfigError
        The name is not allowed, or taken.

    Examples
    --------
    >>> check_name("my-axons", ["lightsam"]).name
    'my-axons.safetensors'
    """
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        raise ConfigError(
            f"A model cannot be called {name!r}: a name has letters, digits, - and _ only, starts with a "
            "letter or digit and is at most 48 long, for instance my-axons."
        )
    # File systems of Windows and macOS take two names that differ in case for the same.
    if name.casefold() in {other.casefold() for other in taken}:
        raise ConfigError(
            f"{name!r} is the name of a published model, which is never replaced. Choose another one, for "
            f"instance my-{name.casefold()}."
        )
    same = [model for model in local_models() if model.name.casefold() == name.casefold()]
    if same and not replace:
        raise ConfigError(
            f"There is a model called {same[0].name!r} already ({same[0].path}). Choose another name, or ask "
            "for it to be replaced (`--replace`)."
        )
    return same[0].path if same else local_folder() / f"{name}{SUFFIX}"
