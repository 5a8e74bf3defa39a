"""One image larger than memory: segmented block by block on a dask scheduler into an OME-Zarr label image.

What decides the result is fixed before the first block: normalisation, object size, thresholds and the
layout of the blocks, which are those of the engine. Each block's objects are found by the engine's own
functions; neighbours are compared once all blocks are there, and the labels are then numbered from 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari_lightsam
from napari_lightsam.batch.lock import locked
from napari_lightsam.batch.scale import Cancelled, Pool, WorkerModel
from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.batch.slide_blocks import Failed, Finished, SlidePlan
from napari_lightsam.batch.slide_record import (
    NORMALISED,
    RECORD,
    read_facts,
    read_record,
    recall_plane,
    recall_size,
)
from napari_lightsam.batch.slide_seams import count_left
from napari_lightsam.batch.slide_source import Forgiving, SlidePlane, describe_state
from napari_lightsam.batch.slide_stages import compare_blocks, draw_labels, make_copies, segment_blocks
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import check_writable, written_whole
from napari_lightsam.formats.ome_zarr import check_replaceable, create_levels

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lightsam.engine.image import ArrayLike
    from napari_lightsam.engine.level import Level
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter

CHUNK = 1024
"""Side of the label image's chunks."""

_PLAN = "plan.json"
_FRAME_UNIT = 64


