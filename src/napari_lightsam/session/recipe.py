"""The `*.lightsam` file as text: an image and how to segment it, in JSON that a person can read and write."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal, get_args

from napari_lightsam.engine.config import Mode
from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.plain_json import to_json
from napari_lightsam.formats.spelling import as_on_disk
from napari_lightsam.formats.zarrs import is_zarr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FORMAT = "napari-lightsam"
VERSION = 1
"""Of the text; see `session.archive` for version 2."""
NEWEST = 2
SUFFIX = ".lightsam"

_LARGEST_FILE = 1_000_000  # bytes; a file of image path and settings has a few hundred
_KNOWN = {"format", "version", "image", "settings"}
_KNOWN_SETTINGS = {"model", "mode", "object_size", "channel", "z", "time"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which plane of the image is segmented; see `ImageInfo.select`.

    Attributes
    ----------
    channel
        Number or name of a channel, or up to three of them; None where there is one.
    z
        Plane of a stack, or "max"; None where there is one.
    time
        Time point; None where there is one.
    """

    channel: int | str | tuple[int | str, ...] | None = None
    z: int | Literal["max"] | None = None
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What a `*.lightsam` text says.

    Attributes
    ----------
    image
        Absolute path of the image.
    model
        Name in the registry.
    mode
        Everything mode.
    object_size
        Typical diameter in pixels, or None: estimated.
    selection
        Plane and channels.
    """

    image: Path
    model: str = "lightsam"
    mode: Mode = "auto"
    object_size: float | None = None
    selection: Selection = field(default_factory=Selection)


def read_session(path: str | os.PathLike[str]) -> Session:
    """Read a `*.lightsam` text.

    Parameters
    ----------
    path
        The file. A relative image path in it is resolved beside the file.

    Raises
    ------
    FileError
        The file or the image it names does not exist, the file is truncated, damaged, made by a newer
        version, or names something that is not a file on this computer.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     image = Path(folder) / "cells.tif"
    ...     _ = image.write_bytes(b"")
    ...     _ = Path(folder, "cells.lightsam").write_text(
    ...         '{"format": "napari-lightsam", "version": 1, "image": "cells.tif", '
    ...         '"settings": {"object_size": 30}}'
    ...     )
    ...     session = read_session(f"{folder}/cells.lightsam")
    >>> session.image.name, session.object_size
    ('cells.tif', 30.0)
    """
    path = Path(path)
    content = _read_json(path)
    check_format(path, content, VERSION)
    _refuse_unknown(path, "the file", content, _KNOWN)
    image = _resolve_image(path, content.get("image"))
    settings = content.get("settings", {})
    if not isinstance(settings, dict):
        raise FileError(f"{path}: 'settings' must be an object of names and values.")
    _refuse_unknown(path, "settings", settings, _KNOWN_SETTINGS)
    read = _Settings(path, settings)
    return Session(
        image=image,
        model=read.model(),
        mode=read.get("mode", "auto", lambda v: v in get_args(Mode), f"one of {', '.join(get_args(Mode))}"),
        object_size=read.size(),
        selection=Selection(read.channel(), read.z(), read.count("time")),
    )


def write_session(path: str | os.PathLike[str], session: Session) -> None:
    """Write a `*.lightsam` text; whole or not at all.

    The image's path is written relative where it lies in the file's folder or below, so that the folder
    can be moved or shared; absolute elsewhere.

    Raises
    ------
    FileError
        The name does not end in `.lightsam`, or the file cannot be written.
    """
    path = Path(path).absolute()
    if path.suffix.lower() != SUFFIX:
        raise FileError(f"{path} must end in {SUFFIX}: napari recognises the file by its ending.")
    image = Path(os.path.abspath(session.image))
    folder = path.parent
    written = image.relative_to(folder).as_posix() if image.is_relative_to(folder) else str(image)
    choice = session.selection
    channel = list(choice.channel) if isinstance(choice.channel, tuple) else choice.channel
    content = {
        "format": FORMAT,
        "version": VERSION,
        "image": written,
        "settings": {
            "model": session.model,
            "mode": session.mode,
            "object_size": session.object_size,
            "channel": channel,
            "z": choice.z,
            "time": choice.time,
        },
    }
    with written_whole(path) as part:
        part.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileError(
                f"{path} is too large for a LightSAM file, which holds a path and a few settings."
            )
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except UnicodeDecodeError:
        raise FileError(f"{path} is no LightSAM file: it is not text.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be opened: {error.strerror or error}.") from error
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        where = f" at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise FileError(
            f"{path} is truncated or damaged: it is no valid JSON{where}. Copy or save it again."
        ) from None
    if not isinstance(content, dict):
        raise FileError(f"{path} is no LightSAM file: it must hold a JSON object.")
    return content


def check_format(path: Path, content: Mapping[str, Any], wanted: int) -> None:
    """Make sure that a file says it is ours, and of the version that its kind has.

    Raises
    ------
    FileError
        It is not, or it was made by a newer version.
    """
    if content.get("format") != FORMAT:
        raise FileError(f"{path} is no LightSAM file: 'format' must be {FORMAT!r}.")
    version = content.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise FileError(f"{path}: 'version' must be a whole number from 1; it is {version!r}.")
    if version > NEWEST:
        raise FileError(
            f"{path} was made by a newer version of napari-lightsam (file version {version}, this one "
            f"reads up to {NEWEST}). Upgrade napari-lightsam to open it."
        )
    if version != wanted:
        raise FileError(
            f"{path} is damaged: a {'text' if wanted == VERSION else 'zip archive'} has version {wanted}, "
            f"and this one says {version}."
        )


def _refuse_unknown(path: Path, where: str, given: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise FileError(
            f"{path}: {where} holds unknown names: {', '.join(unknown)}. "
            f"Known are {', '.join(sorted(known))}."
        )


def _resolve_image(path: Path, given: Any) -> Path:
    """Find the image a file names."""
    image = local_path(path, given)
    if not os.path.isfile(image) and not is_zarr(image):  # False for what cannot be a name, too
        raise FileError(
            f"{path} names the image {given!r}, which is not at {image}. "
            "Put it there, or correct the path in the file."
        )
    return image


def local_path(path: Path, given: Any) -> Path:
    """Return the absolute path that a file names, which need not exist: local, never on a network.

    Parameters
    ----------
    path
        The file that names it; relative paths start in its folder.
    given
        What stands there.

    Raises
    ------
    FileError
        It is no path, an address on a network, or a path of another system.
    """
    if not isinstance(given, str) or not given.strip() or "\0" in given:
        raise FileError(f"{path}: 'image' must be the path of an image; it is {given!r}.")
    # Opening a network share tells another computer who asks, so a file from elsewhere may not name one.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", given) or given.startswith(("\\\\", "//")):
        raise FileError(f"{path}: 'image' must be a file on this computer, not an address: {given!r}.")
    windows = PureWindowsPath(given)
    if os.name != "nt" and windows.drive:
        raise FileError(
            f"{path} names an image of a Windows computer, {given!r}. Put the image beside the file and "
            f"write {windows.name!r} instead."
        )
    # Written on one system, read on another: a relative path means the same with either slash.
    local = (
        Path(*PureWindowsPath(given).parts)
        if "\\" in given and "/" not in given
        else Path(PurePosixPath(given))
    )
    return as_on_disk(Path(os.path.normpath(path.absolute().parent / local)))


def is_known_model(name: Any) -> bool:
    """Tell whether a model goes by this name: a file from elsewhere must not choose weights to be loaded."""
    from napari_lightsam.engine.registry import ALIASES, known_models

    return isinstance(name, str) and name in {*known_models(), *ALIASES}


class _Settings:
    """Reads settings one by one and says what is wrong with them."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self._path, self._values = path, values

    def get(self, name: str, default: Any, accepts: Callable[[Any], bool], wanted: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not accepts(value):
            raise FileError(f"{self._path}: {name!r} must be {wanted}; it is {value!r}.")
        return value

    def model(self) -> str:
        from napari_lightsam.engine.registry import known_models

        return str(self.get("model", "lightsam", is_known_model, f"one of {', '.join(known_models())}"))

    def size(self) -> float | None:
        size = self.get(
            "object_size",
            None,
            lambda v: isinstance(v, int | float) and 1 <= v <= sys.float_info.max,
            "a number of pixels from 1, or null",
        )
        return None if size is None else float(size)

    def count(self, name: str) -> Any:
        return self.get(name, None, lambda v: isinstance(v, int) and v >= 0, "a whole number from 0, or null")

    def z(self) -> Any:
        return self.get(
            "z",
            None,
            lambda v: v == "max" or (isinstance(v, int) and v >= 0),
            "a whole number from 0, 'max', or null",
        )

    def channel(self) -> Any:
        def single(value: Any) -> bool:
            return isinstance(value, str) or (
                isinstance(value, int) and not isinstance(value, bool) and value >= 0
            )

        def accepts(value: Any) -> bool:
            return single(value) or (
                isinstance(value, list) and 1 <= len(value) <= 3 and all(map(single, value))
            )

        value = self.get("channel", None, accepts, "a number or name, a list of up to three, or null")
        return tuple(value) if isinstance(value, list) else value
