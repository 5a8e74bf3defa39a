"""Sentences of the plugin that name a control name one that there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from napari_lightsam import plugin

_FOLDER = Path(plugin.__file__).parent
_NAMED = re.compile(r"(?<!\w)'([A-Za-z][^'{}]+)'(?!\w)")
_OTHER = {"image", "objects"}  # a column of a table, a word in a script


def parsed():
    """Return every module of the plugin with its docstrings taken out."""
    for path in sorted(_FOLDER.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [part for part in body if not _is_text(part)]
        yield path, tree


def _is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def texts(node):
    return {
        part.value for part in ast.walk(node) if isinstance(part, ast.Constant) if isinstance(part.value, str)
    }


def named():
    """Return what sentences name in quotes, with the module."""
    return {
        (name, str(path.relative_to(_FOLDER)))
        for path, tree in parsed()
        for text in texts(tree)
        for name in _NAMED.findall(text)
    }


def set_later():
    """Return what controls are called while something goes on."""
    calls = [n for path, tree in parsed() if path.parent.name == "widget" for n in ast.walk(tree)]
    later = (n for n in calls if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "setText")
    return {text for call in later for text in texts(call)}


def test_every_control_that_a_sentence_names_exists(dock_of_stack):
    from qtpy.QtWidgets import QAbstractButton, QComboBox, QLabel

    parts = [part for kind in (QAbstractButton, QLabel) for part in dock_of_stack.findChildren(kind)]
    there = {part.text() for part in parts}
    for combo in dock_of_stack.findChildren(QComboBox):
        there |= {combo.itemText(i) for i in range(combo.count())}
    there |= set_later()
    wanted = {(name, module) for name, module in named() if name not in _OTHER}
    assert len(wanted) > 10
    assert {(name, module) for name, module in wanted if name not in there} == set()
