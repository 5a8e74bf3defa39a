"""The record beside every result: from what, by what and how it was made (`<stem>_labels.json`)."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.plain_json import to_json

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = "napari-lightsam"
_LARGEST = 1_000_000  # bytes; ours take about two thousand, and twenty thousand for the preview


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Everything needed to tell whether a result still stands, and to make it again.

    Attributes
    ----------
    version
        Of this package.
    input, input_sha256
        Name (without folder) and hash of the image file.
    settings
        As given by the user, plain values only.
    model, model_sha256
        Name and hash of the weights.
    device, precision, runtime
        That the model ran on, in and by.
    object_size, object_size_estimated
        Diameter in pixels that was used (`None` for models that take none), and whether it was estimated.
    pixel_size, pixel_size_source
        (row, column) in micrometres or `None`; "given", "OME", "ImageJ" or "".
    n_objects
        Number of objects.
    outputs
        Hash (SHA-256) of every output file by name.
    shape, channels, plane
        Rows and columns, names of the raw channels, and which plane it was: its number, "max" or "all".
    flags
        What a user should look at.
    preview
        Small PNG picture of the image with its objects outlined, as base64 text; may be empty.
    """

    version: str
    input: str
    input_sha256: str
    settings: dict[str, Any]
    model: str
    model_sha256: str
    device: str
    precision: str
    runtime: str
    object_size: float | None
    object_size_estimated: bool
    pixel_size: tuple[float, float] | None
    pixel_size_source: str
    n_objects: int
    outputs: dict[str, str]
    shape: tuple[int, ...] = ()
    channels: tuple[str, ...] = ()
    plane: str = ""
    flags: tuple[str, ...] = ()
    preview: str = ""

    def differences(self, other: Record) -> tuple[str, ...]:
        """Say in words in which of input, settings, model and version two records differ."""
        found = []
        if self.input_sha256 != other.input_sha256:
            found.append("another version of the input")
        for key in sorted(self.settings.keys() | other.settings.keys()):
            was, now = (r.settings.get(key) for r in (self, other))
            if was != now:
                found.append(f"{key.replace('_', ' ')} {_show(was)} (now {_show(now)})")
        if (self.model, self.model_sha256) != (other.model, other.model_sha256):
            same = "another version of " if self.model == other.model else ""
            found.append(f"{same}model {self.model} (now {other.model})")
        if self.version != other.version:
            found.append(f"version {self.version} (now {other.version})")
        return tuple(found)


def _show(value: object) -> str:
    return "not given" if value is None else str(value)


def write_record(path: Path, record: Record) -> None:
    """Write a record, never half.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    with written_whole(path) as part:
        save_record(part, record)


def save_record(path: Path, record: Record) -> None:
    """Write a record as `write_record` does, but directly to a file that has no name yet."""
    content = {"application": APPLICATION, **asdict(record)}
    path.write_text(to_json(content, indent=2) + "\n", encoding="utf-8")


def read_record(path: Path) -> Record:
    """Read a record back.

    Raises
    ------
    FileError
        Missing, damaged, or not one of ours.
    """
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(_LARGEST))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged: it is no complete JSON.") from error
    if not isinstance(content, dict) or content.pop("application", None) != APPLICATION:
        raise FileError(f"{path} is no record of {APPLICATION}.")
    try:
        return _checked(content)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FileError(f"{path} is damaged: {error} is missing or has no usable value.") from error


_TYPES: dict[str, tuple[type, ...]] = {
    "settings": (dict,), "outputs": (dict,), "n_objects": (int,), "object_size_estimated": (bool,),
    "object_size": (int, float, type(None)), "pixel_size": (list, type(None)),
    "shape": (list,), "channels": (list,), "flags": (list,),
}  # fmt: skip


def _checked(content: dict[str, Any]) -> Record:
    values: dict[str, Any] = {}
    for field in fields(Record):
        if field.name not in content and field.default is not MISSING:
            continue  # written before there was such a field
        value = content[field.name]
        if not isinstance(value, _TYPES.get(field.name, (str,))):
            raise TypeError(repr(field.name))
        values[field.name] = value
    if not all(isinstance(digest, str) for digest in values["outputs"].values()):
        raise TypeError("'outputs'")
    if values["pixel_size"] is not None:
        row, column = map(float, values["pixel_size"])
        values["pixel_size"] = (row, column)
    for name, kind in (("shape", int), ("channels", str), ("flags", str)):
        if name in values:
            values[name] = tuple(map(kind, values[name]))
    return Record(**values)


def hash_file(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text; of a folder, that of the names and hashes of all files in it.

    Raises
    ------
    FileError
        The file cannot be read.
    """
    if os.path.isdir(path):
        files = sorted(
            (file.relative_to(path).as_posix(), file) for file in path.rglob("*") if os.path.isfile(file)
        )
        listed = "".join(f"{name}\0{hash_file(file)}\n" for name, file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
