"""`lightsam info`: what a bug report needs."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from napari_lightsam.cli.report import reported
from napari_lightsam.errors import ConfigError

_PACKAGES = (
    "napari-lightsam", "torch", "timm", "openvino", "napari", "numpy", "scikit-image", "tifffile",
    "safetensors",
)  # fmt: skip
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_CPU_PROBES = {
    "AVX2": "_is_avx2_supported",
    "AVX-512": "_is_avx512_supported",
    "AVX-512 bf16": "_is_avx512_bf16_supported",
    "AVX-512 VNNI": "_is_vnni_supported",
    "AMX": "_is_amx_tile_supported",
    "Arm bf16": "_is_arm_bf16_supported",
    "Arm SVE": "_is_arm_sve_supported",
}
_OPENGL = """
from vispy import app
from vispy.gloo import gl
app.use_app()
canvas = app.Canvas(show=False)
canvas.set_current()
print(gl.glGetParameter(gl.GL_RENDERER), "|", gl.glGetParameter(gl.GL_VERSION))
"""
OPENGL_SECONDS = 30
"""How long an OpenGL driver may take to answer."""


@reported
def info() -> None:
    """Print versions, the CPU, the device chosen and why, OpenGL, and where models are."""
    for name, value in collect():
        typer.echo(f"{name + ':':<23}{value}")


def collect() -> Iterator[tuple[str, str]]:
    """Find out everything, one (name, value) at a time."""
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    for package in _PACKAGES:
        yield package, installed(package) or "not installed"
    bindings = [f"{name} {found}" for name in _BINDINGS if (found := installed(name))]
    yield "Qt binding", ", ".join(bindings) or "none (napari's window needs one: napari[all])"
    yield "System", platform.platform()
    yield from _hardware()
    yield "OpenGL", opengl_renderer()
    yield from _models()


def installed(package: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> Iterator[tuple[str, str]]:
    import torch

    from napari_lightsam.batch.scale import count_cores
    from napari_lightsam.engine.runtime import choose_device

    probes = ((name, getattr(torch.cpu, probe, None)) for name, probe in _CPU_PROBES.items())
    features = [name for name, probe in probes if probe is not None and probe()]
    yield "CPU", f"{platform.processor() or platform.machine()}, {count_cores()} cores usable"
    yield "CPU features", ", ".join(features) or torch.backends.cpu.get_cpu_capability()
    yield "torch threads", str(torch.get_num_threads())
    for i in range(torch.cuda.device_count()):
        yield f"GPU {i}", torch.cuda.get_device_name(i)
    yield "Device", choose_device().reason
    yield "Runtime", _runtime()


def _runtime() -> str:
    """Say which runtime `auto` takes on the CPU, and why."""
    from napari_lightsam.engine.openvino import load_openvino
    from napari_lightsam.errors import DeviceError

    try:
        load_openvino()
    except DeviceError as error:
        return f"PyTorch. {error}"
    return "OpenVINO for models with a TinyViT encoder on the CPU, else PyTorch"


def opengl_renderer() -> str:
    """Ask the OpenGL driver in a process of its own: without a display it may crash or hang."""
    try:
        command = [sys.executable, "-c", _OPENGL]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=OPENGL_SECONDS, check=True)
    except subprocess.TimeoutExpired:
        return f"none (no answer within {OPENGL_SECONDS} s)"
    except (subprocess.CalledProcessError, OSError):
        return "none (no display, no Qt binding or no driver)"
    *_, last = ["", *answer.stdout.strip().splitlines()]
    named = last.partition("|")[0].strip()  # a display without OpenGL answers with nothing
    return last if named else "none (this display has no OpenGL)"


def _folder(find: Callable[[], Path]) -> Path | str:
    """Return a folder of the user, or in words why there is none."""
    try:
        return find()
    except ConfigError as error:
        return f"none. {error}"


def _models() -> Iterator[tuple[str, str]]:
    from napari_lightsam.engine.download import cache_folder, list_models, search_folders
    from napari_lightsam.engine.local import local_folder

    cache, own = _folder(cache_folder), _folder(local_folder)
    for folder in search_folders():
        kind = "cache, downloads go here" if folder == cache else "LIGHTSAM_MODEL_PATH, searched first"
        there = "" if os.path.isdir(folder) else ", not there yet"
        yield "Model folder", f"{folder} ({kind}{there})"
    if isinstance(cache, str):
        yield "Model folder", cache
    there = "" if isinstance(own, str) or os.path.isdir(own) else " (not there yet)"
    yield "Your own models", f"{own}{there}"
    for model in list_models():
        where = "in the package" if model.embedded else "available" if model.available else "not downloaded"
        yield f"  {model.name}", f"{where}{'. ' + model.problem if model.problem else ''}"
