"""Where a slide is written: its label image, its finished blocks, and what may be replaced there."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.slide_record import NORMALISED, RECORD, read_facts, read_record
from napari_lightsam.errors import ConfigError
from napari_lightsam.formats.atomic import check_writable, explain, folder_written_whole, written_whole
from napari_lightsam.formats.ome_zarr import check_replaceable, create_levels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_PLAN = "plan.json"
_OURS = re.compile(r"(plan\.json|block_\d{7}\.npz)|\.(plan\.json|block_\d{7}\.npz)\.[0-9a-f]{8}\.part")


@dataclass(frozen=True, slots=True)
class SlidePlace:
    """The files of a slide.

    Attributes
    ----------
    out
        Folder of the label image.
    """

    out: Path

    @property
    def parts(self) -> Path:
        """Folder of the blocks that are finished, beside `out`."""
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def is_begun(self) -> bool:
        """A run ended here before all blocks were done; the same call goes on with it."""
        record = read_record(self.out)
        if record is not None:
            return not record["complete"]
        return not os.path.lexists(self.out) and (self.parts / _PLAN).is_file()

    def begin(self, *, overwrite: bool) -> dict[str, Any] | None:
        """Make sure that nothing of somebody else is in the way; return the record of a complete slide.

        Raises
        ------
        ConfigError
            The label image was not begun by a run like this, or other files lie among the blocks.
        FileError
            What is to be replaced is no label image.
        """
        record = read_record(self.out)
        if not overwrite and record is None and os.path.lexists(self.out):
            raise ConfigError(
                f"{self.out} is there and was not begun by a run like this. Use --overwrite, or choose "
                "another output."
            )
        check_replaceable(self.out)
        foreign = sorted(name for name in self._listed() if not (_OURS.fullmatch(name) or name[0] == "."))
        if foreign:
            raise ConfigError(
                f"{self.parts} is where finished blocks are kept, and holds something else: {foreign[0]}. "
                "Move it away, or choose another output."
            )
        self._sweep()
        if overwrite:
            self.clear()
            return None
        return record if record is not None and record["complete"] else None

    def _listed(self) -> Iterator[str]:
        try:
            yield from os.listdir(self.parts)
        except FileNotFoundError:
            return
        except OSError as error:
            raise explain(self.parts, error) from error

    def _sweep(self) -> None:
        """Remove half label images that killed runs left under names of the moment."""
        half = re.compile(rf"\.{re.escape(self.out.name)}\.[0-9a-f]{{8}}\.(part|old)")
        with suppress(OSError):
            for name in os.listdir(self.out.parent):
                if half.fullmatch(name):
                    shutil.rmtree(self.out.with_name(name), ignore_errors=True)

    def clear(self) -> None:
        """Remove the finished blocks, and their folder where nothing else is in it."""
        with suppress(OSError):
            for name in os.listdir(self.parts):
                if _OURS.fullmatch(name):
                    with suppress(OSError):
                        (self.parts / name).unlink()
            self.parts.rmdir()

    def earlier(self) -> dict[str, Any]:
        """Return what earlier runs noted: of one that is not complete beside its blocks."""
        return {**read_facts(self.parts / _PLAN), **(read_record(self.out) or {})}

    def keep_plan(
        self, identity: str, about: Mapping[str, Any], done: Mapping[str, Any] | None, *, overwrite: bool
    ) -> None:
        """Note what decides the result, beside the blocks.

        Parameters
        ----------
        identity, about
            Of this run, as `slide_plan.make_plan` gives them.
        done
            The record of a complete slide, or None.
        overwrite
            Of labels that are there nothing counts.

        Raises
        ------
        ConfigError
            Blocks or labels are there that were made otherwise.
        """
        earlier = dict(done) if done is not None else read_facts(self.parts / _PLAN)
        record = None if overwrite else read_record(self.out)
        known = json.loads(json.dumps(about))
        differing = [key for key, value in known.items() if earlier and earlier.get(key) != value]
        if "source" in differing:  # which is why other measurements differ
            differing = [key for key in differing if key not in NORMALISED]
        told = "; ".join(dict.fromkeys(
            "the image has changed since" if key == "source" else one
            for key in differing for one in _differences(key, earlier.get(key), known[key])
        ))  # fmt: skip
        if not earlier and record is not None and record["identity"] != identity:
            told = f"{self.parts} does not say how"
        if told:
            raise ConfigError(
                f"{self.out} was made otherwise ({told}). Use --overwrite, or choose another output."
            )
        check_writable(self.parts)
        with written_whole(self.parts / _PLAN) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def create(
        self,
        identity: str,
        shape: tuple[int, int],
        pixel_size: tuple[float, float] | None,
        chunk: int,
        *,
        overwrite: bool,
    ) -> None:
        """Make the label image, unless an earlier run has drawn in it; it is there whole or not at all.

        Parameters
        ----------
        identity
            Of this run.
        shape, pixel_size
            (H, W), and (row, column) in micrometres or None.
        chunk
            Side of the chunks in pixels.
        overwrite
            Begin with an empty one in any case.
        """
        import zarr

        record = read_record(self.out)
        if not overwrite and record is not None and record["identity"] == identity:
            with suppress(Exception):  # zarr raises many kinds for what was damaged; all is drawn at the end
                there = zarr.open_array(self.out / "0", mode="r")
                # Two tasks must not write to one chunk.
                sides = tuple(min(n, chunk) for n in shape)
                if (there.shape, there.chunks) == (shape, sides):
                    return
        with folder_written_whole(self.out) as part:
            create_levels(part, shape, "YX", "uint32", pixel_size=pixel_size, chunk=chunk)
            zarr.open_group(part, mode="r+").attrs[RECORD] = {"complete": False, "identity": identity}


def _differences(name: str, then: Any, now: Any) -> list[str]:
    """Say what differs between two values, of several settings only those that do.

    Examples
    --------
    >>> _differences("settings", {"mode": "grid", "object_size": None}, {"mode": "grid", "object_size": 26.0})
    ['object_size: None, now 26.0']
    """
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return [f"{name}: {then!r}, now {now!r}"]
    return [
        text
        for key in dict.fromkeys((*then, *now))
        if then.get(key) != now.get(key)
        for text in _differences(key, then.get(key), now.get(key))
    ]
