"""Where checkpoints lie on this computer, and how they get there: verified first, moved into place last.

Folders named in `LIGHTSAM_MODEL_PATH` (read-only, separated as in `PATH`) are searched first, then the cache
folder: `LIGHTSAM_CACHE`, else the user's cache. `LIGHTSAM_MIRROR` names a base address that files are fetched
from by their registry name. Only `download` uses the network. Torch is imported only to look into a file
for which no hash is published.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.engine.cache import (
    cache_folder,
    find_file,
    known_hash,
    move_into_place,
    pin_path,
    place_in_cache,
    problem_with,
    search_folders,
    write_pin,
)
from napari_lightsam.engine.folders import expanded
from napari_lightsam.engine.registry import MODELS, find_model, known_models
from napari_lightsam.engine.transfer import Meter, explain, fetch_url, in_background, part_file
from napari_lightsam.engine.verify import file_hash
from napari_lightsam.errors import DownloadError, WeightsError

if TYPE_CHECKING:
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.registry import ModelEntry, RemoteFile

__all__ = [
    "ModelStatus",
    "cache_folder",
    "download",
    "find_weights",
    "identify",
    "import_weights",
    "is_available",
    "list_models",
    "search_folders",
]

_EMBEDDED_FOLDER = Path(__file__).resolve().parent.parent / "weights"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of a model without loading it.

    Attributes
    ----------
    name, title, licence, source, trained_on
        From the model's `ModelSpec`.
    available
        All its files are on this computer.
    embedded
        It is part of the package.
    paths
        Its files where available.
    size
        Bytes on disk where available, else bytes to download (approximate where not published).
    needs_consent
        No hash is published for it and none is pinned: `download` asks for `consent=True`.
    problem
        Why a file that is there cannot be used; "" when nothing is wrong.
    local
        It is a model of the user's own.
    """

    name: str
    title: str
    licence: str
    source: str
    trained_on: str
    available: bool
    embedded: bool
    paths: tuple[Path, ...]
    size: int
    needs_consent: bool
    problem: str
    local: bool = False

    @property
    def path(self) -> Path | None:
        """The first file, or None."""
        return self.paths[0] if self.paths else None


def find_weights(name: str) -> tuple[Path, ...] | None:
    """Find the verified files of a model on this computer; never uses the network.

    Parameters
    ----------
    name
        Name in the registry.

    Returns
    -------
    tuple of Path or None
        In the order of the registry entry; None when the model must be downloaded first.

    Raises
    ------
    WeightsError
        The name is not known, or a file is there but is not what it claims to be.

    Examples
    --------
    >>> find_weights("lightsam")[0].name
    'lightsam.safetensors'
    """
    entry = find_model(name)
    if entry.embedded:
        return (_embedded_file(entry.spec.name),)
    if entry.local is not None:
        return (entry.local,)
    found = [find_file(file) for file in entry.files]
    paths = tuple(path for path in found if path is not None)
    return paths if len(paths) == len(found) else None


def is_available(name: str) -> bool:
    """Tell whether a model can be loaded now; the first call in a process reads its files to verify them."""
    try:
        return find_weights(name) is not None
    except WeightsError:
        find_model(name)  # an unknown name is an error, not a missing file
        return False


def list_models(*, verify: bool = False) -> tuple[ModelStatus, ...]:
    """List every known model and whether it is on this computer.

    Parameters
    ----------
    verify
        Also check the hashes, which reads every file once; otherwise presence and size decide, which is
        quick enough for a chooser.
    """
    return tuple(_status(name, entry, verify) for name, entry in known_models().items())


