"""One image larger than memory: segmented block by block on a dask scheduler into an OME-Zarr label image.

What decides the result is fixed before the first block: normalisation, object size, thresholds and the
layout of the blocks, which are those of the engine. Each block's objects are found by the engine's own
functions; neighbours are compared once all blocks are there, and the labels are then numbered from 1.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.batch.lock import locked
from napari_lightsam.batch.scale import Pool, check_scheduler
from napari_lightsam.batch.settings import BatchSettings, load_model
from napari_lightsam.batch.slide_blocks import Failed, Finished, SlidePlan
from napari_lightsam.batch.slide_place import SlidePlace
from napari_lightsam.batch.slide_plan import Order, make_plan, make_plan_elsewhere
from napari_lightsam.batch.slide_record import RECORD
from napari_lightsam.batch.slide_seams import count_left
from napari_lightsam.batch.slide_source import SlidePlane, describe_state
from napari_lightsam.batch.slide_stages import compare_blocks, draw_labels, make_copies, segment_blocks
from napari_lightsam.batch.worker_model import WorkerModel
from napari_lightsam.engine.folders import expanded
from napari_lightsam.engine.given import as_array
from napari_lightsam.engine.progress import Progress
from napari_lightsam.errors import ConfigError, FileError
from napari_lightsam.formats.atomic import check_writable
from napari_lightsam.formats.guard import protect_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_lightsam.batch.lock import Hold
    from napari_lightsam.engine.image import ArrayLike
    from napari_lightsam.engine.progress import Work
    from napari_lightsam.engine.segmenter import Segmenter

CHUNK = 1024
"""Side of the label image's chunks."""

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
    model: str | os.PathLike[str] | Segmenter = "lightsam",
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
        Name, path of a checkpoint, or a loaded `Segmenter` whose `source` other processes can load as well.
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
        If the image cannot be opened or is changed during the run, another run uses `out` or takes it, or
        that is to be overwritten and no label image.
    ImageError
        If nothing of the image can be read, or it is no plane.
    ConfigError
        If a setting is not accepted, the model looks at whole images alone, `out` was begun with other
        settings, is the image or lies inside it, or files of others are in the way.
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
    if isinstance(model, os.PathLike):  # a file, whatever names of models there are
        model = str(expanded(model).absolute())
    _check(settings, block, chunk, threads, scheduler)
    check_scheduler(scheduler)
    out = Path(out)
    yield Progress("opening the image", 0, 0)
    plane = SlidePlane(image, settings) if isinstance(image, str | os.PathLike) else as_array(image)
    place = SlidePlace(out)
    if isinstance(plane, SlidePlane) and isinstance(plane.path, Path):
        protect_inputs([plane.path], [place.out, place.parts])
    pool = Pool(scheduler, workers)
    try:
        yield Progress("loading the model", 0, 1)
        told = threads if threads is not None else pool.threads_each()
        told = None if pool.name == "threads" else told
        with ExitStack() as held:
            if isinstance(model, str) and pool.name == "threads":
                model = load_model(model, settings)
            source = model if isinstance(model, str) else WorkerModel.of(model, told)
            if not isinstance(source, str):
                held.callback(source.forget)
            slide = _Slide(source, told, settings, place, block, chunk, overwrite)
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


@dataclass(frozen=True, slots=True)
class _Slide:
    """A run over one slide."""

    model: str | WorkerModel
    threads: int | None
    settings: BatchSettings
    place: SlidePlace
    block: int
    chunk: int
    overwrite: bool

    def run(self, plane: ArrayLike, pool: Pool) -> Work[SlideReport]:
        """Segment a slide while no other run may write to its output."""
        out = self.place.out
        check_writable(out.parent)
        with locked(out, out.with_name(f".{out.name}.lock")) as hold:
            return (yield from self._run(plane, pool, hold))

    def _run(self, plane: ArrayLike, pool: Pool, hold: Hold) -> Work[SlideReport]:
        place = self.place
        done = place.begin(overwrite=self.overwrite)
        earlier = {} if self.overwrite else place.earlier()
        there = SlidePlace(place.out.absolute())
        order = Order(self.settings, self.block, there, plane, earlier, hold)
        if isinstance(self.model, str):
            planned = make_plan_elsewhere(pool, self.model, self.threads, order)
        else:
            planned = make_plan(self.model, order)
        plan, level, notes, about = yield from planned
        if done is not None and done["identity"] == plan.identity:
            place.clear()  # of a run that was killed when it had finished
            size, n = plan.config.object_size, done["blocks"]
            return SlideReport(place.out, plan.plane.shape, done["n_objects"], size, n, n, (), notes)
        place.keep_plan(plan.identity, about, done, overwrite=self.overwrite)
        blocks = [] if plan.plane.blank or plan.config.object_size is None else level.block_list()
        place.create(
            plan.identity, plan.plane.shape, about["pixel_size"], self.chunk, overwrite=self.overwrite
        )
        found = yield from segment_blocks(plan, level, blocks, pool, self.chunk)
        finished = {i: part for i, part in found.items() if isinstance(part, Finished)}
        failed = tuple(part for _, part in sorted(found.items()) if isinstance(part, Failed))
        if describe_state(plane) != about["source"]:
            raise FileError(f"{about['image']} was changed during the run. Use --overwrite to begin anew.")
        changes = yield from compare_blocks(plan, finished, pool)
        counts = count_left(finished, changes)
        yield from draw_labels(plan, finished, counts, changes, pool, self.chunk)
        yield from make_copies(plan, pool, self.chunk)
        report = SlideReport(
            place.out, level.shape, sum(counts.values()), plan.config.object_size, len(blocks),
            sum(part.earlier for part in finished.values()), failed, notes,
        )  # fmt: skip
        self._finish(plan, about, report, pool)
        return report

    def _finish(self, plan: SlidePlan, about: Mapping[str, Any], report: SlideReport, pool: Pool) -> None:
        """Record how the labels were made; keep finished blocks only where others failed."""
        import zarr

        zarr.open_group(self.place.out, mode="r+").attrs[RECORD] = {
            **about,
            "complete": not report.failed,
            "identity": plan.identity,
            "n_objects": report.n_objects,
            "blocks": report.blocks,
            "failed": [{"box": list(part.box), "message": part.message} for part in report.failed],
            "scheduler": pool.name,
            "workers": pool.workers,
            "threads": plan.model.threads,
            "device": plan.model.device,
        }
        if not report.failed:
            self.place.clear()
