"""Going through a level tile by tile: each is read and encoded once, asked in rounds, and let go."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_lightsam.engine.assemble import usual_thresholds
from napari_lightsam.engine.candidates import Candidates, collect, concatenate
from napari_lightsam.engine.config import keep_floors, thresholds
from napari_lightsam.engine.decode import decode_batch, inside, lay_windows, window_size, window_sizes
from napari_lightsam.engine.found import Found
from napari_lightsam.engine.level import BlockReader
from napari_lightsam.engine.progress import Progress
from napari_lightsam.engine.select import plausible
from napari_lightsam.engine.stopping import Stopped, stoppable
from napari_lightsam.engine.tile import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_lightsam.engine.config import EverythingConfig
    from napari_lightsam.engine.level import Block, Embedding, Level
    from napari_lightsam.engine.prompts import Prompts
    from napari_lightsam.engine.samplers import Ask, Rounds, Sampler
    from napari_lightsam.engine.segmenter import Segmenter

Steps = Generator[Progress, None, list[Candidates]]


@dataclass(slots=True)
class CutPrompt:
    """A prompt whose object reached past its decoding window.

    Attributes
    ----------
    prompts
        Of this one object.
    multimask
        Three readings were asked for.
    number
        Of the prompt.
    shown
        The one candidate that was cut.
    side
        Of the window that cut it, in frame pixels.
    """

    prompts: Prompts
    multimask: bool
    number: int
    shown: Candidates
    side: int

    @property
    def level(self) -> Level:
        """Scale at which the object did not fit."""
        return self.shown.level


@dataclass(slots=True)
class Walk:
    """One run of everything mode: what is asked, how far it has come, and whether it was stopped.

    Attributes
    ----------
    segmenter, embedding, config
        Model, plane and settings.
    stop
        Called before each batch, and while the network computes; the walk ends when it says True.
    asked
        Prompts decoded so far.
    numbered
        Prompts that have a number so far; `Candidates.prompts` holds these.
    stopped
        `stop` said True: not everything was asked.
    cut
        Prompts to be asked again at a coarser scale.
    """

    segmenter: Segmenter
    embedding: Embedding
    config: EverythingConfig
    stop: Callable[[], bool] | None = None
    asked: int = 0
    numbered: int = 0
    stopped: bool = False
    cut: list[CutPrompt] = field(default_factory=list)

    def through(self, level: Level, blocks: Sequence[Block], sampler: Sampler) -> Steps:
        """Ask what a sampler places in some blocks of a level.

        Parameters
        ----------
        level
            The scale.
        blocks
            In the order in which they are read.
        sampler
            Places the prompts.
        """
        segmenter = self.segmenter
        reader = BlockReader(self.embedding.plane, level, segmenter.spec)
        parts: list[Candidates] = []
        begun = self.asked
        for done, block in enumerate(blocks):
            if self._must_stop():
                break
            left = len(blocks) - done - 1
            expected = self._expected(begun, 0, max(0, done - 1), left + 1)  # this one is still to come
            yield Progress("encoding the image", self.asked, expected)
            tile = Tile(segmenter.runtime, segmenter.spec, self.embedding, level, block, reader)
            parts += yield from self._rounds(tile, sampler(tile, self.config), begun, done, left)
        return parts

    def _rounds(self, tile: Tile, rounds: Rounds, begun: int, done: int, left: int) -> Steps:
        """Ask all rounds of one tile."""
        parts: list[Candidates] = []
        try:
            with stoppable(self.stop):
                ask = next(rounds)
            while not self.stopped:
                numbers = self._numbers(ask)
                found: list[Candidates] = []
                coming = len(ask.prompts) + ask.waiting
                for side, batch in self._batches(tile, ask):
                    if self._must_stop():
                        break
                    with stoppable(self.stop):
                        part = self._ask(tile, ask, batch, side, numbers)
                    found.append(part)
                    parts.append(replace(part, prompts=numbers[part.prompts]))
                    coming -= len(batch)
                    expected = self._expected(begun, coming, done, left)
                    yield Progress("segmenting", self.asked, expected, Found(parts[-1], self.config))
                with stoppable(self.stop):
                    ask = rounds.send(concatenate(found, tile.level))
        except StopIteration:
            pass
        except Stopped:
            if not self._must_stop():  # it is another who wants no result at all
                raise
        finally:
            rounds.close()
        return parts

    def _batches(self, tile: Tile, ask: Ask) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Yield the side of a window and the prompts to decode at once, as many as make equal work."""
        spec, level = self.segmenter.spec, tile.level
        usual = window_size(level, spec)
        sides = window_sizes(ask.prompts, level, spec) if ask.tight else np.full(len(ask.prompts), usual)
        for side in np.unique(sides):
            members = np.flatnonzero(sides == side)
            count = self.config.batch * (usual * usual // (side * side) if side else 1)
            for first in range(0, len(members), count):
                yield int(side), members[first : first + count]

    def _numbers(self, ask: Ask) -> NDArray[np.intp]:
        """Return the run's numbers of the prompts of a round."""
        if ask.index is not None:
            return ask.index
        self.numbered += len(ask.prompts)
        return np.arange(self.numbered - len(ask.prompts), self.numbered)

    def _must_stop(self) -> bool:
        self.stopped = self.stopped or (self.stop is not None and bool(self.stop()))
        return self.stopped

    def _expected(self, begun: int, coming: int, done: int, left: int) -> int:
        """Return how many prompts there will be: tiles to come are taken to be like those before."""
        here = self.asked - begun + coming
        return self.asked + coming + round(left * here / (done + 1))

    def _ask(
        self, tile: Tile, ask: Ask, batch: NDArray[np.intp], side: int, numbers: NDArray[np.intp]
    ) -> Candidates:
        """Decode some prompts of a round and keep what passes; `Candidates.prompts` count in the round."""
        segmenter, level = self.segmenter, tile.level
        prompts = ask.prompts.take(batch)
        starts = lay_windows(prompts, level, side)
        if side:
            starts = inside(starts, tile.block, side)
        part = decode_batch(
            segmenter.runtime,
            tile.tokens(),
            level,
            tile.block,
            prompts,
            starts,
            side,
            multimask=ask.multimask or segmenter.spec.always_multimask,
        )
        self.asked += len(batch)
        floors = keep_floors(self.config, usual_thresholds(segmenter.spec))
        found = collect(
            level,
            part.logits,
            part.iou,
            part.origins,
            batch,
            prompts.first_points().astype(np.float32),
            stability_offset=segmenter.spec.everything.stability_offset,
            min_iou=floors.iou,
            min_stability=floors.stability,
        )
        sure = plausible(
            found,
            iou_threshold=self.config.iou_threshold or 0.0,
            stability_threshold=self.config.stability_threshold or 0.0,
        )
        self._remember_cut(ask, found.take(sure), numbers, side)
        return found

    def passing(self, found: Candidates) -> NDArray[np.bool_]:
        """Tell which candidates pass the thresholds of the run; lower ones are kept for other balances."""
        iou, stability = thresholds(self.config, usual_thresholds(self.segmenter.spec))
        return np.asarray((found.iou >= iou) & (found.stability >= stability))

    def _remember_cut(self, ask: Ask, found: Candidates, numbers: NDArray[np.intp], side: int) -> None:
        """Remember the prompts whose best candidate reaches past its window."""
        found = found.take(self.passing(found))
        if not found.cut.any():
            return
        best: dict[int, int] = {}
        for i in np.argsort(found.iou * found.stability, kind="stable"):
            best[int(found.prompts[i])] = int(i)  # the best comes last
        for k, i in sorted(best.items()):
            if found.cut[i]:
                shown = found.take(np.array([i]))
                self.cut.append(CutPrompt(ask.prompts.take([k]), ask.multimask, int(numbers[k]), shown, side))