def download(name: str, *, consent: bool = False) -> Work[tuple[Path, ...]]:
    """Fetch the files of a model that are not on this computer yet.

    Parameters
    ----------
    name
        Name in the registry.
    consent
        Accept a file for which no hash is published. What comes first is pinned: from then on only that
        content is accepted.

    Yields
    ------
    Progress
        Bytes, while downloading and while verifying. Closing the generator cancels and keeps nothing.

    Returns
    -------
    tuple of Path
        The verified files.

    Raises
    ------
    WeightsError
        The name is not known.
    DownloadError
        Offline, not there, broken off, not what was published, no space, or consent is missing.
    """
    entry = find_model(name)
    if entry.embedded:
        return (_embedded_file(entry.spec.name),)
    if entry.local is not None:
        return (entry.local,)
    paths = []
    for file in entry.files:
        try:
            path = find_file(file)
        except WeightsError:
            path = None  # what lies there is unusable; a good copy takes its place
        paths.append(path or (yield from _download_file(file, consent)))
    return tuple(paths)


def import_weights(path: str | Path, name: str | None = None) -> Path:
    """Copy a file that the user brought into the cache folder, after verifying that it is a known one.

    Parameters
    ----------
    path
        The file, under any name.
    name
        The model it belongs to. Needed for a model without a published hash, whose file is then pinned;
        otherwise the hash tells.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    WeightsError
        It is no file of a known model, or cannot be copied.
    """
    path = expanded(path)
    if not os.path.isfile(path):
        raise WeightsError(f"There is no file {path}.")
    file = _file_of(path, name)
    target = place_in_cache(file)
    known = known_hash(file, target.parent)
    meter = Meter()
    try:
        with part_file(target) as part:
            shutil.copyfile(path, part)
            _accept(part, file, known, str(path), meter)
            move_into_place(part, target)
    except OSError as error:
        raise explain(error, str(path), target, path.stat().st_size) from error
    return target


def identify(path: str | Path) -> str | None:
    """Name the one-file model whose published hash a file has; None for any other file."""
    path = Path(path)
    hashes: dict[str, str] = {}
    for name, entry in MODELS.items():
        if len(entry.files) == 1 and _matches(path, entry.files[0], hashes):
            return name
    return None


def _embedded_file(name: str) -> Path:
    path = _EMBEDDED_FOLDER / f"{name}.safetensors"
    if not os.path.isfile(path):
        raise WeightsError(f"{path} is missing: the installation is incomplete. Install the package again.")
    return path


def _status(name: str, entry: ModelEntry, verify: bool) -> ModelStatus:
    """Look a model up on disk."""
    paths: list[Path] = [] if entry.local is None else [entry.local]
    problems: list[str] = []
    if entry.embedded:
        try:
            paths.append(_embedded_file(name))
        except WeightsError as error:
            problems.append(str(error))
    for file in entry.files:
        copies = [folder / file.name for folder in search_folders() if os.path.isfile(folder / file.name)]
        checked = [(copy, problem_with(copy, file, verify=verify)) for copy in copies]
        good = [copy for copy, problem in checked if not problem]
        paths.extend(good[:1])
        problems.extend(problem for _, problem in checked if problem and not good)
    available = len(paths) == max(1, len(entry.files))
    size = sum(path.stat().st_size for path in paths) if available else entry.download_size
    consent = not available and any(known_hash(file) is None for file in entry.files)
    spec = entry.spec
    return ModelStatus(
        name=name,
        title=spec.title,
        licence=spec.licence,
        source=spec.source,
        trained_on=spec.trained_on,
        available=available,
        embedded=entry.embedded,
        paths=tuple(paths) if available else (),
        size=size,
        needs_consent=consent,
        problem=" ".join(problems),
        local=entry.local is not None,
    )


