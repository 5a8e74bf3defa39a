"""Choosing again among what a run of everything mode kept, without a new run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_lightsam.engine.config import EverythingConfig, keep_floors, thresholds
from napari_lightsam.errors import LightSamError
from napari_lightsam.plugin.everything.layer import Written, hide_covered, update, write
from napari_lightsam.plugin.everything.scale import BalanceScale
from napari_lightsam.plugin.messages import report_error
from napari_lightsam.plugin.scope import Scope
from napari_lightsam.plugin.viewer import layers
from napari_lightsam.plugin.worker import Lane, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    import numpy as np
    from numpy.typing import NDArray

    from napari_lightsam.engine.assemble import Segmentation
    from napari_lightsam.plugin.everything.result import Choice, Objects
    from napari_lightsam.plugin.inference import Inference, Settings
    from napari_lightsam.plugin.objects.targets import Targets
    from napari_lightsam.plugin.scope import Region
    from napari_lightsam.plugin.shown import Shown
    from napari_lightsam.plugin.viewer.axes import Plane

LIVE = ("balance", "min_size", "max_size", "keep_border", "iou_threshold", "stability_threshold", "overlap")
"""Settings that choose among what a run kept, so that they need no new run."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose for everything mode.

    Attributes
    ----------
    scope
        How much is segmented.
    config
        Settings of the engine; the object size stands in `Settings`, as clicks use it too.
    prompts_from
        `unique_id` of the layer that says where objects are, or None.
    region_from
        `unique_id` of the Shapes layer whose areas are segmented, for `Scope.REGION`.
    """

    scope: Scope = Scope.PLANE
    config: EverythingConfig = field(default_factory=EverythingConfig)
    prompts_from: Hashable | None = None
    region_from: Hashable | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What a run is to do.

    Attributes
    ----------
    plane, region
        Where.
    axis
        Data axis of the planes of a stack; None for one plane.
    inside
        bool (h, w) of the region: objects elsewhere are left out; None: none are.
    settings, choices
        As they were when it was started.
    note
        Kept with the result, and added to.
    """

    plane: Plane
    region: Region
    axis: int | None
    inside: NDArray[np.bool_] | None
    settings: Settings
    choices: Choices
    note: dict[str, Any]


@dataclass(slots=True, eq=False)
class _Kept:
    """A finished run whose candidates are still there, and the layer that shows a choice of them."""

    asked: Asked
    segmentation: Segmentation | None
    """None for a stack, whose candidates are not kept."""
    written: Written
    shown: EverythingConfig
    scale: BalanceScale


