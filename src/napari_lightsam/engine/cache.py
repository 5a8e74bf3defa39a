"""Folders that hold checkpoints, and what makes a file in them acceptable: a published or a pinned hash.

Folders named in `LIGHTSAM_MODEL_PATH` (read-only, separated as in `PATH`) are searched first, then the cache
folder: `LIGHTSAM_CACHE`, else the user's cache.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_lightsam.engine.folders import expanded, user_folder
from napari_lightsam.engine.registry import MODELS
from napari_lightsam.engine.transfer import explain, part_file
from napari_lightsam.engine.verify import has_hash
from napari_lightsam.errors import ConfigError, DownloadError, WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_lightsam.engine.registry import RemoteFile

__all__ = [
    "cache_folder",
    "find_file",
    "known_hash",
    "move_into_place",
    "pin_path",
    "place_in_cache",
    "problem_with",
    "search_folders",
    "write_pin",
]

_PIN_SUFFIX = ".pinned.json"


def cache_folder() -> Path:
    """Folder that downloads go to: `LIGHTSAM_CACHE`, else the user's cache; it need not exist yet.

    Raises
    ------
    ConfigError
        There is none: the account has no home folder.
    """
    import platformdirs

    return user_folder("LIGHTSAM_CACHE", lambda: platformdirs.user_cache_dir("napari-lightsam"))


def search_folders() -> tuple[Path, ...]:
    """Folders searched for checkpoints, in order: `LIGHTSAM_MODEL_PATH`, then the cache folder if any."""
    named = [folder.strip() for folder in os.environ.get("LIGHTSAM_MODEL_PATH", "").split(os.pathsep)]
    return (*(expanded(folder).absolute() for folder in named if folder), *_cache_folders())


def _cache_folders() -> tuple[Path, ...]:
    """Return the cache folder, or nothing where there is none to search."""
    with suppress(ConfigError):
        return (cache_folder(),)
    return ()


def find_file(file: RemoteFile) -> Path | None:
    """Find a verified copy; raise when there are copies but none can be used."""
    problems = []
    for folder in search_folders():
        path = folder / file.name
        if os.path.isfile(path):
            problem = problem_with(path, file)
            if not problem:
                return path
            problems.append(problem)
    if problems:
        raise WeightsError(" ".join(problems))
    return None


def problem_with(path: Path, file: RemoteFile, *, verify: bool = True) -> str:
    """Say why a file on disk cannot be used, or ""."""
    try:
        size = path.stat().st_size
        if size == 0 or (file.size is not None and size != file.size):
            return (
                f"{path} has {size:,} bytes instead of {file.size or file.about:,}: it was cut short or is "
                f"another file. Delete it and run `lightsam models download {_model_of(file)}` again."
            )
        known = known_hash(file, path.parent)
        if known is None:
            return (
                f"{path} has no published hash and was not accepted before. If you trust it, run "
                f"`lightsam models import {path} --name {_model_of(file)}`."
            )
        if verify and not has_hash(path, known):
            return (
                f"{path} is not what it claims to be (its hash is not {known}); it is not used. Delete it "
                f"and run `lightsam models download {_model_of(file)}` again."
            )
    except OSError as error:
        return f"{path} cannot be read: {error.strerror or error}."
    return ""


def place_in_cache(file: RemoteFile) -> Path:
    """Make sure that the cache folder exists and can be written; return the file's place in it."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(error, file.url, folder / file.name) from error
    if not os.access(folder, os.W_OK):
        raise DownloadError(f"{folder} cannot be written. Set LIGHTSAM_CACHE to a folder of your own.")
    return folder / file.name


def _model_of(file: RemoteFile) -> str:
    return next(name for name, entry in MODELS.items() if file in entry.files)


def pin_path(file: RemoteFile, folder: Path) -> Path:
    """Where the hash of an accepted file without a published one is kept."""
    return folder / (file.name + _PIN_SUFFIX)


def known_hash(file: RemoteFile, folder: Path | None = None) -> str | None:
    """Return the published hash, else the one pinned in the cache folder or beside the file in `folder`."""
    if file.hash is not None:
        return file.hash
    for place in (*_cache_folders(), *([] if folder is None else [folder])):
        pin = pin_path(file, place)
        if os.path.isfile(pin):
            try:
                return f"sha256:{json.loads(pin.read_text(encoding='utf-8'))['sha256']}"
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise WeightsError(f"{pin} is damaged; delete it and import or download again.") from error
    return None


def write_pin(file: RemoteFile, digest: str, origin: str, size: int) -> None:
    """Remember the content that was accepted first."""
    pin = pin_path(file, cache_folder())
    text = json.dumps({"sha256": digest.partition(":")[2], "size": size, "origin": origin}, indent=1)
    with part_file(pin) as part:
        part.write_text(text + "\n", encoding="utf-8")
        move_into_place(part, pin)


def move_into_place(part: Path, target: Path) -> None:
    """Give a complete file its name; whoever sees the name sees all of it."""
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    os.chmod(part, 0o644)  # a temporary file's 0600 would shut others out of a shared folder
    os.replace(part, target)
