"""Which images a batch reads, and what its outputs are called."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.batch import lists
from napari_lightsam.errors import FileError
from napari_lightsam.formats import vendors
from napari_lightsam.formats.export import FORMATS
from napari_lightsam.formats.guard import protect_inputs, refuse_clashes
from napari_lightsam.formats.images import SUFFIXES, read_info
from napari_lightsam.formats.sidecar import hash_file, read_record
from napari_lightsam.formats.zarrs import SUFFIX as ZARR
from napari_lightsam.formats.zarrs import hash_url, is_url, is_zarr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal

_RECORD, _OVERLAY = "_labels.json", "_overlay.png"
_ENDINGS = (*(format_.ending for format_ in FORMATS.values()), _OVERLAY)
_SEARCHED = (*SUFFIXES, *vendors.SUFFIXES)
_KINDS = ", ".join((*_SEARCHED, ZARR))

_UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')  # in names on Windows
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
_LONGEST = 200  # bytes of a stem: file systems take 255 for a name, of which endings need up to 45

BATCH_OUTPUTS = ("objects.csv", "images.csv", "report.html")
"""Files about a batch as a whole, in its output folder."""

BATCH_RECORD = "batch.json"
"""What tells that these files are ours."""


@dataclass(frozen=True, slots=True)
class Job:
    """One input and the names of its outputs.

    Attributes
    ----------
    source
        The image file or zarr folder; text where it is an address.
    base
        Output folder and stem; the outputs append to it.
    image
        What tables call it: its path below the folder, pattern or list that it was found by.
    series
        Which image of the file; None: the first.
    facts
        Name and value of what a list tells about it.
    """

    source: Path | str
    base: Path
    image: str = ""
    series: int | None = None
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """File name, as text that any file can hold."""
        name = (
            self.source.name if isinstance(self.source, Path) else self.source.rstrip("/").rpartition("/")[2]
        )
        return printable(name)

    def hash(self) -> str:
        """Hash the file; of an address, what its store says about it.

        Raises
        ------
        FileError
            It cannot be read.
        """
        return hash_file(self.source) if isinstance(self.source, Path) else hash_url(self.source)

    @property
    def labels(self) -> Path:
        """The label image."""
        return FORMATS["tiff"].output(self.base)

    @property
    def objects(self) -> Path:
        """The table."""
        return FORMATS["csv"].output(self.base)

    @property
    def record(self) -> Path:
        """The record of how the result was made; written last."""
        return self.base.with_name(self.base.name + _RECORD)

    @property
    def pending(self) -> Path:
        """What a run is about to write, kept while outputs take their names one after the other."""
        return self.base.with_name(f".{self.base.name}{_RECORD}.pending")

    @property
    def overlay(self) -> Path:
        """The picture, where one is asked for."""
        return self.base.with_name(self.base.name + _OVERLAY)

    def exported(self, formats: Iterable[str]) -> tuple[Path, ...]:
        """List the files of further formats, by their names in `formats.export.FORMATS`."""
        return tuple(FORMATS[name].output(self.base) for name in formats)

    def wanted(self, overlay: bool, exports: Iterable[str] = ()) -> tuple[Path, ...]:
        """List the files that a run writes, with or without a picture and further formats."""
        picture = (self.overlay,) if overlay else ()
        return (self.labels, self.objects, self.record, *picture, *self.exported(exports))

    @property
    def outputs(self) -> tuple[Path, ...]:
        """All files that a run may write for this input."""
        return tuple(dict.fromkeys([*self.wanted(overlay=True), *self.exported(FORMATS)]))


@dataclass(frozen=True, slots=True)
class Found:
    """Inputs of a batch.

    Attributes
    ----------
    jobs
        In the order given, folders sorted by name.
    ignored
        Results of earlier runs that lie among the inputs; they are not segmented.
    fact_names
        Further columns of the lists that were given, in their order.
    unreadable
        Folders that could not be looked into, and why.
    """

    jobs: tuple[Job, ...]
    ignored: tuple[Path, ...]
    fact_names: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def find_jobs(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: Path,
    series: int | Literal["all"] | None = None,
    reserved: Iterable[str] = (),
) -> Found:
    """Find the images and name their outputs.

    Files go into `out`, the contents of a folder or list keep their subfolders, and the matches of a pattern
    keep their place below the part of it that has no wildcard. Hidden files are passed over.

    Parameters
    ----------
    inputs
        Files, folders, patterns (`*`, `?`, `[...]`, `**`), lists (see `lists.read_list`), zarr folders and
        addresses; or one of them.
    out
        Output folder.
    series
        Which image of files that hold several; "all" makes a job of each.
    reserved
        Names that further columns of a list must not have.

    Raises
    ------
    FileError
        Nothing there, or no image in it.
    ConfigError
        Two inputs have one output name, an output would replace an input, or a list is none.
    """
    jobs: dict[str, Job] = {}
    ignored: list[Path] = []
    given_lists: list[Path] = []
    facts: dict[str, None] = {}
    unreadable: list[OSError] = []
    for given in (inputs,) if isinstance(inputs, str | os.PathLike) else inputs:
        text = os.fspath(given)
        if text.casefold().endswith(lists.SUFFIXES) and os.path.isfile(text):
            given_lists.append(Path(text))
            for row in lists.read_list(Path(text), reserved):
                facts.update(dict.fromkeys(name for name, _ in row.facts))
                _add(jobs, _job(row.source, row.place, out, row.facts))
            continue
        for source, place, chosen in _expand(text, unreadable):
            if isinstance(source, Path) and _is_own_result(source, out, chosen):
                ignored.append(source)
            else:
                _add(jobs, _job(source, place, out))
    if not jobs:
        earlier = " other than results of earlier runs" if ignored else ""
        raise FileError(f"No images{earlier} were found in what was given ({_KINDS}).")
    found = Found(
        tuple(_choose_series(jobs.values(), series)), tuple(ignored), tuple(facts),
        tuple(f"the folder {error.filename} cannot be read ({error.strerror})" for error in unreadable),
    )  # fmt: skip
    _guard(found, out, given_lists)
    return found


def _job(source: Path | str, place: Path, out: Path, facts: tuple[tuple[str, str], ...] = ()) -> Job:
    job = Job(source, out / place / _stem(source), facts=facts)
    return replace(job, image=printable((place / job.name).as_posix()))


def _add(jobs: dict[str, Job], job: Job) -> None:
    """Keep a job unless its image is there; one that a list says something about wins."""
    key = job.source if isinstance(job.source, str) else str(job.source.absolute())
    if key not in jobs or (job.facts and not jobs[key].facts):
        jobs[key] = job


def _choose_series(jobs: Iterable[Job], series: int | Literal["all"] | None) -> Iterator[Job]:
    """Set the image of every file; all of them where asked."""
    for job in jobs:
        if series != "all":
            yield replace(job, series=series)
            continue
        try:
            n = read_info(job.source, 0).n_images
        except FileError:
            n = 1  # reported when its turn comes
        for i in range(n):
            name = f"{job.base.name}_series{i}" if n > 1 else job.base.name
            image = f"{job.image} [{i}]" if n > 1 else job.image
            yield replace(job, series=i, base=job.base.with_name(name), image=image)


def _expand(given: str, unreadable: list[OSError]) -> Iterator[tuple[Path | str, Path, Path | None]]:
    """Each image with its subfolder in the output, and the folder it was found in (None: given by name)."""
    path = Path(given)
    if is_url(given) or is_zarr(path):
        named = path if path.name not in ("", "..") else path.resolve()  # "." has no name for its results
        yield given.rstrip("/") if is_url(given) else named, Path(), None
    elif os.path.isdir(path):
        found = list(_walk(path, unreadable))
        if not found:
            raise FileError(f"No images were found in the folder {path} ({_KINDS}).")
        yield from ((file, file.parent.relative_to(path), path) for file in found)
    elif os.path.lexists(path) or not glob.has_magic(given):
        _check_there(path)
        yield path, Path(), None
    else:
        root = _fixed_part(path)
        found = list(_match(given, root))
        if not found:
            raise FileError(f"No image matches {given}.")
        yield from ((file, file.parent.relative_to(root), root) for file in found)


def _check_there(path: Path) -> None:
    try:
        os.stat(path)
    except (FileNotFoundError, ValueError):
        raise FileError(f"{path} does not exist. Check the name and the folder.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def _walk(folder: Path, unreadable: list[OSError]) -> Iterator[Path]:
    """Images below a folder; linked folders are not entered, so that no loop is walked."""
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        images = [f for f in folders if f.casefold().endswith(ZARR) and is_zarr(Path(parent, f))]
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in images)
        for name in sorted([*files, *images]):
            file = Path(parent, name)
            kept = name in images or file.suffix.casefold() in _SEARCHED
            dangling = os.path.lexists(file) and not os.path.exists(file)  # which is reported later
            if kept and not name.startswith(".") and (name in images or os.path.isfile(file) or dangling):
                yield file


def _match(pattern: str, root: Path) -> Iterator[Path]:
    """Images that match a pattern, each once, even where linked folders lead around in circles."""
    seen: set[str] = set()
    for match in sorted(map(Path, glob.glob(pattern, recursive=True)), key=lambda m: (len(m.parts), m)):
        kept = os.path.isfile(match) and match.suffix.casefold() in _SEARCHED
        if not kept and not (match.suffix.casefold() == ZARR and is_zarr(match)):
            continue
        # Matches are plain within their folder: only a linked folder on the way can lead to one twice.
        place = os.path.join(os.path.realpath(match.parent), match.name)
        if place not in seen:
            seen.add(place)
            yield match


def _fixed_part(pattern: Path) -> Path:
    """Give the leading folders of a pattern, those without a wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _stem(source: Path | str) -> str:
    """Name of the outputs: that of the image without its ending, changed where it is too long or no text."""
    path = source if isinstance(source, Path) else Path(source.rpartition("/")[2] or source)
    stem = path.stem
    kinds = (".tif", ".tiff", ZARR)
    if stem.casefold().endswith(".ome") and path.suffix.casefold() in kinds:
        stem = stem[:-4]
    encoded = _encoded(stem)
    # A file of this computer has a name that it can have; the last part of an address may be anything.
    safe = stem if isinstance(source, Path) else _UNSAFE.sub("_", stem)
    if len(encoded) <= _LONGEST and printable(stem) == safe == stem and not _is_reserved(source, stem):
        return stem
    kept = _encoded(safe)[: _LONGEST - 9].decode("utf-8", "ignore")
    kept = kept.encode(sys.getfilesystemencoding(), "ignore").decode(sys.getfilesystemencoding())
    return f"{kept or 'image'}~{hashlib.sha256(encoded).hexdigest()[:8]}"


