"""What napari compiles at its first use is compiled before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading
from pathlib import Path
import numpy as np
from napari.layers import Labels, Shapes
from napari_lightsam.plugin.viewer.warming import warm_up

def compiled():
    return sorted(path.name for path in Path(sys.argv[1]).rglob("*.nbc"))

warm_up()
warm_up()
(thread,) = [one for one in threading.enumerate() if one.name == "lightsam-warming"]
thread.join()
before = compiled()
Labels(np.zeros((8, 8), np.int32))
Shapes(None, ndim=2).add_rectangles([[(1, 1), (1, 5), (5, 5), (5, 1)]])
assert before and compiled() == before, (before, compiled())
"""


def test_labels_and_boxes_compile_nothing_once_the_widget_has_warmed_up(tmp_path):
    pytest.importorskip("numba")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "QT_QPA_PLATFORM": "offscreen"}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
