"""Folders of the user: named by a variable of the environment, else where the system keeps such files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder in place of `~`; as it is where there is none.

    Examples
    --------
    >>> expanded("~nobody-of-this-name/model.pt").parts[0]
    '~nobody-of-this-name'
    """
    return Path(os.path.expanduser(path))


def user_folder(variable: str, usual: Callable[[], str | Path]) -> Path:
    """Return a folder of the user; it need not exist yet.

    Parameters
    ----------
    variable
        Of the environment; what it names comes first.
    usual
        Finds the system's place for such files.

    Raises
    ------
    ConfigError
        The variable is not set, and the account has no home folder, as in some containers and on clusters.
    """
    named = os.environ.get(variable, "").strip()
    if named:
        return expanded(named).absolute()
    try:
        folder = Path(usual())
    except RuntimeError:  # how platformdirs says that there is no home folder
        folder = Path()
    if not folder.is_absolute():  # or it gives the path as it would be below one
        raise ConfigError(
            f"This account has no home folder to keep files in. Set {variable}, or HOME, to a folder of your "
            "own."
        )
    return folder
