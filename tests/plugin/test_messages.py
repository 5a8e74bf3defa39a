"""Words of the plugin that depend on the computer."""

import re
from pathlib import Path

import pytest

import napari_lightsam.plugin
from napari_lightsam.plugin.messages import shortcut

PLUGIN = Path(napari_lightsam.plugin.__file__).parent


@pytest.mark.parametrize(("system", "key"), [("darwin", "Cmd+Z"), ("linux", "Ctrl+Z"), ("win32", "Ctrl+Z")])
def test_a_key_is_named_as_the_keyboard_names_it(monkeypatch, system, key):
    monkeypatch.setattr("sys.platform", system)
    assert shortcut("Z") == key


def test_no_sentence_names_a_key_that_a_mac_has_not():
    named = re.compile(r'"[^"]*\bCtrl\+\w[^"]*"')
    texts = {
        path.name: re.sub(r'"""[\s\S]*?"""', "", path.read_text("utf-8")) for path in PLUGIN.rglob("*.py")
    }
    assert {name: found for name, text in texts.items() if (found := named.findall(text))} == {}
