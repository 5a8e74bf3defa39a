"""The project around the code: what the wheel holds, and that its texts agree with each other."""

import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import napari_lightsam

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "napari_lightsam"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    from hatchling.builders.wheel import WheelBuilder

    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == package


@pytest.mark.parametrize(
    "name",
    [
        "napari.yaml",
        "py.typed",
        "weights/lightsam.safetensors",
        "weights/lightsam.md",
        "samples/LICENSES.md",
        "samples/nuclei_fluorescence.tif",
        "samples/neurites_fibsem_3d.tif",
    ],
)
def test_the_wheel_holds_what_the_package_reads_at_run_time(wheel, name):
    assert wheel.getinfo(f"napari_lightsam/{name}").file_size == (PACKAGE / name).stat().st_size


def test_the_wheel_carries_the_licence_the_command_and_the_manifest_entry(wheel):
    info = f"napari_lightsam-{napari_lightsam.__version__}.dist-info"
    assert "BSD 3-Clause" in wheel.read(f"{info}/licenses/LICENSE").decode()
    entry_points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "lightsam = napari_lightsam.cli:main" in entry_points
    assert "napari-lightsam = napari_lightsam:napari.yaml" in entry_points
    assert "Framework :: napari" in wheel.read(f"{info}/METADATA").decode()


def test_the_licences_of_the_samples_go_along_with_them(wheel):
    info = f"napari_lightsam-{napari_lightsam.__version__}.dist-info"
    named = re.findall(r"`([^`]+\.txt)`", wheel.read("napari_lightsam/samples/LICENSES.md").decode())
    there = {name.rpartition("/")[2] for name in wheel.namelist() if f"{info}/licenses/licenses/" in name}
    assert set(named) == there
    assert len(named) == 4
    for name in named:
        text = wheel.read(f"{info}/licenses/licenses/{name}").decode()
        assert "MIT" not in name or re.search(r"Copyright \(c\) 20\d\d \w+[\s\S]*AS IS", text), name


def test_the_source_distribution_holds_what_its_texts_and_tests_name(tmp_path):
    from hatchling.builders.sdist import SdistBuilder

    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert {
        *linked,
        ".ci/run",
        "napari.yaml",
        "licenses/Usiigaci-MIT.txt",
        "tests/conftest.py",
    } - inside == set()
    assert not {name for name in inside if re.search(r"__pycache__|\.pyc$|^shared/", name)}


def test_version_numbers_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert newest is not None
    versions = {PROJECT["project"]["version"], citation["version"], newest[1], napari_lightsam.__version__}
    assert len(versions) == 1


def test_licences_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["project"]["license"] == citation["license"] == "BSD-3-Clause"


def test_the_manifest_at_the_root_is_the_packages_own():
    assert (ROOT / "napari.yaml").resolve() == (PACKAGE / "napari.yaml").resolve()


def test_the_manifest_names_the_project():
    manifest = yaml.safe_load((PACKAGE / "napari.yaml").read_text(encoding="utf-8"))
    assert manifest["name"] == PROJECT["project"]["name"]
    assert manifest["display_name"] == "LightSAM"
    assert {"Segmentation", "Annotation"} <= set(manifest["categories"])


@pytest.mark.parametrize(
    "line",
    [
        'python -m pip install ".[all]" && lightsam demo',
        'python -m pip install -e ".[all,test]" && python -m pytest -n 2',
    ],
)
def test_the_readme_gives_each_of_its_two_lines_once(line):
    assert README.splitlines().count(line) == 1


def test_ci_reads_the_two_lines_from_the_readme_and_repeats_neither():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "pip install" not in re.sub(r"readme_line '[^']*'", "", script)
    patterns = re.findall(r"readme_line '([^']*)'", script)
    assert len(patterns) == 3
    for pattern in patterns:
        assert len(re.findall(pattern, README, re.MULTILINE)) == 1


def test_ci_stops_loudly_when_the_readme_has_lost_a_line(tmp_path):
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash on this machine")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    (tmp_path / "README.md").write_text("# napari-lightsam\n", encoding="utf-8")
    run = subprocess.run(
        [bash, str(tmp_path / ".ci" / "run")], capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode != 0
    assert "README.md must have exactly one line that matches" in run.stderr
    assert "===" not in run.stdout


def test_no_runtime_dependency_brings_a_qt_binding_or_caps_napari():
    dependencies = PROJECT["project"]["dependencies"]
    names = {re.split(r"[^A-Za-z0-9_.-]", dependency)[0].lower() for dependency in dependencies}
    assert names.isdisjoint({"pyqt5", "pyqt6", "pyside2", "pyside6"})
    (napari,) = [d for d in dependencies if re.match(r"napari\b", d)]
    assert "[" not in napari
    assert "<" not in napari


def test_every_bundled_sample_has_a_licence_note():
    notes = (PACKAGE / "samples" / "LICENSES.md").read_text(encoding="utf-8")
    for path in sorted((PACKAGE / "samples").glob("*.tif")):
        assert path.stem in notes, path.name
