"""Version 2 of `*.lightsam`: a zip of `session.json` and raw arrays; read with bounds, written whole."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_lightsam.errors import FileError
from napari_lightsam.formats.atomic import written_whole
from napari_lightsam.formats.memory import check_memory
from napari_lightsam.formats.plain_json import to_json
from napari_lightsam.session.document import Document, LabelRecord, Run
from napari_lightsam.session.fields import Fields, is_number, plain
from napari_lightsam.session.picture import ImageRecord, find_image, written_paths
from napari_lightsam.session.recipe import FORMAT, SUFFIX, Session, check_format, read_session

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from numpy.typing import NDArray

VERSION = 2
JSON_NAME = "session.json"

LARGEST_JSON = 64 * 2**20  # bytes; a thousand objects with their prompts take about half a million
LARGEST_ARRAY = 4 * 2**30  # bytes; as large as a Labels layer in memory may be
MOST_MEMBERS = 100
_CHUNK = 2**22  # values written at once
_LONGEST_LABEL = 20  # digits of a number of 64 bits

_FILE = {
    "format", "version", "application", "created", "images", "inputs", "settings", "pixel_size_um",
    "normalization", "run", "labels", "target", "prompts",
}  # fmt: skip
_IMAGE = {
    "name", "shape", "dtype", "path", "absolute_path", "pixels_hash", "file_hash", "layer", "axes", "array",
}  # fmt: skip
_LABELS = {"name", "array", "layer", "note", "objects", "features", "quality"}
_ARRAY = {"member", "shape", "dtype", "stored_as"}
_RUN = {"model", "weights_hash", "device", "precision", "runtime", "threads", "processor", "packages"}
_LAYER = {
    "scale", "translate", "rotate", "shear", "affine", "units", "axis_labels", "opacity", "visible", "rgb",
    "contrast_limits",
}  # fmt: skip


def read_lightsam(path: str | os.PathLike[str]) -> Session | Document:
    """Read a `*.lightsam` file of either kind: settings as text, or an archive of saved work.

    Raises
    ------
    FileError
        As `read_session` and `read_document`.
    """
    return read_document(path) if is_archive(path) else read_session(path)


def is_archive(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file begins as a zip archive does."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6")
    except OSError:
        return False  # `read_session` says why


def write_document(path: str | os.PathLike[str], document: Document) -> None:
    """Write saved work as a `*.lightsam` archive; whole or not at all.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    document
        What to write. The image itself is only named, unless it has no file.

    Raises
    ------
    FileError
        The name does not end in `.lightsam`, the file cannot be written, or it would be larger than what
        `read_document` takes.

    Examples
    --------
    >>> import tempfile
    >>> image = ImageRecord(name="cells", shape=(4, 5), dtype="uint8", pixels=np.zeros((4, 5), "uint8"))
    >>> labels = LabelRecord(name="objects", data=np.eye(4, 5, dtype="int32"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_document(f"{folder}/a.lightsam", Document(images=(image,), labels=(labels,)))
    ...     int(read_document(f"{folder}/a.lightsam").labels[0].data.sum())
    4
    """
    path = Path(path).absolute()
    if path.suffix.lower() != SUFFIX:
        raise FileError(f"{path} must end in {SUFFIX}: napari recognises the file by its ending.")
    arrays: dict[str, NDArray[Any]] = {}
    content = _to_plain(document, path, arrays)
    types = _stored_types(content)
    text = to_json(content, indent=1, allow_nan=False).encode()
    sizes = [a.size * np.dtype(stored).itemsize for a, stored in zip(arrays.values(), types, strict=True)]
    if len(text) > LARGEST_JSON or max(sizes, default=0) > LARGEST_ARRAY or len(arrays) >= MOST_MEMBERS:
        raise FileError(f"{path} would be too large to be opened again. Save fewer or smaller layers.")
    with written_whole(path) as part, zipfile.ZipFile(part, "w", allowZip64=True) as file:
        with file.open(_entry(JSON_NAME), "w") as out:
            out.write(text)
        for (member, array), stored in zip(arrays.items(), types, strict=True):
            with file.open(_entry(member), "w", force_zip64=array.nbytes > 2**31) as out:
                flat = array.reshape(-1)
                for start in range(0, flat.size, _CHUNK):
                    out.write(_stored(flat[start : start + _CHUNK], np.dtype(stored), path))


def _stored(part: NDArray[Any], stored: np.dtype[Any], path: Path) -> bytes:
    """Return values as they are stored; whoever changes an array meanwhile must not lose labels by that."""
    narrow = stored.itemsize < part.dtype.itemsize
    if narrow and (int(part.max(initial=0)) > np.iinfo(stored).max or int(part.min(initial=0)) < 0):
        raise FileError(f"{path} was not written: the labels were changed meanwhile. Save it again.")
    content: bytes = part.astype(stored).tobytes()
    return content


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # dated 1980: equal work gives equal bytes
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry._compresslevel = 1  # type: ignore[attr-defined]  # labels shrink well enough, and fast
    return entry


def _to_plain(document: Document, path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return the content of `session.json`, and collect arrays by the name of their member."""
    images: list[dict[str, Any]] = []
    for number, image in enumerate(document.images):
        kept = image.pixels is not None and image.path is None
        images.append(
            {
                "name": image.name,
                "shape": list(image.shape),
                "dtype": image.dtype,
                **({} if image.path is None else written_paths(image.path, path)),
                "pixels_hash": image.pixels_hash,
                "file_hash": image.file_hash,
                "layer": plain(image.layer),
                "axes": plain(image.axes),
                "array": _put(arrays, f"images/{number}.bin", image.pixels) if kept else None,
            }
        )
    labels = [
        {
            "name": record.name,
            "array": _put(arrays, f"labels/{number}.bin", record.data),
            "layer": plain(record.layer),
            "note": plain(record.note),
            "objects": plain(record.objects),
            "features": plain(record.features),
            "quality": plain(record.quality),
        }
        for number, record in enumerate(document.labels)
    ]
    run = document.run
    return {
        "format": FORMAT,
        "version": VERSION,
        "application": run.version,
        "created": document.created,
        "images": images,
        "inputs": [{"image": image, "channel": channel} for image, channel in document.inputs],
        "settings": plain(document.settings),
        "pixel_size_um": document.pixel_size_um,
        "normalization": document.normalization,
        "run": {name: plain(getattr(run, name)) for name in sorted(_RUN)},
        "labels": labels,
        "target": document.target,
        "prompts": plain(document.prompts),
    }


def _put(arrays: dict[str, NDArray[Any]], member: str, array: NDArray[Any] | None) -> dict[str, Any]:
    assert array is not None
    arrays[member] = array
    stored = array.dtype.newbyteorder("<")
    if array.dtype.kind in "iu" and array.size and array.dtype.itemsize > 2:
        low, high = int(array.min()), int(array.max())
        if low >= 0 and high < 2**16:
            stored = np.dtype("<u2")  # half the time and space of int32
    return {
        "member": member, "shape": list(array.shape), "dtype": array.dtype.name, "stored_as": stored.str,
    }  # fmt: skip


def _stored_types(content: Mapping[str, Any]) -> list[str]:
    parts = [*content["images"], *content["labels"]]
    return [part["array"]["stored_as"] for part in parts if part["array"] is not None]


# --- reading -----------------------------------------------------------------------------------------


def read_document(path: str | os.PathLike[str]) -> Document:
    """Read saved work from a `*.lightsam` archive.

    Nothing is unpacked to the disk, and no image is opened; see `session.picture.read_pixels`.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FileError
        The file does not exist, is truncated, damaged, made by a newer version, or holds what it must not.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            entries = _check_members(path, file)
            content = _read_json(path, file, entries)
            check_format(path, content, VERSION)
            return _Reader(path, file, entries).document(content)
    except FileNotFoundError:
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise FileError(f"{path} is truncated or damaged: {error}. Copy or save it again.") from None
    except (OSError, NotImplementedError) as error:  # the latter: packed in a way that Python does not know
        raise FileError(f"{path} cannot be read: {error}.") from error


def _check_members(path: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = {entry.filename: entry for entry in file.infolist()}
    if len(entries) != len(file.infolist()) or len(entries) > MOST_MEMBERS:
        raise FileError(f"{path} is damaged: it holds a name twice, or more than {MOST_MEMBERS} parts.")
    for name, entry in entries.items():
        allowed = name == JSON_NAME or _is_array_name(name)
        plainly = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not allowed or not plainly or entry.flag_bits & 1:
            raise FileError(f"{path} holds {name!r}, which is no part of a LightSAM file; it was not opened.")
        limit = LARGEST_JSON if name == JSON_NAME else LARGEST_ARRAY
        if entry.file_size > limit:
            raise FileError(f"{path}: {name} has {entry.file_size:,} bytes; up to {limit:,} are accepted.")
    check_memory(path, sum(entry.file_size for entry in entries.values()))
    if JSON_NAME not in entries:
        raise FileError(f"{path} is no LightSAM file: it holds no {JSON_NAME}.")
    return entries


def _is_array_name(name: str) -> bool:
    folder, slash, number = name.partition("/")
    return bool(slash) and folder in ("images", "labels") and number.removesuffix(".bin").isdecimal()


def _read_json(path: Path, file: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> dict[str, Any]:
    try:
        content = json.loads(_read_member(file, entries[JSON_NAME]).decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged: {JSON_NAME} is no valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise FileError(f"{path} is damaged: {JSON_NAME} must hold a JSON object.")
    return content


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _read_member(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Unpack one part; the size that its entry declares is all that is ever unpacked."""
    with file.open(entry) as part:
        content = part.read(entry.file_size)
    if len(content) != entry.file_size:
        raise EOFError(f"{entry.filename} ends early")
    return content


class _Reader:
    """Makes a `Document` of the content of `session.json` and the arrays beside it."""

    def __init__(self, path: Path, file: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> None:
        self._path, self._file, self._entries = path, file, entries
        self._used = {JSON_NAME}

    def document(self, content: Mapping[str, Any]) -> Document:
        read = Fields(self._path, "the file", content, _FILE)
        images = tuple(self._image(one) for one in read.sequence("images"))
        labels = tuple(self._labels(one) for one in read.sequence("labels"))
        inputs = tuple(self._input(one, len(images)) for one in read.sequence("inputs"))
        target = read.count("target", None)
        if not images or not inputs or (target is not None and target >= len(labels)):
            raise FileError(f"{self._path} is damaged: it names an image or a layer that it does not hold.")
        left = sorted(set(self._entries) - self._used)
        if left:
            raise FileError(f"{self._path} is damaged: nothing refers to {', '.join(left)}.")
        return Document(
            images=images,
            inputs=inputs,
            settings=dict(read.mapping("settings")),
            pixel_size_um=read.number("pixel_size_um", None),
            run=self._run(read.mapping("run"), read.text("application", "")),
            normalization=read.text("normalization", "data"),
            labels=labels,
            target=target,
            prompts=tuple(read.sequence("prompts", ())),
            created=read.text("created", ""),
        )

    def _image(self, content: Any) -> ImageRecord:
        read = Fields(self._path, "an image", content, _IMAGE)
        array = read.mapping("array", None)
        given = [text for name in ("path", "absolute_path") if (text := read.text(name, None)) is not None]
        return ImageRecord(
            name=read.text("name"),
            shape=read.counts("shape"),
            dtype=self._dtype(read.text("dtype"), "iufb"),
            path=find_image(self._path, *given) if given else None,
            pixels_hash=read.text("pixels_hash", ""),
            file_hash=read.text("file_hash", ""),
            layer=self._layer(read),
            axes={k: str(v) for k, v in read.mapping("axes", {}).items()},
            pixels=None if array is None else self._array(array, "iufb"),
        )

    def _labels(self, content: Any) -> LabelRecord:
        read = Fields(self._path, "a Labels layer", content, _LABELS)
        objects = read.mapping("objects", {})
        if not all(_is_label(key) and isinstance(value, dict) for key, value in objects.items()):
            raise FileError(f"{self._path} is damaged: an object has no number or no record.")
        return LabelRecord(
            name=read.text("name"),
            data=self._array(read.mapping("array"), "iu"),
            layer=self._layer(read),
            note=dict(read.mapping("note", {})),
            objects={int(key): value for key, value in objects.items()},
            features=self._features(read),
            quality=read.mapping("quality", None),
        )

    def _features(self, read: Fields) -> dict[str, list[Any]]:
        columns = read.mapping("features", {})
        lists = all(isinstance(column, list) for column in columns.values())
        if not lists or len({len(column) for column in columns.values()}) > 1:
            raise FileError(f"{self._path} is damaged: the columns of a table differ in length.")
        return dict(columns)

    def _layer(self, read: Fields) -> dict[str, Any]:
        layer = dict(read.mapping("layer", {}))
        Fields(self._path, "'layer'", layer, _LAYER)
        if not all(_is_layer_value(value) for value in layer.values()):
            raise FileError(f"{self._path} is damaged: a layer has settings that are no numbers or texts.")
        return {key: value for key, value in layer.items() if value is not None}

    def _input(self, content: Any, images: int) -> tuple[int, int | None]:
        read = Fields(self._path, "an input", content, {"image", "channel"})
        image = read.count("image")
        if image >= images:
            raise FileError(f"{self._path} is damaged: an input names an image that it does not hold.")
        return image, read.count("channel", None)

    def _run(self, content: Any, version: str) -> Run:
        read = Fields(self._path, "'run'", content, _RUN)
        names = ("model", "weights_hash", "device", "precision", "runtime", "processor")
        packages = {key: str(value) for key, value in read.mapping("packages", {}).items()}
        texts = {name: read.text(name, "") for name in names}
        return Run(version=version, threads=read.count("threads", 0), packages=packages, **texts)

    def _dtype(self, name: str, kinds: str) -> str:
        try:
            dtype = np.dtype(name)
        except (TypeError, ValueError, SyntaxError):
            dtype = np.dtype("O")
        if dtype.kind not in kinds:  # no objects, no texts, no structures
            raise FileError(f"{self._path} is damaged: {name!r} is no type of pixels.")
        return dtype.name

    def _array(self, content: Any, kinds: str) -> NDArray[Any]:
        read = Fields(self._path, "an array", content, _ARRAY)
        member, shape = read.text("member"), read.counts("shape")
        dtype = self._dtype(read.text("dtype"), kinds)
        stored = np.dtype(self._dtype(read.text("stored_as"), kinds)).newbyteorder("<")
        entry = self._entries.get(member)
        size = stored.itemsize
        for length in shape:
            size *= length  # of Python, which does not overflow
        if entry is None or not _is_array_name(member) or entry.file_size != size or len(shape) < 2:
            raise FileError(
                f"{self._path} is damaged: {member} is not there or has not the size it should have."
            )
        self._used.add(member)
        values = np.frombuffer(_read_member(self._file, entry), stored).astype(dtype)
        try:
            return values.reshape(shape)
        except ValueError:  # of nothing, or with more axes than there can be
            raise FileError(f"{self._path} is damaged: no image has the shape of {member}.") from None


def _is_label(text: str) -> bool:
    return text.isdecimal() and len(text) <= _LONGEST_LABEL


def _is_layer_value(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_layer_value(one) for one in value)
    return value is None or isinstance(value, str | bool) or is_number(value)
