"""What documents and sentences say of the window is there, and what is there stands in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import npe2
import pytest

from napari_lightsam import plugin

_SOURCE = Path(plugin.__file__).parent
_ROOT = _SOURCE.parents[2]
_DOCUMENTS = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]
_PATH = re.compile(r"(?:File|Layers|Plugins) > [^*()`\"]+")
_SYMBOLS = re.compile(r"[◀▶▸▾✓⚠]")
_KEYS = re.compile(r" \((?:C|Q|N|A|R|D|Shift\+C)\)$")  # behind the name of a button


def menu_paths():
    """Return the menu paths that documents and sentences name, as tuples of titles."""
    texts = [re.sub(r"\s+", " ", path.read_text(encoding="utf-8")) for path in _DOCUMENTS]
    texts += [path.read_text(encoding="utf-8") for path in sorted(_SOURCE.rglob("*.py"))]
    return sorted({tuple(found.strip().split(" > ")) for text in texts for found in _PATH.findall(text)})


def menus():
    """Return the paths that napari offers, its own and those of this plugin."""
    from napari._app_model.actions._file import FILE_SUBMENUS
    from napari._qt._qapp_model.qactions._file import Q_FILE_ACTIONS
    from napari._qt._qapp_model.qactions._layers_actions import LAYERS_SUBMENUS
    from napari._qt._qapp_model.qactions._plugins import Q_PLUGINS_ACTIONS

    found = {("File", action.title) for action in Q_FILE_ACTIONS}
    found |= {("Plugins", action.title) for action in Q_PLUGINS_ACTIONS}
    titles = {str(item.submenu): ("File", item.title) for _, item in FILE_SUBMENUS}
    titles |= {str(item.submenu): ("Layers", item.title) for _, item in LAYERS_SUBMENUS}
    for name in ("napari", "napari-lightsam"):
        manifest = npe2.PluginManager.instance().get_manifest(name)
        commands = {command.id: command.title for command in manifest.contributions.commands}
        for menu, items in (manifest.contributions.menus or {}).items():
            if menu in titles:
                found |= {(*titles[menu], commands[item.command]) for item in items}
        found |= {("Plugins", widget.display_name) for widget in manifest.contributions.widgets or ()}
        for sample in manifest.contributions.sample_data or ():
            found.add(("File", "Open Sample", manifest.display_name, sample.display_name))
    return found


def test_every_menu_that_is_named_is_one_of_naparis():
    named, there = menu_paths(), menus()
    assert ("Plugins", "LightSAM") in named
    assert len(named) >= 6
    known = {path[:length] for path in there for length in range(2, 5)}
    assert [path for path in named if path not in known] == []


@pytest.fixture
def controls(dock_of_stack):
    """What buttons, switches and the labels beside fields say."""
    from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton

    found = set()
    for kind in (QPushButton, QCheckBox):
        found |= {part.text() for part in dock_of_stack.findChildren(kind)}
    for form in dock_of_stack.findChildren(QFormLayout):
        for row in range(form.rowCount()):
            item = form.itemAt(row, QFormLayout.ItemRole.LabelRole)
            if item is not None and item.widget() is not None:
                found.add(item.widget().text())
    return sorted({_KEYS.sub("", _SYMBOLS.sub("", text)).strip() for text in found} - {""})


def test_every_control_of_the_dock_stands_in_the_documents(controls):
    text = re.sub(r"\s+", " ", "\n".join(path.read_text(encoding="utf-8") for path in _DOCUMENTS))
    assert {"Segment everything", "Save object", "Object size", "Review and correct"} <= set(controls)
    assert [control for control in controls if control not in text] == []
