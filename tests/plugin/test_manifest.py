from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import npe2
import pytest
import yaml
from napari.components import ViewerModel

import napari_lightsam
from napari_lightsam.formats.export import FORMATS

FILE = Path(napari_lightsam.__file__).with_name("napari.yaml")
MANIFEST = yaml.safe_load(FILE.read_text(encoding="utf-8"))
CONTRIBUTIONS = MANIFEST["contributions"]
SAMPLES = [sample["key"] for sample in CONTRIBUTIONS["sample_data"]]


def test_the_manifest_is_valid_and_every_command_exists():
    manifest = npe2.PluginManifest.from_file(FILE)
    manifest.validate_imports()
    assert manifest.display_name == "LightSAM"


def test_every_menu_is_one_that_napari_lets_plugins_fill():
    from napari._app_model.constants import MenuId

    known = {str(menu) for menu in MenuId.contributables()}
    assert set(CONTRIBUTIONS["menus"]) <= known
    assert {"napari/layers/segment", "napari/file/io_utilities"} <= set(CONTRIBUTIONS["menus"])


def test_every_contribution_names_a_command():
    commands = {command["id"] for command in CONTRIBUTIONS["commands"]}
    named = [
        item["command"]
        for kind in ("widgets", "readers", "writers", "sample_data")
        for item in CONTRIBUTIONS[kind]
    ]
    named += [item["command"] for menu in CONTRIBUTIONS["menus"].values() for item in menu]
    assert set(named) == commands


def test_plain_image_types_are_not_claimed():
    patterns = [p for reader in CONTRIBUTIONS["readers"] for p in reader["filename_patterns"]]
    assert patterns == ["*.lightsam", "*.geojson", "*.roi", "*.zip"]
    builtins = npe2.PluginManifest.from_distribution("napari")
    claimed = {p for reader in builtins.contributions.readers for p in reader.filename_patterns}
    assert claimed.isdisjoint(patterns)


def test_every_format_has_a_writer_of_its_name_and_endings():
    single = [writer for writer in CONTRIBUTIONS["writers"] if writer["layer_types"] == ["labels"]]
    found = [(writer["display_name"], tuple(writer["filename_extensions"])) for writer in single]
    assert found == [(format_.title, format_.suffixes) for format_ in FORMATS.values()]


@pytest.mark.parametrize("key", SAMPLES)
def test_a_sample_opens_as_an_image_with_its_calibration(key):
    viewer = ViewerModel()
    (layer,) = viewer.open_sample("napari-lightsam", key)
    stack = key.endswith("3d")
    assert layer.ndim == (3 if stack else 2)
    assert layer.rgb == (key == "nuclei_histology")
    assert {str(unit) for unit in layer.units} == ({"micrometer"} if stack else {"pixel"})
    assert min(layer.data.shape[:2]) >= 25


def test_the_samples_are_of_several_modalities_and_their_licences_are_named():
    assert len(SAMPLES) == 7
    note = (FILE.parent / "samples" / "LICENSES.md").read_text(encoding="utf-8")
    assert all(f"`{key}.tif`" in note for key in SAMPLES)


@pytest.mark.parametrize(
    "module", ["reader", "writer", "sample_data", "commands", "viewer.axes", "controller"]
)
def test_nothing_of_the_manifest_imports_torch_or_timm_before_it_is_called(module):
    code = (
        f"import json, sys; import napari_lightsam.plugin.{module}; "
        "print(json.dumps([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