@dataclass(frozen=True, slots=True)
class SlideReport:
    """What became of a slide.

    Attributes
    ----------
    path
        The OME-Zarr label image.
    shape
        (H, W).
    n_objects
        Labels are 1..n.
    object_size
        Diameter in pixels; None where nothing was found to estimate it from.
    blocks, skipped
        How many there are, and how many of them an earlier run had finished.
    failed
        Blocks that could not be segmented; there the labels are 0.
    notes
        What a user should know.
    """

    path: Path
    shape: tuple[int, int]
    n_objects: int
    object_size: float | None
    blocks: int
    skipped: int
    failed: tuple[Failed, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every block was segmented, else 1."""
        return 1 if self.failed else 0


def segment_slide(
    image: ArrayLike | str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: BatchSettings | None = None,
    *,
    model: str | Segmenter = "lightsam",
    scheduler: Any = "threads",
    workers: int | None = None,
    threads: int | None = None,
    block: int = 1280,
    chunk: int = CHUNK,
    overwrite: bool = False,
) -> Work[SlideReport]:
    """Segment an image that is larger than memory; a generator of `Progress` that returns a `SlideReport`.

    A run that was stopped, by closing the generator or by force, is continued by the same call: blocks that
    are finished lie in the folder `<out>.parts` until the slide is. Until then the labels of finished blocks
    can be looked at in `out`, with ids that are not final, and objects on seams there twice. A part of the
    image that cannot be read fails its blocks alone. Of an image that was changed since, by the size and time
    of its files, nothing is continued.

    Parameters
    ----------
    image
        Path or address of an OME-Zarr image or zarr array, or a TIFF file; or an array (H, W) or (H, W, C).
        With processes or a cluster it must be one that travels by name, such as zarr or dask arrays, and
        paths must mean the same to all workers.
    out
        Folder of the OME-Zarr label image (NGFF 0.4, uint32, with smaller copies). All workers write there.
    settings
        How the image is read and segmented; None means the defaults.
    model
        Name, path of a checkpoint, or a loaded `Segmenter` whose name other processes can load as well.
    scheduler
        `threads`, `processes`, the address of a dask scheduler such as `tcp://host:8786`, or a
        `distributed.Client`. The result is the same for all, bit by bit, where `threads` is.
    workers
        How many, on this machine; one a core. A cluster has its own.
    threads
        Threads that the model computes with in each worker process; None: the cores divided by the
        workers, or 1 on a cluster. With `threads` as scheduler it is this process' own.
    block
        Largest side of what is encoded at once, in the model's pixels: from 512, in steps of 64. It decides
        the memory of a worker. Objects near the seams may differ a little between layouts.
    chunk
        Side of the label image's chunks in pixels; it changes no label.
    overwrite
        Begin anew, whatever is there.

    Raises
    ------
    FileError
        If the image cannot be opened or is changed during the run, another run uses `out`, or that is
        something else than a label image.
    ImageError
        If nothing of the image can be read, or it is no plane.
    ConfigError
        If a setting is not accepted, the model looks at whole images alone, or `out` was begun with other
        settings.
    WeightsError, DeviceError
        If the model or device cannot be used, here or by a worker.
    WriteError
        If the disk is full or `out` cannot be written.

    Examples
    --------
    >>> import tempfile, zarr
    >>> from napari_lightsam.batch import BatchSettings
    >>> from napari_lightsam.engine.config import EverythingConfig
    >>> from napari_lightsam.engine.progress import drain
    >>> from napari_lightsam.samples import read_sample
    >>> image = read_sample("nuclei_fluorescence")[:200, :200]
    >>> settings = BatchSettings(config=EverythingConfig(object_size=26))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = drain(segment_slide(image, f"{folder}/labels.zarr", settings))
    ...     labels = zarr.open_array(f"{folder}/labels.zarr/0")[:]
    >>> bool(labels.max() == report.n_objects), report.failed
    (True, ())
    """
    settings = settings or BatchSettings()
    _check(settings, block, chunk, threads, scheduler)
    out = Path(out)
    yield Progress("opening the image", 0, 0)
    plane = SlidePlane(image, settings) if isinstance(image, str | os.PathLike) else image
    pool = Pool(scheduler, workers)
    try:
        yield Progress("loading the model", 0, 1)
        told = threads if threads is not None else pool.threads_each()
        worker = _load(model, settings, None if pool.name == "threads" else told)
        slide = _Slide(worker, settings, out, block, chunk, overwrite)
        return (yield from slide.run(plane, pool))
    finally:
        pool.close()


def _check(settings: BatchSettings, block: int, chunk: int, threads: int | None, scheduler: Any) -> None:
    from napari_lightsam.engine.level import LEAST_BLOCK

    if settings.link:
        raise ConfigError("A slide is one plane; choose it with z and time instead of linking planes.")
    if settings.series == "all":
        raise ConfigError("A slide is one image; choose it with series, by its number from 0.")
    if block < LEAST_BLOCK or block % _FRAME_UNIT:
        raise ConfigError(f"block is a multiple of {_FRAME_UNIT} from {LEAST_BLOCK}; got {block}.")
    if chunk < _FRAME_UNIT:
        raise ConfigError(f"chunk is at least {_FRAME_UNIT} pixels; got {chunk}.")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads is at least 1; got {threads}.")
    if threads is not None and isinstance(scheduler, str) and scheduler == "threads":
        raise ConfigError(
            "With threads as scheduler the model computes with the threads of this process; choose processes "
            "instead, or set OMP_NUM_THREADS before it starts."
        )


def _load(model: str | Segmenter, settings: BatchSettings, threads: int | None) -> WorkerModel:
    if not isinstance(model, str):
        return WorkerModel.of(model, model.spec.name, threads)
    from napari_lightsam.engine.segmenter import load_segmenter

    segmenter = load_segmenter(
        model, device=settings.device, precision=settings.precision, runtime=settings.runtime
    )
    return WorkerModel.of(segmenter, model, threads)


@dataclass(frozen=True, slots=True)
class _Slide:
    """A run over one slide."""

    worker: WorkerModel
    settings: BatchSettings
    out: Path
    block: int
    chunk: int
    overwrite: bool

    @property
    def parts(self) -> Path:
        return self.out.with_name(f"{self.out.name}.parts")

    def run(self, plane: ArrayLike, pool: Pool) -> Work[SlideReport]:
        """Segment a slide while no other run may write to its output."""
        check_writable(self.out.parent)
        with locked(self.out, self.out.with_name(f".{self.out.name}.lock")):
            return (yield from self._run(plane, pool))

    def _run(self, plane: ArrayLike, pool: Pool) -> Work[SlideReport]:
        done = self._begin()
        plan, level, notes, about = yield from self._plan(plane)
        if pool.name != "threads":
            self.worker.forget()  # the model has laid out the blocks; others compute them
        if done is not None and done["identity"] == plan.identity:
            size = plan.config.object_size
            return SlideReport(
                self.out, plan.plane.shape, done["n_objects"], size, done["blocks"], done["blocks"], (), notes
            )
        self._check_same(plan, about, done)
        blocks = [] if plan.plane.blank or plan.config.object_size is None else level.block_list()
        skipped = sum(plan.kept(i).is_file() for i in range(len(blocks)))
        self._create(plan, plane)
        found = yield from segment_blocks(plan, level, blocks, pool, self.chunk)
        finished = {i: part for i, part in found.items() if isinstance(part, Finished)}
        failed = tuple(part for _, part in sorted(found.items()) if isinstance(part, Failed))
        if describe_state(plane) != about["source"]:
            raise FileError(f"{about['image']} was changed during the run. Use --overwrite to begin anew.")
        changes = yield from compare_blocks(plan, finished, pool)
        counts = count_left(finished, changes)
        yield from draw_labels(plan, finished, counts, changes, pool, self.chunk)
        yield from make_copies(plan, pool, self.chunk)
        total = sum(counts.values())
        report = SlideReport(
            self.out, level.shape, total, plan.config.object_size, len(blocks), skipped, failed, notes
        )
        self._finish(plan, about, report, pool)
        return report

    def _begin(self) -> dict[str, Any] | None:
        """Make room; return the record of a slide that is complete already."""
        if not self.overwrite:
            record = read_record(self.out)
            if record is None and self.out.exists() and not (self.parts / _PLAN).is_file():
                raise ConfigError(
                    f"{self.out} is there and was not begun by a run like this. Use --overwrite, or choose "
                    "another output."
                )
            return record if record is not None and record["complete"] else None
        check_replaceable(self.out)
        shutil.rmtree(self.parts, ignore_errors=True)
        return None

    def _earlier(self) -> dict[str, Any]:
        """Return what earlier runs noted: of one that is not complete beside its blocks."""
        return {**read_facts(self.parts / _PLAN), **(read_record(self.out) or {})}

    def _plan(self, plane: ArrayLike) -> Work[tuple[SlidePlan, Level, tuple[str, ...], dict[str, Any]]]:
        """Fix what holds for the whole slide."""
        from napari_lightsam.engine.assemble import fill_defaults, fix_thresholds, usual_thresholds
        from napari_lightsam.engine.image import prepare_plane
        from napari_lightsam.engine.level import Embedding
        from napari_lightsam.engine.size import estimate_size
        from napari_lightsam.model.spec import ObjectFrame

        segmenter = self.worker.load()
        spec = segmenter.spec
        if not isinstance(spec.frame, ObjectFrame):
            raise ConfigError(
                f"{spec.title} looks at whole images in a frame of fixed size, so that blocks of one mean "
                "nothing to it. Use a model that follows object size, such as lightsam."
            )
        earlier = {} if self.overwrite else self._earlier()
        forgiving = Forgiving(plane)
        prepared = recall_plane(forgiving, earlier)
        if prepared is None:
            yield Progress("measuring brightness", 0, 0)
            prepared = prepare_plane(forgiving, rgb=getattr(plane, "rgb", None))
        size = self.settings.config.object_size or recall_size(earlier)
        if size is None:
            yield Progress("estimating the object size", 0, 1)
            size = estimate_size(segmenter, Embedding(prepared, None, self.worker.weights_hash))
        config = fill_defaults(self.settings.config, spec, size)
        config = fix_thresholds(config, usual_thresholds(spec))
        about = {
            "version": napari_lightsam.__version__,
            "image": str(getattr(plane, "path", type(plane).__name__)),
            "source": describe_state(plane),
            "pixel_size": self.settings.pixel_size or getattr(plane, "pixel_size", None),
            "shape": list(plane.shape),
            "dtype": str(plane.dtype),
            **{name: getattr(prepared, name) for name in NORMALISED},
            "limits": [list(pair) for pair in prepared.limits],
            "settings": self.settings.to_plain(),
            "object_size": size,
            "model": spec.name,
            "model_sha256": self.worker.weights_hash,
            "precision": self.worker.precision,
            "runtime": self.worker.runtime,
            "block": self.block,
        }
        identity = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        notes = getattr(plane, "notes", ())
        if forgiving.missing:
            notes = (*notes, "brightness was measured without parts that cannot be read")
        plan = SlidePlan(
            replace(prepared, data=plane), config, self.worker, self.block, self.out, self.parts, identity,
            Cancelled.inside(self.parts),
        )  # fmt: skip
        return plan, plan.look(segmenter)[1], notes, about

    def _check_same(self, plan: SlidePlan, about: Mapping[str, Any], done: Mapping[str, Any] | None) -> None:
        """Refuse to mix blocks of different settings."""
        earlier = dict(done) if done is not None else read_facts(self.parts / _PLAN)
        known = json.loads(json.dumps(about))
        differing = [key for key, value in known.items() if earlier and earlier.get(key) != value]
        if "source" in differing:  # which is why other measurements differ
            differing = [key for key in differing if key not in NORMALISED]
        if differing:
            told = "; ".join(
                "the image has changed since" if key == "source"
                else f"{key}: {earlier.get(key)!r}, now {known[key]!r}" for key in differing
            )  # fmt: skip
            raise ConfigError(
                f"{self.out} was made otherwise ({told}). Use --overwrite, or choose another output."
            )
        check_writable(self.parts)
        with written_whole(self.parts / _PLAN) as part:
            part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def _create(self, plan: SlidePlan, plane: ArrayLike) -> None:
        """Make the label image, unless an earlier run has drawn in it."""
        import zarr

        record = read_record(self.out)
        if not self.overwrite and record is not None and record["identity"] == plan.identity:
            with suppress(Exception):  # zarr raises many kinds for what was damaged; all is drawn at the end
                there = zarr.open_array(self.out / "0", mode="r")
                # Two tasks must not write to one chunk.
                sides = tuple(min(n, self.chunk) for n in plan.plane.shape)
                if (there.shape, there.chunks) == (plan.plane.shape, sides):
                    return
        size = self.settings.pixel_size or getattr(plane, "pixel_size", None)
        height, width = plan.plane.shape
        create_levels(self.out, (height, width), "YX", "uint32", pixel_size=size, chunk=self.chunk)
        zarr.open_group(self.out, mode="r+").attrs[RECORD] = {"complete": False, "identity": plan.identity}

    def _finish(self, plan: SlidePlan, about: Mapping[str, Any], report: SlideReport, pool: Pool) -> None:
        """Record how the labels were made; keep finished blocks only where others failed."""
        import zarr

        zarr.open_group(self.out, mode="r+").attrs[RECORD] = {
            **about,
            "complete": not report.failed,
            "identity": plan.identity,
            "n_objects": report.n_objects,
            "blocks": report.blocks,
            "failed": [{"box": list(part.box), "message": part.message} for part in report.failed],
            "scheduler": pool.name,
            "workers": pool.workers,
            "threads": self.worker.threads,
            "device": self.worker.device,
        }
        if not report.failed:
            shutil.rmtree(self.parts, ignore_errors=True)
