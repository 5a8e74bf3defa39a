"""The examples in docstrings run and print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import napari_lightsam

ROOT = Path(napari_lightsam.__file__).parent
ROOMS = ("model", "engine", "formats", "batch", "session", "train", "samples")
MODULES = sorted(
    ".".join(("napari_lightsam", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in (p for room in ROOMS for p in (ROOT / room).glob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    assert len(MODULES) > 10


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, capsys, request):
    if name != "napari_lightsam.engine.segmenter":  # where the examples of loading are
        request.getfixturevalue("loaded_once")
    result = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0, capsys.readouterr().out
