"""The settings of the dock as the recipe of a batch, and the other way round. Knows napari but no Qt."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_lightsam.engine.registry import find_model
from napari_lightsam.errors import ConfigError
from napari_lightsam.plugin.inference import Settings
from napari_lightsam.plugin.request import own_sources
from napari_lightsam.plugin.scope import Scope, stack_axis
from napari_lightsam.plugin.viewer.axes import AxisRole, NoPlane, level0, pixel_size
from napari_lightsam.plugin.viewer.camera import show_plane
from napari_lightsam.session.recipe import is_known_model

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_lightsam.batch.recipe import Recipe
    from napari_lightsam.batch.settings import BatchSettings
    from napari_lightsam.plugin.controller import Controller
    from napari_lightsam.plugin.viewer.axes import Plane

_SLIDERS = {AxisRole.DEPTH: "z", AxisRole.TIME: "time", AxisRole.CHANNEL: "channel"}


def recipe_from(control: Controller, *, overlay: bool = False) -> Recipe:
    """Make the recipe of what the controller would do with the image on display.

    Model, object size and all settings of everything mode are taken; channel, plane, time point and linking
    as far as an image is open. A pixel size is taken where it is not the one of the image's file.

    Parameters
    ----------
    control
        The controller.
    overlay
        Also write pictures.

    Raises
    ------
    ConfigError
        The settings contradict each other, or all time points are wanted.
    """
    from napari_lightsam.batch.recipe import OVERLAY, Recipe
    from napari_lightsam.batch.settings import BatchSettings

    choices, settings = control.everything.choices, control.shown.settings
    config = replace(choices.config, object_size=settings.object_size)
    chosen = _of_plane(control)
    image, size = control.annotator.image, control.pixel_size_um
    if size is not None and image is not None and pixel_size(image)[0] != size:
        chosen["pixel_size"] = (size, size)
    batch = BatchSettings(config=config, **chosen)
    return Recipe(batch, settings.model, (OVERLAY,) if overlay else ())


def _of_plane(control: Controller) -> dict[str, Any]:
    """Say in the terms of a batch which plane of the image is on display."""
    image, plane = _displayed(control)
    if image is None or plane is None:
        return {}
    steps = zip(plane.roles, plane.index, strict=False)
    chosen: dict[str, Any] = {_SLIDERS[role]: at for role, at in steps if at is not None and role in _SLIDERS}
    axis = stack_axis(image, plane) if control.everything.choices.scope is Scope.STACK else None
    if axis is not None and plane.roles[axis] is AxisRole.TIME:
        raise ConfigError(
            "In this image 'all planes' are its time points, and a batch segments one of each file. Choose "
            "'this plane' and show the time point that is wanted, or segment them one after the other: "
            "`lightsam segment --time 0`, `--time 1`, ..., each into a folder of its own."
        )
    if axis is not None:
        del chosen["z"]
        chosen["link"] = True
    image_id = control.annotator.image_id
    channels = [source.channel for source in control.shown.sources if source.layer == image_id]
    if channels and None not in channels:
        chosen["channel"] = channels[0] if len(channels) == 1 else tuple(channels)
    return chosen


def take_recipe(control: Controller, recipe: Recipe) -> tuple[str, ...]:
    """Choose what a recipe says.

    Model, object size and all settings of everything mode replace those that were chosen. Channel, plane,
    time point, linking and pixel size are of images: they are taken where one is open that has them.

    Returns
    -------
    tuple of str
        What the recipe says beyond that, in its own words, such as ``"device: cpu"``: the dock has no choice
        for it, or the image has no such channel or plane.
    """
    settings, left = recipe.settings, []
    model = control.shown.settings.model
    if is_known_model(recipe.model):
        model = find_model(recipe.model).spec.name
    elif Path(recipe.model).is_file():
        model = recipe.model
    else:
        left.append("model")
    image, plane = _displayed(control)
    left += _take_plane(control, image, plane, settings)
    stacked = settings.link and "link" not in left
    everything = control.everything
    everything.choose(
        replace(
            everything.choices,
            config=replace(settings.config, object_size=None),  # it is kept with the model
            scope=_scope(everything.choices.scope, stacked=stacked),
        )
    )
    control.shown.use_settings(Settings(model, settings.config.object_size))
    control.settings_taken.emit()
    said = {**settings.to_plain(), "model": recipe.model}
    return tuple(f"{name}: {said[name]}" for name in left)


def _take_plane(
    control: Controller, image: Image | None, plane: Plane | None, settings: BatchSettings
) -> list[str]:
    """Show the plane that is wanted; returns the names of settings that cannot be followed."""
    from napari_lightsam.batch.recipe import changed

    own = {one.name for one in fields(settings)}
    wanted = {name: getattr(settings, name) for name in changed(settings) if name in own}
    if image is None or plane is None:
        return list(wanted)
    at = list(plane.corner())
    for axis, (role, step) in enumerate(zip(plane.roles, plane.index, strict=True)):
        to = wanted.get(_SLIDERS.get(role, ""))
        if step is not None and isinstance(to, int) and to < level0(image).shape[axis]:
            at[axis] = to
            if role is not AxisRole.CHANNEL:  # which is chosen below: a slider moves on
                del wanted[_SLIDERS[role]]
    show_plane(control.viewer, image, at)
    channel = wanted.get("channel")
    sources = own_sources(control.viewer, image, channel if isinstance(channel, tuple) else (channel,))
    if channel is None:
        control.shown.use_sources(())
    elif sources:
        control.shown.use_sources(sources)
        del wanted["channel"]
    axis_of_stack = stack_axis(image, plane)
    if axis_of_stack is not None and plane.roles[axis_of_stack] is AxisRole.DEPTH:
        wanted.pop("link", None)
    if settings.pixel_size is not None and len(set(settings.pixel_size)) == 1:
        control.pixel_size_um = settings.pixel_size[0]
        del wanted["pixel_size"]
    return list(wanted)


def _scope(now: Scope, *, stacked: bool) -> Scope:
    if stacked:
        return Scope.STACK
    return Scope.PLANE if now is Scope.STACK else now  # of a part in view or drawn, recipes know nothing


def _displayed(control: Controller) -> tuple[Image | None, Plane | None]:
    image = control.annotator.image
    with suppress(NoPlane):
        if image is not None:
            return image, control.annotator.plane()
    return image, None