def _is_reserved(source: Path | str, stem: str) -> bool:
    """Whether Windows takes a name for a device, whatever its ending."""
    return not isinstance(source, Path) and _DEVICE.match(stem) is not None


def printable(text: str) -> str:
    """Replace what no text file can hold: names are bytes on some systems, and halves of letters on Windows.

    Text that can be held stays as it is, whatever letters the system knows.
    """
    return _encoded(text).decode("utf-8", "replace")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass" if sys.platform == "win32" else "surrogateescape")


def _is_own_result(source: Path, out: Path, chosen: Path | None) -> bool:
    """Whether a file is what an earlier run wrote: by its record, or by name where results go in there."""
    name = source.name.casefold()
    if not name.endswith(_ENDINGS):
        return False
    if has_record(source):
        return True
    if chosen is None:
        return False
    folder, results = (Path(os.path.realpath(path)) for path in (chosen, out))
    return results.is_relative_to(folder) and Path(os.path.realpath(source)).is_relative_to(results)


def has_record(output: Path) -> bool:
    """Whether a record beside a file says that this package wrote it."""
    for end in _ENDINGS:
        if output.name.endswith(end):
            record = output.with_name(output.name.removesuffix(end) + _RECORD)
            try:
                return output.name in read_record(record).outputs
            except FileError:
                return False
    return False


def _guard(found: Found, out: Path, lists_given: Iterable[Path]) -> None:
    """Refuse outputs that clash or are an input; earlier results may be replaced."""
    refuse_clashes(
        ((job.source, job.labels) for job in found.jobs),
        "Rename one, choose by a pattern in quotes such as '*.tif', give their common folder (its subfolders "
        "are kept), or segment them into different folders.",
    )
    guarded = [*lists_given, *(job.source for job in found.jobs if isinstance(job.source, Path))]
    guarded += [path for path in found.ignored if not has_record(path)]
    of_all = (out / name for name in (*BATCH_OUTPUTS, BATCH_RECORD))
    protect_inputs(guarded, (*of_all, *(output for job in found.jobs for output in job.outputs)))