class LastResult:
    """The last result of everything mode, open for other choices as long as its layer exists.

    Parameters
    ----------
    shown, worker, inference, targets
        Of the controller.
    say
        Shows a sentence in the status line.

    Attributes
    ----------
    changed
        Signal: `count` has changed.
    renumbered
        Signal(object): the objects of the layer with this `unique_id` were chosen anew; a label may be that
        of another object now.
    """

    changed = Signal()
    renumbered = Signal(object)

    def __init__(
        self,
        shown: Shown,
        worker: Worker,
        inference: Inference,
        targets: Targets,
        say: Callable[[str], object],
    ) -> None:
        self._shown, self._viewer, self._worker, self._inference = shown, shown.viewer, worker, inference
        self._targets, self._say = targets, say
        self._kept: _Kept | None = None
        self._earlier: dict[Hashable, list[Written]] = {}  # on display, of each image
        self._wanted: Choices | None = None
        self._waiting = False
        shown.plane_changed.connect(self._on_plane)
        self._viewer.layers.events.removed.connect(self._on_removed)

    @property
    def count(self) -> int | None:
        """Objects in the layer of the result; None when that is gone, or of another plane."""
        kept = self._live()
        return None if kept is None else len(kept.written.objects.scores)

    @property
    def scale(self) -> BalanceScale:
        """What a slider over the objects of the result is about."""
        kept = self._live()
        return BalanceScale() if kept is None else kept.scale

    def _live(self) -> _Kept | None:
        """Return the result while its plane is on display: elsewhere it must not change unseen."""
        kept, plane = self._kept, self._shown.plane
        return kept if kept is not None and plane is not None and plane.key == kept.asked.plane.key else None

    def needs_a_run(self, now: Choices, settings: Settings) -> bool:
        """Tell whether something is chosen now that the result cannot follow."""
        kept = self._live()
        if kept is None:
            return False
        made = kept.asked.choices
        if kept.segmentation is not None:
            if made.config.min_size is not None and now.config.min_size is None:
                return True  # what the model would take was not asked for
            if not _holds(kept.segmentation, made.config, now.config):
                return True
            made = replace(made, config=_with(made.config, now.config, LIVE))
        return now != made or settings != kept.asked.settings

    def write(
        self,
        asked: Asked,
        found: Segmentation | None,
        objects: Objects,
        shown: EverythingConfig,
        scale: BalanceScale,
    ) -> Written | None:
        """Add the objects of a run as a layer, and keep its candidates.

        Parameters
        ----------
        asked
            What the run did.
        found
            Its candidates, or None where none are kept.
        objects, shown
            What was chosen of them, and how.
        scale
            Over all of them.

        Returns
        -------
        Written or None
            None when the image was deleted; a message says so.
        """
        try:
            written = write(self._viewer, asked.plane, asked.region, asked.axis, objects, asked.note)
        except LightSamError as error:
            report_error(error)
            return None
        of_image = self._earlier.setdefault(asked.plane.layer, [])
        of_image[:] = [one for one in of_image if not hide_covered(self._viewer, one, written)]
        of_image.append(written)
        self._kept = _Kept(asked, found, written, shown, scale)
        self._targets.set(asked.plane.layer, written.layer)
        self.changed.emit()
        return written

    def follow(self, choices: Choices) -> None:
        """Bring the result in step with choices, in the background; the latest ones win.

        While another plane is on display they wait until its own comes back.
        """
        self._wanted = choices
        kept = self._live()
        if kept is None or kept.segmentation is None:
            return
        config = _chosen(kept.segmentation, kept.asked.choices.config, choices.config)
        if self._worker.is_busy(Lane.FILTER):
            self._waiting = True  # a submit now would drop the one under way, and a drag show nothing
            return
        if config == kept.shown:
            return
        same = replace(config, balance=kept.shown.balance) == kept.shown
        balances = kept.scale.balances if same else None
        self._worker.submit(
            Lane.FILTER,
            self._inference.filter(kept.segmentation, config, kept.asked.inside, balances),
            lambda choice: self._on_filtered(kept, config, choice),
            report_error,
        )

    def _on_filtered(self, kept: _Kept, config: EverythingConfig, choice: Choice) -> None:
        objects = choice.objects
        if kept is self._live():
            kept.shown, kept.scale = config, BalanceScale(choice.balances)
            if update(self._viewer, kept.written, objects, {"settings": asdict(config)}):
                self.renumbered.emit(kept.written.layer)
                self._say(f"{counted(len(objects.scores))} chosen, without a new run.")
            else:
                kept.asked.note["settings"] = asdict(config)
                written = self.write(kept.asked, kept.segmentation, objects, config, kept.scale)
                new = None if written is None else layers.by_id(self._viewer, written.layer)
                if new is not None:
                    self._say(f"The layer that you worked on stays as it is; the new choice is {new.name!r}.")
            self.changed.emit()
        if self._waiting and self._wanted is not None:
            self._waiting = False
            self.follow(self._wanted)

    def _on_plane(self) -> None:
        if self._wanted is not None:
            self.follow(self._wanted)  # what was chosen while another plane was shown
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        gone, kept = event.value.unique_id, self._kept
        self._earlier.pop(gone, None)
        for of_image in self._earlier.values():
            of_image[:] = [one for one in of_image if one.layer != gone]
        if kept is not None and gone in (kept.written.layer, kept.asked.plane.layer):
            self._kept = None  # with candidates that take more memory than the image
            self.changed.emit()

    def close(self) -> None:
        """Let go of the viewer; the layer stays."""
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._kept = None


def _with(config: EverythingConfig, other: EverythingConfig, names: tuple[str, ...]) -> EverythingConfig:
    """Return a config with some settings of another one."""
    return replace(config, **{name: getattr(other, name) for name in names})


def _chosen(found: Segmentation, made: EverythingConfig, now: EverythingConfig) -> EverythingConfig:
    """Return the settings of a run with what is chosen now, filled in as the run did."""
    config = _with(found.config, now, LIVE)
    left = [name for name in LIVE if getattr(now, name) is None and getattr(made, name) is None]
    if config.min_size is None:
        left.append("min_size")
    return _with(config, found.config, tuple(left))


def _holds(found: Segmentation, made: EverythingConfig, now: EverythingConfig) -> bool:
    """Tell whether a run kept all candidates that thresholds chosen now let pass."""
    usual = found.candidates.usual
    floors, wanted = keep_floors(made, usual), thresholds(now, usual)
    return wanted.iou >= floors.iou and wanted.stability >= floors.stability


def counted(count: int) -> str:
    """Say how many objects there are.

    Examples
    --------
    >>> counted(1), counted(2)
    ('1 object', '2 objects')
    """
    return "1 object" if count == 1 else f"{count} objects"
