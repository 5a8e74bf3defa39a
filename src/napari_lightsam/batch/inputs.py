"""Which files a batch reads, and what its outputs are called."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.export import FORMATS
from napari_lightsam.formats.images import SUFFIXES
from napari_lightsam.formats.sidecar import read_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RECORD, _OVERLAY = "_labels.json", "_overlay.png"
_ENDINGS = (*(format_.ending for format_ in FORMATS.values()), _OVERLAY)


@dataclass(frozen=True, slots=True)
class Job:
    """One input and the names of its outputs.

    Attributes
    ----------
    source
        The image file.
    base
        Output folder and stem; the outputs append to it.
    """

    source: Path
    base: Path

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
    """

    jobs: tuple[Job, ...]
    ignored: tuple[Path, ...]


def find_jobs(inputs: Iterable[str | os.PathLike[str]], out: Path) -> Found:
    """Find the images and name their outputs.

    Files go into `out`, the contents of a folder keep their subfolders, and the matches of a pattern keep
    their place below the part of it that has no wildcard. Hidden files are passed over.

    Parameters
    ----------
    inputs
        Files, folders and patterns (`*`, `?`, `[...]`, `**`).
    out
        Output folder.

    Raises
    ------
    FileError
        Nothing there, or no image in it.
    ConfigError
        Two inputs have one output name, or an output would replace an input.
    """
    jobs: dict[Path, Job] = {}
    ignored: list[Path] = []
    for given in inputs:
        for source, place, chosen in _expand(os.fspath(given)):
            if _is_own_result(source, out, chosen):
                ignored.append(source)
            else:
                jobs.setdefault(source.absolute(), Job(source, out / place / _stem(source)))
    if not jobs:
        earlier = " other than results of earlier runs" if ignored else ""
        raise FileError(f"No images{earlier} were found in what was given ({', '.join(SUFFIXES)}).")
    found = Found(tuple(jobs.values()), tuple(ignored))
    _refuse_clashes(found.jobs)
    _protect_inputs(found)
    return found


def _expand(given: str) -> Iterator[tuple[Path, Path, Path | None]]:
    """Each file with its subfolder in the output, and the folder it was found in (None: given by name)."""
    path = Path(given)
    if path.is_dir():
        found = list(_walk(path))
        if not found:
            raise FileError(f"No images were found in the folder {path} ({', '.join(SUFFIXES)}).")
        yield from ((file, file.parent.relative_to(path), path) for file in found)
    elif path.exists() or not glob.has_magic(given):
        if not path.exists():
            raise FileError(f"{path} does not exist. Check the name and the folder.")
        yield path, Path(), None
    else:
        root = _fixed_part(path)
        matches = sorted(Path(m) for m in glob.glob(given, recursive=True))
        found = [m for m in matches if m.is_file() and m.suffix.casefold() in SUFFIXES]
        if not found:
            raise FileError(f"No image matches {given}.")
        yield from ((file, file.parent.relative_to(root), root) for file in found)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            file = Path(parent, name)
            hidden = name.startswith(".") or file.suffix.casefold() not in SUFFIXES
            if not hidden and (file.is_file() or file.is_symlink()):  # a dangling link is reported later
                yield file


def _fixed_part(pattern: Path) -> Path:
    """Give the leading folders of a pattern, those without a wildcard."""
    fixed = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return Path(*fixed)


def _stem(source: Path) -> str:
    stem = source.stem
    is_ome = stem.casefold().endswith(".ome") and source.suffix.casefold() in (".tif", ".tiff")
    return stem[:-4] if is_ome else stem


def _is_own_result(source: Path, out: Path, chosen: Path | None) -> bool:
    """Whether a file is what an earlier run wrote: by its record, or by name where results go in there."""
    name = source.name.casefold()
    if not name.endswith(_ENDINGS):
        return False
    if has_record(source):
        return True
    if chosen is None:
        return False
    folder, results = chosen.resolve(), out.resolve()
    return results.is_relative_to(folder) and source.resolve().is_relative_to(results)


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


def _refuse_clashes(jobs: tuple[Job, ...]) -> None:
    owners: dict[str, Job] = {}
    for job in jobs:
        first = owners.setdefault(os.path.normcase(job.base), job)
        if first is not job:
            raise ConfigError(
                f"{first.source} and {job.source} would both be written to {job.labels}. Rename one, or give "
                "their common folder (its subfolders are kept), or segment them into different folders."
            )


def _protect_inputs(found: Found) -> None:
    """Refuse outputs that are an input under any name, be it a link; earlier results may be replaced."""
    guarded = [job.source for job in found.jobs]
    guarded += [path for path in found.ignored if not has_record(path)]
    inputs = {_identity(path): path for path in guarded if path.exists()}
    for job in found.jobs:
        for output in job.outputs:
            victim = inputs.get(_identity(output)) if output.exists() else None
            if victim is not None:
                raise ConfigError(
                    f"The result of {job.source} would be written to {output}, which is the input {victim}. "
                    "Inputs are never written: choose another output folder."
                )


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino
