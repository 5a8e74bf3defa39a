"""The import rule: what each part of the package may know, and what may be loaded when.

`errors <- model <- engine <- {formats, session} <- {batch, train} <- {plugin, cli}`; b may import a.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

PACKAGE = Path(__file__).parents[1] / "src" / "napari_lightsam"

ENGINE = {"errors", "model", "engine"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "samples": set(),
    "model": {"errors"},
    "engine": {"errors", "model"},
    "formats": ENGINE,
    "session": ENGINE | {"formats"},
    "batch": ENGINE | {"formats", "session"},
    "train": ENGINE | {"formats", "session", "samples"},
    "plugin": ENGINE | {"formats", "session", "samples", "batch", "train"},
    "cli": ENGINE | {"formats", "session", "samples", "batch", "train", "plugin"},
}
LAZILY = {("plugin", "batch"), ("plugin", "train"), ("cli", "train"), ("cli", "plugin")}
"""Imports that are allowed inside functions only."""
PLAIN = {"napari_lightsam.train.config"}
"""Settings that load neither torch nor a model, so that options may take their defaults from them."""

MODULE_LEVEL: dict[str, set[str]] = {
    "torch": {"model", "engine", "train"},
    "timm": {"model", "engine", "train"},
    "openvino": {"engine", "train"},
    "nncf": {"train"},
    "napari": {"plugin"},
    "qtpy": {"plugin"},
    "magicgui": {"plugin"},
}
"""Where heavy and graphical packages may be imported at module level."""

GRAPHICAL = {"qtpy", "magicgui"}


@dataclass(frozen=True)
class Import:
    """One import statement: `name` as a full dotted path, where it stands and when it runs."""

    file: Path
    line: int
    name: str
    at_module_level: bool
    for_types_only: bool

    @property
    def room(self) -> str:
        """Part of the package that imports: its top-level folder or module."""
        return self.file.relative_to(PACKAGE).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        return f"{self.file.relative_to(PACKAGE)}:{self.line} imports {self.name}"


def imports_in(code: str, file: Path) -> Iterator[Import]:
    """All imports of a module's code, relative ones resolved as if it lay at `file`."""
    parents = ["napari_lightsam", *file.relative_to(PACKAGE).parts[:-1]]

    def visit(node: ast.AST, at_module_level: bool, for_types_only: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, at_module_level, for_types_only)
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(file, node.lineno, f"{source}.{alias.name}", at_module_level, for_types_only)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_guard = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, at_module_level and not is_function, for_types_only or is_guard)

    yield from visit(ast.parse(code), True, False)


ALL_IMPORTS = [
    found
    for file in sorted(PACKAGE.rglob("*.py"))
    for found in imports_in(file.read_text(encoding="utf-8"), file)
]


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running `code`."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=environment
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_every_part_of_the_package_has_a_place_in_the_rule():
    parts = {
        p.name.removesuffix(".py")
        for p in PACKAGE.iterdir()
        if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert parts - {"__init__", "__main__"} <= set(MAY_IMPORT)


def test_every_part_imports_only_what_the_rule_allows():
    broken = []
    for found in ALL_IMPORTS:
        name = found.name.split(".")
        if name[0] != "napari_lightsam" or len(name) == 1 or found.room in ("__init__", "__main__"):
            continue
        target = name[1]
        if target not in MAY_IMPORT or target == found.room:
            continue  # a name of the lazy package root, or the part itself
        if target not in MAY_IMPORT[found.room]:
            broken.append(f"{found}: {found.room} may not know {target}")
        elif found.name.rpartition(".")[0] in PLAIN:
            continue
        elif (found.room, target) in LAZILY and found.at_module_level and not found.for_types_only:
            broken.append(f"{found}: only inside a function")
    assert broken == []


@pytest.mark.parametrize("heavy", MODULE_LEVEL)
def test_heavy_packages_are_imported_at_module_level_only_where_they_belong(heavy):
    broken = [
        str(found)
        for found in ALL_IMPORTS
        if found.name.split(".")[0] == heavy
        and found.at_module_level
        and not found.for_types_only
        and found.room not in MODULE_LEVEL[heavy]
    ]
    assert broken == []


def test_only_the_dock_widget_imports_graphical_packages_at_module_level():
    broken = [
        str(found)
        for found in ALL_IMPORTS
        if found.name.split(".")[0] in GRAPHICAL
        and found.at_module_level
        and not found.for_types_only
        and found.file.parent != PACKAGE / "plugin" / "widget"
    ]
    assert broken == []


def test_the_viewer_room_of_the_plugin_knows_none_of_its_features():
    broken = [
        str(found)
        for found in ALL_IMPORTS
        if found.file.parent == PACKAGE / "plugin" / "viewer"
        and found.name.startswith("napari_lightsam.plugin.")
        and not found.name.startswith("napari_lightsam.plugin.viewer.")
    ]
    assert broken == []


def test_relative_aliased_nested_and_type_only_imports_are_seen():
    code = (
        "from ..plugin import widget as w\n"
        "def f():\n"
        "    import napari_lightsam.cli\n"
        "if TYPE_CHECKING:\n"
        "    from .tables import measure_objects\n"
    )
    found = imports_in(code, PACKAGE / "formats" / "images.py")
    assert [(i.room, i.name, i.at_module_level, i.for_types_only) for i in found] == [
        ("formats", "napari_lightsam.plugin.widget", True, False),
        ("formats", "napari_lightsam.cli", False, False),
        ("formats", "napari_lightsam.formats.tables.measure_objects", True, True),
    ]


def test_importing_the_package_loads_nothing_but_itself_and_the_standard_library():
    before, after = modules_after(""), modules_after("import napari_lightsam")
    gained = after - before
    foreign = {name.split(".")[0] for name in gained} - set(sys.stdlib_module_names)
    assert {name for name in foreign if not name.startswith("__editable__")} == {"napari_lightsam"}
    assert "napari_lightsam.engine" not in gained
    assert len(gained) < 60


@pytest.mark.parametrize("name", ["errors", "engine.registry", "engine.progress", "samples", "train.config"])
def test_choosers_of_models_samples_or_settings_need_no_torch(name):
    loaded = {module.split(".")[0] for module in modules_after(f"import napari_lightsam.{name}")}
    assert loaded.isdisjoint({"torch", "timm", "napari", "qtpy"})


def manifest_modules() -> list[str]:
    """Modules that the manifest's reader, writer and sample-data commands name."""
    manifest = yaml.safe_load((PACKAGE / "napari.yaml").read_text(encoding="utf-8"))
    contributions = manifest["contributions"]
    python_names = {command["id"]: command["python_name"] for command in contributions["commands"]}
    kinds = ("readers", "writers", "sample_data")
    used = [entry["command"] for kind in kinds for entry in contributions[kind]]
    return sorted({python_names[command].partition(":")[0] for command in used})


def test_reader_and_sample_data_modules_load_neither_torch_nor_timm_nor_qt():
    modules = manifest_modules()
    assert modules
    for module in modules:
        loaded = {name.split(".")[0] for name in modules_after(f"import {module}")}
        assert loaded.isdisjoint({"torch", "timm", "qtpy", "PyQt6", "PySide6"}), module


def test_formats_session_and_batch_can_be_used_without_napari_or_torch():
    names = [n for n in ("formats.images", "session", "batch") if _exists(n)]
    assert "formats.images" in names
    for name in names:
        loaded = {module.split(".")[0] for module in modules_after(f"import napari_lightsam.{name}")}
        assert loaded.isdisjoint({"torch", "timm", "napari", "qtpy"}), name


def _exists(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
