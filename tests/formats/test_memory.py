"""What cannot fit into memory is refused on every system, before anything is allocated."""

import os
from types import SimpleNamespace

import pytest

from napari_lightsam.errors import FileError
from napari_lightsam.formats.memory import check_fits


@pytest.mark.parametrize("system", ["as it is", "without sysconf, as Windows"])
def test_more_than_the_memory_of_the_machine_is_refused(monkeypatch, system):
    if system != "as it is":
        monkeypatch.delattr(os, "sysconf", raising=False)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=3 * 2**30))
    check_fits("a.tif", 3 * 2**30)
    with pytest.raises(FileError, match=r"a.tif declares .* of 3.5 GiB, and this machine has 3.0 GiB"):
        check_fits("a.tif", 7 * 2**29)