def _download_file(file: RemoteFile, consent: bool) -> Work[Path]:
    """Fetch one file into the cache folder."""
    target = place_in_cache(file)
    known = known_hash(file, target.parent)
    if known is None and not consent:
        raise DownloadError(
            f"No hash is published for {file.name} ({file.url}), so it cannot be verified. To accept what "
            "comes and pin it, consent explicitly (`consent=True`; on the command line `--yes`)."
        )
    url = _address(file)
    free = shutil.disk_usage(target.parent).free
    if free < file.expected_bytes:
        raise DownloadError(
            f"No space left in {target.parent}: {file.name} needs {file.expected_bytes:,} bytes and {free:,} "
            "are free. Free some, or set LIGHTSAM_CACHE to another disk."
        )

    def job(meter: Meter) -> Path:
        try:
            with part_file(target) as part:
                fetch_url(url, part, meter, file.expected_bytes)
                _accept(part, file, known, url, meter)
                move_into_place(part, target)
        except OSError as error:
            raise explain(error, url, target, file.expected_bytes) from error
        return target

    return (yield from in_background(job))


def _accept(part: Path, file: RemoteFile, known: str | None, origin: str, meter: Meter) -> None:
    """Verify a complete file that is not in place yet, or pin it when there is nothing to verify it with."""
    size = part.stat().st_size
    if size == 0 or (file.size is not None and size != file.size):
        raise DownloadError(
            f"{origin} gave {size:,} bytes instead of {file.size or file.about:,}: cut short, or another "
            "file. Nothing was kept. Try again."
        )
    meter.start(f"verifying {file.name}", size)
    actual = file_hash(part, (known or "sha256").partition(":")[0], meter.update)
    if known is not None and actual != known:
        with part.open("rb") as stream:
            page = stream.read(512).lstrip()[:1] == b"<"
        why = " It is a web page: a login or proxy page came in its place." if page else ""
        pinned = (
            f" It differs from the file that was accepted first; if its authors replaced it and you trust "
            f"the new one, delete {pin_path(file, cache_folder())}."
            if file.hash is None
            else ""
        )
        raise DownloadError(
            f"{origin} is not the published {file.name}: expected {known}, got {actual}.{why}{pinned} "
            "Nothing was kept."
        )
    if known is None:
        from napari_lightsam.engine.checkpoint import read_checkpoint

        read_checkpoint(part)  # an error page must not become the pinned content
        write_pin(file, actual, origin, size)


def _file_of(path: Path, name: str | None) -> RemoteFile:
    """Tell which registry file this is, by its hash, or by the model's name where no hash is published."""
    hashes: dict[str, str] = {}
    entries = [find_model(name)] if name is not None else list(MODELS.values())
    for entry in entries:
        for file in entry.files:
            if _matches(path, file, hashes):
                return file
    unpublished = [file for entry in entries for file in entry.files if file.hash is None]
    if name is not None and unpublished:
        return unpublished[0]
    if name is not None:
        raise WeightsError(
            f"{path} is not the published file of {name} ({path.stat().st_size:,} bytes, another hash). A "
            "checkpoint of your own needs no import: give its path as the model."
        )
    raise WeightsError(
        f"{path} is no published file of a known model ({', '.join(MODELS)}). A checkpoint of your own needs "
        "no import: give its path as the model. For a model without a published hash also give its name "
        "(`--name`)."
    )


def _matches(path: Path, file: RemoteFile, hashes: dict[str, str]) -> bool:
    """Compare with a published hash; `hashes` keeps what was computed for this file already."""
    if file.hash is None or (file.size is not None and path.stat().st_size != file.size):
        return False
    kind = file.hash.partition(":")[0]
    if kind not in hashes:
        hashes[kind] = file_hash(path, kind)
    return hashes[kind] == file.hash


def _address(file: RemoteFile) -> str:
    """Where to fetch a file: the mirror in `LIGHTSAM_MIRROR`, else its authors' address."""
    mirror = os.environ.get("LIGHTSAM_MIRROR", "").strip()
    if not mirror:
        return file.url
    if not mirror.startswith(("http://", "https://")):
        raise DownloadError(
            f"LIGHTSAM_MIRROR is {mirror!r}, which is no web address (http:// or https://). A folder is "
            "named in LIGHTSAM_MODEL_PATH instead."
        )
    return f"{mirror.rstrip('/')}/{file.name}"
