"""Recipes: what is written is read back, and what is wrong is refused with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_lightsam.batch.recipe import Recipe, format_recipe, parse_recipe, read_recipe, write_recipe
from napari_lightsam.batch.run import segment_many
from napari_lightsam.batch.settings import BatchSettings
from napari_lightsam.engine.config import EverythingConfig
from napari_lightsam.errors import ConfigError, FileError

if TYPE_CHECKING:
    from pathlib import Path

FULL = Recipe(
    BatchSettings(
        EverythingConfig(mode="grid", object_size=26.5, iou_threshold=0.7, keep_border=False, batch=32),
        channel=("DAPI", 1), z="max", time=0, series="all", axes="CZYX", pixel_size=(0.5, 0.25),
        device="cpu", precision="float32", runtime="torch",
    ),
    model="mobile_sam",
    outputs=("roi", "overlay"),
)  # fmt: skip


@pytest.mark.parametrize("recipe", [FULL, Recipe()], ids=["all", "defaults"])
def test_a_recipe_is_read_back_as_it_was_written(tmp_path: Path, recipe: Recipe) -> None:
    write_recipe(tmp_path / "r.yaml", recipe)

    assert read_recipe(tmp_path / "r.yaml") == recipe
    assert "object_size: 26.5  # px" in format_recipe(FULL)


def test_a_checkpoint_is_found_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"")
    (tmp_path / "r.yaml").write_text("\ufeffmodel: mine.safetensors\npixel_size: 0.5\n", encoding="utf-8")

    recipe = read_recipe(tmp_path / "r.yaml")

    assert recipe.model == str(tmp_path / "mine.safetensors")
    assert recipe.settings.pixel_size == (0.5, 0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: grid\nobject_sise: 3", r"line 2: Unknown name 'object_sise'; known are .*object_size"),
        ("object_size: 0.2", "line 1: object_size must be a number between 1 and inf; got 0.2"),
        ("\n\nmode: magic", "line 3: Unknown mode 'magic'"),
        ("keep_border: 3", "line 1: keep_border must be True or False"),
        ("channel: no", "line 1: channel is a number from 0, a name"),
        ("channel: [1, 2, 3, 4]", "line 1: channel"),
        ("z: -1", "line 1: z is a plane number"),
        ("link: true\nz: 1", "line 2: Linking takes all planes"),
        ("min_size: 9\nmode: auto\nmax_size: 3", "line 1 and 3: min_size .9. is larger"),
        ("pixel_size: [0.5, .nan]", "line 1: pixel size"),
        ("pixel_size: wide", "line 1: pixel size"),
        ("outputs: [roi, png]", "line 1: No output is called 'png'; known are tiff"),
        ("runtime: tensorrt", "line 1: Unknown runtime"),
        ("axes: XZ", "line 1: axes"),
        ("mode: [grid]", "line 1: mode is one value"),
        ("mode: grid\nmode: auto", "line 2: 'mode' was given in line 1 already"),
        ("model: ''", "line 1: model is the name"),
        ("recipe: 7", "line 1: This is version 7"),
        ("a: &x 1\nb: *x", "line 1: references"),
        ("mode: {a: 1}", "line 1: values are numbers"),
        ("model: !!python/object:os.system x", "line 1"),
        ("mode: 'open", "line 1: this is no YAML"),
        ("- mode", "line 1: a recipe is a list of lines"),
        ("[" * 5000, "line 1: a recipe holds no lists within lists"),
        ("time: " + "1" * 9000, "line 1"),
        ("time: 2020-99-99", "line 1"),
        ("mode: \0", "no YAML"),
        ('mode: grid\ntime: !!timestamp "abc"', "line 2: tags"),
        ('link: !!bool "abc"', "line 1: tags"),
        ("outputs: !!seq [roi]", "line 1: tags"),
        ("object_size: " + "1:" * 5000 + "1.5", "line 1: the value is too long"),
        ("outputs: [" + "a," * 30_000 + "]", "line 1: a recipe holds a few settings"),
        ("outputs: [" + ", ".join(f"o{i}" for i in range(50)) + "]", r"'o8', 'o9' \.\.\.; known are"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text)


@pytest.mark.parametrize("content", [b"\xff\xfe\0", None, b"#" * 70_000], ids=["binary", "gone", "huge"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "r.yaml").write_bytes(content)

    with pytest.raises(FileError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Recipe(EverythingConfig(object_size=26)),
            "settings is a BatchSettings, .* got EverythingConfig",
        ),
        (lambda: BatchSettings({"object_size": 26}), "config is an EverythingConfig; got dict"),
        (
            lambda: next(segment_many(["a.tif"], "out", BatchSettings())),
            "recipe is a Recipe, .* got BatchSettings",
        ),
    ],
    ids=["settings of the engine", "a dictionary", "settings of a batch"],
)
def test_settings_of_another_kind_are_refused_with_those_that_are_wanted(make, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_recipe_says_that_brightness_comes_from_the_data_and_takes_no_other_word() -> None:
    text = format_recipe(Recipe())

    assert "normalisation: data" in text.splitlines()
    assert parse_recipe(text) == Recipe()
    with pytest.raises(ConfigError, match=r"line 1: normalisation is data: .* got 'sliders'"):
        parse_recipe("normalisation: sliders")
